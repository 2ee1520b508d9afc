"""Decides whether a request is a push that we take. Knows no web framework.

In this order: secret, address, length, size. A refused body is read off up to a bound, so that the answer
arrives instead of a reset connection.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from receiver.core import Kind, Push, ReceiverError, earliest, new_id
from receiver.intake.secrets import PushSecret, PushSecrets
from receiver.observability import get_logger, metrics
from receiver.platform.push_parser import CLOCK_FLAG, PATH_FLAG, PushReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.config import Network, Settings

PUSH_MAX_BYTES = 64 * 1024  # body and query together
_DRAIN_MAX_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_CLOCKS_APART = timedelta(minutes=5)  # of nodes
_REFUSALS_KEPT = 100
_PROBES_MANY = 20  # more than whoever sets things up makes, or watches whether it is up
_REDIRECTED_WITHIN = timedelta(minutes=15)
_OBSERVED_KEPT = 100
# Whoever guesses or mistypes pushes as fast as he likes: the log is not to be filled by him.
_TOLD_MAX = 20
_TOLD_SECONDS = 10.0
_NO_SUCH_ADDRESS = "no such address"
_BARE_METHODS = frozenset({"GET", "HEAD"})

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushRequest:
    """One HTTP request to a push URL, as any front door sees it."""

    secret: str
    endpoint: Kind | None
    strayed: bool = False  # to a path behind the secret that is none of ours
    method: str
    query: bytes
    content_length: str | None  # as the header says
    chunked: bool
    content_type: str | None
    peer: str  # the address that the connection comes from; empty for a Unix socket
    forwarded_for: str | None
    referred: bool = False  # it says from where it was led here
    read: Callable[[int], bytes]  # at most that many bytes; empty: no more; BrokenBody


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A refused request, as it is remembered for whoever sets things up."""

    at: datetime
    address: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Pushes that were taken, and that a stricter setting would refuse."""

    address: str
    reason: str  # `address`: outside RECEIVER_PUSH_ALLOW; `secret`: by a retiring one
    pushes: int  # since the start
    last_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A bare request with the right secret, as whoever sets things up makes one."""

    at: datetime
    address: str
    method: str


class Refused(ReceiverError):
    """Not a push that we take. `status`: of the answer; `reason`: one word for metrics."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.told = True  # by a line in the log; False: it is one of too many
        self.address = ""  # that it came from
        self.request_id: str | None = None  # under which it was told, where the gate was given one


class BrokenBody(ReceiverError):
    """Raised by a front door's `read` where the body ends before it should, or is not framed as it says."""


