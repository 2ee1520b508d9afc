"""Takes over a database that the last build before the first release has upgraded: its schema becomes the first one.

Separate from the migrations, of which the first makes a schema and changes none.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from receiver.core import DatabaseMisconfigured
from receiver.db.tables import metadata
from receiver.db.version import BEFORE_FIRST_RELEASE, FIRST, LAST_BUILD_BEFORE

if TYPE_CHECKING:
    from collections.abc import Iterator

# What an operator has added changes nothing for this program.
_ADDED = ("remove_table", "remove_index", "remove_constraint", "remove_comment", "remove_table_comment")


def take_over(connection: sa.Connection) -> None:
    """Stamp a database of that build with the first migration; no effect on any other.

    Raises DatabaseMisconfigured, and changes nothing, if tables, columns or indexes are not those that the build makes.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return
    if connection.scalar(sa.text("SELECT version_num FROM alembic_version")) != BEFORE_FIRST_RELEASE:
        return
    if different := sorted(_differences(connection)):
        raise DatabaseMisconfigured(
            f"the database's schema {BEFORE_FIRST_RELEASE} is not the one that build {LAST_BUILD_BEFORE} makes:"
            f" {', '.join(different)}"
        )
    stamp = sa.text("UPDATE alembic_version SET version_num = :first")
    connection.execute(stamp, {"first": FIRST})


def _differences(connection: sa.Connection) -> Iterator[str]:
    postgresql = connection.dialect.name == "postgresql"
    options = {"compare_type": True, "compare_server_default": postgresql}
    with warnings.catch_warnings():
        # An index of SQLite on an expression cannot be reflected: it is looked for by its name.
        warnings.simplefilter("ignore")
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    if not postgresql:
        there = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars())
        declared = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
        yield from (f"add_index {name}" for name in declared - there)
    for difference in found:
        # One that is there or missing, or the changes of one column.
        name, *about = difference if isinstance(difference, tuple) else difference[0]
        if name not in _ADDED:
            yield f"{name} {_named(about)}"


def _named(about: list[Any]) -> str:
    """Return the table and column, or the index, of a difference."""
    names = [part if isinstance(part, str) else getattr(part, "name", "") for part in about[:3]]
    return ".".join(name for name in names if name)
