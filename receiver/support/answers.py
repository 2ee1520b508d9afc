"""Decide what a look-up is answered. Pure.

Messages are grouped with their resends, and each group has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from receiver.core import MessageStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from receiver.messages.queries import MessageRow

_RESENT_WITHIN = timedelta(minutes=10)


class LookupAnswer(StrEnum):
    """The answer for a message, or for a group of resends by its best attempt."""

    DELIVERED = "delivered"
    """The platform reports delivery."""
    FAILED = "failed"
    """The platform reports failure."""
    UNKNOWN = "unknown"
    """The platform reports a status that it does not document."""
    CONFLICTING = "conflicting"
    """The platform reports both delivery and failure."""
    WAITING = "waiting"
    """No receipt yet, within the usual time."""
    LATE = "late"
    """No receipt for longer than `RECEIVER_LATE_AFTER_SECONDS`."""
    NO_RECEIPT = "no_receipt"
    """No receipt for longer than `RECEIVER_NO_RECEIPT_AFTER_HOURS`."""
    REFUSED = "refused"
    """The message was not sent."""
    SENDING = "sending"
    """The request to the platform is under way."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The message was possibly sent."""
    UNREADABLE = "unreadable"
    """No receipt, but a push that cannot be parsed may be its receipt."""
    NOTHING = "nothing"
    """No message is known."""


_WAITS = frozenset({LookupAnswer.WAITING, LookupAnswer.LATE, LookupAnswer.NO_RECEIPT})
# Answers that may still change, so that the page refreshes.
UNSETTLED = _WAITS | {LookupAnswer.SENDING, LookupAnswer.OUTCOME_UNKNOWN, LookupAnswer.UNREADABLE, LookupAnswer.NOTHING}


def answer_of(message: MessageRow, *, unreadable: bool = False) -> LookupAnswer:
    """Return the answer for a message; `unreadable`: a push that cannot be parsed seems to be about it."""
    if message.conflicting:
        return LookupAnswer.CONFLICTING
    if message.status is MessageStatus.PENDING:
        answer = LookupAnswer.LATE if message.late else LookupAnswer.WAITING
    else:
        answer = LookupAnswer(message.status.value)
    return LookupAnswer.UNREADABLE if unreadable and answer in _WAITS else answer


def has_moment(message: MessageRow) -> bool:
    """Return whether a message has a known time; one that only a reply refers to has none."""
    return (message.sent_at or message.recorded_at or message.reported_at) is not None


def moment_of(message: MessageRow) -> datetime:
    """Return the best known time of sending. Requires `has_moment`."""
    moment = message.sent_at or message.recorded_at or message.reported_at
    assert moment is not None  # noqa: S101
    return moment


# How near an answer is to the code in the person's hand. Of equal ones the newest counts.
_USE = {
    LookupAnswer.DELIVERED: 3,
    **dict.fromkeys(
        (
            LookupAnswer.WAITING,
            LookupAnswer.LATE,
            LookupAnswer.SENDING,
            LookupAnswer.OUTCOME_UNKNOWN,
            LookupAnswer.UNREADABLE,
            LookupAnswer.CONFLICTING,
        ),
        2,  # it may be there, or may still come
    ),
    **dict.fromkeys((LookupAnswer.FAILED, LookupAnswer.UNKNOWN, LookupAnswer.NO_RECEIPT), 1),
    LookupAnswer.REFUSED: 0,  # nothing was sent
}
_OF_USE = timedelta(minutes=5)  # a code is valid for about that long


def find_best(attempts: Sequence[tuple[LookupAnswer, datetime]]) -> int:
    """Return the place of the attempt that answers for all. `attempts`: answers and times of sending, newest first.

    It is the best of those that were still of use when the newest was asked for; what was asked for longer before that
    says nothing any more. Later looks find the same one as long as the receipts stay the same.
    """
    newest = attempts[0][1]
    of_use = [place for place, (_, sent_at) in enumerate(attempts) if newest - sent_at <= _OF_USE]
    return max(of_use, key=lambda place: (_USE[attempts[place][0]], -place))


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """One message and its resends: same number and template, each soon after the other. Newest first."""

    messages: Sequence[MessageRow]

    @property
    def newest(self) -> MessageRow:
        """The attempt that was asked for last."""
        return self.messages[0]

    @property
    def best(self) -> MessageRow:
        """The attempt that the answer is about."""
        return self.messages[self._place]

    @property
    def later(self) -> Sequence[MessageRow]:
        """The attempts after the best one, newest first."""
        return self.messages[: self._place]

    @property
    def later_by(self) -> timedelta:
        """How long after the best one the newest was asked for."""
        return moment_of(self.newest) - moment_of(self.best)

    @property
    def sent(self) -> int:
        """How many were sent, as far as is known: a refused one was only asked for."""
        return sum(message.status is not MessageStatus.REFUSED for message in self.messages)

    @property
    def may_change(self) -> bool:
        """Return whether the answer to any of them may change by itself."""
        return any(answer_of(message) in UNSETTLED for message in self.messages)

    @property
    def _place(self) -> int:
        if len(self.messages) == 1:
            return 0
        return find_best([(answer_of(message), moment_of(message)) for message in self.messages])


def group_resends(messages: Sequence[MessageRow]) -> list[Attempts]:
    """Return messages grouped with their resends. Groups and their messages come newest first.

    A refused send is often recorded without its template: it belongs to whatever was sent just before.
    """
    open_groups: dict[tuple[str, str, str | None], list[MessageRow]] = {}
    latest: dict[tuple[str, str], list[MessageRow]] = {}
    groups: list[list[MessageRow]] = []
    for message in sorted(messages, key=lambda row: (moment_of(row), row.id)):
        number = (message.account, message.mobile)
        key = (*number, message.template_id)
        of_any = message.status is MessageStatus.REFUSED and message.template_id is None
        group = latest.get(number) if of_any else open_groups.get(key)
        if group is None or moment_of(message) - moment_of(group[-1]) > _RESENT_WITHIN:
            group = open_groups[key] = []
            groups.append(group)
        group.append(message)
        latest[number] = group
    newest_first = sorted(groups, key=lambda group: (moment_of(group[-1]), group[-1].id), reverse=True)
    return [Attempts(messages=group[::-1]) for group in newest_first]
