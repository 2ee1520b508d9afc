"""The look-ups of a day, each under a random address."""

from __future__ import annotations

import secrets
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import mask_mobile
from receiver.db.sql import is_over
from receiver.db.tables import look_ups

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_KEPT = timedelta(days=1)
_RECENT_MAX = 50  # rows: a text may be looked up many times
_NOT_TYPED = "\x1f"  # before a number that came from a row: the page shows it masked


def save_look_up(connection: sa.Connection, user_id: int, text: str, *, now: datetime, typed: bool = True) -> str:
    """Save a user's look-up for a day; return the random part of its address.

    `typed`: by the user, who so knows a number in it.
    """
    text = text.lstrip(_NOT_TYPED) if typed else _NOT_TYPED + text
    token = secrets.token_urlsafe(16)
    connection.execute(sa.insert(look_ups).values(token=token, user_id=user_id, text=text, created_at=now))
    connection.execute(sa.delete(look_ups).where(is_over(look_ups.c.created_at, _KEPT, now)))
    return token


def find_look_up(connection: sa.Connection, user_id: int, token: str, *, now: datetime) -> str | None:
    """Return the look-up under that address, for its own user, until it expires; None: there is none."""
    column = look_ups.c
    own = (column.token == token, column.user_id == user_id, column.created_at > now - _KEPT)
    found: str | None = connection.scalar(sa.select(column.text).where(*own))
    return found


def list_recent(connection: sa.Connection, user_id: int, *, now: datetime, limit: int = 5) -> Mapping[str, str]:
    """Return a user's own newest look-ups of a day, newest first: each text once, and its latest address."""
    column = look_ups.c
    own = (column.user_id == user_id, column.created_at > now - _KEPT)
    query = sa.select(column.text, column.token).where(*own).order_by(column.created_at.desc()).limit(_RECENT_MAX)
    newest: dict[str, str] = {}
    for row in connection.execute(query):
        newest.setdefault(row.text, row.token)
    return {as_shown(text): token for text, token in islice(newest.items(), limit)}


def number_of_row(text: str) -> str | None:
    """Return the number of a saved look-up that came from a row; None: the user has typed the text."""
    return text.removeprefix(_NOT_TYPED) if text.startswith(_NOT_TYPED) else None


def as_shown(text: str) -> str:
    """Return the text of a saved look-up as its user may see it: the number of a row is masked."""
    number = number_of_row(text)
    return text if number is None else mask_mobile(number)
