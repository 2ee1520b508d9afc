"""The schema's version: bring it up to date, tell it, refuse to run on an older one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from receiver.errors import StoreUnfit
from receiver.store.moved import require_settled

if TYPE_CHECKING:
    from receiver.store.database import Database

# Two nodes that upgrade at once take turns; the second finds nothing to do.
_UPGRADE_LOCK = 0x726376725F6462
_PACKAGE = Path(__file__).parent.parent


def _config() -> Config:
    inside_wheel = _PACKAGE / "migrations"
    config = Config()
    config.set_main_option(
        "script_location", str(inside_wheel if inside_wheel.is_dir() else _PACKAGE.parent / "migrations")
    )
    return config


def head_revision() -> str:
    """The schema version that this program was written for."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def is_known(revision: str) -> bool:
    """Whether this program knows that version: it is its own or an older one."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def current_revision(database: Database) -> str | None:
    """The schema version that the database has, None for an empty one."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> None:
    """Bring the schema up to this program's version; nothing happens if it is there already.

    Raises StoreUnfit where the database was moved elsewhere.
    """
    require_settled(database)
    config = _config()

    def work(connection: sa.Connection) -> None:
        if database.postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    database.write(work)


def require_schema(database: Database) -> None:
    """Raise StoreUnfit where the schema is missing or older, or the database was moved elsewhere.

    A newer one passes: the other half of an upgrade.
    """
    require_settled(database)
    current = current_revision(database)
    if current == head_revision():
        return
    if current is None:
        raise StoreUnfit("the database is empty; run `receiver db upgrade`")
    if is_known(current):
        raise StoreUnfit("the database's schema is older than this program; run `receiver db upgrade`")
