"""For whoever runs it: is it up, can it make a push durable, what does it count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, redirect
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from receiver.errors import StoreUnavailable, StoreUnfit
from receiver.store import schema
from receiver.web import runtime
from receiver.web.problems import problem

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as WerkzeugResponse

blueprint = Blueprint("ops", __name__)


@blueprint.get("/")
def home() -> WerkzeugResponse:
    """Lead a newcomer to the documentation."""
    return redirect("/api/v1/docs")


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether a push can be made durable, and how; 503 and why where it cannot."""
    try:
        schema.require_schema(runtime().database)
    except (StoreUnavailable, StoreUnfit) as error:
        return problem(503, "not_ready", str(error))
    return jsonify(status="ok", durable="database")


@blueprint.get("/metrics")
def metrics_page() -> Response:
    """Give every metric in Prometheus' text form."""
    return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
