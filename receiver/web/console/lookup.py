"""Look-ups: one search field, then an answer, advice and a timeline."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.core import TEXT_MAX_CHARS, NotFound
from receiver.support import lookup_service
from receiver.support.answers import LookupAnswer
from receiver.support.lookup import PASTED_MAX_CHARS, LookupQuery, ParsedLookup, parse_lookup
from receiver.support.lookup_service import Place, answer_lookup
from receiver.support.lookup_store import as_shown, find_look_up, number_of_row, save_look_up
from receiver.support.number_list import NUMBERS_MAX, parse_numbers
from receiver.web import runtime
from receiver.web.console.advice import advice_for, advice_for_nothing
from receiver.web.console.message import revealed_numbers
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response

_PERIOD_WORDS: Mapping[str, Any] = {
    "10m": lazy_gettext("the last 10 minutes"),
    "1h": lazy_gettext("the last hour"),
    "24h": lazy_gettext("the last 24 hours"),
    "7d": lazy_gettext("the last 7 days"),
    "30d": lazy_gettext("the last 30 days"),
    "all": lazy_gettext("all records"),
}
PERIODS = {name: (span, _PERIOD_WORDS[name]) for name, span in lookup_service.PERIODS.items()}
_FIRST = next(iter(PERIODS))
_IDS_END = 1 << 63


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
    for mobile in wanted.audited:
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
    of_row = number_of_row(text or "")
    parsed = ParsedLookup(queries=(LookupQuery(mobile=of_row),)) if of_row else parse_lookup(text or "")
    if text is None or parsed is None:
        raise NotFound(
            gettext(
                "This look-up has expired after a day, or belongs to another user. Look it up again, or ask your"
                " colleague for the link of the message: the button “Copy link” beside the answer gives it."
            )
        )
    period = request.args.get("period", _FIRST)
    if period not in PERIODS:
        period = _FIRST
    place = Place(before=_positive("before"), skip=_positive("skip") or 0)
    only = _positive("only")
    clock = services.clock(now)
    digest = services.mobile_hmac(parsed.numbers[0]) if len(parsed.numbers) == 1 else None
    results = services.ask(
        lambda connection: answer_lookup(
            connection,
            parsed,
            within=PERIODS[period][0],
            clock=clock,
            accounts=user.accounts,
            place=place,
            only=None if only is None else only - 1,
            digest=digest,
        )
    )
    return render(
        template,
        token=token,
        wanted=as_shown(text),
        near_misses=[miss for miss in parsed.near_misses if not any(result.names(miss.text) for result in results)],
        more=parsed.more,
        listed=bool(parsed.numbers) and _is_list_of_numbers(text),
        results=results,
        period=period,
        periods=PERIODS,
        place=place,
        only=only,
        Answer=LookupAnswer,
        advice=advice_for,
        advice_for_nothing=advice_for_nothing,
        refreshes=any(result.may_change for result in results),
        now=now,
        shown_in_full=revealed_numbers(results) if of_row else frozenset(parsed.mobiles),
    )


def _is_list_of_numbers(text: str) -> bool:
    """Return whether the list of messages takes this look-up as its numbers."""
    found = parse_numbers(text)
    return bool(found.numbers) and not found.wrong and len(found.numbers) <= NUMBERS_MAX


def _positive(name: str) -> int | None:
    """Return a number of the address; None: it has none, or one that nothing has."""
    given = request.args.get(name, type=int)
    return given if given is not None and 0 < given < _IDS_END else None
