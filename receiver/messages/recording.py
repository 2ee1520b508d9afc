"""Records of sends, merged with what pushes have reported of the same messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import (
    RECORDED_FIELDS,
    MessageStatus,
    SentMessage,
)
from receiver.db.encryption import cipher_of, mobile_token
from receiver.db.engine import insert
from receiver.db.tables import (
    REFUSED_KEY_WHERE,
    masked_of_task_where,
    messages,
    receipts,
    replies,
)
from receiver.messages import outbox
from receiver.messages.balance import Reading, save_readings
from receiver.messages.projection import Row, Task, lock_tasks, match_inbound_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from receiver.db.encryption.ciphers import FieldCipher


class Recorded(StrEnum):
    """The result of recording a send."""

    NEW = "new"
    FILLED = "filled"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordResult:
    """The result of one record, and its message."""

    outcome: Recorded
    message_id: int
    differing: tuple[str, ...] = ()  # fields given with another value than the stored one: nothing was changed


def record_sent(
    connection: sa.Connection, sends: Sequence[SentMessage], *, recorded_at: datetime
) -> list[RecordResult]:
    """Record sends; return one result for each, in their order.

    A recorded send is no change, or fills nulls; a different value is a conflict for that send alone. A message that
    only pushes have created is joined.
    """
    tasks = {(send.account, send.task_id) for send in sends if send.task_id is not None}
    lock_tasks(connection, tasks, shared=True)
    stored = _insert_sends(connection, sends, recorded_at)
    results: list[RecordResult] = []
    changed: dict[tuple[str, ...], Row] = {}
    for send in sends:
        row = stored[send.key]
        outcome, additions, differing = _compare(row, send, recorded_at)
        if additions:
            stored[send.key] = row | additions | {"inserted": False}
            changed[send.key] = stored[send.key]
        results.append(RecordResult(outcome=outcome, message_id=row["id"], differing=differing))
        if row["inserted"]:
            stored[send.key] = row | {"inserted": False}
    if changed:
        columns = (*RECORDED_FIELDS, "recorded_at")
        connection.execute(
            sa.update(messages).where(messages.c.id == sa.bindparam("message_id")),
            [
                {"message_id": row["id"], **{name: row[name] for name in columns}}
                for row in sorted(changed.values(), key=lambda row: row["id"])
            ],
        )
    match_recorded(connection, tasks)
    pairs = zip(sends, results, strict=True)
    new = {result.message_id for send, result in pairs if result.outcome is Recorded.NEW and not send.refused}
    outbox.add_sends(connection, new)
    told = (send for send, result in zip(sends, results, strict=True) if result.outcome in _ADDS)
    save_readings(connection, filter(None, map(_reading_of, told)))
    return results


def _lock_order(key: tuple[str, ...], cipher: FieldCipher | None) -> tuple[str, ...]:
    """Return the sort key in which messages are locked: task id, number as it is stored, account."""
    return key if cipher is None else (key[0], mobile_token(cipher, key[1]), *key[2:])


_ADDS = frozenset({Recorded.NEW, Recorded.FILLED})
# A sender's record has only the time of sending: the answer is assumed to have come within this time.
_ANSWERED_WITHIN = timedelta(seconds=5)


def _reading_of(send: SentMessage) -> Reading | None:
    """Return the balance in a record."""
    if send.remain_point is None or send.sent_at is None:
        return None
    return Reading(
        account=send.account,
        asked_at=send.sent_at,
        answered_at=send.sent_at + _ANSWERED_WITHIN,
        remain_point=send.remain_point,
    )


def _insert_sends(
    connection: sa.Connection, sends: Sequence[SentMessage], recorded_at: datetime
) -> dict[tuple[str, ...], Row]:
    """Insert the sends that have no row yet; return the row of every send, locked, by its key."""
    first = {send.key: send for send in reversed(sends)}
    found: dict[tuple[str, ...], Row] = {}
    for refused in (False, True):
        keys = sorted(first, key=lambda key: _lock_order(key, cipher_of(connection.dialect)))
        group = {key: first[key] for key in keys if first[key].refused == refused}
        # Again where the row that stood in the way went into another one before it could be locked (`attempts`).
        while missing := {key: send for key, send in group.items() if key not in found}:
            inserted = connection.execute(
                _send_insert(connection.dialect.name, refused=refused),
                [_sent_row(send, recorded_at) for send in missing.values()],
            )
            for row in inserted.mappings():
                key = _key_of(row)
                found[key] = _sent_row(group[key], recorded_at) | {"id": row["id"], "inserted": True}
            there = [send for key, send in missing.items() if key not in found]
            found |= _stored_sends(connection, there, refused=refused)
    return found


@cache
def _send_insert(dialect: str, *, refused: bool) -> Any:
    column = messages.c
    key = (column.mobile, column.reference, column.sent_at) if refused else (column.task_id, column.mobile)
    statement = insert(dialect, messages)
    # What is there already is locked as it is come to, and not changed: locked afterwards, it would be out of order.
    statement = statement.on_conflict_do_update(
        index_elements=[*key, column.account],
        index_where=REFUSED_KEY_WHERE if refused else None,
        set_={"mobile": statement.excluded.mobile},
        where=sa.false(),
    )
    return statement.returning(*_key_columns(), column.id)


def _stored_sends(
    connection: sa.Connection, sends: Sequence[SentMessage], *, refused: bool
) -> dict[tuple[str, ...], Row]:
    if not sends:
        return {}
    if refused:
        key = sa.tuple_(messages.c.mobile, messages.c.reference, messages.c.sent_at, messages.c.account)
        values = [(send.mobile, send.reference, send.sent_at, send.account) for send in sends]
        condition = sa.and_(key.in_(values), REFUSED_KEY_WHERE)
    else:
        key = sa.tuple_(messages.c.task_id, messages.c.mobile, messages.c.account)
        condition = key.in_([(send.task_id, send.mobile, send.account) for send in sends])
    query = sa.select(messages).where(condition)
    # Tokens in the order in which Python sorts them, whatever the database's.
    mobile = messages.c.mobile.collate("C") if cipher_of(connection.dialect) else messages.c.mobile
    if connection.dialect.name == "postgresql":
        query = query.order_by(messages.c.task_id, mobile, messages.c.account).with_for_update()
    return {_key_of(row): {**row, "inserted": False} for row in connection.execute(query).mappings()}


def _key_columns() -> list[sa.Column[Any]]:
    return [messages.c[name] for name in ("account", "task_id", "mobile", "reference", "sent_at")]


def _key_of(row: Any) -> tuple[str, ...]:
    return SentMessage(
        account=row.account,
        task_id=row.task_id,
        mobile=row.mobile,
        reference=row.reference,
        sent_at=row.sent_at,
    ).key


def _sent_row(send: SentMessage, recorded_at: datetime) -> Row:
    return {
        "account": send.account,
        "task_id": send.task_id,
        "mobile": send.mobile,
        "recorded_at": recorded_at,
        "send_state": MessageStatus.REFUSED if send.refused else None,
        **{name: getattr(send, name) for name in RECORDED_FIELDS},
    }


def _compare(row: Row, send: SentMessage, recorded_at: datetime) -> tuple[Recorded, Row, tuple[str, ...]]:
    """Compare a record with its row: the result, the values to fill in, the fields that differ."""
    if row["inserted"]:
        return Recorded.NEW, {}, ()
    given = {name: getattr(send, name) for name in RECORDED_FIELDS if getattr(send, name) is not None}
    differing = tuple(name for name, value in given.items() if row[name] is not None and row[name] != value)
    if differing:
        return Recorded.CONFLICT, {}, differing
    additions = {name: value for name, value in given.items() if row[name] is None}
    if row["recorded_at"] is None:
        return Recorded.NEW, additions | {"recorded_at": recorded_at}, ()
    return (Recorded.FILLED if additions else Recorded.UNCHANGED), additions, ()


def record_verified(
    connection: sa.Connection, *, account: str, task_id: str, mobile: str, verified_at: datetime
) -> int:
    """Record that a message's code was used; return the message's id.

    The earliest time wins, in any order of calls.
    """
    statement = insert(connection.dialect.name, messages).values(
        account=account, task_id=task_id, mobile=mobile, verified_at=verified_at
    )
    earlier = sa.or_(messages.c.verified_at.is_(None), statement.excluded.verified_at < messages.c.verified_at)
    statement = statement.on_conflict_do_update(
        index_elements=[messages.c.task_id, messages.c.mobile, messages.c.account],
        set_={"verified_at": sa.case((earlier, statement.excluded.verified_at), else_=messages.c.verified_at)},
    )
    message_id: int = connection.execute(statement.returning(messages.c.id)).scalar_one()
    return message_id


def match_recorded(connection: sa.Connection, tasks: Iterable[Task]) -> None:
    """Match all masked numbers again of tasks whose recorded messages have changed."""
    wanted = sorted((task_id, account) for account, task_id in tasks)
    if not wanted:
        return
    masked: set[tuple[str, str, str]] = set()
    any_masked = connection.execute(_any_masked()).one()
    for table, any_of_table in zip((receipts, replies), any_masked, strict=True):
        if not any_of_table:
            continue  # most platforms never mask: this saves a look-up by a thousand keys
        query = sa.select(table.c.account, table.c.task_id, table.c.masked_mobile).where(
            sa.tuple_(table.c.task_id, table.c.account).in_(wanted), masked_of_task_where(table)
        )
        # Two recordings may share the task: the second to come waits here, and then counts the first one's rows.
        rows = connection.execute(query.order_by(table.c.id).with_for_update())
        masked |= {(row.account, row.task_id, row.masked_mobile) for row in rows}
    match_inbound_events(connection, masked)


@cache
def _any_masked() -> Any:
    return sa.select(*(sa.exists().where(masked_of_task_where(table)) for table in (receipts, replies)))
