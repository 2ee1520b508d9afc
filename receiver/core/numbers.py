"""Phone numbers: read, compared, masked. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_NUMBER = re.compile(r"(?:\+|00)?(?!00)([0-9*]{5,17})", re.ASCII)
_MAINLAND_NUMBER = re.compile(r"(?:(?:\+|00?)?86)?0?(1[0-9*]{10})", re.ASCII)
_MAINLAND_PLACES = 11
_MIN_PLACES, _MAX_PLACES = 5, 15
_MIN_KNOWN_DIGITS = 3
_DOTS = str.maketrans(dict.fromkeys(".\u00b7\u2024\u2027\u3002\u30fb\uff61"))
_NOISE_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Pd", "Ps", "Pe", "Cf"})  # spaces, dashes, brackets, invisible marks
_OTHER_NOISE = frozenset("\t\n\v\f\r\u2212")  # the last is the minus sign of typesetters
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_TO_PLAIN = 0xFEE0
# What a mask leaves visible, for `mask_mobile` and, in SQL, for `db.sql.masked_mobile`.
MASK_HEAD, MASK_TAIL = 3, 4  # places
MASK_MIN_PLACES = 10  # of a number that shows so many
MASK_SHORT_PART = 4  # a shorter one shows so small a part of its places at each end


def parse_mobile(text: str) -> str | None:
    """Reduce a number as people, platforms and spreadsheets write it to its digits, masked places as `*`.

    A trailing `.0` goes, then spaces, dashes, dots, brackets and invisible marks; full width becomes plain; `+` and
    `00` go, the 86 before a mainland number and the 0 before a mobile one. None: not a phone number.
    """
    if _MAINLAND.fullmatch(text):  # nearly every one
        return text
    plain = _without_noise(text)
    mainland = _MAINLAND_NUMBER.fullmatch(plain)
    match = mainland or _NUMBER.fullmatch(plain)
    if match is None:
        return None
    number = match[1]
    if not _MIN_PLACES <= len(number) <= _MAX_PLACES or len(number) - number.count("*") < _MIN_KNOWN_DIGITS:
        return None
    return number


def _without_noise(text: str) -> str:
    return "".join(map(_plain, text)).removesuffix(".0").translate(_DOTS)


@lru_cache(maxsize=1024)
def _plain(character: str) -> str:
    """Return the digit or mark that a character stands for; empty: none."""
    if ord(character) in _FULL_WIDTH:
        character = chr(ord(character) - _TO_PLAIN)
    if character in _OTHER_NOISE or unicodedata.category(character) in _NOISE_CATEGORIES:
        return ""
    return "*" if character in ("x", "X") else character


_OTHER_COUNTRY = re.compile(r"(?:\+|00)(?!86)")
_MAINLAND = re.compile(r"1\d{10}", re.ASCII)


def parse_mainland_mobile(text: str) -> str | None:
    """Return the 11 digits of a mainland number, as `parse_mobile` does; None: it is no number, or a foreign one.

    For numbers that we send to: without its `+1`, an American number looks like a Chinese one.
    """
    number = parse_mobile(text)
    if number is None or _OTHER_COUNTRY.match(_without_noise(text)) or not _MAINLAND.fullmatch(number):
        return None
    return number


def is_masked(mobile: str) -> bool:
    """Return whether the platform left out digits of this number."""
    return "*" in mobile


def fits(masked: str, mobile: str) -> bool:
    """Return whether a full number could be the one behind a masked number."""
    return len(masked) == len(mobile) and all(a in ("*", b) for a, b in zip(masked, mobile, strict=True))


def has_odd_length(text: str) -> bool:
    """Return whether a number without a foreign country code has not the length of a mobile number.

    Digits may be missing.
    """
    number = parse_mobile(text)
    return number is not None and len(number) != _MAINLAND_PLACES and not _OTHER_COUNTRY.match(_without_noise(text))


def mask_mobile(mobile: str) -> str:
    """Return a number with its middle hidden: `150****1090`.

    A number masked by the platform shows its first three places only: its visible digits and ours could add up to the
    whole number.
    """
    places = len(mobile)
    if is_masked(mobile):
        return mobile[:MASK_HEAD] + "*" * (places - MASK_HEAD)
    short = places // MASK_SHORT_PART
    head, tail = (MASK_HEAD, MASK_TAIL) if places >= MASK_MIN_PLACES else (short, short)
    return mobile[:head] + "*" * (places - head - tail) + mobile[places - tail :]


# A mainland number inside a text, for `mask_inside` and, on PostgreSQL, for `db.sql.masked_text`, whose regular
# expressions read this alike. Full width counts; spaces and dashes may stand between the digits, unless a digit of an
# id touches it: a UUID is not a number.
_DIGIT, _DIGIT_OF_ID = "[0-9\uff10-\uff19]", "[0-9\uff10-\uff19A-Fa-f]"
INSIDE_BLANKS = " \t\u00a0\u2002\u2003\u2009\u200b\u200c\u200d\u202f\u2060\u3000\ufeff"
INSIDE_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d-"  # the plain one last: no range


def _inside(between: str, apart: str) -> str:
    """Return the expression of a number with such marks between its digits; its groups stay visible."""
    prefix = f"(?:(?:[+\uff0b]|[0\uff10]{{2}})?[8\uff18]{between}[6\uff16]{between})?"
    head = f"{prefix}[1\uff11](?:{between}{_DIGIT}){{{MASK_HEAD - 1}}}"
    hidden = f"(?:{between}{_DIGIT}){{{_MAINLAND_PLACES - MASK_HEAD - MASK_TAIL}}}{between}"
    tail = f"{_DIGIT}(?:{between}{_DIGIT}){{{MASK_TAIL - 1}}}"
    return f"(?<!{apart})({head}){hidden}({tail})(?!{apart})"


INSIDE_PATTERN = f"{_inside('', _DIGIT)}|{_inside(f'[{INSIDE_BLANKS}{INSIDE_DASHES}]{{0,3}}', _DIGIT_OF_ID)}"
INSIDE_SHOWN = rf"\1\3{'*' * (_MAINLAND_PLACES - MASK_HEAD - MASK_TAIL)}\2\4"
_NUMBER_INSIDE = re.compile(INSIDE_PATTERN)


def mask_inside(text: str) -> str:
    """Return a text with the mainland numbers in it masked, as people write them."""
    return _NUMBER_INSIDE.sub(INSIDE_SHOWN, text)


def mask_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by name with the mainland numbers in both masked."""
    return {mask_inside(name): mask_inside(text) for name, text in texts.items()}


def shown_content(content: str) -> str:
    """Return reply text as it can be shown and stored as text anywhere: NUL as its picture."""
    return content.replace("\0", "\u2400")


def shown_texts(texts: Mapping[str, str] | None) -> dict[str, str]:
    """Return texts by name as they can be shown."""
    return {shown_content(name): shown_content(text) for name, text in (texts or {}).items()}


def texts_in_json(texts: Mapping[str, str] | None, *, in_full: bool) -> str:
    """Return texts by name as a JSON object, for a cell; numbers in them are masked unless `in_full`."""
    shown = shown_texts(texts)
    return json.dumps(shown if in_full else mask_texts(shown), ensure_ascii=False)


def match_masked(masked: str, candidates: Iterable[tuple[int, str]]) -> int | None:
    """Return the id of the one recorded message whose number fits, None for none or several.

    `candidates`: (message id, full number) of the recorded messages of the same account and task.
    """
    fitting = [message_id for message_id, mobile in candidates if fits(masked, mobile)]
    return fitting[0] if len(fitting) == 1 else None
