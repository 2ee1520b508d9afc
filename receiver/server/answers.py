"""Answers that a thread gives: what their reader does not take at once waits without the thread."""

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

_UNSENT_MAX_BYTES = 2 * 1024 * 1024  # of one answer; of a longer one the thread waits for its reader
_TLS_RECORD_BYTES = 16 * 1024  # a record is sent again as it was, or not at all
_PIECE_BYTES = 64 * 1024
# A reader that takes less than this in that time is ended: no line that a person reads by is as slow.
_SLOW_BYTES = 16 * 1024
_SLOW_SECONDS = 30.0


def kept_seconds(cfg: Any) -> int:
    """Return how long a kept connection may rest, as its peer is told: well before we end it."""
    return int(cfg.keepalive) * 4 // 5


class BufferedResponse(Response):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's response, which tells how long the connection is kept: some clients obey only that."""

    def default_headers(self) -> list[str]:
        """Return the lines above the application's own."""
        lines: list[str] = super().default_headers()
        kept = "Connection: keep-alive\r\n"
        if kept in lines:
            lines.insert(lines.index(kept) + 1, f"Keep-Alive: timeout={kept_seconds(self.cfg)}\r\n")
        return lines


class Outbox:
    """What is to be sent of one answer: by its thread as far as that needs no waiting, and then by the loop."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._piece_bytes = _TLS_RECORD_BYTES if isinstance(sock, ssl.SSLSocket) else _PIECE_BYTES
        self._pieces: deque[memoryview] = deque()
        self._sent = 0
        self._looked_at = time.monotonic()
        self._taken = 0  # by its reader, then
        self.unsent = 0

    def sendall(self, data: bytes) -> None:
        """Send in the thread, as a socket does; waits only for what is more than the loop may hold."""
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
            self._note(self._sock.send(self._pieces[0]))  # not `sendall`, which does not tell what it sent in vain

    def flush(self) -> None:
        """Send what the socket takes without waiting. Raises OSError where the peer has gone."""
        with suppress(BlockingIOError, ssl.SSLWantWriteError):
            while self._pieces:
                self._note(self._sock.send(self._pieces[0]))

    def reads_too_slowly(self, now: float) -> bool:
        """Return whether its reader took next to nothing for a while; to be asked again and again."""
        if now - self._looked_at < _SLOW_SECONDS:
            return False
        taken = self._sent - _unacknowledged(self._sock)
        slow = taken - self._taken < _SLOW_BYTES
        self._looked_at, self._taken = now, taken
        return slow

    def _note(self, sent: int) -> None:
        self._sent += sent
        self.unsent -= sent
        if sent < len(self._pieces[0]):
            self._pieces[0] = self._pieces[0][sent:]
        else:
            self._pieces.popleft()


def _unacknowledged(sock: socket.socket) -> int:
    """Return how many of the bytes that the kernel has of us the peer's has not."""
    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0
