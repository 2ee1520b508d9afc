"""Recomputes messages, receipts and replies in place from the journal and the readings that it stores.

Rows that are right keep their ids and are not written. What is missing is inserted, what no push has brought is
deleted, copies and states are corrected. No webhook gets anything of it. Left out are pushes that the journal no longer
has, or whose reading an older version did not store, and the rows that they may have brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.core import first_id_of
from receiver.db.engine import Database, lift_statement_timeout
from receiver.db.sql import delivery_status
from receiver.db.tables import masked_of_task_where, messages, pushes, receipts, replies
from receiver.maintenance.prune import OUT_OF_ORDER
from receiver.maintenance.retention import RetentionKind, list_horizons
from receiver.messages import projection
from receiver.messages.projection_sql import INBOUND, SEEN, Inbound
from receiver.messages.stamps import mark_changed
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SET_PUSHES = 5000
_SET_MESSAGES = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """How many rows were wrong."""

    deleted: int  # receipts and replies that no push has brought
    inserted: int  # missing messages, receipts and replies
    corrected: int  # receipts and replies with another number of copies
    states: int  # messages with another state
    report: int  # hours and days of the delivery report

    @property
    def nothing(self) -> bool:
        """Return whether every row was right."""
        return not any((self.deleted, self.inserted, self.corrected, self.states, self.report))


def rebuild(database: Database, *, patience_seconds: float) -> Rebuilt:
    """Rebuild everything in one transaction, and return what was wrong.

    Meanwhile pushes are stored and not projected; the embedded database spools them.
    Raises DatabaseUnavailable, DatabaseMisconfigured or RowRejected; nothing was changed.
    """
    return database.write(_rebuild, patience_seconds=patience_seconds)


def _rebuild(connection: sa.Connection) -> Rebuilt:
    lift_statement_timeout(connection)
    projection.catch_up(connection)
    turn = projection.take_turn(connection, wait=True)
    position = 0 if turn is None else turn.position
    run = partial(_run, connection, bound=_find_bound(connection), position=position)
    gone = [message_id for inbound in INBOUND for message_id in _delete_unbacked(run, inbound)]
    inserted, changed = 0, set(gone)
    for after in range(0, position, _SET_PUSHES):
        rows, of_messages = projection.restore_missing(connection, after=after, upto=min(after + _SET_PUSHES, position))
        inserted += rows
        changed |= of_messages
    corrected = sum(run(_correct_copies(inbound)).rowcount for inbound in INBOUND)
    projection.match_inbound_events(connection, _masked(connection), notifies=False)
    wrong = _find_wrong_states(connection)
    for begin in range(0, len(wrong), _SET_MESSAGES):
        projection.refold(connection, wrong[begin : begin + _SET_MESSAGES], notifies=False)
    differing = rollup.differences(connection)
    if differing:
        rollup.rebuild(connection, offset_seconds=rollup.zone_offset_seconds(connection))
    # Last: it locks messages in the order of their ids, and a recording that waits for one of them may hold others.
    mark_changed(connection, changed)
    return Rebuilt(deleted=len(gone), inserted=inserted, corrected=corrected, states=len(wrong), report=len(differing))


def _find_bound(connection: sa.Connection) -> UUID:
    """Return the highest id that a push may have of which the journal lacks a copy, or what was read in it."""
    unread = sa.select(pushes.c.id).where(pushes.c.sequence.is_(None)).order_by(pushes.c.id.desc()).limit(1)
    pruned = list_horizons(connection).get(RetentionKind.PUSHES)
    return max(
        connection.scalar(unread) or UUID(int=0),
        UUID(int=0) if pruned is None else first_id_of(pruned.horizon + OUT_OF_ORDER),
    )


def _run(connection: sa.Connection, text: str, *, bound: UUID, position: int) -> sa.CursorResult[Any]:
    statement = sa.text(text).bindparams(sa.bindparam("bound", type_=sa.Uuid))
    return connection.execute(statement, {"bound": bound, "position": position})


def _delete_unbacked(run: Callable[[str], sa.CursorResult[Any]], inbound: Inbound) -> Sequence[int | None]:
    """Delete rows whose first push says something else, or is not there; return the message of each."""
    return (
        run(
            f"DELETE FROM {inbound.table} AS r WHERE {inbound.rows} AND r.push_id > :bound AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM pushes AS p"
            f" WHERE p.id = r.push_id AND p.sequence <= :position AND {inbound.pushes} AND {inbound.same})"
            " RETURNING message_id"
        )
        .scalars()
        .all()
    )


def _correct_copies(inbound: Inbound) -> str:
    """Write the statement that sets how many pushes brought a row, and when the last did, where that is wrong.

    A push that was first read by a replay counts for a row that it alone has brought, and adds to no other.
    """
    given = ", ".join(f"{inbound.columns[name]} AS {name}" for name in inbound.key)
    keys = ", ".join(inbound.key)
    same = " AND ".join(f"r.{name} = c.{name}" for name in inbound.key)
    replayed = "(SELECT count(*) FROM pushes AS q WHERE q.id = r.push_id AND q.replayed_at IS NOT NULL)"
    last = "CASE WHEN c.last_seen_at > r.received_at THEN c.last_seen_at ELSE r.received_at END"
    return f"""
