"""The projection: from the journal to messages, receipts, replies, their masked matches, and the webhook outbox.

In sets, in the order of the journal. Rows and position move in one commit: so each push counts exactly once, whatever
dies. One projector at a time works on a database, and any process may be it.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import MessageState, Receipt, fold, match_masked
from receiver.db.encryption import cipher_of
from receiver.db.set_aside import ROW_FAULTS
from receiver.db.tables import (
    UNSTAMPED,
    UtcDateTime,
    masked_key_where,
    messages,
    projection,
    receipts,
    replies,
)
from receiver.messages import outbox
from receiver.messages import projection_sql as sql
from receiver.messages.journal import quarantine_next
from receiver.messages.outbox import Change
from receiver.messages.stamps import next_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

Row = dict[str, Any]
Task = tuple[str, str]  # account, task id

BATCH_MAX_PUSHES = 2000
_NO_END = 2**63 - 1
_LATE_COMMIT_SECONDS, _LATE_COMMIT_POLL_SECONDS = 0.2, 0.002
_TASK_LOCK_SLOTS = 64
_TASK_LOCK_SPACE = 0x72637672  # "rcvr": apart from other programs' advisory locks


# --- Turns --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The projector's turn, until the end of the transaction."""

    position: int  # up to which the journal is projected
    stamp: datetime  # for the messages that it changes: later than that of every turn before


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What one turn has projected."""

    pushes: int
    position: int
    more: bool  # there may be more, or a commit is awaited that may still add some
    unstamped: bool | None = False  # there may be messages left that others have changed; None: not known


def project(connection: sa.Connection, *, limit: int = BATCH_MAX_PUSHES, passes_gaps: bool = True) -> Progress | None:
    """Project the next pushes of the journal, at most `limit`. None: another projector is at work.

    `passes_gaps`: as `catch_up` has it.
    """
    turn = take_turn(connection, wait=False)
    if turn is None:
        return None
    position = turn.position
    window = {"after": position, "upto": _NO_END, "limit": limit}
    there = _execute(connection, sql.SUMMARY, sql.NEXT, window).one()
    if not there.pushes:
        return Progress(pushes=0, position=position, more=False)
    more = there.pushes == limit
    if there.pushes < there.upto - position and connection.dialect.name == "postgresql":  # SQLite has one writer
        end, more = _final_end(connection, position, there.upto, passes_gaps=passes_gaps), True
        if end == position:
            return Progress(pushes=0, position=position, more=more)
        # With what has come meanwhile.
        there = _execute(connection, sql.SUMMARY, sql.NEXT, window | {"upto": end}).one()
    _project(connection, sql.NEW, {"after": position, "upto": there.upto}, there, turn.stamp, counts_copies=True)
    connection.execute(sa.update(projection).values(position=there.upto, stamped_at=turn.stamp))
    return Progress(pushes=there.pushes, position=there.upto, more=more)


def project_one(connection: sa.Connection) -> tuple[Progress | None, Exception | None]:
    """Project the next push, and quarantine it if the database refuses what was read in it; return why, if it did.

    In one turn: no other projector has moved on meanwhile, so that an innocent push would be quarantined.
    """
    if take_turn(connection, wait=False) is None:
        return None, None
    try:
        with connection.begin_nested():
            return project(connection, limit=1), None
    except (sa.exc.IntegrityError, *ROW_FAULTS) as error:
        quarantine_next(connection)
        return project(connection, limit=1), error


def take_turn(connection: sa.Connection, *, wait: bool) -> Turn | None:
    """Take the projector's turn. None: another has it, and `wait` is false."""
    row = connection.execute(_turn(connection.dialect.name).with_for_update(skip_locked=not wait)).one_or_none()
    if row is None:
        return None
    now = row.now if connection.dialect.name == "postgresql" else datetime.now(UTC)
    return Turn(position=row.position, stamp=next_stamp(row.stamped_at, now))


@cache
def _turn(dialect: str) -> sa.Select[Any]:
    turn = sa.select(projection.c.position, projection.c.stamped_at)
    if dialect == "postgresql":
        # A plan made while the journal was small must not read all of it once it is large.
        turn = turn.add_columns(sa.func.set_config("enable_seqscan", "off", True))
        turn = turn.add_columns(sa.func.clock_timestamp().label("now"))  # one clock for all nodes
    return turn


