"""When a message last changed, as times that are committed in their order: `messages.updated_at`.

A reader that goes on from the highest stamp it has read misses nothing, however late others commit. For stamps are
given under the projector's turn alone, each later than all before it, whatever the clocks do. The projection stamps at
once what it writes. Every other change leaves UNSTAMPED, by a trigger, so that no writer waits for the turn; the next
one stamps it, soon.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import whole_milliseconds, write_time
from receiver.db.tables import UNSTAMPED, messages, projection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from receiver.messages.queries import Filter

# What readers see of a message, and what that follows from. Not the number: encrypting it changes nothing for them.
_SHOWN = (
    *("account", "task_id", "template_id", "reference", "sent_at", "recorded_at"),
    *("status", "reported_at", "seen", "send_state", "error_message", "verified_at"),
)
# As readers see it. Until a change has its stamp, the last one that was given, which is below that to come.
SHOWN = sa.case(
    (messages.c.updated_at == UNSTAMPED, sa.select(projection.c.stamped_at).scalar_subquery()),
    else_=messages.c.updated_at,
)
_UNIT = timedelta(milliseconds=1)  # as times are shown: so a reader has the whole stamp
_TRIGGER = "messages_unstamp"
_MARKED_AT_ONCE = 500


def create_statements(dialect: str) -> Iterator[str]:
    """Return the statements that make the trigger, in place of one that is there."""
    yield from drop_statements(dialect)
    event = f"UPDATE OF {', '.join(_SHOWN)} ON messages FOR EACH ROW"
    stamped = "new.updated_at = old.updated_at AND old.updated_at <>"
    if dialect == "postgresql":
        unstamped = f"'{UNSTAMPED.isoformat(sep=' ')}'"
        yield (
            f"CREATE OR REPLACE FUNCTION {_TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN NEW.updated_at := {unstamped}; RETURN NEW; END $$"
        )
        yield f"CREATE TRIGGER {_TRIGGER} BEFORE {event} WHEN ({stamped} {unstamped}) EXECUTE FUNCTION {_TRIGGER}()"
    else:
        unstamped = f"'{write_time(UNSTAMPED)}'"
        change = f"UPDATE messages SET updated_at = {unstamped} WHERE id = new.id"  # noqa: S608
        yield f"CREATE TRIGGER {_TRIGGER} AFTER {event} WHEN {stamped} {unstamped} BEGIN {change}; END"


def drop_statements(dialect: str) -> Iterator[str]:
    """Return the statements that remove the trigger where it is."""
    yield f"DROP TRIGGER IF EXISTS {_TRIGGER}{' ON messages' if dialect == 'postgresql' else ''}"


def mark_changed(connection: sa.Connection, message_ids: Iterable[int | None]) -> None:
    """Have messages stamped whose receipts or replies have changed, and nothing of their own; None: no message."""
    ids = sorted({message_id for message_id in message_ids if message_id is not None})
    for begin in range(0, len(ids), _MARKED_AT_ONCE):
        some = messages.c.id.in_(ids[begin : begin + _MARKED_AT_ONCE])
        connection.execute(sa.update(messages).where(some).values(updated_at=UNSTAMPED))


def is_any_unstamped(connection: sa.Connection) -> bool:
    """Return whether a message has changed and has no stamp yet: a look into the index."""
    return bool(connection.scalar(_any_unstamped()))


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


def stamp_some(connection: sa.Connection, stamp: datetime, *, limit: int) -> int:
    """Stamp messages that have none, at most `limit`, in the order of their ids; return how many.

    Those that another transaction holds are left to the next turn. The caller has this turn, whose stamp it is.
    """
    count: int = connection.execute(_stamp(connection.dialect.name), {"stamp": stamp, "limit": limit}).rowcount
    if count:
        connection.execute(sa.update(projection).values(stamped_at=stamp))
    return count


@cache
def _any_unstamped() -> Any:
    return sa.select(sa.exists().where(messages.c.updated_at == UNSTAMPED))


@cache
def _stamp(dialect: str) -> Any:
    due = sa.select(messages.c.id).where(messages.c.updated_at == UNSTAMPED).order_by(messages.c.id)
    due = due.limit(sa.bindparam("limit")).with_for_update(skip_locked=True)
    some = due.cte("due").prefix_with("MATERIALIZED") if dialect == "postgresql" else due.subquery("due")
    return sa.update(messages).where(messages.c.id == some.c.id).values(updated_at=sa.bindparam("stamp"))
