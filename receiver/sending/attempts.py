"""Requests to send: noted before they go out, and again with what the platform said.

The note makes the message's row, without a task id. Its receipt may come before the answer that names the task id,
and then has made a row of its own: the two become one, under the id of the note, as soon as the task id is known.
Both records may be repeated and may come in any order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import (
    LOCAL_LIMIT,
    RECORDED_FIELDS,
    SENDING_MAX,
    MessageStatus,
    ReceiverError,
    SendAttempt,
    SendResult,
    first_id_of,
)
from receiver.db.engine import SerializationConflict, insert
from receiver.db.sql import no_later, still_lasts
from receiver.db.tables import attempts, masked_of_task_where, messages, receipts, replies
from receiver.messages import Reading, match_recorded, outbox, save_readings
from receiver.messages.projection import lock_tasks

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

CUT_OFF = "the process that sent it ended before it knew the outcome"
KEY_LIFE = timedelta(hours=24)
_NUMBER_LOCK_SPACE = 0x7263766E  # "rcvn": apart from other programs' advisory locks
# An attempt lasts half a minute: what a dead process has left is among the newest, however long nobody was there.
_LOOKED_AT_MAX = 2000
_OPEN_STATES = (MessageStatus.SENDING, MessageStatus.OUTCOME_UNKNOWN)  # a result may still come


class KeyReused(ReceiverError):
    """An Idempotency-Key that was given before, for another request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyClaim:
    """An Idempotency-Key: the same caller's same key is the same request."""

    caller: str
    key: str
    fingerprint: bytes  # of what was asked for, keyed so that nobody who reads the database can guess the code


@dataclass(frozen=True, kw_only=True, slots=True)
class SendLimits:
    """How often a number, or an account, is sent to. 0: as often as asked for."""

    min_interval: timedelta = timedelta(0)
    per_number_per_day: int = 0
    per_day: int = 0

    @property
    def any(self) -> bool:
        """Return whether there is any limit."""
        return bool(self.min_interval or self.per_number_per_day or self.per_day)


NO_LIMITS = SendLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptState:
    """Where an attempt stands."""

    id: UUID
    message_id: int
    begun_at: datetime
    state: MessageStatus | None  # SENDING, REFUSED, OUTCOME_UNKNOWN; None: the platform took it
    error_message: str | None
    repeated: bool = False  # found under its Idempotency-Key: nothing is to be sent


def begin_attempt(
    connection: sa.Connection,
    attempt: SendAttempt,
    *,
    recorded_at: datetime,
    day_began: datetime,
    claim: IdempotencyClaim | None = None,
    limits: SendLimits = NO_LIMITS,
) -> AttemptState:
    """Note an attempt before it goes out. SENDING: it may; `repeated`: it went out before, and this is its state.

    Where a limit is reached it is noted as REFUSED, with the limit in its words. `day_began`: when the present day of
    the daily limits did. Raises KeyReused.
    """
    if limits.any:
        _take_turns(connection, attempt)
    message_id = _insert(connection, attempt, recorded_at, claim)
    if message_id is None:
        return replace(_first_of(connection, attempt, claim), repeated=True)
    state, words = MessageStatus.SENDING, None
    if limits.any and (words := _limit_reached(connection, attempt, message_id, limits, day_began)) is not None:
        state = MessageStatus.REFUSED
        connection.execute(_set_state(), {"message_id": message_id, "new_state": state, "words": words})
        outbox.add_states(connection, [message_id])
    return AttemptState(id=attempt.id, message_id=message_id, begun_at=recorded_at, state=state, error_message=words)


