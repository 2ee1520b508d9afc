"""Writes to the rows, each in the caller's one transaction: pushes, records of sends, replays.

Locks are taken in one order everywhere, so that writers wait for each other and deadlocks are rare (`Database.write`
retries those): task locks, then messages in the order of their key, then receipts and replies.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import (
    MessageState,
    OptOut,
    Push,
    Receipt,
    Reply,
    Unreadable,
    fold,
    is_masked,
    match_masked,
)
from receiver.db.encryption import FieldCipher, cipher_of
from receiver.db.engine import Database, insert
from receiver.db.tables import (
    TASKLESS_KEY,
    TASKLESS_WHERE,
    full_key,
    masked_key,
    masked_key_where,
    messages,
    pushes,
    receipts,
    replies,
)
from receiver.messages import outbox
from receiver.messages.bulk import content_columns, lock_order, save_plain, save_plain_postgresql, split_plain
from receiver.messages.outbox import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID


Row = dict[str, Any]
MessageKey = tuple[str, str, str]  # task id, number, account: the order of the index
Task = tuple[str, str]  # account, task id

_TASK_LOCK_SLOTS = 64
_TASK_LOCK_SPACE = 0x72637672  # "rcvr": apart from other programs' advisory locks


# --- Pushes -------------------------------------------------------------------------------------------


def save_pushes(connection: sa.Connection, batch: Sequence[Push]) -> None:
    """Save pushes in the journal, with the receipts, replies and message states that follow from them.

    A push that the journal has already is skipped whole, so a batch whose commit is in doubt can be saved again. Within
    the batch and across transactions, any order leads to the same rows.
    """
    plain, rest = split_plain(batch, cipher_of(connection.dialect))
    if plain and not save_plain(connection, plain):
        rest = [*plain, *rest]
    if rest:
        save_general(connection, rest)


def save_pushes_in(database: Database, batch: Sequence[Push]) -> None:
    """Do what `save_pushes` does, in transactions that are as short as the batch allows.

    On PostgreSQL the plain pushes are one, and the rest another: each takes its locks in the common order, and both
    together would not.
    """
    if not database.postgresql:
        database.write(lambda connection: save_pushes(connection, batch))
        return
    cipher = database.cipher()
    plain, rest = split_plain(batch, cipher)
    if plain:
        database.write_at_once(lambda driver: save_plain_postgresql(driver, plain, cipher))
    if rest:
        database.write(lambda connection: save_general(connection, rest))


def save_general(connection: sa.Connection, batch: Sequence[Push]) -> None:
    """Do what `save_pushes` does for pushes of any kind, also several of one message."""
    rows = [_journal_row(push) for push in batch]
    new_ids = set(connection.scalars(_journal_upsert(connection.dialect.name), rows))
    new = [push for push in batch if push.id in new_ids]
    brought = keep_readings(connection, new, counts_copies=True)
    outbox.add(connection, [{"kind": Change.PUSH, "push_id": push.id, **brought.get(push.id, {})} for push in new])


# The statements are built once: building one takes longer than running it.
@cache
def _journal_upsert(dialect: str) -> Any:
    return insert(dialect, pushes).on_conflict_do_nothing(index_elements=[pushes.c.id]).returning(pushes.c.id)


def _journal_row(push: Push) -> Row:
    return {
        "id": push.id,
        "account": push.account,
        "endpoint": push.endpoint,
        "kind": push.kind,
        "outcome": push.outcome,
        "error": push.error,
        "flags": list(push.flags) or None,
        "method": push.method,
        "query": push.query,
        "body": push.body,
        "content_type": push.content_type,
        "remote_addr": push.remote_addr,
        "received_at": push.received_at,
        "reading_digest": push.reading_digest,
    }


def keep_readings(
    connection: sa.Connection, batch: Sequence[Push], *, counts_copies: bool
) -> Mapping[UUID, Mapping[str, int]]:
    """Save what pushes say; return by push its `message_id`, and its new `receipt_id` or `reply_id`."""
    cipher = cipher_of(connection.dialect)
    inbound_events = [_InboundEvent(push, push.reading) for push in batch if not isinstance(push.reading, Unreadable)]
    masked = {
        (event.push.account, event.reading.task_id, event.reading.mobile)
        for event in inbound_events
        if event.belonging is _Belonging.MASKED and event.reading.task_id is not None
    }
    lock_tasks(connection, {(account, task_id) for account, task_id, _ in masked}, shared=False)
    ids = _upsert_messages(connection, inbound_events)
    brought: dict[UUID, dict[str, int]] = defaultdict(dict)
    for event in inbound_events:
        if (key := event.message_key) is not None:
            brought[event.push.id]["message_id"] = ids[key]
    for table, kind in ((receipts, Receipt), (replies, Reply)):
        of_kind = [event for event in inbound_events if isinstance(event.reading, kind)]
        for belonging in _Belonging:
            rows = [event.row(cipher, ids) for event in of_kind if event.belonging is belonging]
            first = _upsert_inbound_events(connection, table, rows, belonging, counts_copies=counts_copies)
            for push_id, row_id in first.items():
                brought[push_id]["receipt_id" if table is receipts else "reply_id"] = row_id
    match_inbound_events(connection, masked)
    return brought


class _Belonging(Enum):
    """Where a receipt or reply belongs: decides where its number is stored, and its key."""

    MESSAGE = auto()
    MASKED = auto()  # of a task: perhaps to a message
    TASKLESS = auto()  # a reply without a task id: to none

    def key(self, table: sa.Table) -> tuple[sa.Column[Any], ...]:
        """Return the columns of the key."""
        match self:
            case _Belonging.MESSAGE:
                return full_key(table)
            case _Belonging.MASKED:
                return masked_key(table)
            case _Belonging.TASKLESS:
                return TASKLESS_KEY

    def key_where(self, table: sa.Table) -> sa.ColumnElement[bool] | None:
        """Return what the key's index is narrowed to."""
        match self:
            case _Belonging.MESSAGE:
                return None
            case _Belonging.MASKED:
                return masked_key_where(table)
            case _Belonging.TASKLESS:
                return TASKLESS_WHERE


