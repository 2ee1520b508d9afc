"""For whoever runs it: is it up, can it make a push durable, what does it count."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, redirect, url_for
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, SpoolUnavailable
from receiver.db import version
from receiver.intake import spool_state
from receiver.observability import count_dropped, metrics
from receiver.web import runtime
from receiver.web.errors import problem
from receiver.web.metrics_collector import Scrape, age_seconds

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as WerkzeugResponse

    from receiver.runtime import Runtime

_FIRST_CONTACT_SECONDS = 0.5

blueprint = Blueprint("ops", __name__)


@blueprint.get("/")
def home() -> WerkzeugResponse:
    """Lead people to the console; programs know their way."""
    return redirect(url_for("console.home"))


@blueprint.get("/console")
def console() -> WerkzeugResponse:
    """Lead to the console as it is written right: by a path alone, whatever scheme and port the browser used."""
    return redirect(url_for("console.home"))


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Return whether a push can be made durable, and how; 503 and why where it cannot."""
    parts = runtime()
    parts.start()
    spool = spool_state(parts.spool.directory)
    waiting = {"records": spool.records, "bytes": spool.bytes, "age_seconds": age_seconds(spool)}
    reason = _why_not_database(parts)
    if reason is None:
        return jsonify(status="ok", durable="database", spool=waiting)
    try:
        parts.spool.check()
    except SpoolUnavailable as error:
        return problem(503, "not_ready", f"{reason}; {error}")
    return jsonify(status="ok", durable="spool", reason=reason, spool=waiting)


def _why_not_database(parts: Runtime) -> str | None:
    if not parts.availability.await_known(_FIRST_CONTACT_SECONDS):
        return parts.availability.reason
    try:
        version.require_schema(parts.intake_database)
        parts.intake_database.require_writable()
    except (DatabaseUnavailable, DatabaseMisconfigured) as error:
        return str(error)
    return None


@blueprint.get("/metrics")
def metrics_page() -> Response:
    """Return every metric in Prometheus' text form: what all serving processes have counted, and what is asked now."""
    count_dropped()
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # see receiver/server/multiprocess_metrics.py
        MultiProcessCollector(registry)
    else:
        registry.register(metrics.REGISTRY)
    registry.register(Scrape(runtime()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