def finish_attempt(
    connection: sa.Connection, attempt: SendAttempt, result: SendResult, *, recorded_at: datetime
) -> int:
    """Record what became of an attempt, whether or not its beginning is noted; give its message's id.

    Only an open one is changed: a late answer to one whose outcome was unknown settles it. Raises Overtaken.
    """
    tasks = set() if result.task_id is None else {(attempt.account, result.task_id)}
    lock_tasks(connection, tasks, shared=True)
    message_id = _finish_at_once(connection, attempt, result) if tasks else None
    if message_id is None:
        row = _find_locked(connection, attempt)
        if row is None:
            _insert(connection, attempt, recorded_at, None)
            row = _find_locked(connection, attempt)
        message_id = row.id
        if row.send_state in _OPEN_STATES and tasks:
            _take_task_id(connection, row, result)
            match_recorded(connection, tasks)
        elif row.send_state in _OPEN_STATES:
            new = {"message_id": row.id, "new_state": result.state, "words": result.error_message}
            connection.execute(_set_state(), new)
            outbox.add_states(connection, [message_id])
    if result.remain_point is not None:
        reading = Reading(
            account=attempt.account,
            asked_at=attempt.sent_at,
            answered_at=result.answered_at,
            remain_point=result.remain_point,
        )
        save_readings(connection, [reading])
    return message_id


def find_attempt(connection: sa.Connection, attempt_id: UUID, *, now: datetime) -> AttemptState:
    """Return the state of an attempt that is noted; one that was cut off is OUTCOME_UNKNOWN."""
    found = _state_of(connection, attempt_id)
    if found.state is MessageStatus.SENDING and now - found.begun_at > SENDING_MAX:
        return replace(found, state=MessageStatus.OUTCOME_UNKNOWN, error_message=CUT_OFF)
    return found


def find_cut_off(connection: sa.Connection, *, now: datetime) -> list[int]:
    """Return the messages whose attempt is noted as under way and cannot be any more, among the newest attempts."""
    newest = (
        sa.select(attempts.c.message_id)
        .where(attempts.c.id < first_id_of(now - SENDING_MAX))
        .order_by(attempts.c.id.desc())
        .limit(_LOOKED_AT_MAX)
        .subquery()
    )
    query = (
        sa.select(messages.c.id)
        .join(newest, newest.c.message_id == messages.c.id)
        .where(messages.c.send_state == MessageStatus.SENDING.value)
    )
    return list(connection.scalars(query))


def end_cut_off(connection: sa.Connection, message_id: int) -> None:
    """Record of an attempt that is still under way that nobody knows its outcome. A late answer settles it yet."""
    cut_off = (
        sa.update(messages)
        .where(messages.c.id == message_id, messages.c.send_state == MessageStatus.SENDING.value)
        .values(send_state=MessageStatus.OUTCOME_UNKNOWN.value, error_message=CUT_OFF)
        .returning(messages.c.id)
    )
    if connection.scalar(cut_off) is not None:
        outbox.add_states(connection, [message_id])


# --- The note -----------------------------------------------------------------------------------------


def _insert(
    connection: sa.Connection, attempt: SendAttempt, recorded_at: datetime, claim: IdempotencyClaim | None
) -> int | None:
    """Make the row of an attempt's message, and note the attempt. None: it, or its key, is noted already."""
    if claim is not None:
        old = sa.and_(_has_key(claim), attempts.c.begun_at < recorded_at - KEY_LIFE)
        connection.execute(sa.update(attempts).where(old).values(caller=None, idempotency_key=None, fingerprint=None))
    message_id = _insert_message(connection, attempt, recorded_at)
    row = {
        "id": attempt.id,
        "message_id": message_id,
        "begun_at": recorded_at,
        "caller": claim.caller if claim else None,
        "idempotency_key": claim.key if claim else None,
        "fingerprint": claim.fingerprint if claim else None,
    }
    if connection.scalar(_new_row(connection.dialect.name, attempts), row) is not None:
        outbox.add_sends(connection, [message_id])
        return message_id
    connection.execute(sa.delete(messages).where(messages.c.id == message_id))
    return None


def _insert_message(connection: sa.Connection, attempt: SendAttempt, recorded_at: datetime) -> int:
    sent_at = attempt.sent_at
    row: dict[str, Any] = {
        "account": attempt.account,
        "task_id": None,
        "mobile": attempt.mobile,
        "recorded_at": recorded_at,
        "template_id": attempt.template_id,
        "reference": attempt.reference,
        "send_state": MessageStatus.SENDING,
    }
    while True:
        new = row | {"sent_at": sent_at}
        message_id: int | None = connection.scalar(_new_row(connection.dialect.name, messages), new)
        if message_id is not None:
            return message_id
        # Without a task id, the number, the reference and the millisecond are all that tell two sends apart.
        sent_at += timedelta(milliseconds=1)