class Admission:
    """Admits pushes. Safe for many threads."""

    def __init__(self, settings: Settings) -> None:
        self.secrets = PushSecrets(settings.push_tokens)
        self._allow = settings.push_allow
        self._enforces = settings.push_allow_enforced
        self._trusted_proxies = settings.trusted_proxies
        self._reader = PushReader(
            zone=settings.timezone, time_formats=settings.time_formats, opt_out_words=settings.opt_out_words
        )
        self.refusals: deque[Refusal] = deque(maxlen=_REFUSALS_KEPT)
        self.last_probe: Probe | None = None
        self._probed: deque[datetime] = deque(maxlen=_PROBES_MANY)  # when the last bare GETs came
        self._referred_at: datetime | None = None  # when one came that had been led here
        self._observed: OrderedDict[tuple[str, str], Observed] = OrderedDict()  # by reason and address
        self._observing = threading.Lock()
        self._telling = threading.Lock()
        self._told = self._left_out = 0
        self._told_since = -math.inf  # by time.monotonic()
        self._newest_at = earliest()  # when the newest row came; a clock from before then is wrong in any case

    def admit(self, request: PushRequest) -> Push | None:
        """Take a push, read. None: a bare probe, to be acknowledged and forgotten. Raises Refused."""
        address = client_address(request.peer, request.forwarded_for, self._trusted_proxies)
        try:
            secret = self.secrets.find(request.secret)
            if secret is None:
                raise Refused(404, "secret", _NO_SUCH_ADDRESS)
            if self._enforces and not self._allows(address):
                raise Refused(403, "address", "this address may not push here (RECEIVER_PUSH_ALLOW)")
            body = _whole_body(request)
        except BrokenBody as broken:
            refused = Refused(400, "length", str(broken))
            self._remember(refused, address)
            raise refused from broken
        except Refused as refused:
            self._remember(refused, address)
            _drain(request)
            raise
        if not body and not request.query and request.method in _BARE_METHODS:
            self._note_probe(Probe(at=datetime.now(UTC), address=address, method=request.method), request)
            return None
        return self.take(request, body, secret=secret, address=address)

    def _note_probe(self, probe: Probe, request: PushRequest) -> None:
        self.last_probe = probe
        metrics.PROBES.labels(probe.method).inc()
        if probe.method == "GET":
            self._probed.append(probe.at)
        if request.referred:
            self._referred_at = probe.at

    def is_redirected(self, now: datetime) -> bool:
        """Return whether something in front seems to redirect.

        Most clients turn a push into a bare GET then, and hear ok.
        """
        since = now - _REDIRECTED_WITHIN
        if self._referred_at is not None and self._referred_at > since:
            return True
        return len(self._probed) == _PROBES_MANY and self._probed[0] > since

    def refuse_secret(self, peer: str, forwarded_for: str | None, *, request_id: str) -> Refused:
        """Refuse a push whose secret was found to be nobody's, as `admit` does."""
        refused = Refused(404, "secret", _NO_SUCH_ADDRESS)
        refused.request_id = request_id
        self._remember(refused, client_address(peer, forwarded_for, self._trusted_proxies))
        return refused

    def note_unread(self, status: int, reason: str, peer: str, forwarded_for: str | None) -> None:
        """Note a push that was refused before its path was read; its secret may be any.

        `reason`: `timeout`, it was not whole in time; `head`, its head is too large or none.
        """
        refused = Refused(status, reason, "the push could not be read")
        self._remember(refused, client_address(peer, forwarded_for, self._trusted_proxies))

    def take(self, request: PushRequest, body: bytes, *, secret: PushSecret, address: str) -> Push:
        """Make a push of a request whose secret, address and size have been found right, and its whole body."""
        received_at = datetime.now(UTC)
        reading, flags = self._reader.read(
            body=body,
            query=request.query,
            endpoint=request.endpoint,
            content_type=request.content_type,
            seen_at=received_at,
            clock=not self._is_behind(received_at),
        )
        secret.note(received_at)
        if secret.place:
            self._observe("secret", address, received_at)
        if not self._enforces and not self._allows(address):
            self._observe("address", address, received_at)
        return Push(
            id=new_id(),
            account=secret.account,
            endpoint=request.endpoint,
            method=request.method,
            query=request.query,
            body=body,
            content_type=request.content_type,
            remote_addr=address,
            received_at=received_at,
            reading=reading,
            flags=(*flags, PATH_FLAG) if request.strayed else flags,
        )

    def allowed_address(self, peer: str, forwarded_for: str | None) -> str | None:
        """Return the address a request comes from; None where it may not push."""
        address = client_address(peer, forwarded_for, self._trusted_proxies)
        return None if self._enforces and not self._allows(address) else address

    @property
    def observed(self) -> list[Observed]:
        """What this process took and a stricter setting would refuse, the newest first; bounded."""
        with self._observing:
            return list(reversed(self._observed.values()))

    def read_again(self, push: Push, *, seen_at: datetime | None = None) -> Push:
        """Return the push as this gate reads it now.

        `seen_at`: what its time may not be far ahead of, its arrival or its replay. None: its time may be any, for what
        was accepted before stands.
        """
        reading, flags = self._reader.read(
            body=push.body,
            query=push.query,
            endpoint=push.endpoint,
            content_type=push.content_type,
            seen_at=seen_at,
            clock=CLOCK_FLAG not in push.flags and not self._is_behind(seen_at or push.received_at),
        )
        return replace(push, reading=reading, flags=_with_path(flags, push))

    def read_spooled(self, push: Push) -> Push:
        """Return a push from a spool, read as at its arrival: rows that are newer by now say nothing of that clock."""
        reading, flags = self._reader.read(
            body=push.body,
            query=push.query,
            endpoint=push.endpoint,
            content_type=push.content_type,
            seen_at=push.received_at,
            clock=CLOCK_FLAG not in push.flags,
        )
        return replace(push, reading=reading, flags=_with_path(flags, push))

    def note_newest(self, received_at: datetime | None) -> None:
        """Note when the newest row of the database came, by which a clock that has fallen behind is known."""
        if received_at is not None:
            self._newest_at = max(self._newest_at, received_at)

    def _is_behind(self, now: datetime) -> bool:
        return self._newest_at - now > _CLOCKS_APART

    def _allows(self, address: str) -> bool:
        return not self._allow or within(address, self._allow)

    def _observe(self, reason: str, address: str, at: datetime) -> None:
        with self._observing:
            before = self._observed.pop((reason, address), None)
            pushes = before.pushes + 1 if before else 1
            self._observed[reason, address] = Observed(address=address, reason=reason, pushes=pushes, last_at=at)
            if len(self._observed) > _OBSERVED_KEPT:
                self._observed.popitem(last=False)
        metrics.WOULD_REFUSE.labels(reason).inc()

    def _remember(self, refused: Refused, address: str) -> None:
        refused.address = address
        self.refusals.append(Refusal(at=datetime.now(UTC), address=address, reason=refused.reason))
        metrics.REFUSALS.labels(refused.reason).inc()
        refused.told = self._may_tell()
        if refused.told:
            more = {"request_id": refused.request_id} if refused.request_id else {}
            _log.warning("push refused", reason=refused.reason, remote_addr=address, status=refused.status, **more)

    def _may_tell(self) -> bool:
        with self._telling:
            if time.monotonic() - self._told_since >= _TOLD_SECONDS:
                self._tell_left_out()
                self._told_since, self._told = time.monotonic(), 0
            self._told += 1
            self._left_out += self._told > _TOLD_MAX
            return self._told <= _TOLD_MAX

    def tidy(self) -> None:
        """Say how many refusals were not told one by one, once they have ended; called now and then."""
        with self._telling:
            if time.monotonic() - self._told_since >= _TOLD_SECONDS:
                self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._left_out:
            _log.warning("pushes refused, not told one by one", left_out=self._left_out)
            self._left_out = 0


