"""Parse a look-up. Pure.

A look-up is text as people paste it: numbers, task ids and references in whatever stands around them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from receiver.core import TEXT_MAX_CHARS, fits, is_masked, parse_mobile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PASTED_MAX_CHARS = 5_000  # some fifty rows of a spreadsheet
NUMBERS_MAX = 50  # of one look-up
LAST_DIGITS = 4
_PLACES = 11  # of a mainland number
_TEXTS_MAX = 8  # task ids and references of one look-up
_WORD_MIN_CHARS = 4  # of a word that may be a task id although nothing says so

_APART = r"[\s().·․‧•。・\-‐-―−]{0,4}"  # between the digits of one number
_BETWEEN_DIGITS = re.compile(rf"(?<=[\d*+)]){_APART}(?=[\d*(])", re.ASCII)
_COUNTRY = rf"(?:(?:00?)?86{_APART})?(?:0{_APART})?"
_GROUPED = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)  # 3,313,746
# Whole numbers, the surest form first. What one has found is taken out before the next.
_NUMBERS = (
    re.compile(r"(?<!\d)(?:(?:00?)?86)?0?(1\d{10})(?!\d)", re.ASCII),
    re.compile(r"(?<!\d)((?:1[3-9]\d{9}){2,})(?!\d)", re.ASCII),  # line breaks lost
    re.compile(r"(?<!\d)(1[3-9]\d{9})(?=20\d\d[-/.年])", re.ASCII),  # the same before a date
    re.compile(rf"(?<!\d){_COUNTRY}(1[3-9]\d{_APART}\d{{4}}{_APART}\d{{4}})(?!\d)", re.ASCII),
)
_DATE = re.compile(r"(?<!\d)20\d\d([-/.])\d{1,2}\1\d{1,2}(?!\d)", re.ASCII)
_APART_ANYHOW = re.compile(
    rf"(?<!\d)(?:(?:0{_APART}){{0,2}}8{_APART}6{_APART})?(?:0{_APART})?(1{_APART}[3-9](?:{_APART}\d){{9}})(?!\d)",
    re.ASCII,
)
_MASKED = re.compile(
    r"(?<![\d*])(?:(?:\+|00)?86\s?)?(1\d{1,6})[\s\-]?(?:[*x×•●○∙#_?]+|[.·\-]{3,})[\s\-]?(\d*)(?![\d*])",
    re.IGNORECASE | re.ASCII,
)
_ENDINGS = (
    re.compile(
        r"(?:尾号|尾数|[后末]\s?[四五六七八\d]\s?位|last\s?(?:four|\d)(?: digits?)?|(?:ending|ends)(?: (?:in|with))?)"
        r"(?:号码|数字)?(?:[\s:=#是为]|is|are){0,4}(\d{4,10}(?:\s?[、,/和及]\s?\d{4})*)(?!\d)",
        re.IGNORECASE | re.ASCII,
    ),
    re.compile(r"(?<!\d)(\d{4})\s?(?:结尾|收尾|尾号)", re.ASCII),
    re.compile(r"(?<![\d*•●.x\-])(?:[*•●]+|\.{2,}|x{2,}|-{2,})\s?(\d{4})(?!\d)", re.IGNORECASE | re.ASCII),
)
_CHINESE_TEXT_LABELS = r"(?:任务|批次)(?:\s?id|编?号)?|参考号|流水号|订单编?号|业务编?号|单号|消息\s?id"
_TEXT_LABELS = r"(?:task|batch|message|msg)(?:[ _]?(?:id|no|number))?|reference|ref"
_LABELLED = re.compile(
    rf"(?:(?:{_CHINESE_TEXT_LABELS})[\s\"':=#.是为]{{0,6}}|(?<![a-z])(?:{_TEXT_LABELS})(?:[\s\"':=#.]{{1,6}}|(?=\d{{5}})))"
    r"(?=[^\s]{0,63}\d)([a-z0-9][^\s,;&\"'<>()\[\]{}。、\u4e00-\u9fff]*)",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(
    rf"^\W*(?:{_CHINESE_TEXT_LABELS}|{_TEXT_LABELS}|手机号?码?|号码|电话|mobile|phone|tel)(?:\W*[:=#]\W*|\s*(?=\d))",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<!\w)(?=[a-z0-9][\w./+\-]{0,63}\d|\d)[\w./+\-]*", re.IGNORECASE | re.ASCII)
_MARKS = " \t,.;:!?'\"。、“”‘’「」『』【】《》()[]{}<>"
_NEAR_MISSES = re.compile(
    r"(?<![\d.+])(?P<rounded>1\.\d{1,10}e\+?10)(?!\d)"
    r"|(?<![\w])(?P<letters>[1il][0-9oil]{10})(?![\w])"
    r"|(?<![\w+])(?:(?:00?)?86)?0?(?P<digits>1[3-9]\d{7,8}|1[3-9]\d{10})(?!\w)"
    rf"|(?<![\w+])(?P<apart>1[3-9]\d(?:{_APART}\d{{2,5}}){{2}})(?!\w)"
    r"|(?<![\w+])(?P<other>(?!00)(?:[02-9]\d|1[0-2])\d{9})(?!\w)",
    re.IGNORECASE | re.ASCII,
)
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
_TAKEN = "|"  # stands where something was found: no digit, and not between the digits of a number


class NearMissFault(StrEnum):
    """Why a text that looks like a mobile number is none."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LETTERS = "letters"  # O for 0, l or I for 1
    ROUNDED = "rounded"  # by a spreadsheet, as 1.50809E+10
    NOT_MOBILE = "not_mobile"  # eleven digits that no mobile number begins with
    END_HIDDEN = "end_hidden"  # masked so that fewer than four digits end it


