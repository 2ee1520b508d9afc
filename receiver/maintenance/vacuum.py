"""Removes the bytes of deleted rows from the database files, as far as a program can.

SQLite: the text index and the whole file are rewritten, and the log is emptied. PostgreSQL: VACUUM removes dead rows
from tables, indexes and statistics, so that no statement and no dump finds them. Bytes in the free space of a page stay
until later rows overwrite them, or until a rewrite (`rewrites`), which locks each table. The write-ahead log has the
rows until its files are recycled (`log_states`).
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DatabaseUnavailable
from receiver.db.sqlite import connect, path_of, sqlite3
from receiver.db.tables import tombstones

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from receiver.db.engine import Database

_TABLES = ("pushes", "messages", "receipts", "replies", "attempts", "look_ups", "notes")
_TRY_SECONDS = 60.0  # wait for other transactions to end
_LOG_BYTES, _LOG_TIMES = 1_000_000, 64  # written at most to fill a file of the log
_STILL_SEEN = "an open transaction is older than the deletion (PID {pid}, {state}); end it and run this again"


def list_tombstones(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """Return the tombstones of erased numbers, by keyed hash, oldest first."""
    return [dict(row) for row in connection.execute(sa.select(tombstones).order_by(tombstones.c.id)).mappings()]


def clean(database: Database, *, now: Callable[[], datetime], rewrites: bool = False) -> int:
    """Clean the files for every pending tombstone and return their number. Can be interrupted and repeated.

    Raises DatabaseUnavailable if another transaction or connection blocks it.
    """
    with database.reading() as connection:
        waiting = [row["id"] for row in list_tombstones(connection) if row["cleaned_at"] is None]
    if not waiting and not rewrites:
        return 0
    if database.postgresql:
        position, at = _vacuum(database, rewrites=rewrites)
        done = {"cleaned_at": at, "wal_position": position}
    else:
        rewrite_sqlite(database)
        done = {"cleaned_at": now()}
    database.write(
        lambda connection: connection.execute(sa.update(tombstones).where(tombstones.c.id.in_(waiting)).values(done))
    )
    if not database.postgresql:
        database.empty_log()  # also of this update
    return len(waiting)


# --- SQLite ---------------------------------------------------------------------------------------------------


def rewrite_sqlite(database: Database, *, wait_seconds: float = _TRY_SECONDS) -> None:
    """Rewrite the file without bytes of deleted rows. Raises DatabaseUnavailable.

    A server may have it open; its pushes go to the spool meanwhile.
    """
    try:
        with closing(connect(path_of(database.engine.url), timeout_seconds=wait_seconds)) as connection:
            # The index keeps deleted text until its segments are merged.
            for index in ("reply_text", "reply_grams"):
                connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")  # noqa: S608  (ours)
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"the database could not be rewritten ({error}); run this again") from error
    database.empty_log()


# --- PostgreSQL -----------------------------------------------------------------------------------------------


def _vacuum(database: Database, *, rewrites: bool) -> tuple[str, datetime]:
    """Vacuum tables, indexes and statistics; return the log position and time up to which the log may have the rows."""
    with database.maintaining() as connected:
        connection = connected.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("SET statement_timeout = 0")
        _await_snapshots(connection)
        # Without INDEX_CLEANUP, a few dead rows would stay in the indexes.
        options = "FULL, ANALYZE" if rewrites else "INDEX_CLEANUP ON, TRUNCATE OFF, ANALYZE"
        for table in _TABLES:
            connection.exec_driver_sql(f"VACUUM ({options}) {table}")
        # ANALYZE has replaced the planner's samples; the old ones are dead rows too.
        _await_snapshots(connection)
        connection.exec_driver_sql(f"VACUUM ({'FULL' if rewrites else 'INDEX_CLEANUP ON'}) pg_catalog.pg_statistic")
        position: str = connection.exec_driver_sql("SELECT pg_current_wal_lsn()::text").scalar_one()
        _leave_log_file(connection)
        at: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()  # the clock of its files
    return position, at


def _await_snapshots(connection: sa.Connection) -> None:
    """Wait until every older transaction has ended: VACUUM keeps rows that one could still see."""
    deadline = time.monotonic() + _TRY_SECONDS
    xid = connection.exec_driver_sql("SELECT mod(pg_current_xact_id()::text::bigint, 4294967296)").scalar_one()
    while True:
        row = connection.execute(_OLDER, {"xid": str(xid)}).first()
        if row is None:
            return
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(_STILL_SEEN.format(pid=row.pid, state=row.state))
        time.sleep(0.05)


_OLDER = sa.text(
    """
    SELECT pid, coalesce(state, backend_type) AS state FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND age(backend_xmin) > age(CAST(:xid AS xid))
      AND (datname IS NULL OR datname = current_database()) LIMIT 1
    """
)


def _leave_log_file(connection: sa.Connection) -> None:
    """Write until the log switches to another file, so that each file is entirely from before or after."""
    file = "pg_walfile_name(pg_current_wal_insert_lsn())"
    begun = connection.exec_driver_sql(f"SELECT {file}").scalar_one()
    for _ in range(_LOG_TIMES):
        connection.exec_driver_sql(f"SELECT pg_logical_emit_message(true, 'receiver', repeat(' ', {_LOG_BYTES}))::text")
        if connection.exec_driver_sql(f"SELECT {file}").scalar_one() != begun:
            return


def log_states(database: Database) -> list[tuple[Mapping[str, Any], str]]:
    """Return every tombstone with a text that says whether the database's log may still have the deleted rows.

    If the files show that they are gone, this is stored after the current file is filled too.
    """
    with database.reading() as connection:
        rows = list_tombstones(connection)
        if not database.postgresql:
            return [(row, _GONE if row["cleaned_at"] else _NOT_CLEANED) for row in rows]
        may_look = bool(connection.scalar(sa.text("SELECT has_function_privilege('pg_ls_waldir()', 'execute')")))
        states = [_state_of(connection, row, may_look=may_look) for row in rows]
    gone = [row["id"] for row, state in zip(rows, states, strict=True) if state == _GONE and row["wal_position"]]
    if gone:
        with database.maintaining() as connected:
            _leave_log_file(connected.execution_options(isolation_level="AUTOCOMMIT"))
        noted = sa.update(tombstones).where(tombstones.c.id.in_(gone)).values(wal_position=None)
        database.write(lambda connection: connection.execute(noted))
    return list(zip(rows, states, strict=True))


_NOT_CLEANED = "not cleaned yet: run `receiver erase` for that number again"
_GONE = "gone"


def _state_of(connection: sa.Connection, row: Mapping[str, Any], *, may_look: bool) -> str:
    position, at = row["wal_position"], row["cleaned_at"]
    if at is None:
        return _NOT_CLEANED
    if position is None:
        return _GONE
    if may_look:
        files = connection.scalar(_OLD_FILES, {"cleaned_at": at})
        return f"held: {files} files of the log are older than the deletion" if files else _GONE
    if connection.scalar(_NEEDED, {"position": position}):
        return f"held: the server still needs its log before {position}; a checkpoint releases it"
    return (
        "unknown: grant this role pg_monitor, or have a superuser check that pg_ls_waldir() has no file older than "
        f"{at:%Y-%m-%d %H:%M:%S} UTC, and one newer file"
    )


# A recycled file keeps its time and old bytes under a future name. So the current file may end in old bytes until it is
# filled.
_OLD_FILES = sa.text(
    "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND modification <= :cleaned_at"
)
_NEEDED = sa.text("SELECT redo_lsn <= CAST(:position AS pg_lsn) FROM pg_control_checkpoint()")
