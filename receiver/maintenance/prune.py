"""What goes when its time is over: the journal, receipts, replies, messages, the audit, each by its own age.

A prune first moves the horizon of what it prunes, in a transaction of its own: from then on nobody takes what is
missing before it for a fault, and the report's books are closed there (`rollup`). Then rows go in small batches, each a
transaction of its own, with a rest after it as long as it took. So it may be killed at any time and run again.

A row of the journal goes by its id, which holds the time at which it came; a receipt or reply when it was last seen,
so that a copy in the journal always has its row; a message by the time at which the report counts it, and only once no
receipt or reply of it is to be kept. What is left of those goes with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.audit import prune_audit
from receiver.core import first_id_of
from receiver.db.engine import Database, insert
from receiver.db.tables import (
    AGE_FROM,
    attempts,
    audit,
    deliveries,
    forward_queue,
    masked_of_task_where,
    messages,
    pushes,
    receipts,
    replies,
    retention,
)
from receiver.messages import Position, match_recorded
from receiver.messages.projection import lock_tasks
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime


_PAGE_ROWS = 5000  # looked at in one go, to find what goes
_BATCH_SECONDS = 0.05  # for which one transaction is meant to last: a push waits for 0.4 at most
_BATCH_ROWS, _BATCH_ROWS_MAX = 200, 1000


class RetentionKind(StrEnum):
    """What is pruned by an age of its own."""

    PUSHES = "pushes"
    RECEIPTS = "receipts"
    REPLIES = "replies"
    MESSAGES = "messages"
    AUDIT = "audit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to go."""

    kinds: tuple[RetentionKind, ...]
    cutoffs: Mapping[RetentionKind, datetime]  # of every kind that has an end: what is older goes, or would
    readers: Position | None = None  # receipts and replies after it stay; None: nobody has to read them first


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """What would go of one kind."""

    kind: RetentionKind
    before: datetime
    rows: int
    oldest: datetime | None
    newest: datetime | None
    bytes: int | None  # of bodies and queries; None: not known without reading every row


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionHorizon:
    """From when on one kind is whole."""

    horizon: datetime
    pruned_at: datetime | None  # when everything before was last seen to be gone; None: not yet


def list_horizons(connection: sa.Connection) -> dict[RetentionKind, RetentionHorizon]:
    """Return from when on each kind is whole; one that was never pruned is missing."""
    rows = connection.execute(sa.select(retention).order_by(retention.c.kind))
    return {RetentionKind(row.kind): RetentionHorizon(horizon=row.horizon, pruned_at=row.pruned_at) for row in rows}


def find_overdue(connection: sa.Connection, cutoffs: Mapping[RetentionKind, datetime]) -> list[RetentionKind]:
    """Return the kinds that have rows of before these times, as far as the oldest tell."""
    oldest: dict[RetentionKind, Any] = {
        RetentionKind.PUSHES: sa.select(pushes.c.received_at).order_by(pushes.c.id),
        RetentionKind.RECEIPTS: sa.select(receipts.c.last_seen_at).order_by(receipts.c.id),
        RetentionKind.REPLIES: sa.select(replies.c.last_seen_at).order_by(replies.c.id),
        RetentionKind.MESSAGES: sa.select(AGE_FROM).where(messages.c.recorded_at.isnot(None)).order_by(AGE_FROM),
        RetentionKind.AUDIT: sa.select(audit.c.at).order_by(audit.c.id),
    }
    found = {kind: connection.scalar(oldest[kind].limit(1)) for kind in cutoffs}
    return [kind for kind, at in found.items() if at is not None and at < cutoffs[kind]]


