"""Files of sends, from bytes to rows: format, encoding and separator. Memory is bounded.

File names are ignored: files are renamed, and standard input has none. The first bytes decide.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import shutil
import tempfile
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from receiver.core import ReceiverError, bare
from receiver.messages.imports.rows import UNDECODED, Row, Rows
from receiver.messages.imports.sheets import read_sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_HEAD_BYTES = 4096
_LINE_MAX_CHARS = 1024 * 1024
_PIECE_CHARS = 64 * 1024
_IN_MEMORY_BYTES = 8 * 1024 * 1024  # of standard input; a longer one goes to a temporary file


class Form(StrEnum):
    """How a file is written."""

    CSV = "csv"
    TSV = "tsv"  # as `mysql -B` writes it
    NDJSON = "ndjson"
    JSON = "json"
    XLSX = "xlsx"


# First bytes of files that are met where a table was meant: what to do instead.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an old or a locked Excel file; save it as XLSX without a password, or as CSV"),
    (b"\x1f\x8b", "compressed; unpack it first: gunzip -c FILE | receiver messages import -"),
    (b"PAR1", "Parquet; write it as NDJSON or CSV"),
    (b"%PDF", "a PDF; a table is needed, as CSV or XLSX"),
)
_ZIP = b"PK\x03\x04"
_EMPTY = "the file is empty: the first line names the columns, or is a JSON object"


def rewindable(file: BinaryIO) -> BinaryIO:
    """Return the file itself, or a copy if it can be read only once, such as standard input."""
    if file.seekable():
        return file
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115  (lives as long as the import)
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return cast("BinaryIO", copy)


def open_rows(file: BinaryIO, form: Form | None, *, known: Callable[[str], bool]) -> Rows:
    """Return the rows of a file that can be rewound. `form` None: detected from the content.

    `known` returns whether a text is the name of a used column; it helps to detect the separator. Raises ReceiverError
    for an invalid file, here or while the rows are read.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if form is Form.XLSX or (form is None and head.startswith(_ZIP)):
        return read_sheet(file)
    for magic, remedy in _OTHERS:
        if head.startswith(magic):
            raise ReceiverError(f"this file is {remedy}")
    encoding = _encoding(file, head)
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=encoding, errors="receiver.undecoded", newline="")
    notes = (f"read as {encoding.upper()}",) if encoding in (_CHINESE, *_UTF16) else ()
    lines = _Lines(text)
    begin = head.decode(encoding, errors="ignore").strip(_BLANK)
    if not begin and len(head) < _HEAD_BYTES:
        raise ReceiverError(_EMPTY)
    if form is None and begin.startswith("<"):
        raise ReceiverError("this file is a web page or XML, whatever its name says; save it as XLSX or CSV")
    form = form or _json_form(begin)
    if form is Form.JSON:
        return Rows(rows=_json_items(text), table=False, notes=notes)
    if form is Form.NDJSON:
        return Rows(rows=_json_lines(lines), table=False, notes=notes)
    lines.skip_blank()
    separator = lines.take_separator() or max(_SEPARATORS, key=_fit(lines.peek(_PEEKED_LINES), known))
    if form is Form.TSV or (form is None and separator == "\t" and encoding in ("utf-8", _CHINESE)):
        return Rows(rows=_batch_lines(lines), table=True, notes=notes)
    return Rows(rows=_csv_rows(lines, separator), table=True, notes=notes, unescape=bare)


# --- Encoding -------------------------------------------------------------------------------------------

_CHINESE = "gb18030"  # and so GBK and GB2312, which are part of it
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF16 = ("utf-16", "utf-16-le", "utf-16-be")
_ZEROS_OF_UTF16 = 16  # one of so many bytes at least
_THREE_BYTES = "\u0800"  # the first character that UTF-8 writes with so many


def _mark_undecoded(error: UnicodeError) -> tuple[str, int]:
    # Its line is refused, the others are read.
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return UNDECODED, error.end


codecs.register_error("receiver.undecoded", _mark_undecoded)


def _encoding(file: BinaryIO, head: bytes) -> str:
    """Return the encoding of the whole file, since a single line may be valid in two."""
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    zeros = head.count(0)
    if zeros * _ZEROS_OF_UTF16 > len(head):  # beside each plain character one, such as separators and digits
        return "utf-16-be" if head[::2].count(0) * 2 > zeros else "utf-16-le"
    valid = invalid = 0
    while line := file.readline(_LINE_MAX_CHARS):
        if line.isascii():
            continue
        try:
            # Of two bytes each may be Chinese in GBK by chance; in UTF-8 Chinese takes three.
            valid += max(line.decode()) >= _THREE_BYTES
        except UnicodeDecodeError:
            invalid += 1
    return _CHINESE if invalid > valid else "utf-8"


# --- Lines ----------------------------------------------------------------------------------------------

_SEPARATORS = "\t,;|"
_PEEKED_LINES = 20  # a title or two, and the heading
_BLANK = ' \t\r\n\ufeff"' + _SEPARATORS
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?[\s,;|]*', re.IGNORECASE)


