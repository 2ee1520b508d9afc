"""The rows of webhook endpoints, as `webhooks.service` changes them; it alone may import this."""

from __future__ import annotations

import base64
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import NameTaken, NotFound
from receiver.db.tables import deliveries, delivery_history, targets, timers
from receiver.webhooks.endpoints import SECRET_PREFIX, TIMED, Endpoint, NewEndpoint, PayloadFormat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

OLD_SECRET_LIFE = timedelta(hours=24)
_SECRET_BYTES = 32
_REMOVED_AT_ONCE = 5000


def create_endpoint(connection: sa.Connection, new: NewEndpoint, *, now: datetime) -> str | None:
    """Create an endpoint and return its signing secret, only this once. None: a raw endpoint has none.

    Raises NameTaken.
    """
    if connection.scalar(sa.select(targets.c.id).where(targets.c.name == new.name)) is not None:
        raise NameTaken(f"a webhook endpoint named {new.name} exists already; choose another name, or remove it first")
    secret = new_secret() if new.format is PayloadFormat.WEBHOOKS else None
    connection.execute(
        sa.insert(targets).values(
            name=new.name,
            format=new.format.value,
            secret=secret,
            created_at=now,
            **_settings(new),
        )
    )
    return secret


def update_endpoint(connection: sa.Connection, target: Endpoint, *, new: NewEndpoint, now: datetime) -> None:
    """Change the settings of an endpoint that differ from `new`. With a new URL all pending deliveries are due at once.

    Raises NotFound if it was removed meanwhile.
    """
    before, after = _settings(target), _settings(new)
    values = {name: value for name, value in after.items() if value != before[name]}
    moved = not values.keys().isdisjoint({"url", "headers"})
    own = targets.c.id == target.id
    if connection.execute(sa.update(targets).where(own).values(values or {"name": new.name})).rowcount == 0:
        raise NotFound(f"the webhook endpoint {target.name} was removed meanwhile")
    if moved:
        _make_due(connection, target, now=now)


def _settings(endpoint: NewEndpoint) -> dict[str, Any]:
    return {
        "url": endpoint.url,
        "events": [event.value for event in endpoint.events],
        "accounts": sorted(endpoint.accounts) if endpoint.accounts is not None else None,
        "pii": endpoint.pii,
        "not_delivered_after_seconds": endpoint.not_delivered_after_seconds,
        "headers": dict(endpoint.headers) or None,
        "timed": not TIMED.isdisjoint(endpoint.events),
    }


def new_secret() -> str:
    """Return a new signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def pause_endpoint(connection: sa.Connection, target: Endpoint, *, because: str, now: datetime) -> None:
    """Pause an endpoint; its deliveries stay pending."""
    connection.execute(
        sa.update(targets)
        .where(targets.c.id == target.id, targets.c.paused_at.is_(None))
        .values(paused_at=now, paused_because=because)
    )


def resume_endpoint(connection: sa.Connection, target: Endpoint, *, now: datetime) -> None:
    """Resume an endpoint; all pending deliveries are due at once."""
    resumed = {"paused_at": None, "paused_because": None}
    connection.execute(sa.update(targets).where(targets.c.id == target.id).values(resumed))
    _make_due(connection, target, now=now)


def _make_due(connection: sa.Connection, target: Endpoint, *, now: datetime) -> None:
    """Make all pending deliveries of an endpoint due at once, whatever failed before."""
    health = {"failures": 0, "retry_at": None}
    connection.execute(sa.update(targets).where(targets.c.id == target.id).values(health))
    alive = (deliveries.c.target_id == target.id, deliveries.c.dead_at.is_(None))
    connection.execute(sa.update(deliveries).where(*alive, deliveries.c.next_at > now).values(next_at=now))


def rotate_secret(connection: sa.Connection, target: Endpoint, *, now: datetime) -> str:
    """Create a new signing secret and return it, only this once. For a day, requests carry both signatures.

    Raises NotFound for a raw endpoint, which has no secret.
    """
    if target.format is not PayloadFormat.WEBHOOKS:
        raise NotFound(f"{target.name} is a raw endpoint: its requests are unsigned, it has no secret")
    secret = new_secret()
    connection.execute(
        sa.update(targets)
        .where(targets.c.id == target.id)
        .values(old_secret=targets.c.secret, old_secret_until=now + OLD_SECRET_LIFE, secret=secret)
    )
    return secret


def remove_endpoint(connection: sa.Connection, target: Endpoint) -> None:
    """Remove an endpoint; it gets no further deliveries."""
    connection.execute(sa.delete(targets).where(targets.c.id == target.id))


def remove_orphans(connection: sa.Connection, target: Endpoint) -> bool:
    """Remove some deliveries of a removed endpoint. Return False if none is left."""
    removed = 0
    for table in (deliveries, delivery_history, timers):
        some = sa.select(table.c.id).where(table.c.target_id == target.id).limit(_REMOVED_AT_ONCE)
        removed += connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount
    return removed > 0


def replay_by_id(connection: sa.Connection, target: Endpoint, *, now: datetime, ids: Sequence[int] | None) -> int:
    """Queue deliveries again that are dead or were accepted; `ids` None: all that are dead. Return their number."""
    dead = [deliveries.c.dead_at.isnot(None)]
    if ids is None:
        return _send_again(connection, target, dead, now=now)
    own = (delivery_history.c.target_id == target.id, delivery_history.c.id.in_(ids))
    kept = ("target_id", "event_id", "event", "push_id", "receipt_id", "reply_id", "message_id")
    queued_at = sa.literal(now, deliveries.c.created_at.type)  # the age of the queue counts from here
    copied = sa.select(*(delivery_history.c[name] for name in kept), queued_at, queued_at)
    copied = copied.where(*own).order_by(delivery_history.c.id)
    statement = sa.insert(deliveries).from_select([*kept, "created_at", "next_at"], copied)
    accepted = connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount
    return accepted + _send_again(connection, target, [*dead, deliveries.c.id.in_(ids)], now=now)


def replay_failed(
    connection: sa.Connection, target: Endpoint, *, now: datetime, since: datetime, until: datetime
) -> int:
    """Send again at once what was queued since then, before `until`, and has failed, dead or not; return the number."""
    queued = (deliveries.c.created_at >= since, deliveries.c.created_at < until)
    failed = [deliveries.c.failing_since.isnot(None), *queued]
    return _send_again(connection, target, failed, now=now)


def _send_again(
    connection: sa.Connection, target: Endpoint, wanted: Sequence[sa.ColumnElement[bool]], *, now: datetime
) -> int:
    again = {"dead_at": None, "failing_since": None, "attempts": 0, "next_at": now}
    own = deliveries.c.target_id == target.id
    return connection.execute(sa.update(deliveries).where(own, *wanted).values(again)).rowcount
