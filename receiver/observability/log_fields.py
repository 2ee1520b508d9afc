"""The names of what a log line holds, in each format: this table alone.

Code logs by the names of the first column. What is not in the table goes by `receiver.NAME` in the formats of others,
where a bare name might mean something else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from receiver import __version__
from receiver.core import LogFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A field's name in each format, and what it says."""

    json: str
    ecs: str
    otel: str
    meaning: str


def _field(json: str, ecs: str, otel: str, meaning: str) -> Field:
    return Field(json=json, ecs=ecs, otel=otel, meaning=meaning)


FIELDS: Mapping[str, Field] = {
    "timestamp": _field("timestamp", "@timestamp", "timestamp", "Time, UTC."),
    "level": _field("level", "log.level", "severity_text", "`debug`, `info`, `warning`, `error` or `critical`."),
    "message": _field("message", "message", "body", "Text for people. For a request: method, route and status."),
    "event": _field("event", "event.action", "event_name", "What happened, in fixed words. For a request: `request`."),
    "logger": _field(
        "logger", "log.logger", "otel.scope.name", "The part of the program, or the library, that wrote the line."
    ),
    "method": _field("method", "http.request.method", "http.request.method", "Method of the request, or `other`."),
    "route": _field(
        "route", "http.route", "http.route", "The route's template, never a path: a path may hold a secret."
    ),
    "status": _field("http_status", "http.response.status_code", "http.response.status_code", "Status of the answer."),
    "duration_ms": _field(
        "duration_ms",
        "event.duration",
        "receiver.duration_ms",
        "Duration of the request in milliseconds; `event.duration` is in nanoseconds.",
    ),
    "bytes_in": _field(
        "bytes_in", "http.request.body.bytes", "http.request.body.size", "Length of the request's body."
    ),
    "client": _field("client", "client.address", "client.address", "Address of the client."),
    "remote_addr": _field("client", "client.address", "client.address", "Address of the client."),
    "actor": _field("actor", "user.name", "user.name", "The API key or user."),
    "request_id": _field("request_id", "http.request.id", "receiver.request_id", "Id of the request."),
    "push_id": _field("push_id", "receiver.push_id", "receiver.push_id", "Id of the push."),
    "outcome": _field("outcome", "receiver.outcome", "receiver.outcome", "Outcome of the push or the send."),
    "error": _field("error", "error.type", "error.type", "Type of the error."),
    "reason": _field("reason", "error.message", "error.message", "The reason, in words."),
    "exception": _field("exception", "error.stack_trace", "exception.stacktrace", "The error with its traceback."),
}
_FIRST = ("timestamp", "level", "message", "event", "logger")
_ECS_VERSION = "8.11.0"
_ABOVE_ATTRIBUTES = frozenset({"timestamp", "severity_text", "body", "event_name"})
_SEVERITY_NUMBERS = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
NANOSECONDS = 1_000_000  # in a millisecond


def name_fields(event: Mapping[str, Any], form: LogFormat) -> dict[str, Any]:
    """Return a line's fields as the format names them, the usual first ones first."""
    event = {"message": _message(event), **event}
    ordered = {name: event[name] for name in _FIRST if name in event} | event
    if form is LogFormat.JSON:
        return {FIELDS[name].json if name in FIELDS else name: value for name, value in ordered.items()}
    if form is LogFormat.ECS:
        return _ecs(ordered)
    return _otel(ordered)


def _message(event: Mapping[str, Any]) -> str:
    if "method" in event and "status" in event:
        return f"{event['method']} {event.get('route', '(no route)')} {event['status']}"
    return str(event.get("event", ""))


def _ecs(event: Mapping[str, Any]) -> dict[str, Any]:
    named = {FIELDS[name].ecs if name in FIELDS else f"receiver.{name}": value for name, value in event.items()}
    if isinstance(took := event.get("duration_ms"), float):
        named["event.duration"] = round(took * NANOSECONDS)
    return named | {"ecs.version": _ECS_VERSION, **_service()}


def _otel(event: Mapping[str, Any]) -> dict[str, Any]:
    named = {FIELDS[name].otel if name in FIELDS else f"receiver.{name}": value for name, value in event.items()}
    above = {name: value for name, value in named.items() if name in _ABOVE_ATTRIBUTES}
    if (number := _SEVERITY_NUMBERS.get(event.get("level", ""))) is not None:
        above["severity_number"] = number
    attributes = {name: value for name, value in named.items() if name not in _ABOVE_ATTRIBUTES}
    return above | {"attributes": attributes, "resource": _service()}


def _service() -> dict[str, str]:
    return {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "receiver", "service.version": __version__}
