"""The schema's version: read it, refuse to run on an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured
from receiver.db.handover import require_settled

if TYPE_CHECKING:
    from receiver.db.engine import Database

# What this program was written for: the newest of the migrations, whose numbers go up one by one.
VERSION = "0028"
FIRST = "0028"
# The last schema of the builds before the first release, and the build that upgrades to it. `db.takeover` makes it the
# first of the migrations, which are numbered after it.
BEFORE_FIRST_RELEASE = "0027"
LAST_BUILD_BEFORE = "230e7d4f"


def is_known(revision: str) -> bool:
    """Return whether this program knows that version: its own or an older one."""
    return revision <= VERSION


def current_revision(database: Database) -> str | None:
    """Return the database's schema version; None: it is empty."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def is_current_or_beyond(revision: str | None) -> bool:
    """Return whether this program can run on that version."""
    return revision is not None and revision >= VERSION


def describe_too_old(revision: str | None) -> str | None:
    """Return why this program cannot upgrade that version; None: it can."""
    if revision is None or revision >= BEFORE_FIRST_RELEASE:
        return None
    return (
        f"the database's schema {revision} was made by a build before 0.1.0;"
        f" upgrade it with build {LAST_BUILD_BEFORE} first (receiver db upgrade), then with this one"
    )


def require_schema(database: Database) -> None:
    """Raise DatabaseMisconfigured if the schema is missing or older, or the database was moved elsewhere.

    A newer one passes: the other half of an upgrade.
    """
    require_settled(database)
    current = current_revision(database)
    if current is None:
        raise DatabaseMisconfigured("the database is empty; run `receiver db upgrade`")
    if too_old := describe_too_old(current):
        raise DatabaseMisconfigured(too_old)
    if not is_current_or_beyond(current):
        raise DatabaseMisconfigured("the database's schema is older than this program; run `receiver db upgrade`")
