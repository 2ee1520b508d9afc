"""The connections of the loop, and which of them is closed when a pool is full."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn

from receiver.web.listeners import is_public, is_send_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from receiver.config import Settings
    from receiver.server.answers import Outbox
    from receiver.server.fast_path import Head
    from receiver.server.limits import ConnectionLimits
    from receiver.server.tls import ServedCertificate

# A new connection is about to send, and one just answered may send again.
_SPARED_SECONDS = 1.0


class PeerConnection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's connection plus state that outlives a single request."""

    def __init__(self, cfg: Any, sock: Any, client: Any, entrance: Entry) -> None:
        super().__init__(cfg, sock, client, entrance.address)
        pool = entrance.pool
        pool.open += 1
        self.pool: ConnectionPool | None = pool  # None: shut down, no longer counted
        self.trusted = False  # one of its pushes was acknowledged
        self.outbox: Outbox | None = None  # the response of a thread
        # Of the push in a thread: the peer's address and X-Forwarded-For.
        self.sender: tuple[str, str | None] | None = None

    @property
    def leaving(self) -> bool:
        """Return whether we have shut it down."""
        return self.pool is None

    def leave_pool(self) -> None:
        """Free its place in the pool."""
        if self.pool is not None:
            self.pool.open -= 1
            self.pool = None


class Peer:
    """A connection owned by the loop."""

    __slots__ = (
        "awaits_answer", "begun", "body_at", "closes", "conn", "data", "ended", "handshaking", "head", "idle_since",
        "outbox", "scanned", "silent", "watched",
    )  # fmt: skip

    def __init__(self, conn: PeerConnection, *, silent: bool = False, handshaking: bool = False) -> None:
        self.conn = conn
        self.data = b""  # received bytes of requests not handed on yet
        self.scanned = 0  # how far a chunked body has been scanned
        self.body_at = 0  # offset of the request's body; 0: the head is incomplete
        self.awaits_answer = False  # one of its pushes is enqueued
        self.closes = False  # close after that response, or after the outbox is sent
        self.head: Head | None = None  # of that push
        self.ended = False  # the peer sends no more
        self.watched = 0  # events it is registered for
        self.silent = silent  # it has sent nothing yet
        self.handshaking = handshaking  # its TLS handshake is under way
        self.outbox: Outbox | None = None  # unsent part of a thread's response
        # begun: time of the request's first byte; of a silent peer, of the connection
        self.idle_since = self.begun = time.monotonic()


class ConnectionPool:
    """The connections of one kind of listener: their limit, and the idle ones, longest idle first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self._strangers: OrderedDict[Peer, None] = OrderedDict()  # none of their pushes was acknowledged
        self._trusted: OrderedDict[Peer, None] = OrderedDict()
        self._unfinished: OrderedDict[Peer, None] = OrderedDict()  # strangers with an incomplete request

    def mark_idle(self, peer: Peer) -> None:
        """Mark a connection as idle."""
        (self._trusted if peer.conn.trusted else self._strangers)[peer] = None

    def mark_receiving(self, peer: Peer) -> None:
        """Mark a connection as receiving a request."""
        if peer.conn.trusted:
            self._trusted.pop(peer, None)
            return
        self._strangers.pop(peer, None)
        self._unfinished[peer] = None

    def mark_active(self, peer: Peer) -> None:
        """Mark a connection as active: its request is complete."""
        for peers in (self._strangers, self._trusted, self._unfinished):
            peers.pop(peer, None)

    def idlest(self, now: float) -> Peer | None:
        """Return the connection to close when the pool is full. None: none may be closed.

        First the longest idle stranger, then the slowest sending stranger, then the longest idle trusted one.
        """
        stranger, unfinished, trusted = (
            next(iter(peers), None) for peers in (self._strangers, self._unfinished, self._trusted)
        )
        if stranger is not None and now - stranger.idle_since >= _SPARED_SECONDS:
            return stranger
        if unfinished is not None and now - unfinished.begun >= _SPARED_SECONDS:
            return unfinished
        if trusted is not None and now - trusted.idle_since >= _SPARED_SECONDS:
            return trusted
        # All are new or just answered. A newcomer does not displace a request that is about to complete.
        return None if unfinished is not None else stranger or trusted


@dataclass(frozen=True, slots=True)
class Entry:
    """The pool and certificate of one listener."""

    address: Any  # from getsockname()
    pool: ConnectionPool
    certificate: ServedCertificate | None


def entrances(
    listeners: Iterable[Any], settings: Settings, limits: ConnectionLimits, certificate: ServedCertificate | None
) -> dict[Any, Entry]:
    """Return the entry of each listener. Internal listeners have their own pools, which no public flood can fill."""
    send_proxy, internal = ConnectionPool(limits.send_proxy), ConnectionPool(limits.internal)
    reserved = (limits.send_proxy if settings.send_proxy_bind else 0) + (
        limits.internal if settings.internal_bind else 0
    )
    main = ConnectionPool(limits.connections - reserved)
    found = {}
    for listener in listeners:
        address = listener.getsockname()
        if is_send_proxy(settings, address):
            found[listener] = Entry(address, send_proxy, None)
        elif settings.internal_bind is None or is_public(settings, address):
            found[listener] = Entry(address, main, certificate)
        else:
            found[listener] = Entry(address, internal, certificate)
    return found
