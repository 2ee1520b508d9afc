"""Faults of values from outside: each a code with its English text. Other languages are gettext's, by the code."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Fault(StrEnum):
    """A fault by its code, the name of the member. The value is its English text, with parameters in braces."""

    def format(self, *args: object, **parameters: object) -> FaultText:
        """Return the English text with its parameters; the code stays with it."""
        return FaultText(self, self.value.format(*args, **parameters))


class FaultText(str):
    """The English text of a fault with parameters, and its code."""

    __slots__ = ("fault",)
    fault: Fault

    def __new__(cls, fault: Fault, text: str) -> Self:
        """Return the text, with its code."""
        made = super().__new__(cls, text)
        made.fault = fault
        return made


def fault_of(text: object) -> Fault | None:
    """Return the code of a fault, as it was raised or with its parameters; None: a text without a code."""
    if isinstance(text, FaultText):
        return text.fault
    return text if isinstance(text, Fault) else None


class InputFault(Fault):
    """What is wrong with a value of a request, a form or a URL."""

    CONTROL_CHARACTER = "Must not contain control characters."
    TOO_LONG = "Longer than {most} characters."
    NOT_A_CHOICE = "Must be one of: {choices}."
    NOT_A_NUMBER = "Not a whole number."
    NOT_A_PHONE_NUMBER = "Not a phone number."
    NOT_A_BOOLEAN = "Not true or false."
    NOT_A_DAY = "Not a day such as 2026-11-23."
    NOT_A_TIME = "not a time such as 2026-11-23T09:14:03+08:00"
    BEFORE_ITS_BEGIN = "before `{begin}`"
    UNKNOWN_FIELD = "Unknown field."
    UNKNOWN_ACCOUNT = "no such account is configured"
    FOREIGN_CURSOR = "this cursor belongs to other filters; use the same filters, or start without a cursor"
    INVALID_CURSOR = "this cursor is invalid; start without one"
    UNKNOWN_PUSH = "there is no push with this id"
