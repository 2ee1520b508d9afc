"""The kinds of rows with their own age limits, and up to when each has been pruned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.tables import AGE_FROM, audit, pushes, receipts, replies, retention

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from receiver.config import Settings

_OVERDUE_AFTER = timedelta(days=2)


class RetentionKind(StrEnum):
    """The kinds of rows with their own age limits."""

    PUSHES = "pushes"
    RECEIPTS = "receipts"
    REPLIES = "replies"
    MESSAGES = "messages"
    AUDIT = "audit"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionHorizon:
    """The time from which on one kind is complete."""

    horizon: datetime
    pruned_at: datetime | None  # when all older rows were deleted; None: not yet


def list_horizons(connection: sa.Connection) -> dict[RetentionKind, RetentionHorizon]:
    """Return the horizon of each kind that was ever pruned."""
    rows = connection.execute(sa.select(retention).order_by(retention.c.kind))
    return {RetentionKind(row.kind): RetentionHorizon(horizon=row.horizon, pruned_at=row.pruned_at) for row in rows}


def keep_days_of(settings: Settings) -> dict[RetentionKind, int]:
    """Return for how many days each kind is stored; 0: forever."""
    return {kind: getattr(settings, f"keep_{kind}_days") for kind in RetentionKind}


def cutoffs_of(keep_days: Mapping[RetentionKind, int], now: datetime) -> dict[RetentionKind, datetime]:
    """Return the time before which each kind is deleted, without the kinds that are stored forever."""
    return {kind: now - timedelta(days=days) for kind, days in keep_days.items() if days}


def find_unpruned(connection: sa.Connection, settings: Settings, now: datetime) -> list[RetentionKind]:
    """Return the kinds whose prune is two days overdue."""
    recent = now - _OVERDUE_AFTER
    horizons = list_horizons(connection)
    cutoffs = {
        kind: before - _OVERDUE_AFTER
        for kind, before in cutoffs_of(keep_days_of(settings), now).items()
        if kind not in horizons or (horizons[kind].pruned_at or before) < recent
    }
    return find_overdue(connection, cutoffs)


def find_overdue(connection: sa.Connection, cutoffs: Mapping[RetentionKind, datetime]) -> list[RetentionKind]:
    """Return the kinds whose oldest row is older than its cutoff."""
    oldest: dict[RetentionKind, Any] = {
        RetentionKind.PUSHES: sa.select(pushes.c.received_at).order_by(pushes.c.id),
        RetentionKind.RECEIPTS: sa.select(receipts.c.last_seen_at).order_by(receipts.c.id),
        RetentionKind.REPLIES: sa.select(replies.c.last_seen_at).order_by(replies.c.id),
        RetentionKind.MESSAGES: sa.select(AGE_FROM).where(AGE_FROM.isnot(None)).order_by(AGE_FROM),
        RetentionKind.AUDIT: sa.select(audit.c.at).order_by(audit.c.id),
    }
    found = {kind: connection.scalar(oldest[kind].limit(1)) for kind in cutoffs}
    return [kind for kind, at in found.items() if at is not None and at < cutoffs[kind]]
