"""The codes of a push that could not be parsed, or only with corrections."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOO_LONG = re.compile(r"over (\d+) characters")


class PushFault(StrEnum):
    """What is wrong with a field of a push: the words of `X-Push-Error`, which are fixed, also as it is stored."""

    BEFORE_2000 = "before 2000"
    CONTROL_CHARACTER = "control character"
    EMPTY = "empty"
    TWO_VALUES = "given twice with two values"
    MISSING = "missing"
    TOO_FAR_AHEAD = "more than 48 hours ahead"
    NOT_DECODED = "neither UTF-8 nor GB18030"
    NOT_A_PHONE_NUMBER = "not a phone number"
    NOT_A_TIME = "not of the form yyyy-MM-dd HH:mm:ss"
    NOT_ON_THE_CALENDAR = "not on the calendar"
    NOT_IN_UTC = "not representable in UTC"
    TOO_LONG = "over {most} characters"
    REFUSED_BY_DATABASE = "refused by the database"


class PushFlag(StrEnum):
    """A correction that the parsing of a push needed."""

    GB18030 = "gb18030"  # not UTF-8 throughout, without a declared charset
    DAMAGED = "damaged"  # a character of it was cut or broken
    FRACTION_DROPPED = "fraction_dropped"  # its time had a fraction of a second
    CLOCK = "clock"  # its time was far ahead of our clock, which was not trusted
    PATH = "path"  # the path behind the secret names no kind


# Of the arrival and not of the bytes: a later reading cannot find these again.
ARRIVAL_FLAGS = frozenset({PushFlag.CLOCK.value, PushFlag.PATH.value})


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field of a push."""

    field: str
    fault: PushFault
    most: int | None = None  # of TOO_LONG

    def __str__(self) -> str:
        """Return the fault as `field: reason`."""
        return f"{self.field}: {self.fault.format(most=self.most)}"


def write_faults(faults: Sequence[FieldFault | str]) -> str:
    """Return faults as `X-Push-Error` and the journal have them."""
    return "; ".join(map(str, faults))


def read_faults(error: str) -> list[FieldFault | str]:
    """Return what `write_faults` wrote; what has no code, such as a fault of another version, as its text."""
    return [_read(text) for text in error.split("; ")]


def _read(text: str) -> FieldFault | str:
    field, _, reason = text.partition(": ")
    if too_long := _TOO_LONG.fullmatch(reason):
        return FieldFault(field, PushFault.TOO_LONG, int(too_long[1]))
    try:
        return FieldFault(field, PushFault(reason))
    except ValueError:
        return text
