"""Rows as files: CSV and XLSX for people, NDJSON for programs, Parquet for data frames; at constant memory."""

from __future__ import annotations

import os
import time
import zlib
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

from receiver.core import MissingExtra, TooManyRows
from receiver.core import neutral as neutral_text
from receiver.db.engine import lift_statement_timeout
from receiver.messages.export_columns import (
    LISTED_ROWS,
    Export,
    export_messages,
    export_receipts,
    export_replies,
)
from receiver.messages.export_pieces import PieceReader, PieceWriter
from receiver.messages.export_rows import count_rows, csv_line, iter_csv, iter_ndjson, read_cells
from receiver.messages.export_sheets import iter_sheet, require_fit
from receiver.messages.fields import FieldType, as_json, fields_of
from receiver.messages.queries import OptOutRow, iter_opt_outs
from receiver.messages.stamps import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    import sqlalchemy as sa

    from receiver.messages.export_wording import Wording
    from receiver.messages.fields import Field
    from receiver.messages.queries import Clock, Filter

_BOM = b"\xef\xbb\xbf"
_ROW_GROUP_ROWS = 25_000
_BLOCK_BYTES = 1024 * 1024
_ROWS_A_PIECE = 500
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
TEXT_FORMATS = frozenset({FileFormat.CSV, FileFormat.NDJSON})
EXPORTS: Mapping[str, Callable[..., Export]] = {
    "messages": export_messages,
    "receipts": export_receipts,
    "replies": export_replies,
}


def require_library(form: FileFormat) -> None:
    """Raise MissingExtra if the format's library is not installed."""
    if form is FileFormat.PARQUET and find_spec("pyarrow") is None:
        raise MissingExtra("Parquet needs the extra `parquet`: pip install 'receiver[parquet]'")


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
    wording: Wording | None = None,
    bounded: bool = False,
    gives_way: Callable[[], bool] = lambda: False,
    tell: Callable[[int], None] = lambda _rows: None,
) -> Iterator[bytes]:
    """Yield a list as the pieces of a file, oldest row first; on PostgreSQL as of one moment.

    `in_full`: numbers are not masked. `zone`: of the times in an XLSX; elsewhere they are UTC. `bom`: a CSV begins with
    a byte order mark, by which Excel recognizes UTF-8. `neutral`: no cell of a CSV is a formula to a spreadsheet.
    `wording`: a CSV or XLSX is for people, with its columns, words and times in `zone`; up to LISTED_ROWS are in the
    order of the list. `bounded`: there may be no more rows than these. `gives_way` returns whether to rest between
    pieces, for twice as long as each took, so that urgent work gets the processor. `tell` receives the numbers of rows.

    Before the first piece, raises TooManyRows, and MissingExtra if the format's library is not installed; after it,
    TooManyRows once an XLSX grows over 2 GiB.
    """
    require_library(form)
    make = partial(EXPORTS[name], settled(connection, wanted), clock, connection.dialect, in_full=in_full)
    export = _listed(connection, make, bounded=bounded) if wording or bounded else make()
    if wording:
        export = wording.columns_of(export)
    if form is FileFormat.XLSX:
        require_fit(connection, export)
    if form is FileFormat.NDJSON:
        yield from _paced(iter_ndjson(connection, export, tell=tell), gives_way)
        return
    rows = _paced(iter_csv(connection, export, neutral=neutral and form is FileFormat.CSV, tell=tell), gives_way)
    if wording:
        yield from _iter_in_words(export.fields, read_cells(rows), form, wording, zone)
        return
    match form:
        case FileFormat.CSV:
            yield (_BOM if bom else b"") + csv_line(field.name for field in export.fields).encode()
            yield from rows
        case FileFormat.PARQUET:
            yield from _parquet(export.fields, rows)
        case FileFormat.XLSX:
            yield from iter_sheet(export.fields, read_cells(rows), zone)


def _listed(connection: sa.Connection, make: Callable[..., Export], *, bounded: bool) -> Export:
    """Return an export in the order of its list if it is short; of a longer one nothing is sorted.

    Raises TooManyRows if it is `bounded`.
    """
    lift_statement_timeout(connection)
    export = make(listed=True)
    if count_rows(connection, export, most=LISTED_ROWS + 1) <= LISTED_ROWS:
        return export
    if bounded:
        raise TooManyRows(f"over {LISTED_ROWS:,} rows; narrow it")
    return make()


def iter_opt_out_file(
    connection: sa.Connection, form: FileFormat, wanted: Filter, *, wording: Wording, zone: ZoneInfo
) -> Iterator[bytes]:
    """Yield the list of opt-outs as the pieces of a file for people, with full numbers, in the order of the list.

    Raises TooManyRows as the rows are read.
    """
    lift_statement_timeout(connection)
    by_name = {field.name: field for field in fields_of(OptOutRow)}
    fields = tuple(by_name[name] for name in wording.headings)
    rows = map(as_json, iter_opt_outs(connection, wanted))
    cells = ([_text(row[field.name], form, field) for field in fields] for row in rows)
    yield from _iter_in_words(fields, cells, form, wording, zone)


def _text(value: Any, form: FileFormat, field: Field) -> str:
    text = "" if value is None else str(value)
    return neutral_text(text) if form is FileFormat.CSV and field.written_by_people else text


def _iter_in_words(
    fields: tuple[Field, ...], cells: Iterable[Sequence[str]], form: FileFormat, wording: Wording, zone: ZoneInfo
) -> Iterator[bytes]:
    """Yield rows as a file for people: a CSV as Excel reads it, or an XLSX."""
    titled = wording.titled(fields)
    if form is FileFormat.XLSX:
        rows = wording.iter_cells(fields, cells, zone=None)
        yield from iter_sheet(titled, rows, zone, widths=wording.widths(fields))
        return
    yield _BOM + csv_line(field.name for field in titled).encode()
    lines = map(csv_line, wording.iter_cells(fields, cells, zone=zone))
    while piece := "".join(islice(lines, _ROWS_A_PIECE)):
        yield piece.encode()


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
    import pyarrow as pa  # noqa: PLC0415  (an extra, and a quarter of a second to load)
    import pyarrow.csv  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {
        FieldType.TEXT: pa.string(),
        FieldType.WORD: pa.string(),
        FieldType.PLATFORM_TIME: pa.timestamp("ms", tz="UTC"),
        FieldType.OUR_TIME: pa.timestamp("ms", tz="UTC"),
        FieldType.NUMBER: pa.float64(),
        FieldType.ID: pa.int64(),  # as in the database: tools join by it
        FieldType.UUID: pa.string(),
        FieldType.TEXTS: pa.string(),
        FieldType.COUNT: pa.int64(),
        FieldType.BOOLEAN: pa.bool_(),
    }
    schema = pa.schema([pa.field(field.name, types[field.type]) for field in fields])
    source = PieceReader(rows)
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
    sink = PieceWriter()
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
