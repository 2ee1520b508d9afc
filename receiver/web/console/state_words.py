"""What states and spans of time are called in the page's language: on pages, and in files for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_babel import lazy_gettext

if TYPE_CHECKING:
    from collections.abc import Mapping

STATES: Mapping[str, Any] = {
    "pending": lazy_gettext("Pending"),
    "delivered": lazy_gettext("Delivered"),
    "failed": lazy_gettext("Failed"),
    "unknown": lazy_gettext("Unclear"),
    "no_receipt": lazy_gettext("No receipt"),
    "refused": lazy_gettext("Refused"),
    "sending": lazy_gettext("Sending"),
    "outcome_unknown": lazy_gettext("Possibly sent"),
    "accepted": lazy_gettext("Parsed"),
    "quarantined": lazy_gettext("Not parsed"),
}
SPANS: Mapping[str, Any] = {
    "10m": lazy_gettext("Last 10 minutes"),
    "1h": lazy_gettext("Last hour"),
    "today": lazy_gettext("Today"),
    "yesterday": lazy_gettext("Yesterday"),
    "7d": lazy_gettext("Last 7 days"),
    "30d": lazy_gettext("Last 30 days"),
}


def state_word(status: str) -> str:
    """Return the word of a state of a message, a receipt or a push."""
    return str(STATES[status])