UPDATE {inbound.table} AS r SET copies = c.copies + {replayed}, last_seen_at = {last}
FROM (
    SELECT {keys}, sum(CASE WHEN replayed_at IS NULL THEN 1 ELSE 0 END) AS copies,
           max(CASE WHEN replayed_at IS NULL THEN received_at END) AS last_seen_at
    FROM (
        SELECT {given}, p.replayed_at, p.received_at FROM pushes AS p
        WHERE p.sequence <= :position AND {inbound.pushes}
    ) AS given GROUP BY {keys}
) AS c
WHERE {same} AND {inbound.rows} AND r.push_id > :bound
  AND (r.copies <> c.copies + {replayed} OR r.last_seen_at <> {last})"""  # noqa: S608


def _masked(connection: sa.Connection) -> set[tuple[str, str, str]]:
    return {
        tuple(row)
        for table in (receipts, replies)
        for row in connection.execute(
            sa.select(table.c.account, table.c.task_id, table.c.masked_mobile).where(masked_of_task_where(table))
        )
    }


# Only messages whose receipts are all there: a pruned receipt may have decided an older state.
_WRONG_STATES = f"""
SELECT m.id FROM messages AS m LEFT JOIN (
    SELECT message_id, reported_at, status, {SEEN} AS seen,
           row_number() OVER (PARTITION BY message_id ORDER BY reported_at DESC, status DESC) AS place
    FROM (SELECT message_id, reported_at, {delivery_status("vendor_status")} AS status FROM receipts) AS r
    WHERE message_id IS NOT NULL
    WINDOW message AS (PARTITION BY message_id)
) AS s ON s.message_id = m.id AND s.place = 1
WHERE (m.status <> coalesce(s.status, 0) OR m.seen <> coalesce(s.seen, 0) OR m.reported_at <> s.reported_at
       OR (m.reported_at IS NULL) <> (s.reported_at IS NULL))"""  # noqa: S608


def _find_wrong_states(connection: sa.Connection) -> list[int]:
    pruned = list_horizons(connection).get(RetentionKind.RECEIPTS)
    if pruned is None:
        return list(connection.scalars(sa.text(f"{_WRONG_STATES} ORDER BY m.id")))
    since = sa.bindparam("since", pruned.horizon + OUT_OF_ORDER, messages.c.reported_at.type)
    recent = f"{_WRONG_STATES} AND m.reported_at >= :since ORDER BY m.id"
    return list(connection.scalars(sa.text(recent).bindparams(since)))
