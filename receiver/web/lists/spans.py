"""Spans of time by their names, for addresses that mean the same tomorrow: `range=yesterday`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from receiver.core import midnight

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime, tzinfo

RECENT: Mapping[str, timedelta] = {"10m": timedelta(minutes=10), "1h": timedelta(hours=1)}
# Days back to the first and to the last day.
DAYS: Mapping[str, tuple[int, int]] = {"today": (0, 0), "yesterday": (1, 1), "7d": (6, 0), "30d": (29, 0)}
SPANS = (*RECENT, "today", "yesterday", "7d")  # of lists


def find_days(name: str, today: date) -> tuple[date, date]:
    """Return the first and the last day of a span of `DAYS`."""
    first, last = (today - timedelta(days=back) for back in DAYS[name])
    return first, last


def find_span(name: str, now: datetime, zone: tzinfo) -> tuple[datetime, datetime | None]:
    """Return the begin and end of a span of `SPANS`; None: it has not ended. Days are those of `zone`."""
    if name in RECENT:
        return now - RECENT[name], None
    today = now.astimezone(zone).date()
    first, last = find_days(name, today)
    return midnight(first, zone), None if last == today else midnight(last + timedelta(days=1), zone)


def with_span(arguments: Mapping[str, Any], fields: tuple[str, str], now: datetime, zone: tzinfo) -> dict[str, Any]:
    """Return the filters of a list with the times of its `range` in these fields; times that are given go first."""
    narrowed = {field: value for field, value in arguments.items() if field != "range"}
    if "range" not in arguments or not narrowed.keys().isdisjoint(fields):
        return narrowed
    span = zip(fields, find_span(arguments["range"], now, zone), strict=True)
    return narrowed | {field: moment for field, moment in span if moment is not None}
