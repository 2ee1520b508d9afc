"""What a case is handed to a colleague with: its link, and one block of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import render_template, url_for
from markupsafe import Markup

from receiver.support.answers import LookupAnswer
from receiver.web import runtime
from receiver.web.console.advice import advice_for
from receiver.web.console.filters import dated
from receiver.web.console.pages import blueprint
from receiver.web.console.session import over_https

if TYPE_CHECKING:
    from receiver.support.lookup_service import AnsweredGroup


@blueprint.app_template_global()
def case_text(answered: AnsweredGroup) -> str:
    """Return a case as plain text for a chat or a ticket: with dates, the number masked, without texts of replies."""
    with dated():
        text = render_template(
            "console/case_text.html",
            answered=answered,
            advice=advice_for,
            Answer=LookupAnswer,
            link=case_link(answered.message.id),
            now=runtime().now(),
        )
    lines = (Markup(line).striptags() for line in text.splitlines())  # noqa: S704  (back to plain text)
    return "\n".join(line for line in lines if line)


def case_link(message_id: int) -> str:
    """Return the whole address of a message, for a colleague's browser."""
    scheme = "https" if over_https() else "http"
    return url_for("console.message", message_id=message_id, _external=True, _scheme=scheme)
