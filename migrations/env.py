"""Runs migrations on the connection that `receiver db upgrade` hands over, or on RECEIVER_DATABASE_URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from receiver.config import load_settings
from receiver.db.engine import Database
from receiver.db.migration_ops import SESSION_SETTINGS
from receiver.db.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection


def run(connection: Connection) -> None:
    """Migrate: each migration in a transaction of its own, or all of them in the one that the connection has begun."""
    context.configure(
        connection=connection, target_metadata=metadata, compare_server_default=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(
        url="postgresql+psycopg://", target_metadata=metadata, literal_binds=True, transaction_per_migration=True
    )
    for statement in SESSION_SETTINGS:
        context.execute(statement)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    database = Database(load_settings().database_url)
    if database.postgresql:
        with database.maintaining() as connection:
            run(connection)
    else:
        database.write(run)
