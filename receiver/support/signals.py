"""Current signals for support staff: does the platform push, and do messages arrive.

Every query has a bounded cost, also with ten million messages and thousands of pushes a second: it reads a limited
number of the newest rows by an index. Nothing is counted without a bound.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import sqlalchemy as sa

from receiver.core import DeliveryStatus, first_id_of, latency_seconds
from receiver.db.encryption import cipher_of
from receiver.db.message_status import waits
from receiver.db.set_aside import read_rows
from receiver.db.sql import epoch_seconds
from receiver.db.tables import AGE_FROM, messages, pushes, receipts
from receiver.messages.journal import CLOCK_SLACK
from receiver.messages.queries import (
    PUSH_COLUMNS,
    Clock,
    MessageRow,
    PushRow,
    as_push_row,
    get_messages,
)
from receiver.support.arrivals import OF_PLATFORM, RECORDED, newest_quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


NEWEST_MAX = 20_000  # messages read for one span: about 10 ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Minute:
    """The counts of one minute."""

    at: datetime  # its beginning, UTC
    pushes: int
    sent: int  # recorded, and not refused; as in the delivery report
    receipts: int  # first seen then; copies are not counted


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentDelivery:
    """How recent messages of one template arrived."""

    sent: int  # those that had more than `within_seconds` to arrive
    arrived: int  # delivered of them, however late
    within_seconds: int | None  # 95 % of the delivered took at most this long; None: nothing was delivered
    share: float  # delivered within that, of `sent`


# --- Minute by minute -----------------------------------------------------------------------------------

_MINUTE_SECONDS = 60
_FIRST_CHUNK, _CHUNK_GROWTH = 2_000, 2
_NEXT_UNREAD = 200

# Counts by minute (of 1970), and the first minute from which they are whole.
_Counted = tuple[Counter[int], int]


def list_minutes(
    connection: sa.Connection, *, now: datetime, minutes: int = 60, at_most: int = 100_000
) -> Sequence[Minute]:
    """Return the last minutes, oldest first, including empty ones; the last one contains `now`.

    Fewer than `minutes`, and none at the worst, where more than `at_most` rows of a kind came in them: the minutes
    that the newest `at_most` cover are whole, older ones would seem to have had less than they did.
    """
    last = _minute_of(now)
    first = last - minutes + 1
    counts: list[Counter[int]] = []
    kinds: tuple[Callable[[sa.Connection, range, int], _Counted], ...] = (_pushes, _sends, _receipts)
    for of_kind in kinds:
        found, first = of_kind(connection, range(first, last + 1), at_most)
        counts.append(found)
        if first > last:
            return []
    return [
        Minute(
            at=_beginning(minute),
            pushes=counts[0][minute],
            sent=counts[1][minute],
            receipts=counts[2][minute],
        )
        for minute in range(first, last + 1)
    ]


def _minute_of(moment: datetime) -> int:
    return math.floor(moment.timestamp()) // _MINUTE_SECONDS


def _beginning(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * _MINUTE_SECONDS, UTC)


def _pushes(connection: sa.Connection, span: range, at_most: int) -> _Counted:
    column = pushes.c
    newest = sa.select(column.received_at.label("moment"), sa.true().label("counts"))
    newest = newest.where(column.id >= first_id_of(_beginning(span.start) - CLOCK_SLACK), OF_PLATFORM)
    return _newest(connection, newest.order_by(column.id.desc()), span.start, at_most)


def _sends(connection: sa.Connection, span: range, at_most: int) -> _Counted:
    newest = sa.select(AGE_FROM.label("moment"), messages.c.send_state.is_(None).label("counts"))
    # Without sends dated ahead of our clock: they would count as the newest.
    newest = newest.where(_beginning(span.start) <= AGE_FROM, _beginning(span.stop) > AGE_FROM, RECORDED)
    return _newest(connection, newest.order_by(AGE_FROM.desc()), span.start, at_most)


def _newest(connection: sa.Connection, newest: Any, first: int, at_most: int) -> _Counted:
    """Count the newest `at_most` rows. One more row is read to find the minute that is incomplete."""
    rows = connection.execute(_by_minute(connection, newest.limit(at_most + 1))).all()
    if sum(row.found for row in rows) > at_most:
        first = max(first, min(row.minute for row in rows) + 1)
    return Counter({row.minute: row.counted for row in rows}), first


def _receipts(connection: sa.Connection, span: range, at_most: int) -> _Counted:
    """Count receipts from the newest id down, in growing chunks, until one has nothing of the time asked for.

    PostgreSQL's index of the times knows blocks and no order, so it gives no newest rows. Ids follow the times but for
    what a spool brings late, hence chunks and not the first row that is too old.
    """
    found: Counter[int] = Counter()
    column = receipts.c
    read, chunk, below = 0, _FIRST_CHUNK, sa.true()
    while read < at_most:
        chunk = min(chunk, at_most - read)
        newest = sa.select(column.id, column.received_at.label("moment"), sa.true().label("counts"))
        newest = newest.where(below).order_by(column.id.desc()).limit(chunk)
        query = _by_minute(connection, newest).add_columns(sa.func.min(sa.literal_column("id")).label("lowest"))
        rows = connection.execute(query).all()
        for row in rows:
            found[row.minute] += row.counted
        rows_found = sum(row.found for row in rows)
        if rows_found < chunk or max(row.minute for row in rows) < span.start:
            return found, span.start
        read += rows_found
        chunk *= _CHUNK_GROWTH
        below = column.id < min(row.lowest for row in rows)
    unread = sa.select(column.received_at).where(below).order_by(column.id.desc()).limit(_NEXT_UNREAD).subquery()
    latest = connection.scalar(sa.select(sa.func.max(unread.c.received_at)))
    return found, span.start if latest is None else max(span.start, _minute_of(latest) + 1)


def _by_minute(connection: sa.Connection, rows: Any) -> Any:
    """Return per minute how many rows of (moment, counts) there are, and how many of them count."""
    seconds = epoch_seconds(connection.dialect.name, "moment")
    minute = sa.literal_column(f"{seconds} / {_MINUTE_SECONDS}", sa.BigInteger).label("minute")
    of_rows = rows.subquery()
    found = sa.func.count()
    counted = found.filter(of_rows.c.counts)
    return sa.select(minute, found.label("found"), counted.label("counted")).select_from(of_rows).group_by(minute)


def _nearest_rank(ascending: Sequence[Any], percent: int) -> Any:
    """Return a percentile by nearest rank, as the reports do."""
    return ascending[-(-len(ascending) * percent // 100) - 1]


# --- Delivery -------------------------------------------------------------------------------------------

_JUDGED_MIN, _JUDGED_MAX = 5, 2_000
_DELIVERY_PERCENT = 95
_REPORT_AFTER = timedelta(seconds=60)  # a receipt is usually here by then
_UNREPORTED_SPAN = timedelta(days=1)


def find_recent_delivery(
    connection: sa.Connection,
    *,
    account: str,
    template_id: str | None,
    now: datetime,
    span: timedelta = timedelta(minutes=10),
) -> RecentDelivery | None:
    """Return how the newest messages of an account and template arrived, of those sent within `span`.

    2,000 at most, and only among the newest 20,000 of all. Those are judged that have had longer than nearly all
    deliveries took; where nothing was delivered, longer than a minute. None: fewer than five.
    """
    names = ("account", "template_id", "send_state", "status", "sent_at", "reported_at")
    found = sent_between(now - span, now, *(messages.c[name] for name in names)).c
    query = (
        sa.select(found.status, found.sent_at, found.reported_at)
        .where(
            found.account == account,
            found.template_id.is_not_distinct_from(template_id),
            found.send_state.is_(None),
            found.sent_at.isnot(None),  # else it has no latency
        )
        .order_by(found.age_from.desc())
        .limit(_JUDGED_MAX)
    )
    sends = [
        (math.floor((now - row.sent_at).total_seconds()), _delivered_after(row)) for row in connection.execute(query)
    ]
    latencies = sorted(latency for _, latency in sends if latency is not None)
    within = _nearest_rank(latencies, _DELIVERY_PERCENT) if latencies else None
    least_age = _REPORT_AFTER // timedelta(seconds=1) if within is None else within
    judged = [latency for age, latency in sends if age > least_age]
    if len(judged) < _JUDGED_MIN:
        return None
    arrived = [latency for latency in judged if latency is not None]
    in_time = sum(latency <= least_age for latency in arrived)
    return RecentDelivery(sent=len(judged), arrived=len(arrived), within_seconds=within, share=in_time / len(judged))


def _delivered_after(row: Any) -> int | None:
    """Return the whole seconds from sending to delivery, cut off as in the reports; None: not delivered."""
    latency = latency_seconds(row.sent_at, row.reported_at) if row.status == DeliveryStatus.DELIVERED else None
    return None if latency is None else math.floor(latency)


def list_unreported(
    connection: sa.Connection, clock: Clock, *, limit: int = 20, accounts: Sequence[str] | None = None
) -> Sequence[MessageRow]:
    """Return the newest messages of a day that should have a receipt by now and have none, newest first.

    What to tell the platform's hotline. Only among the newest 20,000 of all accounts that are old enough.
    """
    oldest, youngest = clock.now - _UNREPORTED_SPAN, clock.now - clock.late_after
    found = sent_between(oldest, youngest, messages.c.id, messages.c.account, waits().label("waits")).c
    query = sa.select(found.id).where(found.waits)
    if accounts is not None:
        query = query.where(found.account.in_(accounts))
    ids = connection.scalars(query.order_by(found.age_from.desc(), found.id.desc()).limit(limit)).all()
    rows = get_messages(connection, ids, clock)
    return [rows[message_id] for message_id in ids if message_id in rows]


def is_any_due(connection: sa.Connection, clock: Clock, *, accounts: Sequence[str] | None = None) -> bool:
    """Return whether any accepted message of a day should have its receipt by now, of those that are looked through."""
    oldest, youngest = clock.now - _UNREPORTED_SPAN, clock.now - clock.late_after
    found = sent_between(oldest, youngest, messages.c.account, messages.c.send_state).c
    query = sa.select(found.account).where(found.send_state.is_(None)).limit(1)
    if accounts is not None:
        query = query.where(found.account.in_(accounts))
    return connection.scalar(query) is not None


def sent_between(since: datetime, until: datetime, *columns: sa.ColumnElement[Any]) -> sa.Subquery:
    """Return the newest 20,000 recorded messages sent after `since` and before `until`.

    What else is asked of them comes after that: asked at once, what is rare would be looked for among all of them.
    """
    newest = sa.select(AGE_FROM.label("age_from"), *columns).where(since < AGE_FROM, until > AGE_FROM, RECORDED)
    return newest.order_by(AGE_FROM.desc()).limit(NEWEST_MAX).subquery()


# --- Quarantined ----------------------------------------------------------------------------------------

QUARANTINED_SEARCHED_MAX = 1_000
_CONTAINING_MAX = 20  # pushes that contain a number, of which each is read


def find_quarantined_about(
    connection: sa.Connection,
    *,
    needles: Sequence[bytes],
    since: datetime | None,
    at_most: int = QUARANTINED_SEARCHED_MAX,
    accounts: Sequence[str] | None = None,
) -> PushRow | None:
    """Return the newest push received after `since` that could not be parsed and contains one of the needles.

    Bytes are compared as they came, so what a sender may encode in several ways is not found; digits are. A needle
    inside a longer number is not meant. Only among the newest `at_most`. An empty needle is none.
    """
    newest = newest_quarantined(since, at_most, accounts, *PUSH_COLUMNS)
    if cipher_of(connection.dialect) is not None:
        return _find_in_sealed(connection, newest, list(filter(None, needles)), since)
    contains = _contains_postgresql if connection.dialect.name == "postgresql" else _contains_sqlite
    wanted = [contains(newest.c[name], needle) for needle in needles if needle for name in ("body", "query")]
    if not wanted:
        return None
    query = sa.select(newest).where(sa.or_(*wanted))
    if since is not None:
        query = query.where(newest.c.received_at > since)
    query = query.order_by(newest.c.id.desc()).limit(_CONTAINING_MAX)
    rows = read_rows(connection, query, newest, as_push_row, name=pushes.name)
    return next((row for row in rows if _is_about(row, needles)), None)


def _find_in_sealed(
    connection: sa.Connection, newest: sa.Subquery, needles: Sequence[bytes], since: datetime | None
) -> PushRow | None:
    """Return the first that matches, decrypted one by one: the database cannot search encrypted pushes."""
    query = sa.select(newest).order_by(newest.c.id.desc())
    rows = read_rows(connection, query, newest, as_push_row, name=pushes.name) if needles else ()
    return next((row for row in rows if (since is None or row.received_at > since) and _is_about(row, needles)), None)


def _is_about(push: PushRow, needles: Sequence[bytes]) -> bool:
    """Return whether a push contains one of the needles, which no further digit adjoins but a country code."""
    pattern = re.compile(b"|".join(map(_bounded, filter(None, needles))))
    return any(pattern.search(unquote_to_bytes(part)) or pattern.search(part) for part in (push.body, push.query))


def _bounded(needle: bytes) -> bytes:
    before = rb"(?<![0-9])(?:0{0,2}86|0)?" if needle[:1].isdigit() else b""
    after = rb"(?![0-9])" if needle[-1:].isdigit() else b""
    return before + re.escape(needle) + after


def _contains_postgresql(column: sa.ColumnElement[bytes], needle: bytes) -> sa.ColumnElement[bool]:
    return sa.func.position(sa.literal(needle, sa.LargeBinary).op("IN")(column)) > 0


def _contains_sqlite(column: sa.ColumnElement[bytes], needle: bytes) -> sa.ColumnElement[bool]:
    return sa.func.instr(column, needle) > 0
