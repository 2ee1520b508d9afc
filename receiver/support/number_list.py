"""Several phone numbers, as people paste a column of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from receiver.core import is_masked, parse_mobile

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS_MAX = 500
_BETWEEN = re.compile(r"[\r\n\t\v\f\u2028\u2029,，;；、|]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberList:
    """What was read: numbers, each once and in their order, and the pieces that are none, as typed."""

    numbers: Sequence[str]
    wrong: Sequence[str]


def parse_numbers(text: str) -> NumberList:
    """Return the numbers of a text: one a line, or with commas, semicolons or tabs between them."""
    numbers, wrong = dict[str, None](), list[str]()
    for piece in map(str.strip, _BETWEEN.split(text)):
        number = parse_mobile(piece) if piece else None
        if number is not None and not is_masked(number):
            numbers[number] = None
        elif piece:
            wrong.append(piece)
    return NumberList(numbers=list(numbers), wrong=wrong)
