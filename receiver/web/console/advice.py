"""What support staff are told to do about each answer: what comes with the program, and what the team says instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import g
from flask_babel import lazy_gettext

from receiver.auth import users
from receiver.support.lookup import LookupAnswer
from receiver.web import runtime
from receiver.web.console.pages import language

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILT_IN: Mapping[LookupAnswer, Any] = {
    LookupAnswer.DELIVERED: lazy_gettext(
        "It is on the phone. Ask to look under blocked or junk messages, to switch flight mode on and off, and whether"
        " this is the phone that holds the number."
    ),
    LookupAnswer.FAILED: lazy_gettext(
        "The operator could not deliver it. Ask whether the phone is on, has signal and is not out of credit; then let"
        " them ask for a new code."
    ),
    LookupAnswer.UNKNOWN: lazy_gettext(
        "The platform reported a status that says neither yes nor no. Treat it as not delivered; give the task id to"
        " the platform's hotline."
    ),
    LookupAnswer.CONFLICTING: lazy_gettext(
        "The platform has said both. Ask whether it arrived; if not, give the task id to the platform's hotline."
    ),
    LookupAnswer.WAITING: lazy_gettext("Wait with the person for a moment; this page looks again by itself."),
    LookupAnswer.LATE: lazy_gettext(
        "It takes longer than usual. Ask whether the phone is on and has signal; after a minute, let them ask for a new"
        " code."
    ),
    LookupAnswer.NO_RECEIPT: lazy_gettext(
        "The operator never reported, and will not any more. Let them ask for a new code; if that fails too, check the"
        " number with them, digit by digit."
    ),
    LookupAnswer.REFUSED: lazy_gettext(
        "Nothing was sent. If the reason is a limit, let them wait and ask again; otherwise tell the team."
    ),
    LookupAnswer.SENDING: lazy_gettext("It is on its way to the platform; this page looks again by itself."),
    LookupAnswer.OUTCOME_UNKNOWN: lazy_gettext(
        "The platform did not answer when it was sent: it may have arrived. Ask; if not, let them ask for a new code."
    ),
    LookupAnswer.UNREADABLE: lazy_gettext(
        "A report came, but we cannot read it: nobody knows yet whether it arrived. Ask; and tell an administrator, who"
        " can read the report again."
    ),
    LookupAnswer.NOTHING: lazy_gettext(
        "Check the number with the person, digit by digit, and whether they asked for the code with another one. If it"
        " is right, the message was never sent."
    ),
}


def advice_for(answer: LookupAnswer) -> str:
    """Return the advice for an answer in the page's language."""
    if "advice" not in g:
        g.advice = runtime().ask(lambda connection: users.list_advice(connection, language()))
    own: Mapping[str, str] = g.advice
    return own.get(answer.value) or str(BUILT_IN[answer])
