"""The part of the worker that extends gunicorn's threaded one: requests in threads, and heartbeats."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.http import errors, wsgi
from gunicorn.workers.gthread import ThreadWorker

from receiver.server.answers import BufferedResponse, Outbox
from receiver.web import RUNTIME

if TYPE_CHECKING:
    import socket

    from receiver.server.peers import PeerConnection

_log = logging.getLogger(__name__)

_PARENT_SECONDS = 0.5  # between two checks of the master

_STATUS_OF_ERROR: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.ForbiddenProxyRequest, 403, "Forbidden"),
    (errors.ParseException, 400, "Bad Request"),
)


class Threads(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves a request in a thread and leaves the unsent rest of its response to the loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parent_seen = self._shown_alive = 0.0
        self._served = threading.local()

    def is_parent_alive(self) -> bool:
        """Return whether the master is alive; without it, this worker starts to stop."""
        now = time.monotonic()
        if now - self._parent_seen < _PARENT_SECONDS:
            return True
        self._parent_seen = now
        if super().is_parent_alive():
            return True
        self.alive = False
        return False

    def notify(self) -> None:
        """Send the master a heartbeat, at most twice a second."""
        now = time.monotonic()
        if now - self._shown_alive >= _PARENT_SECONDS:
            self._shown_alive = now
            super().notify()

    def handle(self, conn: PeerConnection) -> Any:
        """Serve one request, in a thread."""
        self._served.sender = conn.sender
        return super().handle(conn)

    def handle_request(self, req: Any, conn: PeerConnection) -> bool:
        """Answer one request, in a thread. Return whether to keep the connection."""
        answer, environ = wsgi.create(
            req, conn.sock, conn.client, conn.server, self.cfg, response_class=BufferedResponse
        )
        answer.sock = conn.outbox = Outbox(conn.sock)
        environ["wsgi.multithread"] = True
        if not self.alive:
            answer.force_close()
        pieces = self.wsgi(environ, answer.start_response)
        try:
            for piece in pieces:
                answer.write(piece)
            answer.close()
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            _log.exception("request failed after its response started")  # the client notices: the response is cut short
            return False
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return not answer.should_close()

    def handle_error(self, _req: object, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that cannot be served, without quoting it: its path may contain a secret."""
        if isinstance(exc, ssl.SSLError):
            return  # invalid TLS records: no answer is possible
        known = next((row for row in _STATUS_OF_ERROR if isinstance(exc, row[0])), None)
        if known is not None:
            _, status, reason = known
            log_bad_request(addr, type(exc).__name__)
            if self._served.sender:
                self.wsgi.extensions[RUNTIME].admission.record_unread(status, "head", *self._served.sender)
        else:
            status, reason = 500, "Internal Server Error"
            _log.error("request failed", exc_info=exc)
        with suppress(OSError):
            util.write_nonblock(client, error_answer(status, reason))


def log_bad_request(addr: Any, error: str) -> None:
    """Log an invalid request."""
    host = str(addr[0]) if isinstance(addr, tuple) and addr else ""
    _log.warning("bad request", extra={"remote_addr": host, "error": error})


def error_answer(status: int, reason: str) -> bytes:
    """Return the answer to an invalid request; it quotes nothing of it."""
    lines = [
        f"HTTP/1.1 {status} {reason.partition(':')[0]}",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        f"Content-Length: {len(reason) + 1}",
    ]
    return "\r\n".join([*lines, "", f"{reason}\n"]).encode()
