"""Pending deliveries to webhook endpoints (created by `fan_out`): claiming them, and recording their results.

All nodes send. A node that claims a delivery sets `next_at` to the end of its lease; then another node may claim it.
All times are the database's, since clocks of nodes differ.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from receiver.db.engine import insert
from receiver.db.set_aside import read_rows
from receiver.db.tables import deliveries, delivery_history, pushes, receipts, replies, targets
from receiver.messages import queries
from receiver.webhooks.endpoints import Endpoint, EventType, as_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from receiver.messages.queries import Clock, MessageRow, PushRow, ReceiptRow, ReplyRow

Row = dict[str, Any]

PUSH_EVENT = "push"  # for raw endpoints
LEASE = timedelta(seconds=60)
LIFE = timedelta(days=3)  # of failures, before a delivery becomes a dead letter
_WAIT_MAX = timedelta(days=1)  # far longer than any regular wait
BREAKER_FAILURES = 5  # consecutive failures; then one delivery at a time is tried
_ERROR_MAX_CHARS = 200
HISTORY_MAX = 10_000  # accepted deliveries kept for each endpoint
HISTORY_MORE = 500  # and up to so many more, until the oldest go


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedDelivery:
    """A delivery that is due."""

    id: int
    event_id: UUID
    event: str
    order_key: int | None
    push_id: UUID | None
    receipt_id: int | None
    reply_id: int | None
    message_id: int | None
    created_at: datetime
    attempts: int
    failing_since: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryClaim:
    """Deliveries that this node alone may send during LEASE, and the rows they refer to."""

    target: Endpoint
    deliveries: Sequence[QueuedDelivery]
    pushes: Mapping[UUID, PushRow]
    receipts: Mapping[int, ReceiptRow]
    replies: Mapping[int, ReplyRow]
    messages: Mapping[int, MessageRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed delivery and its wait until the retry."""

    delivery: QueuedDelivery
    error: str
    wait: timedelta
    status: int | None  # None: no answer


@dataclass(kw_only=True, slots=True)
class Settlement:
    """The results of a claim."""

    delivered: list[tuple[QueuedDelivery, int]] = field(default_factory=list)  # with the answer's status
    gone: list[QueuedDelivery] = field(default_factory=list)  # its subject is no longer stored
    failed: list[Failure] = field(default_factory=list)
    released: list[QueuedDelivery] = field(default_factory=list)  # not tried
    failures_in_row: int = 0  # consecutive failures of the endpoint itself
    last_failed: bool | None = None  # of the attempts of this claim, the last one; None: nothing was sent
    last_status: int | None = None
    rest: timedelta | None = None  # pause that the endpoint asked for
    pause_because: str | None = None


def claim(connection: sa.Connection, target_id: int, clock: Clock, *, limit: int) -> DeliveryClaim | None:
    """Claim the due deliveries of an endpoint, the first of each message, with their rows. None: nothing is due."""
    now = now_of(connection)
    row = connection.execute(sa.select(targets).where(targets.c.id == target_id)).one_or_none()
    if row is None or not _ready(row, now):
        return None
    broken = row.failures >= BREAKER_FAILURES
    if broken:
        # One delivery at a time over all nodes: this transaction locks the row.
        query = sa.select(targets).where(targets.c.id == target_id).with_for_update(skip_locked=True, key_share=True)
        row = connection.execute(query).one_or_none()
        if row is None or not _ready(row, now):
            return None
    values = {"of_target": target_id, "now": now, "until": now + LEASE, "most": 1 if broken else limit}
    claimed = [
        QueuedDelivery(**{name: getattr(found, name) for name in _DELIVERY_FIELDS})
        for found in connection.execute(_claim_statement(), values)
    ]
    if not claimed:
        _reset_ahead(connection, target_id, now)  # for the next claim
        return None
    if broken:
        connection.execute(sa.update(targets).where(targets.c.id == target_id).values(retry_at=now + LEASE))
    claimed.sort(key=lambda delivery: delivery.id)
    return _with_contents(connection, as_endpoint(row, now=now), claimed, clock)


def _ready(row: Any, now: datetime) -> bool:
    return row.paused_at is None and (row.retry_at is None or not now < row.retry_at <= now + _WAIT_MAX)