@cache
def _new_row(dialect: str, table: sa.Table) -> Any:
    return insert(dialect, table).on_conflict_do_nothing().returning(table.c.id)


def _first_of(connection: sa.Connection, attempt: SendAttempt, claim: IdempotencyClaim | None) -> AttemptState:
    """Return the attempt that was noted before under the same id or key. Raises KeyReused."""
    if claim is None:
        return _state_of(connection, attempt.id)
    first = connection.execute(sa.select(attempts).where(_has_key(claim))).one()
    if first.fingerprint != claim.fingerprint:
        raise KeyReused("this Idempotency-Key was given with another request; use a new one for each")
    return _state_of(connection, first.id)


def _has_key(claim: IdempotencyClaim) -> sa.ColumnElement[bool]:
    return sa.and_(attempts.c.caller == claim.caller, attempts.c.idempotency_key == claim.key)


def _find_locked(connection: sa.Connection, attempt: SendAttempt) -> Any:
    return connection.execute(_own_row(), {"attempt_id": attempt.id}).one_or_none()


@cache
def _own_row() -> Any:
    of_attempt = sa.and_(messages.c.id == attempts.c.message_id, attempts.c.id == sa.bindparam("attempt_id"))
    return sa.select(messages).join(attempts, of_attempt).with_for_update(of=messages)


@cache
def _set_state() -> Any:
    values: dict[str, Any] = {"send_state": sa.bindparam("new_state"), "error_message": sa.bindparam("words")}
    return sa.update(messages).where(messages.c.id == sa.bindparam("message_id")).values(values)


def _state_of(connection: sa.Connection, attempt_id: UUID) -> AttemptState:
    row = connection.execute(
        sa.select(attempts, messages.c.send_state, messages.c.error_message)
        .join(messages, messages.c.id == attempts.c.message_id)
        .where(attempts.c.id == attempt_id)
    ).one()
    return AttemptState(
        id=row.id,
        message_id=row.message_id,
        begun_at=row.begun_at,
        state=None if row.send_state is None else MessageStatus(row.send_state),
        error_message=row.error_message,
    )


# --- Limits -------------------------------------------------------------------------------------------


