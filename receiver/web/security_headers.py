"""Security headers of every answer. The staff pages have stricter ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask, Response

_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",  # browsers do not guess content types
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # no cache stores numbers or contents
}


def secure(response: Response) -> Response:
    """Return the response with the security headers that it does not set itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def register(app: Flask) -> None:
    """Add the security headers to every answer of the application."""
    app.after_request(secure)
