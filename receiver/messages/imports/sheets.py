"""Reads the first sheet of an XLSX file, row by row.

A workbook is a ZIP file of XML: its unpacked size is checked before anything is read.
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.escape import unescape
from openpyxl.utils.exceptions import InvalidFileException

from receiver.core import ReceiverError
from receiver.messages.imports.rows import Cell, Row, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator


_SHEET_ROWS = 1_048_576  # that Excel knows
_MIB = 1024 * 1024
_SHEET_MAX_BYTES = 1024 * _MIB  # read as a stream
_STRINGS_MAX_BYTES = 128 * _MIB  # held in memory, as are all other parts
_PART_MAX_BYTES = 16 * _MIB
_RATIO_MAX = 200  # a full sheet packs to a thirtieth; a thousandth is an attack on memory
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml", re.IGNORECASE)
_STRINGS = "xl/sharedstrings.xml"
_BOOK = "xl/workbook.xml"
_STRICT = b"http://purl.oclc.org/ooxml/"  # names that the library does not know
_NUMBER_DIGITS = 15  # precision of a sheet's number
# Whatever a damaged or foreign file makes the library raise.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, ParseError, InvalidFileException, EOFError, OSError, RuntimeError,
    ArithmeticError, AssertionError, AttributeError, LookupError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


def read_sheet(file: BinaryIO) -> Rows:
    """Return the rows of the first sheet. Raises ReceiverError for an invalid XLSX, here or while they are read."""
    with _own_errors():
        _require_small(file)
        file.seek(0)
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        sheet, *others = [page for page in book.worksheets if page.sheet_state == "visible"]
        sheet.reset_dimensions()  # which some programs write wrong
    notes = (f"only the first sheet is read: {sheet.title}",) if others else ()
    return Rows(
        rows=_rows(sheet),
        table=True,
        notes=notes,
        serial_time=lambda number: from_excel(number, book.epoch),
    )


def _require_small(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            name = part.filename.lower()
            if not name.endswith((".xml", ".rels")):
                continue  # pictures and the like are not read
            most = _PART_MAX_BYTES
            if _SHEET.fullmatch(name):
                most = _SHEET_MAX_BYTES
            elif name == _STRINGS:
                most = _STRINGS_MAX_BYTES
            packed_well = part.file_size > _MIB and part.file_size > part.compress_size * _RATIO_MAX
            if part.file_size > most or packed_well:
                raise ReceiverError("this XLSX unpacks to more than can be read; save it as CSV (UTF-8)")
            if name == _BOOK and _STRICT in archive.read(part):
                raise ReceiverError(
                    "this XLSX is a Strict Open XML Spreadsheet; save it as Excel Workbook (.xlsx), or as CSV (UTF-8)"
                )


def _rows(sheet: Any) -> Iterator[Row]:
    with _own_errors():
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if number > _SHEET_ROWS:
                raise ReceiverError(f"row {number}: more than a sheet can have")
            if any(cell not in (None, "") for cell in cells):
                yield Row(f"row {number}", [_cell(cell) for cell in cells])


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return str(unescape(cell))
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 10**_NUMBER_DIGITS:
        return int(cell)
    if isinstance(cell, int) and abs(cell) >= 10**_NUMBER_DIGITS:
        return float(cell)  # its further digits are made up
    return cell


@contextmanager
def _own_errors() -> Iterator[None]:
    """Convert the library's errors into one line, and suppress its warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="openpyxl")
        try:
            yield
        except _DAMAGED as error:
            raise ReceiverError(f"the XLSX file is damaged or of another kind ({type(error).__name__})") from None