def _take_turns(connection: sa.Connection, attempt: SendAttempt) -> None:
    """Make attempts that could reach a limit together take turns, until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        slot = zlib.crc32(attempt.account.encode()) & 0x7FFFFFFF
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NUMBER_LOCK_SPACE, slot)))


def _limit_reached(
    connection: sa.Connection, attempt: SendAttempt, message_id: int, limits: SendLimits, day_began: datetime
) -> str | None:
    """Say which limit an attempt would break, apart from its own row; None: none."""
    went_out = sa.or_(messages.c.send_state.is_(None), messages.c.send_state != MessageStatus.REFUSED.value)
    of_account = (
        sa.select(sa.func.count())
        .select_from(messages)
        .where(messages.c.account == attempt.account, messages.c.id != message_id, went_out)
    )
    of_number = of_account.where(messages.c.mobile == attempt.mobile)
    if limits.min_interval:
        since = still_lasts(messages.c.sent_at, limits.min_interval, attempt.sent_at)
        if connection.scalar(of_number.where(since)):
            seconds = int(limits.min_interval.total_seconds())
            return f"{LOCAL_LIMIT}one in {seconds} seconds per number (RECEIVER_SEND_MIN_INTERVAL_SECONDS)"
    today = sa.and_(messages.c.sent_at >= day_began, no_later(messages.c.sent_at, attempt.sent_at))
    for most, query, words in (
        (limits.per_number_per_day, of_number, "a day per number (RECEIVER_SEND_MAX_PER_NUMBER_PER_DAY)"),
        (limits.per_day, of_account, "a day per account (RECEIVER_SEND_MAX_PER_DAY)"),
    ):
        if most and (connection.scalar(query.where(today)) or 0) >= most:
            return f"{LOCAL_LIMIT}{most} {words}"
    return None


# --- The task id --------------------------------------------------------------------------------------

_NO_OTHER_SEND = "the platform gave a task id that another send to this number has"


def _finish_at_once(connection: sa.Connection, attempt: SendAttempt, result: SendResult) -> int | None:
    """Return a noted and open attempt its task id, where nobody has a row of that yet: nearly always, and in one go.

    None: it is not so, and nothing was changed.
    """
    values = {
        "attempt_id": attempt.id,
        "new_task_id": result.task_id,
        "new_success_counts": result.success_counts,
        "new_remain_point": result.remain_point,
    }
    try:
        row = connection.execute(_task_id_update(), values).one_or_none()
    except sa.exc.IntegrityError as error:
        raise SerializationConflict("a push has made the row of this task since we looked") from error
    if row is None:
        return None
    if row.any_masked:
        match_recorded(connection, {(attempt.account, str(result.task_id))})
    message_id: int = row.id
    outbox.add_states(connection, [message_id])
    return message_id


@cache
def _task_id_update() -> Any:
    other = messages.alias("other")
    taken = sa.exists().where(
        other.c.task_id == sa.bindparam("new_task_id"),
        other.c.mobile == messages.c.mobile,
        other.c.account == messages.c.account,
    )
    any_masked = sa.or_(*(sa.exists().where(masked_of_task_where(table)) for table in (receipts, replies)))
    return (
        sa.update(messages)
        .where(
            attempts.c.id == sa.bindparam("attempt_id"),
            attempts.c.message_id == messages.c.id,
            messages.c.send_state.in_([state.value for state in _OPEN_STATES]),
            sa.not_(taken),
        )
        .values(
            task_id=sa.bindparam("new_task_id"),
            send_state=None,
            error_message=None,
            success_counts=sa.bindparam("new_success_counts"),
            remain_point=sa.bindparam("new_remain_point"),
        )
        .returning(messages.c.id, any_masked.label("any_masked"))
    )


def _take_task_id(connection: sa.Connection, row: Any, result: SendResult) -> None:
    """Give a message its task id, and take over the row that its pushes or another record have made under it."""
    key = {"task_id": result.task_id, "mobile": row.mobile, "account": row.account}
    other = connection.execute(_row_of_task(), key).one_or_none()
    values: dict[str, Any] = {
        "task_id": result.task_id,
        "send_state": None,
        "error_message": None,
        "success_counts": result.success_counts,
        "remain_point": result.remain_point,
    }
    if other is not None:
        if connection.scalar(sa.select(attempts.c.id).where(attempts.c.message_id == other.id).limit(1)) is not None:
            unknown = {"new_state": MessageStatus.OUTCOME_UNKNOWN, "words": _NO_OTHER_SEND}
            connection.execute(_set_state(), {"message_id": row.id, **unknown})
            return
        values |= {name: getattr(other, name) for name in ("status", "reported_at", "seen", "verified_at")}
        own = {name: values.get(name, getattr(row, name)) for name in RECORDED_FIELDS}
        values |= {name: getattr(other, name) if value is None else value for name, value in own.items()}
        for table in (receipts, replies):
            connection.execute(sa.update(table).where(table.c.message_id == other.id).values(message_id=row.id))
        connection.execute(sa.delete(messages).where(messages.c.id == other.id))
        outbox.move(connection, old=other.id, new=row.id)
    try:
        connection.execute(sa.update(messages).where(messages.c.id == row.id).values(values))
    except sa.exc.IntegrityError as error:
        raise SerializationConflict("a push has made the row of this task since we looked") from error
    outbox.add_states(connection, [row.id])


@cache
def _row_of_task() -> Any:
    key = (messages.c[name] == sa.bindparam(name) for name in ("task_id", "mobile", "account"))
    return sa.select(messages).where(*key).with_for_update()
