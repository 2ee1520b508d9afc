"""Parse a look-up and decide its answer. Pure functions, used by every page.

A look-up is text as people paste it. Messages are grouped with their resends, and each group has one answer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from receiver.core import TEXT_MAX_CHARS, MessageStatus, fits, is_masked, parse_mobile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from receiver.messages.queries import MessageRow

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
    """The possible meanings of a look-up. Plain digits may be a number, a task id or a reference: all are tried."""

    mobile: str | None = None  # in full
    last_digits: str | None = None
    masked: str | None = None  # as the platform or we show it; its end is in `last_digits`
    text: str | None = None  # a task id or a reference

    def fits(self, mobile: str) -> bool:
        """Return whether a number matches the masked form, if there is one."""
        return self.masked is None or fits(self.masked, mobile)


def parse_lookup(given: str) -> LookupQuery | None:
    """Return the meaning of pasted text. Labels, spaces, dashes and invisible characters are ignored.

    None: the text cannot be looked up.
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
