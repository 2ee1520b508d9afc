"""Checks the clock before a prune, and repairs horizons that a wrong clock has left.

With a clock that is ahead, a prune would delete recent rows and close report periods for years. So a prune compares its
clock with independent times: the platform's, and the last prune.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import ReceiverError
from receiver.db.tables import audit, messages, pushes, receipts, replies, retention
from receiver.maintenance.retention import RetentionKind, list_horizons
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENT_MAX = timedelta(days=3)  # longest time without arrivals and prunes that a prune accepts
_CLOCK_DOUBTED_AFTER = timedelta(days=1)
_WITNESSES = 100  # newest receipts and replies: some may be late or in another time zone
_ROUNDED = timedelta(seconds=1)  # journal ids have milliseconds and may be slightly older than their rows


class ClockDoubted(ReceiverError):
    """The clock contradicts the stored rows, so nothing was changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """A stored time that is wrongly in the future."""

    name: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.name} {_written(self.at)}"


# --- The clock ----------------------------------------------------------------------------------------------


def require_present(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted if the clock is over three days after the last arrival and the last prune."""
    seen = _last_seen(connection)
    pruned = max((at for at in _list_pruned(connection) if at <= now), default=None)
    known = max(filter(None, (seen, pruned)), default=None) or _last_own(connection, now)
    if known is None or now - known <= SILENT_MAX:
        return
    newest = f"the newest receipt or reply is from {_written(seen)}" if seen else "there is no receipt or reply"
    last = f"the last prune was {_written(pruned)}" if pruned else "there was no prune before"
    raise ClockDoubted(
        f"this clock says {_written(now)}, {newest}, {last}; nothing was deleted. Correct the clock. If it "
        "is right and nothing arrived for so long: receiver prune --yes --now-is-right"
    )


def require_not_behind(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted if the clock is over a day before the newest receipt or reply."""
    seen = _last_seen(connection)
    if seen is not None and seen > now + _CLOCK_DOUBTED_AFTER:
        raise ClockDoubted(
            f"this clock says {_written(now)}, the newest receipt or reply is from {_written(seen)}; correct the clock"
        )


def _last_seen(connection: sa.Connection) -> datetime | None:
    """Return the time of the newest receipt or reply, by the platform's clock or ours, whichever is earlier."""
    found = []
    for table, at in ((receipts, receipts.c.reported_at), (replies, replies.c.replied_at)):
        query = sa.select(table.c.received_at, at.label("at")).order_by(table.c.id.desc()).limit(_WITNESSES)
        found += [min(row.received_at, row.at) for row in connection.execute(query)]
    return max(found, default=None)


def _list_pruned(connection: sa.Connection) -> list[datetime]:
    return [found.pruned_at for found in list_horizons(connection).values() if found.pruned_at is not None]


def _last_own(connection: sa.Connection, now: datetime) -> datetime | None:
    """Return the last time of recorded sends and audit entries; a weaker witness, since it is from our clock."""
    found = [
        connection.scalar(sa.select(sa.func.max(column)).where(column <= now))
        for column in (messages.c.recorded_at, audit.c.at)
    ]
    return max(filter(None, found), default=None)


# --- Times in the future --------------------------------------------------------------------------------------


def list_ahead(connection: sa.Connection, now: datetime) -> list[Ahead]:
    """Return the stored times that show a prune by a clock that was ahead."""
    return list(_ahead(connection, now))


def require_none_ahead(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted if a prune ran with a clock that was ahead; another prune would hide its effects."""
    if ahead := list_ahead(connection, now):
        raise ClockDoubted(
            f"in the future: {', '.join(map(str, ahead))}. A prune ran with a clock that was ahead. Nothing was "
            "deleted now. First run: receiver db rebuild-rollups --reopen"
        )


def _ahead(connection: sa.Connection, now: datetime) -> Iterator[Ahead]:
    for kind, found in list_horizons(connection).items():
        if found.horizon > now:
            yield Ahead(name=f"horizon of {kind}", at=found.horizon)
        elif found.pruned_at is not None and found.pruned_at > now + _CLOCK_DOUBTED_AFTER:
            yield Ahead(name=f"last prune of {kind}", at=found.pruned_at)
    closed = rollup.closed_before(connection)
    if closed > now.timestamp():
        yield Ahead(name="report closed before", at=datetime.fromtimestamp(closed, UTC))


def list_supported(connection: sa.Connection, now: datetime) -> dict[RetentionKind, datetime]:
    """Return from when on each pruned kind is complete; for a horizon in the future, by its oldest rows."""
    return {
        kind: found.horizon if found.horizon <= now else _supported(connection, kind, now)
        for kind, found in list_horizons(connection).items()
    }


def _supported(connection: sa.Connection, kind: RetentionKind, now: datetime) -> datetime:
    """Return the time of the oldest row of a kind that is not in the future; `now` if there is none."""
    columns = {
        RetentionKind.RECEIPTS: (receipts.c.received_at,),
        RetentionKind.REPLIES: (replies.c.received_at,),
        RetentionKind.MESSAGES: (messages.c.recorded_at, receipts.c.received_at, replies.c.received_at),
        RetentionKind.AUDIT: (audit.c.at,),
    }
    if kind is RetentionKind.PUSHES:  # by id order, without reading all rows
        oldest = connection.scalar(sa.select(pushes.c.received_at).order_by(pushes.c.id).limit(1))
        found = [oldest if oldest is not None and oldest <= now else None]
    else:
        found = [connection.scalar(sa.select(sa.func.min(one)).where(one <= now)) for one in columns[kind]]
    first = min(filter(None, found), default=None)
    return now if first is None else first - _ROUNDED


# --- Repair -----------------------------------------------------------------------------------------------------


def reopen(connection: sa.Connection, now: datetime) -> list[Ahead]:
    """Reset every horizon in the future to the oldest existing rows, and reopen the report periods.

    Return what was reset; the rollups must be rebuilt afterwards. Raises ClockDoubted.
    """
    require_not_behind(connection, now)
    ahead = list_ahead(connection, now)
    since = _supported(connection, RetentionKind.MESSAGES, now)
    of_messages = list_horizons(connection).get(RetentionKind.MESSAGES)
    all_new = of_messages is not None and of_messages.pruned_at is not None  # it was completed
    for kind, horizon in list_supported(connection, now).items():
        of_kind = retention.c.kind == kind.value
        connection.execute(sa.update(retention).where(of_kind, retention.c.horizon > now).values(horizon=horizon))
        late = retention.c.pruned_at > now + _CLOCK_DOUBTED_AFTER
        connection.execute(sa.update(retention).where(of_kind, late).values(pruned_at=None))
    if rollup.closed_before(connection) > now.timestamp():
        rollup.reopen(connection, since, all_new=all_new)
    return ahead


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
