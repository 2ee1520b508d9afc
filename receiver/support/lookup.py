"""What somebody who asks about a person means, and what they are answered: pure, and the same for every page.

A look-up is text as people paste it. Its messages are taken in groups of resends, and a group has one answer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from receiver.core import MessageStatus, fits, is_masked, parse_mobile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from receiver.messages.queries import MessageRow

TEXT_MAX_CHARS = 255
LAST_DIGITS = 4
_RESENT_WITHIN = timedelta(minutes=10)

_LAST_DIGITS = re.compile(
    r"(?:(?:手机)?(?:号码)?尾号(?:是|为)?|(?:ending|ends) (?:in|with)|last four)?\s*[:：]?\s*(\d{4})",
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"(?<![\d*])(?:(?:\+|00)?86)?(1\d{10})(?![\d*])", re.ASCII)
_BETWEEN_DIGITS = re.compile(r"(?<=[\d*+)])[\s().\-‐-―−]+(?=[\d*(])", re.ASCII)
_LABELS = "task[ _]?id|任务(?:号|ID)?|reference|ref|参考号|流水号|订单号|手机号?码?|号码|电话|mobile|phone|tel"
_LABEL = re.compile(rf"(?:{_LABELS})\s*[:：=#]\s*|^(?:{_LABELS}|task|任务)\s*(?=\d)", re.IGNORECASE)
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupQuery:
    """What a look-up may mean. A plain row of digits may be a number, a task id or a reference: all are tried."""

    mobile: str | None = None  # in full
    last_digits: str | None = None
    masked: str | None = None  # as the platform or we show it; its end is in `last_digits`
    text: str | None = None  # a task id or a reference

    def fits(self, mobile: str) -> bool:
        """Return whether a number is not ruled out by what is known of it."""
        return self.masked is None or fits(self.masked, mobile)


def parse_wanted(given: str) -> LookupQuery | None:
    """Read what somebody pasted: labels, spaces, dashes, unseen characters and full-width digits do not matter.

    None: nothing that could be looked up.
    """
    seen = "".join(" " if unicodedata.category(c) in _UNSEEN else c for c in unicodedata.normalize("NFKC", given))
    text = _LABEL.sub("", " ".join(seen.split()), count=1).strip()
    if not text or len(text) > TEXT_MAX_CHARS:
        return None
    if last := _LAST_DIGITS.fullmatch(text):
        return LookupQuery(last_digits=last[1], text=text)
    joined = _BETWEEN_DIGITS.sub("", text)
    if number := _NUMBER.search(joined):
        return LookupQuery(mobile=number[1], text=text)  # a reference may hold eleven digits too
    mobile = parse_mobile(joined)
    if mobile is not None and is_masked(mobile):
        end = mobile[-LAST_DIGITS:]
        return LookupQuery(last_digits=end, masked=mobile) if end.isdigit() else LookupQuery(text=text)
    return LookupQuery(mobile=mobile, text=text)


class LookupAnswer(StrEnum):
    """What can be said about a group of resends, by its newest attempt."""

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
    UNREADABLE = "unreadable"  # something came that may be its report
    NOTHING = "nothing"


_WAITS = frozenset({LookupAnswer.WAITING, LookupAnswer.LATE, LookupAnswer.NO_RECEIPT})
# What may change by itself, so that a page had better look again.
UNSETTLED = _WAITS | {LookupAnswer.SENDING, LookupAnswer.OUTCOME_UNKNOWN, LookupAnswer.UNREADABLE, LookupAnswer.NOTHING}


def answer_of(message: MessageRow, *, unreadable: bool = False) -> LookupAnswer:
    """Say what became of a message; `unreadable`: a push that could not be read seems to be about it."""
    if message.conflicting:
        return LookupAnswer.CONFLICTING
    if message.status is MessageStatus.PENDING:
        found = LookupAnswer.LATE if message.late else LookupAnswer.WAITING
    else:
        found = LookupAnswer(message.status.value)
    return LookupAnswer.UNREADABLE if unreadable and found in _WAITS else found


def has_moment(message: MessageRow) -> bool:
    """Return whether anybody knows when a message was sent: not where only a reply speaks of it."""
    return (message.sent_at or message.recorded_at or message.reported_at) is not None


def moment_of(message: MessageRow) -> datetime:
    """When a message was sent, as far as anybody knows; only where somebody does."""
    moment = message.sent_at or message.recorded_at or message.reported_at
    assert moment is not None  # noqa: S101
    return moment


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """One message and its resends: same number and template, each soon after the other. Newest first."""

    messages: Sequence[MessageRow]

    @property
    def newest(self) -> MessageRow:
        """The one that the answer is about."""
        return self.messages[0]

    @property
    def earlier(self) -> Sequence[MessageRow]:
        """Those before it."""
        return self.messages[1:]


def group_resends(messages: Sequence[MessageRow]) -> list[Attempts]:
    """Put resends together. `messages` in any order; groups, and the messages of each, come newest first."""
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
