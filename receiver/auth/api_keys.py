"""API keys: their scopes and accounts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.tables import api_keys
from receiver.translations import N_

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

KEY_PREFIX = "rcv_"
USED_EVERY = timedelta(minutes=1)  # how exactly it is known when a key was last used, at a write each


class Scope(StrEnum):
    """A permission of a key."""

    READ = "read"
    MESSAGES_WRITE = "messages:write"
    MESSAGES_SEND = "messages:send"
    REPORTS = "reports"
    EXPORT = "export"
    PUSHES = "pushes"
    WEBHOOKS = "webhooks"
    PII = "pii"
    AUDIT = "audit"


# For people: console, command line and reference.
SCOPE_TEXTS: Mapping[Scope, str] = {
    Scope.READ: N_("Read messages, receipts, replies and events; numbers are masked."),
    Scope.MESSAGES_WRITE: N_("Record sends, so that pushes are matched with them."),
    Scope.MESSAGES_SEND: N_("Send verification codes, which costs credit, and read the balance."),
    Scope.REPORTS: N_("Read reports: counts and rates, without single messages."),
    Scope.EXPORT: N_("Take messages, receipts and replies away as files."),
    Scope.PUSHES: N_("Read the journal of pushes, and replay pushes."),
    Scope.WEBHOOKS: N_("Create, change and remove webhooks, which send data elsewhere."),
    Scope.PII: N_("See full phone numbers, and pushes as they came, wherever another scope lets the key read."),
    Scope.AUDIT: N_("Read the audit log."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A stored key: never the key itself, which is shown once."""

    id: int
    name: str
    scopes: frozenset[Scope]
    accounts: tuple[str, ...] | None  # None: every account
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    created_by: str | None  # as in the audit; None: before that was kept
    last_used_at: datetime | None  # as exactly as USED_EVERY

    def valid(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def find_key(connection: sa.Connection, key: str) -> ApiKey | None:
    """Return the stored key, valid or not; None: unknown.

    Found by its digest, so comparisons leak no timing.
    """
    row = connection.execute(sa.select(api_keys).where(api_keys.c.key_sha256 == digest_of(key))).one_or_none()
    return _api_key(row) if row else None


def list_valid_digests(connection: sa.Connection, now: datetime) -> frozenset[bytes]:
    """Return the digests of all valid keys, so that wrong ones can be detected without a query each."""
    column = api_keys.c
    valid = (column.revoked_at.is_(None), sa.or_(column.expires_at.is_(None), column.expires_at > now))
    return frozenset(bytes(digest) for digest in connection.scalars(sa.select(column.key_sha256).where(*valid)))


def list_keys(connection: sa.Connection) -> list[ApiKey]:
    """Return every key, oldest first."""
    return [_api_key(row) for row in connection.execute(sa.select(api_keys).order_by(api_keys.c.id))]


def note_used(connection: sa.Connection, key_id: int, now: datetime) -> None:
    """Record that a key was used."""
    connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now))


def digest_of(key: str) -> bytes:
    """Return the stored digest of a key."""
    # A plain hash will do: a key is 256 random bits, there is nothing to guess.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _api_key(row: Any) -> ApiKey:
    known = {scope.value for scope in Scope}
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes if scope in known),
        accounts=tuple(row.accounts) if row.accounts is not None else None,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
