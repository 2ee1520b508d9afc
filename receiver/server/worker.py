"""gunicorn's threaded worker with a front of its own: requests are gathered without a thread, pushes answered so too.

One loop reads every connection. A push goes down the lane and its answer comes back from the committer; any other
request goes to a thread once all of it has arrived, and what its reader does not take of the answer at once comes back.
So a peer that sends or reads slowly, never ends or does not close holds a socket and a little memory, and no thread;
and a push costs no hand-over. Where there is no room for a newcomer, who has been idle longest goes.

Over TLS the same: the loop shakes hands and reads as far as it goes without waiting, a thread gets a socket that waits.

Leans on these of ThreadWorker: accept, set_accept_enabled, enqueue_req, finish_request, murder_keepalived, poller,
nr_conns, worker_connections, alive and the loop that calls them; and on TConn's init, parser and sock.
"""

from __future__ import annotations

import gc
import logging
import os
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
from gunicorn.http import get_parser

from receiver.intake import Acknowledged, Refused
from receiver.observability import metrics
from receiver.server import framing
from receiver.server.closing import held_by_tls
from receiver.server.connections import Connections
from receiver.server.fast_path import FastPath, Head
from receiver.server.peers import Peer, PeerConnection
from receiver.server.threads import error_answer, note_bad_request
from receiver.web import RUNTIME
from receiver.web.listeners import is_door

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.core import ReceiverError

_log = logging.getLogger(__name__)

_READ_BYTES = 65536
_ALL_GATHERED_MAX_BYTES = 128 * 1024 * 1024
_THREAD_READ_SECONDS = 10.0  # between two reads of what a thread reads itself
# How long a thread may keep the interpreter from the loop; Python's own 5 ms is most of a push's way.
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLD = 20_000  # new containers between two looks for garbage; a push makes a dozen, and none in a circle


