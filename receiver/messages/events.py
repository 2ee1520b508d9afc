"""Receipts and replies as one stream that a reader can resume: none is missed, none sent twice.

Rows are added under the projector's turn (`projection`), one transaction after the other. So their ids are committed in
their order, and nothing can appear below an id that was read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from receiver.core import Kind
from receiver.db.set_aside import is_in_feeds, read_rows
from receiver.db.tables import receipts, replies
from receiver.messages.queries import (
    ReceiptRow,
    ReplyRow,
    as_receipt_row,
    as_reply_row,
    in_accounts,
    select_inbound_events,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import sqlalchemy as sa


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A reader's position: the ids of the last receipt and the last reply."""

    receipt_id: int = 0
    reply_id: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One receipt or reply, and the position behind it."""

    kind: Kind
    row: ReceiptRow | ReplyRow
    position: Position


def list_events(
    connection: sa.Connection, after: Position, limit: int, accounts: tuple[str, ...] | None
) -> list[Event]:
    """Return the next events in the order of arrival.

    Both kinds are read in the order of their ids, and merged by arrival time.
    """
    found = [
        (
            Kind.RECEIPT,
            _next_rows(connection, receipts, after.receipt_id, limit, accounts, as_receipt_row),
        ),
        (Kind.REPLY, _next_rows(connection, replies, after.reply_id, limit, accounts, as_reply_row)),
    ]
    queues = {kind: deque(rows) for kind, rows in found}
    events: list[Event] = []
    position = after
    while len(events) < limit and any(queues.values()):
        kind = min((kind for kind in queues if queues[kind]), key=lambda kind: queues[kind][0].received_at)
        row = queues[kind].popleft()
        position = (
            Position(row.id, position.reply_id) if kind is Kind.RECEIPT else Position(position.receipt_id, row.id)
        )
        events.append(Event(kind=kind, row=row, position=position))
    return events


def _next_rows(
    connection: sa.Connection,
    table: sa.Table,
    after: int,
    limit: int,
    accounts: tuple[str, ...] | None,
    convert: Callable[[Any], Any],
) -> Sequence[Any]:
    query = select_inbound_events(table).where(table.c.id > after, is_in_feeds(table), *in_accounts(table, accounts))
    return read_rows(connection, query.order_by(table.c.id).limit(limit), table, convert)
