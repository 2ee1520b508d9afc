"""The drop-in door: takes what a sender would have sent to the platform, passes it on, and records it on the way.

On a listener of its own, for the inside. Its answers are the platform's, byte for byte; it knows no limit and no
credentials of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from receiver.errors import ReceiverError
from receiver.logs import get_logger
from receiver.platform.client import BALANCE_PATH, SEND_PATH
from receiver.web.access_log import log_request
from receiver.web.problems import answer_for, problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from receiver.runtime import Runtime

_log = get_logger(__name__)

_PATHS = {f"/smsApi{path}": path for path in (SEND_PATH, BALANCE_PATH)}
_BODY_MAX_BYTES = 64 * 1024
_ASCII = bytes(range(0x21, 0x7F))
# Of one connection, or of no use to the platform: the rest goes on as it came.
_NOT_PASSED_ON = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "forwarded", "host", "http2-settings",
        "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
    }
)  # fmt: skip


class Door:
    """Answers what comes in at its own listener."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        began = time.perf_counter()
        try:
            answer = self._answer(Request(environ))
        except ReceiverError as error:
            answer = answer_for(error)
        except HTTPException as error:
            answer = problem(error.code or 400, "malformed", "the request cannot be read")
        except Exception as error:  # noqa: BLE001  (the edge of a request: its text may hold a code)
            _log.error("request failed", error=type(error).__name__)
            answer = problem(500, "internal", "internal server error")
        path = environ.get("PATH_INFO", "").rstrip("/")
        log_request(
            self._runtime.settings,
            environ,
            status=answer.status_code,
            began=began,
            route=path if path in _PATHS else None,
        )
        return answer(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = _PATHS.get(request.path.rstrip("/"))
        if path is None:
            return problem(404, "not_found", "this listener takes /smsApi/verifyCode and /smsApi/verifyCode/getBalance")
        request.max_content_length = _BODY_MAX_BYTES
        body = request.get_data(cache=False)
        self._runtime.start()
        raw = self._runtime.sender.pass_on(
            path,
            method=request.method,
            query=quote(request.query_string, safe=_ASCII),  # raw bytes, if any, as what they stand for
            body=body,
            headers={name: value for name, value in request.headers if name.lower() not in _NOT_PASSED_ON},
        )
        return Response(raw.body, status=raw.status, content_type=raw.content_type)
