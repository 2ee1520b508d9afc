"""The page of one message, and the look at its number in full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import redirect, session, url_for
from flask_babel import gettext

from receiver.core import NotFound
from receiver.messages import queries
from receiver.support.answers import Attempts, LookupAnswer
from receiver.support.lookup_service import answer_groups
from receiver.support.neighbours import find_neighbours
from receiver.web import runtime
from receiver.web.console.advice import advice_for
from receiver.web.console.filters import dated
from receiver.web.console.pages import blueprint, render
from receiver.web.console.reasons import find_reason
from receiver.web.console.session import Permission, current_user
from receiver.web.lists.visibility import audit_look_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Response

    from receiver.messages.queries import Clock, MessageRow
    from receiver.support.lookup_service import LookupResult

_REVEALED = "revealed"  # in the session's cookie: messages, by user and id, and until when
_REVEALED_FOR = timedelta(minutes=10)
_REVEALED_MAX = 20  # so that the cookie stays small


@blueprint.get("/messages/<row_id:message_id>")
def message(message_id: str) -> Response:
    """Show one message."""
    return _answer_message(message_id)


@blueprint.get("/messages/<row_id:message_id>/reveal")
def revealed(message_id: str) -> Response:
    """Lead to the message, for whoever was given the address of the form."""
    return redirect(url_for("console.message", message_id=message_id), HTTPStatus.SEE_OTHER)


@blueprint.post("/messages/<row_id:message_id>/reveal")
def reveal(message_id: str) -> Response:
    """Show one number in full for ten minutes, to this session, with a reason. Audited."""
    reason = find_reason()
    if reason is None:
        return _answer_message(message_id, 422, error=gettext("Enter a reason for viewing the full number."))
    services = runtime()
    _find(message_id, services.clock())
    services.audit(current_user().caller.name, "number.reveal", message_id=message_id, reason=reason)
    kept = {key: until for key, until in session.get(_REVEALED, {}).items() if until > services.now().timestamp()}
    kept.pop(_key(message_id), None)
    until = int((services.now() + _REVEALED_FOR).timestamp())
    session[_REVEALED] = dict([*kept.items(), (_key(message_id), until)][-_REVEALED_MAX:])
    return revealed(message_id)


def _key(message_id: str) -> str:
    return f"{current_user().user.id}:{message_id}"


def is_revealed(row: MessageRow) -> bool:
    """Return whether this user gave a reason, in this session, to see the number of a message."""
    until = session.get(_REVEALED, {}).get(_key(str(row.id)))
    if until is None or not current_user().may(Permission.LOOK_UP):
        return False
    return datetime.fromtimestamp(until, UTC) > runtime().now()


def revealed_numbers(results: Iterable[LookupResult]) -> frozenset[str]:
    """Return the numbers of messages found of which this user has revealed one, in this session."""
    groups = (group for result in results for group in result.groups)
    return frozenset(row.mobile for group in groups for row in group.attempts.messages if is_revealed(row))


def _find(message_id: str, clock: Clock) -> MessageRow:
    """Return a message of the user's accounts. Raises NotFound."""
    accounts = current_user().user.accounts
    row = runtime().ask(lambda connection: queries.find_message(connection, int(message_id), clock, accounts))
    if row is None:
        raise NotFound(gettext("There is no message at this address."))
    return row


def _answer_message(message_id: str, status: int = 200, *, error: str | None = None) -> Response:
    """Return the page of one message: its answer and timeline. Raises NotFound."""
    services = runtime()
    clock = services.clock()
    row = _find(message_id, clock)
    (answered,) = services.ask(lambda connection: answer_groups(connection, [Attempts(messages=[row])], clock))
    accounts = current_user().user.accounts
    neighbours = services.ask(lambda connection: find_neighbours(connection, row, accounts))
    audit_look_up("message.read", message_id=message_id, replies=len(answered.replies) or None)
    with dated():
        return render(
            "message.html",
            status,
            answered=answered,
            neighbours=neighbours,
            advice=advice_for,
            Answer=LookupAnswer,
            error=error,
            now=clock.now,
            shown_in_full=frozenset({row.mobile} if is_revealed(row) else ()),
            refreshes=False,
        )