@dataclass(frozen=True, kw_only=True, slots=True)
class NearMiss:
    """A text that is nearly a mobile number. It is no number, so that nothing can be said about its messages."""

    text: str  # as pasted, without what stood between its digits
    fault: NearMissFault


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupQuery:
    """One meaning of a look-up. Plain digits may be a number, a task id or a reference: each is a query of its own."""

    mobile: str | None = None  # in full
    last_digits: str | None = None
    masked: str | None = None  # as the platform or we show it; its end is in `last_digits`
    text: str | None = None  # a task id or a reference

    def fits(self, mobile: str) -> bool:
        """Return whether a number matches the masked form, if there is one."""
        return self.masked is None or fits(self.masked, mobile)

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return the text as typed and in each usual case: an index serves equality alone."""
        if self.text is None:
            return ()
        return tuple(dict.fromkeys((self.text, self.text.upper(), self.text.lower(), self.text.capitalize())))


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedLookup:
    """What was understood of a look-up: every meaning, and what is nearly a number."""

    queries: tuple[LookupQuery, ...]
    near_misses: tuple[NearMiss, ...] = ()
    more: int = 0  # numbers beyond the first `NUMBERS_MAX`, whole, masked or by their last digits

    @property
    def mobiles(self) -> tuple[str, ...]:
        """Return what may be a number in full: of any country, or digits that may be a task id as well."""
        return tuple(query.mobile for query in self.queries if query.mobile is not None)

    @property
    def audited(self) -> tuple[str | None, ...]:
        """Return each number or its last digits, for the audit log; one None where only texts were given."""
        named = (query.mobile or query.last_digits for query in self.queries)
        return tuple(dict.fromkeys(filter(None, named))) or (None,)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the whole mainland mobile numbers."""
        return tuple(filter(is_mainland, self.mobiles))


def parse_lookup(given: str) -> ParsedLookup | None:
    """Return all that pasted text may mean. None: nothing can be looked up.

    Whole numbers are found whatever stands around them, then masked ones, last digits, and task ids and references by
    their labels. If there is nothing of that kind, the text itself is one, or each of its words that holds a digit.
    """
    if len(given) > PASTED_MAX_CHARS:
        return None
    text = " ".join("".join(map(_plain, given)).split())
    numbers, rest = _take_numbers(_without_commas(text))
    masked, hidden, rest = _take_masked(rest)
    endings, rest = _take_endings(rest)
    asked = list(dict.fromkeys([*(LookupQuery(mobile=number) for number in numbers), *masked, *endings]))
    queries = asked[:NUMBERS_MAX]
    _, rest = _take(_LABELLED, rest)  # what a label calls a task id is no number with a fault
    labelled = (match[1].strip(_MARKS) for match in _LABELLED.finditer(text))  # it may hold a number
    queries += [LookupQuery(text=name[:TEXT_MAX_CHARS]) for name in labelled]
    if not queries:
        queries += _whole(text, rest)
    elif _WORD.fullmatch(text):
        queries.append(LookupQuery(text=text[:TEXT_MAX_CHARS]))  # a reference may hold a number
    odd = (NearMiss(text=number, fault=NearMissFault.NOT_MOBILE) for number in numbers if not is_mainland(number))
    near_misses = tuple(dict.fromkeys([*odd, *hidden, *_near_misses(rest)]))[:NUMBERS_MAX]
    if not queries and not near_misses:
        return None
    return ParsedLookup(queries=_bounded(queries), near_misses=near_misses, more=max(0, len(asked) - NUMBERS_MAX))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """Return a character as it is compared: full width becomes plain, and what cannot be seen a space.

    A number in a circle or beside a full stop is a mark of a list: no digit, which would adjoin the next one.
    """
    if unicodedata.category(character) in _UNSEEN:
        return " "
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    plain = unicodedata.normalize("NFKC", character)
    return plain if character.isascii() or not any(map(str.isdecimal, plain)) else " "


