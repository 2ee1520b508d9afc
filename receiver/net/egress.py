"""Outgoing requests to webhook endpoints: only to permitted addresses, whatever the DNS answers.

A user who may set a URL could otherwise reach what only this machine can: the internal network, the cloud's metadata
service. So host names are resolved here, at every connection. Each address of a host must be public, or allowed by
RECEIVER_WEBHOOKS_ALLOW, and the connection goes to the address that was checked. Redirects are not followed, and proxy
settings of the environment are ignored. One exchange ends within fifteen seconds, however slowly the endpoint answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, urlsplit

import httpcore2

from receiver.core import ReceiverError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from receiver.config import Network

Address = IPv4Address | IPv6Address

EXCHANGE_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_ANSWER_MAX_BYTES = 64 * 1024
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


class EgressForbidden(ReceiverError):
    """An address that nothing may be sent to."""


class EgressError(ReceiverError):
    """No answer came; the request may have arrived all the same. The text says why."""


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
    path: bytes
    query: bytes

    def line(self, further_query: bytes = b"") -> bytes:
        """Return the target of the request line, with a query appended to the URL's own."""
        query = b"&".join(part for part in (self.query, _as_in_a_line(further_query)) if part)
        return self.path + (b"?" + query if query else b"")


def parse_url(url: str) -> TargetUrl:
    """Return the parts of an endpoint's URL. Raises ValueError, which says what is wrong and never repeats the URL."""
    if len(url) > _URL_MAX_CHARS or not _PRINTABLE.fullmatch(url):
        raise ValueError(
            f"not a URL: ASCII without spaces, at most {_URL_MAX_CHARS} characters; "
            "write a host's name as xn--…, other characters as %XX"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("not a URL of the form https://HOST:PORT/PATH") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL of the form https://HOST/PATH or http://HOST/PATH")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc or "\\" in url:
        raise ValueError("no user, password or backslash in it; a secret may stand in its path or query")
    if parts.fragment or port == 0:
        raise ValueError("not a URL of the form https://HOST:PORT/PATH?QUERY")
    return TargetUrl(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        path=(parts.path or "/").encode(),
        query=parts.query.encode(),
    )


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
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolve(host, port)]
        except (OSError, UnicodeError):
            raise EgressError("its name does not resolve") from None
        if not found:
            raise EgressError("its name does not resolve")
        if host.lower().rstrip(".") not in self._names and not all(map(self._may_reach, found)):
            raise EgressForbidden(
                "it has an address that is not public; RECEIVER_WEBHOOKS_ALLOW may name it, or its network"
            )
        return list(dict.fromkeys(map(str, found)))

    def _may_reach(self, address: Address) -> bool:
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        allowed = any(plain.version == network.version and plain in network for network in self._networks)
        return allowed or is_public(address)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class EgressResponse:
    """The answer of an endpoint; its body is not read further."""

    status: int
    retry_after: str | None


class EgressClient:
    """Sends requests to one endpoint over reused connections. Safe for many threads."""

    def __init__(
        self, place: TargetUrl, guard: EgressPolicy, *, connections: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._place = place
        self._network = _Network(guard)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls or httpcore2.default_ssl_context(),
            max_connections=connections,
            keepalive_expiry=15,
            http2=False,
            network_backend=self._network,
        )

    def send(self, method: str, line: bytes, headers: Mapping[str, str], body: bytes) -> EgressResponse:
        """Make one request. Raises EgressError or Forbidden."""
        place = self._place
        host = f"[{place.host}]" if ":" in place.host else place.host
        if place.port != (443 if place.scheme == "https" else 80):
            host = f"{host}:{place.port}"
        sent = [(b"Host", host.encode())]
        sent += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        sent.append((b"Content-Length", str(len(body)).encode()))
        url = httpcore2.URL(scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=line)
        timeout = {"connect": _CONNECT_SECONDS, "read": EXCHANGE_SECONDS, "write": EXCHANGE_SECONDS}
        extensions = {"timeout": {**timeout, "pool": EXCHANGE_SECONDS}}
        self._network.begin(EXCHANGE_SECONDS)
        try:
            with self._pool.stream(method, url, headers=sent, content=body, extensions=extensions) as answer:
                read = 0
                for piece in answer.iter_stream():
                    read += len(piece)
                    if read > _ANSWER_MAX_BYTES:
                        break  # the status says enough
                found = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
                return EgressResponse(status=answer.status, retry_after=found.get(b"retry-after"))
        except httpcore2.TimeoutException:
            raise EgressError(f"no answer within {EXCHANGE_SECONDS:.0f} seconds") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise EgressError(_why(error)) from None

    def abort(self) -> None:
        """End the exchanges in progress; their callers get an error at once."""
        self._network.abort()

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()


def _why(error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not valid"
    return {
        httpcore2.ConnectError: "it takes no connection",
        httpcore2.RemoteProtocolError: "the connection ended without an answer",
    }.get(type(error), f"the connection broke ({type(error).__name__})")


class _Network(httpcore2.NetworkBackend):
    """Connects to checked addresses; every exchange has a deadline."""

    def __init__(self, guard: EgressPolicy) -> None:
        self._guard = guard
        self._plain = httpcore2.SyncBackend()
        self._of_thread = threading.local()
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def begin(self, seconds: float) -> None:
        self._of_thread.deadline = time.monotonic() + seconds

    def left(self, timeout: float | None = None) -> float:
        if self._aborted:
            raise httpcore2.ConnectError("stopping")
        left = float(self._of_thread.deadline - time.monotonic())
        if left <= 0:
            raise httpcore2.ReadTimeout("over its time")
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
        for address in self._guard.addresses(host, port):
            try:
                stream = self._plain.connect_tcp(address, port, self.left(timeout), local_address, socket_options or ())
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
        stream = self._stream.start_tls(ssl_context, server_hostname, self._network.left(timeout))
        self._network.closed(self)
        return _Stream(stream, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def shut(self) -> None:
        connection = self._stream.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
