"""gunicorn as `receiver serve` runs it: one threaded worker class, tuned and made safe for secrets in paths."""

from __future__ import annotations

import logging
import re
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors, message
from gunicorn.workers.gthread import ThreadWorker

from receiver.app import create_app
from receiver.intake.gate import PUSH_MAX_BYTES
from receiver.logs import configure_logging
from receiver.runtime import Runtime

if TYPE_CHECKING:
    from flask import Flask

    from receiver.config import Settings

_log = logging.getLogger(__name__)

THREADS = 64
_CONNECTIONS = 4096
_LINGER_SECONDS = 2.0
_LINGERING_MAX = 1024
_DRAIN_BYTES = 65536
# gunicorn caps its own setting at 8190; a push may come wholly in its query, and one that is a little
# too large is to hear 413 from the gate.
_REQUEST_LINE_MAX_BYTES = PUSH_MAX_BYTES + 16 * 1024
# A push whose query has raw UTF-8 or GBK bytes breaks the RFC, but refusing it would lose it.
_TARGET_INVALID = re.compile(r"[^\x21-\x7e\x80-\xff]")

_STATUS_OF_ERROR: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.ForbiddenProxyRequest, 403, "Forbidden"),
    (errors.ParseException, 400, "Bad Request"),
)


@dataclass(slots=True)
class _Lingering:
    """A connection that we have ended and the peer has not."""

    sock: socket.socket
    deadline: float


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker, with two changes.

    It never waits for a peer to close: gunicorn's own does, up to two seconds and on the thread that accepts, so
    that one such peer a second stops it. And it answers malformed requests without quoting them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lingering: deque[_Lingering] = deque()

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take back a connection from its thread; end it without waiting."""
        conn.close = partial(self._close, conn)
        super().finish_request(conn, fs)

    def _close(self, conn: Any, graceful: bool = False) -> None:
        if not graceful:
            util.close(conn.sock)
            return
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            if not conn.sock.recv(_DRAIN_BYTES):
                util.close(conn.sock)
                return
        except BlockingIOError:
            pass
        except OSError:
            util.close(conn.sock)
            return
        # Closing while the peer still sends would reset the connection and could cost it our answer.
        lingering = _Lingering(conn.sock, time.monotonic() + _LINGER_SECONDS)
        self._lingering.append(lingering)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, lingering))
        while len(self._lingering) > _LINGERING_MAX:
            self._end(self._lingering[0])

    def _drain(self, lingering: _Lingering, _fileobj: object) -> None:
        try:
            if lingering.sock.recv(_DRAIN_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(lingering)

    def _end(self, lingering: _Lingering) -> None:
        self._lingering.remove(lingering)
        self.poller.unregister(lingering.sock)
        util.close(lingering.sock)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what has waited for too long; called at every turn of the loop."""
        super().murder_keepalived(force)
        now = time.monotonic()
        while self._lingering and (force or self._lingering[0].deadline <= now):
            self._end(self._lingering[0])

    def handle_error(self, _req: object, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that cannot be served, without its text: its path may hold a secret."""
        known = next((row for row in _STATUS_OF_ERROR if isinstance(exc, row[0])), None)
        if known is not None:
            _, status, reason = known
            _log.warning("bad request", extra={"remote_addr": _host(addr), "error": type(exc).__name__})
        else:
            status, reason = 500, "Internal Server Error"
            _log.error("request failed", exc_info=exc)
        with suppress(OSError):
            util.write_error(client, status, reason, "")


def _host(addr: Any) -> str:
    return str(addr[0]) if isinstance(addr, tuple) and addr else ""


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Leaves every log to the root logger, which redacts."""

    def setup(self, cfg: Any) -> None:
        """Take no handler of its own."""
        self.cfg = cfg
        self._access_log_enabled = False
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`receiver serve`: gunicorn with this project's worker and settings."""

    def __init__(self, settings: Settings, *, bind: str, workers: int) -> None:
        self._settings = settings
        self._bind = bind
        self._workers = workers
        self._runtime: Runtime | None = None
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn is to do."""
        message.MAX_REQUEST_LINE = _REQUEST_LINE_MAX_BYTES
        message.RFC9112_TARGET_INVALID = _TARGET_INVALID
        for name, value in {
            "bind": self._bind,
            "workers": self._workers,
            "worker_class": "receiver.server.Worker",
            "logger_class": _Logger,
            "threads": THREADS,
            "worker_connections": _CONNECTIONS,
            "backlog": 2048,
            "keepalive": 75,
            "timeout": 60,  # a heartbeat of the accepting thread, not a limit on requests
            "graceful_timeout": 30,
            "limit_request_line": _REQUEST_LINE_MAX_BYTES,
            "control_socket_disable": True,  # its default place is shared by every gunicorn of the user
            "forwarded_allow_ips": "",  # proxies are told by RECEIVER_TRUSTED_PROXIES, in one place
            "worker_exit": lambda _server, _worker: self._stop(),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in the worker."""
        configure_logging()
        self._runtime = Runtime(self._settings)
        return create_app(self._runtime)

    def _stop(self) -> None:
        if self._runtime is not None:
            self._runtime.stop()
