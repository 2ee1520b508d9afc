"""Access review: what each key and user may do, and when they last did, in one list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.auth.api_keys import list_keys
from receiver.auth.users import list_users

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

UNUSED = timedelta(days=90)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedAccess:
    """One key or user."""

    kind: str  # `key` or `user`
    name: str
    may: tuple[str, ...]  # scopes, or the role
    accounts: tuple[str, ...] | None  # None: every account
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None  # revoked, or disabled
    unused: bool  # active, but unused for 90 days


def list_access(connection: sa.Connection, now: datetime) -> list[ReviewedAccess]:
    """Return every key and user, keys first; also those that have ended."""

    def unused(last_used_at: datetime | None, created_at: datetime, *, ended: bool) -> bool:
        return not ended and now - (last_used_at or created_at) > UNUSED

    keys = [
        ReviewedAccess(
            kind="key",
            name=key.name,
            may=tuple(sorted(key.scopes)),
            accounts=key.accounts,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
            ended_at=key.revoked_at,
            unused=unused(key.last_used_at, key.created_at, ended=not key.valid(now)),
        )
        for key in list_keys(connection)
    ]
    users = [
        ReviewedAccess(
            kind="user",
            name=user.name,
            may=(user.role.value,),
            accounts=user.accounts,
            created_at=user.created_at,
            last_used_at=user.last_used_at,
            expires_at=None,
            ended_at=user.disabled_at,
            unused=unused(user.last_used_at, user.created_at, ended=user.disabled_at is not None),
        )
        for user in list_users(connection)
    ]
    return keys + users
