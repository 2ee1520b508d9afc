"""Last use of each push secret over all nodes. Stored under a keyed digest: no secret is in the database."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.engine import insert
from receiver.db.shared_secrets import shared_secret
from receiver.db.tables import push_secrets, shared_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from receiver.db.engine import Database

_KEY = "push secrets"
_PATIENCE_SECONDS = 1.0  # the drainer thread that saves uses must not wait long
UNUSED_FOR = timedelta(days=7)  # an unused retiring secret can be removed then


@dataclass(frozen=True, kw_only=True, slots=True)
class NewUses:
    """Uses of one secret that one process has counted since it last saved them."""

    account: str
    secret: str = field(repr=False)
    pushes: int
    last_used_at: datetime | None  # None: not at all


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretUse:
    """A configured secret by its place, and its use over all nodes."""

    account: str
    place: int  # among its account's: 0 is the active one, the others retire
    known_since: datetime | None  # None: no node has counted yet
    last_used_at: datetime | None
    pushes: int

    @property
    def name(self) -> str:
        """Label for display; never the secret itself."""
        return "active" if self.place == 0 else f"retiring {self.place}"

    def can_go(self, now: datetime) -> bool:
        """Return whether it is retiring and has been unused long enough to be removed."""
        since = self.last_used_at or self.known_since
        return self.place > 0 and since is not None and now - since >= UNUSED_FOR


def write_uses(database: Database, uses: Sequence[NewUses], *, now: Callable[[], datetime]) -> None:
    """Commit the uses that one process has counted. Raises DatabaseUnavailable or DatabaseMisconfigured."""
    database.write(lambda connection: save_uses(connection, uses, now=now()), patience_seconds=_PATIENCE_SECONDS)


def save_uses(connection: sa.Connection, uses: Sequence[NewUses], *, now: datetime) -> None:
    """Add the uses that one process has counted; unknown secrets are registered."""
    key = shared_secret(connection, _KEY)
    statement = insert(connection.dialect.name, push_secrets)
    column, new = push_secrets.c, statement.excluded
    # Processes may save in any order.
    last = sa.case(
        (new.last_used_at.is_(None), column.last_used_at),
        (column.last_used_at > new.last_used_at, column.last_used_at),
        else_=new.last_used_at,
    )
    added = statement.on_conflict_do_update(
        index_elements=[column.secret_hmac], set_={"last_used_at": last, "pushes": column.pushes + new.pushes}
    )
    by_digest = {_digest(key, use.account, use.secret): use for use in uses}
    connection.execute(
        added,
        [
            {
                "secret_hmac": digest,
                "account": use.account,
                "known_since": now,
                "last_used_at": use.last_used_at,
                "pushes": use.pushes,
            }
            for digest, use in sorted(
                by_digest.items(), key=itemgetter(0)
            )  # one order for all processes, against deadlocks
        ],
    )


def find_uses(connection: sa.Connection, tokens: Sequence[tuple[str, str]]) -> list[SecretUse]:
    """Return the use of each (account, secret), in the given order."""
    key = connection.scalar(sa.select(shared_secrets.c.value).where(shared_secrets.c.name == _KEY)) or b""
    digests = [_digest(key, account, secret) for account, secret in tokens]
    rows = connection.execute(sa.select(push_secrets).where(push_secrets.c.secret_hmac.in_(digests)))
    known = {bytes(row.secret_hmac): row for row in rows}
    places: dict[str, int] = {}
    found = []
    for (account, _), digest in zip(tokens, digests, strict=True):
        row = known.get(digest)
        places[account] = place = places.get(account, -1) + 1
        found.append(
            SecretUse(
                account=account,
                place=place,
                known_since=row.known_since if row else None,
                last_used_at=row.last_used_at if row else None,
                pushes=row.pushes if row else 0,
            )
        )
    return found


def _digest(key: bytes, account: str, secret: str) -> bytes:
    return hmac.digest(key, f"{account}:{secret}".encode(), hashlib.sha256)
