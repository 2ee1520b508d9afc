"""Look-ups: one field, one sentence, one line of advice, and the timeline below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.auth import users
from receiver.core import NotFound
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, MessageRow, Page, PushRow, ReceiptRow, ReplyRow
from receiver.support import lookup_queries as store
from receiver.support import signals
from receiver.support.lookup import (
    TEXT_MAX_CHARS,
    UNSETTLED,
    Attempts,
    LookupAnswer,
    LookupQuery,
    answer_of,
    group_resends,
    has_moment,
    moment_of,
    parse_wanted,
)
from receiver.web import runtime
from receiver.web.api.common import audit_look_up, shown
from receiver.web.console.advice import advice_for
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from werkzeug.wrappers import Response

    from receiver.db.engine import Connection
    from receiver.support.signals import RecentDelivery

_GROUPS_MAX = 8  # in full: each has its timeline
_MESSAGES_MAX = 50
_REPLIES_MAX = 20
_NEEDLE_MIN_CHARS = 5  # fewer digits stand in many a push
_REASON_MIN_CHARS = 3
# How far back, as it stands in an address: the first is where a look-up opens, since most ask for a code of just now.
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
    """One group of resends as it is shown: its answer, and what the sentence needs."""

    answer: LookupAnswer
    attempts: Attempts
    age: timedelta | None  # None: only a reply speaks of it
    recent: RecentDelivery | None  # of the same template, where the message still waits
    unreadable: PushRow | None
    receipts: Sequence[ReceiptRow]
    replies: Sequence[ReplyRow]

    @property
    def message(self) -> MessageRow:
        """The attempt that the sentence is about."""
        return self.attempts.newest


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupResult:
    """What a look-up found: groups, newest first; or nothing, but perhaps a push that could not be read."""

    told: Sequence[AnsweredGroup]
    earlier: bool  # nothing in the time that was asked for: the newest before it
    more: bool  # than these
    unreadable: PushRow | None
    replies: Sequence[ReplyRow]  # from the number, of no message that is shown


@blueprint.post("/look-up")
def look_up() -> Response:
    """Keep what is looked up under an address that says nothing, and lead there."""
    text = request.form.get("wanted", "")
    period = request.form.get("period", _FIRST)
    wanted = parse_wanted(text)
    if wanted is None or period not in PERIODS:
        error = gettext("Type a phone number, a task id or a reference, or the last four digits of a number.")
        if len(text) > TEXT_MAX_CHARS:
            error = gettext("That is too long to be a number, a task id or a reference.")
        return render("home.html", 422, periods=PERIODS, error=error, wanted=text[:TEXT_MAX_CHARS])
    parts, user = runtime(), visitor().user
    audit_look_up("look_up", mobile=wanted.mobile or wanted.last_digits)
    token = parts.database.write(lambda connection: users.save_look_up(connection, user.id, text, now=parts.now()))
    return redirect(url_for("console.found", token=token, period=period), HTTPStatus.SEE_OTHER)


@blueprint.get("/look-up/<token>")
def found(token: str) -> Response:
    """Answer a look-up, with the field for the next one."""
    return _answer("found.html", token)


@blueprint.get("/look-up/<token>/answer")
def found_answer(token: str) -> Response:
    """Answer it again, for a page that is open."""
    return _answer("answers.html", token)


def _answer(template: str, token: str) -> Response:
    parts, user = runtime(), visitor().user
    now = parts.now()
    text = parts.ask(lambda connection: users.find_look_up(connection, user.id, token, now=now))
    wanted = parse_wanted(text) if text is not None else None
    if text is None or wanted is None:
        raise NotFound(gettext("This look-up is over a day old, or somebody else's. Look it up again."))
    period = request.args.get("period", _FIRST)
    if period not in PERIODS:
        period = _FIRST
    clock = parts.clock(now)
    answer = parts.ask(lambda connection: _find(connection, wanted, PERIODS[period][0], clock))
    return render(
        template,
        token=token,
        wanted=text,
        by_number=wanted.mobile is not None,
        found=answer,
        period=period,
        periods=PERIODS,
        Answer=LookupAnswer,
        advice=advice_for,
        looks_again=not answer.told or answer.told[0].answer in UNSETTLED,
        now=now,
        shown_in_full=frozenset({wanted.mobile}),
    )


def _find(connection: Connection, wanted: LookupQuery, within: timedelta, clock: Clock) -> LookupResult:
    accounts = visitor().user.accounts
    rows = store.find_messages(
        connection, wanted, since=clock.now - within, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
    )
    earlier = not rows
    if earlier:
        longest = PERIODS[_LONGEST][0]
        rows = store.find_messages(
            connection, wanted, since=clock.now - longest, clock=clock, limit=_MESSAGES_MAX, accounts=accounts
        )
    every = group_resends(rows)
    groups = every[: 1 if earlier else _GROUPS_MAX]
    unreadable = _find_unreadable(connection, wanted, groups, clock)
    return LookupResult(
        told=[
            tell(connection, group, clock, unreadable=None if number else unreadable)
            for number, group in enumerate(groups)
        ],
        earlier=earlier and bool(groups),
        more=not earlier and (len(groups) < len(every) or len(rows) == _MESSAGES_MAX),
        unreadable=None if groups else unreadable,
        replies=_find_replies(connection, wanted, rows, clock.now - (PERIODS[_LONGEST][0] if earlier else within)),
    )


def _find_replies(
    connection: Connection, wanted: LookupQuery, rows: Sequence[MessageRow], since: datetime
) -> Sequence[ReplyRow]:
    """Find what came from a number and belongs to no recorded message: whoever wrote it has to be found too."""
    if wanted.mobile is None:
        return ()
    asked = Filter(mobile=wanted.mobile, matched=False, received_from=since, accounts=visitor().user.accounts)
    found = queries.list_replies(connection, Page(limit=_REPLIES_MAX, filter=asked))
    told = {row.id for row in rows}
    return [shown(reply) for reply in found if reply.message_id not in told]


def tell(
    connection: Connection, attempts: Attempts, clock: Clock, *, unreadable: PushRow | None = None
) -> AnsweredGroup:
    """Answer one group of resends."""
    message = attempts.newest
    answer = answer_of(message, unreadable=unreadable is not None)
    recent = None
    if answer in (LookupAnswer.WAITING, LookupAnswer.LATE):
        recent = signals.find_recent_delivery(
            connection, account=message.account, template_id=message.template_id, now=clock.now
        )
    receipts, replies = queries.list_sightings(connection, message.id)
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
    connection: Connection, wanted: LookupQuery, groups: Sequence[Attempts], clock: Clock
) -> PushRow | None:
    """Find a push that could not be read and names the number or the task that is asked for."""
    needles = {wanted.mobile, groups[0].newest.task_id if groups else wanted.text} - {None}
    since = moment_of(groups[0].newest) if groups else clock.now - PERIODS[_LONGEST][0]
    fitting = [needle.encode() for needle in needles if needle is not None and len(needle) >= _NEEDLE_MIN_CHARS]
    if not fitting or (groups and answer_of(groups[0].newest) not in UNSETTLED):
        return None
    accounts = visitor().user.accounts
    return signals.find_quarantined_about(connection, needles=fitting, since=since, accounts=accounts)


@blueprint.post("/messages/<row_id:message_id>/reveal")
def reveal(message_id: str) -> Response:
    """Show one number in full, to somebody who says why; noted."""
    reason = " ".join(request.form.get("reason", "").split())
    if not _REASON_MIN_CHARS <= len(reason) <= TEXT_MAX_CHARS:
        return answer_message(message_id, status=422, error=gettext("Say why you need to see the number."))
    runtime().audit(visitor().caller.name, "number.reveal", message_id=message_id, reason=reason)
    return answer_message(message_id, in_full=True)


def answer_message(message_id: str, *, status: int = 200, in_full: bool = False, error: str | None = None) -> Response:
    """Show one message: its answer and its timeline. Raises NotFound."""
    parts = runtime()
    clock = parts.clock()
    row = parts.ask(
        lambda connection: queries.find_message(connection, int(message_id), clock, visitor().user.accounts)
    )
    if row is None:
        raise NotFound(gettext("There is no message under this address."))
    told = parts.ask(lambda connection: tell(connection, Attempts(messages=[row]), clock))
    if not in_full:  # which is noted with its reason
        audit_look_up("message.read", message_id=message_id, replies=len(told.replies) or None)
    return render(
        "message.html",
        status,
        told=told,
        advice=advice_for,
        Answer=LookupAnswer,
        error=error,
        now=clock.now,
        shown_in_full=frozenset({row.mobile} if in_full else ()),
        looks_again=False,
    )
