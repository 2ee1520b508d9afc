"""What the platform has pushed, and what it owes: for the alarm of its silence, and for the command `status`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.alerting.rules import PushFlow
from receiver.core import first_id_of
from receiver.db.message_status import waits
from receiver.db.tables import AGE_FROM, messages, pushes
from receiver.support import arrivals

if TYPE_CHECKING:
    from datetime import datetime

_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
_NUMBERS = 5  # one or two numbers may be switched off
_MESSAGES_READ_MAX = 20_000
_MISSED_MAX = 1_000


def find_push_flow(connection: sa.Connection, *, now: datetime) -> PushFlow:
    """Return what the platform has pushed, and what it owes."""
    last_push = arrivals.find_last_push(connection, now=now)
    last_push_at = last_push.at if last_push else None
    return PushFlow(
        last_push_at=last_push_at,
        unanswered_since=_find_unanswered_since(connection, last_push_at, now=now),
        missed_pushes=_count_missed(connection, last_push_at, now=now),
    )


def _find_unanswered_since(
    connection: sa.Connection, last_push_at: datetime | None, *, now: datetime
) -> datetime | None:
    """Return since when five numbers have waited for a receipt without any push; None: fewer wait.

    The oldest send of each number counts. If no push ever arrived, only sends of the last day count: older ones may
    have been imported.
    """
    since = now - _DAY if last_push_at is None else last_push_at
    oldest = (
        sa.select(AGE_FROM.label("age_from"), messages.c.mobile, waits().label("waits"))
        .where(since < AGE_FROM, now > AGE_FROM, messages.c.recorded_at.isnot(None))
        .order_by(AGE_FROM)
        .limit(_MESSAGES_READ_MAX)
        .subquery()
    )
    by_number = sa.select(sa.func.min(oldest.c.age_from).label("at")).where(oldest.c.waits).group_by(oldest.c.mobile)
    found: datetime | None = connection.scalar(by_number.order_by("at").offset(_NUMBERS - 1).limit(1))
    return found


def _count_missed(connection: sa.Connection, last_push_at: datetime | None, *, now: datetime) -> int:
    """Return how many pushes arrived one week before the present silence, if no sends are recorded.

    0 in the first hour of a silence; at most 1,000. It never falls before the next push, so a quiet night does not end
    a silence.
    """
    if last_push_at is None or now - last_push_at < _HOUR or arrivals.sends_since(connection, last_push_at - _WEEK):
        return 0
    column = pushes.c
    then = sa.select(sa.literal(1)).where(
        column.id > first_id_of(last_push_at - _WEEK), column.id < first_id_of(now - _WEEK), arrivals.OF_PLATFORM
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(then.limit(_MISSED_MAX).subquery())) or 0
