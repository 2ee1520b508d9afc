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
    """The answer for a group of resends, by its newest attempt."""

    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CONFLICTING = "conflicting"
    WAITING = "waiting"
    LATE = "late"
    NO_RECEIPT = "no_receipt"
    REFUSED = "refused"
    SENDING = "sending"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UNREADABLE = "unreadable"  # a push that cannot be parsed may be its receipt
    NOTHING = "nothing"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """One message and its resends: same number and template, each soon after the other. Newest first."""

    messages: Sequence[MessageRow]

    @property
    def newest(self) -> MessageRow:
        """The attempt that the answer is about."""
        return self.messages[0]

    @property
    def earlier(self) -> Sequence[MessageRow]:
        """The attempts before the newest."""
        return self.messages[1:]


def group_resends(messages: Sequence[MessageRow]) -> list[Attempts]:
    """Return messages grouped with their resends. Groups and their messages come newest first."""
    open_groups: dict[tuple[str, str, str | None], list[MessageRow]] = {}
    groups: list[list[MessageRow]] = []
    for message in sorted(messages, key=lambda row: (moment_of(row), row.id)):
        key = (message.account, message.mobile, message.template_id)
        group = open_groups.get(key)
        if group is None or moment_of(message) - moment_of(group[-1]) > _RESENT_WITHIN:
            group = open_groups[key] = []
            groups.append(group)
        group.append(message)
    newest_first = sorted(groups, key=lambda group: (moment_of(group[-1]), group[-1].id), reverse=True)
    return [Attempts(messages=group[::-1]) for group in newest_first]
