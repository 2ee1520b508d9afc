"""Advice for support staff for each answer: the built-in text, or the team's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import g
from flask_babel import lazy_gettext

from receiver.support.advice import list_advice
from receiver.support.answers import LookupAnswer
from receiver.web import runtime
from receiver.web.console.pages import language

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def advice_for(answer: LookupAnswer) -> str:
    """Return the advice for an answer in the page's language."""
    if "advice" not in g:
        g.advice = runtime().ask_present(lambda connection: list_advice(connection, language()))
    own: Mapping[str, str] = g.advice
    return own.get(answer.value) or str(BUILT_IN[answer])
