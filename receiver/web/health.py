"""Endpoints for operators: liveness, readiness, metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, redirect, url_for
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, SpoolUnavailable
from receiver.db import version
from receiver.intake.spool import spool_state
from receiver.observability import metrics
from receiver.observability.processes import ProcessCollector
from receiver.web import runtime
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import problem
from receiver.web.metrics_collector import Scrape, age_seconds

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as WerkzeugResponse

    from receiver.runtime import Runtime

_FIRST_CONTACT_SECONDS = 0.5

blueprint = Blueprint("ops", __name__)


@blueprint.get("/")
def home() -> WerkzeugResponse:
    """Redirect to the console."""
    return redirect(url_for("console.home"))


@blueprint.get("/console")
def console() -> WerkzeugResponse:
    """Redirect to the console with its final slash: by a path, so that scheme and port stay."""
    return redirect(url_for("console.home"))


@blueprint.get("/healthz")
def healthz() -> Response:
    """Return that the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Return whether a push can be made durable, and how; otherwise 503 with the reason."""
    services = runtime()
    services.start()
    spool = spool_state(services.spool.directory)
    waiting = {"records": spool.records, "bytes": spool.bytes, "age_seconds": age_seconds(spool)}
    reason = _database_fault(services)
    if reason is None:
        return jsonify(status="ok", durable="database", spool=waiting)
    try:
        services.spool.check()
    except SpoolUnavailable as error:
        return problem(503, ErrorCode.NOT_READY, f"{reason}; {error}")
    return jsonify(status="ok", durable="spool", reason=reason, spool=waiting)


def _database_fault(services: Runtime) -> str | None:
    if not services.availability.await_known(_FIRST_CONTACT_SECONDS):
        return services.availability.reason
    try:
        version.require_schema(services.intake_database)
        services.intake_database.require_writable()
    except (DatabaseUnavailable, DatabaseMisconfigured) as error:
        return str(error)
    return None


@blueprint.get("/metrics")
def metrics_page() -> Response:
    """Return all metrics in Prometheus' text format: counters of all serving processes, and gauges read now."""
    metrics.count_dropped_lines()
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # set by metrics.start_in_files
        MultiProcessCollector(registry)
    else:
        registry.register(metrics.REGISTRY)
    registry.register(Scrape(runtime()))
    registry.register(ProcessCollector(os.environ.get("PROMETHEUS_MULTIPROC_DIR")))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
