"""What is to go to targets: made of what transactions have left (`forward_queue`), claimed, and settled.

Made by one node at a time, in the order in which it was left, so that ids follow each other as what happened to one
message did. Sent by all: whoever claims a delivery sets `next_at` to when another may, should he be gone by then.
Times are the database's own, since nodes' clocks differ.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.domain import MessageStatus, Receipt, fold, new_id
from receiver.store import read
from receiver.store.database import insert
from receiver.store.forward_queue import Change
from receiver.store.tables import deliveries, forward_queue, messages, pushes, receipts, replies, targets, timers
from receiver.store.targets import EventType, Format, Target, as_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from receiver.store.read import Clock, MessageRow, PushRow, ReceiptRow, ReplyRow

Row = dict[str, Any]

PUSH_EVENT = "push"  # of a raw target
LEASE = timedelta(seconds=60)
LIFE = timedelta(days=3)  # of failing, before it is given up
BREAKER_FAILURES = 5  # in a row; then a single one is tried now and then
_FAN_OUT_LOCK = 0x72637666  # "rcvf": apart from other programs' advisory locks
_HISTORY = timedelta(days=1)  # a send that is recorded so long afterwards is looked at no more
_ERROR_MAX_CHARS = 200


# --- Making them --------------------------------------------------------------------------------------


def fan_out(connection: sa.Connection, *, limit: int, no_receipt_after: timedelta) -> int:
    """Make deliveries of the oldest that was left; give how much that was. 0: nothing, or another node is at it."""
    if connection.dialect.name == "postgresql" and not connection.scalar(_TAKE_TURN):
        return 0
    now = _now(connection)
    oldest = sa.select(forward_queue.c.id).order_by(forward_queue.c.id).limit(limit)
    taken = connection.execute(
        sa.delete(forward_queue).where(forward_queue.c.id.in_(oldest)).returning(*forward_queue.c)
    ).all()
    # Locked, so that what is removed meanwhile gets nothing that nobody would remove.
    query = sa.select(targets).order_by(targets.c.id).with_for_update(read=True, key_share=True)
    found = [as_target(row) for row in connection.execute(query)] if taken else []
    if found:
        maker = _Maker(connection, sorted(taken, key=lambda row: row.id), now)
        rows = [row for change in maker.changes for row in maker.rows(change, found)]
        if rows:
            connection.execute(sa.insert(deliveries), rows)
        due = maker.timers(found, no_receipt_after)
        if due:
            connection.execute(insert(connection.dialect.name, timers).on_conflict_do_nothing(), due)
    return len(taken)


def count_queue(connection: sa.Connection) -> int:
    """Give how much was left and is not made into deliveries yet; its ends tell, since it is taken in order."""
    ends = sa.func.max(forward_queue.c.id) - sa.func.min(forward_queue.c.id) + 1
    return connection.scalar(sa.select(ends)) or 0


_TAKE_TURN = sa.select(sa.func.pg_try_advisory_xact_lock(_FAN_OUT_LOCK))


class _Maker:
    """Reads at once what a number of changes are about, and makes deliveries of each."""

    def __init__(self, connection: sa.Connection, changes: Sequence[Any], now: datetime) -> None:
        self.changes = changes
        self._now = now
        push_ids = [change.push_id for change in changes if change.push_id is not None]
        query = sa.select(pushes.c.id, pushes.c.account).where(pushes.c.id.in_(push_ids))
        found = [tuple(row) for row in connection.execute(query)] if push_ids else []
        self._push_accounts: Mapping[UUID, str] = dict(found)
        message_ids = {change.message_id for change in changes if change.message_id is not None}
        about = [change.message_id for change in changes if change.push_id is None]
        query = sa.select(messages).where(messages.c.id.in_(about))
        self._messages = {row.id: row for row in connection.execute(query)} if about else {}
        self._receipts = _find(connection, receipts, message_ids, [change.receipt_id for change in changes])
        self._replies = _find(connection, replies, message_ids, [change.reply_id for change in changes], push_ids)
        # A plain push's receipt is the one of its message that it was the first to bring.
        self._receipt_of = {(row.message_id, row.push_id): row for row in self._receipts.values()}
        self._reply_of = {(row.message_id, row.push_id): row for row in self._replies.values()}
        self._full: dict[int, list[Any]] = defaultdict(list)
        for row in sorted(self._receipts.values(), key=lambda row: row.id):
            if not row.masked_mobile:  # those that came masked tell of their own (`write`)
                self._full[row.message_id].append(row)

    def rows(self, change: Any, found: Sequence[Target]) -> Iterable[Row]:
        if change.kind == Change.SENT:
            return
        if change.kind == Change.STATE:
            message = self._messages.get(change.message_id)
            if message is not None:
                yield from self._each(
                    found, message.account, EventType.STATUS_CHANGED, message.id, message_id=message.id
                )
            return
        account = self._push_accounts.get(change.push_id)
        if account is None:
            return  # it is not kept any more
        key = (change.message_id, change.push_id)
        receipt = self._receipts.get(change.receipt_id) or self._receipt_of.get(key)
        reply = self._replies.get(change.reply_id) or self._reply_of.get(key)
        first = receipt or reply
        order_key = first.message_id if first is not None else change.message_id
        if change.kind == Change.PUSH:
            yield from self._each(found, account, PUSH_EVENT, order_key, push_id=change.push_id)
        if receipt is not None:
            about = {"push_id": change.push_id, "receipt_id": receipt.id}
            yield from self._each(found, account, EventType.RECEIPT_RECEIVED, order_key, **about)
            if self._changes_status(receipt):
                yield from self._each(found, account, EventType.STATUS_CHANGED, order_key, **about)
        if reply is not None:
            about = {"push_id": change.push_id, "reply_id": reply.id}
            yield from self._each(found, account, EventType.REPLY_RECEIVED, order_key, **about)

    def timers(self, found: Sequence[Target], no_receipt_after: timedelta) -> list[Row]:
        rows: list[Row] = []
        for message_id in sorted({change.message_id for change in self.changes if change.kind == Change.SENT}):
            message = self._messages.get(message_id)
            if message is None or message.recorded_at is None:
                continue
            sent_at = message.sent_at or message.recorded_at
            if message.recorded_at - sent_at > _HISTORY:
                continue
            for target in found:
                if not target.hears(message.account):
                    continue
                waits = {EventType.NO_RECEIPT: no_receipt_after}
                if target.not_delivered_after_seconds is not None:
                    waits[EventType.NOT_DELIVERED] = timedelta(seconds=target.not_delivered_after_seconds)
                rows += [
                    {"target_id": target.id, "message_id": message.id, "event": event.value, "due_at": sent_at + wait}
                    for event, wait in waits.items()
                    if event in target.events
                ]
        return rows

    def _changes_status(self, receipt: Any) -> bool:
        if receipt.masked_mobile or receipt.message_id is None:
            return False
        so_far = [row for row in self._full[receipt.message_id] if row.id < receipt.id]
        return fold(map(_as_receipt, so_far)).status is not fold(map(_as_receipt, [*so_far, receipt])).status

    def _each(
        self, found: Sequence[Target], account: str, event: str, order_key: int | None, **about: Any
    ) -> Iterable[Row]:
        for target in found:
            wanted = event in target.events or (event == PUSH_EVENT and target.format is Format.RAW)
            if wanted and target.hears(account):
                yield _new_delivery(target.id, event, order_key, self._now, **about)


def _find(
    connection: sa.Connection,
    table: sa.Table,
    message_ids: Iterable[int],
    ids: Iterable[int | None],
    push_ids: Sequence[UUID] | None = None,
) -> Mapping[int, Any]:
    names = ["id", "message_id", "push_id", "masked_mobile"]
    names += ["vendor_status", "reported_at"] if table is receipts else []
    query = sa.select(*(table.c[name] for name in names))
    found: dict[int, Any] = {}
    if of_messages := list(message_ids):
        condition = [table.c.message_id.in_(of_messages)]
        if push_ids is not None:
            condition.append(table.c.push_id.in_(push_ids))
        found |= {row.id: row for row in connection.execute(query.where(*condition))}
    if known := [row_id for row_id in ids if row_id is not None and row_id not in found]:
        found |= {row.id: row for row in connection.execute(query.where(table.c.id.in_(known)))}
    return found


def _as_receipt(row: Any) -> Receipt:
    return Receipt(mobile="", task_id="", vendor_status=row.vendor_status, reported_at=row.reported_at)


def _new_delivery(target_id: int, event: str, order_key: int | None, now: datetime, **about: Any) -> Row:
    nothing = dict.fromkeys(("push_id", "receipt_id", "reply_id", "message_id"))
    row = {"target_id": target_id, "event_id": new_id(), "event": str(event), "order_key": order_key}
    return row | nothing | about | {"created_at": now, "next_at": now}


def pop_timers(connection: sa.Connection, clock: Clock, *, limit: int) -> int:
    """Make deliveries of what is so still, now that its time has come; give how many timers that were."""
    now = _now(connection)
    query = sa.select(timers).where(timers.c.due_at <= now).order_by(timers.c.due_at).limit(limit)
    due = connection.execute(query.with_for_update(skip_locked=True)).all()
    if not due:
        return 0
    found = read.get_messages(connection, sorted({row.message_id for row in due}), clock)
    rows = [
        # Tied to no other event of the message: it would wait for what cannot be delivered now.
        _new_delivery(row.target_id, row.event, None, now, message_id=row.message_id)
        for row in due
        if row.message_id in found and _holds(EventType(row.event), found[row.message_id])
    ]
    if rows:
        connection.execute(sa.insert(deliveries), rows)
    connection.execute(sa.delete(timers).where(timers.c.id.in_([row.id for row in due])))
    return len(due)


def _holds(event: EventType, message: MessageRow) -> bool:
    if event is EventType.NO_RECEIPT:
        # By its state, not by its age: this node's clock may be behind.
        return message.status in (MessageStatus.NO_RECEIPT, MessageStatus.PENDING)
    return message.status is not MessageStatus.DELIVERED


# --- Sending them -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
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
class Claim:
    """Deliveries that nobody else sends for the length of LEASE, and what they are about."""

    target: Target
    deliveries: Sequence[Delivery]
    pushes: Mapping[UUID, PushRow]
    receipts: Mapping[int, ReceiptRow]
    replies: Mapping[int, ReplyRow]
    messages: Mapping[int, MessageRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A delivery that failed, and how long it is to wait."""

    delivery: Delivery
    error: str
    wait: timedelta


