"""Rows as an XLSX workbook, written as they are read: the first bytes leave at once, and nothing is kept on disk.

A library makes what stands around the rows. The cells are written here: the library would hold the sheet back until it
is whole, and takes a text between `<r>` and `</r>` for markup of its own.
"""

from __future__ import annotations

import io
import re
import zipfile
from datetime import MAXYEAR, datetime
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from receiver.core import TooManyRows, in_zone
from receiver.db.engine import lift_statement_timeout
from receiver.messages.export_pieces import PieceWriter
from receiver.messages.export_rows import count_rows
from receiver.messages.fields import TIMES, Field, FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    import sqlalchemy as sa

    from receiver.messages.export_columns import Export

SHEET_ROWS = 1_048_575  # that a sheet holds below the names
_SHEET = "xl/worksheets/sheet1.xml"
_SHEET_MAX_BYTES = zipfile.ZIP64_LIMIT  # a larger part needs an extension that Excel takes for damage
_ROWS_END = b"</sheetData>"
_PIECE_BYTES = 64 * 1024
_LEVEL = 3  # of compression
_WIDTH = 20  # of a column, in characters
_DIMENSION = re.compile(rb"<dimension [^>]*>")
_TIME_STYLE = re.compile(rb'<col [^>]*style="([0-9]+)"')  # only columns of times have one
_CELL_CHARS = 32_767
_CUT = " … [cut; whole in the other formats]"
_NOT_XML = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_LIKE_CONTROL = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")  # what stands for a control character
_FIRST_YEAR = 1900
_DAY_ZERO = datetime(1899, 12, 30)  # noqa: DTZ001  (a sheet's times have no zone)
_DAY_SECONDS = 86_400


def require_fit(connection: sa.Connection, export: Export) -> None:
    """Raise TooManyRows if there are more rows than a sheet holds, as far as the database can count them."""
    lift_statement_timeout(connection)
    if export.keeps is None and count_rows(connection, export, most=SHEET_ROWS + 1) > SHEET_ROWS:
        raise _too_many()


def _too_many() -> TooManyRows:
    return TooManyRows(
        f"over {SHEET_ROWS:,} rows, which is all that an XLSX can hold; narrow it, or use csv, ndjson or parquet"
    )


def iter_sheet(
    fields: tuple[Field, ...], rows: Iterable[Sequence[str]], zone: ZoneInfo, *, widths: Sequence[int] | None = None
) -> Iterator[bytes]:
    """Yield the pieces of a workbook of one sheet; `rows`: the cells of each as text; `widths`: of the columns.

    Ids are text, which Excel would round; times in `zone`. Raises TooManyRows.
    """
    output = PieceWriter()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        with zipfile.ZipFile(_frame(fields, zone, widths or [_WIDTH] * len(fields))) as frame:
            for name in frame.namelist():
                if name != _SHEET:
                    archive.writestr(name, frame.read(name))
            begin, _, end = frame.read(_SHEET).partition(_ROWS_END)
        yield output.take()
        with archive.open(_SHEET, "w") as sheet:
            size = sheet.write(_DIMENSION.sub(b"", begin))  # which is optional, and not known yet
            for line in _lines(fields, rows, zone, _time_style(begin)):
                size += sheet.write(line.encode())
                if size + len(end) > _SHEET_MAX_BYTES:
                    raise TooManyRows("over 2 GiB, which is all that an XLSX can hold; narrow it, or use csv")
                if output.held >= _PIECE_BYTES:
                    yield output.take()
            sheet.write(_ROWS_END + end)
    yield output.take()


def _time_style(sheet: bytes) -> int:
    """Return the number that the library has given the style of times."""
    match = _TIME_STYLE.search(sheet)
    return int(match[1]) if match else 0


def _frame(fields: tuple[Field, ...], zone: ZoneInfo, widths: Sequence[int]) -> io.BytesIO:
    """Return a workbook with the names of the columns alone; those of times have a note, which says their zone."""
    # Half a megabyte of code, which a server needs for its first workbook.
    import xlsxwriter  # noqa: PLC0415

    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True})
    bold, time_form = book.add_format({"bold": True}), book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    for place, (field, width) in enumerate(zip(fields, widths, strict=True)):
        is_time = field.type in TIMES
        sheet.set_column(place, place, width, time_form if is_time else None)
        sheet.write_string(0, place, field.name, bold)
        if is_time:
            sheet.write_comment(0, place, zone.key)
    book.close()
    return file


def _lines(fields: tuple[Field, ...], rows: Iterable[Sequence[str]], zone: ZoneInfo, time_style: int) -> Iterator[str]:
    """Yield each row as the sheet's XML; an empty cell is left out."""

    from xlsxwriter.utility import xl_col_to_name  # noqa: PLC0415  (as in `_frame`)

    def write_time(text: str) -> str:
        serial = _serial_time(text, zone)
        return _write_text(text) if serial is None else f' s="{time_style}"><v>{serial}</v>'

    writers = {**_WRITERS, **dict.fromkeys(TIMES, write_time)}
    columns = [(xl_col_to_name(place), writers.get(field.type, _write_text)) for place, field in enumerate(fields)]
    for number, cells in enumerate(rows, start=2):
        if number > SHEET_ROWS + 1:
            raise _too_many()
        written = (
            f'<c r="{column}{number}"{write(cell)}</c>'
            for (column, write), cell in zip(columns, cells, strict=True)
            if cell != ""
        )
        yield f'<row r="{number}">{"".join(written)}</row>'


def _write_text(text: str) -> str:
    text = text.translate(_NOT_XML)
    if len(text) > _CELL_CHARS:
        text = text[: _CELL_CHARS - len(_CUT)] + _CUT
    text = _LIKE_CONTROL.sub("_x005F_", text)
    text = _CONTROL.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
    preserve = "" if text == text.strip() else ' xml:space="preserve"'
    return f' t="inlineStr"><is><t{preserve}>{escape(text)}</t></is>'


def _write_number(text: str) -> str:
    return f"><v>{text}</v>"


def _write_boolean(text: str) -> str:
    return f' t="b"><v>{int(text == "true")}</v>'


_WRITERS: Mapping[FieldType, Callable[[str], str]] = {
    FieldType.NUMBER: _write_number,
    FieldType.COUNT: _write_number,
    FieldType.BOOLEAN: _write_boolean,
}


def _serial_time(text: str, zone: ZoneInfo) -> float | None:
    """Return a time as a sheet stores it, in days; None: it is outside the sheet's calendar."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # a damaged row ends no file
        return None
    if moment.year <= _FIRST_YEAR or moment.year >= MAXYEAR:
        return None
    return (in_zone(moment, zone).replace(tzinfo=None) - _DAY_ZERO).total_seconds() / _DAY_SECONDS
