"""Spans of time that keep something from happening, as conditions on the moment at which they began.

A moment in the future was written by a clock that was ahead, and is none: it would keep people out, or alarms silent,
until that moment has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import CLOCKS_APART

if TYPE_CHECKING:
    from datetime import datetime, timedelta


def still_lasts(began: sa.ColumnElement[datetime], span: timedelta, now: datetime) -> sa.ColumnElement[bool]:
    """Say of rows that a span which began then goes on."""
    return sa.and_(began > now - span, no_later(began, now))


def is_over(began: sa.ColumnElement[datetime], span: timedelta, now: datetime) -> sa.ColumnElement[bool]:
    """Say of rows that a span which began then does not go on."""
    return sa.or_(began <= now - span, began > now + CLOCKS_APART)


def no_later(at: sa.ColumnElement[datetime], now: datetime) -> sa.ColumnElement[bool]:
    """Say of rows that their time is no later than the present, as far as clocks agree."""
    return at <= now + CLOCKS_APART


def epoch_seconds(dialect: str, time: str) -> str:
    """Write a time as whole seconds from 1970, cut off."""
    if dialect == "postgresql":
        return f"floor(extract(epoch FROM {time}))::bigint"
    return f"coalesce(CAST(strftime('%s', {time}) AS INTEGER), 0)"
