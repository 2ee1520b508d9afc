"""When a message last changed, as times that are committed in their order: `messages.updated_at`.

A reader that goes on from the highest stamp it has read misses nothing, however late others commit. For stamps are
given under the projector's turn alone, each later than all before it, whatever the clocks do. The projection stamps at
once what it writes. Every other change leaves UNSTAMPED, by the trigger `messages_unstamp`, so that no writer waits for
the turn; the next one stamps it, soon.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import whole_milliseconds
from receiver.db.tables import UNSTAMPED, messages, projection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from receiver.messages.queries import Filter

# As readers see it. Until a change has its stamp, the last one that was given, which is below that to come.
SHOWN = sa.case(
    (messages.c.updated_at == UNSTAMPED, sa.select(projection.c.stamped_at).scalar_subquery()),
    else_=messages.c.updated_at,
)
_UNIT = timedelta(milliseconds=1)  # as times are shown: so a reader has the whole stamp
_MARKED_AT_ONCE = 500
_NO_END = 2**63 - 1


def mark_changed(connection: sa.Connection, message_ids: Iterable[int | None]) -> None:
    """Have messages stamped whose receipts or replies have changed, and nothing of their own; None: no message."""
    ids = sorted({message_id for message_id in message_ids if message_id is not None})
    for begin in range(0, len(ids), _MARKED_AT_ONCE):
        some = messages.c.id.in_(ids[begin : begin + _MARKED_AT_ONCE])
        connection.execute(sa.update(messages).where(some).values(updated_at=UNSTAMPED))


def is_any_unstamped(connection: sa.Connection) -> bool:
    """Return whether a message has changed and has no stamp yet: a look into the index."""
    return bool(connection.scalar(_oldest()) == UNSTAMPED)


def find_last_stamp(connection: sa.Connection) -> datetime:
    """Return the last stamp that was given; every one up to it is committed."""
    found: datetime = connection.execute(sa.select(projection.c.stamped_at)).scalar_one()
    return found


def settled(connection: sa.Connection, wanted: Filter) -> Filter:
    """Return a filter, without the changes that come from now on where it asks for some.

    Else one that comes while pages are read could be on a later page, and the reader would go on from its stamp: past
    that of a row which it has read before, and which has changed since.
    """
    return replace(wanted, stamped_upto=find_last_stamp(connection)) if wanted.of_changes else wanted


def next_stamp(last: datetime, now: datetime) -> datetime:
    """Return the stamp after `last`; the present time, unless the clock was set back."""
    return max(whole_milliseconds(now), last + _UNIT)


def stamp_some(
    connection: sa.Connection,
    stamp: datetime,
    *,
    limit: int,
    after: int = 0,
    upto: int = _NO_END,
    besides: Iterable[int] = (),
) -> Sequence[int]:
    """Stamp messages that have none, at most `limit`, in the order of their ids; return these. `besides`: not those.

    Those that another transaction holds are left to the next turn. The caller has this turn, whose stamp it is.
    """
    which = {"limit": limit, "after": after, "upto": upto, "besides": list(besides)}
    ids = connection.scalars(_stamp(connection.dialect.name), which | {"stamp": stamp}).all()
    if ids:
        connection.execute(sa.update(projection).values(stamped_at=stamp))
    return ids


def find_unstamped(connection: sa.Connection, *, limit: int, after: int, besides: Iterable[int]) -> Sequence[int]:
    """Return the ids of messages that have no stamp, as `stamp_some` takes them."""
    which = {"limit": limit, "after": after, "upto": _NO_END, "besides": list(besides)}
    return connection.scalars(_due(), which).all()


@cache
def _oldest() -> Any:
    # In the order of the index: with `EXISTS`, statistics in which many are unstamped make PostgreSQL read the table.
    return sa.select(messages.c.updated_at).order_by(messages.c.updated_at, messages.c.id).limit(1)


@cache
def _due() -> sa.Select[Any]:
    due = sa.select(messages.c.id).where(
        messages.c.updated_at == UNSTAMPED,
        messages.c.id > sa.bindparam("after"),
        messages.c.id <= sa.bindparam("upto"),
        messages.c.id.not_in(sa.bindparam("besides", expanding=True)),
    )
    return due.order_by(messages.c.id).limit(sa.bindparam("limit"))


@cache
def _stamp(dialect: str) -> Any:
    due = _due().with_for_update(skip_locked=True)
    some = due.cte("due").prefix_with("MATERIALIZED") if dialect == "postgresql" else due.subquery("due")
    stamp = sa.update(messages).where(messages.c.id == some.c.id).values(updated_at=sa.bindparam("stamp"))
    return stamp.returning(messages.c.id)