def _with_path(flags: tuple[str, ...], push: Push) -> tuple[str, ...]:
    """Keep what only the request could tell, and no later reading of its bytes."""
    return (*flags, PATH_FLAG) if PATH_FLAG in push.flags else flags


def _whole_body(request: PushRequest) -> bytes:
    if request.chunked:
        return _bounded(request, b"".join(_pieces(request.read, PUSH_MAX_BYTES + 1)))
    if request.content_length is None or request.content_length == "":
        return _bounded(request, b"")  # RFC 9112, 6.3: then there is none, and the data is in the query
    if not request.content_length.isascii() or not request.content_length.isdigit():
        raise Refused(400, "length", "Content-Length is not a number")
    length = int(request.content_length)
    if length + len(request.query) > PUSH_MAX_BYTES:
        raise Refused(413, "size", f"body and query are over {PUSH_MAX_BYTES} bytes")
    body = b"".join(_pieces(request.read, length))
    if len(body) < length:
        raise Refused(400, "length", "the body is shorter than its Content-Length")
    return body


def _bounded(request: PushRequest, body: bytes) -> bytes:
    if len(body) + len(request.query) > PUSH_MAX_BYTES:
        raise Refused(413, "size", f"body and query are over {PUSH_MAX_BYTES} bytes")
    return body


def _pieces(read: Callable[[int], bytes], max_bytes: int) -> list[bytes]:
    pieces = []
    while max_bytes > 0 and (piece := read(min(max_bytes, _READ_BYTES))):
        pieces.append(piece)
        max_bytes -= len(piece)
    return pieces


def _drain(request: PushRequest) -> None:
    try:
        if request.chunked:
            _pieces(request.read, _DRAIN_MAX_BYTES)
        elif request.content_length and request.content_length.isascii() and request.content_length.isdigit():
            _pieces(request.read, min(int(request.content_length), _DRAIN_MAX_BYTES))
    except BrokenBody:
        pass  # the peer has gone: there is nobody to answer


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: Sequence[Network]) -> str:
    """Return the address a request comes from: the last one that no trusted proxy vouches for.

    `X-Forwarded-For` counts only as far as trusted proxies have written it, right to left.
    """
    if not trusted_proxies or not forwarded_for:
        return peer
    address = peer
    for hop in reversed(forwarded_for.split(",")):
        if not within(address, trusted_proxies):
            break
        written = _without_port(hop.strip())
        if not _is_address(written):
            break
        address = written
    return address


# As some gateways write them; an IPv6 address with a port, or in a URL, has brackets.
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5}", re.ASCII)


def _without_port(written: str) -> str:
    match = _WITH_PORT.fullmatch(written)
    return match[1] or match[2] if match else written


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def within(address: str, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks; what is no address is in none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
