"""Look-ups: one search field, then an answer, advice and a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.core import TEXT_MAX_CHARS, NotFound
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, MessageRow, Page, PushRow, ReceiptRow, ReplyRow
from receiver.support import lookup_queries as store
from receiver.support import signals
from receiver.support.lookup import (
    PASTED_MAX_CHARS,
    UNSETTLED,
    Attempts,
    LookupAnswer,
    ParsedLookup,
    answer_of,
    group_resends,
    has_moment,
    moment_of,
    parse_lookup,
)
from receiver.support.lookup_store import find_look_up, save_look_up
from receiver.web import runtime
from receiver.web.console.advice import advice_for
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user
from receiver.web.lists.visibility import audit_look_up, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from werkzeug.wrappers import Response

    from receiver.db.engine import Connection
    from receiver.support.signals import RecentDelivery

_GROUPS_MAX = 8  # each is shown with its timeline
_MESSAGES_MAX = 50
_REPLIES_MAX = 20
_NEEDLE_MIN_CHARS = 5  # shorter texts occur in many pushes
_REASON_MIN_CHARS = 3
# Periods by their name in URLs. The first is the default, since most ask about a recent code.
PERIODS: Mapping[str, tuple[timedelta, Any]] = {
    "10m": (timedelta(minutes=10), lazy_gettext("the last 10 minutes")),
    "1h": (timedelta(hours=1), lazy_gettext("the last hour")),
    "24h": (timedelta(hours=24), lazy_gettext("the last 24 hours")),
    "7d": (timedelta(days=7), lazy_gettext("the last 7 days")),
    "30d": (timedelta(days=30), lazy_gettext("the last 30 days")),
}
_FIRST, _LONGEST = "10m", "30d"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredGroup:
    """One group of resends as shown: its answer and the data of the sentence."""

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


@blueprint.post("/look-up")
def look_up() -> Response:
    """Save the look-up under an opaque URL, and redirect there."""
    text = request.form.get("wanted", "")
    period = request.form.get("period", _FIRST)
    wanted = parse_lookup(text)
    if wanted is None or period not in PERIODS:
        error = gettext("Enter a phone number, a task id, a reference, or the last four digits of a number.")
        if len(text) > TEXT_MAX_CHARS:
            error = gettext("Too long for a number, a task id or a reference.")
        return render("home.html", 422, periods=PERIODS, error=error, wanted=text[:PASTED_MAX_CHARS])
    services, user = runtime(), current_user().user
    numbers = filter(None, (query.mobile or query.last_digits for query in wanted.queries))
    for mobile in dict.fromkeys(numbers) or (None,):
        audit_look_up("look_up", mobile=mobile)
    token = services.database.write(lambda connection: save_look_up(connection, user.id, text, now=services.now()))
    return redirect(url_for("console.found", token=token, period=period), HTTPStatus.SEE_OTHER)


@blueprint.get("/look-up/<token>")
def found(token: str) -> Response:
    """Show the answer to a look-up, with the search field."""
    return _answer("found.html", token)


@blueprint.get("/look-up/<token>/answer")
def found_answer(token: str) -> Response:
    """Return the answer again, for a page that refreshes."""
    return _answer("answers.html", token)


def _answer(template: str, token: str) -> Response:
    services, user = runtime(), current_user().user
    now = services.now()
    text = services.ask(lambda connection: find_look_up(connection, user.id, token, now=now))
    wanted = parse_lookup(text) if text is not None else None
    if text is None or wanted is None:
        raise NotFound(
            gettext("This look-up has expired after a day, or belongs to another user. Please look it up again.")
        )
    period = request.args.get("period", _FIRST)
    if period not in PERIODS:
        period = _FIRST
    clock = services.clock(now)
    answer = services.ask(lambda connection: _find(connection, wanted, PERIODS[period][0], clock))
    return render(
        template,
        token=token,
        wanted=text,
        by_number=bool(wanted.numbers),
        found=answer,
        period=period,
        periods=PERIODS,
        Answer=LookupAnswer,
        advice=advice_for,
        refreshes=not answer.groups or answer.groups[0].answer in UNSETTLED,
        now=now,
        shown_in_full=frozenset(wanted.mobiles),
    )


def _find(connection: Connection, wanted: ParsedLookup, within: timedelta, clock: Clock) -> LookupResult:
    accounts = current_user().user.accounts
    rows = store.find_messages(
        connection, wanted.queries, since=clock.now - within, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
    )
    earlier = not rows
    if earlier:
        longest = PERIODS[_LONGEST][0]
        rows = store.find_messages(
            connection, wanted.queries, since=clock.now - longest, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
        )
    every = group_resends(rows)
    groups = every[: 1 if earlier else _GROUPS_MAX]
    unreadable = _find_unreadable(connection, wanted, groups, clock)
    return LookupResult(
        groups=[
            answer_group(connection, group, clock, unreadable=None if number else unreadable)
            for number, group in enumerate(groups)
        ],
        earlier=earlier and bool(groups),
        more=not earlier and (len(groups) < len(every) or len(rows) == _MESSAGES_MAX),
        unreadable=None if groups else unreadable,
        replies=_find_replies(connection, wanted, rows, clock.now - (PERIODS[_LONGEST][0] if earlier else within)),
    )


def _find_replies(
    connection: Connection, wanted: ParsedLookup, rows: Sequence[MessageRow], since: datetime
) -> Sequence[ReplyRow]:
    """Return replies from the numbers that belong to no recorded message."""
    accounts, shown_ids = current_user().user.accounts, {row.id for row in rows}
    unmatched = [
        Filter(mobile=mobile, matched=False, received_from=since, accounts=accounts) for mobile in wanted.mobiles
    ]
    found = [
        reply for one in unmatched for reply in queries.list_replies(connection, Page(limit=_REPLIES_MAX, filter=one))
    ]
    return [shown(reply) for reply in found[:_REPLIES_MAX] if reply.message_id not in shown_ids]


def answer_group(
    connection: Connection, attempts: Attempts, clock: Clock, *, unreadable: PushRow | None = None
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
        receipts=[shown(row) for row in receipts],
        replies=[shown(row) for row in replies],
    )


def _find_unreadable(
    connection: Connection, wanted: ParsedLookup, groups: Sequence[Attempts], clock: Clock
) -> PushRow | None:
    """Return a push that could not be parsed and contains the number or task id; None: there is none."""
    if groups:
        needles = {groups[0].newest.task_id, *({groups[0].newest.mobile} & set(wanted.mobiles))}
    else:
        near = {miss.text for miss in wanted.near_misses}  # a number with a digit too few is part of many
        needles = {query.mobile or query.text for query in wanted.queries} - near
    since = moment_of(groups[0].newest) if groups else clock.now - PERIODS[_LONGEST][0]
    fitting = [needle.encode() for needle in needles if needle is not None and len(needle) >= _NEEDLE_MIN_CHARS]
    if not fitting or (groups and answer_of(groups[0].newest) not in UNSETTLED):
        return None
    accounts = current_user().user.accounts
    return signals.find_quarantined_about(connection, needles=fitting, since=since, accounts=accounts)


@blueprint.post("/messages/<row_id:message_id>/reveal")
def reveal(message_id: str) -> Response:
    """Show one number in full, with a reason. Audited."""
    reason = " ".join(request.form.get("reason", "").split())
    if not _REASON_MIN_CHARS <= len(reason) <= TEXT_MAX_CHARS:
        return answer_message(message_id, status=422, error=gettext("Enter a reason for viewing the full number."))
    runtime().audit(current_user().caller.name, "number.reveal", message_id=message_id, reason=reason)
    return answer_message(message_id, in_full=True)


def answer_message(message_id: str, *, status: int = 200, in_full: bool = False, error: str | None = None) -> Response:
    """Return the page of one message: its answer and timeline. Raises NotFound."""
    services = runtime()
    clock = services.clock()
    row = services.ask(
        lambda connection: queries.find_message(connection, int(message_id), clock, current_user().user.accounts)
    )
    if row is None:
        raise NotFound(gettext("There is no message at this address."))
    answered = services.ask(lambda connection: answer_group(connection, Attempts(messages=[row]), clock))
    if not in_full:  # a reveal is audited with its reason
        audit_look_up("message.read", message_id=message_id, replies=len(answered.replies) or None)
    return render(
        "message.html",
        status,
        answered=answered,
        advice=advice_for,
        Answer=LookupAnswer,
        error=error,
        now=clock.now,
        shown_in_full=frozenset({row.mobile} if in_full else ()),
        refreshes=False,
    )
