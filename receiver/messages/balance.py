"""The balance of each account as a series of readings, its trend and its billing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DeliveryStatus, MessageStatus
from receiver.db.engine import insert
from receiver.db.message_status import is_open
from receiver.db.sql import epoch_seconds, no_later
from receiver.db.tables import balance_readings, messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

_TREND = timedelta(days=7)
_DAY_SECONDS = 86400


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How many messages an account had left, by one answer of the platform."""

    account: str
    asked_at: datetime
    answered_at: datetime
    remain_point: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How fast an account is used up."""

    per_day: float | None  # messages used in a day, over the last week at most; None: too few readings
    days_left: float | None  # None: not used, or the rate is unknown


def save_readings(connection: sa.Connection, readings: Iterable[Reading]) -> None:
    """Store readings; those already stored are no change."""
    rows = [{name: getattr(reading, name) for name in Reading.__slots__} for reading in readings]
    if rows:
        connection.execute(_reading_insert(connection.dialect.name), rows)


@cache
def _reading_insert(dialect: str) -> Any:
    return insert(dialect, balance_readings).on_conflict_do_nothing()


def find_last_readings(connection: sa.Connection, *, now: datetime) -> Mapping[str, Reading]:
    """Return the newest reading of each account, without those in the future."""
    newest = (
        sa.select(balance_readings.c.account, sa.func.max(balance_readings.c.answered_at).label("answered_at"))
        .where(no_later(balance_readings.c.answered_at, now))
        .group_by(balance_readings.c.account)
        .subquery()
    )
    query = sa.select(balance_readings).join(
        newest,
        sa.and_(
            newest.c.account == balance_readings.c.account,
            newest.c.answered_at == balance_readings.c.answered_at,
        ),
    )
    # Of two in the same instant the lower one is the later.
    rows = connection.execute(query.order_by(balance_readings.c.account, balance_readings.c.remain_point.desc()))
    return {row.account: _reading(row) for row in rows}


def iter_readings(
    connection: sa.Connection, account: str, since: datetime | None, until: datetime
) -> Iterator[Reading]:
    """Yield an account's readings of a period, oldest first, preceded by the last one before it."""
    column = balance_readings.c
    if since is not None:
        before = sa.select(balance_readings).where(column.account == account, column.answered_at < since)
        last = connection.execute(
            before.order_by(column.answered_at.desc(), column.remain_point).limit(1)
        ).one_or_none()
        if last is not None:
            yield _reading(last)
    query = sa.select(balance_readings).where(column.account == account, column.answered_at < until)
    if since is not None:
        query = query.where(column.answered_at >= since)
    ordered = query.order_by(column.answered_at, column.remain_point.desc())
    for row in connection.execution_options(yield_per=5000).execute(ordered):
        yield _reading(row)


def _reading(row: Any) -> Reading:
    return Reading(**{name: getattr(row, name) for name in Reading.__slots__})


# --- What follows -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Level:
    """Follows one account's readings in the order of their answers, and adds up the top-ups.

    Overlapping requests are answered in any order. So a higher reading is a top-up only if it was requested after the
    one before was answered.
    """

    remain_point: int | None = None
    known_at: datetime | None = None
    risen: int = 0
    used: int = 0

    def add(self, reading: Reading) -> None:
        """Add the next reading."""
        if self.remain_point is not None and self.known_at is not None:
            change = reading.remain_point - self.remain_point
            if change > 0 and reading.asked_at < self.known_at:
                return
            self.risen += max(0, change)
            self.used += max(0, -change)
        self.remain_point, self.known_at = reading.remain_point, reading.answered_at


def find_trend(connection: sa.Connection, account: str, *, now: datetime) -> Trend:
    """Return how fast an account is used up, by its readings of the last week, and how long it lasts."""
    level = Level()
    first: datetime | None = None
    for reading in _last_of_each_hour(connection, account, now - _TREND, now):
        first = first or reading.answered_at
        level.add(reading)
    if first is None or level.known_at is None or level.remain_point is None or first == level.known_at:
        return Trend(per_day=None, days_left=None)
    days = (level.known_at - first).total_seconds() / _DAY_SECONDS
    per_day = level.used / days
    return Trend(per_day=per_day, days_left=level.remain_point / per_day if per_day else None)


