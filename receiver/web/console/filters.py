"""Template filters: times in the platform's zone, durations and numbers in the page's language, untrusted text."""

from __future__ import annotations

import re
import unicodedata
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from babel.dates import format_skeleton, get_timezone_name
from babel.numbers import format_decimal, format_percent
from babel.units import format_unit
from flask import g
from flask_babel import get_locale, gettext
from markupsafe import Markup, escape

from receiver.core import in_zone, mask_inside, mask_mobile
from receiver.web import runtime
from receiver.web.console.audit_texts import action_words, detail_name, detail_value
from receiver.web.console.error_texts import delivery_words, flag_words, other_form, why_unread
from receiver.web.console.file_words import filter_words
from receiver.web.console.state_words import state_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from babel import Locale
    from flask import Flask


_NEVER_SHOWN_RAW = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT = frozenset("\n")
# Characters without a shape that belong where they stand: what joins emoji or the letters of a word, and the tags in
# the flags of England, Scotland and Wales. Source: Unicode Technical Standard 51; for the words, RFC 5892, appendix A.
_PICTURE = "[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
_JOINING = "[\u0600-\u06ff\u0700-\u077f\u08a0-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff]"
_VIRAMA = "[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca]"
_TAGGED = "|".join(
    "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f" for region in ("gbeng", "gbsct", "gbwls")
)
_JOINERS = re.compile(
    f"(?:(?<={_PICTURE})|(?<={_PICTURE}\ufe0f))\u200d(?={_PICTURE})"
    f"|(?<={_JOINING})[\u200c\u200d](?={_JOINING})|(?<={_VIRAMA})[\u200c\u200d]"
    f"|(?<=\U0001f3f4)(?:{_TAGGED})"
)
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")  # Hangul fillers: letters by category, but invisible


def visible(text: str) -> Markup:
    """Return untrusted text as markup: isolated in direction, with the names of invisible characters.

    Source: Unicode Standard Annex 9 (bidirectional controls) and Technical Report 36, section 2.
    """
    joiners = {place for found in _JOINERS.finditer(text) for place in range(*found.span())}
    shown = Markup().join(
        character if place in joiners else _visible_character(character) for place, character in enumerate(text)
    )
    return Markup('<bdi class="said">{}</bdi>').format(shown)


_SHORT_CHARS, _HEAD_CHARS, _END_CHARS = 24, 12, 8


def short(text: str) -> Markup:
    """Return an untrusted id as markup, a long one cut in its middle; the whole is its title."""
    if len(text) <= _SHORT_CHARS:
        return visible(text)
    whole = "".join(f"U+{ord(character):04X}" if _is_hidden(character) else character for character in text)
    cut = visible(f"{text[:_HEAD_CHARS]}…{text[-_END_CHARS:]}")
    return Markup('<span title="{}">{}</span>').format(whole, cut)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _NEVER_SHOWN_RAW or character in _BLANK_LETTERS


def _visible_character(character: str) -> Markup | str:
    if character in _KEPT or not _is_hidden(character):
        return character
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, code)
    return Markup('<span class="unseen" title="{}">{}</span>').format(name, code)


def moment(when: datetime | None, *, exact: bool = False) -> Markup:
    """Return a time in the platform's zone, with its day unless that is today; on paper, and `dated`, always."""
    if when is None:
        return Markup('<span class="none">–</span>')
    local, today = in_zone(when, _zone()), runtime().now().astimezone(_zone()).date()
    text = f"{local:%H:%M:%S}"
    if exact:
        text += f".{local.microsecond // 1000:03d}"
    on_paper = Markup()
    if g.get("dated"):
        text = f"{_whole_day(local)} {text}"
    elif local.date() != today or exact:
        text = f"{day(when)} {text}"
    else:
        on_paper = Markup(' data-day="{}"').format(_whole_day(local))
    at = when.isoformat(timespec="milliseconds")
    return Markup('<time datetime="{}"{}>{}</time>').format(at, on_paper, text)


def _whole_day(local: date) -> str:
    return _day_text("yMMMd", local)


def _day_text(skeleton: str, local: date) -> str:
    return _formatted_day(skeleton, local.year, local.month, local.day, _locale())


@lru_cache(maxsize=256)  # a list names the same few days in each of its rows
def _formatted_day(skeleton: str, year: int, month: int, day_of_month: int, locale: Locale) -> str:
    return format_skeleton(skeleton, date(year, month, day_of_month), locale=locale)


