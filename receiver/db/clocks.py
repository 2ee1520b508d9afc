"""Whether the platform's times differ from ours by a time zone: by the same offset in nearly every recent receipt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.set_aside import read_rows
from receiver.db.tables import receipts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_NEWEST = 200
_SINCE = timedelta(days=7)
_RECEIPTS_MIN = 5
_QUARTER = timedelta(minutes=15)  # the offsets between zones are whole multiples of this
_OFF_MIN = 2 * _QUARTER
_SPREAD = timedelta(minutes=5)  # a receipt usually arrives within this
_SHARE_MIN = 0.8  # of receipts with the same offset: delays vary, zones do not


def find_difference(connection: sa.Connection, *, now: datetime) -> timedelta | None:
    """Return by how much the platform's clock is ahead of ours, negative if behind; None: by no time zone.

    Compares `reported_at` of the newest receipts with the time each first arrived.
    """
    column = receipts.c
    newest = sa.select(column.id, column.reported_at, column.received_at).where(column.received_at > now - _SINCE)
    rows: list[Any] = read_rows(connection, newest.order_by(column.received_at.desc()).limit(_NEWEST), receipts)
    return judge([row.reported_at - row.received_at for row in rows])


def judge(ahead: Sequence[timedelta]) -> timedelta | None:
    """Return the offset that nearly all of these share, in quarters of an hour; None: there is none."""
    if len(ahead) < _RECEIPTS_MIN:
        return None
    middle = sorted(ahead)[len(ahead) // 2]
    difference = round(middle / _QUARTER) * _QUARTER
    alike = sum(abs(each - difference) <= _SPREAD for each in ahead)
    if abs(difference) < _OFF_MIN or alike < _SHARE_MIN * len(ahead):
        return None
    return difference