class _Lines:
    """The lines of a text, each with its end, counted."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self._text = text
        self._returned: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else self._text.readline(_LINE_MAX_CHARS + 1)
        if not line:
            raise StopIteration
        if len(line) > _LINE_MAX_CHARS:
            raise ReceiverError(f"line {self.number + 1}: over {_LINE_MAX_CHARS:,} characters; is it a table at all?")
        self.number += 1
        return line

    def skip_blank(self) -> None:
        """Advance to the first line that is not blank. Raises ReceiverError if there is none."""
        for line in self:
            if line.strip(_BLANK):
                self._give_back(line)
                return
        raise ReceiverError(_EMPTY)

    def peek(self, count: int) -> list[str]:
        """Return the next lines without consuming them."""
        lines = list(islice(self, count))
        for line in reversed(lines):
            self._give_back(line)
        return lines

    def take_separator(self) -> str | None:
        """Consume the line by which Excel names the separator, if it is next."""
        line = next(self)
        match = _SEPARATOR_LINE.fullmatch(line)
        if match is None:
            self._give_back(line)
        return match[1] if match else None

    def _give_back(self, line: str) -> None:
        self._returned.append(line)
        self.number -= 1


def _fit(lines: Sequence[str], known: Callable[[str], bool]) -> Callable[[str], tuple[int, int]]:
    """Return what says how well a separator fits: by the names it parts in the first line that it parts."""

    def fit(separator: str) -> tuple[int, int]:
        rows = (next(_reader([line[:_HEAD_BYTES]], separator)) for line in lines)
        names = next((names for names in rows if sum(map(bool, names)) > 1), [])
        return sum(map(known, names)), len(names)

    return fit


def _reader(lines: Iterable[str], separator: str, *, strict: bool = False) -> Iterator[list[str]]:
    # Quotation marks also count after a blank at the start of a cell.
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=strict)


def _csv_rows(lines: _Lines, separator: str) -> Iterator[Row]:
    reader = _reader(lines, separator, strict=True)
    while True:
        begin = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            range_ = f", up to line {lines.number}" if lines.number > begin else ""
            yield Row(f"line {begin}", f"not CSV ({error}{range_})")
            continue
        if any(cell.strip() for cell in cells):
            yield Row(f"line {begin}", cells)


_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\0": "\0", "\\\\": "\\"}


def _batch_lines(lines: _Lines) -> Iterator[Row]:
    """Yield cells of lines that `mysql -B` wrote: NULL as a word, tabs and newlines escaped."""
    for line in lines:
        if line.strip():
            yield Row(f"line {lines.number}", [_unescaped(cell) for cell in line.rstrip("\r\n").split("\t")])


def _unescaped(cell: str) -> str | None:
    if cell in ("NULL", "\\N"):
        return None
    return re.sub(r"\\[tn0\\]", lambda match: _ESCAPES[match[0]], cell) if "\\" in cell else cell


# --- JSON -----------------------------------------------------------------------------------------------

_NOT_OBJECT = "not an object"
_NOT_JSON = "not JSON"
_JSON_SPACE = " \t\r\n\ufeff"
_LISTS = ("items", "data")  # under which an API's answer has its records


def _json_form(begin: str) -> Form | None:
    if begin[:1] == "[" and begin[1:].lstrip()[:1] in ("{", "]", ""):
        return Form.JSON
    if begin[:1] != "{":
        return None
    line, ended, _ = begin.partition("\n")
    return Form.JSON if ended and not line.rstrip().endswith("}") else Form.NDJSON  # an object over several lines


def _json_lines(lines: _Lines) -> Iterator[Row]:
    for line in lines:
        if line.strip():
            try:
                yield from _objects(f"line {lines.number}", json.loads(line))
            except (ValueError, RecursionError):
                yield Row(f"line {lines.number}", _NOT_JSON)


def _objects(place: str, value: Any) -> Iterator[Row]:
    """Return the record, or the records of an answer that lists them."""
    if not isinstance(value, dict):
        yield Row(place, _NOT_OBJECT)
        return
    listed = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
    if listed is None:
        yield Row(place, value)
        return
    for number, item in enumerate(listed, 1):
        yield Row(f"{place}, item {number}", item if isinstance(item, dict) else _NOT_OBJECT)


def _json_items(text: io.TextIOWrapper) -> Iterator[Row]:
    """Read the items of an array one by one, or objects one after the other."""
    buffer = _Buffer(text)
    opened = buffer.take("[")
    number = 0
    while not buffer.at_end():
        if opened and buffer.take("]"):
            if not buffer.at_end():
                yield Row(f"after item {number}", "something follows the array")
            return
        number += 1
        found, value = buffer.take_value()
        if not found:
            yield Row(f"item {number}", f"{_NOT_JSON}; nothing from there on was read")
            return
        yield from _objects(f"item {number}", value)
        buffer.take(",")
    if opened:
        yield Row(f"after item {number}", "the array is not closed: the file breaks off")


class _Buffer:
    """A text from which JSON values are taken; holds little more than one of them."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._held = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def at_end(self) -> bool:
        """Skip white space; return whether the end was reached."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _JSON_SPACE:
                self._at += 1
            if self._at < len(self._held) or not self._more():
                return self._at >= len(self._held)

    def take(self, sign: str) -> bool:
        """Consume a character if it is next; return whether it was."""
        taken = not self.at_end() and self._held[self._at] == sign
        self._at += taken
        return taken

    def take_value(self) -> tuple[bool, Any]:
        """Consume one value; return whether there is one, and the value."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except RecursionError:
                return False, None
            except ValueError:
                if len(self._held) - self._at > _LINE_MAX_CHARS or not self._more():
                    return False, None
                continue
            self._at = end
            return True, value

    def _more(self) -> bool:
        piece = self._text.read(_PIECE_CHARS)
        self._held, self._at = self._held[self._at :] + piece, 0
        return bool(piece)
