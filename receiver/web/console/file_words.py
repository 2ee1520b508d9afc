"""Files for people, in the page's language: their columns, their values, and their names."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask_babel import gettext, lazy_gettext, lazy_pgettext

from receiver.core import in_zone
from receiver.messages.export_wording import Wording
from receiver.web import runtime
from receiver.web.console.state_words import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TITLES: Mapping[str, Any] = {
    "messages": lazy_gettext("Messages"),
    "receipts": lazy_gettext("Receipts"),
    "replies": lazy_gettext("Replies"),
    "opt_outs": lazy_gettext("Opt-out list"),
}
_ID, _NUMBER, _TEMPLATE = lazy_gettext("Id"), lazy_gettext("Number"), lazy_gettext("Template")
_TASK_ID, _ACCOUNT = lazy_gettext("Task id"), lazy_gettext("Account")
# The columns of a list that people look for, in the order of its page and then what that leaves out.
_HEADINGS: Mapping[str, Mapping[str, Any]] = {
    "messages": {
        "counted_at": lazy_pgettext("time", "Sent"),
        "mobile": _NUMBER,
        "status": lazy_gettext("State"),
        "error_message": lazy_gettext("Reason"),
        "template_id": _TEMPLATE,
        "task_id": _TASK_ID,
        "reported_at": lazy_gettext("Reported"),
        "latency_seconds": lazy_gettext("Delivery time (seconds)"),
        "reply_count": lazy_gettext("Replies"),
        "reference": lazy_gettext("Reference"),
        "account": _ACCOUNT,
        "late": lazy_gettext("Late"),
        "matched": lazy_gettext("Recorded"),
        "conflicting": lazy_gettext("Conflicting"),
        "verified_at": lazy_gettext("Code used at"),
        "id": _ID,
    },
    "receipts": {
        "reported_at": lazy_gettext("Reported"),
        "mobile": _NUMBER,
        "status": lazy_gettext("State"),
        "vendor_status": lazy_gettext("The platform's status"),
        "task_id": _TASK_ID,
        "received_at": lazy_gettext("Received"),
        "copies": lazy_gettext("Times received"),
        "account": _ACCOUNT,
        "message_id": lazy_gettext("Id of the message"),
        "id": _ID,
    },
    "replies": {
        "replied_at": lazy_gettext("Replied"),
        "mobile": _NUMBER,
        "content": lazy_gettext("Text"),
        "opt_out": lazy_gettext("Opt-out"),
        "opt_out_review": lazy_gettext("Possible opt-out"),
        "task_id": _TASK_ID,
        "received_at": lazy_gettext("Received"),
        "copies": lazy_gettext("Times received"),
        "account": _ACCOUNT,
        "message_id": lazy_gettext("Id of the message"),
        "id": _ID,
    },
    "opt_outs": {
        "mobile": _NUMBER,
        "last_at": lazy_gettext("Opted out last"),
        "first_at": lazy_gettext("Opted out first"),
        "times": lazy_gettext("Times"),
        "content": lazy_gettext("Text"),
        "template_id": _TEMPLATE,
        "account": _ACCOUNT,
    },
}
# What a filter is called in the name of a file: in ASCII, and in the page's language.
_OF_FILTERS: Mapping[tuple[str, Any], tuple[str, Any]] = {
    **{("status", status): (status.replace("_", "-"), word) for status, word in STATES.items()},
    ("late", True): ("late", lazy_gettext("Late")),
    ("matched", True): ("recorded", lazy_gettext("Recorded")),
    ("matched", False): ("unmatched", lazy_gettext("Unmatched")),
    ("conflicting", True): ("conflicting", lazy_gettext("Conflicting")),
    ("opt_out", True): ("opt-outs", lazy_gettext("Opt-outs")),
    ("opt_out_review", True): ("possible-opt-outs", lazy_gettext("Possible opt-outs")),
}
_SPANS = (("sent_from", "sent_to"), ("received_from", "received_to"))
_SHORT_ID = re.compile(r"[A-Za-z0-9_-]{1,10}")  # shorter than any whole number, and safe in every file system


def wording_of(name: str) -> Wording:
    """Return how a list is written in the page's language."""
    return Wording(
        headings={field: str(heading) for field, heading in _HEADINGS[name].items()},
        values={"status": {status: str(word) for status, word in STATES.items()}},
        yes=gettext("yes"),
        no=gettext("no"),
    )


_FIELDS: Mapping[str, Any] = {
    "late": lazy_gettext("Late"),
    "conflicting": lazy_gettext("Conflicting"),
    "opt_out": lazy_gettext("Opt-out"),
    "opt_out_review": lazy_gettext("Possible opt-out"),
    "account": _ACCOUNT,
    "template_id": _TEMPLATE,
    "task_id": _TASK_ID,
    "reference": lazy_gettext("Reference"),
    "q": lazy_gettext("Contains"),
    "mobiles": _NUMBER,
    "sent_from": lazy_gettext("Sent from"),
    "received_from": lazy_gettext("Received from"),
    "sent_to": lazy_gettext("before"),
    "received_to": lazy_gettext("before"),
}


def filter_words(detail: Mapping[str, Any]) -> Iterator[str]:
    """Yield a filter in words, from the detail of an export in the audit."""
    if "mobile_hmac" in detail:
        yield str(_NUMBER)
    for field, value in detail.get("filter", {}).items():
        if _named((field, value)):
            yield str(_OF_FILTERS[field, value][1])
        elif field in _FIELDS:
            yield f"{_FIELDS[field]} {_value_words(field, value)}"


def _value_words(field: str, value: Any) -> str:
    if value is False:
        return gettext("no")  # type: ignore[no-any-return]
    return _moment_words(value) if field.endswith(("_from", "_to")) else str(value)


def _moment_words(text: str) -> str:
    return f"{in_zone(datetime.fromisoformat(text), runtime().settings.timezone):%Y-%m-%d %H:%M}"


def names_of(name: str, title: Any, arguments: Mapping[str, Any], ending: str) -> tuple[str, str]:
    """Return the name of a file, in ASCII and in the page's language: list, filter and day, and never a number."""
    found = [_OF_FILTERS[item] for item in arguments.items() if _named(item)]
    template = str(arguments.get("template_id", ""))
    found += [(template, template)] if _SHORT_ID.fullmatch(template) else []
    days = "_".join(_days(arguments))
    plain = "-".join([name, *(part for part, _ in found), days])
    worded = "-".join([str(title), *(str(word) for _, word in found), days]).replace(" ", "-")
    return f"{plain}.{ending}", f"{plain if worded.isascii() else worded}.{ending}"


def _named(item: tuple[str, Any]) -> bool:
    return isinstance(item[1], str | bool) and item in _OF_FILTERS


def _days(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield the day that a file is of, or its first and last; without a span, today."""
    zone = runtime().settings.timezone
    today = in_zone(runtime().now(), zone).date()
    begin, end = next(
        ((arguments.get(begin), arguments.get(end)) for begin, end in _SPANS if begin in arguments or end in arguments),
        (None, None),
    )
    first = in_zone(begin, zone).date() if isinstance(begin, datetime) else None
    last = in_zone(end - timedelta(microseconds=1), zone).date() if isinstance(end, datetime) else today
    if first is not None and first < last:
        yield first.isoformat()
    yield last.isoformat()
