"""How much of a request has arrived, and how what was read of it reaches gunicorn's parser in a thread."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from receiver.intake import PUSH_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.server.peers import Peer

# gunicorn caps its own setting at 8190; a push may come wholly in its query, and one that is a little
# too large is to hear 413 from the gate.
REQUEST_LINE_MAX_BYTES = PUSH_MAX_BYTES + 16 * 1024
# A push whose query has raw UTF-8 or GBK bytes breaks the RFC, but refusing it would lose it.
TARGET_INVALID = re.compile(r"[^\x21-\x7e\x80-\xff]")
HEAD_MAX_BYTES = REQUEST_LINE_MAX_BYTES + 64 * 1024
GATHERED_MAX_BYTES = 1024 * 1024 + HEAD_MAX_BYTES  # of one request; what is larger is read by its thread

_THREAD_BODY_SECONDS = 60.0  # for all of what a thread reads itself: what was not gathered is large, and not slow
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r", re.IGNORECASE)
_LENGTH_MAX_DIGITS = 12  # longer is longer than anything is gathered
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_IDENTITY = re.compile(rb"\r\ntransfer-encoding:[ \t]*identity[ \t]*(?=\r)", re.IGNORECASE)
_PUSH = re.compile(rb"[A-Z]+ /+(?i:push)[/? ]")
_FORWARDED = re.compile(rb"\r\nx-forwarded-for:[ \t]*([^\r\n]*)(?=\r)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r)", re.IGNORECASE)
_CHUNK_LINE_MAX_BYTES = 4096
_PIECE_BYTES = 8192


def awaits_continue(raw_head: bytes) -> bool:
    """Return whether its sender waits for our word before it sends the body."""
    return bool(_CONTINUE.search(raw_head)) and b" HTTP/1.1\r\n" in raw_head  # older ones do not know the word


def without_expectation(raw_head: bytes) -> bytes:
    """Return the head of a request whose sender has our word."""
    return _CONTINUE.sub(b"", raw_head)


def says_identity(raw_head: bytes) -> bool:
    """Return whether a request says that its body is as it is.

    Which was no error before RFC 7230, and says its length too.
    """
    return len(_TRANSFER_ENCODING.findall(raw_head)) == len(_IDENTITY.findall(raw_head)) == 1 and bool(
        _LENGTH.search(raw_head)
    )


def without_identity(raw_head: bytes) -> bytes:
    """Return the head of such a request without that, which gunicorn's parser refuses."""
    return _IDENTITY.sub(b"", raw_head)


def is_push(data: bytes) -> bool:
    """Return whether a request, of which the first line may be all there is, goes to a push URL."""
    return bool(_PUSH.match(data))


def forwarded_for(data: bytes) -> str | None:
    """Return what proxies have written into the head of a request, as far as it is there."""
    written = _FORWARDED.findall(data.partition(b"\r\n\r\n")[0])
    return b",".join(written).decode("latin-1") if written else None


def is_whole(peer: Peer, raw_head: bytes) -> bool:
    """Return whether all of a request is here, or as much of it as is gathered."""
    if len(peer.data) >= GATHERED_MAX_BYTES:
        return True
    if _EXPECT.search(raw_head) and not _CONTINUE.search(raw_head):
        return True  # gunicorn knows no other expectation, and says so
    if _TRANSFER_ENCODING.search(raw_head):
        return b"chunked" not in raw_head.lower() or _chunks_whole(peer)  # of any other, gunicorn says what is wrong
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
            return True  # its thread will say what is wrong with it
        if size <= 0:
            return size < 0 or data.find(b"\r\n\r\n", line_end) >= 0
        if line_end + 2 + size + 2 > len(data):
            return False
        peer.scanned = line_end + 2 + size + 2


class Gathered:
    """What was read for a thread, in pieces such as a socket gives: gunicorn copies what it holds for every chunk."""

    def __init__(self, data: bytes, read_on: Callable[..., bytes]) -> None:
        self._data = data
        self._read_on = read_on
        self._deadline = time.monotonic() + _THREAD_BODY_SECONDS

    def __call__(self, *hint: Any) -> bytes:
        """Return the next piece. Raises TimeoutError where the peer takes too long to send it."""
        if not self._data:
            if time.monotonic() > self._deadline:
                raise TimeoutError("the request takes too long to arrive")
            return self._read_on(*hint)
        piece, self._data = self._data[:_PIECE_BYTES], self._data[_PIECE_BYTES:]
        return piece

    def take(self) -> bytes:
        """Return what nobody has asked for."""
        data, self._data = self._data, b""
        return data


def feed(unreader: Any, data: bytes) -> None:
    """Let gunicorn's parser begin with what was read."""
    unreader.unread(data[:_PIECE_BYTES])
    unreader.chunk = Gathered(data[_PIECE_BYTES:], type(unreader).chunk.__get__(unreader))


def take_back(unreader: Any) -> bytes:
    """Return what its parser has left of that."""
    held: bytes = unreader.take_buffered()
    gathered = vars(unreader).pop("chunk", None)
    return held if gathered is None else held + gathered.take()
