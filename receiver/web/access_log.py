"""Access log: one line per request, and the metrics of those that are no pushes.

A line never holds a path, query, header or body: each may contain a secret, a number or a code. It holds the route's
template and the name of the key or user.
"""

from __future__ import annotations

import json
import logging
import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request

from receiver.config import within
from receiver.core import LogFormat, ReceiverError, new_id
from receiver.intake.admission import Refused, client_address
from receiver.intake.batch_writer import Acknowledged
from receiver.observability import bound_request_id, get_logger, metrics, redact, tracing, write_rendered
from receiver.observability.log_fields import name_fields
from receiver.web import runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from wsgiref.types import WSGIEnvironment

    from receiver.config import Network, Settings

_NAME = "receiver.access"
_log = get_logger(_NAME)

_EVENT = "request"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Requested every few seconds by programs, or with every page: logged at level debug.
_QUIET = frozenset({"ops.healthz", "ops.readyz", "ops.metrics_page", "docs.asset", "console.static"})
_REQUEST_ID = re.compile(r"[0-9A-Fa-f-]{16,64}", re.ASCII)  # as proxies generate them
_PUSH_ROUTE = "/push/***"  # one for all: the path after a secret may contain another secret


def request_id(given: str | None, peer: str, trusted_proxies: Sequence[Network]) -> str:
    """Return the id of a request: a trusted proxy's id if it is valid, else a new one."""
    if given and _REQUEST_ID.fullmatch(given) and redact(given) == given and within(peer, trusted_proxies):
        return given
    return new_id().hex


def level_of(status: int) -> int:
    """Return the log level for an answer's status."""
    if status >= 500:
        return logging.ERROR
    return logging.WARNING if status >= 400 else logging.INFO


def record_request(
    settings: Settings,
    environ: WSGIEnvironment,
    *,
    status: int,
    began: float,
    route: str | None,
    level: int | None = None,
    fault: BaseException | None = None,
    **more: Any,
) -> None:
    """Count a request and write its line; `began` by `perf_counter`. Values of `more` that are None are left out.

    `fault`: what the request failed by. A failed request has a line where others have none.
    """
    seconds = time.perf_counter() - began
    method = environ.get("REQUEST_METHOD", "")
    method = method if method in _METHODS else "other"
    if route != _PUSH_ROUTE:  # counted where they are admitted
        metrics.count_request(route, method, status, seconds)
    if status < 500 and not settings.access_log:
        return
    if isinstance(fault, ReceiverError):
        more |= {"error": type(fault).__name__, "reason": str(fault)}
    elif fault is not None:
        more["exc_info"] = fault
    peer = environ.get("REMOTE_ADDR") or ""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit():
        more["bytes_in"] = int(length)
    _log.log(
        level_of(status) if level is None else level,
        _EVENT,
        method=method,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        client=client_address(peer, environ.get("HTTP_X_FORWARDED_FOR"), settings.trusted_proxies),
        **{name: value for name, value in {"route": route, **more}.items() if value is not None},
    )


def register(app: Flask) -> None:
    """Log and trace every request of the application, and add its id to all log lines written meanwhile."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_unbind)


def _begin() -> None:
    given = request.headers.get("X-Request-Id")
    g.request_id = request_id(given, request.remote_addr or "", runtime().settings.trusted_proxies)
    g.request_began = time.perf_counter()
    bound_request_id.set(g.request_id)
    vouched = within(request.remote_addr or "", runtime().settings.trusted_proxies)
    route = _route()
    g.span_ends = ExitStack()
    g.span = g.span_ends.enter_context(
        tracing.span(
            f"{_method()} {route or 'nowhere'}",
            kind="SERVER",
            traceparent=request.headers.get("traceparent") if vouched else None,
        )
    )
    about = {"http.request.method": _method(), "http.route": route, "receiver.request_id": g.request_id}
    tracing.note(g.span, about)


def _end(response: Response) -> Response:
    if "request_began" not in g:  # an answer prepared in advance, without a request
        return response
    push_id = response.headers.get("X-Push-Id")
    if push_id is None:
        response.headers["X-Request-Id"] = g.request_id
    tracing.note(g.span, {"http.response.status_code": response.status_code, "receiver.push_id": push_id})
    if response.status_code >= 500:
        tracing.fail(g.span, str(response.status_code))
    if g.get("untold"):
        return response
    caller = g.get("caller")
    quiet = request.endpoint in _QUIET and response.status_code < 500
    # After the body is sent: an export has only begun at this point.
    response.call_on_close(
        partial(
            record_request,
            runtime().settings,
            request.environ,
            status=response.status_code,
            began=g.request_began,
            level=logging.DEBUG if quiet else None,
            route=_route(),
            push_id=push_id,
            outcome=response.headers.get("X-Push-Outcome"),
            actor=None if caller is None else caller.name,
            fault=g.get("fault"),
            request_id=g.request_id,
        )
    )
    return response


def _unbind(_error: BaseException | None) -> None:
    bound_request_id.set(None)
    if "span_ends" in g:
        g.span_ends.close()


def _route() -> str | None:
    """Return the route's template; for a push, without its path."""
    if request.endpoint == "push.push":
        return _PUSH_ROUTE
    return None if request.url_rule is None else request.url_rule.rule


