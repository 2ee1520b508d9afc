"""Own systems that hear of everything: where to, in which form, what of, and how it has gone.

A target's URL may hold a password of its own: `Target.place` is what may be shown of it.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from receiver.core import NameTaken, NotFound
from receiver.db.set_aside import read_rows
from receiver.db.tables import deliveries, targets, timers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

SECRET_PREFIX = "whsec_"  # noqa: S105  (how every one begins)
_SECRET_BYTES = 32
OLD_SECRET_LIFE = timedelta(hours=24)
PENDING_MAX = 100_000  # so many are counted; it stands for more
_REMOVED_AT_ONCE = 5000


class PayloadFormat(StrEnum):
    """How it goes to a target."""

    RAW = "raw"  # as the platform sent it
    WEBHOOKS = "webhooks"  # Standard Webhooks


class EventType(StrEnum):
    """What a target of webhooks may hear of."""

    RECEIPT_RECEIVED = "receipt.received"
    REPLY_RECEIVED = "reply.received"
    STATUS_CHANGED = "message.status_changed"
    NO_RECEIPT = "message.no_receipt"
    NOT_DELIVERED = "message.not_delivered"


class EndpointState(StrEnum):
    """How a target fares."""

    GOOD = "good"
    FAILING = "failing"  # what it last answered was no 2xx, or it answered nothing
    PAUSED = "paused"


TIMED = frozenset({EventType.NO_RECEIPT, EventType.NOT_DELIVERED})  # time alone brings them about


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEndpoint:
    """A target that is to be."""

    name: str
    url: str = field(repr=False)
    format: PayloadFormat
    events: tuple[EventType, ...] = ()  # of webhooks
    accounts: tuple[str, ...] | None = None  # None: every account
    pii: bool = False  # numbers and contents in full
    not_delivered_after_seconds: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint(NewEndpoint):
    """A target as it is."""

    id: int
    signing_secrets: tuple[str, ...] = field(repr=False)  # the newest first; of raw: none
    created_at: datetime
    paused_at: datetime | None
    paused_because: str | None
    failures: int  # one after the other
    retry_at: datetime | None  # nothing is sent before
    delivered: int
    delivered_at: datetime | None
    failed_at: datetime | None
    last_error: str | None

    @property
    def place(self) -> str:
        """Where it is, as it may be shown: without query, which may be a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"

    @property
    def state(self) -> EndpointState:
        """How it fares. Its refusals count at once, unlike in `failures`: what it refuses, others may yet be taken."""
        if self.paused_at is not None:
            return EndpointState.PAUSED
        failed_last = self.failed_at is not None and (self.delivered_at is None or self.failed_at > self.delivered_at)
        return EndpointState.FAILING if self.failures or failed_last else EndpointState.GOOD

    def hears(self, account: str) -> bool:
        """Return whether it hears of an account."""
        return self.accounts is None or account in self.accounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What waits for a target."""

    pending: int  # PENDING_MAX stands for more
    dead: int
    oldest_at: datetime | None  # of what is pending


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """Something that a target did not take for so long that it was given up."""

    id: int
    event: str
    push_id: UUID | None
    message_id: int | None
    created_at: datetime
    dead_at: datetime
    attempts: int
    last_error: str | None


def new_secret() -> str:
    """Make a secret to sign with."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def create_target(connection: sa.Connection, new: NewEndpoint, *, now: datetime) -> str | None:
    """Make a target; give the secret that its posts are signed with, this once. None: raw ones are not.

    Raises NameTaken.
    """
    if connection.scalar(sa.select(targets.c.id).where(targets.c.name == new.name)) is not None:
        raise NameTaken(f"there is a target named {new.name} already; choose another name, or remove it first")
    secret = new_secret() if new.format is PayloadFormat.WEBHOOKS else None
    connection.execute(
        sa.insert(targets).values(
            name=new.name,
            url=new.url,
            format=new.format.value,
            events=[event.value for event in new.events],
            accounts=sorted(new.accounts) if new.accounts is not None else None,
            pii=new.pii,
            not_delivered_after_seconds=new.not_delivered_after_seconds,
            timed=not TIMED.isdisjoint(new.events),
            secret=secret,
            created_at=now,
        )
    )
    return secret


def list_targets(connection: sa.Connection, accounts: tuple[str, ...] | None = None) -> list[Endpoint]:
    """Return the targets, oldest first; where `accounts` are named, only those that hear of no other."""
    found = read_rows(connection, sa.select(targets).order_by(targets.c.id), targets, as_target)
    return [target for target in found if _within(target, accounts)]


def get_target(connection: sa.Connection, name: str, accounts: tuple[str, ...] | None = None) -> Endpoint:
    """Return the target of a name, of those that `list_targets` gives. Raises NotFound."""
    row = connection.execute(sa.select(targets).where(targets.c.name == name)).one_or_none()
    if row is None or not _within(as_target(row), accounts):
        raise NotFound(f"there is no target named {name}; see `receiver webhooks list`")
    return as_target(row)


def pause_target(connection: sa.Connection, target: Endpoint, *, because: str, now: datetime) -> None:
    """Send nothing to a target; what it is to hear of is kept for it."""
    connection.execute(
        sa.update(targets)
        .where(targets.c.id == target.id, targets.c.paused_at.is_(None))
        .values(paused_at=now, paused_because=because)
    )


