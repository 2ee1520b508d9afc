"""Makes events of the past anew for one endpoint, whose receiver was down or lost them.

They are made from the rows that are stored, by the fan-out's rules. Those of receipts, replies and timers have the id
that they had before, so that the receiver can drop what it has. Only `webhooks.service` may import this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import sqlalchemy as sa

from receiver.core import DeliveryStatus, NotFound
from receiver.db.tables import AGE_FROM, deliveries, messages, pushes, receipts, replies
from receiver.messages.outbox import Change
from receiver.messages.queries import pushes_within
from receiver.webhooks.deliveries import PUSH_EVENT
from receiver.webhooks.endpoints import TIMED, EventType, PayloadFormat
from receiver.webhooks.fan_out import lock_endpoint, make_again, set_timers, waits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from receiver.webhooks.endpoints import Endpoint

ROWS_MAX = 100_000  # rows that one call may make events of
_ROWS_AT_ONCE = 50  # a longer transaction would delay acknowledgements
_TURN_SPACE = 0x72637265  # "rcre": apart from other programs' advisory locks


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The times of what is to be sent again: from `since`, before `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Some rows whose events one transaction makes: of a table, or messages whose timer runs out again."""

    of: sa.Table | EventType
    ids: Sequence[Any]

    @property
    def table(self) -> str:
        """The name of the rows' table."""
        return messages.name if isinstance(self.of, EventType) else self.of.name

    def singly(self) -> list[Step]:
        """Return a step for each row."""
        return [replace(self, ids=[row_id]) for row_id in self.ids]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Change:
    """A row as the change that the fan-out once read from its queue."""

    kind: Change
    push_id: UUID
    message_id: int | None
    receipt_id: int | None = None
    reply_id: int | None = None


def take_turn(connection: sa.Connection, target: Endpoint) -> bool:
    """Return whether this connection alone may recover an endpoint, until it closes; always for SQLite."""
    if connection.dialect.name != "postgresql":
        return True
    of_target = target.id % 2**31
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_TURN_SPACE, of_target))))


def list_steps(
    connection: sa.Connection, target: Endpoint, window: Window, *, no_receipt_after: timedelta
) -> list[Step]:
    """Return the rows whose events are to be made, in this order; in all up to a little more than ROWS_MAX."""
    steps: list[Step] = []
    left = ROWS_MAX + 1
    for of, query in _queries(target, window, no_receipt_after):
        # Sorted here: in the order of ids a database might go through all of them.
        ids = sorted(connection.scalars(query.limit(left)))
        left -= len(ids)
        begins = range(0, len(ids), _ROWS_AT_ONCE)
        steps += [Step(of=of, ids=ids[begin : begin + _ROWS_AT_ONCE]) for begin in begins]
    return steps


def _queries(
    target: Endpoint, window: Window, no_receipt_after: timedelta
) -> Iterator[tuple[sa.Table | EventType, sa.Select[Any]]]:
    if target.format is PayloadFormat.RAW:
        yield pushes, sa.select(pushes.c.id).where(*pushes_within(window.since, window.until))
        return
    of_receipts = not {EventType.RECEIPT_RECEIVED, EventType.STATUS_CHANGED}.isdisjoint(target.events)
    for table, wanted in ((receipts, of_receipts), (replies, EventType.REPLY_RECEIVED in target.events)):
        if wanted:
            received = (table.c.received_at >= window.since, table.c.received_at < window.until)
            yield table, sa.select(table.c.id).where(*received)
    for event, wait in waits(target, no_receipt_after).items():
        if event in target.events:
            sent = (window.since - wait <= AGE_FROM, window.until - wait > AGE_FROM, messages.c.recorded_at.isnot(None))
            yield event, sa.select(messages.c.id).where(*sent, messages.c.status != DeliveryStatus.DELIVERED)


def list_queued(connection: sa.Connection, target: Endpoint) -> set[Any]:
    """Return the keys of what is pending for an endpoint, as `_key_of` has them."""
    columns = (deliveries.c.event, deliveries.c.event_id, deliveries.c.push_id, deliveries.c.message_id)
    alive = (deliveries.c.target_id == target.id, deliveries.c.dead_at.is_(None))
    return {_key_of(row) for row in connection.execute(sa.select(*columns).where(*alive)).mappings()}


def _key_of(delivery: Any) -> Any:
    """Return what two deliveries of one event have in common."""
    if delivery["event"] == PUSH_EVENT:
        return delivery["push_id"]
    if delivery["event"] in TIMED:
        return delivery["event"], delivery["message_id"]
    return delivery["event_id"]


def queue_step(
    connection: sa.Connection, target: Endpoint, step: Step, *, queued: set[Any], no_receipt_after: timedelta
) -> set[Any]:
    """Queue the events of some rows, except those queued already; return the keys of the new ones.

    Raises NotFound if the endpoint was removed meanwhile.
    """
    present = lock_endpoint(connection, target.id)
    if present is None:
        raise NotFound(f"the webhook endpoint {target.name} was removed meanwhile")
    if isinstance(step.of, EventType):
        ids = [message_id for message_id in step.ids if (step.of, message_id) not in queued]
        if step.of in present.events:
            set_timers(connection, [replace(present, events=(step.of,))], ids, no_receipt_after)
        return set()
    rows = make_again(connection, present, *_read_changes(connection, step.of, step.ids))
    made = {key: row for row in rows if (key := _key_of(row)) not in queued}
    if made:
        connection.execute(sa.insert(deliveries), list(made.values()))
    return set(made)


def _read_changes(
    connection: sa.Connection, table: sa.Table, ids: Sequence[Any]
) -> tuple[list[_Change], dict[UUID, str]]:
    """Return rows as changes, and the accounts of their pushes."""
    if table is pushes:
        query = sa.select(pushes.c.id, pushes.c.account, pushes.c.task_id, pushes.c.mobile)
        rows = connection.execute(query.where(pushes.c.id.in_(ids)).order_by(pushes.c.id)).all()
        changes = [_Change(kind=Change.PUSH, push_id=row.id, message_id=_order_key(row)) for row in rows]
        return changes, {row.id: row.account for row in rows}
    account = sa.func.coalesce(table.c.account, messages.c.account).label("of_account")
    query = sa.select(table.c.id, table.c.push_id, table.c.message_id, account)
    query = query.outerjoin(messages, messages.c.id == table.c.message_id).where(table.c.id.in_(ids))
    rows = connection.execute(query.order_by(table.c.id)).all()
    name = "receipt_id" if table is receipts else "reply_id"
    changes = [
        _Change(kind=Change.READING, push_id=row.push_id, message_id=row.message_id, **{name: row.id}) for row in rows
    ]
    return changes, {row.push_id: row.of_account for row in rows}


def _order_key(push: Any) -> int | None:
    """Return a key that pushes of one message share, below those of messages."""
    return None if push.task_id is None else -1 - crc32(f"{push.task_id} {push.mobile}".encode())
