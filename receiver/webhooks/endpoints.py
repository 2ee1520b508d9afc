"""Webhook endpoints: URL, format, events, state and health.

An endpoint's URL may contain a password: show `Endpoint.display_url` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from receiver.core import NotFound
from receiver.db.set_aside import read_rows
from receiver.db.tables import deliveries, delivery_history, targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

SECRET_PREFIX = "whsec_"  # noqa: S105  (prefix of every secret)
PENDING_MAX = 100_000  # counting stops here


class PayloadFormat(StrEnum):
    """The payload format of an endpoint."""

    RAW = "raw"  # as the platform sent it
    WEBHOOKS = "webhooks"  # Standard Webhooks


class EventType(StrEnum):
    """The events of a webhook endpoint."""

    RECEIPT_RECEIVED = "receipt.received"
    REPLY_RECEIVED = "reply.received"
    STATUS_CHANGED = "message.status_changed"
    NO_RECEIPT = "message.no_receipt"
    NOT_DELIVERED = "message.not_delivered"


class EndpointState(StrEnum):
    """The state of an endpoint."""

    GOOD = "good"
    """Its last answer was 2xx, or nothing was sent yet."""
    FAILING = "failing"
    """Its last answer was not 2xx, or there was none."""
    PAUSED = "paused"
    """Paused by an operator, or by its answer 410; its events are stored until it resumes."""


TIMED = frozenset({EventType.NO_RECEIPT, EventType.NOT_DELIVERED})  # triggered by time alone


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEndpoint:
    """The settings of a new endpoint."""

    name: str
    url: str = field(repr=False)
    format: PayloadFormat
    events: tuple[EventType, ...] = ()  # of webhooks
    accounts: tuple[str, ...] | None = None  # None: every account
    pii: bool = False  # numbers and contents in full
    not_delivered_after_seconds: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # further ones; the values are secrets

    @property
    def header_names(self) -> list[str]:
        """The names of its further headers; show these alone."""
        return list(self.headers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint(NewEndpoint):
    """A stored endpoint."""

    id: int
    signing_secrets: tuple[str, ...] = field(repr=False)  # newest first; none for raw
    created_at: datetime
    paused_at: datetime | None
    paused_because: str | None
    failures: int  # consecutive
    retry_at: datetime | None  # nothing is sent before
    delivered: int
    delivered_at: datetime | None
    failed_at: datetime | None
    last_error: str | None
    failing_since: datetime | None  # the first failure since the last answer that was 2xx
    last_status: int | None  # of the last answer

    @property
    def display_url(self) -> str:
        """The URL for display, without its query, which may be a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"

    @property
    def state(self) -> EndpointState:
        """The present state: failing from the first failed attempt on, until one is accepted."""
        if self.paused_at is not None:
            return EndpointState.PAUSED
        return EndpointState.FAILING if self.failing_since is not None else EndpointState.GOOD

    def covers(self, account: str) -> bool:
        """Return whether it receives events of an account."""
        return self.accounts is None or account in self.accounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The pending deliveries and dead letters of an endpoint."""

    pending: int  # at most PENDING_MAX
    dead: int
    oldest_at: datetime | None  # of the oldest pending one


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    """Not tried yet."""
    FAILING = "failing"
    """Tried without success; it will be tried again."""
    DEAD = "dead"
    """Given up after the last try: a dead letter, which can be replayed."""
    DELIVERED = "delivered"
    """The endpoint has answered 2xx."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryRow:
    """A delivery to be looked at."""

    id: int
    event: str
    event_id: UUID
    state: DeliveryState
    push_id: UUID | None
    receipt_id: int | None
    reply_id: int | None
    message_id: int | None
    created_at: datetime
    attempts: int
    next_at: datetime | None  # when it is tried again; None: not at all
    delivered_at: datetime | None
    dead_at: datetime | None
    last_status: int | None
    last_error: str | None

    @property
    def webhook_id(self) -> str:
        """The `webhook-id` of its requests."""
        return f"msg_{self.event_id.hex}"


