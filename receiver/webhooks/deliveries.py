"""What is to go to targets (made by `fan_out`): claimed, and settled.

Sent by all nodes: whoever claims a delivery sets `next_at` to when another may, should he be gone by then. Times are
the database's own, since nodes' clocks differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from receiver.db.set_aside import read_rows
from receiver.db.tables import deliveries, pushes, receipts, replies, targets
from receiver.messages import queries
from receiver.webhooks.endpoints import Endpoint, EventType, as_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from receiver.messages.queries import Clock, MessageRow, PushRow, ReceiptRow, ReplyRow

Row = dict[str, Any]

PUSH_EVENT = "push"  # of a raw target
LEASE = timedelta(seconds=60)
LIFE = timedelta(days=3)  # of failing, before it is given up
_WAITS_MOST = timedelta(days=1)  # far longer than a delivery or target ever waits
BREAKER_FAILURES = 5  # in a row; then a single one is tried now and then
_ERROR_MAX_CHARS = 200


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedDelivery:
    """Something that is to go to a target now."""

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
    """Deliveries that nobody else sends for the length of LEASE, and what they are about."""

    target: Endpoint
    deliveries: Sequence[QueuedDelivery]
    pushes: Mapping[UUID, PushRow]
    receipts: Mapping[int, ReceiptRow]
    replies: Mapping[int, ReplyRow]
    messages: Mapping[int, MessageRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A delivery that failed, and how long it is to wait."""

    delivery: QueuedDelivery
    error: str
    wait: timedelta


@dataclass(kw_only=True, slots=True)
class Settlement:
    """What became of a claim."""

    done: list[QueuedDelivery] = field(default_factory=list)  # delivered, or about what is gone
    delivered: int = 0
    failed: list[Failure] = field(default_factory=list)
    released: list[QueuedDelivery] = field(default_factory=list)  # not tried
    failures_in_row: int = 0  # of the target's own, since the last delivery of this claim
    rest: timedelta | None = None  # for which the target wants to hear nothing
    pause_because: str | None = None


def claim(connection: sa.Connection, target_id: int, clock: Clock, *, limit: int) -> DeliveryClaim | None:
    """Claim what is due for a target, the first of each message; read what it is about. None: there is nothing."""
    now = now_of(connection)
    row = connection.execute(sa.select(targets).where(targets.c.id == target_id)).one_or_none()
    if row is None or not _ready(row, now):
        return None
    broken = row.failures >= BREAKER_FAILURES
    if broken:
        # One at a time, whichever node it is: the row is this one's until the end of the transaction.
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
        _bring_back(connection, target_id, now)  # for the next look
        return None
    if broken:
        connection.execute(sa.update(targets).where(targets.c.id == target_id).values(retry_at=now + LEASE))
    claimed.sort(key=lambda delivery: delivery.id)
    return _with_contents(connection, as_target(row, now=now), claimed, clock)


def _ready(row: Any, now: datetime) -> bool:
    return row.paused_at is None and (row.retry_at is None or not now < row.retry_at <= now + _WAITS_MOST)


def _bring_back(connection: sa.Connection, target_id: int, now: datetime) -> None:
    """Let go out now what waits longer than anything is let wait: it was noted while a clock was ahead."""
    ahead = (
        deliveries.c.target_id == target_id,
        deliveries.c.dead_at.is_(None),
        deliveries.c.next_at > now + _WAITS_MOST,
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
        .cte("due")  # looked for once: within IN it might be again, and lock more
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
    found_receipts = _sighted(connection, receipts, "receipt_id", claimed, queries.as_receipt_row)
    found_replies = _sighted(connection, replies, "reply_id", claimed, queries.as_reply_row)
    about = {message_id for delivery in claimed if (message_id := message_of(delivery, found_receipts)) is not None}
    return DeliveryClaim(
        target=target,
        deliveries=claimed,
        pushes={push.id: push for push in found_pushes},
        receipts=found_receipts,
        replies=found_replies,
        messages=queries.get_messages(connection, sorted(about), clock) if about else {},
    )


def _sighted(
    connection: sa.Connection,
    table: sa.Table,
    name: str,
    claimed: Sequence[QueuedDelivery],
    convert: Callable[[Any], T],
) -> dict[int, T]:
    ids = [row_id for delivery in claimed if (row_id := getattr(delivery, name)) is not None]
    query = queries.sighted(table).where(table.c.id.in_(ids))
    return dict(read_rows(connection, query, table, lambda row: (row.id, convert(row)))) if ids else {}


def message_of(delivery: QueuedDelivery, found: Mapping[int, ReceiptRow]) -> int | None:
    """Return the message that an event tells of; that of its receipt, which may have gone over to another."""
    if delivery.event == EventType.STATUS_CHANGED and delivery.receipt_id is not None:
        receipt = found.get(delivery.receipt_id)
        return receipt.message_id if receipt else None
    return delivery.message_id


def settle(connection: sa.Connection, target_id: int, became: Settlement) -> None:
    """Note what became of a claim."""
    now = now_of(connection)
    if became.done:
        ids = [delivery.id for delivery in became.done]
        connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(ids)))
    if became.released:
        ids = [delivery.id for delivery in became.released]
        connection.execute(sa.update(deliveries).where(deliveries.c.id.in_(ids)).values(next_at=now))
    for failure in became.failed:
        _note_failure(connection, target_id, failure, now)
    query = sa.select(targets).where(targets.c.id == target_id)
    # No more than an update takes, which the fan-out does not have to wait for.
    row = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is not None and (became.delivered or became.failed or became.pause_because):
        connection.execute(sa.update(targets).where(targets.c.id == target_id).values(_health(row, became, now)))


def _note_failure(connection: sa.Connection, target_id: int, failure: Failure, now: datetime) -> None:
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
            next_at=next_at,
            dead_at=now if dead else None,
        )
    )
    if not dead and delivery.order_key is not None:
        # What comes after it cannot go before it: it is not to be looked at again and again until then.
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


def _health(row: Any, became: Settlement, now: datetime) -> Row:
    values: Row = {}
    failures = became.failures_in_row if became.delivered else row.failures + became.failures_in_row
    values["failures"] = failures
    values["retry_at"] = None if became.delivered else row.retry_at
    if became.failures_in_row and failures >= BREAKER_FAILURES:
        values["retry_at"] = now + min(_BREAKER_MOST, _BREAKER_FIRST * 2 ** min(20, failures - BREAKER_FAILURES))
    elif not became.failures_in_row and row.failures >= BREAKER_FAILURES:
        values["retry_at"] = None  # it answers
    if became.rest is not None:
        values["retry_at"] = max(filter(None, (values["retry_at"], now + became.rest)))
    if became.delivered:
        values |= {"delivered": row.delivered + became.delivered, "delivered_at": now}
    if became.failed:
        values |= {"failed_at": now, "last_error": became.failed[-1].error[:_ERROR_MAX_CHARS]}
    if became.pause_because and row.paused_at is None:
        values |= {"paused_at": now, "paused_because": became.pause_because}
    return values


def now_of(connection: sa.Connection) -> datetime:
    """Return the database's own time; SQLite has that of its one process."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    found: datetime = connection.execute(_NOW).scalar_one()
    return found.astimezone(UTC)


_NOW = sa.select(sa.func.clock_timestamp())
