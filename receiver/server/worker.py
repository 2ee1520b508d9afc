"""gunicorn's threaded worker with a front of its own: requests are gathered without a thread, pushes answered so too.

One loop reads every connection. A push goes down the lane and its answer comes back from the committer; any other
request goes to a thread once all of it has arrived. So a peer that sends slowly, never ends or does not close holds
a socket and a little memory, and no thread; and a push costs no hand-over.

Over TLS the same: the loop shakes hands and reads as far as it goes without waiting, a thread gets a socket that waits.

Leans on these of ThreadWorker: accept, enqueue_req, finish_request, murder_keepalived, handle_error, poller, nr_conns,
alive and the loop that calls them; and on TConn's init, parser and sock.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
import selectors
import socket
import ssl
import sys
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.http import errors, get_parser
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from receiver import metrics
from receiver.intake.gate import PUSH_MAX_BYTES, Refused
from receiver.server.lane import Lane
from receiver.web.listeners import is_door

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.errors import ReceiverError
    from receiver.intake.committer import Kept
    from receiver.server.lane import Head
    from receiver.server.tls import Certificate

_log = logging.getLogger(__name__)

# gunicorn caps its own setting at 8190; a push may come wholly in its query, and one that is a little
# too large is to hear 413 from the gate.
REQUEST_LINE_MAX_BYTES = PUSH_MAX_BYTES + 16 * 1024
# A push whose query has raw UTF-8 or GBK bytes breaks the RFC, but refusing it would lose it.
TARGET_INVALID = re.compile(r"[^\x21-\x7e\x80-\xff]")

_READ_BYTES = 65536
_ACCEPTS_AT_ONCE = 64
_HEAD_MAX_BYTES = REQUEST_LINE_MAX_BYTES + 64 * 1024
_GATHERED_MAX_BYTES = 1024 * 1024 + _HEAD_MAX_BYTES  # of one request; what is larger is read by its thread
_ALL_GATHERED_MAX_BYTES = 128 * 1024 * 1024
_REQUEST_SECONDS = 20.0  # for a request to arrive, from its first byte; for a handshake, from the connection
_THREAD_READ_SECONDS = 10.0  # between two reads of what a thread reads itself
_THREAD_BODY_SECONDS = 60.0  # for all of it: what was not gathered is large, and not slow
_LINGER_SECONDS = 2.0
_LINGERING_MAX = 1024
_SWEEP_SECONDS = 0.5
_PARENT_SECONDS = 0.5  # between two looks at the master
# How long a thread may keep the interpreter from the loop; Python's own 5 ms is most of a push's way.
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLD = 20_000  # new containers between two looks for garbage; a push makes a dozen, and none in a circle

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r", re.IGNORECASE)
_LENGTH_MAX_DIGITS = 12  # longer is longer than anything is gathered
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r)", re.IGNORECASE)
_CHUNK_LINE_MAX_BYTES = 4096
_PIECE_BYTES = 8192

_STATUS_OF_ERROR: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.ForbiddenProxyRequest, 403, "Forbidden"),
    (errors.ParseException, 400, "Bad Request"),
)


class Peer:
    """A connection that the loop looks after."""

    __slots__ = (
        "awaits", "begun", "body_at", "closes", "conn", "data", "ended", "greets", "head", "idle_since", "scanned",
        "watched",
    )  # fmt: skip

    def __init__(self, conn: Any, *, greets: bool = False) -> None:
        self.conn = conn
        self.data = b""  # what has arrived of requests not yet handed on
        self.scanned = 0  # how far a chunked body has been looked through
        self.body_at = 0  # where the request's body begins, once its head is whole
        self.awaits = False  # a push of it is with the committer
        self.closes = False  # after that answer
        self.head: Head | None = None  # of that push
        self.ended = False  # it will send no more
        self.watched = 0  # the events that it is registered for
        self.greets = greets  # its TLS handshake is under way
        self.idle_since = self.begun = time.monotonic()  # begun: when the first byte of the request, or it, came


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves pushes from one loop and the rest from threads. Never waits for a peer to send or to close."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._peers: set[Peer] = set()
        self._gathered_bytes = 0
        self._lingering: dict[socket.socket, float] = {}  # connections that we have ended and the peer has not
        self._swept = self._parent_seen = self._shown_alive = 0.0
        self._stop_began: float | None = None
        self._settled: deque[tuple[Peer, Kept | ReceiverError]] = deque()
        self._woken = False
        self._wake_fds: tuple[int, int] = (-1, -1)
        self._lane: Lane | None = None
        self._certificate: Certificate | None = self.app.certificate

    def run(self) -> None:
        """Serve until told to stop."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        # What was loaded stays: looking it through again and again for garbage would stop every push meanwhile.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        lane = Lane(self.wsgi, self.cfg)
        self._lane = lane if lane.open else None
        self._wake_fds = os.pipe()
        for fd in self._wake_fds:
            os.set_blocking(fd, False)
        self.poller.register(self._wake_fds[0], selectors.EVENT_READ, self._answer_settled)
        super().run()

    def is_parent_alive(self) -> bool:
        """Whether the master is there; without it, this worker begins to stop as if it were told to."""
        now = time.monotonic()
        if now - self._parent_seen < _PARENT_SECONDS:
            return True
        self._parent_seen = now
        if super().is_parent_alive():
            return True
        self.alive = False
        return False

    def notify(self) -> None:
        """Show the master a sign of life; not at every turn of the loop, which may be a hundredth of what it does."""
        now = time.monotonic()
        if now - self._shown_alive >= _PARENT_SECONDS:
            self._shown_alive = now
            super().notify()

    # --- Connections in ---

    def accept(self, listener: socket.socket) -> None:
        """Take what connections wait."""
        address = listener.getsockname()
        certificate = None if is_door(self.app.settings, address) else self._certificate
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                    raise
                return
            self.nr_conns += 1
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection = certificate.wrap(sock) if certificate else sock
            except OSError:
                self.nr_conns -= 1
                util.close(sock)  # it has gone already
                continue
            peer = Peer(TConn(self.cfg, connection, client, address), greets=certificate is not None)
            self._peers.add(peer)
            self._ready(peer, connection)
            if self.nr_conns >= self.worker_connections:
                return

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take back a connection from its thread."""
        try:
            keeps = not fs.cancelled() and fs.result() is True
            if not keeps or conn.is_http2:
                self._end(conn)
                return
            peer = Peer(conn)
            conn.sock.setblocking(False)
            peer.data = _take_back(conn.parser.unreader) + _held_by_tls(conn.sock)
            self._gathered_bytes += len(peer.data)
            self._peers.add(peer)
            self._advance(peer)
        except Exception:  # noqa: BLE001  (the loop goes on, whatever a thread has left behind)
            _log.exception("connection lost")
            self._end(conn)

    # --- Reading ---

    def _watch(self, peer: Peer, events: int) -> None:
        if events == peer.watched:
            return
        sock = peer.conn.sock
        if not events:
            self.poller.unregister(sock)
        elif peer.watched:
            self.poller.modify(sock, events, partial(self._ready, peer))
        else:
            self.poller.register(sock, events, partial(self._ready, peer))
        peer.watched = events

    def _ready(self, peer: Peer, sock: Any) -> None:
        try:
            if peer.greets:
                self._greet(peer, sock)
            else:
                self._read(peer, sock)
        except Exception:  # noqa: BLE001  (the edge of the loop: whatever one connection brings, the others go on)
            _log.exception("connection lost")
            self._drop(peer)

    def _greet(self, peer: Peer, sock: ssl.SSLSocket) -> None:
        """Go on with a TLS handshake as far as it goes without waiting."""
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(peer, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(peer, selectors.EVENT_WRITE)
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._answer_plain(peer)
            else:
                self._drop(peer)
        except OSError:
            self._drop(peer)
        else:
            peer.greets = False
            peer.idle_since = time.monotonic()
            self._read(peer, sock)

    def _answer_plain(self, peer: Peer) -> None:
        """Tell a peer that has begun with plain HTTP that TLS is spoken here."""
        self._watch(peer, 0)
        self._forget(peer)
        conn = peer.conn
        conn.sock = socket.socket(fileno=conn.sock.detach())
        _log.warning(
            "bad request", extra={"remote_addr": _host(conn.client), "error": "plain HTTP where TLS is spoken"}
        )
        with suppress(OSError):
            util.write_nonblock(conn.sock, _error(400, "Bad Request: HTTPS is spoken here, use https://"))
        self._end(conn)

    def _read(self, peer: Peer, sock: Any) -> None:
        try:
            piece = sock.recv(_READ_BYTES) + _held_by_tls(sock)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(peer, selectors.EVENT_READ)
            return
        except OSError:
            # TLS may have to write before it reads on, where a peer wants new keys and reads nothing: no loss either.
            self._drop(peer)
            return
        if not piece:
            self._sending_ended(peer)
            return
        if not peer.data:
            peer.data = piece
            peer.begun = time.monotonic()
        else:
            peer.data += piece
        self._gathered_bytes += len(piece)
        if self._gathered_bytes > _ALL_GATHERED_MAX_BYTES:
            self._drop(peer)
        elif not peer.awaits:
            self._advance(peer)
        elif len(peer.data) > _GATHERED_MAX_BYTES:
            self._watch(peer, 0)  # it sends on without reading our answers

    def _sending_ended(self, peer: Peer) -> None:
        peer.ended = True
        self._watch(peer, 0)
        if peer.data and not peer.awaits:
            self._hand_over(peer)  # it may have ended its sending only, and wait for what we say of the rest
        elif not peer.awaits:
            self._drop(peer)

    def _advance(self, peer: Peer) -> None:
        """Do what can be done with what has arrived: hand on one request, or wait for the rest of it."""
        data = peer.data
        if not peer.body_at:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _HEAD_MAX_BYTES:
                    self._hand_over(peer)
                else:
                    self._wait(peer)
                return
            peer.body_at = peer.scanned = end + 4
        raw_head = data[: peer.body_at]
        head = None
        if (
            self._lane is not None
            and raw_head.startswith((b"POST /push/", b"GET /push/"))
            and not is_door(self.app.settings, peer.conn.server)
        ):
            head = self._lane.head(raw_head, peer.conn.client)
        if head is None:
            if _CONTINUE.search(raw_head) and b" HTTP/1.1\r\n" in raw_head:  # older ones do not know the word
                self._let_continue(peer, raw_head)
            elif self._whole(peer, raw_head):
                self._hand_over(peer)
            else:
                self._wait(peer)
            return
        end = peer.body_at + head.body_bytes
        if len(data) < end:
            self._wait(peer)
        else:
            self._push(peer, head, end)

    def _let_continue(self, peer: Peer, raw_head: bytes) -> None:
        """Let a peer send its body that waits for our word, here and not in a thread, which would wait for the body."""
        spared = _CONTINUE.sub(b"", raw_head)
        self._gathered_bytes -= len(raw_head) - len(spared)
        peer.data = spared + peer.data[len(raw_head) :]
        peer.body_at = peer.scanned = len(spared)
        try:
            peer.conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            self._drop(peer)
        else:
            self._advance(peer)

    def _whole(self, peer: Peer, raw_head: bytes) -> bool:
        """Whether all of a request is here, or as much of it as is gathered."""
        if len(peer.data) >= _GATHERED_MAX_BYTES:
            return True
        if _EXPECT.search(raw_head) and not _CONTINUE.search(raw_head):
            return True  # gunicorn knows no other expectation, and says so
        if _CHUNKED.search(raw_head):
            return self._chunks_whole(peer)
        length = _LENGTH.search(raw_head)
        if length is None:
            return True
        return len(length[1]) <= _LENGTH_MAX_DIGITS and len(peer.data) - peer.body_at >= int(length[1])

    def _chunks_whole(self, peer: Peer) -> bool:
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

    def _wait(self, peer: Peer) -> None:
        if peer.ended:
            if peer.data:
                self._hand_over(peer)
            else:
                self._drop(peer)
            return
        if not peer.data:
            peer.idle_since = time.monotonic()
        self._watch(peer, selectors.EVENT_READ)

    # --- Requests out ---

    def _hand_over(self, peer: Peer) -> None:
        """Give a connection, with what was read of it, to a thread and gunicorn's own way."""
        self._watch(peer, 0)
        self._peers.discard(peer)
        self._gathered_bytes -= len(peer.data)
        conn = peer.conn
        conn.data_ready = True
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)  # else it would begin TLS of its own
        conn.init()
        _feed(conn.parser.unreader, peer.data)
        # Called again, in the thread, after it has made the socket block without end.
        conn.init = partial(conn.sock.settimeout, _THREAD_READ_SECONDS)
        self.enqueue_req(conn)

    def _push(self, peer: Peer, head: Head, end: int) -> None:
        assert self._lane is not None  # noqa: S101
        peer.awaits = True
        peer.closes = head.closes
        peer.head = head
        peer.begun = time.monotonic()
        body = peer.data[peer.body_at : end]
        if not self._lane.take(head, body, peer.conn.client, partial(self._settle, peer)):
            peer.awaits = False
            self._hand_over(peer)
            return
        self._gathered_bytes -= end
        peer.data = peer.data[end:]
        peer.body_at = 0

    def _settle(self, peer: Peer, result: Kept | ReceiverError) -> None:
        """Called by the committer, on its own thread."""
        self._settled.append((peer, result))
        if not self._woken:
            self._woken = True
            with suppress(OSError):
                os.write(self._wake_fds[1], b"\0")

    def _answer_settled(self, fd: int) -> None:
        assert self._lane is not None  # noqa: S101
        with suppress(OSError):
            os.read(fd, 4096)
        self._woken = False  # before the look: what is appended after it wakes us again
        now = time.monotonic()
        answered: list[tuple[Kept | ReceiverError, Head, float]] = []
        for _ in range(
            len(self._settled)
        ):  # what is refused meanwhile, of one that sends on and on, has its turn later
            peer, result = self._settled.popleft()
            peer.awaits = False
            assert peer.head is not None  # noqa: S101
            answered.append((result, peer.head, now - peer.begun))
            closes = peer.closes or not self.alive
            self._send(peer, self._lane.answer(result, peer.head, closes=closes), closes=closes)
        pushes = [seconds for result, _, seconds in answered if not isinstance(result, Refused)]
        metrics.ACK_SECONDS.observe_all(pushes)
        metrics.LANE_PUSHES.inc(len(pushes))
        self._lane.note(answered)

    def _send(self, peer: Peer, data: bytes, *, closes: bool) -> None:
        if peer not in self._peers:
            return  # it has gone meanwhile
        sock = peer.conn.sock
        try:
            # An answer is far smaller than the socket's buffer: where it does not fit, the peer reads nothing.
            sent = sock.send(data)
        except OSError:
            sent = -1
        if sent != len(data):
            self._drop(peer)
        elif closes:
            self._watch(peer, 0)
            self._forget(peer)
            self._end(peer.conn)
        elif peer.data:
            peer.begun = time.monotonic()
            self._advance(peer)
        else:
            self._wait(peer)

    # --- Connections out ---

    def _forget(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._gathered_bytes -= len(peer.data)
        peer.data = b""

    def _drop(self, peer: Peer) -> None:
        """Close a connection at once. What its peer still awaits is kept all the same; only the answer is lost."""
        if peer not in self._peers:
            return
        self._watch(peer, 0)
        self._forget(peer)
        self.nr_conns -= 1
        _end_tls(peer.conn.sock)
        util.close(peer.conn.sock)

    def _end(self, conn: Any) -> None:
        """Close a connection so that our last answer arrives, without waiting for its peer."""
        self.nr_conns -= 1
        sock = conn.sock
        try:
            sock.setblocking(False)
            _end_tls(sock)
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
        self._lingering[sock] = time.monotonic() + _LINGER_SECONDS
        self.poller.register(sock, selectors.EVENT_READ, self._drain)
        if len(self._lingering) > _LINGERING_MAX:
            self._close_lingering(next(iter(self._lingering)))

    def _drain(self, sock: Any) -> None:
        try:
            if sock.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close_lingering(sock)

    def _close_lingering(self, sock: socket.socket) -> None:
        del self._lingering[sock]
        self.poller.unregister(sock)
        util.close(sock)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what has waited for too long; called at every turn of the loop."""
        super().murder_keepalived(force)
        now = time.monotonic()
        while self._lingering:
            sock, deadline = next(iter(self._lingering.items()))
            if not force and deadline > now:
                break
            self._close_lingering(sock)
        if not self.alive and self._stop_began is None:
            self._stop_began = now
        if force or now - self._swept >= _SWEEP_SECONDS or not self.alive:
            self._swept = now
            for peer in [peer for peer in self._peers if force or self._overdue(peer, now)]:
                self._drop(peer)
            if self._certificate is not None:
                self._certificate.look()

    def _overdue(self, peer: Peer, now: float) -> bool:
        if peer.awaits:
            return False
        if peer.data or (peer.greets and self._stop_began is None):
            return now - peer.begun > _REQUEST_SECONDS
        if self._stop_began is not None:
            # A request may be under way to us on a connection whose last answer kept it open.
            return now - self._stop_began > float(STOP_KEEPALIVE_LINGER)
        return now - peer.idle_since > float(self.cfg.keepalive)

    def handle_error(self, _req: object, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that cannot be served, without its text: its path may hold a secret."""
        if isinstance(exc, ssl.SSLError):
            return  # the peer's records make no sense: there is nobody to answer
        known = next((row for row in _STATUS_OF_ERROR if isinstance(exc, row[0])), None)
        if known is not None:
            _, status, reason = known
            _log.warning("bad request", extra={"remote_addr": _host(addr), "error": type(exc).__name__})
        else:
            status, reason = 500, "Internal Server Error"
            _log.error("request failed", exc_info=exc)
        with suppress(OSError):
            util.write_nonblock(client, _error(status, reason))


class _Gathered:
    """What was read for a thread, in pieces such as a socket gives: gunicorn copies what it holds for every chunk."""

    def __init__(self, data: bytes, read_on: Callable[..., bytes]) -> None:
        self._data = data
        self._read_on = read_on
        self._deadline = time.monotonic() + _THREAD_BODY_SECONDS

    def __call__(self, *hint: Any) -> bytes:
        if not self._data:
            if time.monotonic() > self._deadline:
                raise TimeoutError("the request takes too long to arrive")
            return self._read_on(*hint)
        piece, self._data = self._data[:_PIECE_BYTES], self._data[_PIECE_BYTES:]
        return piece

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data


def _feed(unreader: Any, data: bytes) -> None:
    unreader.unread(data[:_PIECE_BYTES])
    unreader.chunk = _Gathered(data[_PIECE_BYTES:], type(unreader).chunk.__get__(unreader))


def _take_back(unreader: Any) -> bytes:
    held: bytes = unreader.take_buffered()
    gathered = vars(unreader).pop("chunk", None)
    return held if gathered is None else held + gathered.take()


def _held_by_tls(sock: Any) -> bytes:
    """Take what was decrypted but not yet read: no selector shows it."""
    held = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
    data: bytes = sock.recv(held) if held else b""
    return data


def _end_tls(sock: Any) -> None:
    """Tell the peer that this end is meant; without waiting, so that its own word on it is not heard."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.setblocking(False)
            sock.unwrap()


def _error(status: int, reason: str) -> bytes:
    """Give the answer to what never became a request: nothing of it is quoted."""
    lines = [
        f"HTTP/1.1 {status} {reason.partition(':')[0]}",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        f"Content-Length: {len(reason) + 1}",
    ]
    return "\r\n".join([*lines, "", f"{reason}\n"]).encode()


def _host(addr: Any) -> str:
    return str(addr[0]) if isinstance(addr, tuple) and addr else ""
