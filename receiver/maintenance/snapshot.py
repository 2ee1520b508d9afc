"""The embedded database's file, copied while others write to it, and looked at without a trace."""

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
_IDS_SKIPPED = 10**10  # more than are given out in a week at full rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a database holds, in short."""

    schema: str | None
    rows: dict[str, int]  # by table, those of what was pushed and sent
    newest_push: tuple[UUID, datetime] | None  # id and time of receiving


def copy_database(url: str, to: Path) -> None:
    """Copy an SQLite database into a new file as of one moment; writers go on meanwhile, and their log grows.

    Raises StoreUnavailable with SQLite's own words.
    """
    # In one step: SQLite begins a copy in several steps again whenever another process has written between two.
    # VACUUM INTO reads such a snapshot as well and takes twice as long, since it builds every index anew.
    try:
        with (
            closing(connect_to_read(path_of(url))) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy, pages=-1)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"the database could not be copied ({error})") from error


def require_integrity(path: Path) -> None:
    """Read every page and index of a database that nobody writes to. Raises ReceiverError naming what is wrong."""
    try:
        with closing(connect_unchanging(path)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_FAULTS_NAMED})")]
    except sqlite3.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise ReceiverError(f"the database's copy is not whole: {'; '.join(found)}")


def skip_ids(path: Path) -> None:
    """Let new rows begin far above the ids that are there, in a database that nobody else has open.

    It gave out more ids after this copy was made. Whoever reads events is past them, and would pass over new ones.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = seq + ?", (_IDS_SKIPPED,))


def open_unchanging(path: Path, sealing: ColumnEncryption | None = None) -> Database:
    """Open a database that nobody writes to, so that no file is made beside it."""
    name = path.absolute().as_uri().replace("%", "%25")  # a URI within a URL
    return Database(f"sqlite:///{name}?immutable=1&uri=true", sealing=sealing)


def look_into(path: Path) -> Contents:
    """Tell what a database holds that nobody writes to. Raises StoreUnavailable or StoreUnfit."""
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
