"""The secrets that all nodes of a database share, each made by the first to ask."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.engine import Database, RowRejected
from receiver.db.tables import shared_secrets

if TYPE_CHECKING:
    from receiver.db.availability import CircuitBreaker

_BYTES = 32


class SharedSecrets:
    """The shared secrets, each read from the database once. Safe for many threads."""

    def __init__(self, database: Database, *, availability: CircuitBreaker) -> None:
        self._database = database
        self._availability = availability
        self._read: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        """Return a shared secret. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        if name not in self._read:
            with self._availability.tracking():
                self._read[name] = self._database.write(lambda connection: shared_secret(connection, name))
        return self._read[name]


def shared_secret(connection: sa.Connection, name: str) -> bytes:
    """Return a shared secret, made if it is missing. Raises RowRejected if it cannot be stored."""
    query = sa.select(shared_secrets.c.value).where(shared_secrets.c.name == name)
    value = connection.scalar(query)
    if value is None:
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(shared_secrets).values(name=name, value=secrets.token_bytes(_BYTES)))
        except sa.exc.IntegrityError:  # another node was first
            pass
        value = connection.scalar(query)
    if not isinstance(value, bytes):
        raise RowRejected(f"the shared secret {name} could not be stored")
    return value
