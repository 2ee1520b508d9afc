"""The figures for the alarm rules, queried each minute and at each scrape.

Every query is bounded, however many messages there are: it reads the newest rows, a range of an index, or a week of
rollups.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.alerting.push_flow import find_push_flow
from receiver.alerting.rules import BalanceLeft, Rate, SetAsideRows, StoredFigures
from receiver.audit import log
from receiver.core import DeliveryStatus
from receiver.db import set_aside
from receiver.db.tables import delivery_hour_changes, delivery_hours, messages
from receiver.messages import balance, queries
from receiver.messages.journal import find_oldest_pending
from receiver.reporting import rollup
from receiver.support import arrivals, signals
from receiver.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

_HOUR, _WEEK = timedelta(hours=1), timedelta(days=7)
_RECENT = timedelta(minutes=30)


def find_stored_figures(
    connection: sa.Connection, *, now: datetime, accounts: Collection[str], ships_audit: bool = False
) -> StoredFigures:
    """Return the present figures from the database.

    `accounts`: accounts whose balance this deployment queries. `ships_audit`: whether the audit log goes to syslog.
    """
    return StoredFigures(
        flow=find_push_flow(connection, now=now),
        quarantined=arrivals.count_quarantined(connection, since=now - _HOUR),
        projection_lag_seconds=find_oldest_pending(connection) or 0.0,
        recent=find_recent_rate(connection, now=now),
        usual=find_usual_rate(connection, now=now),
        balances={
            account: BalanceLeft(left=reading.remain_point, read_at=reading.answered_at, asked=account in accounts)
            for account, reading in balance.find_last_readings(connection, now=now).items()
        },
        webhook_oldest=endpoints.find_oldest(connection),
        set_aside=find_set_aside(connection),
        unshipped_since=log.find_unshipped_since(connection) if ships_audit else None,
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