def _method() -> str:
    return request.method if request.method in _METHODS else "other"


class PushLog:
    """Writes the lines of pushes that took the fast path, for a few microseconds each.

    It renders the lines itself, not by the logging library.
    """

    def __init__(self, settings: Settings) -> None:
        self._on = settings.access_log
        console = settings.log_format is LogFormat.CONSOLE
        self._line = None if console else PushLine(settings.log_format, settings.ack_status)
        self._status = settings.ack_status

    def add(self, answered: Sequence[tuple[Acknowledged | ReceiverError, str | None, float]]) -> None:
        """Log answered pushes: the result of each, its request id, the seconds it took."""
        if not self._on:
            answered = [each for each in answered if not isinstance(each[0], Acknowledged)]
        if not answered:
            return
        info = logging.getLogger(_NAME).isEnabledFor(logging.INFO)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lines = []
        for result, given_id, seconds in answered:
            if not isinstance(result, Acknowledged):
                why = {"error": type(result).__name__, "reason": str(result)}
                known = {"request_id": given_id} if given_id else {}
                _log.error(_EVENT, method="POST", route=_PUSH_ROUTE, status=503, **known, **why)
            elif info and self._line is not None:
                lines.append(self._line.render(result, given_id, seconds, now=now))
            elif info:
                _log.info(_EVENT, **_fields(result, given_id, seconds, status=self._status))
        if lines:
            write_rendered("".join(lines))
        metrics.count_dropped_lines()

    def add_refused(self, refused: Refused, *, method: str, bytes_in: int | None, seconds: float) -> None:
        """Log a refused push, unless the admission suppressed it."""
        if self._on and refused.logged:
            more = {} if bytes_in is None else {"bytes_in": bytes_in}
            _log.warning(
                _EVENT,
                method=method,
                status=refused.status,
                duration_ms=round(seconds * 1000, 1),
                client=refused.address,
                route=_PUSH_ROUTE,
                request_id=refused.request_id,
                **more,
            )


def _fields(
    acknowledged: Acknowledged, given_id: str | None, seconds: float, *, status: int
) -> dict[str, str | int | float]:
    push = acknowledged.push
    return {
        "method": push.method,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "bytes_in": len(push.body),
        "client": push.remote_addr,
        "route": _PUSH_ROUTE,
        "push_id": str(push.id),
        "outcome": str(acknowledged.outcome),
        **({"request_id": given_id} if given_id else {}),
    }


class PushLine:
    """The line of an acknowledged push, made ahead but for what differs: as the logging library would write it."""

    def __init__(self, form: LogFormat, status: int) -> None:
        nanoseconds = form is LogFormat.ECS
        self._units = 1e9 if nanoseconds else 1e3  # of a duration, in a second
        differing = {**_DIFFER, "duration_ms": "%.0f"} if nanoseconds else _DIFFER
        self._without_id = _line_to_fill(form, status, differing)
        self._with_id = _line_to_fill(form, status, {**differing, "request_id": '"%s"'})

    def render(self, acknowledged: Acknowledged, given_id: str | None, seconds: float, *, now: str) -> str:
        """Return the line of one push."""
        push = acknowledged.push
        client = _quoted(push.remote_addr)
        differs = (now, seconds * self._units, len(push.body), client, push.id, acknowledged.outcome)
        return self._with_id % (*differs, given_id) if given_id else self._without_id % differs


# In the order of the line. What is quoted here has nothing in it that JSON would escape.
_DIFFER = {
    "timestamp": '"%s"',
    "duration_ms": "%.1f",
    "bytes_in": "%d",
    "client": "%s",
    "push_id": '"%s"',
    "outcome": '"%s"',
}


def _line_to_fill(form: LogFormat, status: int, differing: Mapping[str, str]) -> str:
    """Return a line with a place for each differing value."""
    fixed = {"event": _EVENT, "level": "info", "logger": _NAME, "method": "POST", "status": status}
    places = {name: f"<{name}>" for name in differing}
    line = name_fields({**fixed, "route": _PUSH_ROUTE, **places}, form)
    text = json.dumps(line, ensure_ascii=False).replace("%", "%%")
    for name, place in places.items():
        text = text.replace(f'"{place}"', differing[name])
    return f"{text}\n"


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(redact(text), ensure_ascii=False)