@dataclass(kw_only=True, slots=True)
class Settlement:
    """What became of a claim."""

    done: list[Delivery] = field(default_factory=list)  # delivered, or about what is gone
    delivered: int = 0
    failed: list[Failure] = field(default_factory=list)
    released: list[Delivery] = field(default_factory=list)  # not tried
    failures_in_row: int = 0  # of the target's own, since the last delivery of this claim
    rest: timedelta | None = None  # for which the target wants to hear nothing
    pause_because: str | None = None


def claim(connection: sa.Connection, target_id: int, clock: Clock, *, limit: int) -> Claim | None:
    """Claim what is due for a target, the first of each message; read what it is about. None: there is nothing."""
    now = _now(connection)
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
        Delivery(**{name: getattr(found, name) for name in _DELIVERY_FIELDS})
        for found in connection.execute(_claim_statement(), values)
    ]
    if not claimed:
        return None
    if broken:
        connection.execute(sa.update(targets).where(targets.c.id == target_id).values(retry_at=now + LEASE))
    claimed.sort(key=lambda delivery: delivery.id)
    return _with_contents(connection, as_target(row, now=now), claimed, clock)


def _ready(row: Any, now: datetime) -> bool:
    return row.paused_at is None and (row.retry_at is None or row.retry_at <= now)


