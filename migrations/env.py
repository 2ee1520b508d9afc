"""Runs migrations on the connection that `receiver db upgrade` hands over, or on RECEIVER_DATABASE_URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from receiver.config import load_settings
from receiver.store.database import Database
from receiver.store.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

# A migration may take its time, but nobody waits long behind a lock that it cannot get.
TIMEOUTS = ("SET LOCAL lock_timeout = '3s'", "SET LOCAL statement_timeout = 0")


def run(connection: Connection) -> None:
    """Migrate in the connection's own transaction: all of it or nothing."""
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            for statement in TIMEOUTS:
                context.execute(statement)
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url="postgresql+psycopg://", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        for statement in TIMEOUTS:
            context.execute(statement)
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    Database(load_settings().database_url).write(run)