def list_endpoints(connection: sa.Connection, accounts: tuple[str, ...] | None = None) -> list[Endpoint]:
    """Return the endpoints, oldest first; with `accounts`, only those limited to these accounts."""
    found = read_rows(connection, sa.select(targets).order_by(targets.c.id), targets, as_endpoint)
    return [target for target in found if _within(target, accounts)]


def get_endpoint(connection: sa.Connection, name: str, accounts: tuple[str, ...] | None = None) -> Endpoint:
    """Return an endpoint by name, among those of `list_endpoints`. Raises NotFound."""
    row = connection.execute(sa.select(targets).where(targets.c.name == name)).one_or_none()
    if row is None or not _within(as_endpoint(row), accounts):
        raise NotFound(f"there is no webhook endpoint named {name}; see `receiver webhooks list`")
    return as_endpoint(row)


def find_health(connection: sa.Connection, target: Endpoint) -> Health:
    """Return the health of an endpoint."""
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
    """Return the creation time of the oldest pending delivery, by endpoint name."""
    waits = (deliveries.c.target_id == targets.c.id, deliveries.c.dead_at.is_(None))
    oldest = sa.select(deliveries.c.created_at).where(*waits).order_by(deliveries.c.id).limit(1).scalar_subquery()
    rows = connection.execute(sa.select(targets.c.name, oldest))
    return {name: oldest_at for name, oldest_at in rows if oldest_at is not None}


def list_deliveries(
    connection: sa.Connection,
    target: Endpoint,
    *,
    limit: int,
    state: DeliveryState | None = None,
    before: int | None = None,
) -> list[DeliveryRow]:
    """Return a page of deliveries, newest first by id; of the accepted ones the newest are kept alone."""
    found: dict[int, DeliveryRow] = {}
    # One that is accepted meanwhile is read from both tables, and counts as accepted.
    for table in (deliveries, delivery_history):
        if state not in _CONDITIONS_OF[table.name]:
            continue
        conditions = [table.c.target_id == target.id, *_CONDITIONS_OF[table.name][state]]
        if before is not None:
            conditions.append(table.c.id < before)
        rows = connection.execute(sa.select(table).where(*conditions).order_by(table.c.id.desc()).limit(limit))
        found |= {row.id: _as_delivery(row) for row in rows}
    return [found[row_id] for row_id in sorted(found, reverse=True)[:limit]]


_ALIVE, _TRIED = deliveries.c.dead_at.is_(None), deliveries.c.failing_since.isnot(None)
_CONDITIONS_OF: Mapping[str, Mapping[DeliveryState | None, Sequence[sa.ColumnElement[bool]]]] = {
    deliveries.name: {
        None: (),
        DeliveryState.PENDING: (_ALIVE, sa.not_(_TRIED)),
        DeliveryState.FAILING: (_ALIVE, _TRIED),
        DeliveryState.DEAD: (sa.not_(_ALIVE),),
    },
    delivery_history.name: {None: (), DeliveryState.DELIVERED: ()},
}


def _as_delivery(row: Any) -> DeliveryRow:
    values: dict[str, Any] = {name: getattr(row, name, None) for name in DeliveryRow.__slots__ if name != "state"}
    if values["delivered_at"] is not None:
        state = DeliveryState.DELIVERED
    elif values["dead_at"] is not None:
        state, values["next_at"] = DeliveryState.DEAD, None
    else:
        state = DeliveryState.PENDING if row.failing_since is None else DeliveryState.FAILING
    return DeliveryRow(state=state, **values)


def as_endpoint(row: Any, *, now: datetime | None = None) -> Endpoint:
    """Return a row of `targets` as an Endpoint. `now`: leave out an old secret that has expired by then."""
    known = {event.value for event in EventType}  # a newer version may have written others
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
        headers=row.headers or {},
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
        failing_since=row.failing_since,
        last_status=row.last_status,
    )


def _within(target: Endpoint, accounts: tuple[str, ...] | None) -> bool:
    return accounts is None or (target.accounts is not None and set(target.accounts) <= set(accounts))
