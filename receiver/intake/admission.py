"""Decides whether a request is a push to accept. Independent of any web framework.

Checks in this order: secret, address, length, size. A refused body is drained up to a limit, so that the client reads
the answer instead of a reset connection.
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
from typing import TYPE_CHECKING, Protocol

from receiver.config import within
from receiver.core import CLOCKS_APART, Kind, OptOutWords, Push, PushFlag, ReceiverError, earliest, new_id
from receiver.intake.secrets import PushSecret, PushSecrets
from receiver.observability import get_logger, metrics
from receiver.platform.push_parser import PushReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.config import Network, Settings

PUSH_MAX_BYTES = 64 * 1024  # body and query together
_DRAIN_MAX_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_REFUSALS_MAX = 100
_REDIRECT_PROBES = 20  # more bare GETs than a setup or an uptime check makes
_REDIRECTED_WITHIN = timedelta(minutes=15)
_OBSERVED_MAX = 100
# Rate-limit log lines for rejected requests: guesses must not fill the log.
_LOG_LINES_MAX = 20
_LOG_WINDOW_SECONDS = 10.0
_NO_SUCH_ADDRESS = "no such address"
_BARE_METHODS = frozenset({"GET", "HEAD"})

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushRequest:
    """One HTTP request to a push URL, whichever server code received it."""

    secret: str
    endpoint: Kind | None
    strayed: bool = False  # the path behind the secret is not one of ours
    method: str
    query: bytes
    content_length: str | None  # the header as received
    chunked: bool
    content_type: str | None
    peer: str  # address of the connection; empty for a Unix socket
    forwarded_for: str | None
    referred: bool = False  # it has a Referer header
    read: Callable[[int], bytes]  # returns at most that many bytes, empty at the end; raises BrokenBody


class PushHead(Protocol):
    """What a push takes from its request beside the body."""

    @property
    def endpoint(self) -> Kind | None:
        """Return the kind by the URL."""

    @property
    def strayed(self) -> bool:
        """Return whether the path behind the secret is not one of ours."""

    @property
    def method(self) -> str:
        """Return the request's method."""

    @property
    def query(self) -> bytes:
        """Return the query without `?`."""

    @property
    def content_type(self) -> str | None:
        """Return the header as sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A refused request, shown to the operator."""

    at: datetime
    address: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Accepted pushes that a stricter setting would refuse."""

    address: str
    reason: str  # `address`: outside RECEIVER_PUSH_ALLOW; `secret`: a retiring secret was used
    pushes: int  # since the start
    last_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A request with the right secret and no data, as sent during setup."""

    at: datetime
    address: str
    method: str


