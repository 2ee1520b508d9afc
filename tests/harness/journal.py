"""Pushes put into a database as a receiver does: appended to the journal, then projected."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from receiver.db.encryption import cipher_of
from receiver.messages import journal, projection
from receiver.messages.projector import catch_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

    from receiver.core import Push
    from receiver.db.engine import Database


def save_pushes(database: Database, batch: Sequence[Push]) -> None:
    """Append pushes, and project them."""
    journal.append(database, batch)
    catch_up(database)


def save_within(connection: sa.Connection, batch: Sequence[Push]) -> None:
    """Do what `save_pushes` does, in a transaction of the caller."""
    _append(connection, batch)
    projection.catch_up(connection)


@contextmanager
def appending(database: Database, batch: Sequence[Push]) -> Iterator[None]:
    """Append pushes in a transaction that is committed at the end of the block; not projected."""
    with database.engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.deadline = None
        _append(connection, batch)
        yield


def _append(connection: sa.Connection, batch: Sequence[Push]) -> None:
    append = journal._append_postgresql if connection.dialect.name == "postgresql" else journal._append_sqlite
    rows = [journal._values(push, cipher_of(connection.dialect)) for push in batch]
    append(connection.connection.driver_connection, rows)
