"""The connections that the loop looks after, and which of them has to go where a room is full."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn

from receiver.web.listeners import is_door, is_public

if TYPE_CHECKING:
    from collections.abc import Iterable

    from receiver.config import Settings
    from receiver.server.answers import Outbox
    from receiver.server.fast_path import Head
    from receiver.server.limits import ConnectionLimits
    from receiver.server.tls import ServedCertificate

# Who has just come is about to speak, and who was just answered may be about to speak again.
_SPARED_SECONDS = 1.0


class PeerConnection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's connection, with what outlives the one request that a thread serves."""

    def __init__(self, cfg: Any, sock: Any, client: Any, entrance: Entry) -> None:
        super().__init__(cfg, sock, client, entrance.address)
        room = entrance.room
        room.open += 1
        self.room: ConnectionPool | None = room  # None: it has been told that it is ended, and takes nobody's place
        self.trusted = False  # a push of it was acknowledged
        self.outbox: Outbox | None = None  # of the answer that a thread gives
        # Of the push that a thread has: the peer's address, and what proxies have written.
        self.sender: tuple[str, str | None] | None = None

    @property
    def leaves(self) -> bool:
        """Return whether its peer has been told that it is ended."""
        return self.room is None

    def leave_room(self) -> None:
        """Make its place free."""
        if self.room is not None:
            self.room.open -= 1
            self.room = None


class Peer:
    """A connection while the loop looks after it."""

    __slots__ = (
        "awaits", "begun", "body_at", "closes", "conn", "data", "ended", "greets", "head", "idle_since", "outbox",
        "scanned", "silent", "watched",
    )  # fmt: skip

    def __init__(self, conn: PeerConnection, *, silent: bool = False, greets: bool = False) -> None:
        self.conn = conn
        self.data = b""  # what has arrived of requests not yet handed on
        self.scanned = 0  # how far a chunked body has been looked through
        self.body_at = 0  # where the request's body begins, once its head is whole
        self.awaits = False  # a push of it is with the committer
        self.closes = False  # after that answer, or what is in its outbox
        self.head: Head | None = None  # of that push
        self.ended = False  # it will send no more
        self.watched = 0  # the events that it is registered for
        self.silent = silent  # it has asked nothing yet
        self.greets = greets  # its TLS handshake is under way
        self.outbox: Outbox | None = None  # what is still to be sent of a thread's answer
        # begun: when the first byte of the request came; of who is silent, the connection
        self.idle_since = self.begun = time.monotonic()


class ConnectionPool:
    """The connections of one kind of listener: how many there may be, and those that are idle, the longest first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        self._strangers: OrderedDict[Peer, None] = OrderedDict()  # no push of these was acknowledged
        self._trusted: OrderedDict[Peer, None] = OrderedDict()
        self._unfinished: OrderedDict[Peer, None] = OrderedDict()  # strangers of whose request not all has come

    def rest(self, peer: Peer) -> None:
        """Note that it is idle from now on."""
        (self._trusted if peer.conn.trusted else self._strangers)[peer] = None

    def begin(self, peer: Peer) -> None:
        """Note that it has begun to ask."""
        if peer.conn.trusted:
            self._trusted.pop(peer, None)
            return
        self._strangers.pop(peer, None)
        self._unfinished[peer] = None

    def wake(self, peer: Peer) -> None:
        """Note that it is idle no more, and that what it asks is all there."""
        for peers in (self._strangers, self._trusted, self._unfinished):
            peers.pop(peer, None)

    def idlest(self, now: float) -> Peer | None:
        """Return the one whose end costs least. None: nobody's.

        Who is idle longest and unknown, then who is unknown and asks slowly, then who was acknowledged and is idle.
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
        # All have just come or spoken. A newcomer's place is not for those whose requests will be ripe in a moment.
        return None if unfinished is not None else stranger or trusted


@dataclass(frozen=True, slots=True)
class Entry:
    """What one listener leads to."""

    address: Any  # as its socket tells it
    room: ConnectionPool
    certificate: ServedCertificate | None


def entrances(
    listeners: Iterable[Any], settings: Settings, limits: ConnectionLimits, certificate: ServedCertificate | None
) -> dict[Any, Entry]:
    """Return what each listener leads to. Those inside have rooms of their own, which no flood of the world's fills."""
    door, inside = ConnectionPool(limits.door), ConnectionPool(limits.inside)
    apart = (limits.door if settings.send_proxy_bind else 0) + (limits.inside if settings.internal_bind else 0)
    main = ConnectionPool(limits.connections - apart)
    found = {}
    for listener in listeners:
        address = listener.getsockname()
        if is_door(settings, address):
            found[listener] = Entry(address, door, None)
        elif settings.internal_bind is None or is_public(settings, address):
            found[listener] = Entry(address, main, certificate)
        else:
            found[listener] = Entry(address, inside, certificate)
    return found
