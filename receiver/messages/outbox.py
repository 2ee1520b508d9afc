"""What a transaction that changes rows leaves behind for own systems to hear of: references, while there is a target.

In that very transaction, so that nothing that was kept is ever passed over; looked at later (`deliveries`), so that
nobody who waits for an acknowledgement waits for it. Ids are given out once the message's row is locked: those of one
message follow each other as its transactions do.
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
    """What has happened."""

    PUSH = "push"  # a push was kept
    READING = "reading"  # a push that was kept before was read in another way
    STATE = "state"  # a message's state has changed by something else than a receipt of its own
    SENT = "sent"  # a send was recorded


def add(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Leave rows of `forward_queue`, where there is any target."""
    if rows and connection.scalar(_any_target()):
        connection.execute(sa.insert(forward_queue), [_EMPTY | row for row in rows])


def add_states(connection: sa.Connection, message_ids: Iterable[int]) -> None:
    """Leave that the state of messages has changed."""
    add(connection, [{"kind": Change.STATE, "message_id": message_id} for message_id in sorted(message_ids)])


def add_sends(connection: sa.Connection, message_ids: Iterable[int]) -> None:
    """Leave that sends were recorded, where a target waits for what time alone brings about."""
    ids = sorted(message_ids)
    if ids and connection.scalar(_any_timed_target()):
        add(connection, [{"kind": Change.SENT, "message_id": message_id} for message_id in ids])


def move(connection: sa.Connection, *, old: int, new: int) -> None:
    """Let what waits for one message wait for another, which it has become part of."""
    if not connection.scalar(_any_target()):
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