class Worker(Connections):
    """Serves pushes from one loop and the rest from threads. Never waits for a peer to send, to read or to close."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settled: deque[tuple[Peer, Acknowledged | ReceiverError]] = deque()
        self._woken = False
        self._wake_fds: tuple[int, int] = (-1, -1)
        self._lane: FastPath | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        # What was loaded stays: looking it through again and again for garbage would stop every push meanwhile.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        lane = FastPath(self.wsgi, self.cfg)
        self._lane = lane if lane.open else None
        self._wake_fds = os.pipe()
        for fd in self._wake_fds:
            os.set_blocking(fd, False)
        self.poller.register(self._wake_fds[0], selectors.EVENT_READ, self._answer_settled)
        super().run()

    # --- Connections in ---

    def finish_request(self, conn: PeerConnection, fs: Any) -> None:
        """Take back a connection from its thread."""
        peer = Peer(conn)
        self._peers.add(peer)
        try:
            outbox, conn.outbox = conn.outbox, None
            peer.closes = fs.cancelled() or fs.result() is not True
            conn.sock.setblocking(False)
            if not peer.closes:
                peer.data = framing.take_back(conn.parser.unreader) + held_by_tls(conn.sock)
                self._gathered_bytes += len(peer.data)
            if outbox is not None and outbox.unsent:
                self._let_read(peer, outbox)
            else:
                self._answered(peer)
        except Exception:  # noqa: BLE001  (the loop goes on, whatever a thread has left behind)
            _log.exception("connection lost")
            self._drop(peer)

    # --- Reading ---

    def _ready(self, peer: Peer, sock: Any) -> None:
        try:
            if peer.greets:
                self._greet(peer, sock)
            elif peer.outbox is not None:
                self._write(peer, peer.outbox)
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
            self._read(peer, sock)

    def _answer_plain(self, peer: Peer) -> None:
        """Tell a peer that has begun with plain HTTP that TLS is spoken here."""
        self._watch(peer, 0)
        self._forget(peer)
        conn = peer.conn
        conn.sock = socket.socket(fileno=conn.sock.detach())
        note_bad_request(conn.client, "plain HTTP where TLS is spoken")
        with suppress(OSError):
            util.write_nonblock(conn.sock, error_answer(400, "Bad Request: HTTPS is spoken here, use https://"))
        self._end(conn)

    def _read(self, peer: Peer, sock: Any) -> None:
        try:
            piece = sock.recv(_READ_BYTES) + held_by_tls(sock)
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
            if peer.conn.room is not None:
                peer.conn.room.begin(peer)
            peer.silent = False
            peer.data = piece
            peer.begun = time.monotonic()
        else:
            peer.data += piece
        self._gathered_bytes += len(piece)
        if self._gathered_bytes > _ALL_GATHERED_MAX_BYTES:
            self._drop(peer)
        elif not peer.awaits:
            self._advance(peer)
        elif len(peer.data) > framing.GATHERED_MAX_BYTES:
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
                if len(data) > framing.HEAD_MAX_BYTES:
                    self._hand_over(peer)
                else:
                    self._wait(peer)
                return
            peer.body_at = peer.scanned = end + 4
        raw_head = data[: peer.body_at]
        head = None
        if self._lane is not None and framing.is_push(raw_head) and not is_door(self.app.settings, peer.conn.server):
            head = self._lane.head(raw_head, peer.conn.client)
        if head is None:
            self._advance_beside_the_lane(peer, raw_head)
            return
        end = peer.body_at + head.body_bytes
        if len(data) < end:
            self._wait(peer)
        else:
            self._push(peer, head, end)

    def _advance_beside_the_lane(self, peer: Peer, raw_head: bytes) -> None:
        if self._skip_left_over(peer, raw_head):
            self._advance(peer)
        elif framing.awaits_continue(raw_head):
            self._let_continue(peer, raw_head)
        elif framing.says_identity(raw_head):
            self._replace_head(peer, raw_head, framing.without_identity(raw_head))
            self._advance(peer)
        elif framing.is_whole(peer, raw_head):
            self._hand_over(peer)
        else:
            self._wait(peer)

    def _skip_left_over(self, peer: Peer, raw_head: bytes) -> bool:
        """Skip what a push has left over in front of the next one. False: there is nothing that may be skipped."""
        if self._lane is None or is_door(self.app.settings, peer.conn.server):
            return False
        skipped = self._lane.left_over(raw_head, peer.head, peer.conn.client)
        if not skipped:
            return False
        self._replace_head(peer, raw_head, raw_head[skipped:])
        metrics.LEFT_OVER.inc()
        _log.warning(
            "skipped what a push has left over: its Content-Length is too small",
            extra={"remote_addr": _host(peer), "bytes": skipped},
        )
        return True

    def _let_continue(self, peer: Peer, raw_head: bytes) -> None:
        """Let a peer send its body that waits for our word, here and not in a thread, which would wait for the body."""
        self._replace_head(peer, raw_head, framing.without_expectation(raw_head))
        try:
            peer.conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            self._drop(peer)
        else:
            self._advance(peer)

    def _replace_head(self, peer: Peer, raw_head: bytes, head: bytes) -> None:
        self._gathered_bytes -= len(raw_head) - len(head)
        peer.data = head + peer.data[len(raw_head) :]
        peer.body_at = peer.scanned = len(head)

    def _wait(self, peer: Peer) -> None:
        if peer.ended:
            if peer.data:
                self._hand_over(peer)
            else:
                self._drop(peer)
            return
        room = peer.conn.room
        if not peer.data and room is not None:  # of who leaves, the time runs on
            peer.idle_since = time.monotonic()
            room.rest(peer)
        self._watch(peer, selectors.EVENT_READ)

    def _note_late(self, late: Sequence[Peer]) -> None:
        metrics.REQUEST_TIMEOUTS.inc(len(late))
        others = []
        for peer in late:
            if sender := self._sender(peer):
                self.wsgi.extensions[RUNTIME].admission.note_unread(408, "timeout", *sender)
            else:
                others.append(_host(peer))
        if others:
            _log.warning(
                "requests given up on: not whole after 20 s",
                extra={"requests": len(others), "remote_addr": others[0], "status": 408},
            )

    def _sender(self, peer: Peer) -> tuple[str, str | None] | None:
        """Return who sends a push, as the connection and proxies have it. None: it is another request."""
        if not framing.is_push(peer.data) or is_door(self.app.settings, peer.conn.server):
            return None
        return _host(peer), framing.forwarded_for(peer.data)

    # --- Requests out ---

    def _hand_over(self, peer: Peer) -> None:
        """Hand a connection, with what was read of it, to a thread and gunicorn's own way."""
        conn = peer.conn
        if conn.leaves and not framing.is_push(peer.data):
            self._drop(peer)  # nobody would hear the answer: only a push is worth more than that
            return
        self._watch(peer, 0)
        self._peers.discard(peer)
        self._leaving.pop(peer, None)
        self._gathered_bytes -= len(peer.data)
        if conn.room is not None:
            conn.room.wake(peer)
        conn.data_ready = True
        conn.sender = self._sender(peer)
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)  # else it would begin TLS of its own
        conn.init()
        framing.feed(conn.parser.unreader, peer.data)
        # Called again, in the thread, after it has made the socket block without end.
        conn.init = partial(conn.sock.settimeout, _THREAD_READ_SECONDS)
        self.enqueue_req(conn)

    def _push(self, peer: Peer, head: Head, end: int) -> None:
        assert self._lane is not None  # noqa: S101
        peer.awaits = True
        if peer.conn.room is not None and not peer.conn.trusted:
            peer.conn.room.wake(peer)
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

    def _settle(self, peer: Peer, result: Acknowledged | ReceiverError) -> None:
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
        answered: list[tuple[Acknowledged | ReceiverError, Head, float]] = []
        for _ in range(
            len(self._settled)
        ):  # what is refused meanwhile, of one that sends on and on, has its turn later
            peer, result = self._settled.popleft()
            peer.awaits = False
            peer.conn.trusted |= isinstance(result, Acknowledged)
            assert peer.head is not None  # noqa: S101
            answered.append((result, peer.head, now - peer.begun))
            closes = peer.closes or not self.alive
            try:
                self._send(peer, self._lane.answer(result, peer.head, closes=closes), closes=closes)
            except Exception:  # noqa: BLE001  (the others go on)
                _log.exception("connection lost")
                self._drop(peer)
        pushes = [seconds for result, _, seconds in answered if not isinstance(result, Refused)]
        metrics.ACK_SECONDS.observe_all(pushes)
        metrics.LANE_PUSHES.inc(len(pushes))
        self._lane.note(answered)

    def _send(self, peer: Peer, data: bytes, *, closes: bool) -> None:
        if peer not in self._peers:
            return  # it has gone meanwhile
        peer.closes = closes
        if not peer.conn.leaves:
            try:
                # An answer is far smaller than the socket's buffer: where it does not fit, the peer reads nothing.
                sent = peer.conn.sock.send(data)
            except OSError:
                sent = -1
            if sent != len(data):
                self._drop(peer)
                return
        self._answered(peer)

    def _answered(self, peer: Peer) -> None:
        """Go on with a connection whose answer is sent."""
        if peer.closes:
            self._watch(peer, 0)
            self._forget(peer)
            self._end(peer.conn)
        elif peer.data:
            peer.begun = time.monotonic()
            self._advance(peer)
        else:
            self._wait(peer)


def _host(peer: Peer) -> str:
    client = peer.conn.client
    return client[0] if isinstance(client, tuple) else ""