def _reset_ahead(connection: sa.Connection, target_id: int, now: datetime) -> None:
    """Make deliveries due whose `next_at` is too far in the future: a clock was ahead."""
    ahead = (
        deliveries.c.target_id == target_id,
        deliveries.c.dead_at.is_(None),
        deliveries.c.next_at > now + _WAIT_MAX,
    )
    connection.execute(sa.update(deliveries).where(*ahead).values(next_at=now, failing_since=None))


_DELIVERY_FIELDS = tuple(name for name in QueuedDelivery.__slots__ if name != "__weakref__")


@cache
def _claim_statement() -> Any:
    earlier = deliveries.alias("earlier")
    now = sa.bindparam("now", type_=deliveries.c.next_at.type)
    first = sa.not_(
        sa.exists().where(
            earlier.c.target_id == deliveries.c.target_id,
            earlier.c.order_key == deliveries.c.order_key,
            earlier.c.id < deliveries.c.id,
            earlier.c.dead_at.is_(None),
        )
    )
    due = (
        sa.select(deliveries.c.id)
        .where(
            deliveries.c.target_id == sa.bindparam("of_target"),
            deliveries.c.dead_at.is_(None),
            deliveries.c.next_at <= now,
            sa.or_(deliveries.c.order_key.is_(None), first),
        )
        .order_by(deliveries.c.next_at, deliveries.c.id)
        .limit(sa.bindparam("most"))
        .with_for_update(skip_locked=True, of=deliveries)
        .cte("due")  # a CTE is evaluated once; inside IN it might run again and lock more rows
    )
    return (
        sa.update(deliveries)
        .where(deliveries.c.id.in_(sa.select(due.c.id)))
        .values(next_at=sa.bindparam("until", type_=deliveries.c.next_at.type))
        .returning(*(deliveries.c[name] for name in _DELIVERY_FIELDS))
    )


def _with_contents(
    connection: sa.Connection, target: Endpoint, claimed: Sequence[QueuedDelivery], clock: Clock
) -> DeliveryClaim:
    raw = [delivery.push_id for delivery in claimed if delivery.event == PUSH_EVENT]
    query = sa.select(*queries.PUSH_COLUMNS).where(pushes.c.id.in_(raw))
    found_pushes = read_rows(connection, query, pushes, queries.as_push_row) if raw else []
    found_receipts = _read_by_id(connection, receipts, "receipt_id", claimed, queries.as_receipt_row)
    found_replies = _read_by_id(connection, replies, "reply_id", claimed, queries.as_reply_row)
    about = {message_id for delivery in claimed if (message_id := message_of(delivery, found_receipts)) is not None}
    return DeliveryClaim(
        target=target,
        deliveries=claimed,
        pushes={push.id: push for push in found_pushes},
        receipts=found_receipts,
        replies=found_replies,
        messages=queries.get_messages(connection, sorted(about), clock) if about else {},
    )


def _read_by_id(
    connection: sa.Connection,
    table: sa.Table,
    name: str,
    claimed: Sequence[QueuedDelivery],
    convert: Callable[[Any], T],
) -> dict[int, T]:
    ids = [row_id for delivery in claimed if (row_id := getattr(delivery, name)) is not None]
    query = queries.select_inbound_events(table).where(table.c.id.in_(ids))
    return dict(read_rows(connection, query, table, lambda row: (row.id, convert(row)))) if ids else {}


def message_of(delivery: QueuedDelivery, found: Mapping[int, ReceiptRow]) -> int | None:
    """Return the message of an event; for a receipt the receipt's present message, which may have changed."""
    if delivery.event == EventType.STATUS_CHANGED and delivery.receipt_id is not None:
        receipt = found.get(delivery.receipt_id)
        return receipt.message_id if receipt else None
    return delivery.message_id


def settle(connection: sa.Connection, target_id: int, result: Settlement) -> None:
    """Record the results of a claim."""
    now = now_of(connection)
    _keep_history(connection, result, now)
    if done := [delivery.id for delivery in (*(delivery for delivery, _ in result.delivered), *result.gone)]:
        connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(done)))
    if result.released:
        ids = [delivery.id for delivery in result.released]
        connection.execute(sa.update(deliveries).where(deliveries.c.id.in_(ids)).values(next_at=now))
    for failure in result.failed:
        _add_failure(connection, target_id, failure, now)
    query = sa.select(targets).where(targets.c.id == target_id)
    # The lock of a plain update, which does not block the fan-out.
    row = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        return
    if result.delivered or result.failed or result.pause_because:
        connection.execute(sa.update(targets).where(targets.c.id == target_id).values(_health(row, result, now)))
    if row.delivered // HISTORY_MORE != (row.delivered + len(result.delivered)) // HISTORY_MORE:
        _cut_history(connection, target_id)


