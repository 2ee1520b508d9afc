"""The rows of users and API keys, as `auth.service` changes them; it alone may import this."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.auth.api_keys import KEY_PREFIX, Scope, digest_of
from receiver.auth.users import Ending, Role, User, end_sessions_of, get_user, list_alike
from receiver.core import NameTaken, NotFound
from receiver.db.tables import api_keys, users

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


def create_user(
    connection: sa.Connection,
    *,
    name: str,
    role: Role,
    now: datetime,
    password_hash: str | None = None,
    oidc_subject: str | None = None,
    accounts: Sequence[str] | None = None,
    created_by: str | None = None,
) -> User:
    """Create a user; `accounts` None: all. Raises NameTaken, also for a name that folds to a taken one."""
    if taken := list_alike(connection, name):
        raise NameTaken(f"there is a user named {taken[0]} already; choose another name, or `receiver users password`")
    bound = sorted(accounts) if accounts is not None else None
    values = {"password_hash": password_hash, "oidc_subject": oidc_subject, "accounts": bound}
    values["created_by"] = created_by
    connection.execute(sa.insert(users).values(name=name, role=role.value, created_at=now, **values))
    return get_user(connection, name)


def change_user(
    connection: sa.Connection, name: str, *, now: datetime, because: Ending = Ending.ADMIN, **values: Any
) -> None:
    """Change columns of a user, if any, and end their sessions for that reason. Raises NotFound."""
    user = get_user(connection, name)
    if values:
        connection.execute(sa.update(users).where(users.c.id == user.id).values(**values))
    end_sessions_of(connection, user.id, now=now, because=because)


def create_key(
    connection: sa.Connection,
    *,
    name: str,
    scopes: Sequence[Scope],
    accounts: Sequence[str] | None,
    now: datetime,
    expires_at: datetime | None,
    created_by: str | None = None,
) -> str:
    """Create a key and return it, this once. Raises NameTaken."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    taken = connection.scalar(sa.select(api_keys.c.id).where(api_keys.c.name == name))
    if taken is not None:
        raise NameTaken(f"there is a key named {name} already; revoke does not free its name, choose another")
    connection.execute(
        sa.insert(api_keys).values(
            name=name,
            key_sha256=digest_of(key),
            scopes=sorted(scopes),
            accounts=sorted(accounts) if accounts else None,
            created_at=now,
            created_by=created_by,
            expires_at=expires_at,
        )
    )
    return key


def revoke_key(connection: sa.Connection, *, name: str, now: datetime) -> None:
    """End a key at once; ending it twice changes nothing. Raises NotFound."""
    known = connection.scalar(sa.select(api_keys.c.id).where(api_keys.c.name == name))
    if known is None:
        raise NotFound(f"there is no key named {name}; see `receiver keys list`")
    connection.execute(
        sa.update(api_keys).where(api_keys.c.id == known, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
