"""Rows as a tool has them, held against the API's, value by value."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from receiver.core import iso_milliseconds, iso_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.tools.house import Row

_IDS = {"id", "message_id", "push_id"}
_PLATFORM_TIMES = {"reported_at", "replied_at"}
_SHOWN = 10
_ESCAPED = re.compile("_x([0-9A-F]{4})_")  # control characters, as Excel has them in files; openpyxl leaves them so
_ZONE = ZoneInfo("Asia/Shanghai")  # the platform's, as RECEIVER_TIMEZONE is by default


def assert_same(found: Sequence[Row], expected: Sequence[Row], *, key: str = "id", text: bool = False) -> None:
    """Compare rows by their key, whatever their order. `text`: every value was read as text.

    What a tool adds is the caller's to take away.
    """
    found_rows, expected_rows = _by_key(found, key), _by_key(expected, key)
    assert found_rows.keys() == expected_rows.keys()
    wrong = []
    for name, row in expected_rows.items():
        assert found_rows[name].keys() == row.keys(), found_rows[name].keys() ^ row.keys()
        for column, value in row.items():
            seen = found_rows[name][column]
            seen = _from_text(seen, value) if text else seen
            if not _same(_as_api(column, seen), value):
                wrong.append((name, column, seen, value))
    assert not wrong, wrong[:_SHOWN]


def _by_key(rows: Sequence[Row], key: str) -> dict[str, Row]:
    named = {str(row[key]): row for row in rows}
    assert len(named) == len(rows) > 0
    return named


def _same(found: Any, value: Any) -> bool:
    return bool(found == value) and isinstance(found, bool) == isinstance(value, bool)


def _as_api(column: str, value: Any) -> Any:
    """Return a value of a typed column as the API writes it."""
    if value is None or column in _IDS:
        return value if value is None else str(value)
    if column.endswith("_at"):
        at = datetime.fromisoformat(value)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (iso_seconds if column in _PLATFORM_TIMES else iso_milliseconds)(at)
    if column == "extra":
        named = json.loads(value) if isinstance(value, str) else value
        return {name: text for name, text in named.items() if text is not None}  # a struct has every name in every row
    return value


def _from_text(found: Any, value: Any) -> Any:
    """Return what a cell of text means, where the API has such a value."""
    if value in (None, ""):
        return found or value  # an empty cell is either
    if isinstance(value, bool):
        return {"true": True, "false": False}.get(found.lower(), found)
    if isinstance(value, int | float):
        return float(found)
    return found


def as_columns(rows: Sequence[Row], between: str) -> list[Row]:
    """Return rows as loaders make tables of them: an object's members are columns, and every row has every column.

    A column that is null in every row is not made.
    """
    flat = [_flat(row, between) for row in rows]
    columns = {name for row in flat for name, value in row.items() if value is not None}
    return [{name: row.get(name) for name in columns} for row in flat]


def _flat(row: Row, between: str) -> Row:
    flat: Row = {}
    for name, value in row.items():
        inner = _flat(value, between) if isinstance(value, dict) else {}
        flat |= (
            {f"{name}{between}{member}": one for member, one in inner.items()}
            if inner
            else {name: None if value == {} else value}
        )
    return flat


def from_sheet(rows: Sequence[Row]) -> list[Row]:
    """Return a sheet's rows as the API has them: its times are in the platform's zone, with no offset."""
    return [{column: _from_cell(column, value) for column, value in row.items()} for row in rows]


def _from_cell(column: str, value: Any) -> Any:
    if not value or not column.endswith("_at"):
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value) if isinstance(value, str) else value
    at = datetime.fromisoformat(value).replace(tzinfo=_ZONE).astimezone(UTC)
    rounded = at + timedelta(microseconds=500)  # a sheet's times are fractions of a day
    return (iso_seconds if column in _PLATFORM_TIMES else iso_milliseconds)(rounded)
