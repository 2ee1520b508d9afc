"""Times as spreadsheets and people write them. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPACT = re.compile(r"\d{14}", re.ASCII)
_LOOSE = re.compile(
    r"""
    (?P<year>[0-9]{4}) \s*[-/.年]\s* (?P<month>[0-9]{1,2}) \s*[-/.月]\s* (?P<day>[0-9]{1,2}) (?: \s* 日 )?
    (?:
        (?: (?<=日) | T | \s ) \s* (?P<half>上午|下午)? \s*
        (?P<hour>[0-9]{1,2}) \s*[:：时点]\s* (?P<minute>[0-9]{1,2})
        (?: \s*[:：分]\s* (?P<second>[0-9]{1,2}) (?: \. (?P<fraction>[0-9]{1,6}) )? )?
        \s* [分秒]? \s* (?P<half_after>[AaPp][Mm])?
    )?
    """,
    re.VERBOSE,
)


def read_loose_time(text: str, formats: Sequence[str] = ()) -> datetime | None:
    """Return a local time in one of `formats`, or with the year first and slashes, Chinese signs or no signs.

    None: it is ISO 8601, the usual form; or ambiguous (a day and a month before the year), and is not guessed.
    """
    if not text.isdigit() and _is_iso(text):
        return None
    for time_format in formats:
        try:
            return datetime.strptime(text, time_format)  # noqa: DTZ007  (the zone is added by the caller)
        except ValueError:
            continue
    try:
        if _COMPACT.fullmatch(text):
            return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007  (as above)
        match = _LOOSE.fullmatch(text)
        return _moment(match) if match else None
    except ValueError:
        return None


def _is_iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _moment(match: re.Match[str]) -> datetime:
    part = match.groupdict()
    hour = int(part["hour"] or 0)
    half = (part["half"] or part["half_after"] or "").lower()
    if half in ("下午", "pm") and hour < 12:
        hour += 12
    elif half in ("上午", "am") and hour == 12:
        hour = 0
    return datetime(  # noqa: DTZ001  (as above)
        int(part["year"]), int(part["month"]), int(part["day"]),
        hour, int(part["minute"] or 0), int(part["second"] or 0), int((part["fraction"] or "0").ljust(6, "0")),
    )  # fmt: skip
