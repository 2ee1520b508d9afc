"""Copies the embedded database during writes, and reads copies without changing them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import DatabaseUnavailable, ReceiverError
from receiver.db import version as schema
from receiver.db.engine import Database
from receiver.db.sqlite import connect_to_read, connect_unchanging, path_of, sqlite3
from receiver.db.tables import messages, pushes, receipts, replies

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from receiver.db.encryption import ColumnEncryption

_FAULTS_NAMED = 5
_IDS_SKIPPED = 10**10  # more ids than a week at full rate uses


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """A summary of a database."""

    schema: str | None
    rows: dict[str, int]  # by table: pushes, messages, receipts, replies
    newest_push: tuple[UUID, datetime] | None  # id and arrival


def copy_database(url: str, to: Path) -> None:
    """Copy an SQLite database into a new file as of one moment. Writers continue; their log grows meanwhile.

    Raises DatabaseUnavailable with SQLite's message.
    """
    # In one step: SQLite restarts a copy in several steps whenever another process writes between them.
    # VACUUM INTO reads a snapshot too, but takes twice as long, since it rebuilds every index.
    try:
        with (
            closing(connect_to_read(path_of(url))) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy, pages=-1)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"the database could not be copied ({error})") from error


def require_integrity(path: Path) -> None:
    """Check every page and index of a database without writers. Raises ReceiverError with the faults."""
    try:
        with closing(connect_unchanging(path)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_FAULTS_NAMED})")]
    except sqlite3.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise ReceiverError(f"the database's copy is damaged: {'; '.join(found)}")


def skip_ids(path: Path) -> None:
    """Raise the id sequences far above the existing ids, in a database that no one else has open.

    The original assigned more ids after this copy. Readers of events are past them and would miss new rows with them.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = seq + ?", (_IDS_SKIPPED,))


def open_unchanging(path: Path, encryption: ColumnEncryption | None = None) -> Database:
    """Open a database without writers, and create no file beside it."""
    name = path.absolute().as_uri().replace("%", "%25")  # a URI within a URL
    return Database(f"sqlite:///{name}?immutable=1&uri=true", encryption=encryption)


def summarize(path: Path) -> Contents:
    """Return a summary of a database without writers. Raises DatabaseUnavailable or DatabaseMisconfigured."""
    database = open_unchanging(path)
    try:
        with database.reading() as connection:
            rows = {
                table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for table in (pushes, messages, receipts, replies)
            }
            newest = connection.execute(
                sa.select(pushes.c.id, pushes.c.received_at).order_by(pushes.c.id.desc()).limit(1)
            ).first()
        return Contents(
            schema=schema.current_revision(database),
            rows=rows,
            newest_push=None if newest is None else (newest.id, newest.received_at),
        )
    finally:
        database.close()
