"""Makes events of the past anew for one endpoint, whose receiver was down or lost them.

They are made from the rows that are stored. Those of receipts, replies and timers have the id that they had before, so
that the receiver can drop what it has. Only `webhooks.service` may import this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import sqlalchemy as sa

from receiver.core import DeliveryStatus, first_id_of
from receiver.db.tables import AGE_FROM, deliveries, messages, pushes, receipts, replies
from receiver.webhooks.deliveries import PUSH_EVENT, now_of
from receiver.webhooks.endpoints import EventType, PayloadFormat
from receiver.webhooks.fan_out import new_delivery, origin_of, set_timers, waits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta

    from receiver.webhooks.endpoints import Endpoint

ROWS_MAX = 100_000  # rows that one call may make events of
_ROWS_AT_ONCE = 500

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The times of what is to be sent again: from `since`, before `until`."""

    target: Endpoint
    since: datetime
    until: datetime


def tables_of(target: Endpoint) -> Sequence[sa.Table]:
    """Return the tables whose rows an endpoint's events are of, in the order in which they are sent again."""
    if target.format is PayloadFormat.RAW:
        return (pushes,)
    of_receipts = {EventType.RECEIPT_RECEIVED, EventType.STATUS_CHANGED}.intersection(target.events)
    return (*([receipts] if of_receipts else []), *([replies] if EventType.REPLY_RECEIVED in target.events else []))


def count_rows(connection: sa.Connection, window: Window) -> int:
    """Return how many rows the events would be of, counted up to a little more than ROWS_MAX."""
    return sum(
        connection.scalar(
            sa.select(sa.func.count()).select_from(
                sa.select(table.c.id).where(*_within(table, window)).limit(ROWS_MAX + 1).subquery()
            )
        )
        or 0
        for table in tables_of(window.target)
    )


def _within(table: sa.Table, window: Window) -> tuple[sa.ColumnElement[bool], ...]:
    received = (table.c.received_at >= window.since, table.c.received_at < window.until)
    # No index has the time of pushes, but their ids begin with it. A push that was spooled has an earlier one.
    return (table.c.id >= first_id_of(window.since), *received) if table is pushes else received


def list_queued(connection: sa.Connection, target: Endpoint) -> set[tuple[Any, ...]]:
    """Return what is queued for an endpoint already, as `key_of` has it; of a very long queue a part."""
    columns = (deliveries.c.event, deliveries.c.push_id, deliveries.c.receipt_id, deliveries.c.reply_id)
    rows = connection.execute(sa.select(*columns).where(deliveries.c.target_id == target.id).limit(ROWS_MAX))
    return {tuple(row) for row in rows}


def queue_some(
    connection: sa.Connection, table: sa.Table, window: Window, queued: set[tuple[Any, ...]], after: Any
) -> tuple[Any, int]:
    """Queue the events of the next rows of a table; return the last row's id, None at the end, and their number.

    `after`: the id that was returned before; None: from the beginning.
    """
    conditions = list(_within(table, window))
    if after is None and table is not pushes:
        # Found by the index on the time; without it the ids would be gone through from the first one on.
        first = connection.scalar(sa.select(sa.func.min(table.c.id)).where(*conditions))
        if first is None:
            return None, 0
        conditions.append(table.c.id >= first)
    elif after is not None:
        conditions.append(table.c.id > after)
    query = _select(table).where(*conditions).order_by(table.c.id).limit(_ROWS_AT_ONCE)
    rows = connection.execute(query).all()
    now = now_of(connection)
    made = [
        delivery
        for row in rows
        if window.target.covers(row.of_account)
        for delivery in _events_of(table, row, window.target, now)
        if (delivery["event"], delivery["push_id"], delivery["receipt_id"], delivery["reply_id"]) not in queued
    ]
    if made:
        connection.execute(sa.insert(deliveries), made)
    return (rows[-1].id if len(rows) == _ROWS_AT_ONCE else None), len(made)


def _select(table: sa.Table) -> sa.Select[Any]:
    if table is pushes:
        return sa.select(pushes.c.id, pushes.c.account.label("of_account"), pushes.c.task_id, pushes.c.mobile)
    of_account = sa.func.coalesce(table.c.account, messages.c.account).label("of_account")
    columns = [table.c.id, table.c.push_id, table.c.message_id, table.c.masked_mobile, of_account]
    if table is receipts:
        columns += [table.c.reported_at, messages.c.reported_at.label("decided_at")]
    return sa.select(*columns).outerjoin(messages, messages.c.id == table.c.message_id)


def _events_of(table: sa.Table, row: Any, target: Endpoint, now: datetime) -> Iterator[Row]:
    if table is pushes:
        yield new_delivery(target.id, PUSH_EVENT, _order_key(row), now, push_id=row.id)
        return
    about = {"push_id": row.push_id, "origin": origin_of(row)}
    if table is replies:
        yield new_delivery(target.id, EventType.REPLY_RECEIVED, row.message_id, now, reply_id=row.id, **about)
        return
    about["receipt_id"] = row.id
    if EventType.RECEIPT_RECEIVED in target.events:
        yield new_delivery(target.id, EventType.RECEIPT_RECEIVED, row.message_id, now, **about)
    # Of the receipts of a message, the one that decides its state.
    decides = not row.masked_mobile and row.decided_at == row.reported_at
    if EventType.STATUS_CHANGED in target.events and decides:
        yield new_delivery(target.id, EventType.STATUS_CHANGED, row.message_id, now, **about)


def _order_key(push: Any) -> int | None:
    """Return a key that pushes of one message share, below those of messages."""
    return None if push.task_id is None else -1 - crc32(f"{push.task_id} {push.mobile}".encode())


def restart_timers(connection: sa.Connection, window: Window, no_receipt_after: timedelta) -> None:
    """Let the timers of undelivered messages that ran out in the window run out again, at once."""
    target = window.target
    for event, wait in waits(target, no_receipt_after).items():
        sent = (window.since - wait <= AGE_FROM, window.until - wait > AGE_FROM, messages.c.recorded_at.isnot(None))
        open_ = messages.c.status != DeliveryStatus.DELIVERED
        query = sa.select(messages.c.id).where(*sent, open_).order_by(AGE_FROM).limit(ROWS_MAX)
        ids = connection.scalars(query).all() if event in target.events else ()
        for begin in range(0, len(ids), _ROWS_AT_ONCE):
            part = ids[begin : begin + _ROWS_AT_ONCE]
            set_timers(connection, [replace(target, events=(event,))], part, no_receipt_after)