@contextmanager
def dated() -> Iterator[None]:
    """Have every time within show its whole date: for what is read later or elsewhere."""
    before, g.dated = g.get("dated", False), True
    try:
        yield
    finally:
        g.dated = before


def moment_ago(when: datetime) -> Markup:
    """Return a time as `moment` does, with its day as the title, and how long ago it was."""
    exact = f"{day(when)} {in_zone(when, _zone()):%H:%M:%S}"
    return Markup('<span title="{}">{} <small class="ago">{}</small></span>').format(
        exact, moment(when), ago(runtime().now() - when)
    )


def clock(when: datetime) -> str:
    """Return the hour and minute of a time."""
    return f"{in_zone(when, _zone()):%H:%M}"


def day(when: datetime) -> str:
    """Return the day of a time in the platform's zone, with its year unless that is the current one."""
    return day_of(in_zone(when, _zone()))


def day_of(local: date) -> str:
    """Return a day of the platform's zone, with its year unless that is the current one."""
    this_year = local.year == runtime().now().astimezone(_zone()).year
    return _day_text("MMMd" if this_year else "yMMMd", local)


_CLOCKS_DIFFER = timedelta(minutes=1)
_UNITS = ((96 * 3600, "day", 86400), (7200, "hour", 3600), (120, "minute", 60))


def duration(seconds: float | timedelta | None) -> str:
    """Return a duration in its largest useful unit: 4 seconds, 73 hours. Negative ones count as 0."""
    if seconds is None:
        return "–"
    whole = max(0, seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    unit, size = next(((unit, size) for least, unit, size in _UNITS if whole >= least), ("second", 1))
    # For Chinese, Babel has only short forms, apart from seconds.
    length: Literal["short", "long"] = "short" if _locale().language == "zh" else "long"
    return format_unit(int(whole // size), f"duration-{unit}", length=length, locale=_locale())


def is_ahead(age: timedelta) -> bool:
    """Return whether a time is ahead of our clock by more than clocks usually differ."""
    return age <= -_CLOCKS_DIFFER


def ago(age: timedelta) -> str:
    """Return how long ago a time was, or how far it is ahead of our clock."""
    if is_ahead(age):
        text = gettext("%(ahead)s ahead of this server's clock", ahead=duration(-age))
    else:
        text = gettext("%(age)s ago", age=duration(age)) if age >= timedelta() else gettext("just now")
    return str(text)


def number(value: float | None) -> str:
    """Return a number with the language's separators."""
    return "–" if value is None else format_decimal(value, locale=_locale())


def percent(share: float | None) -> str:
    """Return a share as a percentage, with at most one decimal."""
    return "–" if share is None else format_percent(round(share, 3), format="#,##0.#%", locale=_locale())


_PARTS = re.compile(r"(1\d\d)(\d{4})(\d{4})", re.ASCII)


def spaced(mobile: str) -> str:
    """Return a number as people read it aloud: 150 8092 1090. Others as they are."""
    parts = _PARTS.fullmatch(mobile)
    return " ".join(parts.groups()) if parts else mobile


def zone_name() -> str:
    """Return the name of the zone of all times shown."""
    now = runtime().now().astimezone(_zone())
    offset = re.sub(r"(\d\d)(\d\d)$", r"\1:\2", f"{now:%z}")
    return f"{get_timezone_name(now, locale=_locale())} (UTC{offset})"


def _locale() -> Locale:
    found: Locale | None = get_locale()
    assert found is not None  # noqa: S101  (there is a request)
    return found


def _zone() -> Any:
    return runtime().settings.timezone


def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return values by name without some of them."""
    return {name: value for name, value in values.items() if name not in names}


def register(app: Flask) -> None:
    """Register these filters with the templates."""
    filters = (
        *(visible, short, moment, moment_ago, clock, day, duration, ago, number, spaced, percent),
        *(why_unread, delivery_words, other_form, flag_words, without, day_of),
        *(action_words, detail_name, detail_value, filter_words),
    )
    others = {"masked": mask_mobile, "masked_inside": mask_inside, "e": escape}
    app.jinja_env.filters.update({made.__name__: made for made in filters} | others)
    app.jinja_env.globals.update(zone_name=zone_name, state_word=state_word)
    app.jinja_env.tests["ahead"] = is_ahead
