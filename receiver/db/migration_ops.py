"""What migrations do to tables that are in use: pushes go on being committed meanwhile.

A migration is one transaction, which waits for no lock longer than a push has patience: `migrate.upgrade` tries it
again. What builds an index on a table with rows ends that transaction and begins another, so it stands first in its
migration, and what stands before it may be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of the session that migrates. Whoever waits for a lock has everybody behind it who wants the table, so it is given up
# before a push in the queue loses patience. Building an index waits for others without being in anybody's way.
LOCK_TIMEOUT = "200ms"
_BUILD_TIMEOUT = "15min"
SESSION_SETTINGS = (f"SET lock_timeout = '{LOCK_TIMEOUT}'", "SET statement_timeout = 0")


def create_index(name: str, table: str, columns: Sequence[Any], *, unique: bool = False, **options: Any) -> None:
    """Make an index; on PostgreSQL while others write, where the table has rows. May be repeated.

    What a build that was broken off has left is dropped first. `options` are Alembic's.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.create_index(name, table, columns, unique=unique, **options)
        return
    if not context.as_sql and not op.get_bind().scalar(sa.select(sa.exists().select_from(sa.table(table)))):
        op.create_index(name, table, columns, unique=unique, if_not_exists=True, **options)
        return
    with context.autocommit_block():
        op.execute(f"SET lock_timeout = '{_BUILD_TIMEOUT}'")
        if not context.as_sql and op.get_bind().scalar(_BROKEN, {"name": name}):
            op.drop_index(name, table_name=table, postgresql_concurrently=True)
        op.create_index(
            name, table, columns, unique=unique, if_not_exists=True, postgresql_concurrently=True, **options
        )
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")


_BROKEN = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
