"""Headers that keep every answer safe in a browser, whoever led it here. The staff pages have stricter ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask, Response

_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",  # a text is a text
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # numbers and contents stay in no cache
}


def secure(response: Response) -> Response:
    """Add what the answer does not say itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def register(app: Flask) -> None:
    """Secure every answer of the application."""
    app.after_request(secure)