def catch_up(connection: sa.Connection, *, passes_gaps: bool = True) -> None:
    """Project all that the journal has at present, in the caller's transaction.

    `passes_gaps` False: in a transaction with one snapshot, which never shows what commits later. It stops before a
    number that may still be committed.
    """
    take_turn(connection, wait=True)
    while (progress := project(connection, passes_gaps=passes_gaps)) is not None and progress.pushes:
        pass


def project_again(connection: sa.Connection, push_id: UUID, *, counts_copies: bool) -> None:
    """Project one push of the journal as a replay has read it. The caller has caught up, and so has the turn."""
    turn = take_turn(connection, wait=True)
    if turn is None:
        return
    there = _execute(connection, sql.SUMMARY, sql.ONE, {"push_id": push_id}).one()
    _project(connection, sql.ONE, {"push_id": push_id}, there, turn.stamp, counts_copies=counts_copies)
    connection.execute(sa.update(projection).values(stamped_at=turn.stamp))


_SEQUENCES = sa.text("SELECT sequence FROM pushes WHERE sequence > :after AND sequence <= :upto ORDER BY sequence")


def _final_end(connection: sa.Connection, after: int, upto: int, *, passes_gaps: bool) -> int:
    """Return up to which sequence no commit can still add one, where some are missing.

    Numbers are given in order and committed in any order, and one whose append failed is missing for good. A gap is
    final once all transactions are gone that may have taken a number when the newest one was read: each holds a lock on
    the journal from before it takes one until it ends.
    """
    appending = set(connection.scalars(_APPENDERS))
    dense = after
    for sequence in connection.scalars(_SEQUENCES, {"after": after, "upto": upto}):
        if sequence != dense + 1:
            break
        dense = sequence
    if dense > after or not passes_gaps:
        return dense
    deadline = time.monotonic() + _LATE_COMMIT_SECONDS
    while appending & set(connection.scalars(_APPENDERS)):
        if time.monotonic() > deadline:
            return after
        time.sleep(_LATE_COMMIT_POLL_SECONDS)
    return upto


_APPENDERS = sa.text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = 'pushes'::regclass"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()"
)


# --- Sets ---------------------------------------------------------------------------------------------


def restore_missing(connection: sa.Connection, *, after: int, upto: int) -> tuple[int, set[int | None]]:
    """Insert the messages, receipts and replies that are missing for pushes of the journal.

    Changes no row, and no webhook gets anything. Return their number, and which messages they belong to.
    """
    changed: set[int | None] = set()
    range_ = {"after": after, "upto": upto}
    inserted: int = _execute(connection, sql.MISSING_MESSAGES, sql.NEW, range_ | {"stamp": UNSTAMPED}).rowcount
    for statement in sql.KEEPING.values():
        of_messages = _execute(connection, f"{statement} RETURNING message_id", sql.NEW, range_).scalars().all()
        changed.update(of_messages)
        inserted += len(of_messages)
    return inserted, changed


def _project(
    connection: sa.Connection, which: str, parameters: Row, there: Any, stamp: datetime, *, counts_copies: bool
) -> None:
    """Project pushes of the journal. `there`: the summary of them."""
    masked: set[tuple[str, str, str]] = set()
    if there.masked:
        masked = {tuple(row) for row in _execute(connection, sql.MASKED_KEYS, which, parameters)}
        lock_tasks(connection, {(account, task_id) for account, task_id, _ in masked}, shared=False)
    if there.of_messages:
        _execute(connection, sql.MESSAGES, which, parameters | {"stamp": stamp})
    for name, statement in (sql.COUNTING if counts_copies else sql.KEEPING).items():
        if getattr(there, name):
            _execute(connection, statement, which, parameters)
    match_inbound_events(connection, masked)
    if there.wanted:
        change = Change.PUSH if which == sql.NEW else Change.READING
        _execute(connection, sql.OUTBOX, which, parameters | {"kind": str(change)})


@cache
def _prepared(text: str, which: str) -> sa.TextClause:
    statement = sa.text(text.replace("{which}", which))
    if which == sql.ONE:
        statement = statement.bindparams(sa.bindparam("push_id", type_=sa.Uuid))
    if ":stamp" in text:
        statement = statement.bindparams(sa.bindparam("stamp", type_=UtcDateTime))
    return statement


