"""Answer a look-up from the database: for the page, and for the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.core import is_masked
from receiver.messages import notes, queries
from receiver.messages.fields import without_numbers
from receiver.messages.reads import DATA_LAG
from receiver.support import arrivals, signals
from receiver.support import lookup_queries as store
from receiver.support.answers import (
    UNSETTLED,
    Attempts,
    LookupAnswer,
    answer_of,
    group_resends,
    has_moment,
    moment_of,
)
from receiver.support.lookup import is_mainland

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from receiver.messages.notes import Note
    from receiver.messages.queries import Clock, MessageRow, PushRow, ReceiptRow, ReplyRow
    from receiver.support.lookup import LookupQuery, ParsedLookup
    from receiver.support.signals import RecentDelivery

# Times to choose from, by their name in URLs and on the command line; None: all that is kept. The first is the default,
# since most ask about a recent code.
PERIODS: Mapping[str, timedelta | None] = {
    "10m": timedelta(minutes=10),
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "all": None,
}
_GROUPS_MAX = 4  # each is shown with its timeline, notes and text to hand over; the others as lines
_MESSAGES_MAX = 20  # of a page
_NEEDLE_MIN_CHARS = 5  # shorter texts occur in many pushes


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredGroup:
    """One group of resends: its answer and the data of the sentence. Receipts and replies show no full number."""

    answer: LookupAnswer
    attempts: Attempts
    age: timedelta | None  # None: only a reply refers to it
    recent: RecentDelivery | None  # of the same template, while the message is pending
    unreadable: PushRow | None
    receipts: Sequence[ReceiptRow]  # of all attempts, oldest first
    replies: Sequence[ReplyRow]
    notes: Sequence[Note]  # on all attempts, oldest first

    @property
    def message(self) -> MessageRow:
        """The attempt that the sentence is about."""
        return self.attempts.best

    @property
    def handled(self) -> bool:
        """Return whether the case is marked as handled."""
        return notes.is_handled(self.notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a page of groups begins: below the message `before`, behind `skip` groups."""

    before: int | None = None
    skip: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupResult:
    """What is known of one number, or of one text: groups, newest first, and what belongs to none of them."""

    queries: Sequence[LookupQuery]
    groups: Sequence[AnsweredGroup] = ()
    further: Sequence[Attempts] = ()  # groups after these, without their timelines
    earlier: bool = False  # nothing in the period: the newest group before it
    older: int = 0  # how many groups before the period are not shown
    next: Place | None = None  # the page of the groups that follow
    cut: bool = False  # more messages match than are read, and no page leads to them
    unreadable: PushRow | None = None  # a push that could not be parsed, where no message is found
    replies: Sequence[ReplyRow] = ()  # without a message that is shown
    perhaps: bool = False  # some of these have a masked number, and may be another person's
    possible: Sequence[ReceiptRow] = ()  # receipts of a masked number that fits, where no message is found
    undated: bool = False  # a message is known, but no time of it
    never_sent: bool = False  # nothing is known, and all that is kept was searched
    kept_since: datetime | None = None  # None: since the beginning

    @property
    def number(self) -> str | None:
        """The whole number that was asked for; None: a part of one, or a text."""
        return next((query.mobile for query in self.queries if query.mobile and is_mainland(query.mobile)), None)

    @property
    def by_part(self) -> bool:
        """Return whether only a part of a number was given."""
        return any(query.last_digits for query in self.queries)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is known."""
        return not (self.groups or self.unreadable or self.replies or self.possible or self.undated)

    def names(self, text: str) -> bool:
        """Return whether a message that was found has this task id or reference."""
        found = (message for group in self.groups for message in group.attempts.messages)
        return any(text in (message.task_id, message.reference) for message in found)

    @property
    def may_change(self) -> bool:
        """Return whether the newest answer may change by itself."""
        return not self.groups or self.groups[0].attempts.may_change


def answer_lookup(
    connection: sa.Connection,
    wanted: ParsedLookup,
    *,
    within: timedelta | None,
    clock: Clock,
    accounts: tuple[str, ...] | None = None,
    place: Place = Place(),
    only: int | None = None,
    digest: str | None = None,
) -> list[LookupResult]:
    """Return what these accounts (None: all) know of all that a look-up means, sent within a time (None: ever).

    Several whole numbers are answered apart, with the newest group of each; else there is one result, or none where
    nothing can be looked up. `only`: one of several, whole. `digest`: the keyed hash of the one number, by which it is
    known whether its data were erased.
    """
    subjects = split_lookup(wanted)
    chosen = subjects if only is None or only >= len(subjects) else [subjects[only]]
    groups_max = _GROUPS_MAX if len(chosen) == 1 else 1
    results = [
        _answer(connection, each, within, clock, accounts, place=place, groups_max=groups_max) for each in chosen
    ]
    sure = len(wanted.numbers) == 1 and not wanted.near_misses
    if sure and digest is not None and any(result.never_sent for result in results):
        sure = not store.is_erased(connection, digest)
    return results if sure else [replace(result, never_sent=False) for result in results]


def split_lookup(wanted: ParsedLookup) -> list[Sequence[LookupQuery]]:
    """Return what is answered apart: each of several whole numbers, and all else together."""
    if len(wanted.numbers) < 2:
        return [wanted.queries] if wanted.queries else []
    numbers = [query for query in wanted.queries if query.mobile in wanted.numbers]
    others = [query for query in wanted.queries if query.mobile not in wanted.numbers]
    return [*((query,) for query in numbers), *([others] if others else [])]


def _answer(
    connection: sa.Connection,
    lookups: Sequence[LookupQuery],
    within: timedelta | None,
    clock: Clock,
    accounts: tuple[str, ...] | None,
    *,
    place: Place,
    groups_max: int,
) -> LookupResult:
    """Return what is known of one subject. All that is kept is searched.

    Where nothing was sent in the time, the newest group before it is the answer.
    """
    rows = store.find_messages(connection, lookups, clock=clock, accounts=accounts, before=place.before)
    dated = [row for row in rows if has_moment(row)]
    undated = [row.id for row in rows if not has_moment(row)]
    result = LookupResult(queries=lookups, undated=bool(undated))
    every = group_resends(dated)
    if every:
        result = _with_groups(connection, result, every, within, clock, place, groups_max)
        result = replace(result, cut=result.next is None and len(rows) >= store.READ_MAX)
        if result.cut and result.number is not None:
            result = replace(result, next=Place(before=min(row.id for row in rows)), cut=False)
        result = _with_unreadable(connection, result, accounts)
    if place != Place():
        return result
    replies = store.find_replies(connection, lookups, undated, accounts=accounts)
    perhaps = any(is_masked(reply.mobile) for reply in replies)
    result = replace(result, replies=[without_numbers(reply) for reply in replies], perhaps=perhaps)
    return result if every else _without_messages(connection, result, accounts)


def _with_groups(
    connection: sa.Connection,
    result: LookupResult,
    every: Sequence[Attempts],
    within: timedelta | None,
    clock: Clock,
    place: Place,
    groups_max: int,
) -> LookupResult:
    """Return the result with those groups that touch the period, else with the newest before it."""
    wanted = [group for group in every if within is None or moment_of(group.newest) >= clock.now - within]
    earlier = not wanted
    chosen = every[:1] if earlier else wanted[place.skip :]
    shown: list[Attempts] = []
    for group in chosen:
        if shown and sum(len(each.messages) for each in (*shown, group)) > _MESSAGES_MAX:
            break
        shown.append(group)
    return replace(
        result,
        groups=answer_groups(connection, shown[:groups_max], clock),
        further=shown[groups_max:],
        earlier=earlier,
        older=len(every) - max(1, len(wanted)),
        next=replace(place, skip=place.skip + len(shown)) if len(shown) < len(chosen) else None,
    )


def answer_groups(connection: sa.Connection, groups: Sequence[Attempts], clock: Clock) -> Sequence[AnsweredGroup]:
    """Return the answer for each group of resends."""
    ids = [message.id for group in groups for message in group.messages]
    receipts, replies = queries.list_inbound_events(connection, *ids)
    entries = notes.list_notes(connection, ids)
    return [_answer_group(connection, group, clock, receipts, replies, entries) for group in groups]


def _answer_group(
    connection: sa.Connection,
    attempts: Attempts,
    clock: Clock,
    receipts: Sequence[ReceiptRow],
    replies: Sequence[ReplyRow],
    entries: Sequence[Note],
) -> AnsweredGroup:
    message = attempts.best
    answer = answer_of(message)
    recent = None
    if answer in (LookupAnswer.WAITING, LookupAnswer.LATE):
        recent = signals.find_recent_delivery(
            connection, account=message.account, template_id=message.template_id, now=clock.now
        )
    ids = {each.id for each in attempts.messages}
    return AnsweredGroup(
        answer=answer,
        attempts=attempts,
        age=clock.now - moment_of(message) if has_moment(message) else None,
        recent=recent,
        unreadable=None,
        receipts=[without_numbers(row) for row in receipts if row.message_id in ids],
        replies=[without_numbers(row) for row in replies if row.message_id in ids],
        notes=[entry for entry in entries if entry.message_id in ids],
    )


def _with_unreadable(connection: sa.Connection, result: LookupResult, accounts: tuple[str, ...] | None) -> LookupResult:
    """Return the result whose newest answer says if a push that could not be parsed may be its receipt."""
    newest, *others = result.groups
    message = newest.message
    if newest.answer not in UNSETTLED:
        return result
    numbers = {query.mobile for query in result.queries} & {message.mobile}
    found = _find_unreadable(connection, {*numbers, message.task_id}, moment_of(message), accounts)
    answer = answer_of(message, unreadable=found is not None)
    return replace(result, groups=[replace(newest, answer=answer, unreadable=found), *others])


def _find_unreadable(
    connection: sa.Connection,
    texts: Collection[str | None],
    since: datetime | None,
    accounts: tuple[str, ...] | None,
) -> PushRow | None:
    """Return a push after that time that could not be parsed and contains one of the texts; None: there is none."""
    needles = [text.encode() for text in texts if text is not None and len(text) >= _NEEDLE_MIN_CHARS]
    return signals.find_quarantined_about(connection, needles=needles, since=since, accounts=accounts)


def _without_messages(
    connection: sa.Connection, result: LookupResult, accounts: tuple[str, ...] | None
) -> LookupResult:
    """Return the result with all that may be about a look-up for which no message is found."""
    texts = {text for query in result.queries for text in (query.mobile, query.text)}
    unreadable = _find_unreadable(connection, texts, None, accounts)
    possible, all_searched = store.find_possible_receipts(connection, result.queries, accounts=accounts)
    result = replace(
        result,
        unreadable=unreadable,
        possible=[without_numbers(receipt) for receipt in possible],
        kept_since=store.find_kept_since(connection),
    )
    return replace(
        result,
        never_sent=(
            result.number is not None
            and result.is_empty
            and all_searched
            and accounts is None  # else another account may have sent it
            and DATA_LAG.get() is None
            and arrivals.count_quarantined(connection, since=None) < signals.QUARANTINED_SEARCHED_MAX
            and store.records_sends(connection)
        ),
    )
