"""Receipts, replies and changes of messages as one stream that a reader can resume: none is missed, none sent twice.

Receipts and replies are added under the projector's turn (`projection`), one transaction after the other. So their ids
are committed in their order, and nothing can appear below an id that was read. The same holds for the stamps of
messages (`stamps`): each message comes as it is, once after its last change.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.set_aside import is_in_feeds, read_rows
from receiver.db.tables import UNSTAMPED, messages, receipts, replies
from receiver.messages.queries import (
    MESSAGES,
    Clock,
    Filter,
    MessageRow,
    ReceiptRow,
    ReplyRow,
    as_message_row,
    as_receipt_row,
    as_reply_row,
    in_accounts,
    message_conditions,
    select_inbound_events,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


class EventKind(StrEnum):
    """What an event is."""

    RECEIPT = "receipt"
    REPLY = "reply"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Position:
    """A reader's position: the ids of the last receipt and the last reply; the stamp and id of the last message; and
    the kinds that it reads.
    """

    receipt_id: int = 0
    reply_id: int = 0
    stamp: int = 0  # in milliseconds from 1970
    message_id: int = 0
    kinds: frozenset[EventKind] = field(default=frozenset(EventKind), kw_only=True)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return what `of_parts` makes it of."""
        numbers = (self.receipt_id, self.reply_id, self.stamp, self.message_id)
        some = () if self.kinds == frozenset(EventKind) else (",".join(sorted(self.kinds)),)
        return (*map(str, numbers), *some)

    @classmethod
    def of_parts(cls, parts: Sequence[str]) -> Position:
        """Return the position of these parts; of two, from before messages were events, with all of these to come.

        Raises ValueError.
        """
        numbers, kinds = parts[:4], parts[4:]
        well_formed = len(numbers) in (2, 4) and all(part.isascii() and part.isdigit() for part in numbers)
        if not well_formed or len(kinds) > 1:
            raise ValueError("not a position")
        position = cls(*map(int, numbers))
        return replace(position, kinds=frozenset(map(EventKind, kinds[0].split(",")))) if kinds else position


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One receipt, reply, or message as it is since its last change; and the position behind it."""

    kind: EventKind
    row: ReceiptRow | ReplyRow | MessageRow
    position: Position

    @property
    def id(self) -> str:
        """Return the id of the event, unique over all kinds: the same whenever it is read."""
        if isinstance(self.row, MessageRow):
            return f"{self.kind}_{self.row.id}_{_milliseconds(self.row.updated_at)}"
        return f"{self.kind}_{self.row.id}"


def list_events(
    connection: sa.Connection, after: Position, limit: int, accounts: tuple[str, ...] | None, clock: Clock
) -> list[Event]:
    """Return the next events of the reader's kinds in the order of arrival, or of change.

    Each kind is read in its own order, and they are merged by time.
    """
    queues: dict[EventKind, deque[Any]] = {}
    if EventKind.RECEIPT in after.kinds:
        queues[EventKind.RECEIPT] = deque(
            _next_rows(connection, receipts, after.receipt_id, limit, accounts, as_receipt_row)
        )
    if EventKind.REPLY in after.kinds:
        queues[EventKind.REPLY] = deque(_next_rows(connection, replies, after.reply_id, limit, accounts, as_reply_row))
    if EventKind.MESSAGE in after.kinds:
        # No more messages than go before these: each costs a count of its receipts and of its replies.
        times = [row.received_at for queue in queues.values() for row in queue]
        upto = max(times) if len(times) >= limit else None
        queues[EventKind.MESSAGE] = deque(_next_messages(connection, after, limit, accounts, clock, upto))
    events: list[Event] = []
    position = after
    while len(events) < limit and any(queues.values()):
        kind = min((kind for kind in queues if queues[kind]), key=lambda kind: _moment(queues[kind][0]))
        row = queues[kind].popleft()
        position = _behind(position, kind, row)
        events.append(Event(kind=kind, row=row, position=position))
    return events


def find_position(connection: sa.Connection, moment: datetime) -> Position:
    """Return the position before all that was received, or changed, at that time or later.

    What is older may follow it too: ids are in the order of the projection.
    """
    receipt_id, reply_id = (_id_before(connection, table, moment) for table in (receipts, replies))
    return Position(receipt_id, reply_id, max(0, _milliseconds(moment)))


def _id_before(connection: sa.Connection, table: sa.Table, moment: datetime) -> int:
    """Return the highest id below all that were received at that time or later."""
    oldest = connection.scalar(sa.select(table.c.received_at).order_by(table.c.id).limit(1))
    if oldest is None or oldest >= moment:  # else all of them would be read
        return 0
    # Without the sum, PostgreSQL would look through all ids from the first one on, for one that fits.
    first = connection.scalar(sa.select(sa.func.min(table.c.id + 0)).where(table.c.received_at >= moment))
    return (connection.scalar(sa.select(sa.func.max(table.c.id))) or 0) if first is None else first - 1


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _moment(row: ReceiptRow | ReplyRow | MessageRow) -> datetime:
    return row.updated_at if isinstance(row, MessageRow) else row.received_at


def _behind(position: Position, kind: EventKind, row: Any) -> Position:
    match kind:
        case EventKind.RECEIPT:
            return replace(position, receipt_id=row.id)
        case EventKind.REPLY:
            return replace(position, reply_id=row.id)
        case EventKind.MESSAGE:
            return replace(position, stamp=_milliseconds(row.updated_at), message_id=row.id)


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


def _next_messages(
    connection: sa.Connection,
    after: Position,
    limit: int,
    accounts: tuple[str, ...] | None,
    clock: Clock,
    upto: datetime | None,
) -> Sequence[MessageRow]:
    stamp = _EPOCH + after.stamp * _MILLISECOND
    query = MESSAGES.where(
        sa.tuple_(messages.c.updated_at, messages.c.id) > (stamp, after.message_id),
        messages.c.updated_at > UNSTAMPED,
        is_in_feeds(messages),
        *message_conditions(Filter(accounts=accounts, stamped_upto=upto), clock),
    )
    query = query.order_by(messages.c.updated_at, messages.c.id).limit(limit)
    return read_rows(connection, query, messages, lambda row: as_message_row(row, clock))
