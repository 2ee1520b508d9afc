"""The push endpoints: gate, intake, ack, and nothing else."""

from __future__ import annotations

import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import IO, TYPE_CHECKING

from flask import Blueprint, Response, g, request
from werkzeug.routing import BaseConverter

from receiver.core import DatabaseUnavailable
from receiver.intake import PUSH_PATH, Acknowledged, BrokenBody, PushRequest, Refused, read_push_path
from receiver.observability import metrics
from receiver.web import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime

blueprint = Blueprint("push", __name__)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_DURABLE_WITHIN_SECONDS = 30


class _PushPathConverter(BaseConverter):
    """The path of a push, whatever it is."""

    part_isolating = False
    regex = PUSH_PATH


# Deferred like the route, and before it.
blueprint.record_once(lambda state: state.app.url_map.converters.update(push_path=_PushPathConverter))


@blueprint.route("/<push_path:written>", methods=_METHODS, strict_slashes=False, provide_automatic_options=False)
def push(written: str) -> Response:
    """Acknowledge a push once it is durable."""
    parts = runtime()
    path = read_push_path(written)
    environ = request.environ
    asked = PushRequest(
        secret=path.secret,
        endpoint=path.endpoint,
        strayed=path.strayed,
        method=request.method,
        query=environ.get("QUERY_STRING", "").encode("latin-1"),
        content_length=environ.get("CONTENT_LENGTH"),
        chunked="HTTP_TRANSFER_ENCODING" in environ,  # any other than chunks at last has been refused
        content_type=environ.get("CONTENT_TYPE") or None,
        peer=environ.get("REMOTE_ADDR") or "",
        forwarded_for=environ.get("HTTP_X_FORWARDED_FOR"),
        referred="HTTP_REFERER" in environ,
        # Flask's own stream would hide a short body.
        read=_reader(environ["wsgi.input"]),
    )
    try:
        admitted = parts.admission.admit(asked)
    except Refused as refused:
        g.untold = not refused.told
        raise
    if admitted is None:
        return acknowledgement(parts, None)
    started = time.perf_counter()
    parts.start()
    try:
        kept = parts.batch_writer.submit(admitted).result(timeout=_DURABLE_WITHIN_SECONDS)
    except FutureTimeout:
        raise DatabaseUnavailable("the push could not be made durable in time; push it again") from None
    metrics.ACK_SECONDS.observe(time.perf_counter() - started)
    return acknowledgement(parts, kept)


def acknowledgement(parts: Runtime, kept: Acknowledged | None) -> Response:
    """Make the answer to a push that is durable, or to a bare probe (None)."""
    settings = parts.settings
    ack = Response(settings.ack_body, status=settings.ack_status, content_type=settings.ack_content_type)
    if kept is not None:
        ack.headers["X-Push-Id"] = str(kept.push.id)
        ack.headers["X-Push-Outcome"] = kept.outcome.value
        if kept.push.error is not None:
            ack.headers["X-Push-Error"] = kept.push.error
    return ack


def _reader(stream: IO[bytes]) -> Callable[[int], bytes]:
    def read(max_bytes: int) -> bytes:
        try:
            return stream.read(max_bytes)
        except Exception as error:
            raise BrokenBody("the body broke off, or is not chunked as it says") from error

    return read
