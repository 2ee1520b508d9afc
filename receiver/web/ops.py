"""For whoever runs it: is it up, can it make a push durable, what does it count."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, redirect
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from receiver import metrics
from receiver.errors import SpoolUnavailable, StoreUnavailable, StoreUnfit
from receiver.intake.spool import spool_state
from receiver.store import balance, schema
from receiver.store.busiest import SPIKE_MIN_SENT, By, list_busiest
from receiver.web import runtime
from receiver.web.problems import problem

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as WerkzeugResponse

    from receiver.intake.spool import SpoolState
    from receiver.runtime import Runtime

_FIRST_CONTACT_SECONDS = 0.5

blueprint = Blueprint("ops", __name__)


@blueprint.get("/")
def home() -> WerkzeugResponse:
    """Lead people to the console; programs know their way."""
    return redirect("/console/")


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether a push can be made durable, and how; 503 and why where it cannot."""
    parts = runtime()
    parts.start()
    spool = spool_state(parts.spool.directory)
    waiting = {"records": spool.records, "bytes": spool.bytes, "age_seconds": _age_seconds(spool)}
    reason = _why_not_database(parts)
    if reason is None:
        return jsonify(status="ok", durable="database", spool=waiting)
    try:
        parts.spool.check()
    except SpoolUnavailable as error:
        return problem(503, "not_ready", f"{reason}; {error}")
    return jsonify(status="ok", durable="spool", reason=reason, spool=waiting)


def _why_not_database(parts: Runtime) -> str | None:
    if not parts.link.await_known(_FIRST_CONTACT_SECONDS):
        return parts.link.reason
    try:
        schema.require_schema(parts.intake_database)
    except (StoreUnavailable, StoreUnfit) as error:
        return str(error)
    return None


def _tell_balances(parts: Runtime) -> None:
    try:
        readings = parts.ask(balance.find_last_readings)
    except (StoreUnavailable, StoreUnfit):
        return  # what was last known stays
    for account, reading in readings.items():
        threshold = parts.settings.balance_low_of(account)
        metrics.BALANCE.labels(account).set(reading.remain_point)
        metrics.BALANCE_LOW.labels(account).set(threshold is not None and reading.remain_point < threshold)
        metrics.BALANCE_AGE.labels(account).set((parts.now() - reading.answered_at).total_seconds())


def _tell_spikes(parts: Runtime) -> None:
    now = parts.now()
    hour_ago = now - timedelta(hours=1)
    try:
        found = parts.ask(
            lambda c: list_busiest(c, By.PREFIX, since=hour_ago, until=now, min_sent=SPIKE_MIN_SENT, limit=200)
        )
    except (StoreUnavailable, StoreUnfit):
        return
    metrics.SEND_SPIKES.set(len({busy.key for busy in found if busy.spike}))


def _age_seconds(spool: SpoolState) -> float:
    return 0.0 if spool.oldest_at is None else round(max(0.0, time.time() - spool.oldest_at), 1)


@blueprint.get("/metrics")
def metrics_page() -> Response:
    """Give every metric in Prometheus' text form."""
    spool = spool_state(runtime().spool.directory)
    metrics.SPOOL_RECORDS.set(spool.records)
    metrics.SPOOL_BYTES.set(spool.bytes)
    metrics.SPOOL_OLDEST.set(_age_seconds(spool))
    metrics.DATABASE_UP.set(runtime().link.up)
    metrics.EVENTS_LAG.set(runtime().horizon.lag_seconds)
    _tell_balances(runtime())
    _tell_spikes(runtime())
    return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
