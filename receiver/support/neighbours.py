"""The messages to one number before and after a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.set_aside import is_readable_time
from receiver.db.tables import messages
from receiver.messages.queries import in_accounts

if TYPE_CHECKING:
    from receiver.messages.queries import MessageRow

_READ_MAX = 200  # of the number, each way by id: ids nearly follow the time


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """The ids of the messages sent before and after; None: there is none."""

    before: int | None
    after: int | None


def find_neighbours(
    connection: sa.Connection, message: MessageRow, accounts: tuple[str, ...] | None = None
) -> Neighbours:
    """Return the messages to the same number before and after, by the time of sending, within these accounts."""
    column = messages.c
    moment = sa.func.coalesce(column.sent_at, column.recorded_at, column.reported_at, type_=column.sent_at.type)
    query = sa.select(column.id, moment.label("at")).where(
        column.mobile == message.mobile, is_readable_time(moment), *in_accounts(messages, accounts)
    )
    older = query.where(column.id < message.id).order_by(column.id.desc()).limit(_READ_MAX)
    newer = query.where(column.id > message.id).order_by(column.id).limit(_READ_MAX)
    rows = [*connection.execute(older), *connection.execute(newer)]
    own_at = message.sent_at or message.recorded_at or message.reported_at
    if own_at is None:
        return Neighbours(before=None, after=None)
    keys, own = sorted((row.at, row.id) for row in rows), (own_at, message.id)
    before, after = [key for key in keys if key < own], [key for key in keys if key > own]
    return Neighbours(before=before[-1][1] if before else None, after=after[0][1] if after else None)
