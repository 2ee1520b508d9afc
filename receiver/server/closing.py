"""The ends of connections: so that a last answer arrives, and a push that crosses is still read."""

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
    """Connections that we have ended with an answer and whose peers have not: closed once they do, or soon."""

    def __init__(self, poller: selectors.BaseSelector, most: int) -> None:
        self._poller = poller
        self._most = most
        self._deadlines: dict[socket.socket, float] = {}

    def end(self, sock: Any) -> None:
        """Close a connection so that our last answer arrives, without waiting for its peer."""
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
        # Closing while the peer still sends would reset the connection and could cost it our answer.
        self._deadlines[sock] = time.monotonic() + LINGER_SECONDS
        self._poller.register(sock, selectors.EVENT_READ, self._drain)
        if len(self._deadlines) > self._most:
            self.close_oldest()

    def close_oldest(self) -> bool:
        """Close the one that has lingered longest. False: there is none."""
        oldest = next(iter(self._deadlines), None)
        if oldest is not None:
            self._close(oldest)
        return oldest is not None

    def close_overdue(self, now: float, *, force: bool) -> None:
        """Close those whose time is over, or all."""
        while self._deadlines and (force or next(iter(self._deadlines.values())) <= now):
            self.close_oldest()

    def _drain(self, sock: Any) -> None:
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
    """Tell the peer that nothing more comes, and be able to read on. Raises OSError where it has gone."""
    end_tls(sock)
    socket.socket.shutdown(sock, socket.SHUT_WR)  # past that of TLS, which would forget how to read


def forget_unsent(sock: Any) -> None:
    """Let closing reset the connection: the kernel would keep what its reader does not take, and try on for minutes."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end_tls(sock: Any) -> None:
    """Tell the peer that this end is meant; without waiting, so that its own word on it is not heard."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.setblocking(False)
            sock.unwrap()


def held_by_tls(sock: Any) -> bytes:
    """Take what was decrypted but not yet read: no selector shows it."""
    held = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
    data: bytes = sock.recv(held) if held else b""
    return data
