"""The status of a message as readers see it: in SQL, and its twin in Python; a test compares the two.

It follows from the receipts (`status`), the outcome of the send (`send_state`), and the message's age. From which age
on it is late is a setting of a process (`Clock`); views have the ages that were stored last (`ViewClock`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import SENDING_MAX, DeliveryStatus, MessageStatus
from receiver.db.sql import moment_ago
from receiver.db.tables import AGE_FROM, messages, status_ages

if TYPE_CHECKING:
    from datetime import datetime

_SEEN_BOTH = 1 << DeliveryStatus.DELIVERED | 1 << DeliveryStatus.FAILED
# In the order in which they decide, the most frequent first; otherwise a message is pending.
_DECIDING = (
    MessageStatus.DELIVERED,
    MessageStatus.FAILED,
    MessageStatus.UNKNOWN,
    MessageStatus.REFUSED,
    MessageStatus.OUTCOME_UNKNOWN,
    MessageStatus.SENDING,
    MessageStatus.NO_RECEIPT,
)
# The columns by their bare names, for triggers and views: see `as_text`.
BARE: Any = SimpleNamespace(**{column.name: sa.column(column.name, column.type) for column in messages.c})


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The moment that a query speaks of, and what counts as late at that moment."""

    now: datetime
    late_after: timedelta
    no_receipt_after: timedelta

    @property
    def late_before(self) -> datetime:
        """Return the moment before which a message that is still pending was sent too long ago."""
        return self.now - self.late_after

    @property
    def no_receipt_before(self) -> datetime:
        """Return the moment before which a message that is still pending has no receipt."""
        return self.now - self.no_receipt_after

    @property
    def cut_off_before(self) -> datetime:
        """Return the moment before which a request that is still being sent was cut off."""
        return self.now - SENDING_MAX


def _stored(name: str) -> sa.ScalarSelect[int]:
    return sa.select(status_ages.c.seconds).where(status_ages.c.name == sa.literal(name)).scalar_subquery()


class ViewClock:
    """`Clock` for views: the present moment of the query that reads them, and what `keep_ages` has stored."""

    late_before = moment_ago(_stored("late_after"))
    no_receipt_before = moment_ago(_stored("no_receipt_after"))
    cut_off_before = moment_ago(sa.literal(int(SENDING_MAX.total_seconds())))


AnyClock = Clock | type[ViewClock]


def keep_ages(connection: sa.Connection, clock: Clock) -> bool:
    """Store the ages of this process's settings for `ViewClock`; return whether others were stored."""
    changed = 0
    for name, age in (("late_after", clock.late_after), ("no_receipt_after", clock.no_receipt_after)):
        seconds = int(age.total_seconds())
        stored = sa.update(status_ages).where(status_ages.c.name == name, status_ages.c.seconds != seconds)
        changed += connection.execute(stored.values(seconds=seconds)).rowcount
    return changed > 0


def message_status(
    reported: DeliveryStatus, send_state: str | None, age_from: datetime | None, clock: Clock
) -> MessageStatus:
    """Return the status of a message. `age_from` None: it is unmatched, and has no age."""
    age = timedelta(0) if age_from is None else clock.now - age_from
    if reported is not DeliveryStatus.PENDING:
        return MessageStatus[reported.name]
    if send_state == MessageStatus.SENDING and age > SENDING_MAX:
        return MessageStatus.OUTCOME_UNKNOWN
    if send_state is not None:
        return MessageStatus(send_state)
    return MessageStatus.NO_RECEIPT if age > clock.no_receipt_after else MessageStatus.PENDING


def has_status(status: MessageStatus, clock: AnyClock | None, of: Any = messages.c) -> sa.ColumnElement[bool]:
    """Return the condition that a message has a status. `clock` None: as if none had any age."""
    match status:
        case MessageStatus.PENDING:
            return sa.and_(waits(of), sa.not_(_has_no_receipt(clock)))
        case MessageStatus.NO_RECEIPT:
            return sa.and_(waits(of), _has_no_receipt(clock))
        case MessageStatus.REFUSED:
            return _has_send_state(status, of)
        case MessageStatus.SENDING:
            return sa.and_(_has_send_state(status, of), sa.not_(_older(clock and clock.cut_off_before)))
        case MessageStatus.OUTCOME_UNKNOWN:
            if clock is None:
                return _has_send_state(status, of)
            cut_off = sa.and_(_has_send_state(MessageStatus.SENDING, of), _older(clock.cut_off_before))
            return sa.or_(_has_send_state(status, of), cut_off)
        case _:
            return is_reported(DeliveryStatus[status.name], of)


def status_of(clock: AnyClock | None, of: Any = messages.c) -> sa.Case[str]:
    """Return the status of a message as a word. `clock` None: as if none had any age, so none has `no_receipt`."""
    deciding = [status for status in _DECIDING if clock is not None or status is not MessageStatus.NO_RECEIPT]
    return sa.case(
        *((has_status(status, clock, of), sa.literal(status.value)) for status in deciding),
        else_=sa.literal(MessageStatus.PENDING.value),
    )


def is_reported(status: DeliveryStatus, of: Any = messages.c) -> sa.ColumnElement[bool]:
    """Return the condition that the receipts of a message say so."""
    has: sa.ColumnElement[bool] = of.status == status.value
    return has


def waits(of: Any = messages.c) -> sa.ColumnElement[bool]:
    """Return the condition that the platform accepted a message and has reported nothing of it."""
    return sa.and_(is_reported(DeliveryStatus.PENDING, of), of.send_state.is_(None))


def is_open(of: Any = messages.c) -> sa.ColumnElement[bool]:
    """Return the condition that the outcome of the send is not known (yet)."""
    unknown: sa.ColumnElement[bool] = of.send_state.in_(
        [MessageStatus.SENDING.value, MessageStatus.OUTCOME_UNKNOWN.value]
    )
    return unknown


def is_late(clock: AnyClock) -> sa.ColumnElement[bool]:
    """Return the condition that a message is pending longer than it should be."""
    return sa.and_(waits(), _older(clock.late_before), sa.not_(_has_no_receipt(clock)))


def seen_both(of: Any = messages.c) -> sa.ColumnElement[bool]:
    """Return the condition that both delivered and failed were reported of a message."""
    both: sa.ColumnElement[bool] = of.seen.bitwise_and(_SEEN_BOTH) == _SEEN_BOTH
    return both


def as_text(condition: sa.ColumnElement[Any]) -> str:
    """Write an expression on `BARE` columns as text that both databases read."""
    return str(condition.compile(compile_kwargs={"literal_binds": True}))


def _has_send_state(status: MessageStatus, of: Any) -> sa.ColumnElement[bool]:
    has: sa.ColumnElement[bool] = of.send_state == status.value
    return has


def _older(before: Any) -> sa.ColumnElement[bool]:
    # Unmatched messages have no age: the time of sending is unknown.
    return sa.false() if before is None else sa.func.coalesce(before > AGE_FROM, sa.false())


def _has_no_receipt(clock: AnyClock | None) -> sa.ColumnElement[bool]:
    return _older(clock and clock.no_receipt_before)
