"""Rows as files: CSV and XLSX for people, NDJSON for programs, Parquet for data frames; at constant memory."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
import zlib
from datetime import MAXYEAR, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import xlsxwriter

from receiver.core import MissingExtra, TooManyRows, in_zone
from receiver.db.encryption import cipher_of
from receiver.messages.export_columns import (
    Export,
    export_messages,
    export_receipts,
    export_replies,
)
from receiver.messages.export_rows import count_rows, iter_csv, iter_ndjson, split_lines
from receiver.messages.fields import TIMES, Field, FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from zoneinfo import ZoneInfo

    import sqlalchemy as sa

    from receiver.messages.queries import Clock, Filter

SHEET_ROWS = 1_048_575  # that a sheet holds below the names
_BOM = b"\xef\xbb\xbf"
_ROW_GROUP_ROWS = 25_000
_BLOCK_BYTES = 1024 * 1024
_REST_MAX_SECONDS = 0.1
_GZIP = 31  # of zlib's window sizes, the one that writes gzip's header


class FileFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"
    XLSX = "xlsx"


MEDIA_TYPES: Mapping[FileFormat, str] = {
    FileFormat.CSV: "text/csv; charset=utf-8",
    FileFormat.NDJSON: "application/x-ndjson",
    FileFormat.PARQUET: "application/vnd.apache.parquet",
    FileFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
EXPORTS: Mapping[str, Callable[..., Export]] = {
    "messages": export_messages,
    "receipts": export_receipts,
    "replies": export_replies,
}


def iter_file(
    connection: sa.Connection,
    name: str,
    form: FileFormat,
    wanted: Filter,
    clock: Clock,
    *,
    in_full: bool,
    zone: ZoneInfo,
    bom: bool = False,
    neutral: bool = True,
    sheet_rows: int = SHEET_ROWS,
    gives_way: Callable[[], bool] = lambda: False,
    tell: Callable[[int], None] = lambda _rows: None,
) -> Iterator[bytes]:
    """Yield a list as the pieces of a file, oldest row first; on PostgreSQL as of one moment.

    `in_full`: numbers are not masked. `zone`: of the times in an XLSX; elsewhere they are UTC. `bom`: a CSV begins with
    a byte order mark, by which Excel recognizes UTF-8. `neutral`: no cell of a CSV is a formula to a spreadsheet.
    `sheet_rows`: the maximum of an XLSX, checked first, since it is built whole before its first byte. `gives_way`
    returns whether to rest between pieces, for twice as long as each took, so that urgent work gets the processor.
    `tell` receives the numbers of rows.

    Before the first piece, raises TooManyRows, and MissingExtra if the format's library is not installed.
    """
    export = EXPORTS[name](wanted, clock, in_full=in_full, cipher=cipher_of(connection.dialect))
    if form is FileFormat.XLSX:
        _require_fit(connection, export, sheet_rows)
    if form is FileFormat.NDJSON:
        yield from _paced(iter_ndjson(connection, export, tell=tell), gives_way)
        return
    rows = _paced(iter_csv(connection, export, neutral=neutral and form is FileFormat.CSV, tell=tell), gives_way)
    match form:
        case FileFormat.CSV:
            yield (_BOM if bom else b"") + (",".join(field.name for field in export.fields) + "\n").encode()
            yield from rows
        case FileFormat.PARQUET:
            yield from _parquet(export.fields, rows)
        case FileFormat.XLSX:
            yield from _xlsx(export.fields, rows, zone, sheet_rows)


def _paced(pieces: Iterable[bytes], gives_way: Callable[[], bool]) -> Iterator[bytes]:
    begun = time.perf_counter()
    for piece in pieces:
        yield piece
        if gives_way():
            time.sleep(min(_REST_MAX_SECONDS, 2 * (time.perf_counter() - begun)))
        begun = time.perf_counter()


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file's pieces, compressed."""
    compressor = zlib.compressobj(level=1, wbits=_GZIP)
    for piece in pieces:
        if compressed := compressor.compress(piece):
            yield compressed
    yield compressor.flush()


# --- Parquet --------------------------------------------------------------------------------------------