@dataclass(frozen=True, slots=True)
class _InboundEvent:
    """One receipt or reply as one push brought it."""

    push: Push
    reading: Receipt | Reply

    @property
    def belonging(self) -> _Belonging:
        if self.reading.task_id is None:
            return _Belonging.TASKLESS
        return _Belonging.MASKED if is_masked(self.reading.mobile) else _Belonging.MESSAGE

    @property
    def message_key(self) -> MessageKey | None:
        """Return the key of the message that it creates or finds; None: neither."""
        if self.reading.task_id is None or is_masked(self.reading.mobile):
            return None
        return (self.reading.task_id, self.reading.mobile, self.push.account)

    def row(self, cipher: FieldCipher | None, ids: Mapping[MessageKey, int]) -> Row:
        key = self.message_key
        row: Row = {
            "message_id": None if key is None else ids[key],
            "masked_mobile": self.reading.mobile if key is None else "",
            "account": self.push.account if key is None else None,
            "task_id": self.reading.task_id if key is None else None,
            "push_id": self.push.id,
            "received_at": self.push.received_at,
            "last_seen_at": self.push.received_at,
            "copies": 1,
            "extra": dict(self.reading.extra) or None,
        }
        if isinstance(self.reading, Receipt):
            return row | {
                "vendor_status": self.reading.vendor_status,
                "reported_at": self.reading.reported_at,
            }
        return row | {
            **content_columns(self.reading, cipher),
            "content_sha256": self.reading.content_sha256,
            "replied_at": self.reading.replied_at,
            "opt_out": self.reading.opt_out is OptOut.YES,
            "opt_out_review": self.reading.opt_out is OptOut.REVIEW,
        }


