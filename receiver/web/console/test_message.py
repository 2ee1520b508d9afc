"""One test message through the platform, and its way: submitted, accepted, receipt, state."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, request, url_for
from flask_babel import gettext, lazy_gettext

from receiver.core import MessageStatus, NotFound, OwnRefusal, parse_mainland_mobile, read_refusal
from receiver.db import once
from receiver.messages import queries
from receiver.platform.client import OVER_LOCAL_LIMIT, check_send, explain
from receiver.sending.attempts import KeyReused
from receiver.sending.service import CodeRequest
from receiver.web import runtime
from receiver.web.console.pages import blueprint, render
from receiver.web.console.session import current_user, seen_accounts
from receiver.web.lists.visibility import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response

_KEY_MAX_CHARS = 64
_FAULTS: Mapping[str, Any] = {
    "mobile": lazy_gettext("Enter one mainland number: 11 digits that begin with 1."),
    "template_id": lazy_gettext("Enter a template id: digits, as the platform's console shows it."),
    "code": lazy_gettext("Enter 2 to 8 digits."),
    "account": lazy_gettext("Not a valid choice."),
    "sure": lazy_gettext("Confirm that a message may be sent."),
}
# A page of steps asks again while one of these may still change.
_OPEN = (MessageStatus.SENDING, MessageStatus.PENDING, MessageStatus.OUTCOME_UNKNOWN)


@blueprint.get("/test-message")
def test_message() -> Response:
    """Show the form of a test message."""
    return _form({})


@blueprint.post("/test-message", endpoint="send_test_message")
def send_test_message() -> Response:
    """Send one test message, and redirect to its way. A form that is sent twice sends one message."""
    services, given = runtime(), {name: text.strip() for name, text in request.form.items()}
    accounts = _accounts()
    account = given.get("account") or (accounts[0] if len(accounts) == 1 else "")
    mobile = parse_mainland_mobile(given.get("mobile", ""))
    template_id, code, key = given.get("template_id", ""), given.get("code", ""), given.get("key", "")
    faulty = set(check_send(mobile=mobile, template_id=template_id, code=code))
    faulty |= {"account"} - ({"account"} if account in accounts else set())
    faulty |= {"sure"} - given.keys()
    if faulty or mobile is None or not 0 < len(key) <= _KEY_MAX_CHARS:
        return _form(given, {name: str(_FAULTS[name]) for name in faulty}, status=422)
    services.start()  # starts the thread that saves the spool
    actor = current_user().caller.name
    services.audit(actor, "test_message.send", mobile=mobile, account=account, template_id=template_id)
    code_request = CodeRequest(account=account, mobile=mobile, template_id=template_id, code=code)
    try:
        sent = services.sender.send(code_request, caller=actor, idempotency_key=key)
    except KeyReused:
        return _form(
            given, {"sure": gettext("This form was sent before with other values. Send it again.")}, status=422
        )
    if sent.state is None:
        services.database.write(lambda connection: once.note(connection, once.TEST_MESSAGE_SENT, now=services.now()))
    if sent.message_id is None:
        flash(gettext("Sent. Its record is in the spool until the database is available again."), "good")
        return redirect(url_for("console.test_message"), HTTPStatus.SEE_OTHER)
    return redirect(url_for("console.test_message_way", message_id=sent.message_id), HTTPStatus.SEE_OTHER)


@blueprint.get("/test-message/<row_id:message_id>", endpoint="test_message_way")
def test_message_way(message_id: str) -> Response:
    """Show how far a message has come. The page asks again until its receipt is here."""
    services, accounts = runtime(), current_user().user.accounts
    clock = services.clock()
    row = services.ask(lambda connection: queries.find_message(connection, int(message_id), clock, accounts))
    if row is None:
        raise NotFound(gettext("There is no message at this address."))
    receipts, _ = services.ask(lambda connection: queries.list_inbound_events(connection, row.id))
    return render(
        "test_message_way.html",
        message=shown(row),
        receipts=[shown(receipt) for receipt in receipts],
        refusal=_refusal_of(row.error_message) if row.status == MessageStatus.REFUSED else None,
        begun_at=row.sent_at or row.recorded_at or clock.now,
        now=clock.now,
        asks_again=row.status in _OPEN,
    )


def _form(given: Mapping[str, str], errors: Mapping[str, str] | None = None, *, status: int = 200) -> Response:
    """Return the form. Its key is the Idempotency-Key of what it sends; a faulty form has sent nothing."""
    values = {name: given.get(name, "") for name in ("mobile", "template_id", "code", "account")}
    key = secrets.token_urlsafe(16)
    return render("test_message.html", status, given=values, errors=errors or {}, accounts=_accounts(), key=key)


def _accounts() -> list[str]:
    """Return the accounts of the current user that can send."""
    return [account for account in runtime().sender.accounts if account in seen_accounts()]


def _refusal_of(message: str | None) -> tuple[str, str, str]:
    """Return by whom a message was refused, why, and what to do."""
    own, words = read_refusal(message or "")
    match own:
        case OwnRefusal.NOT_SENT:
            advice = gettext("check that this server reaches RECEIVER_PLATFORM_URL; nothing was sent")
        case OwnRefusal.LOCAL_LIMIT:
            advice = gettext(OVER_LOCAL_LIMIT.advice)
        case None:
            advice = gettext(explain(words).advice)
    return gettext("Refused by the platform") if own is None else gettext("Not sent"), words, advice
