"""Whether the present can be believed before anything goes by it, and horizons that a wrong one has left behind.

A clock that ran ahead makes a prune take what is not old at all, closes the report's books for years, and nothing goes
back by itself. So a prune compares its clock with what does not depend on it: the platform's times, and the last prune.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import ReceiverError
from receiver.db.tables import audit, messages, pushes, receipts, replies, retention
from receiver.maintenance.prune import RetentionKind, list_horizons
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENT_MAX = timedelta(days=3)  # for which nothing may have come, and nothing been pruned, before a prune
_CLOCKS_APART = timedelta(days=1)
_WITNESSES = 100  # the newest receipts and replies: some may be late, or of another time zone
_ROUNDED = timedelta(seconds=1)  # an id of the journal holds milliseconds, and may be a little older than its row


class ClockDoubted(ReceiverError):
    """The present is not what the rows say, so nothing is done by it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """A moment that cannot be later than the present, and is."""

    name: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.name} {_written(self.at)}"


# --- The present ----------------------------------------------------------------------------------------------


def require_present(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted where this clock is days after everything that came, and after the last prune."""
    seen = _last_seen(connection)
    pruned = max((at for at in _list_pruned(connection) if at <= now), default=None)
    known = max(filter(None, (seen, pruned)), default=None) or _last_own(connection, now)
    if known is None or now - known <= SILENT_MAX:
        return
    newest = f"the newest receipt or reply is of {_written(seen)}" if seen else "no receipt or reply is there"
    last = f"the last prune was {_written(pruned)}" if pruned else "nothing was pruned before"
    raise ClockDoubted(
        f"this clock says {_written(now)}, {newest}, {last}; nothing was deleted. Mend the clock; or, where it is "
        "right and nothing came for so long: receiver prune --yes --now-is-right"
    )


def require_not_behind(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted where this clock is a day before the newest of what came."""
    seen = _last_seen(connection)
    if seen is not None and seen > now + _CLOCKS_APART:
        raise ClockDoubted(
            f"this clock says {_written(now)} and the newest receipt or reply is of {_written(seen)}; mend the clock"
        )


def _last_seen(connection: sa.Connection) -> datetime | None:
    """Return when the newest receipt or reply came: by the platform's clock or by ours, whichever was behind."""
    found = []
    for table, at in ((receipts, receipts.c.reported_at), (replies, replies.c.replied_at)):
        query = sa.select(table.c.received_at, at.label("at")).order_by(table.c.id.desc()).limit(_WITNESSES)
        found += [min(row.received_at, row.at) for row in connection.execute(query)]
    return max(found, default=None)


def _list_pruned(connection: sa.Connection) -> list[datetime]:
    return [found.pruned_at for found in list_horizons(connection).values() if found.pruned_at is not None]


def _last_own(connection: sa.Connection, now: datetime) -> datetime | None:
    """Return when anything else was last done here. Asked where nothing better is known: it is by our clock."""
    found = [
        connection.scalar(sa.select(sa.func.max(column)).where(column <= now))
        for column in (messages.c.recorded_at, audit.c.at)
    ]
    return max(filter(None, found), default=None)


# --- What is ahead of it --------------------------------------------------------------------------------------


def list_ahead(connection: sa.Connection, now: datetime) -> list[Ahead]:
    """Return what says that something was pruned by a clock that was ahead."""
    return list(_ahead(connection, now))


def require_none_ahead(connection: sa.Connection, now: datetime) -> None:
    """Raise ClockDoubted where a prune ran with a clock that was ahead: the next would hide what it did."""
    if ahead := list_ahead(connection, now):
        raise ClockDoubted(
            f"in the future: {', '.join(map(str, ahead))}. A prune ran with a clock that was ahead. Nothing was "
            "deleted now; first: receiver db rebuild-rollups --reopen"
        )


def _ahead(connection: sa.Connection, now: datetime) -> Iterator[Ahead]:
    for kind, found in list_horizons(connection).items():
        if found.horizon > now:
            yield Ahead(name=f"horizon of {kind}", at=found.horizon)
        elif found.pruned_at is not None and found.pruned_at > now + _CLOCKS_APART:
            yield Ahead(name=f"last prune of {kind}", at=found.pruned_at)
    closed = rollup.closed_before(connection)
    if closed > now.timestamp():
        yield Ahead(name="report closed before", at=datetime.fromtimestamp(closed, UTC))


def list_supported(connection: sa.Connection, now: datetime) -> dict[RetentionKind, datetime]:
    """Return from when on each kind that was pruned is whole; of a horizon in the future, what its rows support."""
    return {
        kind: found.horizon if found.horizon <= now else _supported(connection, kind, now)
        for kind, found in list_horizons(connection).items()
    }


def _supported(connection: sa.Connection, kind: RetentionKind, now: datetime) -> datetime:
    """Return since when rows of a kind are there that were made before the present.

    The present where there are none.
    """
    columns = {
        RetentionKind.RECEIPTS: (receipts.c.received_at,),
        RetentionKind.REPLIES: (replies.c.received_at,),
        RetentionKind.MESSAGES: (messages.c.recorded_at, receipts.c.received_at, replies.c.received_at),
        RetentionKind.AUDIT: (audit.c.at,),
    }
    if kind is RetentionKind.PUSHES:  # in the order of their ids, which needs no look at them all
        oldest = connection.scalar(sa.select(pushes.c.received_at).order_by(pushes.c.id).limit(1))
        found = [oldest if oldest is not None and oldest <= now else None]
    else:
        found = [connection.scalar(sa.select(sa.func.min(one)).where(one <= now)) for one in columns[kind]]
    first = min(filter(None, found), default=None)
    return now if first is None else first - _ROUNDED


# --- Back -----------------------------------------------------------------------------------------------------


def reopen(connection: sa.Connection, now: datetime) -> list[Ahead]:
    """Set every horizon in the future back to what the rows that are there support, and open the report's books.

    Give what was set back; afterwards the report has to be added up anew. Raises ClockDoubted.
    """
    require_not_behind(connection, now)
    ahead = list_ahead(connection, now)
    since = _supported(connection, RetentionKind.MESSAGES, now)
    of_messages = list_horizons(connection).get(RetentionKind.MESSAGES)
    all_new = of_messages is not None and of_messages.pruned_at is not None  # it was not broken off
    for kind, horizon in list_supported(connection, now).items():
        of_kind = retention.c.kind == kind.value
        connection.execute(sa.update(retention).where(of_kind, retention.c.horizon > now).values(horizon=horizon))
        late = retention.c.pruned_at > now + _CLOCKS_APART
        connection.execute(sa.update(retention).where(of_kind, late).values(pruned_at=None))
    if rollup.closed_before(connection) > now.timestamp():
        rollup.reopen(connection, since, all_new=all_new)
    return ahead


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
