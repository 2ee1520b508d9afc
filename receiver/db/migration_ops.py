"""Operations of migrations on tables in use: pushes are committed meanwhile.

A migration is one transaction, which waits for no lock longer than a push may wait: `migrate.upgrade` tries it again.
Building an index on a table with rows ends that transaction and begins another, so it comes first in its migration, and
what precedes it must be repeatable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

if TYPE_CHECKING:
    from collections.abc import Sequence

# For the migrating session. While it waits for a lock, all others that need the table queue behind it, so it gives up
# before a push in the queue times out. Building an index waits without blocking others.
LOCK_TIMEOUT = "200ms"
_BUILD_TIMEOUT = "15min"
SESSION_SETTINGS = (f"SET lock_timeout = '{LOCK_TIMEOUT}'", "SET statement_timeout = 0")


def create_index(name: str, table: str, columns: Sequence[Any], *, unique: bool = False, **options: Any) -> None:
    """Create an index; on PostgreSQL without blocking writers, if the table has rows. Repeatable.

    Drops first what an interrupted build has left. `options` are Alembic's.
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
