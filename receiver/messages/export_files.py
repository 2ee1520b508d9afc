"""Rows as files: CSV and XLSX for people, NDJSON for programs, Parquet for data frames; at constant memory."""

from __future__ import annotations

import os
import time
import zlib
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from receiver.core import MissingExtra
from receiver.messages.export_columns import (
    Export,
    export_messages,
    export_receipts,
    export_replies,
)
from receiver.messages.export_pieces import PieceReader, PieceWriter
from receiver.messages.export_rows import iter_csv, iter_ndjson
from receiver.messages.export_sheets import iter_sheet, require_fit
from receiver.messages.fields import FieldType
from receiver.messages.stamps import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from zoneinfo import ZoneInfo

    import sqlalchemy as sa

    from receiver.messages.fields import Field
    from receiver.messages.queries import Clock, Filter

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
    gives_way: Callable[[], bool] = lambda: False,
    tell: Callable[[int], None] = lambda _rows: None,
) -> Iterator[bytes]:
    """Yield a list as the pieces of a file, oldest row first; on PostgreSQL as of one moment.

    `in_full`: numbers are not masked. `zone`: of the times in an XLSX; elsewhere they are UTC. `bom`: a CSV begins with
    a byte order mark, by which Excel recognizes UTF-8. `neutral`: no cell of a CSV is a formula to a spreadsheet.
    `gives_way` returns whether to rest between pieces, for twice as long as each took, so that urgent work gets the
    processor. `tell` receives the numbers of rows.

    Before the first piece, raises TooManyRows, and MissingExtra if the format's library is not installed; after it,
    TooManyRows once an XLSX grows over 2 GiB.
    """
    require_library(form)
    export = EXPORTS[name](settled(connection, wanted), clock, connection.dialect, in_full=in_full)
    if form is FileFormat.XLSX:
        require_fit(connection, export)
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
            yield from iter_sheet(export.fields, rows, zone)


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
