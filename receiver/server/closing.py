"""Closes connections so that the last response arrives and a push that crosses is still read."""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Any

from gunicorn import util

LINGER_SECONDS = 2.0
_READ_BYTES = 65536


class Lingering:
    """Connections that we have shut down and the client has not; closed when it does, or after a timeout."""

    def __init__(self, poller: selectors.BaseSelector, max_connections: int) -> None:
        self._poller = poller
        self._max_connections = max_connections
        self._deadlines: dict[socket.socket, float] = {}

    def end(self, sock: Any) -> None:
        """Close a connection so that our last response arrives, without blocking."""
        try:
            sock.setblocking(False)
            end_tls(sock)
            sock.shutdown(socket.SHUT_WR)
            if not sock.recv(_READ_BYTES):
                util.close(sock)
                return
        except BlockingIOError:
            pass
        except OSError:
            util.close(sock)
            return
        # Closing while the client still sends would reset the connection, and our response could be lost.
        self._deadlines[sock] = time.monotonic() + LINGER_SECONDS
        self._poller.register(sock, selectors.EVENT_READ, self._drain)
        if len(self._deadlines) > self._max_connections:
            self.close_oldest()

    def close_oldest(self) -> bool:
        """Close the oldest one. Return False if there is none."""
        oldest = next(iter(self._deadlines), None)
        if oldest is not None:
            self._close(oldest)
        return oldest is not None

    def close_overdue(self, now: float, *, force: bool) -> None:
        """Close those past their deadline, or all with `force`."""
        while self._deadlines and (force or next(iter(self._deadlines.values())) <= now):
            self.close_oldest()

    def _drain(self, sock: Any) -> None:
        if sock not in self._deadlines:
            return  # closed in this turn of the loop, for a new connection
        try:
            if sock.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._deadlines[sock]
        self._poller.unregister(sock)
        util.close(sock)


def end_sending(sock: Any) -> None:
    """Shut down our sending side; reading still works. Raises OSError if the client is gone."""
    end_tls(sock)
    socket.socket.shutdown(sock, socket.SHUT_WR)  # not the TLS method, which would also end reading


def discard_unsent(sock: Any) -> None:
    """Make close() reset the connection; otherwise the kernel retries the unsent bytes for minutes."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end_tls(sock: Any) -> None:
    """Send the TLS close notification, without waiting for the client's."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.setblocking(False)
            sock.unwrap()


def read_tls_pending(sock: Any) -> bytes:
    """Return bytes that are decrypted but not read; no selector reports them."""
    pending = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
    data: bytes = sock.recv(pending) if pending else b""
    return data
