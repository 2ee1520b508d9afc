"""Buffered responses: what the client does not read at once is sent by the loop, not by the thread."""

from __future__ import annotations

import fcntl
import ssl
import struct
import termios
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn.http.wsgi import Response

if TYPE_CHECKING:
    import socket

_UNSENT_MAX_BYTES = 2 * 1024 * 1024  # of one response; a longer one blocks its thread on the reader
_TLS_RECORD_BYTES = 16 * 1024  # a TLS record must be retried unchanged
_PIECE_BYTES = 64 * 1024
# A client that reads less than this in that time is disconnected.
_SLOW_BYTES = 16 * 1024
_SLOW_SECONDS = 30.0


def keep_alive_seconds(cfg: Any) -> int:
    """Return the keep-alive timeout sent to clients; shorter than ours."""
    return int(cfg.keepalive) * 4 // 5


class BufferedResponse(Response):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's response with a Keep-Alive header: some clients obey only that."""

    def default_headers(self) -> list[str]:
        """Return the header lines before the application's own."""
        lines: list[str] = super().default_headers()
        header = "Connection: keep-alive\r\n"
        if header in lines:
            lines.insert(lines.index(header) + 1, f"Keep-Alive: timeout={keep_alive_seconds(self.cfg)}\r\n")
        return lines


class Outbox:
    """The unsent part of one response. Its thread sends what fits without blocking, the loop sends the rest."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._piece_bytes = _TLS_RECORD_BYTES if isinstance(sock, ssl.SSLSocket) else _PIECE_BYTES
        self._pieces: deque[memoryview] = deque()
        self._sent = 0
        self._measured_at = time.monotonic()
        self._received = 0  # bytes acknowledged by the client at that time
        self.unsent = 0

    def sendall(self, data: bytes) -> None:
        """Send in the thread, as a socket does; blocks only for what exceeds the buffer limit."""
        view = memoryview(data)
        self._pieces.extend(view[at : at + self._piece_bytes] for at in range(0, len(data), self._piece_bytes))
        self.unsent += len(data)
        patience = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            self.flush()
        finally:
            self._sock.settimeout(patience)
        while self.unsent > _UNSENT_MAX_BYTES:
            self._count_sent(self._sock.send(self._pieces[0]))  # not `sendall`, which does not report a partial send

    def flush(self) -> None:
        """Send what the socket accepts without blocking. Raises OSError if the client is gone."""
        with suppress(BlockingIOError, ssl.SSLWantWriteError):
            while self._pieces:
                self._count_sent(self._sock.send(self._pieces[0]))

    def reads_too_slowly(self, now: float) -> bool:
        """Return whether the client read almost nothing for 30 s. Called periodically."""
        if now - self._measured_at < _SLOW_SECONDS:
            return False
        received = self._sent - _unacknowledged(self._sock)
        slow = received - self._received < _SLOW_BYTES
        self._measured_at, self._received = now, received
        return slow

    def _count_sent(self, sent: int) -> None:
        self._sent += sent
        self.unsent -= sent
        if sent < len(self._pieces[0]):
            self._pieces[0] = self._pieces[0][sent:]
        else:
            self._pieces.popleft()


def _unacknowledged(sock: socket.socket) -> int:
    """Return the bytes in our socket buffer that the client has not acknowledged."""
    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0