def _parquet(fields: tuple[Field, ...], rows: Iterable[bytes]) -> Iterator[bytes]:
    # Read as it loads: this pool gives back what is freed, the usual one keeps a fifth more. Of none, it takes another.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    try:
        import pyarrow as pa  # noqa: PLC0415  (an extra, and a quarter of a second to load)
        import pyarrow.csv  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("Parquet needs the extra `parquet`: pip install 'receiver[parquet]'") from None
    types = {
        FieldType.TEXT: pa.string(),
        FieldType.WORD: pa.string(),
        FieldType.PLATFORM_TIME: pa.timestamp("ms", tz="UTC"),
        FieldType.OUR_TIME: pa.timestamp("ms", tz="UTC"),
        FieldType.NUMBER: pa.float64(),
        FieldType.ID: pa.int64(),
        FieldType.COUNT: pa.int64(),
        FieldType.BOOLEAN: pa.bool_(),
    }
    schema = pa.schema([pa.field(field.name, types[field.type]) for field in fields])
    source = _Source(rows)
    if source.empty:
        batches: Iterable[Any] = ()
    else:
        batches = pa.csv.open_csv(
            source,
            read_options=pa.csv.ReadOptions(column_names=schema.names, block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    sink = _Sink()
    # Dictionaries of what hardly repeats, such as task ids, would take a third of the memory and of the file.
    repeating = [field.name for field in fields if field.repeats]
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating) as writer:
        gathered: list[Any] = []
        for batch in batches:
            gathered.append(batch)
            if sum(part.num_rows for part in gathered) >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(gathered, schema))
                gathered = []
                yield sink.take()
        if gathered:
            writer.write_table(pa.Table.from_batches(gathered, schema))
    yield sink.take()


# --- XLSX -----------------------------------------------------------------------------------------------

_CELL_CHARS = 32_767
_CUT = " … [cut; whole in the other formats]"
_NOT_XML = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})  # others are escaped by the library
_FIRST_YEAR = 1900
_FILE_PIECE_BYTES = 64 * 1024


def _require_fit(connection: sa.Connection, export: Export, most: int) -> None:
    """Raise TooManyRows where there are more rows than that, as far as the database can count them."""
    if export.keeps is None and count_rows(connection, export, most=most + 1) > most:
        raise _too_many(most)


def _too_many(most: int) -> TooManyRows:
    more = "" if most == SHEET_ROWS else f" (`receiver export` writes up to {SHEET_ROWS:,})"
    return TooManyRows(f"over {most:,} rows, which is all that an XLSX can have here{more}; narrow it, or use csv")


def _xlsx(fields: tuple[Field, ...], rows: Iterable[bytes], zone: ZoneInfo, most: int) -> Iterator[bytes]:
    """Write a workbook of one sheet: ids and numbers as text, which Excel would round, times in `zone`."""
    with tempfile.TemporaryFile() as file:
        book = xlsxwriter.Workbook(file, {"constant_memory": True, "strings_to_urls": False})
        sheet = book.add_worksheet()
        sheet.freeze_panes(1, 0)
        bold, time_form = book.add_format({"bold": True}), book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        for place, field in enumerate(fields):
            sheet.set_column(place, place, 20)
            name = f"{field.name} ({zone.key})" if field.type in TIMES else field.name
            sheet.write_string(0, place, name, bold)
        for number, cells in enumerate(csv.reader(split_lines(rows)), start=1):
            if number > most:
                raise _too_many(most)
            for place, (field, cell) in enumerate(zip(fields, cells, strict=True)):
                if cell == "":
                    continue
                moment = _sheet_time(cell, zone) if field.type in TIMES else None
                if moment is not None:
                    sheet.write_datetime(number, place, moment, time_form)
                elif field.type in (FieldType.NUMBER, FieldType.COUNT):
                    sheet.write_number(number, place, float(cell))
                elif field.type is FieldType.BOOLEAN:
                    sheet.write_boolean(number, place, cell == "true")
                else:
                    sheet.write_string(number, place, _sheet_text(cell))
        book.close()
        file.seek(0)
        while piece := file.read(_FILE_PIECE_BYTES):
            yield piece


def _sheet_time(text: str, zone: ZoneInfo) -> datetime | None:
    """Return a time as a sheet stores it; None: it is before the sheet's calendar."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # a damaged row ends no file
        return None
    if moment.year <= _FIRST_YEAR or moment.year >= MAXYEAR:
        return None
    return in_zone(moment, zone).replace(tzinfo=None)


def _sheet_text(text: str) -> str:
    text = text.translate(_NOT_XML)
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - len(_CUT)] + _CUT


class _Source(io.RawIOBase):
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(next(self._pieces, b""))

    @property
    def empty(self) -> bool:
        """Return whether it has no rows; call before reading."""
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        return not self._rest

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or some of it."""
        if self.empty:
            return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Sink(io.RawIOBase):
    """A file that is written to, and taken from piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return how much was written."""
        return self._written

    def write(self, data: Any) -> int:
        """Accept a piece."""
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._pieces)
        self._pieces = []
        return taken