class Refused(ReceiverError):
    """The push is refused. `status`: HTTP status of the answer; `reason`: one word for metrics."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.logged = True  # False: suppressed, too many refusals at the moment
        self.address = ""  # of the client
        self.request_id: str | None = None  # in its log line, if the caller passed one


class BrokenBody(ReceiverError):
    """Raised by `PushRequest.read` if the body is cut short or wrongly framed."""


class Admission:
    """Admits or refuses pushes. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.secrets = PushSecrets(settings.push_tokens)
        self._allow = settings.push_allow
        self._enforces_allow = settings.push_allow_enforced
        self._trusted_proxies = settings.trusted_proxies
        self._reader = PushReader(
            zone=settings.timezone,
            time_formats=settings.time_formats,
            opt_out_words=OptOutWords(settings.opt_out_words.words, settings.opt_out_phrases),
        )
        self.refusals: deque[Refusal] = deque(maxlen=_REFUSALS_MAX)
        self.last_probe: Probe | None = None
        self._probed: deque[datetime] = deque(maxlen=_REDIRECT_PROBES)  # times of the last bare GETs
        self._referred_at: datetime | None = None  # time of the last one with a Referer
        self._observed: OrderedDict[tuple[str, str], Observed] = OrderedDict()  # by reason and address
        self._observed_lock = threading.Lock()
        self._log_lock = threading.Lock()
        self._logged = self._suppressed = 0
        self._log_window_began = -math.inf  # by time.monotonic()
        self._newest_at = earliest()  # arrival of the newest row; an earlier clock is wrong

    def admit(self, request: PushRequest) -> Push | None:
        """Return the parsed push of a request. None: a bare probe, to be acknowledged only. Raises Refused."""
        address = client_address(request.peer, request.forwarded_for, self._trusted_proxies)
        try:
            secret = self.secrets.find(request.secret)
            if secret is None:
                raise Refused(404, "secret", _NO_SUCH_ADDRESS)
            if self._enforces_allow and not self._allows(address):
                raise Refused(403, "address", "this address may not push here (RECEIVER_PUSH_ALLOW)")
            body = _whole_body(request)
        except BrokenBody as broken:
            refused = Refused(400, "length", str(broken))
            self._record_refusal(refused, address)
            raise refused from broken
        except Refused as refused:
            self._record_refusal(refused, address)
            _drain(request)
            raise
        if not body and not request.query and request.method in _BARE_METHODS:
            self._record_probe(Probe(at=datetime.now(UTC), address=address, method=request.method), request)
            return None
        return self.admit_checked(request, body, secret=secret, address=address)

    def _record_probe(self, probe: Probe, request: PushRequest) -> None:
        self.last_probe = probe
        metrics.PROBES.labels(probe.method).inc()
        if probe.method == "GET":
            self._probed.append(probe.at)
        if request.referred:
            self._referred_at = probe.at

    def is_redirected(self, now: datetime) -> bool:
        """Return whether a proxy in front seems to redirect pushes.

        Most clients follow a redirect with a bare GET, and lose the push.
        """
        since = now - _REDIRECTED_WITHIN
        if self._referred_at is not None and self._referred_at > since:
            return True
        return len(self._probed) == _REDIRECT_PROBES and self._probed[0] > since

    def refuse_secret(self, peer: str, forwarded_for: str | None, *, request_id: str) -> Refused:
        """Record and return the refusal of a push with an unknown secret, as `admit` does."""
        refused = Refused(404, "secret", _NO_SUCH_ADDRESS)
        refused.request_id = request_id
        self._record_refusal(refused, client_address(peer, forwarded_for, self._trusted_proxies))
        return refused

    def record_unread(self, status: int, reason: str, peer: str, forwarded_for: str | None) -> None:
        """Record a push that was refused before its path was read; its secret is unknown.

        `reason`: `timeout` (incomplete after 20 s) or `head` (headers too large or invalid).
        """
        refused = Refused(status, reason, "the push could not be read")
        self._record_refusal(refused, client_address(peer, forwarded_for, self._trusted_proxies))

    def admit_checked(self, request: PushHead, body: bytes, *, secret: PushSecret, address: str) -> Push:
        """Return the push of a request whose secret, address and size are already checked."""
        received_at = datetime.now(UTC)
        reading, flags = self._reader.read(
            body=body,
            query=request.query,
            endpoint=request.endpoint,
            content_type=request.content_type,
            seen_at=received_at,
            clock=not self._is_behind(received_at),
        )
        secret.count_use(received_at)
        if secret.place:
            self._observe("secret", address, received_at)
        if not self._enforces_allow and not self._allows(address):
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
            flags=(*flags, PushFlag.PATH.value) if request.strayed else flags,
        )

    def allowed_address(self, peer: str, forwarded_for: str | None) -> str | None:
        """Return the address a request comes from; None where it may not push."""
        address = client_address(peer, forwarded_for, self._trusted_proxies)
        return None if self._enforces_allow and not self._allows(address) else address

    @property
    def observed(self) -> list[Observed]:
        """Pushes that a stricter setting would refuse, newest first; at most 100 entries."""
        with self._observed_lock:
            return list(reversed(self._observed.values()))

    def read_again(self, push: Push, *, seen_at: datetime | None = None) -> Push:
        """Return a stored push, parsed with the present settings.

        `seen_at`: its arrival or replay; the reported time must not be far ahead of it. None: any time is valid, since
        an accepted push stays accepted.
        """
        reading, flags = self._reader.read(
            body=push.body,
            query=push.query,
            endpoint=push.endpoint,
            content_type=push.content_type,
            seen_at=seen_at,
            clock=PushFlag.CLOCK not in push.flags and not self._is_behind(seen_at or push.received_at),
        )
        return replace(push, reading=reading, flags=_with_path(flags, push))

    def read_spooled(self, push: Push) -> Push:
        """Return a spooled push, parsed as at its arrival; newer rows say nothing about the clock of that moment."""
        reading, flags = self._reader.read(
            body=push.body,
            query=push.query,
            endpoint=push.endpoint,
            content_type=push.content_type,
            seen_at=push.received_at,
            clock=PushFlag.CLOCK not in push.flags,
        )
        return replace(push, reading=reading, flags=_with_path(flags, push))

    def record_newest_push_at(self, received_at: datetime | None) -> None:
        """Set the arrival time of the newest row in the database; a clock behind it is wrong."""
        if received_at is not None:
            self._newest_at = max(self._newest_at, received_at)

    def _is_behind(self, now: datetime) -> bool:
        return self._newest_at - now > CLOCKS_APART

    def _allows(self, address: str) -> bool:
        return not self._allow or within(address, self._allow)

    def _observe(self, reason: str, address: str, at: datetime) -> None:
        with self._observed_lock:
            before = self._observed.pop((reason, address), None)
            pushes = before.pushes + 1 if before else 1
            self._observed[reason, address] = Observed(address=address, reason=reason, pushes=pushes, last_at=at)
            if len(self._observed) > _OBSERVED_MAX:
                self._observed.popitem(last=False)
        metrics.WOULD_REFUSE.labels(reason).inc()

    def _record_refusal(self, refused: Refused, address: str) -> None:
        refused.address = address
        self.refusals.append(Refusal(at=datetime.now(UTC), address=address, reason=refused.reason))
        metrics.REFUSALS.labels(refused.reason).inc()
        refused.logged = self._may_log()
        if refused.logged:
            more = {"request_id": refused.request_id} if refused.request_id else {}
            _log.warning("push refused", reason=refused.reason, remote_addr=address, status=refused.status, **more)

    def _may_log(self) -> bool:
        with self._log_lock:
            if time.monotonic() - self._log_window_began >= _LOG_WINDOW_SECONDS:
                self._log_suppressed()
                self._log_window_began, self._logged = time.monotonic(), 0
            self._logged += 1
            self._suppressed += self._logged > _LOG_LINES_MAX
            return self._logged <= _LOG_LINES_MAX

    def log_suppressed(self) -> None:
        """Log how many refusals were suppressed, once the flood is over. Called periodically."""
        with self._log_lock:
            if time.monotonic() - self._log_window_began >= _LOG_WINDOW_SECONDS:
                self._log_suppressed()

    def _log_suppressed(self) -> None:
        if self._suppressed:
            _log.warning("more pushes refused, not logged one by one", suppressed=self._suppressed)
            self._suppressed = 0