def look(connection: sa.Connection, plan: Plan) -> list[Due]:
    """Say what `prune` would do. Reads every row that would go: minutes for many millions."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    found = []
    for kind in plan.kinds:
        before = plan.cutoffs[kind]
        table, at, where = _due(kind, before, plan)
        size: sa.ColumnElement[Any] = sa.null()
        if kind is RetentionKind.PUSHES:
            size = sa.func.coalesce(sa.func.sum(sa.func.length(pushes.c.body) + sa.func.length(pushes.c.query)), 0)
        query = sa.select(sa.func.count(), sa.func.min(at), sa.func.max(at), size).select_from(table).where(*where)
        rows, oldest, newest, size_found = connection.execute(query).one()
        found.append(
            Due(
                kind=kind,
                before=before,
                rows=rows,
                oldest=oldest,
                newest=newest,
                bytes=None if size_found is None else int(size_found),
            )
        )
    return found


def prune(
    database: Database,
    plan: Plan,
    *,
    now: Callable[[], datetime],
    tell: Callable[[RetentionKind, int], None] = lambda _kind, _rows: None,
) -> dict[RetentionKind, int]:
    """Delete what is due, and give the rows by kind. `tell` hears of each batch.

    Journal first and messages last: each kind stays whole from its own horizon on wherever it is broken off.
    Raises StoreUnavailable or StoreUnfit.
    """
    gone = {}
    for kind in RetentionKind:
        if kind not in plan.kinds:
            continue
        before = database.write(lambda connection, kind=kind: _move_horizon(connection, kind, plan.cutoffs[kind]))  # type: ignore[misc]
        gone[kind] = 0
        for rows in _BATCHES[kind](database, before, plan):
            gone[kind] += rows
            tell(kind, rows)
        database.write(lambda connection, kind=kind: _note_pruned(connection, kind, now()))  # type: ignore[misc]
    return gone


# --- Horizons -------------------------------------------------------------------------------------------------


def _move_horizon(connection: sa.Connection, kind: RetentionKind, before: datetime) -> datetime:
    """Note that what is older may be missing from now on; give the time before which rows go."""
    if kind is RetentionKind.MESSAGES:
        before = rollup.close_before(connection, before)
    statement = insert(connection.dialect.name, retention)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[retention.c.kind],
            set_={"horizon": statement.excluded.horizon, "pruned_at": None},
            where=statement.excluded.horizon > retention.c.horizon,
        ),
        {"kind": kind.value, "horizon": before},
    )
    return before


def _note_pruned(connection: sa.Connection, kind: RetentionKind, now: datetime) -> None:
    connection.execute(sa.update(retention).where(retention.c.kind == kind.value).values(pruned_at=now))


# --- What is due ----------------------------------------------------------------------------------------------

# When a message counts, which is how old it is. Null: only replies, or a code that was used, speak of it.
_MOMENT = sa.case(
    (messages.c.recorded_at.is_(None), sa.func.coalesce(messages.c.reported_at, messages.c.verified_at)),
    else_=AGE_FROM,
)


def _due(
    kind: RetentionKind, before: datetime, plan: Plan
) -> tuple[sa.Table, sa.ColumnElement[Any], list[sa.ColumnElement[bool]]]:
    """Return a kind's table, the column of its age, and the conditions of what goes."""
    match kind:
        case RetentionKind.PUSHES:
            return pushes, pushes.c.received_at, [pushes.c.id < first_id_of(before), _waited_for_by_nobody()]
        case RetentionKind.RECEIPTS | RetentionKind.REPLIES:
            table = receipts if kind is RetentionKind.RECEIPTS else replies
            return table, table.c.last_seen_at, _old_sightings(table, before, plan)
        case RetentionKind.MESSAGES:
            moment = sa.type_coerce(_MOMENT, messages.c.sent_at.type)
            old = sa.or_(moment.is_(None), moment < before)
            return messages, moment, [old, *(sa.not_(kept) for kept in _kept_sightings(plan))]
        case RetentionKind.AUDIT:
            return audit, audit.c.at, [audit.c.at < before]


def _waited_for_by_nobody() -> sa.ColumnElement[bool]:
    """Say of rows of the journal that they came before any that is still to be delivered to a target.

    From the oldest of those on, all stay: to tell row by row would cost a look through what waits, for every batch.
    """
    alive = sa.select(deliveries.c.push_id).where(deliveries.c.push_id.isnot(None), deliveries.c.dead_at.is_(None))
    queued = sa.select(forward_queue.c.push_id).where(forward_queue.c.push_id.isnot(None))
    waiting = sa.union_all(alive, queued).subquery()
    oldest = sa.select(waiting.c.push_id).order_by(waiting.c.push_id).limit(1).scalar_subquery()
    return pushes.c.id < sa.func.coalesce(oldest, _LAST_ID)


