"""Translations of English errors of other layers: parse errors of pushes, validation errors of fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flask_babel import lazy_gettext

if TYPE_CHECKING:
    from collections.abc import Mapping

# Validation errors of schemas and services, for values of forms and URLs.
_FAULTS: Mapping[str, Any] = {
    "Must not contain control characters.": lazy_gettext("Must not contain control characters."),
    "Longer than * characters.": lazy_gettext("Too long."),
    "Must be one of: *": lazy_gettext("Not a valid choice."),
    "Not a phone number.": lazy_gettext("Not a phone number."),
    "Not a whole number.": lazy_gettext("Not a whole number."),
    "Not true or false.": lazy_gettext("Not a valid choice."),
    "Unknown field.": lazy_gettext("Unknown filter."),
    "no such account is configured": lazy_gettext("This account is not configured."),
    "not a time such as *": lazy_gettext("Not a valid time."),
    "letters, digits, and . _ - only, 64 at most": lazy_gettext(
        "A name may contain letters, digits and . _ - only, at most 64 characters."
    ),
    "not a URL*": lazy_gettext("Enter a URL of the form https://HOST/PATH or http://HOST/PATH, in ASCII."),
    "no user, password or backslash in it*": lazy_gettext("The URL must not contain a user name or password."),
    "it has an address that is not public*": lazy_gettext(
        "This address is not public. To allow it, add it to RECEIVER_WEBHOOKS_ALLOW."
    ),
    "its name does not resolve": lazy_gettext("The host name does not resolve."),
    "its certificate is not valid": lazy_gettext("The server's certificate is not valid."),
    "it takes no connection": lazy_gettext("Cannot connect to the server."),
    "no answer within *": lazy_gettext("The server did not answer in time."),
    "not from 1 to * seconds": lazy_gettext("Enter a number of seconds, at most one week."),
    "* needs it: after how many seconds?": lazy_gettext("message.not_delivered requires a number of seconds."),
    "this cursor *": lazy_gettext("This page link is not valid. Start again from the first page."),
    "there is no push with this id": lazy_gettext("There is no push at this address."),
}
_UNKNOWN_FAULT = lazy_gettext("Invalid value.")

# Parse errors of one field of a push.
_REASONS: Mapping[str, Any] = {
    "before 2000": lazy_gettext("before 2000"),
    "control character": lazy_gettext("control character"),
    "empty": lazy_gettext("empty"),
    "given twice with two values": lazy_gettext("given twice with two values"),
    "missing": lazy_gettext("missing"),
    "more than 48 hours ahead": lazy_gettext("more than 48 hours ahead"),
    "neither UTF-8 nor GB18030": lazy_gettext("neither UTF-8 nor GB18030"),
    "not a phone number": lazy_gettext("not a phone number"),
    "not of the form yyyy-MM-dd HH:mm:ss": lazy_gettext("not of the form yyyy-MM-dd HH:mm:ss"),
    "not on the calendar": lazy_gettext("not on the calendar"),
    "not representable in UTC": lazy_gettext("not representable in UTC"),
    "over * characters": lazy_gettext("too long"),
    "refused by the database": lazy_gettext("refused by the database"),
}
_FLAGS: Mapping[str, Any] = {
    "gb18030": lazy_gettext("not UTF-8, decoded as GB18030"),
    "damaged": lazy_gettext("a character was truncated or damaged"),
    "fraction_dropped": lazy_gettext("fraction of a second ignored"),
    "path": lazy_gettext("pushed to another path after the secret"),
}


def _find(texts: Mapping[str, Any], error: str, default: Any) -> str:
    """Return the text for an error; a `*` in a pattern stands for any text."""
    for pattern, text in texts.items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), error, re.DOTALL):
            return str(text)
    return str(default)


def fault_words(error: str, *, default: str | None = None) -> str:
    """Return a validation error in the page's language."""
    return _find(_FAULTS, error, default or _UNKNOWN_FAULT)


def why_unread(error: str) -> str:
    """Return why a push could not be parsed, in the page's language: every fault as `field: reason`."""
    texts = []
    for fault in error.split("; "):
        field, _, reason = fault.partition(": ")
        texts.append(f"{field}: {_find(_REASONS, reason, reason)}")
    return "; ".join(texts)


def flag_words(flag: str) -> str:
    """Return a parsing note in the page's language."""
    return _find(_FLAGS, flag, flag)
