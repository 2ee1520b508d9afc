"""The mark on a database that was moved elsewhere, and on one whose incoming copy is not complete yet.

A moved database has triggers that refuse every write, of any process and version, from the transaction on that saw the
last row copied. So no push can be committed and acknowledged there; it goes to the spool, and from there to the new
database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured
from receiver.db.tables import metadata
from receiver.db.trigger_codes import TriggerCode

if TYPE_CHECKING:
    from receiver.db.engine import Database

# On PostgreSQL, the rows by table that a copy into it has brought; the table goes with the switch.
copied_rows = sa.Table(
    "copied_rows",
    sa.MetaData(),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
)
_UNDER_WAY = (
    "a copy into this database is not complete; end it with `receiver db copy` on the embedded database that it is of, "
    "or drop this database and begin with an empty one"
)


def require_settled(database: Database) -> None:
    """Raise DatabaseMisconfigured where the database was moved elsewhere, or a copy into it is not complete."""
    with database.reading() as connection:
        if database.postgresql:
            reason = _UNDER_WAY if is_copy_unfinished(connection) else None
        else:
            reason = find_mark(connection)
    if reason is not None:
        raise DatabaseMisconfigured(reason)


def is_copy_unfinished(connection: sa.Connection) -> bool:
    """Return whether a PostgreSQL database holds a copy, and the embedded database is still the one in use."""
    return sa.inspect(connection).has_table(copied_rows.name)


def find_mark(connection: sa.Connection) -> str | None:
    """Return where an embedded database was moved to; None: it was not moved."""
    there = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'moved'").first()
    if there is None:
        return None
    message: str = connection.exec_driver_sql("SELECT message FROM moved").scalar_one()
    return message


def mark(connection: sa.Connection, place: str) -> None:
    """Refuse every write to an embedded database from the end of this transaction on."""
    what_to_do = "set RECEIVER_DATABASE_URL to it and restart (undo: receiver db copy --undo)"
    message = f"this database was moved to {place}; {what_to_do}"
    quoted = message.replace("'", "''")
    connection.exec_driver_sql(f"CREATE TABLE moved AS SELECT '{quoted}' AS message")
    for table in metadata.tables:
        for event in ("INSERT", "UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER moved_{table}_{event} BEFORE {event} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{TriggerCode.MOVED} {quoted}'); END"
            )


def remove_mark(connection: sa.Connection) -> None:
    """Let an embedded database be written to again."""
    for table in metadata.tables:
        for event in ("INSERT", "UPDATE", "DELETE"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS moved_{table}_{event}")
    connection.exec_driver_sql("DROP TABLE IF EXISTS moved")
