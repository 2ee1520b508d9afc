"""The webhook outbox: a transaction that changes rows adds references to it, while an endpoint exists.

In that same transaction, so that no stored change is missed. Processed later (`webhooks.fan_out`), so that no
acknowledgement waits for it. Ids are assigned once the message's row is locked: those of one message are in the order
of its transactions.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.tables import deliveries, forward_queue, targets, timers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Change(StrEnum):
    """The kind of a change."""

    PUSH = "push"  # a push was stored
    READING = "reading"  # a replay parsed a stored push differently
    STATE = "state"  # a message's state changed other than by a receipt of its own
    SENT = "sent"  # a send was recorded


def is_wanted(connection: sa.Connection) -> bool:
    """Return whether there is an endpoint."""
    return bool(connection.scalar(_any_target()))


def add(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Leave rows of `forward_queue`, where there is any target."""
    if rows and is_wanted(connection):
        connection.execute(sa.insert(forward_queue), [_EMPTY | row for row in rows])


def add_states(connection: sa.Connection, message_ids: Iterable[int]) -> None:
    """Leave that the state of messages has changed."""
    add(connection, [{"kind": Change.STATE, "message_id": message_id} for message_id in sorted(message_ids)])


def add_sends(connection: sa.Connection, message_ids: Iterable[int]) -> None:
    """Add recorded sends, if an endpoint subscribes to events that time brings about."""
    ids = sorted(message_ids)
    if ids and connection.scalar(_any_timed_target()):
        add(connection, [{"kind": Change.SENT, "message_id": message_id} for message_id in ids])


def move(connection: sa.Connection, *, old: int, new: int) -> None:
    """Move the pending entries of one message to the message that it was merged into."""
    if not is_wanted(connection):
        return
    connection.execute(sa.update(forward_queue).where(forward_queue.c.message_id == old).values(message_id=new))
    # After the queue: where the fan-out has taken its row, that waits until what it made can be seen.
    every = sa.select(targets.c.id)
    moved = sa.case((deliveries.c.message_id == old, new), else_=deliveries.c.message_id)
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.target_id.in_(every), deliveries.c.order_key == old, deliveries.c.dead_at.is_(None))
        .values(order_key=new, message_id=moved)
    )
    connection.execute(sa.delete(timers).where(timers.c.message_id == old))  # the other was sent, too, and has its own


_EMPTY: dict[str, Any] = dict.fromkeys(("push_id", "message_id", "receipt_id", "reply_id"))


@cache
def _any_target() -> Any:
    return sa.select(sa.exists(sa.select(targets.c.id)))


@cache
def _any_timed_target() -> Any:
    return sa.select(sa.exists(sa.select(targets.c.id).where(targets.c.timed)))
