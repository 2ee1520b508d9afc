"""`X-Data-Lag-Seconds`: how old an answer is that lacks pushes which were acknowledged before it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.messages.reads import DATA_LAG

if TYPE_CHECKING:
    from flask import Flask, Response

DATA_LAG_HEADER = "X-Data-Lag-Seconds"


def register(app: Flask) -> None:
    """Add the header to every answer that is late, by the projection or a replica."""
    app.before_request(_forget)
    app.after_request(_add)


def _forget() -> None:
    DATA_LAG.set(None)  # of the thread's request before


def _add(response: Response) -> Response:
    if (lag := DATA_LAG.get()) is not None:
        response.headers[DATA_LAG_HEADER] = f"{lag:.1f}"
    return response
