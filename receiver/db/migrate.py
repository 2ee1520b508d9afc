"""Upgrades the schema to this program's version.

Separate from `version`, which every command needs: the migration library takes a good part of a command's start to
load.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.db.handover import require_settled
from receiver.db.migration_ops import SESSION_SETTINGS
from receiver.db.takeover import take_over
from receiver.db.version import current_revision, describe_too_old, is_current_or_beyond

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.db.engine import Database

# Two nodes that upgrade at once take turns; the second finds nothing to do.
_UPGRADE_LOCK = 0x726376725F6462
_TURN_SECONDS = 0.1
NO_LOCK_STATE = "55P03"
_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
UPGRADE_SECONDS = 600.0  # for which locks are asked for
_PACKAGE = Path(__file__).parent.parent
_INSIDE_WHEEL = _PACKAGE / "migrations"
_SCRIPTS = _INSIDE_WHEEL if _INSIDE_WHEEL.is_dir() else _PACKAGE.parent / "migrations"
# Where migrations are looked for; a test adds some of its own.
VERSION_DIRECTORIES = [_SCRIPTS / "versions"]


def scripts() -> Config:
    """Return where the migration library finds the migrations."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(map(str, VERSION_DIRECTORIES)))
    return config


def upgrade(
    database: Database, *, say: Callable[[str], None] = lambda _: None, patience_seconds: float = UPGRADE_SECONDS
) -> None:
    """Bring the schema up to this program's version; no effect if it is there already, or newer.

    On PostgreSQL programs keep running, also those of the previous version. No lock is waited for so long that a push
    behind it would notice. A step that cannot get its lock is tried again, after growing pauses, for
    `patience_seconds`; `say` receives the holder. Then raises DatabaseUnavailable. Finished steps stay, and the next
    call continues, as it does after a kill. Raises DatabaseMisconfigured if the database was moved elsewhere, or an
    earlier program must upgrade it first.
    """
    require_settled(database)
    revision = current_revision(database)
    if is_current_or_beyond(revision):
        return
    if too_old := describe_too_old(revision):
        raise DatabaseMisconfigured(too_old)
    config = scripts()
    if not database.postgresql:

        def work(connection: sa.Connection) -> None:
            config.attributes["connection"] = connection
            take_over(connection)
            command.upgrade(config, "head")

        database.write(work)
        return
    with database.maintaining() as connection:
        config.attributes["connection"] = connection
        deadline = time.monotonic() + patience_seconds
        _await_turn(connection, deadline)
        for statement in SESSION_SETTINGS:
            connection.exec_driver_sql(statement)
        connection.commit()
        pauses = itertools.chain(_PAUSES_SECONDS, itertools.repeat(_PAUSES_SECONDS[-1]))
        while not _is_upgraded(config, connection):
            connection.rollback()
            holder = connection.scalar(_HOLDER)
            connection.rollback()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"the schema was not upgraded: {holder or 'another session'} holds a lock; end that session"
                    " (SELECT pg_terminate_backend(PID)) or wait for it, then run `receiver db upgrade` again"
                )
            if holder:
                say(f"waiting for a lock; {holder}")
            time.sleep(next(pauses) * random.uniform(0.5, 1))  # noqa: S311


def _is_upgraded(config: Config, connection: sa.Connection) -> bool:
    """Migrate as far as possible; False: a lock was not available in time."""
    try:
        take_over(connection)
        connection.commit()
        command.upgrade(config, "head")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == NO_LOCK_STATE:
            return False
        raise
    return True


def _await_turn(connection: sa.Connection, deadline: float) -> None:
    """Take the lock of upgrades.

    It polls: waiting in the queue would block the building of an index.
    """
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_UPGRADE_LOCK))):
        connection.rollback()
        if time.monotonic() > deadline:
            raise DatabaseUnavailable("another `receiver db upgrade` is running; wait for it, then run it again")
        time.sleep(_TURN_SECONDS)
    connection.commit()


# The transaction that has held a lock on a table of ours for longest.
_HOLDER = sa.text(
    """
    SELECT format('session %s (%s, %s) has held one on %s for %s s', pid,
                  coalesce(nullif(application_name, ''), usename), state,
                  string_agg(DISTINCT relation::regclass::text, ', '),
                  extract(epoch FROM clock_timestamp() - xact_start)::int)
    FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relation
    WHERE granted AND pid <> pg_backend_pid() AND relkind = 'r' AND relnamespace = current_schema()::regnamespace
    GROUP BY pid, application_name, usename, state, xact_start ORDER BY xact_start LIMIT 1
    """
)