_DELIVERY_FIELDS = tuple(name for name in Delivery.__slots__ if name != "__weakref__")


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


def _with_contents(connection: sa.Connection, target: Target, claimed: Sequence[Delivery], clock: Clock) -> Claim:
    raw = [delivery.push_id for delivery in claimed if delivery.event == PUSH_EVENT]
    found_pushes = (
        [read.as_push_row(row) for row in connection.execute(sa.select(*read.PUSH_COLUMNS).where(pushes.c.id.in_(raw)))]
        if raw
        else []
    )
    found_receipts = {row.id: read.as_receipt_row(row) for row in _sighted(connection, receipts, "receipt_id", claimed)}
    found_replies = {row.id: read.as_reply_row(row) for row in _sighted(connection, replies, "reply_id", claimed)}
    about = {message_id for delivery in claimed if (message_id := message_of(delivery, found_receipts)) is not None}
    return Claim(
        target=target,
        deliveries=claimed,
        pushes={push.id: push for push in found_pushes},
        receipts=found_receipts,
        replies=found_replies,
        messages=read.get_messages(connection, sorted(about), clock) if about else {},
    )


def _sighted(connection: sa.Connection, table: sa.Table, name: str, claimed: Sequence[Delivery]) -> Iterable[Any]:
    ids = [row_id for delivery in claimed if (row_id := getattr(delivery, name)) is not None]
    return connection.execute(read.sighted(table).where(table.c.id.in_(ids))) if ids else ()


def message_of(delivery: Delivery, found: Mapping[int, ReceiptRow]) -> int | None:
    """Give the message that an event tells of; that of its receipt, which may have gone over to another."""
    if delivery.event == EventType.STATUS_CHANGED and delivery.receipt_id is not None:
        receipt = found.get(delivery.receipt_id)
        return receipt.message_id if receipt else None
    return delivery.message_id


def settle(connection: sa.Connection, target_id: int, became: Settlement) -> None:
    """Note what became of a claim."""
    now = _now(connection)
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
    since = delivery.failing_since or now
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


def _now(connection: sa.Connection) -> datetime:
    """Give the database's own time; SQLite has that of its one process."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    found: datetime = connection.execute(_NOW).scalar_one()
    return found.astimezone(UTC)


_NOW = sa.select(sa.func.clock_timestamp())
