"""Outgoing requests: the one HTTP client of the project, and where it may go.

An exchange ends in its time, however slowly the other side answers, and reads up to its bound. No redirect is followed.

A user who may set a URL could reach what only this machine can: the internal network, the cloud's metadata service. So
for webhooks host names are resolved here, at every connection. Each address of a host must be public, or allowed by
RECEIVER_WEBHOOKS_ALLOW, and the connection goes to the address that was checked, past any proxy of the environment.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
import time
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2

from receiver.core import Fault, ReceiverError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from urllib.parse import SplitResult

    from receiver.config import Network

Address = IPv4Address | IPv6Address

CONNECT_SECONDS = 5.0
ANSWER_MAX_BYTES = 64 * 1024
_IDLE_SECONDS = 5.0  # a server may close what has been idle for longer
_PORTS = {"http": 80, "https": 443}
_PROXY_SCHEMES = frozenset({"http", "https"})
_LENGTH_ALWAYS = frozenset({"POST", "PUT", "PATCH"})
_WRITE_BYTES = 16 * 1024
_URL_MAX_CHARS = 2000
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# Characters that a request line allows; a query stays unchanged except for other bytes.
_LINE_SAFE = "".join(map(chr, range(0x21, 0x7F)))
# Not public either, though the standard library has taken some of them for it at times.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "240.0.0.0/4",
            "2001::/23",  # Teredo and other special purposes
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class EgressFault(Fault):
    """Why a URL is refused, or no answer came."""

    NOT_ASCII = (
        "not a URL: ASCII without spaces, at most {most} characters; "
        "write a host's name as xn--…, other characters as %XX"
    )
    MALFORMED_URL = "not a URL of the form https://HOST:PORT/PATH"
    NOT_HTTP = "not a URL of the form https://HOST/PATH or http://HOST/PATH"
    FRAGMENT_IN_URL = "not a URL of the form https://HOST:PORT/PATH?QUERY"
    CREDENTIALS_IN_URL = "no user, password or backslash in it; a secret may stand in its path or query"
    NOT_PUBLIC = "it has an address that is not public; RECEIVER_WEBHOOKS_ALLOW may name it, or its network"
    UNRESOLVED = "its name does not resolve"
    CERTIFICATE = "its certificate is not valid"
    NO_CONNECTION = "it takes no connection"
    NO_ANSWER = "the connection ended without an answer"
    BROKEN = "the connection broke ({kind})"
    TIMEOUT = "no answer within {seconds} seconds"
    NO_HTTP = "the request is no HTTP"
    UNUSABLE_URL = "its URL cannot be used"
    UNUSABLE_PROXY = "the proxy that the environment names is no URL such as http://HOST:PORT"
    NOT_CONNECTED = "no connection within {seconds} seconds"


class EgressForbidden(ReceiverError):
    """An address that nothing may be sent to; made of a fault."""


class EgressError(ReceiverError):
    """No answer came; the request may have arrived all the same. Made of a fault."""


class EgressTimeout(EgressError):
    """The answer did not end in its time."""


class EgressNotSent(EgressError):
    """No connection was made: nothing was sent."""


class EgressUnsendable(EgressNotSent):
    """What was to be sent is no HTTP: nothing was sent, and a retry is useless."""


def is_public(address: Address) -> bool:
    """Return whether an address is public, also where it is embedded in another."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _SIX_TO_FOUR:
            return is_public(IPv4Address(int(address) >> 80 & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    special = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not special


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetUrl:
    """The parts of a URL."""

    scheme: str
    host: str
    port: int
    path: bytes = b"/"
    query: bytes = b""

    @property
    def authority(self) -> str:
        """Host and port, as the header Host has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS.get(self.scheme) else f"{host}:{self.port}"

    def line(self, further_query: bytes = b"") -> bytes:
        """Return the target of the request line, with a query appended to the URL's own."""
        query = b"&".join(part for part in (self.query, _as_in_a_line(further_query)) if part)
        return self.path + (b"?" + query if query else b"")


def parse_url(url: str) -> TargetUrl:
    """Return the parts of an endpoint's URL. Raises ValueError, which says what is wrong and never repeats the URL."""
    if len(url) > _URL_MAX_CHARS or not _PRINTABLE.fullmatch(url):
        raise ValueError(EgressFault.NOT_ASCII.format(most=_URL_MAX_CHARS))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(EgressFault.MALFORMED_URL) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(EgressFault.NOT_HTTP)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc or "\\" in url:
        raise ValueError(EgressFault.CREDENTIALS_IN_URL)
    if parts.fragment or port == 0:
        raise ValueError(EgressFault.FRAGMENT_IN_URL)
    return TargetUrl(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        path=(parts.path or "/").encode(),
        query=parts.query.encode(),
    )


def parse_operator_url(url: str) -> TargetUrl:
    """Return the parts of a URL of the settings, without user and fragment. Raises ValueError.

    Unlike a user's, it may be written with other characters than ASCII.
    """
    parts = urlsplit(url)
    place = TargetUrl(
        scheme=parts.scheme, host=ascii_host(parts.hostname or ""), port=parts.port or _PORTS.get(parts.scheme, 0)
    )
    path, query = (quote(text, safe=_LINE_SAFE) for text in (parts.path, parts.query))
    return parse_url(f"{place.scheme}://{place.authority}{path}{'?' if query else ''}{query}")


def ascii_host(host: str) -> str:
    """Return a host's name as the DNS has it. Raises ValueError."""
    return host.encode("idna").decode()


def _as_in_a_line(query: bytes) -> bytes:
    return quote_from_bytes(query, safe=_LINE_SAFE).encode()


class EgressPolicy:
    """Decides which addresses may be reached. `allow`: networks and host names, as in RECEIVER_WEBHOOKS_ALLOW."""

    def __init__(
        self, allow: Iterable[Network | str], resolve: Callable[[str, int], Sequence[str]] | None = None
    ) -> None:
        allowed = tuple(allow)
        self._names = frozenset(name.lower() for name in allowed if isinstance(name, str))
        self._networks = tuple(network for network in allowed if not isinstance(network, str))
        self._resolve = resolve or _resolve

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises EgressForbidden for one not permitted, EgressError for none."""
        found = [ipaddress.ip_address(text.partition("%")[0]) for text in _look_up(host, port, self._resolve)]
        if host.lower().rstrip(".") not in self._names and not all(map(self._may_reach, found)):
            raise EgressForbidden(EgressFault.NOT_PUBLIC)
        return list(map(str, found))

    def _may_reach(self, address: Address) -> bool:
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        allowed = any(plain.version == network.version and plain in network for network in self._networks)
        return allowed or is_public(address)


def _look_up(host: str, port: int, resolve: Callable[[str, int], Sequence[str]]) -> list[str]:
    """Return the addresses of a host, each once. Raises EgressNotSent if there is none."""
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError):
        found = ()
    if not found:
        raise EgressNotSent(EgressFault.UNRESOLVED)
    return list(dict.fromkeys(found))


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class EgressResponse:
    """An answer, byte for byte."""

    status: int
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    whole: bool = True  # otherwise the body was longer than its bound, and read up to there

    def header(self, name: str) -> str | None:
        """Return the value of a header; None: there is none."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for each, value in self.headers if each.lower() == wanted), None)


class EgressClient:
    """Sends requests to one server over reused connections. Safe for many threads; connects at first use.

    `guard` None: to any address, for URLs of the operator; `proxies`: over the proxy that the environment names.
    """

    def __init__(
        self,
        place: TargetUrl,
        guard: EgressPolicy | None = None,
        *,
        connections: int = 1,
        tls: ssl.SSLContext | None = None,
        proxies: bool = False,
    ) -> None:
        self._place = place
        self._network = _Network(guard)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls or httpcore2.default_ssl_context(),
            proxy=_find_proxy(place) if proxies else None,
            max_connections=connections,
            keepalive_expiry=_IDLE_SECONDS,
            http2=False,
            network_backend=self._network,
        )

    def send(
        self,
        method: str,
        line: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes = b"",
        *,
        seconds: float,
        answer_max_bytes: int = ANSWER_MAX_BYTES,
    ) -> EgressResponse:
        """Make one request, which ends within `seconds`. Raises EgressError or EgressForbidden."""
        place = self._place
        sent = [(b"Host", place.authority.encode()), *headers]
        if body or method in _LENGTH_ALWAYS:
            sent.append((b"Content-Length", str(len(body)).encode()))
        timeout = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "write": seconds}
        extensions = {"timeout": {**timeout, "pool": timeout["connect"]}}
        try:
            port = None if place.port == _PORTS[place.scheme] else place.port
            url = httpcore2.URL(scheme=place.scheme.encode(), host=place.host.encode(), port=port, target=line)
            request = httpcore2.Request(method, url, headers=sent, content=body, extensions=extensions)
        except (TypeError, ValueError):
            raise EgressUnsendable(EgressFault.NO_HTTP) from None
        self._network.begin(seconds)
        try:
            with closing(self._pool.handle_request(request)) as answer:
                read = bytearray()
                for piece in answer.iter_stream():
                    read += piece
                    if len(read) > answer_max_bytes:
                        break
                body, whole = bytes(read[:answer_max_bytes]), len(read) <= answer_max_bytes
                return EgressResponse(status=answer.status, headers=answer.headers, body=body, whole=whole)
        except (httpcore2.ConnectTimeout, httpcore2.PoolTimeout):
            raise EgressNotSent(EgressFault.NOT_CONNECTED.format(seconds=round(timeout["connect"]))) from None
        except httpcore2.TimeoutException:
            raise EgressTimeout(EgressFault.TIMEOUT.format(seconds=round(seconds))) from None
        except (httpcore2.ConnectError, httpcore2.ProxyError, httpcore2.UnsupportedProtocol) as error:
            raise EgressNotSent(_why(error)) from None
        except httpcore2.LocalProtocolError:  # of the head, before a byte of it is sent
            raise EgressUnsendable(EgressFault.NO_HTTP) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise EgressError(_why(error)) from None

    def abort(self) -> None:
        """End the exchanges in progress; their callers get an error at once."""
        self._network.abort()

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()