def _last_of_each_hour(connection: sa.Connection, account: str, since: datetime, until: datetime) -> list[Reading]:
    """Return the last reading of each hour: each send has one, and all of a week add no precision."""
    column = balance_readings.c
    hour: sa.ColumnElement[int] = sa.literal_column(f"{epoch_seconds(connection.dialect.name, 'answered_at')} / 3600")
    within = (column.account == account, column.answered_at >= since, column.answered_at < until)
    last = sa.select(sa.func.max(column.answered_at)).where(*within).group_by(hour)
    query = sa.select(balance_readings).where(column.account == account, column.answered_at.in_(last))
    ordered = query.order_by(column.answered_at, column.remain_point.desc())
    return [_reading(row) for row in connection.execute(ordered)]


@dataclass(frozen=True, kw_only=True, slots=True)
class BillingDay:
    """One account's day, from midnight to midnight: balance and sends."""

    account: str
    begins_at: datetime
    opening: int | None  # the last reading before the day, else the first in it
    top_ups: int  # rises between readings
    closing: int | None  # the last reading
    accepted: int  # Σ success_counts of the day's messages
    delivered: int
    failed: int
    refused: int
    difference: int | None  # opening + top-ups - closing - accepted: unexplained loss
    gaps: tuple[str, ...]  # why the figures are incomplete


def list_billing(
    connection: sa.Connection, accounts: Sequence[str], days: Sequence[tuple[datetime, datetime]]
) -> list[BillingDay]:
    """Return the days of each account, the first account's first. `days`: (begin, end), one after the other."""
    billing: list[BillingDay] = []
    for account in accounts:
        level = Level()
        readings = iter_readings(connection, account, days[0][0], days[-1][1])
        ahead = next(readings, None)
        for begins_at, ends_at in days:
            while ahead is not None and ahead.answered_at < begins_at:  # up to the last one before the first day
                level.add(ahead)
                ahead = next(readings, None)
            gaps: list[str] = []
            if level.remain_point is None:
                gaps.append("no reading before this day: opening is the first one in it")
            if ahead is None or ahead.answered_at >= ends_at:
                gaps.append("no reading in this day")
            elif level.remain_point is None:
                level.add(ahead)
            opening, level.risen = level.remain_point, 0
            while ahead is not None and ahead.answered_at < ends_at:
                level.add(ahead)
                ahead = next(readings, None)
            billing.append(_billing_day(connection, account, begins_at, ends_at, opening, level, gaps))
    return billing


def _billing_day(
    connection: sa.Connection,
    account: str,
    begins_at: datetime,
    ends_at: datetime,
    opening: int | None,
    level: Level,
    gaps: list[str],
) -> BillingDay:
    column = messages.c

    def count(condition: sa.ColumnElement[bool]) -> sa.Function[int]:
        return sa.func.count(sa.case((condition, 1)))

    accepted = column.send_state.is_(None)
    row = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(column.success_counts), 0).label("accepted"),
            count(column.status == DeliveryStatus.DELIVERED.value).label("delivered"),
            count(column.status == DeliveryStatus.FAILED.value).label("failed"),
            count(column.send_state == MessageStatus.REFUSED.value).label("refused"),
            count(sa.and_(accepted, column.success_counts.is_(None))).label("uncounted"),
            count(is_open()).label("open"),
        ).where(column.account == account, column.sent_at >= begins_at, column.sent_at < ends_at)
    ).one()
    if row.uncounted:
        gaps.append(f"{row.uncounted} sends are recorded without success_counts")
    if row.open:
        gaps.append(f"{row.open} sends have an unknown outcome")
    closing = level.remain_point
    return BillingDay(
        account=account,
        begins_at=begins_at,
        opening=opening,
        top_ups=level.risen,
        closing=closing,
        accepted=int(row.accepted),
        delivered=row.delivered,
        failed=row.failed,
        refused=row.refused,
        difference=None if opening is None or closing is None else opening + level.risen - closing - int(row.accepted),
        gaps=tuple(gaps),
    )