def _keep_history(connection: sa.Connection, result: Settlement, now: datetime) -> None:
    """Copy what was accepted, before it is deleted."""
    by_status: dict[int, list[int]] = defaultdict(list)
    for delivery, status in result.delivered:
        by_status[status].append(delivery.id)
    for status, ids in by_status.items():
        connection.execute(_history_statement(connection.dialect.name), {"ids": ids, "status": status, "now": now})


@cache
def _history_statement(dialect: str) -> Any:
    kept = ("id", "target_id", "event_id", "event", "push_id", "receipt_id", "reply_id", "message_id", "created_at")
    status = sa.bindparam("status", type_=sa.Integer)
    now = sa.bindparam("now", type_=delivery_history.c.delivered_at.type)
    added = (deliveries.c.attempts + 1, status, now)
    copied = sa.select(*(deliveries.c[name] for name in kept), *added)
    copied = copied.where(deliveries.c.id.in_(sa.bindparam("ids", expanding=True)))
    statement = insert(dialect, delivery_history)
    statement = statement.from_select([*kept, "attempts", "last_status", "delivered_at"], copied)
    return statement.on_conflict_do_nothing()  # another node settles the same deliveries: this one's lease ran out


def _cut_history(connection: sa.Connection, target_id: int) -> None:
    """Delete all but the newest HISTORY_MAX of what an endpoint accepted."""
    own = delivery_history.c.target_id == target_id
    newest = sa.select(delivery_history.c.id).where(own).order_by(delivery_history.c.id.desc())
    oldest = newest.offset(HISTORY_MAX).limit(1).scalar_subquery()
    connection.execute(sa.delete(delivery_history).where(own, delivery_history.c.id <= oldest))


def _add_failure(connection: sa.Connection, target_id: int, failure: Failure, now: datetime) -> None:
    delivery = failure.delivery
    since = min(delivery.failing_since or now, now)
    dead = now - since >= LIFE
    next_at = now + failure.wait
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values(
            attempts=deliveries.c.attempts + 1,
            failing_since=since,
            last_error=failure.error[:_ERROR_MAX_CHARS],
            last_status=failure.status,
            next_at=next_at,
            dead_at=now if dead else None,
        )
    )
    if not dead and delivery.order_key is not None:
        # Later deliveries of the message must wait for it: do not check them again until then.
        connection.execute(
            sa.update(deliveries)
            .where(
                deliveries.c.target_id == target_id,
                deliveries.c.order_key == delivery.order_key,
                deliveries.c.id > delivery.id,
                deliveries.c.dead_at.is_(None),
                deliveries.c.next_at < next_at,
            )
            .values(next_at=next_at)
        )


_BREAKER_FIRST, _BREAKER_MOST = timedelta(seconds=2), timedelta(minutes=5)


def _health(row: Any, result: Settlement, now: datetime) -> Row:
    values: Row = {}
    failures = result.failures_in_row if result.delivered else row.failures + result.failures_in_row
    values["failures"] = failures
    values["retry_at"] = None if result.delivered else row.retry_at
    if result.failures_in_row and failures >= BREAKER_FAILURES:
        values["retry_at"] = now + min(_BREAKER_MOST, _BREAKER_FIRST * 2 ** min(20, failures - BREAKER_FAILURES))
    elif not result.failures_in_row and row.failures >= BREAKER_FAILURES:
        values["retry_at"] = None  # it responds again
    if result.rest is not None:
        values["retry_at"] = max(filter(None, (values["retry_at"], now + result.rest)))
    if result.delivered:
        values |= {"delivered": row.delivered + len(result.delivered), "delivered_at": now}
    if result.failed:
        values |= {"failed_at": now, "last_error": result.failed[-1].error[:_ERROR_MAX_CHARS]}
    if result.last_failed is not None:
        values["last_status"] = result.last_status
        values["failing_since"] = (row.failing_since or now) if result.last_failed else None
    if result.pause_because and row.paused_at is None:
        values |= {"paused_at": now, "paused_because": result.pause_because}
    return values


def now_of(connection: sa.Connection) -> datetime:
    """Return the database's time; for SQLite the process's own."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    found: datetime = connection.execute(_NOW).scalar_one()
    return found.astimezone(UTC)


_NOW = sa.select(sa.func.clock_timestamp())
