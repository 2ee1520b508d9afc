"""Receipts and replies as one stream that a reader can resume: none is missed, none sent twice.

Ids are assigned in order but committed in any order. So a page ends below the horizon: no further row can appear under
these ids. A transaction that has taken an id of a table holds a lock on that table until it ends. Once all that held
one when an id was read are gone, every lower id is committed or never will be. Nothing is stored for this, so it holds
after a dump and restore too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import Kind
from receiver.db.set_aside import is_in_feeds, read_rows
from receiver.db.tables import receipts, replies
from receiver.messages.queries import (
    ReceiptRow,
    ReplyRow,
    as_receipt_row,
    as_reply_row,
    in_accounts,
    select_inbound_events,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.db.engine import Database

_PATIENCE_SECONDS = 0.5  # for open transactions to end; a longer one only holds the horizon back
_POLL_SECONDS = 0.005
_MARK_EVERY_SECONDS = 0.05


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A reader's position: the ids of the last receipt and the last reply."""

    receipt_id: int = 0
    reply_id: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One receipt or reply, and the position behind it."""

    kind: Kind
    row: ReceiptRow | ReplyRow
    position: Position


@dataclass(frozen=True, slots=True)
class _Mark:
    """The ids at one moment, and the transactions that might still commit lower ones."""

    seen: Position
    writers: frozenset[str]
    at: float


class EventHorizon:
    """Up to where the stream is final, as one process knows it. Safe for many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._final = Position()
        self._open: deque[_Mark] = deque()

    def find(self) -> Position:
        """Return the newest final position; waits a moment for open transactions.

        One that stays open holds the position back until it ends. Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        wanted: Position | None = None
        while True:
            with self._database.reading() as connection:
                mark = _look(connection)
            final = self._note(mark)
            wanted = wanted or mark.seen
            if not (final.receipt_id < wanted.receipt_id or final.reply_id < wanted.reply_id):
                return final
            if time.monotonic() > deadline:
                return final
            time.sleep(_POLL_SECONDS)

    @property
    def lag_seconds(self) -> float:
        """For how long the horizon has been held back by transactions that do not end."""
        with self._lock:
            return time.monotonic() - self._open[0].at if self._open else 0.0

    def _note(self, mark: _Mark) -> Position:
        with self._lock:
            if not mark.writers:
                self._open.clear()
                self._advance(mark.seen)
                return self._final
            while self._open and not self._open[0].writers & mark.writers:
                self._advance(self._open.popleft().seen)
            if not self._open or mark.at - self._open[-1].at > _MARK_EVERY_SECONDS:
                self._open.append(mark)
            return self._final

    def _advance(self, seen: Position) -> None:
        self._final = Position(max(self._final.receipt_id, seen.receipt_id), max(self._final.reply_id, seen.reply_id))


def _look(connection: sa.Connection) -> _Mark:
    """See the newest ids, and after that who is writing."""
    at = time.monotonic()
    if connection.dialect.name != "postgresql":
        row = connection.execute(_SQLITE_LOOK).one()
        return _Mark(Position(row.receipt_id, row.reply_id), frozenset(), at)  # one writer: ids commit in order
    row = connection.execute(_POSTGRESQL_LOOK).one()
    return _Mark(Position(row.receipt_id, row.reply_id), frozenset(row.writers), at)


_NEWEST = (
    "coalesce((SELECT max(id) FROM receipts), 0) AS receipt_id, coalesce((SELECT max(id) FROM replies), 0) AS reply_id"
)
_SQLITE_LOOK = sa.text(f"SELECT {_NEWEST}")
# The rows are seen as of the statement's beginning, the locks as of later: whoever is missing in these has committed
# before, and is seen by the next statement.
_POSTGRESQL_LOOK = sa.text(
    f"""
    SELECT {_NEWEST}, ARRAY(
        SELECT DISTINCT virtualtransaction FROM pg_locks
        WHERE locktype = 'relation' AND relation IN ('receipts'::regclass, 'replies'::regclass)
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND mode = 'RowExclusiveLock' AND granted) AS writers
    """  # noqa: S608  (constants)
)

_POSTGRESQL_LAG = sa.text(
    """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
    FROM pg_stat_activity WHERE pid IN (
        SELECT pid FROM pg_locks
        WHERE locktype = 'relation' AND relation IN ('receipts'::regclass, 'replies'::regclass)
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND mode = 'RowExclusiveLock' AND granted)
    """
)


def find_lag_seconds(connection: sa.Connection) -> float:
    """Return for how long the oldest transaction that holds events back has been open; 0: there is none.

    One of another role counts only if this role may see it (pg_read_all_stats).
    """
    if connection.dialect.name != "postgresql":
        return 0.0  # one writer: ids commit in order
    return float(connection.execute(_POSTGRESQL_LAG).scalar_one())


def list_events(
    connection: sa.Connection, after: Position, final: Position, limit: int, accounts: tuple[str, ...] | None
) -> list[Event]:
    """Return the next events in the order of arrival, none above `final`.

    Both kinds are read in the order of their ids, and merged by arrival time.
    """
    found = [
        (
            Kind.RECEIPT,
            _next_rows(connection, receipts, (after.receipt_id, final.receipt_id), limit, accounts, as_receipt_row),
        ),
        (Kind.REPLY, _next_rows(connection, replies, (after.reply_id, final.reply_id), limit, accounts, as_reply_row)),
    ]
    queues = {kind: deque(rows) for kind, rows in found}
    events: list[Event] = []
    position = after
    while len(events) < limit and any(queues.values()):
        kind = min((kind for kind in queues if queues[kind]), key=lambda kind: queues[kind][0].received_at)
        row = queues[kind].popleft()
        position = (
            Position(row.id, position.reply_id) if kind is Kind.RECEIPT else Position(position.receipt_id, row.id)
        )
        events.append(Event(kind=kind, row=row, position=position))
    return events


def _next_rows(
    connection: sa.Connection,
    table: sa.Table,
    between: tuple[int, int],
    limit: int,
    accounts: tuple[str, ...] | None,
    convert: Callable[[Any], Any],
) -> Sequence[Any]:
    after, final = between
    query = select_inbound_events(table).where(
        table.c.id > after, table.c.id <= final, is_in_feeds(table), *in_accounts(table, accounts)
    )
    return read_rows(connection, query.order_by(table.c.id).limit(limit), table, convert)
