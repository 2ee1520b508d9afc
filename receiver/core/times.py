"""Times from outside and in the embedded database: their bounds, how they are written and read. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from receiver.core.push_codes import PushFault

# Bounds of a time from outside: no platform, sender or file has a true one beyond them.
_EARLIEST_YEAR = 2000
_AHEAD_MAX = timedelta(hours=48)
# Stands for a stored time that cannot be read, such as a damaged one.
UNREADABLE_TIME = datetime.min.replace(tzinfo=UTC)


def midnight(day: date, zone: tzinfo) -> datetime:
    """Return the start of a day of a zone, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=8)
def earliest(zone: tzinfo = UTC) -> datetime:
    """Return the first moment that a time from outside may mean: 2000 as its zone has it, in UTC."""
    return datetime(_EARLIEST_YEAR, 1, 1, tzinfo=zone).astimezone(UTC)


def implausible(moment: datetime, seen_at: datetime | None, zone: tzinfo) -> PushFault | None:
    """Return why a time that arrived at `seen_at` cannot be right; None: it may be.

    `seen_at` None: our own clock is not trusted, so no time is too far ahead. `zone`: the platform's.
    """
    if moment < earliest(zone):
        return PushFault.BEFORE_2000
    if seen_at is not None and moment - seen_at > _AHEAD_MAX:
        return PushFault.TOO_FAR_AHEAD
    return None


def in_zone(moment: datetime, zone: tzinfo) -> datetime:
    """Return a UTC time in `zone`; unchanged if it would lie outside the years 1 to 9999."""
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


_SHORT_YEAR = re.compile(r"(\d{1,3})(-\d\d-\d\d .+)", re.ASCII)


def write_time(moment: datetime) -> str:
    """Return a time as the embedded database stores it: UTC, four digits of a year, six of a second."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def read_time(text: str) -> datetime:
    """Return the time that `write_time`, or an older version without leading zeros in the year, wrote.

    Never raises, so that one row cannot end a list: UNREADABLE_TIME stands for a value that is no time.
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        pass
    match = _SHORT_YEAR.fullmatch(str(text))
    try:
        return datetime.fromisoformat(match[1].zfill(4) + match[2]).replace(tzinfo=UTC) if match else UNREADABLE_TIME
    except ValueError:
        return UNREADABLE_TIME
