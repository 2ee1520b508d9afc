"""Times of notices: so that several processes, or people, report or review something once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.engine import insert
from receiver.db.sql import is_over, no_later
from receiver.db.tables import notices

if TYPE_CHECKING:
    from datetime import datetime, timedelta

QUARANTINE_SEEN = "quarantine seen"  # unreadable pushes were reviewed up to then
SELF_TEST_PASSED = "self-test passed"
TEST_MESSAGE_SENT = "test message sent"  # from the console, and the platform accepted it


def claim_notice(connection: sa.Connection, name: str, *, now: datetime, every: timedelta) -> bool:
    """Return whether this caller is the one, of all processes, to give the notice in this span of time."""
    statement = insert(connection.dialect.name, notices)
    claimed = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[notices.c.name], set_={"said_at": now}, where=is_over(notices.c.said_at, every, now)
        ).returning(notices.c.name),
        {"name": name, "said_at": now},
    )
    return claimed.one_or_none() is not None


def note(connection: sa.Connection, name: str, *, now: datetime) -> None:
    """Record that the notice was given, or reviewed, at this moment."""
    statement = insert(connection.dialect.name, notices).values(name=name, said_at=now)
    connection.execute(statement.on_conflict_do_update(index_elements=[notices.c.name], set_={"said_at": now}))


def find_noted(connection: sa.Connection, name: str, *, now: datetime) -> datetime | None:
    """Return the last time; None: never, or in the future."""
    query = sa.select(notices.c.said_at).where(notices.c.name == name, no_later(notices.c.said_at, now))
    found: datetime | None = connection.scalar(query)
    return found
