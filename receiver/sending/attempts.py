"""Send attempts: recorded before the request goes out, and again with the platform's answer.

The first record creates the message's row without a task id. Its receipt may arrive before the answer with the task id,
and then creates its own row; both are merged under the first id once the task id is known. Both records may be repeated
and may come in any order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import (
    RECORDED_FIELDS,
    SENDING_MAX,
    MessageStatus,
    OwnRefusal,
    ReceiverError,
    SendAttempt,
    SendResult,
    first_id_of,
)
from receiver.db.engine import SerializationConflict, insert
from receiver.db.sql import no_later, still_lasts
from receiver.db.tables import attempts, masked_of_task_where, messages, receipts, replies
from receiver.messages import outbox
from receiver.messages.balance import Reading, save_readings
from receiver.messages.notes import move_notes
from receiver.messages.projection import lock_tasks
from receiver.messages.recording import match_recorded

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

CUT_OFF = "the process that sent it ended before it knew the outcome"
KEY_LIFE = timedelta(hours=24)
_NUMBER_LOCK_SPACE = 0x7263766E  # "rcvn": apart from other programs' advisory locks
# An attempt lasts half a minute, so the ones that a dead process left are among the newest.
_CUT_OFF_SEARCH_MAX = 2000
_OPEN_STATES = (MessageStatus.SENDING, MessageStatus.OUTCOME_UNKNOWN)  # a result may still come


class KeyReused(ReceiverError):
    """The Idempotency-Key was used before for another request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyClaim:
    """An Idempotency-Key: one caller's key identifies one request."""

    caller: str
    key: str
    fingerprint: bytes  # keyed hash of the request, so that the database does not reveal the code


@dataclass(frozen=True, kw_only=True, slots=True)
class SendLimits:
    """Limits on sends per number and account. 0: no limit."""

    min_interval: timedelta = timedelta(0)
    per_number_per_day: int = 0
    per_day: int = 0

    @property
    def any(self) -> bool:
        """Return whether any limit is set."""
        return bool(self.min_interval or self.per_number_per_day or self.per_day)


NO_LIMITS = SendLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptState:
    """The state of an attempt."""

    id: UUID
    message_id: int
    begun_at: datetime
    state: MessageStatus | None  # SENDING, REFUSED, OUTCOME_UNKNOWN; None: the platform accepted it
    error_message: str | None
    repeated: bool = False  # found by its Idempotency-Key: do not send


def begin_attempt(
    connection: sa.Connection,
    attempt: SendAttempt,
    *,
    recorded_at: datetime,
    day_began: datetime,
    claim: IdempotencyClaim | None = None,
    limits: SendLimits = NO_LIMITS,
) -> AttemptState:
    """Record an attempt before its request goes out, and return its state.

    SENDING: send it. `repeated`: it was sent before. REFUSED: a limit is reached, and the message names it.
    `day_began`: start of the present day for daily limits. Raises KeyReused.
    """
    if limits.any:
        _lock_account(connection, attempt)
    message_id = _insert(connection, attempt, recorded_at, claim)
    if message_id is None:
        return replace(_find_first(connection, attempt, claim), repeated=True)
    state, words = MessageStatus.SENDING, None
    if limits.any and (words := _limit_reached(connection, attempt, message_id, limits, day_began)) is not None:
        state = MessageStatus.REFUSED
        connection.execute(_set_state(), {"message_id": message_id, "new_state": state, "words": words})
        outbox.add_states(connection, [message_id])
    return AttemptState(id=attempt.id, message_id=message_id, begun_at=recorded_at, state=state, error_message=words)


def finish_attempt(
    connection: sa.Connection, attempt: SendAttempt, result: SendResult, *, recorded_at: datetime
) -> int:
    """Record the result of an attempt, even if its start is not recorded, and return its message's id.

    Changes only an open attempt; a late answer settles an unknown outcome. Raises SerializationConflict.
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
            _set_task_id(connection, row, result)
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
    """Return the state of a recorded attempt; OUTCOME_UNKNOWN if its process died."""
    found = _state_of(connection, attempt_id)
    if found.state is MessageStatus.SENDING and now - found.begun_at > SENDING_MAX:
        return replace(found, state=MessageStatus.OUTCOME_UNKNOWN, error_message=CUT_OFF)
    return found


def find_cut_off(connection: sa.Connection, *, now: datetime) -> list[int]:
    """Return the messages whose attempt is still SENDING past the time limit, among the newest attempts."""
    newest = (
        sa.select(attempts.c.message_id)
        .where(attempts.c.id < first_id_of(now - SENDING_MAX))
        .order_by(attempts.c.id.desc())
        .limit(_CUT_OFF_SEARCH_MAX)
        .subquery()
    )
    query = (
        sa.select(messages.c.id)
        .join(newest, newest.c.message_id == messages.c.id)
        .where(messages.c.send_state == MessageStatus.SENDING.value)
    )
    return list(connection.scalars(query))


def end_cut_off(connection: sa.Connection, message_id: int) -> None:
    """Set an attempt that is still SENDING to OUTCOME_UNKNOWN. A late answer can still settle it."""
    cut_off = (
        sa.update(messages)
        .where(messages.c.id == message_id, messages.c.send_state == MessageStatus.SENDING.value)
        .values(send_state=MessageStatus.OUTCOME_UNKNOWN.value, error_message=CUT_OFF)
        .returning(messages.c.id)
    )
    if connection.scalar(cut_off) is not None:
        outbox.add_states(connection, [message_id])


# --- The record -----------------------------------------------------------------------------------------


def _insert(
    connection: sa.Connection, attempt: SendAttempt, recorded_at: datetime, claim: IdempotencyClaim | None
) -> int | None:
    """Insert an attempt and its message, and return the message's id. None: the attempt or its key exists."""
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
        # Without a task id, only number, reference and millisecond distinguish two sends.
        sent_at += timedelta(milliseconds=1)


