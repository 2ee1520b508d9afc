"""The rows that every file format is read into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

UNDECODED = "\udcff"  # stands for bytes that are no text in the encoding of the file

Cell: TypeAlias = str | int | float | bool | datetime | date | time | timedelta | None


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, or why it cannot be read."""

    place: str  # "line 3", as its reader finds it again
    content: Sequence[Cell] | Mapping[str, Any] | str  # cells below a heading; an object by names; a fault


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A file that was opened. The first row of a table is its heading; objects carry their own names."""

    rows: Iterator[Row]
    table: bool
    notes: tuple[str, ...] = ()  # notes for the user, such as the detected encoding
    unescape: Callable[[str], str] = str  # undoes the escaping of cells for spreadsheets
    serial_time: Callable[[float], Any] | None = None  # a number of a sheet as a time; None: numbers are no times
