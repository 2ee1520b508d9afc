"""Accepts and closes the connections of one worker; the worker reads and writes on them.

Each kind of listener has its own pool. If a pool is full, the longest idle connection is closed for the new one.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import sys
import time
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER

from receiver.server.closing import LINGER_SECONDS, Lingering, discard_unsent, end_sending, end_tls
from receiver.server.limits import ConnectionLimits, open_files
from receiver.server.peers import ConnectionPool, Entry, Peer, PeerConnection, entrances
from receiver.server.threads import Threads, error_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.server.answers import Outbox
    from receiver.server.tls import ServedCertificate

_log = logging.getLogger(__name__)

_ACCEPTS_AT_ONCE = 64
_ALL_UNSENT_MAX_BYTES = 64 * 1024 * 1024
_REQUEST_SECONDS = 20.0  # from a request's first byte to its last, and from the connection to its first byte
_SWEEP_SECONDS = 0.5
_PAUSE_SECONDS = 0.2  # pause of a listener if no connection can be closed
_FULL_WARNING_SECONDS = 60.0  # between two log lines about a full pool
_PEER_GONE = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)
_NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connections(Threads):
    """Accepts and closes connections. Used only by the loop's thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections = sys.maxsize  # gunicorn's own limit would pause all listeners; ours is per pool
        self._limits = ConnectionLimits.within(open_files())
        self._entrances: dict[Any, Entry] = {}
        self._paused: dict[Any, float] = {}  # listeners that do not accept, and until when
        self._warned_full = -_FULL_WARNING_SECONDS
        self._peers: set[Peer] = set()
        self._gathered_bytes = 0
        self._leaving: dict[Peer, None] = {}  # shut down by us; a push that crosses is still read
        self._writers: dict[Peer, None] = {}  # responses that do not fit into the socket, oldest first
        self._unsent_bytes = 0
        self._swept = 0.0
        self._stop_began: float | None = None
        self._certificate: ServedCertificate | None = self.app.certificate

    def run(self) -> None:
        """Serve until stopped."""
        self._lingering = Lingering(self.poller, self._limits.ended)
        self._entrances = entrances(self.sockets, self.app.settings, self._limits, self._certificate)
        super().run()

    @abstractmethod
    def _ready(self, peer: Peer, sock: Any) -> None:
        """Continue a connection whose socket is ready."""

    @abstractmethod
    def _answered(self, peer: Peer) -> None:
        """Continue a connection whose response is sent."""

    @abstractmethod
    def _log_timeouts(self, late: Sequence[Peer]) -> None:
        """Log and count requests that timed out."""

    # --- In ---

    def accept(self, listener: Any) -> None:
        """Accept pending connections."""
        entrance = self._entrances[listener]
        pool = entrance.pool
        for _ in range(_ACCEPTS_AT_ONCE):
            if pool.open > pool.limit and not self._end_idlest(pool):
                self._pause_accepting(listener)
                return
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno in _NO_FILE_LEFT:
                    if self._free_file(pool):
                        continue
                    self._pause_accepting(listener)
                elif error.errno not in _PEER_GONE:
                    raise
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection = entrance.certificate.wrap(sock) if entrance.certificate else sock
            except OSError:
                util.close(sock)  # already closed by the client
                continue
            self.nr_conns += 1
            peer = Peer(
                PeerConnection(self.cfg, connection, client, entrance),
                silent=True,
                handshaking=entrance.certificate is not None,
            )
            self._peers.add(peer)
            if pool.open > pool.limit:
                self._end_idlest(pool)
            pool.mark_idle(peer)
            self._ready(peer, connection)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting."""
        self._accept_again(force=True)
        super().set_accept_enabled(enabled)

    def _pause_accepting(self, listener: Any) -> None:
        """Pause a listener: all its connections are busy, or no file descriptor is left."""
        self.poller.unregister(listener)
        self._paused[listener] = time.monotonic() + _PAUSE_SECONDS

    def _accept_again(self, *, force: bool = False) -> None:
        now = time.monotonic()
        for listener in [listener for listener, until in self._paused.items() if force or until <= now]:
            del self._paused[listener]
            self.poller.register(listener, selectors.EVENT_READ, self.accept)

    def _free_file(self, pool: ConnectionPool) -> bool:
        """Close a connection that is shut down already, else the longest idle one. Return False if there is none."""
        if self._lingering.close_oldest():
            return True
        leaving = next((peer for peer in self._leaving if not peer.awaits_answer), None)
        if leaving is not None:
            self._drop(leaving)
            return True
        return self._end_idlest(pool)

    def _end_idlest(self, pool: ConnectionPool) -> bool:
        """Close the longest idle connection. Return False if none is idle."""
        now = time.monotonic()
        if now - self._warned_full >= _FULL_WARNING_SECONDS:
            self._warned_full = now
            _log.warning(
                "connection limit reached: closing the longest idle connections; new ones wait if none is idle",
                extra={"connections": pool.limit},
            )
        while (peer := pool.idlest(now)) is not None:
            before = pool.open
            if peer.silent or peer.data:
                self._ready(peer, peer.conn.sock)  # first read what has already arrived: it may be a whole push
                if peer in self._peers and not peer.awaits_answer and (peer.silent or peer.data):
                    self._drop(peer)
            else:
                self._shut_down(peer)
            if pool.open < before:
                return True
        return False

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

    # --- Responses to slow readers ---

    def _send_rest(self, peer: Peer, outbox: Outbox) -> None:
        """Send a response as its client reads; if all unsent responses exceed the limit, drop the oldest."""
        peer.outbox = outbox
        self._writers[peer] = None
        self._unsent_bytes += outbox.unsent
        self._watch(peer, selectors.EVENT_WRITE)
        while self._unsent_bytes > _ALL_UNSENT_MAX_BYTES:
            self._drop(next(iter(self._writers)))

    def _write(self, peer: Peer, outbox: Outbox) -> None:
        before = outbox.unsent
        try:
            outbox.flush()
        except OSError:
            self._drop(peer)
            return
        finally:
            self._unsent_bytes -= before - outbox.unsent
        if not outbox.unsent:
            del self._writers[peer]
            peer.outbox = None
            self._answered(peer)

    # --- Out ---

    def _forget(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._leaving.pop(peer, None)
        if peer.conn.pool is not None:
            peer.conn.pool.mark_active(peer)
        self._gathered_bytes -= len(peer.data)
        peer.data = b""
        if peer.outbox is not None:
            del self._writers[peer]
            self._unsent_bytes -= peer.outbox.unsent
            peer.outbox = None

    def _drop(self, peer: Peer) -> None:
        """Close a connection at once. An enqueued push is still saved; only its answer is lost."""
        if peer not in self._peers:
            return
        if peer.outbox is not None:
            discard_unsent(peer.conn.sock)
        self._watch(peer, 0)
        self._forget(peer)
        self._leave(peer.conn)
        end_tls(peer.conn.sock)
        util.close(peer.conn.sock)

    def _end(self, conn: PeerConnection) -> None:
        """Close a connection so that our last response arrives."""
        self._leave(conn)
        self._lingering.end(conn.sock)

    def _leave(self, conn: PeerConnection) -> None:
        self.nr_conns -= 1
        conn.leave_pool()
        if self._paused:
            self._accept_again(force=True)

    def _shut_down(self, peer: Peer) -> None:
        """Shut down an idle connection and read on for a moment: a push that crosses is saved, but not answered."""
        conn = peer.conn
        if peer not in self._peers or conn.leaving:
            return
        self._ready(peer, conn.sock)  # first read what has already arrived
        if peer not in self._peers or peer.data or peer.awaits_answer:
            return
        try:
            end_sending(conn.sock)
        except OSError:
            self._drop(peer)
            return
        if conn.pool is not None:
            conn.pool.mark_active(peer)
        conn.leave_pool()
        peer.idle_since = time.monotonic()
        self._leaving[peer] = None
        if len(self._leaving) > self._limits.ended:
            self._drop(next(iter(self._leaving)))

    def murder_keepalived(self, force: bool = False) -> None:
        """Close timed-out connections; called at every turn of the loop."""
        super().murder_keepalived(force)
        now = time.monotonic()
        self._lingering.close_overdue(now, force=force)
        if self._paused and self.alive:
            self._accept_again()
        if not self.alive and self._stop_began is None:
            self._stop_began = now
        if force or now - self._swept >= _SWEEP_SECONDS or not self.alive:
            self._swept = now
            self._sweep(now, force=force)
            if self._certificate is not None:
                self._certificate.reload_if_changed()

    def _sweep(self, now: float, *, force: bool) -> None:
        late = [] if force else [peer for peer in self._peers if peer.data and self._overdue(peer, now)]
        if late:
            self._log_timeouts(late)
        for peer in late:
            self._time_out(peer)
        for peer in [peer for peer in self._peers if force or self._overdue(peer, now)]:
            idles = not (peer.data or peer.handshaking or peer.outbox or peer.conn.leaving)
            if idles and self._stop_began is None:
                self._shut_down(peer)
            else:
                self._drop(peer)

    def _time_out(self, peer: Peer) -> None:
        """Answer 408 to a request that timed out, and close the connection."""
        if not peer.conn.leaving and peer.outbox is None:
            with suppress(OSError):
                peer.conn.sock.send(error_answer(408, "Request Timeout"))
                self._watch(peer, 0)
                self._forget(peer)
                self._end(peer.conn)
                return
        self._drop(peer)

    def _overdue(self, peer: Peer, now: float) -> bool:
        if peer.awaits_answer:
            return False
        if peer.outbox is not None:
            return peer.outbox.reads_too_slowly(now)
        if peer.data or (peer.handshaking and self._stop_began is None):
            return now - peer.begun > _REQUEST_SECONDS
        if self._stop_began is not None:
            # A request may be under way on a kept-alive connection.
            return now - self._stop_began > float(STOP_KEEPALIVE_LINGER)
        if peer.conn.leaving:
            return now - peer.idle_since > LINGER_SECONDS
        if peer.silent:
            return now - peer.begun > _REQUEST_SECONDS
        return now - peer.idle_since > float(self.cfg.keepalive)