def fetch(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    seconds: float,
    tls: ssl.SSLContext | None = None,
    answer_max_bytes: int = ANSWER_MAX_BYTES,
) -> EgressResponse:
    """Make one request to a URL of the settings, over a connection of its own. Raises EgressError."""
    try:
        place, sent = parse_operator_url(url), encode_headers({"Accept-Encoding": "identity", **headers})
        sent += _proof_of_user(urlsplit(url))
    except ValueError:
        raise EgressUnsendable(EgressFault.UNUSABLE_URL) from None
    with closing(EgressClient(place, tls=tls, proxies=True)) as client:
        return client.send(method, place.line(), sent, body, seconds=seconds, answer_max_bytes=answer_max_bytes)


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as a request has them; what Latin-1 lacks becomes a question mark."""
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _proof_of_user(parts: SplitResult) -> list[tuple[bytes, bytes]]:
    if not parts.username:
        return []
    pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return [(b"Authorization", b"Basic " + b64encode(pair))]


def _find_proxy(place: TargetUrl) -> httpcore2.Proxy | None:
    """Return the proxy that the environment names for a server (HTTPS_PROXY, NO_PROXY …)."""
    named = getproxies()
    url = named.get(place.scheme) or named.get("all")
    if not url or proxy_bypass(f"{place.host}:{place.port}"):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port, host = f":{parts.port}" if parts.port else "", ascii_host(parts.hostname or "")
    except ValueError:  # its text may have a piece of the password
        raise EgressNotSent(EgressFault.UNUSABLE_PROXY) from None
    if parts.scheme not in _PROXY_SCHEMES or not host:
        raise EgressNotSent(EgressFault.UNUSABLE_PROXY)
    auth = (unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")) if parts.username else None
    return httpcore2.Proxy(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}", auth=auth)


def _why(error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return EgressFault.CERTIFICATE
    if isinstance(error, httpcore2.ConnectError):
        return EgressFault.NO_CONNECTION
    if isinstance(error, httpcore2.RemoteProtocolError):
        return EgressFault.NO_ANSWER
    return EgressFault.BROKEN.format(kind=type(error).__name__)


class _Network(httpcore2.NetworkBackend):
    """Connects to checked addresses; every exchange has a deadline."""

    def __init__(self, guard: EgressPolicy | None) -> None:
        self._guard = guard
        self._plain = httpcore2.SyncBackend()
        self._of_thread = threading.local()
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def begin(self, seconds: float) -> None:
        self._of_thread.deadline = time.monotonic() + seconds

    def left(self, timeout: float | None = None, late: type[Exception] = httpcore2.ReadTimeout) -> float:
        if self._aborted:
            raise httpcore2.ReadError("stopping")
        left = float(self._of_thread.deadline - time.monotonic())
        if left <= 0:
            raise late("over its time")
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        failed: Exception = httpcore2.ConnectError("no address")
        addresses = self._guard.addresses(host, port) if self._guard else _look_up(host, port, _resolve)
        for place, address in enumerate(addresses):
            # All of them together end in the exchange's time, and a silent one leaves the others their share.
            share = self.left(timeout, httpcore2.ConnectTimeout) / (len(addresses) - place)
            try:
                stream = self._plain.connect_tcp(address, port, share, local_address, socket_options or ())
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(stream, self)
        raise failed

    def opened(self, stream: _Stream) -> None:
        with self._lock:
            self._open.add(stream)

    def closed(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            streams = list(self._open)
        for stream in streams:
            stream.shut()


class _Stream(httpcore2.NetworkStream):
    """A connection that never waits beyond the exchange's deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, network: _Network) -> None:
        self._stream = stream
        self._network = network
        network.opened(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _WRITE_BYTES):
            self._stream.write(buffer[begin : begin + _WRITE_BYTES], self._network.left(timeout))

    def close(self) -> None:
        self._network.closed(self)
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._network.left(timeout, httpcore2.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        self._network.closed(self)
        return _Stream(stream, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def shut(self) -> None:
        connection = self._stream.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
