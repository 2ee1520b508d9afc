"""The figures for the alarm rules, queried each minute and at each scrape.

Every query is bounded, however many messages there are: it reads the newest rows, a range of an index, or a week of
rollups.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.alerting.rules import BalanceLeft, PushFlow, Rate, SetAsideRows, StoredFigures
from receiver.audit import log
from receiver.core import DeliveryStatus, first_id_of
from receiver.db import set_aside
from receiver.db.message_status import waits
from receiver.db.tables import AGE_FROM, delivery_hour_changes, delivery_hours, messages, pushes
from receiver.messages import balance, queries
from receiver.messages.journal import find_oldest_pending
from receiver.reporting import rollup
from receiver.support import signals
from receiver.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
_NUMBERS = 5  # one or two numbers may be switched off
_MESSAGES_READ_MAX = 20_000
_MISSED_MAX = 1_000
_RECENT = timedelta(minutes=30)


def find_stored_figures(
    connection: sa.Connection, *, now: datetime, accounts: Collection[str], ships_audit: bool = False
) -> StoredFigures:
    """Return the present figures from the database.

    `accounts`: accounts whose balance this deployment queries. `ships_audit`: whether the audit log goes to syslog.
    """
    return StoredFigures(
        flow=find_push_flow(connection, now=now),
        quarantined=signals.count_quarantined(connection, since=now - _HOUR),
        projection_lag_seconds=find_oldest_pending(connection) or 0.0,
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


def find_push_flow(connection: sa.Connection, *, now: datetime) -> PushFlow:
    """Return what the platform has pushed, and what it owes."""
    last_push = signals.find_last_push(connection, now=now)
    last_push_at = last_push.at if last_push else None
    return PushFlow(
        last_push_at=last_push_at,
        unanswered_since=_find_unanswered_since(connection, last_push_at, now=now),
        missed_pushes=_count_missed(connection, last_push_at, now=now),
    )


def find_set_aside(connection: sa.Connection) -> Mapping[str, SetAsideRows]:
    """Return for each table the number of skipped rows and the first of their ids."""
    found = {}
    for table, count in sorted(set_aside.count_noted(connection).items()):
        checked = set_aside.list_noted(connection, table, _CHECKED_MAX)
        still = [one.row_id for one in checked if _is_skipped(connection, one)]
        if still:
            found[table] = SetAsideRows(count=count - (len(checked) - len(still)), ids=tuple(still[:_IDS_SHOWN]))
    return found


def drop_mended(connection: sa.Connection) -> None:
    """Drop the entries of skipped rows that are gone or readable again; a few per call."""
    for table in set_aside.count_noted(connection):
        checked = set_aside.list_noted(connection, table, _CHECKED_MAX)
        set_aside.drop_noted(connection, [one for one in checked if not _is_skipped(connection, one)])


def _is_skipped(connection: sa.Connection, one: set_aside.SetAside) -> bool:
    reads = queries.try_row(connection, one.table, one.row_id)
    return reads is False or bool(reads and one.reason is not set_aside.SetAsideReason.UNREADABLE)


_CHECKED_MAX, _IDS_SHOWN = 100, 10  # of each table


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
    if last_push_at is None or now - last_push_at < _HOUR or signals.sends_since(connection, last_push_at - _WEEK):
        return 0
    column = pushes.c
    then = sa.select(sa.literal(1)).where(
        column.id > first_id_of(last_push_at - _WEEK), column.id < first_id_of(now - _WEEK), signals.OF_PLATFORM
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(then.limit(_MISSED_MAX).subquery())) or 0


def find_recent_rate(connection: sa.Connection, *, now: datetime) -> Rate:
    """Return the delivery rate of the last half hour, from at most the 20,000 newest messages."""
    sent = signals.sent_between(now - _RECENT, now, messages.c.status)
    rows = connection.execute(sa.select(sent.c.status, sa.func.count()).group_by(sent.c.status)).all()
    reported = (DeliveryStatus.UNKNOWN, DeliveryStatus.FAILED, DeliveryStatus.DELIVERED)
    counts = {status: count for status, count in rows if status in reported}
    return Rate(delivered=counts.get(DeliveryStatus.DELIVERED, 0), settled=sum(counts.values()))


def find_usual_rate(connection: sa.Connection, *, now: datetime) -> Rate:
    """Return the delivery rate of the last seven days, from the rollups."""
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
