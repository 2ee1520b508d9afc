"""Words for what the parts below say in English: why a push could not be read, what is wrong with a filter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flask_babel import lazy_gettext

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a schema says of a value that somebody typed, or that stands in an address.
_FAULTS: Mapping[str, Any] = {
    "Has a control character.": lazy_gettext("This has a control character."),
    "Longer than * characters.": lazy_gettext("This is too long."),
    "Must be one of: *": lazy_gettext("There is no such choice."),
    "Not a phone number.": lazy_gettext("This is not a phone number."),
    "Not a whole number.": lazy_gettext("This is not a whole number."),
    "Not true or false.": lazy_gettext("There is no such choice."),
    "Unknown field.": lazy_gettext("There is no such filter."),
    "no such account is configured": lazy_gettext("No such account is configured."),
    "not a time such as *": lazy_gettext("This is not a time."),
    "letters, digits, and . _ - only, 64 at most": lazy_gettext(
        "A name has letters, digits, and . _ - only, 64 at most."
    ),
    "not a URL*": lazy_gettext("This is no address of the form https://HOST/PATH or http://HOST/PATH, in ASCII."),
    "no user, password or backslash in it*": lazy_gettext("Put no user or password before the host."),
    "it has an address that is not public*": lazy_gettext(
        "It has an address that is not public; RECEIVER_WEBHOOKS_ALLOW may name it."
    ),
    "its name does not resolve": lazy_gettext("Its name does not resolve."),
    "its certificate is not valid": lazy_gettext("Its certificate is not valid."),
    "it takes no connection": lazy_gettext("It takes no connection."),
    "no answer within *": lazy_gettext("It did not answer in time."),
    "not from 1 to * seconds": lazy_gettext("Take a number of seconds, up to a week."),
    "* needs it: after how many seconds?": lazy_gettext("message.not_delivered needs a number of seconds."),
    "this cursor *": lazy_gettext("This address does not belong to this list. Begin with its first page."),
    "there is no push under that id": lazy_gettext("There is no push under this address."),
}
_UNKNOWN_FAULT = lazy_gettext("This cannot be used.")

# Why a push could not be read, of one field.
_REASONS: Mapping[str, Any] = {
    "control character": lazy_gettext("control character"),
    "empty": lazy_gettext("empty"),
    "given twice with two values": lazy_gettext("given twice with two values"),
    "missing": lazy_gettext("missing"),
    "neither UTF-8 nor GB18030": lazy_gettext("neither UTF-8 nor GB18030"),
    "not a phone number": lazy_gettext("not a phone number"),
    "not of the form yyyy-MM-dd HH:mm:ss": lazy_gettext("not of the form yyyy-MM-dd HH:mm:ss"),
    "not on the calendar": lazy_gettext("not on the calendar"),
    "not representable in UTC": lazy_gettext("not representable in UTC"),
    "over * characters": lazy_gettext("too long"),
    "refused by the database": lazy_gettext("refused by the database"),
}
_FLAGS: Mapping[str, Any] = {
    "gb18030": lazy_gettext("not UTF-8, so read as GB18030"),
    "damaged": lazy_gettext("a character was cut or broken"),
    "fraction_dropped": lazy_gettext("fraction of a second dropped"),
    "path": lazy_gettext("pushed to another path behind the secret"),
}


def _find(words: Mapping[str, Any], said: str, default: Any) -> str:
    """Find what was said; a `*` stands for any text."""
    for known, word in words.items():
        if re.fullmatch(re.escape(known).replace(r"\*", ".*"), said, re.DOTALL):
            return str(word)
    return str(default)


def fault_words(said: str, *, default: str | None = None) -> str:
    """Say what is wrong with a value, in the page's language."""
    return _find(_FAULTS, said, default or _UNKNOWN_FAULT)


def why_unread(error: str) -> str:
    """Say why a push could not be read, in the page's language: every fault as `field: reason`, as it is kept."""
    told = []
    for fault in error.split("; "):
        field, _, reason = fault.partition(": ")
        told.append(f"{field}: {_find(_REASONS, reason, reason)}")
    return "; ".join(told)


def flag_words(flag: str) -> str:
    """Say how the reading of a push was helped, in the page's language."""
    return _find(_FLAGS, flag, flag)