def _with_path(flags: tuple[str, ...], push: Push) -> tuple[str, ...]:
    """Keep the flag PATH: only the request had the path, the stored bytes do not."""
    return (*flags, PushFlag.PATH.value) if PushFlag.PATH.value in push.flags else flags


def _whole_body(request: PushRequest) -> bytes:
    if request.chunked:
        return _bounded(request, b"".join(_pieces(request.read, PUSH_MAX_BYTES + 1)))
    if request.content_length is None or request.content_length == "":
        return _bounded(request, b"")  # RFC 9112, 6.3: then there is none, and the data is in the query
    if not request.content_length.isascii() or not request.content_length.isdigit():
        raise Refused(400, "length", "Content-Length is not a number")
    length = int(request.content_length)
    if length + len(request.query) > PUSH_MAX_BYTES:
        raise Refused(413, "size", f"body and query exceed {PUSH_MAX_BYTES} bytes")
    body = b"".join(_pieces(request.read, length))
    if len(body) < length:
        raise Refused(400, "length", "the body is shorter than its Content-Length")
    return body


def _bounded(request: PushRequest, body: bytes) -> bytes:
    if len(body) + len(request.query) > PUSH_MAX_BYTES:
        raise Refused(413, "size", f"body and query exceed {PUSH_MAX_BYTES} bytes")
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
        pass  # the client is gone, no answer is possible


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: Sequence[Network]) -> str:
    """Return the client's address: the last hop that is not a trusted proxy.

    `X-Forwarded-For` is read right to left, and only the part that trusted proxies wrote counts.
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


# Some gateways add the port; an IPv6 address then has brackets.
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
