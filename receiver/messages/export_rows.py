"""Rows of an export, read in parts and written as CSV."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import formulas
from receiver.db.engine import lift_statement_timeout
from receiver.db.set_aside import ROW_FAULTS, note, read_rows
from receiver.messages.export_columns import LISTED_ROWS, TYPES, Export
from receiver.messages.export_json import iter_json, json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from receiver.messages.fields import Field


# A push has 64 KiB. As JSON in a cell a byte is up to nine characters; Python's own limit is 128 KiB.
csv.field_size_limit(1024 * 1024)
_CHUNK_BYTES = 64 * 1024
_PART_ROWS = 1000
_PART_IDS = 5000
_NEEDS_QUOTES = re.compile(r'[",\r\n]')
_AS_CSV = "FORMAT csv"
# One column, as it is: JSON has no control characters, so nothing in it needs quotes.
_AS_LINES = r"FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02'"


def count_rows(connection: sa.Connection, export: Export, *, most: int) -> int:
    """Return the number of rows, up to a limit; includes encrypted rows that decryption would filter out."""
    some = export.query.with_only_columns(sa.literal(1).label("one"), maintain_column_froms=True)
    some = some.order_by(None).limit(most)
    return connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0


def iter_csv(
    connection: sa.Connection, export: Export, *, neutral: bool, tell: Callable[[int], None] = lambda _rows: None
) -> Iterator[bytes]:
    """Yield the rows as CSV in UTF-8, lines ended by a newline, without a header; null is an empty cell.

    `tell` receives the number of rows, at the end or in parts.
    """
    query = export.as_text(neutral=neutral)
    if export.encrypted:
        yield from _iter_decrypted(connection, export, query, tell, neutral=neutral)
        return
    if connection.dialect.name == "postgresql":
        yield from _copy(connection, export, query, _AS_CSV, tell)
        return
    fields = export.fields
    for rows in _parts(connection, export, query):
        lines = [line for row in rows if (line := _line(export, fields, row)) is not None]
        yield "".join(lines).encode()
        tell(len(lines))


def iter_ndjson(
    connection: sa.Connection, export: Export, *, tell: Callable[[int], None] = lambda _rows: None
) -> Iterator[bytes]:
    """Yield the rows as JSON, one a line; `tell` as in `iter_csv`."""
    if connection.dialect.name == "postgresql" and not export.encrypted:
        line = export.query.with_only_columns(json_line(export).label("line"), maintain_column_froms=True)
        yield from _copy(connection, export, line, _AS_LINES, tell)
        return
    yield from iter_json(export.fields, read_cells(iter_csv(connection, export, neutral=False, tell=tell)))


def read_cells(pieces: Iterable[bytes]) -> Iterator[list[str]]:
    """Yield the cells of each row of a CSV that was written here."""
    return csv.reader(_split_lines(pieces))


def _split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Part text at its newlines alone: a carriage return may be a reply's own."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()


def _line(export: Export, fields: Sequence[Field], row: Any) -> str | None:
    """Return a row of the embedded database as a line. None: a value is invalid in its column; the row is left out."""
    for field, value in zip(fields, row, strict=True):
        if value is not None and not isinstance(value, TYPES[field.type]):
            note(export.table.name, row.id, TypeError(field.name))
            return None
    return csv_line(row)


def csv_line(cells: Iterable[Any]) -> str:
    """Return a row as a line of CSV."""
    return ",".join(map(_cell, cells)) + "\n"


def _iter_decrypted(
    connection: sa.Connection, export: Export, query: sa.Select[Any], tell: Callable[[int], None], *, neutral: bool
) -> Iterator[bytes]:
    """Yield the rows as lines, decrypted and written by this process."""
    postgresql = connection.dialect.name == "postgresql"
    lift_statement_timeout(connection)
    if postgresql and not export.narrow:
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
    columns = export.columns

    def cells(row: Any) -> Iterator[str]:
        for column, value in zip(columns, row, strict=True):
            if column.to_text is None:
                # As PostgreSQL writes numbers.
                yield _cell(int(value) if postgresql and isinstance(value, float) and value.is_integer() else value)
                continue
            text = column.to_text(value)
            yield _cell(formulas.neutral(text) if neutral and column.field.written_by_people else text)

    def line_of(row: Any) -> str | None:
        try:
            return ",".join(cells(row)) + "\n" if export.keeps is None or export.keeps(row) else None
        except ROW_FAULTS as error:
            note(export.table.name, row.id, error)
            return None

    for rows in _parts(connection, export, query):
        lines = [line for row in rows if (line := line_of(row)) is not None]
        yield "".join(lines).encode()
        tell(len(lines))


def _parts(connection: sa.Connection, export: Export, query: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    """Yield the rows of a query in parts; on SQLite in a transaction for each part.

    An open transaction there keeps later writes in the log, however slowly its rows are read. Rows that arrive after
    the first part are left out.
    """
    if connection.dialect.name == "postgresql":
        yield from connection.execute(query.execution_options(yield_per=_PART_ROWS)).partitions()
        return
    row_id = export.table.c.id
    if export.listed:  # few, in an order that their ids do not continue
        every: list[Any] = read_rows(connection, query.limit(LISTED_ROWS), export.table)
        connection.rollback()
        yield from (every[start : start + _PART_ROWS] for start in range(0, len(every), _PART_ROWS))
        return
    if export.narrow:
        rows: list[Any] = read_rows(connection, query.limit(_PART_ROWS), export.table)
        while rows:
            connection.rollback()
            yield rows
            more = query.where(row_id > rows[-1].id).limit(_PART_ROWS)
            rows = read_rows(connection, more, export.table) if len(rows) == _PART_ROWS else []
        connection.rollback()
        return
    first = connection.scalar(export.query.with_only_columns(row_id, maintain_column_froms=True).limit(1))
    last = connection.scalar(sa.select(sa.func.max(row_id)))
    connection.rollback()
    # By the ids alone: any other index would be gone through again for every part.
    by_id = query.with_hint(export.table, "NOT INDEXED", "sqlite")
    for begin in range(first or 0, (last or 0) + 1 if first is not None else 0, _PART_IDS):
        part = by_id.where(row_id >= begin, row_id < min(begin + _PART_IDS, last + 1))
        rows = read_rows(connection, part, export.table)
        connection.rollback()
        yield from (rows[start : start + _PART_ROWS] for start in range(0, len(rows), _PART_ROWS))


def _cell(value: Any) -> str:
    """Write a cell as PostgreSQL does: the csv module leaves a lone carriage return bare, and null like empty text."""
    if value is None:
        return ""
    text = str(value)
    if not text or _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _copy(
    connection: sa.Connection, export: Export, query: sa.Select[Any], form: str, tell: Callable[[int], None]
) -> Iterator[bytes]:
    """Yield the rows of a query as PostgreSQL writes them, whole ones in each piece."""
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    lift_statement_timeout(connection)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        if not export.narrow:
            # In the order of the index, so that the first rows arrive at once and nothing is sorted on disk.
            cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute("SET LOCAL datestyle = 'ISO'")
        with cursor.copy(f"COPY ({compiled}) TO STDOUT ({form})", compiled.construct_params()):
            rows = None
            while rows is None:
                piece, rows = driver.take_copied(_CHUNK_BYTES)
                yield piece
        tell(rows)