_LAST_ID = sa.literal(UUID(int=(1 << 128) - 1), sa.Uuid)


def _old_sightings(table: sa.Table, before: datetime, plan: Plan) -> list[sa.ColumnElement[bool]]:
    conditions = [table.c.received_at < before, table.c.last_seen_at < before]
    if plan.readers is not None:
        conditions.append(table.c.id <= _read_up_to(table, plan.readers))
    return conditions


def _read_up_to(table: sa.Table, readers: Position) -> int:
    return readers.receipt_id if table is receipts else readers.reply_id


def _kept_sightings(plan: Plan) -> Iterator[sa.ColumnElement[bool]]:
    """Say of messages whether receipts or replies of them are to be kept, which keep them too."""
    for kind, table in ((RetentionKind.RECEIPTS, receipts), (RetentionKind.REPLIES, replies)):
        before = plan.cutoffs.get(kind)
        kept: sa.ColumnElement[bool] = sa.true()
        if before is not None:
            kept = sa.not_(sa.and_(*_old_sightings(table, before, plan)))
        yield sa.exists().where(table.c.message_id == messages.c.id, kept)


# --- Batches --------------------------------------------------------------------------------------------------


class _Pace:
    """How many rows go at once, and how long to rest after them: as long as they took."""

    def __init__(self) -> None:
        self.rows = _BATCH_ROWS

    def parts(self, ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Part ids into batches, each as large as it is to be by then."""
        begin = 0
        while begin < len(ids):
            part = ids[begin : begin + self.rows]
            begin += len(part)
            yield part

    def spend(self, work: Callable[[], int]) -> int:
        """Do one batch, rest, and give its rows."""
        begun = time.monotonic()
        rows = work()
        passed = time.monotonic() - begun
        if passed > _BATCH_SECONDS:
            self.rows = max(self.rows // 2, 10)
        elif passed < _BATCH_SECONDS / 2:
            self.rows = min(self.rows * 2, _BATCH_ROWS_MAX)
        time.sleep(passed)
        return rows


def _prune_pushes(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    pace = _Pace()
    _, _, where = _due(RetentionKind.PUSHES, before, plan)
    after = None
    while True:
        # By its id from the last on: what was just deleted is not waded through again.
        page = sa.select(pushes.c.id).where(*where).order_by(pushes.c.id).limit(pace.rows)
        with database.reading() as connection:
            ids = list(connection.scalars(page if after is None else page.where(pushes.c.id > after)))
        if not ids:
            return
        after = ids[-1]
        within = pushes.c.id.between(ids[0], after)
        yield pace.spend(lambda within=within: _delete(database, pushes, [within, *where]))  # type: ignore[misc]


def _prune_receipts(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    yield from _prune_sightings(database, receipts, _old_sightings(receipts, before, plan), before)


def _prune_replies(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    yield from _prune_sightings(database, replies, _old_sightings(replies, before, plan), before)


def _prune_sightings(
    database: Database, table: sa.Table, where: list[sa.ColumnElement[bool]], before: datetime
) -> Iterator[int]:
    pace = _Pace()
    for page in _pages(database, sa.select(table.c.id, table.c.received_at), table.c.id):
        old = [row.id for row in page if row.received_at < before]
        if not old:
            return  # ids go nearly with the time; what stands out of line goes another day
        for ids in pace.parts(old):
            condition = [table.c.id.in_(ids), *where]
            yield pace.spend(lambda condition=condition: _delete(database, table, condition))  # type: ignore[misc]


def _prune_messages(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    pace = _Pace()
    for page in _old_messages(database, before):
        for ids in pace.parts(page):
            yield pace.spend(lambda ids=ids: _delete_messages(database, ids, before, plan))  # type: ignore[misc]
    yield from _prune_attempts(database, before)


def _old_messages(database: Database, before: datetime) -> Iterator[list[int]]:
    """Return the ids of messages of before that time, in pages."""
    recorded = messages.c.recorded_at.isnot(None)
    query = sa.select(messages.c.id, AGE_FROM.label("moment")).where(recorded, before > AGE_FROM)
    last: Any = None
    while True:  # by the index of their times
        page = query if last is None else query.where(sa.tuple_(AGE_FROM, messages.c.id) > (last.moment, last.id))
        with database.reading() as connection:
            rows = connection.execute(page.order_by(AGE_FROM, messages.c.id).limit(_PAGE_ROWS)).all()
        if not rows:
            break
        last = rows[-1]
        yield [row.id for row in rows]
    unmatched = sa.select(messages.c.id, messages.c.reported_at).where(messages.c.recorded_at.is_(None))
    for found in _pages(database, unmatched, messages.c.id):
        old = [row.id for row in found if row.reported_at is None or row.reported_at < before]
        if not old:
            return
        yield old


def _delete_messages(database: Database, ids: Collection[int], before: datetime, plan: Plan) -> int:
    _, _, where = _due(RetentionKind.MESSAGES, before, plan)

    def work(connection: sa.Connection) -> int:
        tasks: set[tuple[str, str]] = set()
        # Of those whom somebody is just writing to, a receipt may come: they wait for the next time.
        locked = sa.select(messages.c.id, messages.c.account, messages.c.task_id).where(messages.c.id.in_(ids))
        locked = locked.order_by(messages.c.task_id, messages.c.mobile, messages.c.account)
        if any_masked := bool(connection.scalar(_ANY_MASKED)):
            found = connection.execute(locked).all()
            tasks = {(row.account, row.task_id) for row in found if row.task_id is not None}
            lock_tasks(connection, tasks, shared=True)
        mine = [row.id for row in connection.execute(locked.with_for_update(skip_locked=True))]
        # Asked once they are ours: nobody adds a receipt to one meanwhile.
        going = list(connection.scalars(sa.select(messages.c.id).where(messages.c.id.in_(mine), *where)))
        if not going:
            return 0
        delete_messages(connection, going)
        if any_masked:
            match_recorded(connection, tasks)
        return len(going)

    return database.write(work)


_ANY_MASKED = sa.select(sa.or_(*(sa.exists().where(masked_of_task_where(table)) for table in (receipts, replies))))


def delete_messages(connection: sa.Connection, ids: Collection[int] | sa.Select[tuple[int]]) -> None:
    """Delete messages that the caller has locked, with their receipts and replies."""
    for column in (receipts.c.message_id, replies.c.message_id, messages.c.id):
        connection.execute(sa.delete(column.table).where(column.in_(ids)))


def _prune_attempts(database: Database, before: datetime) -> Iterator[int]:
    """Delete the notes of sends whose messages are gone; they count as none of anybody's rows."""
    pace = _Pace()
    gone = sa.not_(sa.exists().where(messages.c.id == attempts.c.message_id))
    query = sa.select(attempts.c.id).where(attempts.c.id < first_id_of(before))
    for page in _pages(database, query, attempts.c.id):
        for ids in pace.parts([row.id for row in page]):
            condition = [attempts.c.id.in_(ids), gone]
            pace.spend(lambda condition=condition: _delete(database, attempts, condition))  # type: ignore[misc]
            yield 0


def _prune_audit(database: Database, before: datetime, _plan: Plan) -> Iterator[int]:
    while gone := database.write(lambda connection: prune_audit(connection, before)):
        yield gone


_BATCHES: Mapping[RetentionKind, Callable[[Database, datetime, Plan], Iterator[int]]] = {
    RetentionKind.PUSHES: _prune_pushes,
    RetentionKind.RECEIPTS: _prune_receipts,
    RetentionKind.REPLIES: _prune_replies,
    RetentionKind.MESSAGES: _prune_messages,
    RetentionKind.AUDIT: _prune_audit,
}


def _pages(database: Database, query: sa.Select[Any], by: sa.ColumnElement[Any]) -> Iterator[list[Any]]:
    """Read a query in the order of its id, a page at a time, each in a transaction of its own."""
    last = None
    while True:
        page = query if last is None else query.where(by > last)
        with database.reading() as connection:
            rows = list(connection.execute(page.order_by(by).limit(_PAGE_ROWS)))
        if not rows:
            return
        last = rows[-1].id
        yield rows


def _delete(database: Database, table: sa.Table, conditions: list[sa.ColumnElement[bool]]) -> int:
    return database.write(lambda connection: connection.execute(sa.delete(table).where(*conditions)).rowcount)
