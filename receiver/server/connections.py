"""The connections of one worker: taken, made room for, and ended; what is read and said on them is the worker's.

Each kind of listener has a room of its own. Where it is full, who has been idle longest goes and the newcomer stays.
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

from receiver.server.closing import LINGER_SECONDS, Lingering, end_sending, end_tls, forget_unsent
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
_REQUEST_SECONDS = 20.0  # for a request to arrive, from its first byte; for that byte, from the connection
_SWEEP_SECONDS = 0.5
_REST_SECONDS = 0.2  # of a listener where nobody can go
_TOLD_SECONDS = 60.0  # between two lines about a full house
_GONE_ALREADY = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)
_NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connections(Threads):
    """Takes and ends connections. For the loop's thread alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections = sys.maxsize  # gunicorn would rest all listeners; we make room in each one's own
        self._limits = ConnectionLimits.within(open_files())
        self._entrances: dict[Any, Entry] = {}
        self._resting: dict[Any, float] = {}  # listeners that do not accept, until then
        self._told_full = -_TOLD_SECONDS
        self._peers: set[Peer] = set()
        self._gathered_bytes = 0
        self._leaving: dict[Peer, None] = {}  # told that they are ended; what crosses is read
        self._writers: dict[Peer, None] = {}  # whose answers do not fit into their sockets, the longest first
        self._unsent_bytes = 0
        self._swept = 0.0
        self._stop_began: float | None = None
        self._certificate: ServedCertificate | None = self.app.certificate

    def run(self) -> None:
        """Serve until told to stop."""
        self._lingering = Lingering(self.poller, self._limits.ended)
        self._entrances = entrances(self.sockets, self.app.settings, self._limits, self._certificate)
        super().run()

    @abstractmethod
    def _ready(self, peer: Peer, sock: Any) -> None:
        """Go on with a connection whose socket is ready for what is awaited of it."""

    @abstractmethod
    def _answered(self, peer: Peer) -> None:
        """Go on with a connection whose answer is sent."""

    @abstractmethod
    def _note_late(self, late: Sequence[Peer]) -> None:
        """Log and count requests that have not come in time."""

    # --- In ---

    def accept(self, listener: Any) -> None:
        """Take what connections wait."""
        entrance = self._entrances[listener]
        room = entrance.room
        for _ in range(_ACCEPTS_AT_ONCE):
            if room.open > room.most and not self._end_idlest(room):
                self._rest(listener)
                return
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno in _NO_FILE_LEFT:
                    if self._free_file(room):
                        continue
                    self._rest(listener)
                elif error.errno not in _GONE_ALREADY:
                    raise
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection = entrance.certificate.wrap(sock) if entrance.certificate else sock
            except OSError:
                util.close(sock)  # it has gone already
                continue
            self.nr_conns += 1
            peer = Peer(
                PeerConnection(self.cfg, connection, client, entrance),
                silent=True,
                greets=entrance.certificate is not None,
            )
            self._peers.add(peer)
            if room.open > room.most:
                self._end_idlest(room)
            room.rest(peer)
            self._ready(peer, connection)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin to accept, or end it."""
        self._accept_again(force=True)
        super().set_accept_enabled(enabled)

    def _rest(self, listener: Any) -> None:
        """Accept nobody there for a moment: all are busy, or the system has no file left."""
        self.poller.unregister(listener)
        self._resting[listener] = time.monotonic() + _REST_SECONDS

    def _accept_again(self, *, force: bool = False) -> None:
        now = time.monotonic()
        for listener in [listener for listener, until in self._resting.items() if force or until <= now]:
            del self._resting[listener]
            self.poller.register(listener, selectors.EVENT_READ, self.accept)

    def _free_file(self, room: ConnectionPool) -> bool:
        """Close a connection whose end costs nothing more, else the idlest. False: there is none."""
        if self._lingering.close_oldest():
            return True
        told = next((peer for peer in self._leaving if not peer.awaits), None)
        if told is not None:
            self._drop(told)
            return True
        return self._end_idlest(room)

    def _end_idlest(self, room: ConnectionPool) -> bool:
        """End the connection that has been idle longest. False: none is."""
        now = time.monotonic()
        peer = room.idlest(now)
        if now - self._told_full >= _TOLD_SECONDS:
            self._told_full = now
            _log.warning(
                "no room for more connections: the idlest are ended; where none is idle, newcomers wait",
                extra={"connections": room.most},
            )
        if peer is None:
            return False
        if peer.silent or peer.data:
            self._drop(peer)
        else:
            self._dismiss(peer)
        return True

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

    # --- Answers that wait for their readers ---

    def _let_read(self, peer: Peer, outbox: Outbox) -> None:
        """Wait for the reader of an answer; where they hold too much in all, who has read longest is ended."""
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
        if peer.conn.room is not None:
            peer.conn.room.wake(peer)
        self._gathered_bytes -= len(peer.data)
        peer.data = b""
        if peer.outbox is not None:
            del self._writers[peer]
            self._unsent_bytes -= peer.outbox.unsent
            peer.outbox = None

    def _drop(self, peer: Peer) -> None:
        """Close a connection at once. What its peer still awaits is kept all the same; only the answer is lost."""
        if peer not in self._peers:
            return
        if peer.outbox is not None:
            forget_unsent(peer.conn.sock)
        self._watch(peer, 0)
        self._forget(peer)
        self._leave(peer.conn)
        end_tls(peer.conn.sock)
        util.close(peer.conn.sock)

    def _end(self, conn: PeerConnection) -> None:
        """Close a connection so that our last answer arrives."""
        self._leave(conn)
        self._lingering.end(conn.sock)

    def _leave(self, conn: PeerConnection) -> None:
        self.nr_conns -= 1
        conn.leave_room()
        if self._resting:
            self._accept_again(force=True)

    def _dismiss(self, peer: Peer) -> None:
        """End a connection that is idle, and read on for a moment: a push that crosses is kept, if not answered."""
        conn = peer.conn
        if peer not in self._peers or conn.leaves:
            return
        self._ready(peer, conn.sock)  # what has come by now does not cross
        if peer not in self._peers or peer.data or peer.awaits:
            return
        try:
            end_sending(conn.sock)
        except OSError:
            self._drop(peer)
            return
        if conn.room is not None:
            conn.room.wake(peer)
        conn.leave_room()
        peer.idle_since = time.monotonic()
        self._leaving[peer] = None
        if len(self._leaving) > self._limits.ended:
            self._drop(next(iter(self._leaving)))

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what has waited for too long; called at every turn of the loop."""
        super().murder_keepalived(force)
        now = time.monotonic()
        self._lingering.close_overdue(now, force=force)
        if self._resting and self.alive:
            self._accept_again()
        if not self.alive and self._stop_began is None:
            self._stop_began = now
        if force or now - self._swept >= _SWEEP_SECONDS or not self.alive:
            self._swept = now
            self._sweep(now, force=force)
            if self._certificate is not None:
                self._certificate.look()

    def _sweep(self, now: float, *, force: bool) -> None:
        late = [] if force else [peer for peer in self._peers if peer.data and self._overdue(peer, now)]
        if late:
            self._note_late(late)
        for peer in late:
            self._give_up(peer)
        for peer in [peer for peer in self._peers if force or self._overdue(peer, now)]:
            idles = not (peer.data or peer.greets or peer.outbox or peer.conn.leaves)
            if idles and self._stop_began is None:
                self._dismiss(peer)
            else:
                self._drop(peer)

    def _give_up(self, peer: Peer) -> None:
        """Tell a peer that its request has not come in time, and end the connection."""
        if not peer.conn.leaves and peer.outbox is None:
            with suppress(OSError):
                peer.conn.sock.send(error_answer(408, "Request Timeout"))
                self._watch(peer, 0)
                self._forget(peer)
                self._end(peer.conn)
                return
        self._drop(peer)

    def _overdue(self, peer: Peer, now: float) -> bool:
        if peer.awaits:
            return False
        if peer.outbox is not None:
            return peer.outbox.reads_too_slowly(now)
        if peer.data or (peer.greets and self._stop_began is None):
            return now - peer.begun > _REQUEST_SECONDS
        if self._stop_began is not None:
            # A request may be under way to us on a connection whose last answer kept it open.
            return now - self._stop_began > float(STOP_KEEPALIVE_LINGER)
        if peer.conn.leaves:
            return now - peer.idle_since > LINGER_SECONDS
        if peer.silent:
            return now - peer.begun > _REQUEST_SECONDS
        return now - peer.idle_since > float(self.cfg.keepalive)
