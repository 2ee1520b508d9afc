"""The texts of faults and flags in the page's language, by their codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flask_babel import gettext, lazy_gettext

from receiver.core import Fault, FieldFault, InputFault, PushFault, PushFlag, fault_of, read_faults
from receiver.net.egress_policy import EgressFault
from receiver.webhooks.service import EndpointFault

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_A_URL = lazy_gettext("Enter a URL of the form https://HOST/PATH or http://HOST/PATH, in ASCII.")
FAULTS: Mapping[Fault, Any] = {
    InputFault.CONTROL_CHARACTER: lazy_gettext("Must not contain control characters."),
    InputFault.TOO_LONG: lazy_gettext("Too long."),
    InputFault.NOT_A_CHOICE: lazy_gettext("Not a valid choice."),
    InputFault.NOT_A_NUMBER: lazy_gettext("Not a whole number."),
    InputFault.NOT_A_PHONE_NUMBER: lazy_gettext("Not a phone number."),
    InputFault.NOT_A_BOOLEAN: lazy_gettext("Not a valid choice."),
    InputFault.NOT_A_DAY: lazy_gettext("Not a valid day."),
    InputFault.NOT_A_TIME: lazy_gettext("Not a valid time."),
    InputFault.BEFORE_ITS_BEGIN: lazy_gettext("The end is before the beginning."),
    InputFault.UNKNOWN_FIELD: lazy_gettext("Unknown filter."),
    InputFault.UNKNOWN_ACCOUNT: lazy_gettext("This account is not configured."),
    InputFault.FOREIGN_CURSOR: lazy_gettext("This page link is not valid. Start again from the first page."),
    InputFault.INVALID_CURSOR: lazy_gettext("This page link is not valid. Start again from the first page."),
    InputFault.UNKNOWN_PUSH: lazy_gettext("There is no push at this address."),
    EgressFault.NOT_ASCII: _NOT_A_URL,
    EgressFault.MALFORMED_URL: _NOT_A_URL,
    EgressFault.NOT_HTTP: _NOT_A_URL,
    EgressFault.FRAGMENT_IN_URL: _NOT_A_URL,
    EgressFault.NO_HTTP: _NOT_A_URL,
    EgressFault.UNUSABLE_URL: _NOT_A_URL,
    EgressFault.UNUSABLE_PROXY: lazy_gettext("The proxy (for webhooks RECEIVER_WEBHOOKS_PROXY) is not a valid URL."),
    EgressFault.PROXY_REFUSED: lazy_gettext("The proxy (for webhooks RECEIVER_WEBHOOKS_PROXY) refused the connection."),
    EgressFault.NOT_CONNECTED: lazy_gettext("Cannot connect to the server."),
    EgressFault.CREDENTIALS_IN_URL: lazy_gettext("The URL must not contain a user name or password."),
    EgressFault.NOT_PUBLIC: lazy_gettext("This address is not public. To allow it, add it to RECEIVER_WEBHOOKS_ALLOW."),
    EgressFault.NO_FULL_NAME: lazy_gettext(
        "Through a proxy, a host needs its full name. To allow this one, add it to RECEIVER_WEBHOOKS_ALLOW."
    ),
    EgressFault.UNRESOLVED: lazy_gettext("The host name does not resolve."),
    EgressFault.CERTIFICATE: lazy_gettext("The server's certificate is not valid."),
    EgressFault.NO_CONNECTION: lazy_gettext("Cannot connect to the server."),
    EgressFault.NO_ANSWER: lazy_gettext("The server closed the connection without an answer."),
    EgressFault.BROKEN: lazy_gettext("The connection broke."),
    EgressFault.TIMEOUT: lazy_gettext("The server did not answer in time."),
    EndpointFault.NAME: lazy_gettext("A name may contain letters, digits and . _ - only, at most 64 characters."),
    EndpointFault.NOT_A_CHOICE: lazy_gettext("Not a valid choice."),
    EndpointFault.NOT_FOR_RAW: lazy_gettext("A raw webhook receives every push. Leave this empty."),
    EndpointFault.SECONDS: lazy_gettext("Enter a number of seconds, at most one week."),
    EndpointFault.HEADERS: lazy_gettext("Too many headers, or a header given twice."),
    EndpointFault.HEADERS_MOVE: lazy_gettext(
        "For another scheme, host or port, enter the headers again or remove them."
    ),
    EndpointFault.NO_EVENT_LEFT: lazy_gettext(
        "No events would be left. Choose others, or pause or remove the webhook."
    ),
    EndpointFault.HEADER_NAME: lazy_gettext("A header's name is not valid, or every request has it already."),
    EndpointFault.HEADER_VALUE: lazy_gettext("A header's value must be printable ASCII."),
    EndpointFault.NOT_PAST: lazy_gettext("Enter a time in the past."),
    EndpointFault.NO_SPAN: lazy_gettext("The end must be after the beginning."),
    EndpointFault.UNDER_WAY: lazy_gettext("Events are being sent again already. Wait until that has ended."),
    EndpointFault.QUEUE_FULL: lazy_gettext("Too many deliveries are pending. Wait until some are delivered."),
    EndpointFault.TOO_MANY: lazy_gettext("That is too much at once. Choose a later start."),
    EndpointFault.SECONDS_MISSING: lazy_gettext("message.not_delivered requires a number of seconds."),
}
_UNKNOWN_FAULT = lazy_gettext("Invalid value.")
_HTTP_STATUS = re.compile(r"answered with HTTP status ([0-9]{3})")

PUSH_FAULTS: Mapping[PushFault, Any] = {
    PushFault.BEFORE_2000: lazy_gettext("before 2000"),
    PushFault.CONTROL_CHARACTER: lazy_gettext("control character"),
    PushFault.EMPTY: lazy_gettext("empty"),
    PushFault.TWO_VALUES: lazy_gettext("given twice with two values"),
    PushFault.MISSING: lazy_gettext("missing"),
    PushFault.TOO_FAR_AHEAD: lazy_gettext("more than 48 hours ahead"),
    PushFault.NOT_DECODED: lazy_gettext("neither UTF-8 nor GB18030"),
    PushFault.NOT_A_PHONE_NUMBER: lazy_gettext("not a phone number"),
    PushFault.NOT_A_TIME: lazy_gettext("not of the form yyyy-MM-dd HH:mm:ss"),
    PushFault.NOT_ON_THE_CALENDAR: lazy_gettext("not on the calendar"),
    PushFault.NOT_IN_UTC: lazy_gettext("not representable in UTC"),
    PushFault.TOO_LONG: lazy_gettext("too long"),
    PushFault.REFUSED_BY_DATABASE: lazy_gettext("refused by the database"),
}
FLAGS: Mapping[str, Any] = {
    PushFlag.GB18030: lazy_gettext("not UTF-8, decoded as GB18030"),
    PushFlag.DAMAGED: lazy_gettext("a character was truncated or damaged"),
    PushFlag.FRACTION_DROPPED: lazy_gettext("fraction of a second ignored"),
    PushFlag.CLOCK: lazy_gettext("its time is ahead of this server's clock, which was not trusted"),
    PushFlag.PATH: lazy_gettext("pushed to another path after the secret"),
}


def fault_words(fault: str, *, default: str | None = None) -> str:
    """Return a fault in the page's language; `default` for a text without a code."""
    code = fault_of(fault)
    return str(default or _UNKNOWN_FAULT) if code is None else str(FAULTS[code])


def delivery_words(error: str | None) -> str:
    """Return why a delivery failed, in the page's language; what is not known as it is."""
    if not error:
        return ""
    if answered := _HTTP_STATUS.fullmatch(error):
        return str(gettext("answered with HTTP status %(status)s", status=answered[1]))
    return fault_words(error, default=error)


def why_unread(error: str) -> str:
    """Return why a push could not be parsed, in the page's language; what has no code as it is."""
    return "; ".join(
        f"{found.field}: {PUSH_FAULTS[found.fault]}" if isinstance(found, FieldFault) else found
        for found in read_faults(error)
    )


_OTHER_FORMS: Mapping[bytes, Any] = {
    b"{": lazy_gettext("This is JSON. The platform sends a form."),
    b"[": lazy_gettext("This is JSON. The platform sends a form."),
    b"<": lazy_gettext("This is XML or HTML. The platform sends a form."),
}


def other_form(body: bytes) -> str:
    """Return what a push is instead of a form, in the page's language; empty: it may be one."""
    return str(_OTHER_FORMS.get(body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1], ""))


def flag_words(flag: str) -> str:
    """Return a parsing note in the page's language; one of another version as it is."""
    return str(FLAGS.get(flag, flag))
