"""Advice for support staff for each answer: the built-in text, or the team's own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flask import g
from flask_babel import lazy_gettext

from receiver.support.advice import list_advice
from receiver.support.answers import LookupAnswer
from receiver.web import runtime
from receiver.web.console.pages import language

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.support.lookup_service import LookupResult

_MAY_REQUEST_AGAIN = timedelta(minutes=2)  # the platform takes one a minute for a number
_REQUEST_AGAIN = lazy_gettext(
    "It should have arrived by now. Let them request a new code: they can do so at once. Ask whether the phone is on"
    " and has signal."
)

BUILT_IN: Mapping[LookupAnswer, Any] = {
    LookupAnswer.DELIVERED: lazy_gettext(
        "The message reached the phone. Ask them to check blocked and junk messages, to switch flight mode on and"
        " off, and whether this phone holds the SIM card of the number."
    ),
    LookupAnswer.FAILED: lazy_gettext(
        "The operator could not deliver it. Ask whether the phone is on, has signal and has credit. Then let them"
        " request a new code."
    ),
    LookupAnswer.UNKNOWN: lazy_gettext(
        "The platform reported a status that means neither delivered nor failed. Treat it as not delivered, and pass"
        " the task id to the platform's hotline."
    ),
    LookupAnswer.CONFLICTING: lazy_gettext(
        "The platform reported both delivered and failed. Ask whether it arrived. If not, pass the task id to the"
        " platform's hotline."
    ),
    LookupAnswer.WAITING: lazy_gettext("Ask them to wait a moment. This page refreshes by itself."),
    LookupAnswer.LATE: lazy_gettext(
        "It takes longer than usual. Ask whether the phone is on and has signal. If it still does not arrive, let"
        " them request a new code."
    ),
    LookupAnswer.NO_RECEIPT: lazy_gettext(
        "The operator sent no receipt and will not send one any more. Let them request a new code. If that fails too,"
        " check the number with them digit by digit."
    ),
    LookupAnswer.REFUSED: lazy_gettext(
        "Nothing was sent. If the reason is a limit, let them wait and request again. Otherwise inform the technical"
        " team."
    ),
    LookupAnswer.SENDING: lazy_gettext("It is being submitted to the platform. This page refreshes by itself."),
    LookupAnswer.OUTCOME_UNKNOWN: lazy_gettext(
        "The platform did not answer the request, so the message may have arrived. Ask. If it did not arrive, let"
        " them request a new code."
    ),
    LookupAnswer.UNREADABLE: lazy_gettext(
        "A receipt arrived but could not be parsed, so the result is not known yet. Ask whether the message arrived,"
        " and ask an administrator to re-parse the receipt."
    ),
    LookupAnswer.NOTHING: lazy_gettext(
        "Check the number with them digit by digit, and ask whether they used another number to request the code. If"
        " the number is right, the message was never sent."
    ),
}


# After a while another text holds: from this age on.
_WHEN_OLD: Mapping[LookupAnswer, tuple[timedelta, Any]] = {
    LookupAnswer.DELIVERED: (
        timedelta(minutes=10),
        lazy_gettext(
            "The message reached the phone, but a code of that age has usually expired. If they did not use it, let"
            " them request a new one. If they cannot find it, ask them to check blocked and junk messages."
        ),
    ),
    LookupAnswer.WAITING: (_MAY_REQUEST_AGAIN, _REQUEST_AGAIN),
    LookupAnswer.LATE: (_MAY_REQUEST_AGAIN, _REQUEST_AGAIN),
    LookupAnswer.REFUSED: (
        _MAY_REQUEST_AGAIN,
        lazy_gettext(
            "Nothing was sent. If the reason was a limit per minute, they can request a new code now. If it was a limit"
            " per day, they have to wait. Otherwise inform the technical team."
        ),
    ),
    LookupAnswer.OUTCOME_UNKNOWN: (
        _MAY_REQUEST_AGAIN,
        lazy_gettext(
            "The platform did not answer the request, so the message may have arrived. If it did not, they can request"
            " a new code now."
        ),
    ),
}
_NOTHING_UNCERTAIN = lazy_gettext(
    "Check the number with them digit by digit, and ask whether they used another number to request the code."
)
_NOTHING_WITHOUT_NUMBER = lazy_gettext(
    "Ask for the whole phone number and look that up: without it, nothing can be said about what was sent."
)


def advice_for(answer: LookupAnswer, age: timedelta | None = None) -> str:
    """Return the advice for an answer of that age in the page's language."""
    if "advice" not in g:
        g.advice = runtime().ask_present(lambda connection: list_advice(connection, language()))
    own: Mapping[str, str] = g.advice
    if answer.value in own:
        return own[answer.value]
    from_age, when_old = _WHEN_OLD.get(answer, (None, None))
    return str(when_old if from_age is not None and age is not None and age >= from_age else BUILT_IN[answer])


def advice_for_nothing(result: LookupResult) -> str:
    """Return the advice where a look-up found nothing: that nothing was sent is said only where that is certain."""
    if result.never_sent:
        return advice_for(LookupAnswer.NOTHING)
    return str(_NOTHING_UNCERTAIN if result.number is not None else _NOTHING_WITHOUT_NUMBER)
