"""The addresses by which the platform, browsers and this machine reach the server."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.config.parsers import Network
    from receiver.config.settings import Settings


def reached_at(settings: Settings) -> str:
    """Return the base URL for the platform: RECEIVER_PUBLIC_URL, else by the listening address."""
    if settings.public_url:
        return settings.public_url
    return f"{settings.scheme}://{address_text(near(settings.bind))}"


def inside_at(settings: Settings) -> str:
    """Return the base URL of console and API."""
    if settings.internal_bind is None:
        return reached_at(settings)
    return f"{settings.scheme}://{address_text(near(settings.internal_bind))}"


def near(bind: tuple[str, int]) -> tuple[str, int]:
    """Return the address by which this machine reaches a listener, which may listen on all addresses."""
    host, port = bind
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def address_text(bind: tuple[str, int]) -> str:
    """Return an address as HOST:PORT."""
    host, port = bind
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host, as a URL or a setting names it, is this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_only(settings: Settings) -> bool:
    """Return whether the server serves this machine alone: no other address, no public URL, no proxy."""
    if settings.public_url or settings.trusted_proxies:
        return False
    listeners = (settings.bind, settings.internal_bind, settings.send_proxy_bind)
    return all(is_loopback(listener[0]) for listener in listeners if listener is not None)


def push_urls(settings: Settings) -> list[tuple[str, str]]:
    """Return the push URLs as (account, URL). They contain the secret."""
    return [(account, f"{reached_at(settings)}/push/{secret}") for account, secret in settings.push_tokens]


def within(address: str, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks. False for text that is not an address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