def _execute(connection: sa.Connection, text: str, which: str, parameters: Row) -> Any:
    return connection.execute(_prepared(text, which), parameters)


def _state_columns(state: MessageState) -> Row:
    return {"reported_at": state.reported_at, "status": int(state.status), "seen": state.seen}


# --- Masked numbers -----------------------------------------------------------------------------------


def lock_tasks(connection: sa.Connection, tasks: Iterable[Task], *, shared: bool) -> None:
    """Make masked pushes and recordings of the same task take turns, until the end of the transaction.

    They have no row to meet on. Recordings do not disturb each other (shared); a masked push waits for them and
    they for it, so that the later one sees both sides. SQLite has one writer anyway.
    """
    if connection.dialect.name != "postgresql":
        return
    lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    slots = {zlib.crc32("\0".join(task).encode()) % _TASK_LOCK_SLOTS for task in tasks}
    for slot in sorted(slots):
        connection.execute(sa.select(lock(_TASK_LOCK_SPACE, slot)))


def match_inbound_events(
    connection: sa.Connection, masked: Iterable[tuple[str, str, str]], *, notifies: bool = True
) -> None:
    """Match masked numbers (account, task id, number) to their messages again."""
    touched: set[int] = set()
    for account, task_id, mobile in sorted(masked):
        decided = _matching_message(connection, account, task_id, mobile)
        for table in (receipts, replies):
            of_number = sa.and_(
                table.c.task_id == task_id,
                table.c.account == account,
                table.c.masked_mobile == mobile,
                masked_key_where(table),
                table.c.message_id.is_distinct_from(decided),
            )
            before = connection.scalars(sa.select(table.c.message_id).where(of_number).with_for_update()).all()
            if before:
                connection.execute(sa.update(table).where(of_number).values(message_id=decided))
                touched |= {message_id for message_id in (*before, decided) if message_id is not None}
    refold(connection, touched, notifies=notifies)


def _matching_message(connection: sa.Connection, account: str, task_id: str, masked: str) -> int | None:
    query = sa.select(messages.c.id, messages.c.mobile).where(
        messages.c.task_id == task_id, messages.c.account == account, messages.c.recorded_at.isnot(None)
    )
    if cipher_of(connection.dialect) is None:  # else all numbers of the task are decrypted and tried
        known_prefix = masked.partition("*")[0]
        query = query.where(
            messages.c.mobile >= known_prefix,
            messages.c.mobile < known_prefix + ":",  # the character after 9
            messages.c.mobile.like(masked.replace("*", "_")),
        ).limit(2)
    return match_masked(masked, [(row.id, row.mobile) for row in connection.execute(query)])


def refold(connection: sa.Connection, message_ids: Iterable[int], *, notifies: bool = True) -> None:
    """Reduce the receipts of messages to their state, from the rows. `notifies`: webhooks get states that changed.

    They get a new stamp, whether their state changes or not: their receipts have, or their replies.
    """
    ids = sorted(message_ids)
    if not ids:
        return
    # Writers of a receipt lock its message's row first: once we hold it, all its receipts are visible.
    locked = sa.select(messages.c.id, messages.c.status).where(messages.c.id.in_(ids))
    before = {row.id: row.status for row in connection.execute(locked.order_by(messages.c.id).with_for_update())}
    states: dict[int, list[Receipt]] = {message_id: [] for message_id in ids}
    query = sa.select(receipts.c.message_id, receipts.c.vendor_status, receipts.c.reported_at)
    for row in connection.execute(query.where(receipts.c.message_id.in_(ids))):
        states[row.message_id].append(
            Receipt(mobile="", task_id="", vendor_status=row.vendor_status, reported_at=row.reported_at)
        )
    folded = {message_id: fold(found) for message_id, found in states.items()}
    connection.execute(
        sa.update(messages).where(messages.c.id == sa.bindparam("message_id")),
        [
            {"message_id": message_id, **_state_columns(state), "updated_at": UNSTAMPED}
            for message_id, state in folded.items()
        ],
    )
    changed = [message_id for message_id, state in folded.items() if before.get(message_id) != state.status]
    if notifies:
        outbox.add_states(connection, changed)
