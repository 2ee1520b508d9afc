"""After rows were deleted: leave none of their bytes where they stood, as far as a program may.

SQLite writes its text index and its whole file anew, and empties its log. PostgreSQL's VACUUM
takes dead rows out of tables, indexes and statistics, so that no statement and no dump finds them; what it leaves
unwritten in the free space of a page is overwritten by rows to come, or at once by a rewrite (`rewrites`), which
locks each table while it lasts. Its log has the rows until the files that held them are written over (`log_states`).
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
    from pathlib import Path

    from receiver.db.engine import Database

_TABLES = ("pushes", "messages", "receipts", "replies", "attempts", "look_ups")
_TRY_SECONDS = 60.0  # for others to end what is in the way
_LOG_BYTES, _LOG_TIMES = 1_000_000, 64  # written to get out of a file of the log, at most
_STILL_SEEN = "a transaction older than the deletion is open (PID {pid}, {state}); end it, and run this again"


def list_tombstones(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """Return every number that was forgotten, by its keyed hash, oldest first."""
    return [dict(row) for row in connection.execute(sa.select(tombstones).order_by(tombstones.c.id)).mappings()]


def clean(database: Database, url: str, *, now: Callable[[], datetime], rewrites: bool = False) -> int:
    """Do it for every tombstone that waits for it; give their number. May be broken off and repeated.

    Raises StoreUnavailable where somebody is in the way.
    """
    with database.reading() as connection:
        waiting = [row["id"] for row in list_tombstones(connection) if row["cleaned_at"] is None]
    if not waiting and not rewrites:
        return 0
    if database.postgresql:
        position, at = _vacuum(database, rewrites=rewrites)
        done = {"cleaned_at": at, "wal_position": position}
    else:
        _rewrite_sqlite(database, path_of(url))
        done = {"cleaned_at": now()}
    database.write(
        lambda connection: connection.execute(sa.update(tombstones).where(tombstones.c.id.in_(waiting)).values(done))
    )
    if not database.postgresql:
        database.empty_log()  # of that note, too
    return len(waiting)


# --- SQLite ---------------------------------------------------------------------------------------------------


def _rewrite_sqlite(database: Database, path: Path) -> None:
    """Write the file anew, beside a server that has it open; its pushes go to the spool meanwhile."""
    try:
        with closing(connect(path, timeout_seconds=_TRY_SECONDS)) as connection:
            # Its segments keep what was deleted from them until they are merged.
            for index in ("reply_text", "reply_grams"):
                connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")  # noqa: S608  (ours)
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"the database could not be written anew ({error}); run this again") from error
    database.empty_log()


# --- PostgreSQL -----------------------------------------------------------------------------------------------


def _vacuum(database: Database, *, rewrites: bool) -> tuple[str, datetime]:
    """Take dead rows out of tables, indexes and statistics; give up to where, and until when, the log may hold them."""
    with database.maintaining() as connected:
        connection = connected.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("SET statement_timeout = 0")
        _await_snapshots(connection)
        # Few dead rows would be left in the indexes otherwise.
        options = "FULL, ANALYZE" if rewrites else "INDEX_CLEANUP ON, TRUNCATE OFF, ANALYZE"
        for table in _TABLES:
            connection.exec_driver_sql(f"VACUUM ({options}) {table}")
        # The planner's samples were taken anew, and the old ones are dead rows as well.
        _await_snapshots(connection)
        connection.exec_driver_sql(f"VACUUM ({'FULL' if rewrites else 'INDEX_CLEANUP ON'}) pg_catalog.pg_statistic")
        position: str = connection.exec_driver_sql("SELECT pg_current_wal_lsn()::text").scalar_one()
        _leave_log_file(connection)
        at: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()  # as its files have it
    return position, at


def _await_snapshots(connection: sa.Connection) -> None:
    """Wait until nobody's transaction is older than now: what they could still see, VACUUM leaves."""
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
    """Write on until another file of the log is written to: each is then wholly from before, or from after."""
    file = "pg_walfile_name(pg_current_wal_insert_lsn())"
    begun = connection.exec_driver_sql(f"SELECT {file}").scalar_one()
    for _ in range(_LOG_TIMES):
        connection.exec_driver_sql(f"SELECT pg_logical_emit_message(true, 'receiver', repeat(' ', {_LOG_BYTES}))::text")
        if connection.exec_driver_sql(f"SELECT {file}").scalar_one() != begun:
            return


def log_states(database: Database) -> list[tuple[Mapping[str, Any], str]]:
    """Return every tombstone, and in words whether the database's own log may still hold what was deleted with it.

    Where the files tell that it is gone, that is noted, once the one that is being written to is filled as well.
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
        return f"held: {files} files of the log are from before" if files else _GONE
    if connection.scalar(_NEEDED, {"position": position}):
        return f"held: the server still needs its log of before {position}; a checkpoint lets it go"
    return (
        "not known: grant this role pg_monitor, or have a superuser see when no file of pg_ls_waldir() is of before "
        f"{at:%Y-%m-%d %H:%M:%S} UTC, and one more is written"
    )


# A file that is set aside to be written to again keeps its time and its old bytes, and gets a name from the future. So
# the one that is being written to may have such an end, and has to be filled before it is known to be new.
_OLD_FILES = sa.text(
    "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND modification <= :cleaned_at"
)
_NEEDED = sa.text("SELECT redo_lsn <= CAST(:position AS pg_lsn) FROM pg_control_checkpoint()")
