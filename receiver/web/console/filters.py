"""Template filters: times in the platform's zone, durations and numbers in the page's language, untrusted text."""

from __future__ import annotations

import re
import unicodedata
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from babel.dates import format_skeleton, format_time, get_timezone_name
from babel.numbers import format_decimal, format_percent
from babel.units import format_unit
from flask import g
from flask_babel import get_locale, gettext
from markupsafe import Markup, escape

from receiver.core import in_zone, mask_mobile
from receiver.web import runtime
from receiver.web.console.error_texts import flag_words, why_unread
from receiver.web.console.state_words import state_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from babel import Locale
    from flask import Flask

_NEVER_SHOWN_RAW = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT = frozenset("\n")
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")  # Hangul fillers: letters by category, but invisible


def visible(text: str) -> Markup:
    """Return untrusted text as markup: isolated in direction, with the names of invisible characters.

    Source: Unicode Standard Annex 9 (bidirectional controls) and Technical Report 36, section 2.
    """
    shown = Markup().join(_visible_character(character) for character in text)
    return Markup('<bdi class="said">{}</bdi>').format(shown)


def _visible_character(character: str) -> Markup | str:
    hidden = unicodedata.category(character) in _NEVER_SHOWN_RAW or character in _BLANK_LETTERS
    if character in _KEPT or not hidden:
        return character
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, code)
    return Markup('<span class="unseen" title="{}">{}</span>').format(name, code)


def moment(when: datetime | None, *, exact: bool = False) -> Markup:
    """Return a time in the platform's zone, with its day unless that is today; on paper, and `dated`, always."""
    if when is None:
        return Markup('<span class="none">–</span>')
    locale, local, today = _locale(), in_zone(when, _zone()), runtime().now().astimezone(_zone()).date()
    text = format_time(local, "HH:mm:ss", locale=locale)
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


def _whole_day(local: datetime) -> str:
    return format_skeleton("yMMMd", local, locale=_locale())


@contextmanager
def dated() -> Iterator[None]:
    """Have every time within show its whole date: for what is read later or elsewhere."""
    before, g.dated = g.get("dated", False), True
    try:
        yield
    finally:
        g.dated = before


def clock(when: datetime) -> str:
    """Return the hour and minute of a time."""
    return f"{in_zone(when, _zone()):%H:%M}"


def day(when: datetime) -> str:
    """Return a day of the platform's zone, with its year unless that is the current one."""
    local = in_zone(when, _zone())
    this_year = local.year == runtime().now().astimezone(_zone()).year
    return format_skeleton("MMMd" if this_year else "yMMMd", local, locale=_locale())


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


def register(app: Flask) -> None:
    """Register these filters with the templates."""
    filters = (visible, moment, clock, day, duration, ago, number, percent, why_unread, flag_words, state_word)
    app.jinja_env.filters.update({made.__name__: made for made in filters} | {"masked": mask_mobile, "e": escape})
    app.jinja_env.globals["zone_name"] = zone_name
    app.jinja_env.tests["ahead"] = is_ahead
