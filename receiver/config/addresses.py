"""The addresses by which the platform, browsers and this machine reach the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def push_urls(settings: Settings) -> list[tuple[str, str]]:
    """Return the push URLs as (account, URL). They contain the secret."""
    return [(account, f"{reached_at(settings)}/push/{secret}") for account, secret in settings.push_tokens]
