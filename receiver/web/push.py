"""The push endpoints: admit, save, acknowledge."""

from __future__ import annotations

import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import IO, TYPE_CHECKING

from flask import Blueprint, Response, g, request
from werkzeug.routing import BaseConverter

from receiver.core import DatabaseUnavailable
from receiver.intake.admission import BrokenBody, PushRequest, Refused
from receiver.intake.push_path import PUSH_PATH, read_push_path
from receiver.observability import metrics
from receiver.web import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.intake.batch_writer import Acknowledged
    from receiver.runtime import Runtime

blueprint = Blueprint("push", __name__)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_DURABLE_WITHIN_SECONDS = 30


class _PushPathConverter(BaseConverter):
    """Matches any path of a push."""

    part_isolating = False
    regex = PUSH_PATH


# Registered together with the blueprint, before its routes.
blueprint.record_once(lambda state: state.app.url_map.converters.update(push_path=_PushPathConverter))


@blueprint.route("/<push_path:written>", methods=_METHODS, strict_slashes=False, provide_automatic_options=False)
def push(written: str) -> Response:
    """Acknowledge a push once it is durable."""
    services = runtime()
    path = read_push_path(written)
    environ = request.environ
    push_request = PushRequest(
        secret=path.secret,
        endpoint=path.endpoint,
        strayed=path.strayed,
        method=request.method,
        query=environ.get("QUERY_STRING", "").encode("latin-1"),
        content_length=environ.get("CONTENT_LENGTH"),
        chunked="HTTP_TRANSFER_ENCODING" in environ,  # other transfer encodings were refused before
        content_type=environ.get("CONTENT_TYPE") or None,
        peer=environ.get("REMOTE_ADDR") or "",
        forwarded_for=environ.get("HTTP_X_FORWARDED_FOR"),
        referred="HTTP_REFERER" in environ,
        # Flask's stream would hide a short body.
        read=_reader(environ["wsgi.input"]),
    )
    try:
        admitted = services.admission.admit(push_request)
    except Refused as refused:
        g.untold = not refused.logged
        raise
    if admitted is None:
        return acknowledgement(services, None)
    started = time.perf_counter()
    services.start()
    try:
        acknowledged = services.batch_writer.enqueue(admitted).result(timeout=_DURABLE_WITHIN_SECONDS)
    except FutureTimeout:
        raise DatabaseUnavailable("the push could not be made durable in time; push it again") from None
    metrics.ACK_SECONDS.observe(time.perf_counter() - started)
    return acknowledgement(services, acknowledged)


def acknowledgement(services: Runtime, acknowledged: Acknowledged | None) -> Response:
    """Return the answer to a durable push, or to a probe (None)."""
    settings = services.settings
    ack = Response(settings.ack_body, status=settings.ack_status, content_type=settings.ack_content_type)
    if acknowledged is not None:
        ack.headers["X-Push-Id"] = str(acknowledged.push.id)
        ack.headers["X-Push-Outcome"] = acknowledged.outcome.value
        if acknowledged.push.error is not None:
            ack.headers["X-Push-Error"] = acknowledged.push.error
    return ack


def _reader(stream: IO[bytes]) -> Callable[[int], bytes]:
    def read(max_bytes: int) -> bytes:
        try:
            return stream.read(max_bytes)
        except Exception as error:
            raise BrokenBody("the body ended early or has an invalid chunked encoding") from error

    return read
