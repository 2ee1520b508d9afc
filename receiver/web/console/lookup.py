"""Look-ups: one search field, then an answer, advice and a timeline."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.core import TEXT_MAX_CHARS, NotFound
from receiver.support.answers import UNSETTLED, LookupAnswer
from receiver.support.lookup import PASTED_MAX_CHARS, parse_lookup
from receiver.support.lookup_service import LONGEST, answer_lookup
from receiver.support.lookup_store import find_look_up, save_look_up
from receiver.web import runtime
from receiver.web.console.advice import advice_for
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response

# Periods by their name in URLs. The first is the default, since most ask about a recent code.
PERIODS: Mapping[str, tuple[timedelta, Any]] = {
    "10m": (timedelta(minutes=10), lazy_gettext("the last 10 minutes")),
    "1h": (timedelta(hours=1), lazy_gettext("the last hour")),
    "24h": (timedelta(hours=24), lazy_gettext("the last 24 hours")),
    "7d": (timedelta(days=7), lazy_gettext("the last 7 days")),
    "30d": (LONGEST, lazy_gettext("the last 30 days")),
}
_FIRST = "10m"


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
            gettext(
                "This look-up has expired after a day, or belongs to another user. Look it up again, or ask your"
                " colleague for the link of the message: the button “Copy link” beside the answer gives it."
            )
        )
    period = request.args.get("period", _FIRST)
    if period not in PERIODS:
        period = _FIRST
    clock = services.clock(now)
    within, accounts = PERIODS[period][0], user.accounts
    answer = services.ask(
        lambda connection: answer_lookup(connection, wanted, within=within, clock=clock, accounts=accounts)
    )
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