def resume_target(connection: sa.Connection, target: Endpoint, *, now: datetime) -> None:
    """Send to a target again, at once all that waits, whatever has failed before."""
    connection.execute(
        sa.update(targets)
        .where(targets.c.id == target.id)
        .values(paused_at=None, paused_because=None, failures=0, retry_at=None)
    )
    alive = (deliveries.c.target_id == target.id, deliveries.c.dead_at.is_(None))
    connection.execute(sa.update(deliveries).where(*alive, deliveries.c.next_at > now).values(next_at=now))


def rotate_secret(connection: sa.Connection, target: Endpoint, *, now: datetime) -> str:
    """Make a target a new secret and give it, this once. For a day, posts are signed with the old one too.

    Raises NotFound for a raw one, which has none.
    """
    if target.format is not PayloadFormat.WEBHOOKS:
        raise NotFound(f"{target.name} is sent what the platform sent, unsigned: it has no secret")
    secret = new_secret()
    connection.execute(
        sa.update(targets)
        .where(targets.c.id == target.id)
        .values(old_secret=targets.c.secret, old_secret_until=now + OLD_SECRET_LIFE, secret=secret)
    )
    return secret


def remove_target(connection: sa.Connection, target: Endpoint) -> None:
    """Remove a target: from then on nothing is made for it, and nothing sent."""
    connection.execute(sa.delete(targets).where(targets.c.id == target.id))


def remove_orphans(connection: sa.Connection, target: Endpoint) -> bool:
    """Remove some of what waited for a target that was removed. False: nothing is left."""
    removed = 0
    for table in (deliveries, timers):
        some = sa.select(table.c.id).where(table.c.target_id == target.id).limit(_REMOVED_AT_ONCE)
        removed += connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount
    return removed > 0


def find_health(connection: sa.Connection, target: Endpoint) -> Health:
    """Tell what waits for a target."""
    own = deliveries.c.target_id == target.id
    alive, dead = (own, deliveries.c.dead_at.is_(None)), (own, deliveries.c.dead_at.isnot(None))
    some = sa.select(deliveries.c.id).where(*alive).limit(PENDING_MAX).subquery()
    return Health(
        pending=connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0,
        dead=connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(*dead)) or 0,
        oldest_at=connection.scalar(
            sa.select(deliveries.c.created_at).where(*alive).order_by(deliveries.c.id).limit(1)
        ),
    )


def find_oldest(connection: sa.Connection) -> dict[str, datetime]:
    """Return since when the oldest has waited, by name of those targets for which something waits."""
    waits = (deliveries.c.target_id == targets.c.id, deliveries.c.dead_at.is_(None))
    oldest = sa.select(deliveries.c.created_at).where(*waits).order_by(deliveries.c.id).limit(1).scalar_subquery()
    rows = connection.execute(sa.select(targets.c.name, oldest))
    return {name: oldest_at for name, oldest_at in rows if oldest_at is not None}


def list_dead(
    connection: sa.Connection, target: Endpoint, *, limit: int, before: int | None = None
) -> list[DeadLetter]:
    """Return a page of what was given up, newest first by id."""
    query = sa.select(deliveries).where(deliveries.c.target_id == target.id, deliveries.c.dead_at.isnot(None))
    if before is not None:
        query = query.where(deliveries.c.id < before)
    names = [name for name in DeadLetter.__slots__ if name != "__weakref__"]
    rows = connection.execute(query.order_by(deliveries.c.id.desc()).limit(limit))
    return [DeadLetter(**{name: getattr(row, name) for name in names}) for row in rows]


def replay_dead(connection: sa.Connection, target: Endpoint, *, now: datetime, ids: Sequence[int] | None = None) -> int:
    """Let what was given up be sent again, by its id or all of it; give how many."""
    dead = [deliveries.c.target_id == target.id, deliveries.c.dead_at.isnot(None)]
    if ids is not None:
        dead.append(deliveries.c.id.in_(ids))
    again = {"dead_at": None, "failing_since": None, "attempts": 0, "next_at": now}
    return connection.execute(sa.update(deliveries).where(*dead).values(again)).rowcount


def as_target(row: Any, *, now: datetime | None = None) -> Endpoint:
    """Return a row of `targets` as a value. `now`: an old secret that has run out by then is not among its secrets."""
    known = {event.value for event in EventType}  # a newer version may have made it
    old = row.old_secret if row.old_secret and (now is None or row.old_secret_until > now) else None
    return Endpoint(
        id=row.id,
        name=row.name,
        url=row.url,
        format=PayloadFormat(row.format),
        events=tuple(EventType(event) for event in row.events if event in known),
        accounts=tuple(row.accounts) if row.accounts is not None else None,
        pii=row.pii,
        not_delivered_after_seconds=row.not_delivered_after_seconds,
        signing_secrets=tuple(secret for secret in (row.secret, old) if secret),
        created_at=row.created_at,
        paused_at=row.paused_at,
        paused_because=row.paused_because,
        failures=row.failures,
        retry_at=row.retry_at,
        delivered=row.delivered,
        delivered_at=row.delivered_at,
        failed_at=row.failed_at,
        last_error=row.last_error,
    )


def _within(target: Endpoint, accounts: tuple[str, ...] | None) -> bool:
    return accounts is None or (target.accounts is not None and set(target.accounts) <= set(accounts))
