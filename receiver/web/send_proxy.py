"""The send proxy: forwards a sender's requests to the platform and records the sends.

It has its own internal listener. Its answers are the platform's, byte for byte. Its own failures have the platform's
fields too, since senders read no others. It has no limits and no credentials of its own.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from receiver.core import ReceiverError
from receiver.platform.client import BALANCE_PATH, SEND_PATH, SMS_API
from receiver.sending.service import PassedRequest
from receiver.web.access_log import record_request
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import answer_for, problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from receiver.runtime import Runtime

_INTERFACES = {f"{SMS_API}{path}": path for path in (SEND_PATH, BALANCE_PATH)}
_PRODUCT = re.compile(r"/[A-Za-z0-9]+Api(?:/.*)?", re.DOTALL)  # /smsApi, /mmsApi, /voiceApi: all on one host
_OTHER_ROUTE = "/<product>/<path>"
_BODY_MAX_BYTES = 64 * 1024
_OTHER_BODY_MAX_BYTES = 8 * 1024 * 1024  # of group sends and pictures
_FIELDS_MAX = 100
_FIELD_MAX_CHARS = 255
_VISIBLE = bytes(range(0x21, 0x7F))
# Headers of one connection, or of no use to the platform. All others are forwarded unchanged.
_NOT_FORWARDED = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "forwarded", "host", "http2-settings",
        "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
    }
)  # fmt: skip
# The content type of the platform's own answers.
_JSON = "application/json;charset=UTF-8"


class SendProxy:
    """Answers requests at the send proxy's listener."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        began = time.perf_counter()
        path = _path(environ)
        fault: ReceiverError | None = None
        failed: str | None = None
        try:
            answer = self._answer(Request(environ), path)
        except ReceiverError as error:
            answer = _failure(answer_for(error))
            fault = error if answer.status_code >= 500 else None
        except RequestEntityTooLarge:
            answer = _failure(problem(413, ErrorCode.TOO_LARGE, "the body is too large; nothing was sent"))
        except HTTPException as error:
            answer = _failure(problem(error.code or 400, ErrorCode.MALFORMED, "the request is malformed"))
        except Exception as error:  # noqa: BLE001  (the edge of a request: its text may hold a code)
            failed = type(error).__name__
            answer = _failure(problem(500, ErrorCode.INTERNAL, "internal server error"))
        record_request(
            self._runtime.settings,
            environ,
            status=answer.status_code,
            began=began,
            route=_route(path),
            fault=fault,
            error=failed,
        )
        return answer(environ, start_response)

    def _answer(self, request: Request, path: str) -> Response:
        if not _is_forwarded(path):
            return _failure(
                problem(404, ErrorCode.NOT_FOUND, "this listener only serves the platform's paths, such as /smsApi/")
            )
        interface = _INTERFACES.get(path)
        request.max_content_length = _OTHER_BODY_MAX_BYTES if interface is None else _BODY_MAX_BYTES
        body = request.get_data()
        self._runtime.start()
        raw = self._runtime.sender.pass_on(
            PassedRequest(
                method=request.method,
                target=_target(request.environ),
                headers=_headers(request),
                body=body,
                interface=interface,
                fields={} if interface is None else _fields(request, body),
            )
        )
        answer = Response(raw.body, status=raw.status)
        del answer.headers["Content-Type"]  # the platform's is added below, if it sent one
        answer.headers.extend(raw.headers)
        return answer


def _failure(answer: Response) -> Response:
    """Return our failure with the platform's fields, so that a sender that only reads `returnStatus` sees a failure."""
    body = json.loads(answer.get_data())
    fields = {
        "returnStatus": "0",
        "message": body["detail"],
        "remainPoint": None,
        "taskId": None,
        "successCounts": None,
    }
    answer.set_data(json.dumps(fields | body))
    answer.content_type = _JSON
    return answer


# --- Where a request goes ---------------------------------------------------------------------------------


def _path(environ: WSGIEnvironment) -> str:
    """Return a request's path without repeated or trailing slashes."""
    return re.sub("/{2,}", "/", environ.get("PATH_INFO", "")).rstrip("/")


def _is_forwarded(path: str) -> bool:
    """Return whether a path is one of the platform's products; paths with `..` could leave them."""
    climbs = any(part.partition(";")[0] in (".", "..") for part in re.split(r"[/\\]", path))
    return _PRODUCT.fullmatch(path) is not None and not climbs


def _route(path: str) -> str | None:
    if path in _INTERFACES:
        return path
    return _OTHER_ROUTE if _is_forwarded(path) else None


def _target(environ: WSGIEnvironment) -> str:
    """Return the request's target unchanged; raw bytes are percent-encoded."""
    target = environ["RAW_URI"]
    if not target.startswith("/"):  # absolute: the sender uses us as an HTTP proxy
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, mark, query = target.partition("?")
    return quote("/" + path.lstrip("/") + mark + query, safe=_VISIBLE, encoding="latin-1")


# --- What is in it ----------------------------------------------------------------------------------------


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the forwarded headers as their original bytes: WSGI decodes them as Latin-1."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in request.headers
        if name.lower() not in _NOT_FORWARDED
    ]


def _fields(request: Request, body: bytes) -> dict[str, str]:
    """Return the parameters of query and body; the body wins. Empty where they cannot be parsed."""
    try:
        pairs = parse_qsl(request.query_string.decode("latin-1"), max_num_fields=_FIELDS_MAX)
        pairs += _fields_of_body(request, body)
    except (ValueError, RecursionError, HTTPException):
        return {}  # the platform decides what to do with it
    return {name: value.strip() for name, value in pairs if len(value) <= _FIELD_MAX_CHARS}


def _fields_of_body(request: Request, body: bytes) -> list[tuple[str, str]]:
    if request.mimetype == "multipart/form-data":
        return list(request.form.items(multi=True))
    if body.lstrip().startswith(b"{"):
        return [(name, str(value)) for name, value in json.loads(body).items() if isinstance(value, str | int)]
    return parse_qsl(body.decode("utf-8", errors="replace"), max_num_fields=_FIELDS_MAX)
