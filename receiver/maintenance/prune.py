"""Retention: deletes rows of the journal, receipts, replies, messages and audit log past their age limits.

A prune first moves the horizon of a kind in its own transaction: rows missing before it are no fault from then on, and
the report periods before it are closed (`rollup`). Then it deletes rows in small batches, each a transaction followed
by a pause as long. So it can be killed at any time and run again.

A journal row ages by its id, which contains its arrival; a receipt or reply by the time it was last seen, so that each
copy in the journal has its row; a message by the time the report counts it, and only once none of its receipts and
replies is to stay. Its remaining ones are deleted with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.audit import prune_audit
from receiver.core import first_id_of
from receiver.db.engine import Database, insert, lift_statement_timeout
from receiver.db.tables import (
    AGE_FROM,
    attempts,
    audit,
    deliveries,
    forward_queue,
    masked_of_task_where,
    messages,
    notes,
    projection,
    pushes,
    receipts,
    replies,
    retention,
)
from receiver.maintenance.pages import iter_pages, reading_each
from receiver.maintenance.retention import RetentionKind
from receiver.messages.projection import lock_tasks
from receiver.messages.projector import catch_up
from receiver.messages.recording import match_recorded
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from receiver.messages.events import Position


_PAGE_ROWS = 5000  # rows read at once to find old ones
_BATCH_SECONDS = 0.05  # target duration of a transaction: a push waits at most 0.4 s
_BATCH_ROWS, _BATCH_ROWS_MAX = 200, 1000
# A push that was spooled this long may have been saved after, and pruned before, a later copy of it.
OUT_OF_ORDER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a prune."""

    kinds: tuple[RetentionKind, ...]
    cutoffs: Mapping[RetentionKind, datetime]  # of each kind with an age limit: older rows are deleted
    readers: Position | None = None  # later receipts and replies stay for readers of events; None: no readers


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """The rows of one kind that are due."""

    kind: RetentionKind
    before: datetime
    rows: int
    oldest: datetime | None
    newest: datetime | None
    bytes: int | None  # of bodies and queries; None: unknown


def look(connection: sa.Connection, plan: Plan) -> list[Due]:
    """Return what `prune` would delete. Reads every such row: minutes for many millions."""
    lift_statement_timeout(connection)
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
    on_progress: Callable[[RetentionKind, int], None] = lambda _kind, _rows: None,
) -> dict[RetentionKind, int]:
    """Delete what is due and return the rows by kind. `on_progress` is called after each batch.

    In the order of RetentionKind: each kind stays complete from its horizon on if the prune is interrupted.
    Raises DatabaseUnavailable or DatabaseMisconfigured.
    """
    catch_up(database)
    gone = {}
    for kind in RetentionKind:
        if kind not in plan.kinds:
            continue
        before = database.write(lambda connection, kind=kind: _move_horizon(connection, kind, plan.cutoffs[kind]))  # type: ignore[misc]
        gone[kind] = 0
        for rows in _BATCHES[kind](database, before, plan):
            gone[kind] += rows
            on_progress(kind, rows)
        database.write(lambda connection, kind=kind: _record_pruned(connection, kind, now()))  # type: ignore[misc]
    return gone


# --- Horizons -------------------------------------------------------------------------------------------------


def _move_horizon(connection: sa.Connection, kind: RetentionKind, before: datetime) -> datetime:
    """Move the horizon of a kind and return the time before which to delete rows."""
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


def _record_pruned(connection: sa.Connection, kind: RetentionKind, now: datetime) -> None:
    connection.execute(sa.update(retention).where(retention.c.kind == kind.value).values(pruned_at=now))


# --- What is due ----------------------------------------------------------------------------------------------

# The time at which the report counts a message. Null: it has only replies or a used code.
_MOMENT = sa.case(
    (messages.c.recorded_at.is_(None), sa.func.coalesce(messages.c.reported_at, messages.c.verified_at)),
    else_=AGE_FROM,
)


def _due(
    kind: RetentionKind, before: datetime, plan: Plan
) -> tuple[sa.Table, sa.ColumnElement[Any], list[sa.ColumnElement[bool]]]:
    """Return a kind's table, its age column, and the conditions of due rows."""
    match kind:
        case RetentionKind.PUSHES:
            projected = pushes.c.sequence <= sa.select(projection.c.position).scalar_subquery()
            where = [sa.or_(pushes.c.sequence.is_(None), projected), _before_pending_deliveries()]
            return pushes, pushes.c.received_at, [pushes.c.id < first_id_of(before), *where]
        case RetentionKind.RECEIPTS | RetentionKind.REPLIES:
            table = receipts if kind is RetentionKind.RECEIPTS else replies
            return table, table.c.last_seen_at, _old_events(table, before, plan)
        case RetentionKind.MESSAGES:
            moment = sa.type_coerce(_MOMENT, messages.c.sent_at.type)
            old = sa.or_(moment.is_(None), moment < before)
            return messages, moment, [old, *(sa.not_(kept) for kept in _staying_events(plan))]
        case RetentionKind.AUDIT:
            return audit, audit.c.at, [audit.c.at < before]


def _before_pending_deliveries() -> sa.ColumnElement[bool]:
    """Return the condition for journal rows older than every push with a pending delivery.

    All rows from the oldest pending one on stay: checking each row would search the pending deliveries in every batch.
    """
    alive = sa.select(deliveries.c.push_id).where(deliveries.c.push_id.isnot(None), deliveries.c.dead_at.is_(None))
    queued = sa.select(forward_queue.c.push_id).where(forward_queue.c.push_id.isnot(None))
    waiting = sa.union_all(alive, queued).subquery()
    oldest = sa.select(waiting.c.push_id).order_by(waiting.c.push_id).limit(1).scalar_subquery()
    return pushes.c.id < sa.func.coalesce(oldest, _LAST_ID)