@cache
def _new_row(dialect: str, table: sa.Table) -> Any:
    return insert(dialect, table).on_conflict_do_nothing().returning(table.c.id)


def _find_first(connection: sa.Connection, attempt: SendAttempt, claim: IdempotencyClaim | None) -> AttemptState:
    """Return the existing attempt with the same id or key. Raises KeyReused."""
    if claim is None:
        return _state_of(connection, attempt.id)
    first = connection.execute(sa.select(attempts).where(_has_key(claim))).one()
    if first.fingerprint != claim.fingerprint:
        raise KeyReused("this Idempotency-Key was used with another request; use a new key for each request")
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


def _lock_account(connection: sa.Connection, attempt: SendAttempt) -> None:
    """Serialize the attempts of an account until the end of the transaction, so that limits hold."""
    if connection.dialect.name == "postgresql":
        slot = zlib.crc32(attempt.account.encode()) & 0x7FFFFFFF
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NUMBER_LOCK_SPACE, slot)))


def _limit_reached(
    connection: sa.Connection, attempt: SendAttempt, message_id: int, limits: SendLimits, day_began: datetime
) -> str | None:
    """Return the text of the limit that an attempt exceeds, not counting its own row; None: no limit."""
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
            words = f"one in {seconds} seconds per number (RECEIVER_SEND_MIN_INTERVAL_SECONDS)"
            return OwnRefusal.LOCAL_LIMIT.write(words)
    today = sa.and_(messages.c.sent_at >= day_began, no_later(messages.c.sent_at, attempt.sent_at))
    for most, query, words in (
        (limits.per_number_per_day, of_number, "a day per number (RECEIVER_SEND_MAX_PER_NUMBER_PER_DAY)"),
        (limits.per_day, of_account, "a day per account (RECEIVER_SEND_MAX_PER_DAY)"),
    ):
        if most and (connection.scalar(query.where(today)) or 0) >= most:
            return OwnRefusal.LOCAL_LIMIT.write(f"{most} {words}")
    return None


# --- The task id --------------------------------------------------------------------------------------

_TASK_ID_TAKEN = "the platform returned a task id that another send to this number already has"


def _finish_at_once(connection: sa.Connection, attempt: SendAttempt, result: SendResult) -> int | None:
    """Set the task id of an open attempt in one statement, if no other row has it: the usual case.

    Return the message's id. None: nothing was changed.
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
        raise SerializationConflict("a push created the row of this task meanwhile") from error
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


def _set_task_id(connection: sa.Connection, row: Any, result: SendResult) -> None:
    """Set a message's task id and merge the row that pushes or another record created under it."""
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
            unknown = {"new_state": MessageStatus.OUTCOME_UNKNOWN, "words": _TASK_ID_TAKEN}
            connection.execute(_set_state(), {"message_id": row.id, **unknown})
            return
        values |= {name: getattr(other, name) for name in ("status", "reported_at", "seen", "verified_at")}
        own = {name: values.get(name, getattr(row, name)) for name in RECORDED_FIELDS}
        values |= {name: getattr(other, name) if value is None else value for name, value in own.items()}
        for table in (receipts, replies):
            connection.execute(sa.update(table).where(table.c.message_id == other.id).values(message_id=row.id))
        connection.execute(sa.delete(messages).where(messages.c.id == other.id))
        move_notes(connection, old=other.id, new=row.id)
        outbox.move(connection, old=other.id, new=row.id)
    try:
        connection.execute(sa.update(messages).where(messages.c.id == row.id).values(values))
    except sa.exc.IntegrityError as error:
        raise SerializationConflict("a push created the row of this task meanwhile") from error
    outbox.add_states(connection, [row.id])


@cache
def _row_of_task() -> Any:
    key = (messages.c[name] == sa.bindparam(name) for name in ("task_id", "mobile", "account"))
    return sa.select(messages).where(*key).with_for_update()
