"""Rows of an export as lines of JSON: what each type of column is there, in SQL and in Python.

PostgreSQL writes the same bytes as Python; a test compares them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.messages.fields import FieldType
from receiver.messages.row_sql import in_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from receiver.messages.export_columns import Export
    from receiver.messages.fields import Field

_LINES = 1000

# What `concat` is given: constants, and what PostgreSQL computes.
Part = str | sa.ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class _JsonType:
    """How a cell is written: `read` returns the value of its text, `write` the same in SQL, of an expression."""

    read: Callable[[str], Any]
    write: Callable[[sa.ColumnElement[Any], bool], tuple[Part, ...]]  # the flag: it may be null


def _write_text(value: sa.ColumnElement[Any], nullable: bool) -> tuple[Part, ...]:
    if not nullable:
        return (sa.func.coalesce(sa.func.to_json(value), sa.literal_column("'\"\"'::json")),)
    # An empty one is null in this format: a cell does not tell them apart.
    filled = value != sa.literal_column("''")
    return (sa.case((filled, sa.func.to_json(value)), else_=sa.literal_column("'null'::json")),)


def _write_time(value: sa.ColumnElement[Any], nullable: bool) -> tuple[Part, ...]:
    return (sa.func.coalesce(in_json(value), sa.literal_column("'null'" if nullable else "'\"\"'")),)


def _write_plain(value: sa.ColumnElement[Any], nullable: bool) -> tuple[Part, ...]:
    """Quote a text that needs no escapes."""
    if not nullable:
        return '"', value, '"'
    quote = sa.literal_column("'\"'", sa.Text)
    return (sa.func.coalesce(quote.op("||")(value).op("||")(quote), sa.literal_column("'null'")),)


def _write_number(value: sa.ColumnElement[Any], _nullable: bool) -> tuple[Part, ...]:
    return (in_json(value),)


def _write_bare(value: sa.ColumnElement[Any], _nullable: bool) -> tuple[Part, ...]:
    return (value,)


_JSON: Mapping[FieldType, _JsonType] = {
    FieldType.TEXT: _JsonType(str, _write_text),
    FieldType.WORD: _JsonType(str, _write_plain),
    FieldType.PLATFORM_TIME: _JsonType(str, _write_time),
    FieldType.OUR_TIME: _JsonType(str, _write_time),
    FieldType.NUMBER: _JsonType(float, _write_number),
    FieldType.ID: _JsonType(str, _write_plain),  # text: JavaScript would round it
    FieldType.UUID: _JsonType(str, _write_plain),
    FieldType.TEXTS: _JsonType(json.loads, _write_bare),
    FieldType.COUNT: _JsonType(int, _write_bare),
    FieldType.BOOLEAN: _JsonType(lambda text: text == "true", _write_bare),
}


def json_line(export: Export) -> sa.ColumnElement[str]:
    """Return the expression with which PostgreSQL writes a row."""
    parts: list[Part] = []
    begin = "{"
    for column in export.columns:
        field = column.field
        parts += [f"{begin}{json.dumps(field.name)}: ", *_JSON[field.type].write(column.text, field.nullable)]
        begin = ", "
    return sa.func.concat(*_merged([*parts, "}"]), type_=sa.Text)


def _merged(parts: Iterable[Part]) -> Iterator[sa.ColumnElement[Any]]:
    """Join the constants that follow one another: each argument takes its time, in each row."""
    constant = ""
    for part in parts:
        if isinstance(part, str):
            constant += part
            continue
        if constant:
            yield sa.literal_column(f"'{constant}'")
        yield part
        constant = ""
    yield sa.literal_column(f"'{constant}'")


def iter_json(fields: tuple[Field, ...], rows: Iterable[list[str]]) -> Iterator[bytes]:
    """Yield the cells of rows as lines of JSON."""
    readers = [(field.name, field.nullable, _JSON[field.type].read) for field in fields]
    written: list[str] = []
    for cells in rows:
        row = {
            name: None if cell == "" and nullable else read(cell)
            for (name, nullable, read), cell in zip(readers, cells, strict=True)
        }
        written.append(json.dumps(row, ensure_ascii=False))
        if len(written) >= _LINES:
            yield ("\n".join(written) + "\n").encode()
            written = []
    if written:
        yield ("\n".join(written) + "\n").encode()
