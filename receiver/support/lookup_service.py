"""Answer a look-up from the database: for the page, and for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.messages import queries
from receiver.messages.fields import without_numbers
from receiver.messages.queries import Filter, Page
from receiver.support import lookup_queries as store
from receiver.support import signals
from receiver.support.answers import (
    UNSETTLED,
    Attempts,
    LookupAnswer,
    answer_of,
    group_resends,
    has_moment,
    moment_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from receiver.messages.queries import Clock, MessageRow, PushRow, ReceiptRow, ReplyRow
    from receiver.support.lookup import ParsedLookup
    from receiver.support.signals import RecentDelivery

LONGEST = timedelta(days=30)
_GROUPS_MAX = 8  # each is shown with its timeline
_MESSAGES_MAX = 50
_REPLIES_MAX = 20
_NEEDLE_MIN_CHARS = 5  # shorter texts occur in many pushes


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredGroup:
    """One group of resends: its answer and the data of the sentence. Receipts and replies show no full number."""

    answer: LookupAnswer
    attempts: Attempts
    age: timedelta | None  # None: only a reply refers to it
    recent: RecentDelivery | None  # of the same template, while the message is pending
    unreadable: PushRow | None
    receipts: Sequence[ReceiptRow]
    replies: Sequence[ReplyRow]

    @property
    def message(self) -> MessageRow:
        """The attempt that the sentence is about."""
        return self.attempts.newest


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupResult:
    """The result of a look-up: groups, newest first; or none, perhaps with a push that could not be parsed."""

    groups: Sequence[AnsweredGroup]
    earlier: bool  # nothing in the period: the newest before it
    more: bool  # there are more than these
    unreadable: PushRow | None
    replies: Sequence[ReplyRow]  # from the number, without a message that is shown


def answer_lookup(
    connection: sa.Connection,
    wanted: ParsedLookup,
    *,
    within: timedelta,
    clock: Clock,
    accounts: tuple[str, ...] | None = None,
) -> LookupResult:
    """Return what is known of a look-up's messages in these accounts (None: all), sent within a time before now."""
    rows = store.find_messages(
        connection, wanted.queries, since=clock.now - within, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
    )
    earlier = not rows
    if earlier:
        rows = store.find_messages(
            connection, wanted.queries, since=clock.now - LONGEST, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
        )
    every = group_resends(rows)
    groups = every[: 1 if earlier else _GROUPS_MAX]
    unreadable = _find_unreadable(connection, wanted, groups, clock, accounts)
    since = clock.now - (LONGEST if earlier else within)
    return LookupResult(
        groups=[
            answer_group(connection, group, clock, unreadable=None if number else unreadable)
            for number, group in enumerate(groups)
        ],
        earlier=earlier and bool(groups),
        more=not earlier and (len(groups) < len(every) or len(rows) == _MESSAGES_MAX),
        unreadable=None if groups else unreadable,
        replies=_find_replies(connection, wanted, rows, since, accounts),
    )


def _find_replies(
    connection: sa.Connection,
    wanted: ParsedLookup,
    rows: Sequence[MessageRow],
    since: datetime,
    accounts: tuple[str, ...] | None,
) -> Sequence[ReplyRow]:
    """Return replies from the numbers that belong to no recorded message."""
    shown_ids = {row.id for row in rows}
    unmatched = [
        Filter(mobile=mobile, matched=False, received_from=since, accounts=accounts) for mobile in wanted.mobiles
    ]
    found = [
        reply for one in unmatched for reply in queries.list_replies(connection, Page(limit=_REPLIES_MAX, filter=one))
    ]
    return [without_numbers(reply) for reply in found[:_REPLIES_MAX] if reply.message_id not in shown_ids]


def answer_group(
    connection: sa.Connection, attempts: Attempts, clock: Clock, *, unreadable: PushRow | None = None
) -> AnsweredGroup:
    """Return the answer for one group of resends."""
    message = attempts.newest
    answer = answer_of(message, unreadable=unreadable is not None)
    recent = None
    if answer in (LookupAnswer.WAITING, LookupAnswer.LATE):
        recent = signals.find_recent_delivery(
            connection, account=message.account, template_id=message.template_id, now=clock.now
        )
    receipts, replies = queries.list_inbound_events(connection, message.id)
    return AnsweredGroup(
        answer=answer,
        attempts=attempts,
        age=clock.now - moment_of(message) if has_moment(message) else None,
        recent=recent,
        unreadable=unreadable,
        receipts=[without_numbers(row) for row in receipts],
        replies=[without_numbers(row) for row in replies],
    )


def _find_unreadable(
    connection: sa.Connection,
    wanted: ParsedLookup,
    groups: Sequence[Attempts],
    clock: Clock,
    accounts: tuple[str, ...] | None,
) -> PushRow | None:
    """Return a push that could not be parsed and contains the number or task id; None: there is none."""
    if groups:
        needles = {groups[0].newest.task_id, *({groups[0].newest.mobile} & set(wanted.mobiles))}
    else:
        near = {miss.text for miss in wanted.near_misses}  # a number with a digit too few is part of many
        needles = {query.mobile or query.text for query in wanted.queries} - near
    since = moment_of(groups[0].newest) if groups else clock.now - LONGEST
    fitting = [needle.encode() for needle in needles if needle is not None and len(needle) >= _NEEDLE_MIN_CHARS]
    if not fitting or (groups and answer_of(groups[0].newest) not in UNSETTLED):
        return None
    return signals.find_quarantined_about(connection, needles=fitting, since=since, accounts=accounts)