_LAST_ID = sa.literal(UUID(int=(1 << 128) - 1), sa.Uuid)


def _old_events(table: sa.Table, before: datetime, plan: Plan) -> list[sa.ColumnElement[bool]]:
    conditions = [table.c.received_at < before, table.c.last_seen_at < before]
    if plan.readers is not None:
        conditions.append(table.c.id <= _read_up_to(table, plan.readers))
    return conditions


def _read_up_to(table: sa.Table, readers: Position) -> int:
    return readers.receipt_id if table is receipts else readers.reply_id


def _staying_events(plan: Plan) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions for messages with receipts or replies that stay, so the message must stay too."""
    for kind, table in ((RetentionKind.RECEIPTS, receipts), (RetentionKind.REPLIES, replies)):
        before = plan.cutoffs.get(kind)
        kept: sa.ColumnElement[bool] = sa.true()
        if before is not None:
            kept = sa.not_(sa.and_(*_old_events(table, before, plan)))
        yield sa.exists().where(table.c.message_id == messages.c.id, kept)


# --- Batches --------------------------------------------------------------------------------------------------


class _Pace:
    """Controls the batch size, and pauses after each batch for as long as it took."""

    def __init__(self) -> None:
        self.rows = _BATCH_ROWS

    def parts(self, ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yield batches of ids, each of the present batch size."""
        begin = 0
        while begin < len(ids):
            part = ids[begin : begin + self.rows]
            begin += len(part)
            yield part

    def spend(self, work: Callable[[], int]) -> int:
        """Run one batch, pause, and return its rows."""
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
        # Continue after the last id: deleted rows are not scanned again.
        page = sa.select(pushes.c.id).where(*where).order_by(pushes.c.id).limit(pace.rows)
        with database.reading() as connection:
            ids = list(connection.scalars(page if after is None else page.where(pushes.c.id > after)))
        if not ids:
            return
        after = ids[-1]
        within = pushes.c.id.between(ids[0], after)
        yield pace.spend(lambda within=within: _delete(database, pushes, [within, *where]))  # type: ignore[misc]


def _prune_receipts(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    yield from _prune_events(database, receipts, _old_events(receipts, before, plan), before)


def _prune_replies(database: Database, before: datetime, plan: Plan) -> Iterator[int]:
    yield from _prune_events(database, replies, _old_events(replies, before, plan), before)


def _prune_events(
    database: Database, table: sa.Table, where: list[sa.ColumnElement[bool]], before: datetime
) -> Iterator[int]:
    pace = _Pace()
    for page in iter_pages(reading_each(database), sa.select(table.c.id, table.c.received_at), table.c.id, _PAGE_ROWS):
        old = [row.id for row in page if row.received_at < before]
        if not old:
            return  # ids nearly follow the time; outliers are deleted by a later prune
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
    """Yield pages of ids of messages older than `before`."""
    recorded = messages.c.recorded_at.isnot(None)
    query = sa.select(messages.c.id, AGE_FROM.label("moment")).where(recorded, before > AGE_FROM)
    last: Any = None
    while True:  # uses the index on their times
        page = query if last is None else query.where(sa.tuple_(AGE_FROM, messages.c.id) > (last.moment, last.id))
        with database.reading() as connection:
            rows = connection.execute(page.order_by(AGE_FROM, messages.c.id).limit(_PAGE_ROWS)).all()
        if not rows:
            break
        last = rows[-1]
        yield [row.id for row in rows]
    unmatched = sa.select(messages.c.id, messages.c.reported_at).where(messages.c.recorded_at.is_(None))
    for found in iter_pages(reading_each(database), unmatched, messages.c.id, _PAGE_ROWS):
        old = [row.id for row in found if row.reported_at is None or row.reported_at < before]
        if not old:
            return
        yield old


def _delete_messages(database: Database, ids: Collection[int], before: datetime, plan: Plan) -> int:
    _, _, where = _due(RetentionKind.MESSAGES, before, plan)

    def work(connection: sa.Connection) -> int:
        tasks: set[tuple[str, str]] = set()
        # Skip rows that others have locked: a receipt may be arriving. The next prune takes them.
        locked = sa.select(messages.c.id, messages.c.account, messages.c.task_id).where(messages.c.id.in_(ids))
        locked = locked.order_by(messages.c.task_id, messages.c.mobile, messages.c.account)
        if any_masked := bool(connection.scalar(_ANY_MASKED)):
            found = connection.execute(locked).all()
            tasks = {(row.account, row.task_id) for row in found if row.task_id is not None}
            lock_tasks(connection, tasks, shared=True)
        mine = [row.id for row in connection.execute(locked.with_for_update(skip_locked=True))]
        # Check after locking: no receipt can be added meanwhile.
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
    """Delete messages that the caller has locked, with their receipts, replies and notes."""
    for column in (receipts.c.message_id, replies.c.message_id, notes.c.message_id, messages.c.id):
        connection.execute(sa.delete(column.table).where(column.in_(ids)))


def _prune_attempts(database: Database, before: datetime) -> Iterator[int]:
    """Delete the attempts whose messages are gone; yields 0 rows, since they are not reported."""
    pace = _Pace()
    gone = sa.not_(sa.exists().where(messages.c.id == attempts.c.message_id))
    query = sa.select(attempts.c.id).where(attempts.c.id < first_id_of(before))
    for page in iter_pages(reading_each(database), query, attempts.c.id, _PAGE_ROWS):
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


def _delete(database: Database, table: sa.Table, conditions: list[sa.ColumnElement[bool]]) -> int:
    return database.write(lambda connection: connection.execute(sa.delete(table).where(*conditions)).rowcount)
