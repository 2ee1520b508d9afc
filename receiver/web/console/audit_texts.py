"""The audit log in the page's language: what each action is called, and the names of its details."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_babel import gettext, lazy_gettext

if TYPE_CHECKING:
    from collections.abc import Mapping

# Every action that is audited; a test holds it against the code.
ACTIONS: Mapping[str, Any] = {
    "look_up": lazy_gettext("Looked something up"),
    "messages.look_up": lazy_gettext("Looked up messages of a number"),
    "replies.look_up": lazy_gettext("Looked up replies of a number"),
    "pushes.look_up": lazy_gettext("Looked up pushes about a number"),
    "receipts.look_up": lazy_gettext("Looked up receipts of a number"),
    "messages.read": lazy_gettext("Read messages with full numbers"),
    "receipts.read": lazy_gettext("Read receipts with full numbers"),
    "message.read": lazy_gettext("Opened a message"),
    "receipt.read": lazy_gettext("Opened a receipt"),
    "reply.read": lazy_gettext("Opened a reply"),
    "replies.read": lazy_gettext("Read replies"),
    "note.create": lazy_gettext("Wrote a note"),
    "case.handle": lazy_gettext("Marked a case as handled"),
    "case.reopen": lazy_gettext("Reopened a case"),
    "notes.read": lazy_gettext("Read notes"),
    "number.reveal": lazy_gettext("Revealed a full number"),
    "busiest.read": lazy_gettext("Read the busiest numbers"),
    "events.read": lazy_gettext("Read events"),
    "push.read": lazy_gettext("Opened a push"),
    "pushes.read": lazy_gettext("Read the journal"),
    "push.replay": lazy_gettext("Parsed a push again"),
    "quarantine.seen": lazy_gettext("Marked unparsed pushes as reviewed"),
    "push_secret.rotate": lazy_gettext("Made a new push secret"),
    "push_secret.remove": lazy_gettext("Removed a push secret"),
    "push_url.read": lazy_gettext("Read the push URL"),
    "self_test": lazy_gettext("Ran the self-test"),
    "test_message.send": lazy_gettext("Sent a test message"),
    "messages.export": lazy_gettext("Exported messages"),
    "receipts.export": lazy_gettext("Exported receipts"),
    "replies.export": lazy_gettext("Exported replies"),
    "opt_outs.read": lazy_gettext("Read the opt-out list"),
    "opt_outs.export": lazy_gettext("Exported the opt-out list with full numbers"),
    "audit.export": lazy_gettext("Exported the audit log"),
    "audit.read": lazy_gettext("Read the audit log"),
    "audit.prune": lazy_gettext("Deleted old audit entries"),
    "access.review": lazy_gettext("Reviewed access"),
    "login": lazy_gettext("Logged in"),
    "logout": lazy_gettext("Logged out"),
    "login.failed": lazy_gettext("Failed to log in"),
    "login.locked": lazy_gettext("Was locked out"),
    "denied": lazy_gettext("Was denied access"),
    "user.create": lazy_gettext("Created a user"),
    "user.password": lazy_gettext("Changed a password"),
    "user.role": lazy_gettext("Changed a role"),
    "user.accounts": lazy_gettext("Changed a user's accounts"),
    "user.disable": lazy_gettext("Disabled a user"),
    "user.enable": lazy_gettext("Enabled a user"),
    "user.reset_totp": lazy_gettext("Reset a second factor"),
    "user.set_totp": lazy_gettext("Set up a second factor"),
    "user.recovery_codes": lazy_gettext("Made new recovery codes"),
    "user.use_recovery_code": lazy_gettext("Used a recovery code"),
    "user.end_sessions": lazy_gettext("Ended a user's sessions"),
    "key.create": lazy_gettext("Created an API key"),
    "key.revoke": lazy_gettext("Revoked an API key"),
    "reader.make": lazy_gettext("Created a reader for SQL"),
    "advice.change": lazy_gettext("Changed the advice"),
    "webhook.create": lazy_gettext("Created a webhook"),
    "webhook.update": lazy_gettext("Changed a webhook"),
    "webhook.remove": lazy_gettext("Removed a webhook"),
    "webhook.pause": lazy_gettext("Paused a webhook"),
    "webhook.resume": lazy_gettext("Resumed a webhook"),
    "webhook.rotate": lazy_gettext("Created a new webhook secret"),
    "webhook.test": lazy_gettext("Sent a test to a webhook"),
    "webhook.replay_begin": lazy_gettext("Began to send webhook events again"),
    "webhook.replay": lazy_gettext("Sent webhook events again"),
    "prune": lazy_gettext("Deleted old data"),
    "erase": lazy_gettext("Erased a number"),
    "db.rebuild": lazy_gettext("Rebuilt messages from the journal"),
    "report.reopen": lazy_gettext("Reopened reports"),
}
_NAMES: Mapping[str, Any] = {
    "mobile_hmac": lazy_gettext("Number (hash)"),
    "mobile_hmacs": lazy_gettext("Number (hash)"),
    "numbers": lazy_gettext("Count"),
    "message_id": lazy_gettext("Message"),
    "push_id": lazy_gettext("Push"),
    "note_id": lazy_gettext("Note"),
    "receipt_id": lazy_gettext("Receipt"),
    "reply_id": lazy_gettext("Reply"),
    "reason": lazy_gettext("Reason given"),
    "address": lazy_gettext("Address"),
    "route": lazy_gettext("Page"),
    "by": lazy_gettext("Method"),
    "factor": lazy_gettext("Step"),
    "second_factor": lazy_gettext("Second factor"),
    "left": lazy_gettext("Recovery codes left"),
    "count": lazy_gettext("Count"),
    "name": lazy_gettext("Name"),
    "role": lazy_gettext("Role"),
    "account": lazy_gettext("Account"),
    "accounts": lazy_gettext("Accounts"),
    "scopes": lazy_gettext("Scopes"),
    "format": lazy_gettext("Format"),
    "filter": lazy_gettext("Filters"),
    "in_full": lazy_gettext("Full numbers"),
    "language": lazy_gettext("Language"),
    "deliveries": lazy_gettext("Deliveries"),
    "messages": lazy_gettext("Messages"),
    "receipts": lazy_gettext("Receipts"),
    "replies": lazy_gettext("Replies"),
    "pushes": lazy_gettext("Pushes"),
    "url": lazy_gettext("URL"),
    "events": lazy_gettext("Events"),
    "since": lazy_gettext("Since"),
    "until": lazy_gettext("Until"),
    "q": lazy_gettext("Searched by text"),
}
_LONGEST = 60


def action_words(action: str) -> str:
    """Return what an action is called; its code if it has no words, as one of a later version."""
    return str(ACTIONS.get(action, action))


def detail_name(name: str) -> str:
    """Return the name of a detail of an entry."""
    return str(_NAMES.get(name, name))


def detail_value(value: Any) -> str:
    """Return a detail as text of limited length."""
    match value:
        case bool():
            text = gettext("yes") if value else gettext("no")
        case dict():
            text = ", ".join(f"{detail_name(name)} {detail_value(each)}" for name, each in value.items())
        case list() | tuple():
            text = ", ".join(map(str, value))
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
