"""What an alarm is judged by, asked of the database each minute and at each scrape.

What each figure reads is bounded, however many messages there are: the newest rows, a range of an index, or a week of
what is kept added up.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.alerting.rules import BalanceLeft, Rate, SetAsideRows, StoredFigures
from receiver.audit import log
from receiver.core import DeliveryStatus, first_id_of
from receiver.db import set_aside
from receiver.db.tables import AGE_FROM, delivery_hour_changes, delivery_hours, messages, pushes
from receiver.messages import balance, find_lag_seconds, queries
from receiver.messages.queries import waits
from receiver.reporting import rollup
from receiver.support import signals
from receiver.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
_NUMBERS = 5  # one number that is switched off is no silence, nor are two
_LOOKED_AT = 20_000
_MISSED_MAX = 1_000
_RECENT = timedelta(minutes=30)


def find_kept(
    connection: sa.Connection, *, now: datetime, accounts: Collection[str], ships_audit: bool = False
) -> StoredFigures:
    """Return what the database says of the present.

    `accounts`: those whose balance is asked for here. `ships_audit`: whether the audit is sent on to syslog.
    """
    last_push = signals.find_last_push(connection, now=now)
    last_push_at = last_push.at if last_push else None
    return StoredFigures(
        last_push_at=last_push_at,
        unanswered_since=find_unanswered_since(connection, last_push_at, now=now),
        missed_pushes=count_missed(connection, last_push_at, now=now),
        quarantined=signals.count_quarantined(connection, since=now - _HOUR),
        events_lag_seconds=find_lag_seconds(connection),
        recent=find_recent_rate(connection, now=now),
        usual=find_usual_rate(connection, now=now),
        balances={
            account: BalanceLeft(left=reading.remain_point, read_at=reading.answered_at, asked=account in accounts)
            for account, reading in balance.find_last_readings(connection, now=now).items()
        },
        forward_oldest=endpoints.find_oldest(connection),
        set_aside=find_set_aside(connection),
        unshipped_since=log.find_unshipped_since(connection) if ships_audit else None,
    )


def find_set_aside(connection: sa.Connection) -> Mapping[str, SetAsideRows]:
    """Return how many rows of each table are left out, and the first few ids of those."""
    found = {}
    for table, count in sorted(set_aside.count_noted(connection).items()):
        looked_at = set_aside.list_noted(connection, table, _LOOKED_AT)
        still = [one.row_id for one in looked_at if _is_left_out(connection, one)]
        if still:
            found[table] = SetAsideRows(count=count - (len(looked_at) - len(still)), ids=tuple(still[:_NAMED]))
    return found


def drop_mended(connection: sa.Connection) -> None:
    """Forget of what was set aside that which is gone by now, or reads again; a few at a time."""
    for table in set_aside.count_noted(connection):
        looked_at = set_aside.list_noted(connection, table, _LOOKED_AT)
        set_aside.drop_noted(connection, [one for one in looked_at if not _is_left_out(connection, one)])


def _is_left_out(connection: sa.Connection, one: set_aside.SetAside) -> bool:
    reads = queries.try_row(connection, one.table, one.row_id)
    return reads is False or bool(reads and one.reason is not set_aside.SetAsideReason.UNREADABLE)


_LOOKED_AT, _NAMED = 100, 10  # of each table


def find_unanswered_since(
    connection: sa.Connection, last_push_at: datetime | None, *, now: datetime
) -> datetime | None:
    """Say since when five numbers have waited for a receipt while the platform has pushed nothing; None: they do not.

    Of each number the oldest send counts. Where there was no push ever, only what was sent within a day: older sends
    may have been recorded from elsewhere.
    """
    since = now - _DAY if last_push_at is None else last_push_at
    oldest = (
        sa.select(AGE_FROM.label("age_from"), messages.c.mobile, waits().label("waits"))
        .where(since < AGE_FROM, now > AGE_FROM, messages.c.recorded_at.isnot(None))
        .order_by(AGE_FROM)
        .limit(_LOOKED_AT)
        .subquery()
    )
    by_number = sa.select(sa.func.min(oldest.c.age_from).label("at")).where(oldest.c.waits).group_by(oldest.c.mobile)
    found: datetime | None = connection.scalar(by_number.order_by("at").offset(_NUMBERS - 1).limit(1))
    return found


def count_missed(connection: sa.Connection, last_push_at: datetime | None, *, now: datetime) -> int:
    """Count the pushes that came a week ago in the stretch that is silent now, where nobody records what is sent.

    0 in the first hour of a silence. At most 1,000 are counted. It never falls before a push comes: a night, in which
    few came last week, ends no silence.
    """
    if last_push_at is None or now - last_push_at < _HOUR or signals.sends_since(connection, last_push_at - _WEEK):
        return 0
    column = pushes.c
    then = sa.select(sa.literal(1)).where(
        column.id > first_id_of(last_push_at - _WEEK), column.id < first_id_of(now - _WEEK), signals.OF_PLATFORM
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(then.limit(_MISSED_MAX).subquery())) or 0


def find_recent_rate(connection: sa.Connection, *, now: datetime) -> Rate:
    """Return the delivery of what was sent in the last half hour, by the newest 20,000 messages at most."""
    sent = signals.sent_between(now - _RECENT, now, messages.c.status)
    rows = connection.execute(sa.select(sent.c.status, sa.func.count()).group_by(sent.c.status)).all()
    reported = (DeliveryStatus.UNKNOWN, DeliveryStatus.FAILED, DeliveryStatus.DELIVERED)
    counts = {status: count for status, count in rows if status in reported}
    return Rate(delivered=counts.get(DeliveryStatus.DELIVERED, 0), settled=sum(counts.values()))


def find_usual_rate(connection: sa.Connection, *, now: datetime) -> Rate:
    """Return the delivery of what was sent in the last seven days, by what is kept added up."""
    offset = rollup.zone_offset_seconds(connection)
    first = math.floor((now - _WEEK).timestamp() + offset) // 3600

    def of_hours(table: sa.FromClause) -> sa.Select[tuple[int, int]]:
        column = table.c
        settled = sa.func.sum(column.delivered + column.failed + column.unknown)
        return sa.select(sa.func.sum(column.delivered), settled).where(column.hour >= first)

    delivered, settled = 0, 0
    for row in connection.execute(rollup.of_all(connection, delivery_hours, delivery_hour_changes, of_hours)):
        delivered += row[0] or 0
        settled += row[1] or 0
    return Rate(delivered=delivered, settled=settled)
