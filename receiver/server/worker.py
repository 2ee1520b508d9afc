"""gunicorn's threaded worker with its own event loop: requests are read, and pushes answered, without a thread.

One loop reads every connection. A push takes the fast path, and the batch writer calls back with its result. Any other
request goes to a thread once it is complete; the loop sends the part of the response that the client does not read at
once. So a slow peer, or one that never closes, holds a socket and a little memory but no thread. If a pool is full, the
longest idle connection is closed.

TLS works the same: the loop does the handshake and reads without blocking; a thread gets a blocking socket.

Uses these of ThreadWorker: accept, set_accept_enabled, enqueue_req, finish_request, murder_keepalived, poller,
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

from receiver.intake.admission import Refused
from receiver.intake.batch_writer import Acknowledged
from receiver.observability import metrics
from receiver.server import framing
from receiver.server.closing import read_tls_pending
from receiver.server.connections import Connections
from receiver.server.fast_path import FastPath, Head
from receiver.server.peers import Peer, PeerConnection
from receiver.server.threads import error_answer, log_bad_request
from receiver.web import RUNTIME
from receiver.web.listeners import is_send_proxy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.core import ReceiverError

_log = logging.getLogger(__name__)

_READ_BYTES = 65536
_ALL_GATHERED_MAX_BYTES = 128 * 1024 * 1024
_THREAD_READ_SECONDS = 10.0  # between two reads by a thread
# How long a thread may keep the interpreter from the loop; Python's default of 5 ms would dominate a push's latency.
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLD = 20_000  # new containers between two collections; a push creates a dozen and no cycle


class Worker(Connections):
    """Serves pushes from one loop and other requests from threads. The loop never blocks on a peer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: deque[tuple[Peer, Acknowledged | ReceiverError]] = deque()
        self._woken = False
        self._wake_fds: tuple[int, int] = (-1, -1)
        self._fast_path: FastPath | None = None

    def run(self) -> None:
        """Serve until stopped."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        # Exclude loaded modules from garbage collection: scanning them would delay every push.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        fast_path = FastPath(self.wsgi.monitored, self.cfg)
        self._fast_path = fast_path if fast_path.enabled else None
        self._wake_fds = os.pipe()
        for fd in self._wake_fds:
            os.set_blocking(fd, False)
        self.poller.register(self._wake_fds[0], selectors.EVENT_READ, self._answer_done)
        super().run()

    # --- Connections in ---

    def finish_request(self, conn: PeerConnection, fs: Any) -> None:
        """Return a connection from its thread to the loop."""
        peer = Peer(conn)
        self._peers.add(peer)
        try:
            outbox, conn.outbox = conn.outbox, None
            peer.closes = fs.cancelled() or fs.result() is not True
            conn.sock.setblocking(False)
            if not peer.closes:
                peer.data = framing.take_unparsed(conn.parser.unreader) + read_tls_pending(conn.sock)
                self._gathered_bytes += len(peer.data)
            if outbox is not None and outbox.unsent:
                self._send_rest(peer, outbox)
            else:
                self._answered(peer)
        except Exception:  # noqa: BLE001  (the loop must go on)
            _log.exception("connection lost")
            self._drop(peer)

    # --- Reading ---

    def _ready(self, peer: Peer, sock: Any) -> None:
        try:
            if peer.handshaking:
                self._handshake(peer, sock)
            elif peer.outbox is not None:
                self._write(peer, peer.outbox)
            else:
                self._read(peer, sock)
        except Exception:  # noqa: BLE001  (edge of the loop: the other connections go on)
            _log.exception("connection lost")
            self._drop(peer)

    def _handshake(self, peer: Peer, sock: ssl.SSLSocket) -> None:
        """Continue a TLS handshake without blocking."""
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
            peer.handshaking = False
            self._read(peer, sock)

    def _answer_plain(self, peer: Peer) -> None:
        """Answer 400 to a client that speaks plain HTTP on a TLS port."""
        self._watch(peer, 0)
        self._forget(peer)
        conn = peer.conn
        conn.sock = socket.socket(fileno=conn.sock.detach())
        log_bad_request(conn.client, "plain HTTP on a TLS port")
        with suppress(OSError):
            util.write_nonblock(conn.sock, error_answer(400, "Bad Request: this port needs HTTPS, use https://"))
        self._end(conn)

    def _read(self, peer: Peer, sock: Any) -> None:
        try:
            piece = sock.recv(_READ_BYTES) + read_tls_pending(sock)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(peer, selectors.EVENT_READ)
            return
        except OSError:
            # TLS may have to write first (renegotiation), to a peer that does not read: dropping it loses nothing.
            self._drop(peer)
            return
        if not piece:
            self._sending_ended(peer)
            return
        if not peer.data:
            if peer.conn.pool is not None:
                peer.conn.pool.mark_receiving(peer)
            peer.silent = False
            peer.data = piece
            peer.begun = time.monotonic()
        else:
            peer.data += piece
        self._gathered_bytes += len(piece)
        if self._gathered_bytes > _ALL_GATHERED_MAX_BYTES:
            self._drop(peer)
        elif not peer.awaits_answer:
            self._advance(peer)
        elif len(peer.data) > framing.GATHERED_MAX_BYTES:
            self._watch(peer, 0)  # it keeps sending without reading our answers

    def _sending_ended(self, peer: Peer) -> None:
        peer.ended = True
        self._watch(peer, 0)
        if peer.data and not peer.awaits_answer:
            self._hand_over(peer)  # it may have shut down only its sending side and still wait for an answer
        elif not peer.awaits_answer:
            self._drop(peer)

    def _advance(self, peer: Peer) -> None:
        """Handle the received bytes: pass on one complete request, or wait for the rest."""
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
        if (
            self._fast_path is not None
            and framing.is_push(raw_head)
            and not is_send_proxy(self.app.settings, peer.conn.server)
        ):
            head = self._fast_path.head(raw_head, peer.conn.client)
        if head is None:
            self._advance_slow_path(peer, raw_head)
            return
        end = peer.body_at + head.body_bytes
        if len(data) < end:
            self._wait(peer)
        else:
            self._enqueue_push(peer, head, end)

    def _advance_slow_path(self, peer: Peer, raw_head: bytes) -> None:
        if self._skip_left_over(peer, raw_head):
            self._advance(peer)
        elif framing.awaits_continue(raw_head):
            self._let_continue(peer, raw_head)
        elif framing.has_identity_encoding(raw_head):
            self._replace_head(peer, raw_head, framing.without_identity(raw_head))
            self._advance(peer)
        elif framing.is_whole(peer, raw_head):
            self._hand_over(peer)
        else:
            self._wait(peer)

    def _skip_left_over(self, peer: Peer, raw_head: bytes) -> bool:
        """Skip surplus bytes of the previous push. Return False if there is nothing to skip."""
        if self._fast_path is None or is_send_proxy(self.app.settings, peer.conn.server):
            return False
        skipped = self._fast_path.count_left_over(raw_head, peer.head, peer.conn.client)
        if not skipped:
            return False
        self._replace_head(peer, raw_head, raw_head[skipped:])
        metrics.LEFT_OVER.inc()
        _log.warning(
            "skipped surplus bytes after a push: its Content-Length is too small",
            extra={"remote_addr": _host(peer), "bytes": skipped},
        )
        return True

    def _let_continue(self, peer: Peer, raw_head: bytes) -> None:
        """Send 100 Continue from the loop; a thread would block until the body arrives."""
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
        pool = peer.conn.pool
        if not peer.data and pool is not None:  # a leaving connection keeps its deadline
            peer.idle_since = time.monotonic()
            pool.mark_idle(peer)
        self._watch(peer, selectors.EVENT_READ)

    def _log_timeouts(self, late: Sequence[Peer]) -> None:
        metrics.REQUEST_TIMEOUTS.inc(len(late))
        others = []
        for peer in late:
            if sender := self._sender(peer):
                self.wsgi.extensions[RUNTIME].admission.record_unread(408, "timeout", *sender)
            else:
                others.append(_host(peer))
        if others:
            _log.warning(
                "requests timed out: incomplete after 20 s",
                extra={"requests": len(others), "remote_addr": others[0], "status": 408},
            )

    def _sender(self, peer: Peer) -> tuple[str, str | None] | None:
        """Return the peer address and X-Forwarded-For of a push. None: another request."""
        if not framing.is_push(peer.data) or is_send_proxy(self.app.settings, peer.conn.server):
            return None
        return _host(peer), framing.forwarded_for(peer.data)

    # --- Requests out ---

    def _hand_over(self, peer: Peer) -> None:
        """Pass a connection and its received bytes to a thread, where gunicorn serves it."""
        conn = peer.conn
        if conn.leaving and not framing.is_push(peer.data):
            self._drop(peer)  # the answer would be lost; only a push is worth serving anyway
            return
        self._watch(peer, 0)
        self._peers.discard(peer)
        self._leaving.pop(peer, None)
        self._gathered_bytes -= len(peer.data)
        if conn.pool is not None:
            conn.pool.mark_active(peer)
        conn.data_ready = True
        conn.sender = self._sender(peer)
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)  # otherwise gunicorn would start TLS itself
        conn.init()
        framing.feed(conn.parser.unreader, peer.data)
        # Called again in the thread, after gunicorn has made the socket block forever.
        conn.init = partial(conn.sock.settimeout, _THREAD_READ_SECONDS)
        self.enqueue_req(conn)

    def _enqueue_push(self, peer: Peer, head: Head, end: int) -> None:
        assert self._fast_path is not None  # noqa: S101
        peer.awaits_answer = True
        if peer.conn.pool is not None and not peer.conn.trusted:
            peer.conn.pool.mark_active(peer)
        peer.closes = head.closes
        peer.head = head
        peer.begun = time.monotonic()
        body = peer.data[peer.body_at : end]
        if not self._fast_path.admit_and_enqueue(head, body, peer.conn.client, partial(self._on_done, peer)):
            peer.awaits_answer = False
            self._hand_over(peer)
            return
        self._gathered_bytes -= end
        peer.data = peer.data[end:]
        peer.body_at = 0

    def _on_done(self, peer: Peer, result: Acknowledged | ReceiverError) -> None:
        """Store a result for the loop and wake it. Called on the batch writer's thread."""
        self._done.append((peer, result))
        if not self._woken:
            self._woken = True
            with suppress(OSError):
                os.write(self._wake_fds[1], b"\0")

    def _answer_done(self, fd: int) -> None:
        assert self._fast_path is not None  # noqa: S101
        with suppress(OSError):
            os.read(fd, 4096)
        self._woken = False  # before reading the queue: later results wake us again
        now = time.monotonic()
        answered: list[tuple[Acknowledged | ReceiverError, Head, float]] = []
        # Only the results of now: a client whose pushes are all refused must not hold the loop.
        for _ in range(len(self._done)):
            peer, result = self._done.popleft()
            peer.awaits_answer = False
            peer.conn.trusted |= isinstance(result, Acknowledged)
            assert peer.head is not None  # noqa: S101
            answered.append((result, peer.head, now - peer.begun))
            closes = peer.closes or not self.alive
            try:
                self._send(peer, self._fast_path.answer(result, peer.head, closes=closes), closes=closes)
            except Exception:  # noqa: BLE001  (the others go on)
                _log.exception("connection lost")
                self._drop(peer)
        pushes = [seconds for result, _, seconds in answered if not isinstance(result, Refused)]
        metrics.ACK_SECONDS.observe_all(pushes)
        metrics.FAST_PATH_PUSHES.inc(len(pushes))
        self._fast_path.log_answered(answered)

    def _send(self, peer: Peer, data: bytes, *, closes: bool) -> None:
        if peer not in self._peers:
            return  # the connection is closed
        peer.closes = closes
        if not peer.conn.leaving:
            try:
                # An answer is far smaller than the socket buffer: if it does not fit, the peer does not read.
                sent = peer.conn.sock.send(data)
            except OSError:
                sent = -1
            if sent != len(data):
                self._drop(peer)
                return
        self._answered(peer)

    def _answered(self, peer: Peer) -> None:
        """Continue a connection whose answer is sent."""
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
