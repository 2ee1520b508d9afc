"""A look-up from a row of a list: the server knows its number, the page does not."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import redirect, request, url_for
from flask_babel import gettext

from receiver.core import NotFound, is_masked
from receiver.messages import queries
from receiver.support.lookup_store import save_look_up
from receiver.web import runtime
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import Permission, current_user
from receiver.web.lists.pages import find_push
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response

_PERIOD = "30d"  # rows may be old
_IDS_END = 1 << 63


@blueprint.post("/look-up/row")
def look_up_row() -> Response:
    """Look up the number of a message, reply or push. Audited like any look-up; the number stays masked."""
    kind, row_id = next(((kind, request.form[kind]) for kind in _NUMBER_OF if kind in request.form), ("", ""))
    if not kind:
        raise NotFound(gettext("There is no page at this address."))
    mobile = _NUMBER_OF[kind](row_id)
    if mobile is None or is_masked(mobile):
        return render("problem.html", 422, heading=gettext("The platform sent no whole number here to look up"))
    services, user = runtime(), current_user().user
    audit_look_up("look_up", mobile=mobile)
    token = services.database.write(
        lambda connection: save_look_up(connection, user.id, mobile, now=services.now(), typed=False)
    )
    return redirect(url_for("console.found", token=token, period=_PERIOD), HTTPStatus.SEE_OTHER)


def _of_message(row_id: str) -> str | None:
    services, accounts = runtime(), current_user().user.accounts
    clock = services.clock()
    row = services.ask(lambda connection: queries.find_message(connection, _number(row_id), clock, accounts))
    if row is None:
        raise NotFound(gettext("There is no message at this address."))
    return row.mobile


def _of_reply(row_id: str) -> str | None:
    accounts = current_user().user.accounts
    row = runtime().ask(lambda connection: queries.find_reply(connection, _number(row_id), accounts))
    if row is None:
        raise NotFound(gettext("There is no reply at this address."))
    return row.mobile


def _of_push(row_id: str) -> str | None:
    if not current_user().may(Permission.JOURNAL):
        raise NotFound(gettext("There is no page at this address."))
    reading = runtime().admission.read_again(find_push(row_id).as_push()).reading
    return getattr(reading, "mobile", None)  # what could not be read has none


_NUMBER_OF: Mapping[str, Callable[[str], str | None]] = {
    "message": _of_message,
    "reply": _of_reply,
    "push": _of_push,
}


def _number(text: str) -> int:
    """Return an id; 0, which no row has, for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < len(str(_IDS_END)) else 0
