"""Where outgoing requests may go: URLs and the addresses of their hosts.

A user who may set a URL could reach what only this machine can: the internal network, the cloud's metadata service. So
for webhooks host names are resolved here, at every connection. Each address of a host must be public, or allowed by
RECEIVER_WEBHOOKS_ALLOW, and the connection goes to the address that was checked, past any proxy of the environment.
Where RECEIVER_WEBHOOKS_PROXY is set, that proxy resolves the name anew and must itself refuse what is inside.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_from_bytes, urlsplit

from receiver.core import Fault, ReceiverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from receiver.config import Network

Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 5.0
ANSWER_MAX_BYTES = 64 * 1024
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
# The last label is no number: that is an address, however it is written.
_FULL_NAME = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)+(?!(?:[0-9]+|0x[0-9a-f]*|localhost|localdomain)\Z)[a-z0-9_-]{1,63}", re.ASCII
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
    NO_FULL_NAME = (
        "no full name such as hooks.example.com, which a proxy needs; RECEIVER_WEBHOOKS_ALLOW may name the host"
    )
    UNRESOLVED = "its name does not resolve"
    CERTIFICATE = "its certificate is not valid"
    NO_CONNECTION = "it takes no connection"
    NO_ANSWER = "the connection ended without an answer"
    BROKEN = "the connection broke ({kind})"
    TIMEOUT = "no answer within {seconds} seconds"
    NO_HTTP = "the request is no HTTP"
    UNUSABLE_URL = "its URL cannot be used"
    UNUSABLE_PROXY = (
        "the proxy that the environment names (for webhooks RECEIVER_WEBHOOKS_PROXY) is no URL such as http://HOST:PORT"
    )
    PROXY_REFUSED = (
        "the proxy that the environment names (for webhooks RECEIVER_WEBHOOKS_PROXY) made no connection ({answer})"
    )
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
        return host if self.port == PORTS.get(self.scheme) else f"{host}:{self.port}"

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
        port=port or PORTS[parts.scheme],
        path=(parts.path or "/").encode(),
        query=parts.query.encode(),
    )


def parse_operator_url(url: str) -> TargetUrl:
    """Return the parts of a URL of the settings, without user and fragment. Raises ValueError.

    Unlike a user's, it may be written with other characters than ASCII.
    """
    parts = urlsplit(url)
    place = TargetUrl(
        scheme=parts.scheme, host=ascii_host(parts.hostname or ""), port=parts.port or PORTS.get(parts.scheme, 0)
    )
    path, query = (quote(text, safe=_LINE_SAFE) for text in (parts.path, parts.query))
    return parse_url(f"{place.scheme}://{place.authority}{path}{'?' if query else ''}{query}")


def ascii_host(host: str) -> str:
    """Return a host's name as the DNS has it. Raises ValueError."""
    return host.encode("idna").decode()


def _as_in_a_line(query: bytes) -> bytes:
    return quote_from_bytes(query, safe=_LINE_SAFE).encode()


class EgressPolicy:
    """Decides which addresses may be reached, and how.

    `allow`: networks and host names, as in RECEIVER_WEBHOOKS_ALLOW. `proxy`: the URL of a proxy for all others.
    """

    def __init__(
        self,
        allow: Iterable[Network | str],
        resolve: Callable[[str, int], Sequence[str]] | None = None,
        *,
        proxy: str = "",
    ) -> None:
        self._proxy = proxy
        allowed = tuple(allow)
        self._names = frozenset(name.lower() for name in allowed if isinstance(name, str))
        self._networks = tuple(network for network in allowed if not isinstance(network, str))
        self._resolve = resolve

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises EgressForbidden for one not permitted, EgressError for none."""
        found = [ipaddress.ip_address(text.partition("%")[0]) for text in look_up(host, port, self._resolve)]
        if host.lower().rstrip(".") not in self._names and not all(map(self._may_reach, found)):
            raise EgressForbidden(EgressFault.NOT_PUBLIC)
        return list(map(str, found))

    def proxy_for(self, host: str) -> str:
        """Return the URL of the proxy by which a host is reached. Empty: none, or the host is named itself."""
        try:
            named = self._is_allowed(ipaddress.ip_address(host))
        except ValueError:
            named = host.lower().rstrip(".") in self._names
        return "" if named else self._proxy

    def check(self, host: str, port: int) -> None:
        """Judge a host. Raises EgressForbidden, EgressError.

        A proxy resolves names itself, and may know some that are unknown here: those are left to it, unless it might
        read an address in what is none here, or a name of its own network.
        """
        proxied = bool(self.proxy_for(host))
        if proxied and not _is_unambiguous(host):
            raise EgressForbidden(EgressFault.NO_FULL_NAME)
        try:
            self.addresses(host, port)
        except EgressNotSent:
            if not proxied:
                raise

    def _may_reach(self, address: Address) -> bool:
        return self._is_allowed(address) or is_public(address)

    def _is_allowed(self, address: Address) -> bool:
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        return any(plain.version == network.version and plain in network for network in self._networks)


def _is_unambiguous(host: str) -> bool:
    """Return whether a host is an address as it is usually written, or a name with a domain."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _FULL_NAME.fullmatch(host.lower().removesuffix(".")) is not None
    return "%" not in host


def look_up(host: str, port: int, resolve: Callable[[str, int], Sequence[str]] | None = None) -> list[str]:
    """Return the addresses of a host, each once. Raises EgressNotSent if there is none."""
    try:
        found = (resolve or resolve_host)(host, port)
    except (OSError, UnicodeError):
        found = ()
    if not found:
        raise EgressNotSent(EgressFault.UNRESOLVED)
    return list(dict.fromkeys(found))


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the system's order. Raises OSError if there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]
