"""Detects whether a request is complete, and passes the bytes read to gunicorn's parser in a thread."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from receiver.intake.admission import PUSH_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.server.peers import Peer

# gunicorn caps its own setting at 8190. A push may come entirely in its query, and a slightly larger one
# must get 413 from Admission.
REQUEST_LINE_MAX_BYTES = PUSH_MAX_BYTES + 16 * 1024
# Raw UTF-8 or GBK bytes in a query violate the RFC, but refusing them would lose pushes.
TARGET_INVALID = re.compile(r"[^\x21-\x7e\x80-\xff]")
HEAD_MAX_BYTES = REQUEST_LINE_MAX_BYTES + 64 * 1024
GATHERED_MAX_BYTES = 1024 * 1024 + HEAD_MAX_BYTES  # of one request; the thread reads a larger one itself

_THREAD_BODY_SECONDS = 60.0  # for all that a thread reads itself: a large body, not a slow one
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r", re.IGNORECASE)
_LENGTH_MAX_DIGITS = 12  # a longer number exceeds any gathered size
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_IDENTITY = re.compile(rb"\r\ntransfer-encoding:[ \t]*identity[ \t]*(?=\r)", re.IGNORECASE)
_PUSH = re.compile(rb"[A-Z]+ /+(?i:push)[/? ]")
_FORWARDED = re.compile(rb"\r\nx-forwarded-for:[ \t]*([^\r\n]*)(?=\r)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r)", re.IGNORECASE)
_CHUNK_LINE_MAX_BYTES = 4096
_PIECE_BYTES = 8192


def awaits_continue(raw_head: bytes) -> bool:
    """Return whether the client waits for 100 Continue before it sends the body."""
    return bool(_CONTINUE.search(raw_head)) and b" HTTP/1.1\r\n" in raw_head  # HTTP/1.0 has no 100 Continue


def without_expectation(raw_head: bytes) -> bytes:
    """Return the head without `Expect: 100-continue`."""
    return _CONTINUE.sub(b"", raw_head)


def has_identity_encoding(raw_head: bytes) -> bool:
    """Return whether a request has `Transfer-Encoding: identity` and a Content-Length; valid before RFC 7230."""
    return len(_TRANSFER_ENCODING.findall(raw_head)) == len(_IDENTITY.findall(raw_head)) == 1 and bool(
        _LENGTH.search(raw_head)
    )


def without_identity(raw_head: bytes) -> bytes:
    """Return the head without `Transfer-Encoding: identity`, which gunicorn's parser refuses."""
    return _IDENTITY.sub(b"", raw_head)


def is_push(data: bytes) -> bool:
    """Return whether a request, given at least its first line, goes to a push URL."""
    return bool(_PUSH.match(data))


def forwarded_for(data: bytes) -> str | None:
    """Return the X-Forwarded-For of a possibly incomplete head; None: no such header."""
    written = _FORWARDED.findall(data.partition(b"\r\n\r\n")[0])
    return b",".join(written).decode("latin-1") if written else None


def is_whole(peer: Peer, raw_head: bytes) -> bool:
    """Return whether a request is complete, or as long as the loop gathers."""
    if len(peer.data) >= GATHERED_MAX_BYTES:
        return True
    if _EXPECT.search(raw_head) and not _CONTINUE.search(raw_head):
        return True  # gunicorn refuses any other expectation
    if _TRANSFER_ENCODING.search(raw_head):
        return b"chunked" not in raw_head.lower() or _chunks_whole(peer)  # gunicorn refuses any other
    length = _LENGTH.search(raw_head)
    if length is None:
        return True
    return len(length[1]) <= _LENGTH_MAX_DIGITS and len(peer.data) - peer.body_at >= int(length[1])


def _chunks_whole(peer: Peer) -> bool:
    data = peer.data
    while True:
        line_end = data.find(b"\r\n", peer.scanned)
        if line_end < 0:
            return len(data) - peer.scanned > _CHUNK_LINE_MAX_BYTES
        try:
            size = int(data[peer.scanned : line_end].partition(b";")[0], 16)
        except ValueError:
            return True  # the thread will report the error
        if size <= 0:
            return size < 0 or data.find(b"\r\n\r\n", line_end) >= 0
        if line_end + 2 + size + 2 > len(data):
            return False
        peer.scanned = line_end + 2 + size + 2


class Gathered:
    """Bytes read for a thread, returned in small pieces: gunicorn copies its whole buffer for every chunk."""

    def __init__(self, data: bytes, read_on: Callable[..., bytes]) -> None:
        self._data = data
        self._read_on = read_on
        self._deadline = time.monotonic() + _THREAD_BODY_SECONDS

    def __call__(self, *hint: Any) -> bytes:
        """Return the next piece. Raises TimeoutError if the client is too slow."""
        if not self._data:
            if time.monotonic() > self._deadline:
                raise TimeoutError("the request takes too long to arrive")
            return self._read_on(*hint)
        piece, self._data = self._data[:_PIECE_BYTES], self._data[_PIECE_BYTES:]
        return piece

    def take_rest(self) -> bytes:
        """Return the remaining bytes."""
        data, self._data = self._data, b""
        return data


def feed(unreader: Any, data: bytes) -> None:
    """Pass the bytes read to gunicorn's parser."""
    unreader.unread(data[:_PIECE_BYTES])
    unreader.chunk = Gathered(data[_PIECE_BYTES:], type(unreader).chunk.__get__(unreader))


def take_unparsed(unreader: Any) -> bytes:
    """Return the bytes that gunicorn's parser has not consumed."""
    held: bytes = unreader.take_buffered()
    gathered = vars(unreader).pop("chunk", None)
    return held if gathered is None else held + gathered.take_rest()