def _upsert_messages(connection: sa.Connection, inbound_events: Iterable[_InboundEvent]) -> Mapping[MessageKey, int]:
    """Make or find the message of each full number, and fold the batch's receipts into its state."""
    states: dict[MessageKey, MessageState] = defaultdict(MessageState)
    for event in inbound_events:
        if (key := event.message_key) is None:
            continue
        state = states[key]
        if isinstance(event.reading, Receipt):
            state = state.merge(MessageState.of(event.reading))
        states[key] = state
    if not states:
        return {}
    rows = [
        {"task_id": task_id, "mobile": mobile, "account": account, **_state_columns(state)}
        for (task_id, mobile, account), state in sorted(
            states.items(), key=lambda item: lock_order(item[0], cipher_of(connection.dialect))
        )
    ]
    statement = _message_upsert(connection.dialect.name)
    return {(row.task_id, row.mobile, row.account): row.id for row in connection.execute(statement, rows)}


@cache
def _message_upsert(dialect: str) -> Any:
    statement = insert(dialect, messages)
    return statement.on_conflict_do_update(
        index_elements=[messages.c.task_id, messages.c.mobile, messages.c.account],
        set_=_merged_state(statement.excluded),
    ).returning(messages.c.task_id, messages.c.mobile, messages.c.account, messages.c.id)


def _merged_state(incoming: Any) -> dict[str, Any]:
    """`MessageState.merge` in SQL: the state that a message has once `incoming` is added to it."""
    decides = sa.or_(
        messages.c.reported_at.is_(None),
        sa.tuple_(incoming.reported_at, incoming.status) > sa.tuple_(messages.c.reported_at, messages.c.status),
    )
    return {
        "reported_at": sa.case((decides, incoming.reported_at), else_=messages.c.reported_at),
        "status": sa.case((decides, incoming.status), else_=messages.c.status),
        "seen": messages.c.seen.bitwise_or(incoming.seen),
    }


def _state_columns(state: MessageState) -> Row:
    return {"reported_at": state.reported_at, "status": int(state.status), "seen": state.seen}


def _upsert_inbound_events(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Row], belonging: _Belonging, *, counts_copies: bool
) -> Mapping[UUID, int]:
    """Insert new receipts or replies, count copies; return the ids of the new ones by their push."""
    key_columns = belonging.key(table)
    merged: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["push_id"]):
        key = tuple(row[column.name] for column in key_columns)
        first = merged.setdefault(key, row)
        if first is not row:
            first["copies"] += 1
            first["last_seen_at"] = max(first["last_seen_at"], row["last_seen_at"])
    if not merged:
        return {}
    statement = _inbound_event_upsert(connection.dialect.name, table, belonging, counts_copies=counts_copies)
    own = {row["push_id"] for row in merged.values()}
    stored = connection.execute(statement, [merged[key] for key in sorted(merged)])
    return {row.push_id: row.id for row in stored if row.push_id in own}


@cache
def _inbound_event_upsert(dialect: str, table: sa.Table, belonging: _Belonging, *, counts_copies: bool) -> Any:
    statement = insert(dialect, table)
    key_columns, where = belonging.key(table), belonging.key_where(table)
    given = (table.c.id, table.c.push_id)  # the push is that which brought it first
    if not counts_copies:
        return statement.on_conflict_do_nothing(index_elements=key_columns, index_where=where).returning(*given)
    seen_last = sa.case(
        (statement.excluded.last_seen_at > table.c.last_seen_at, statement.excluded.last_seen_at),
        else_=table.c.last_seen_at,
    )
    return statement.on_conflict_do_update(
        index_elements=key_columns,
        index_where=where,
        set_={"copies": table.c.copies + statement.excluded.copies, "last_seen_at": seen_last},
    ).returning(*given)


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


def match_inbound_events(connection: sa.Connection, masked: Iterable[tuple[str, str, str]]) -> None:
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
    refold(connection, touched)


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


def refold(connection: sa.Connection, message_ids: Iterable[int]) -> None:
    """Reduce the receipts of messages that gained or lost a masked one to their state, from the rows."""
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
        [{"message_id": message_id, **_state_columns(state)} for message_id, state in folded.items()],
    )
    changed = [message_id for message_id, state in folded.items() if before.get(message_id) != state.status]
    outbox.add_states(connection, changed)
