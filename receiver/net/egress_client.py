"""The HTTP client behind `egress`, which imports this module once a client is opened: it takes a while."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2

from receiver.net.egress_policy import (
    ANSWER_MAX_BYTES,
    CONNECT_SECONDS,
    PORTS,
    EgressError,
    EgressFault,
    EgressNotSent,
    EgressPolicy,
    EgressTimeout,
    EgressUnsendable,
    TargetUrl,
    ascii_host,
    look_up,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence


_IDLE_SECONDS = 5.0  # a server may close what has been idle for longer
_PROXY_SCHEMES = frozenset({"http", "https"})
_PROXY_ANSWER_MAX_CHARS = 60
_LENGTH_ALWAYS = frozenset({"POST", "PUT", "PATCH"})
_WRITE_BYTES = 16 * 1024


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

    `policy` None: to any address, for URLs of the operator; else over the proxy that it names, if any. `proxies`: over
    the proxy that the environment names.
    """

    def __init__(
        self,
        place: TargetUrl,
        policy: EgressPolicy | None = None,
        *,
        connections: int = 1,
        tls: ssl.SSLContext | None = None,
        proxies: bool = False,
    ) -> None:
        self._place = place
        own_proxy = policy.proxy_for(place.host) if policy else ""
        self._network = _Network(policy, behind_proxy=place if own_proxy else None)
        proxy = _as_proxy(own_proxy) if own_proxy else _find_proxy(place) if proxies else None
        if tls is None and place.scheme == "https":  # else not: to read all authorities takes longer than a request
            tls = httpcore2.default_ssl_context()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls,
            proxy=proxy,
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
            port = None if place.port == PORTS[place.scheme] else place.port
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


def _find_proxy(place: TargetUrl) -> httpcore2.Proxy | None:
    """Return the proxy that the environment names for a server (HTTPS_PROXY, NO_PROXY …)."""
    named = getproxies()
    url = named.get(place.scheme) or named.get("all")
    if not url or proxy_bypass(f"{place.host}:{place.port}"):
        return None
    return _as_proxy(url)


def _as_proxy(url: str) -> httpcore2.Proxy:
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
    if isinstance(error, httpcore2.ProxyError):  # "407 Proxy Authentication Required"
        return EgressFault.PROXY_REFUSED.format(answer=str(error)[:_PROXY_ANSWER_MAX_CHARS])
    if isinstance(error, httpcore2.RemoteProtocolError):
        return EgressFault.NO_ANSWER
    return EgressFault.BROKEN.format(kind=type(error).__name__)


class _Network(httpcore2.NetworkBackend):
    """Connects to checked addresses; every exchange has a deadline.

    `behind_proxy`: the server whose host is judged, where connections are to a proxy that the operator chose.
    """

    def __init__(self, policy: EgressPolicy | None, *, behind_proxy: TargetUrl | None = None) -> None:
        self._policy = policy
        self._behind_proxy = behind_proxy
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
        if self._policy and self._behind_proxy:
            self._policy.check(self._behind_proxy.host, self._behind_proxy.port)
            addresses = look_up(host, port)
        else:
            addresses = self._policy.addresses(host, port) if self._policy else look_up(host, port)
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