def _without_commas(text: str) -> str:
    """Return a text whose digits are not grouped by commas."""
    return _GROUPED.sub(lambda match: match[0].replace(",", ""), text)


def is_mainland(mobile: str) -> bool:
    """Return whether digits are a mainland mobile number in full, and not a part of one or a task id."""
    return len(mobile) == _PLACES and mobile[0] == "1" and mobile[1] > "2"


def _take(pattern: re.Pattern[str], text: str) -> tuple[list[re.Match[str]], str]:
    """Return the matches, and the text without them."""
    return list(pattern.finditer(text)), pattern.sub(_TAKEN, text)


def _take_numbers(text: str) -> tuple[list[str], str]:
    """Return the whole numbers in a text, each once, and the text without them."""
    found: list[str] = []
    for pattern in (*_NUMBERS, _DATE, _APART_ANYHOW):
        matches, text = _take(pattern, text)
        if pattern is not _DATE:
            found += [_digits(match[1]) for match in matches]
    pieces = (digits[at : at + _PLACES] for digits in found for at in range(0, len(digits), _PLACES))
    return list(dict.fromkeys(pieces)), text


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


def _take_masked(text: str) -> tuple[list[LookupQuery], list[NearMiss], str]:
    """Return the masked numbers in a text, those whose end is hidden, and the text without them."""
    queries, hidden = [], []
    matches, rest = _take(_MASKED, text)
    for match in matches:
        head, tail = match[1], match[2]
        if len(tail) < LAST_DIGITS:
            hidden.append(NearMiss(text=match[0], fault=NearMissFault.END_HIDDEN))
        elif len(head) + len(tail) < _PLACES:
            mobile = head + tail.rjust(_PLACES - len(head), "*")
            queries.append(LookupQuery(last_digits=tail[-LAST_DIGITS:], masked=mobile))
    return queries, hidden, rest


def _take_endings(text: str) -> tuple[list[LookupQuery], str]:
    """Return the last digits of numbers that a text names as such, and the text without them."""
    queries = []
    for pattern in _ENDINGS:
        matches, text = _take(pattern, text)
        for digits in (digits for match in matches for digits in re.findall(r"\d+", match[1])):
            masked = digits.rjust(_PLACES, "*") if len(digits) > LAST_DIGITS else None
            queries.append(LookupQuery(last_digits=digits[-LAST_DIGITS:], masked=masked))
    return queries, text


def _whole(text: str, rest: str) -> Iterator[LookupQuery]:
    """Yield what a text means as a whole, else what the words mean that are left of it."""
    meanings = list(_meanings(_LABEL.sub("", text, count=1).strip(_MARKS)))
    yield from meanings
    if all(query.text is not None for query in meanings):
        words = [word for word in _WORD.findall(rest) if len(word) >= _WORD_MIN_CHARS]
        for word in words[:_TEXTS_MAX]:
            yield from _meanings(word.strip(_MARKS))


def _meanings(text: str) -> Iterator[LookupQuery]:
    """Yield what a text may mean: last digits, a number of any kind, a task id or a reference."""
    joined = _BETWEEN_DIGITS.sub("", _without_commas(text).removesuffix(".0"))
    mobile = parse_mobile(joined)
    if len(joined) == LAST_DIGITS and joined.isdigit():
        yield LookupQuery(last_digits=joined)
    elif mobile is not None and not is_masked(mobile):
        yield LookupQuery(mobile=mobile)
    elif mobile is not None and mobile[-LAST_DIGITS:].isdigit():
        yield LookupQuery(last_digits=mobile[-LAST_DIGITS:], masked=mobile)
    for one in (text, joined) if joined.isdigit() else (text,):
        if 0 < len(one) <= TEXT_MAX_CHARS:
            yield LookupQuery(text=one)


def _near_misses(text: str) -> Iterator[NearMiss]:
    for match in _NEAR_MISSES.finditer(text):
        kind, found = match.lastgroup, match[match.lastgroup or 0]
        digits = _digits(found)
        if kind == "rounded":
            yield NearMiss(text=found, fault=NearMissFault.ROUNDED)
        elif kind == "letters":
            if not found.isdigit():
                yield NearMiss(text=found, fault=NearMissFault.LETTERS)
        elif kind == "other":
            yield NearMiss(text=found, fault=NearMissFault.NOT_MOBILE)
        elif len(digits) in range(_PLACES - 2, _PLACES + 2):
            short = len(digits) < _PLACES
            yield NearMiss(text=digits, fault=NearMissFault.TOO_SHORT if short else NearMissFault.TOO_LONG)


def _bounded(queries: Iterable[LookupQuery]) -> tuple[LookupQuery, ...]:
    """Return each query once, and no more texts than are asked for."""
    each = list(dict.fromkeys(queries))
    texts = [query for query in each if query.text is not None]
    return tuple(query for query in each if query not in texts[_TEXTS_MAX:])
