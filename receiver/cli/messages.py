"""`messages import`: sends of the past, or in bulk."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from receiver.cli.common import as_json, open_runtime, print_json
from receiver.errors import ReceiverError
from receiver.formulas import bare
from receiver.records import FIELDS, InvalidSend, SendReader
from receiver.store import write
from receiver.store.write import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from receiver.domain import SentMessage
    from receiver.runtime import Runtime

_BATCH_ROWS = 1000  # small enough that pushes committing beside it hardly wait
_NICENESS = 10  # on a machine that serves as well, pushes go first
_REJECTS_SHOWN = 20

# Column names as they are met, without case, spaces, `_` and `-`: our name.
_KNOWN_COLUMNS: Mapping[str, str] = {
    **{field.replace("_", ""): field for field in FIELDS},
    "phone": "mobile",
    "phonenumber": "mobile",
    "mobilephone": "mobile",
    "tel": "mobile",
    "手机号": "mobile",
    "手机号码": "mobile",
    "batchid": "task_id",
    "批次id": "task_id",
    "tplid": "template_id",
    "模板id": "template_id",
    "ref": "reference",
    "sendtime": "sent_at",
    "sendat": "sent_at",
    "senttime": "sent_at",
    "createdat": "sent_at",
    "createtime": "sent_at",
    "successcount": "success_counts",
}


@click.group()
def messages() -> None:
    """Record sends."""


@messages.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="surrogateescape"))
@click.option("--format", "form", type=click.Choice(["csv", "tsv", "ndjson"]), help="Told by the first line otherwise.")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="COLUMN=FIELD",
    help="A column under another name; may be repeated.",
)
@click.option("--account", help="The account of rows that name none.")
@click.option(
    "--rejects", type=click.File("w", encoding="utf-8"), help="Write every rejected line's number and reason."
)
@as_json
def import_(
    file: TextIO,
    form: str | None,
    mapping: tuple[str, ...],
    account: str | None,
    rejects: TextIO | None,
    as_json: bool,
) -> None:
    """Record the sends of a FILE, or of standard input (-): CSV, TSV or NDJSON, columns by name.

    Needs a task id and a number; knows taskId, phone, templateId, sendTime and the like. Can be repeated: what is
    recorded already is no change. Ends with exit code 1 if a line was rejected; the others are recorded.

    \b
    Examples:
      receiver messages import sends.csv
      mysql -B -e 'SELECT taskId, phone, sendTime FROM sms' shop | receiver messages import -
    """
    os.nice(_NICENESS)
    with open_runtime() as runtime:
        settings = runtime.settings
        if account is not None and account not in settings.accounts:
            raise ReceiverError(f"--account: {account}: no such account is configured")
        reader = SendReader(zone=settings.timezone, accounts=frozenset({account}) if account else settings.accounts)
        lines = _records(file, form, dict(_pair(text) for text in mapping))
        tally = _Tally(rejects)
        with _progress(file) as advance:
            while batch := list(islice(lines, _BATCH_ROWS)):
                _record(runtime, reader, batch, tally)
                advance(len(batch))
    tally.tell(as_json=as_json)
    if tally.counts["rejected"]:
        sys.exit(1)


class _Tally:
    """What became of the lines."""

    def __init__(self, rejects: TextIO | None) -> None:
        self.counts: Counter[str] = Counter()
        self._rejects = rejects

    def reject(self, number: int, reason: str) -> None:
        self.counts["rejected"] += 1
        if self._rejects is not None:
            self._rejects.write(f"line {number}: {reason}\n")
        elif self.counts["rejected"] <= _REJECTS_SHOWN:
            print(f"line {number}: {reason}", file=sys.stderr)

    def tell(self, *, as_json: bool) -> None:
        outcome = {
            name: self.counts[name] for name in (*(o.value for o in Recorded if o is not Recorded.CONFLICT), "rejected")
        }
        if as_json:
            print_json(outcome)
            return
        if self._rejects is None and outcome["rejected"] > _REJECTS_SHOWN:
            more = outcome["rejected"] - _REJECTS_SHOWN
            print(f"and {more} more rejected lines; --rejects FILE keeps them all", file=sys.stderr)
        print(", ".join(f"{count} {name}" for name, count in outcome.items()))


def _record(runtime: Runtime, reader: SendReader, batch: list[tuple[int, Any]], tally: _Tally) -> None:
    numbers: list[int] = []
    sends: list[SentMessage] = []
    for number, item in batch:
        try:
            if not isinstance(item, dict):
                raise InvalidSend({"line": str(item)})
            sends.append(reader.read(item))
            numbers.append(number)
        except InvalidSend as error:
            tally.reject(number, str(error))
    if not sends:
        return
    results = runtime.database.write(lambda connection: write.record_sent(connection, sends, recorded_at=runtime.now()))
    for number, result in zip(numbers, results, strict=True):
        if result.outcome is Recorded.CONFLICT:
            tally.reject(number, "; ".join(f"{name}: differs from what is recorded" for name in result.differing))
        else:
            tally.counts[result.outcome] += 1


# --- Lines to records -----------------------------------------------------------------------------------


def _records(file: TextIO, form: str | None, mapping: Mapping[str, str]) -> Iterator[tuple[int, Any]]:
    """Give (line number, record) for each line; a record that cannot be read is a text that says why."""
    first = file.readline()
    if not first.strip():
        raise ReceiverError("the file is empty: the first line names the columns, or is a JSON object")
    form = form or _form_of(first)
    lines = _chain(first, file)
    if form == "ndjson":
        yield from _ndjson(lines, mapping)
    elif form == "tsv":
        yield from _tsv(lines, mapping)
    else:
        yield from _csv(lines, mapping)


def _form_of(first: str) -> str:
    if first.lstrip().startswith("{"):
        return "ndjson"
    return "tsv" if "\t" in first else "csv"


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _ndjson(lines: Iterable[str], mapping: Mapping[str, str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError:
            yield number, "not JSON"
            continue
        if not isinstance(item, dict):
            yield number, "not an object"
            continue
        yield number, {_field(name, mapping) or name: value for name, value in item.items()}


def _csv(lines: Iterator[str], mapping: Mapping[str, str]) -> Iterator[tuple[int, Any]]:
    reader = csv.reader(lines, strict=True)
    columns = _columns(next(reader), mapping)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"not CSV ({error})"
            continue
        if cells:
            yield reader.line_num, _row(columns, [bare(cell) for cell in cells])


def _tsv(lines: Iterator[str], mapping: Mapping[str, str]) -> Iterator[tuple[int, Any]]:
    columns = _columns(next(lines).rstrip("\r\n").split("\t"), mapping)
    for number, line in enumerate(lines, 2):
        if line.strip("\r\n"):
            # As `mysql -B` writes it: NULL as a word, tabs and newlines escaped.
            cells = [_unescaped(cell) for cell in line.rstrip("\r\n").split("\t")]
            yield number, _row(columns, cells)


_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\0": "\0", "\\\\": "\\"}


def _unescaped(cell: str) -> str:
    if cell == "NULL":
        return ""
    return re.sub(r"\\[tn0\\]", lambda match: _ESCAPES[match[0]], cell) if "\\" in cell else cell


def _row(columns: list[str | None], cells: list[str]) -> Any:
    if len(cells) != len(columns):
        return f"{len(cells)} columns where the first line names {len(columns)}"
    return {name: cell for name, cell in zip(columns, cells, strict=True) if name is not None}


def _columns(names: list[str], mapping: Mapping[str, str]) -> list[str | None]:
    columns = [_field(name, mapping) for name in names]
    for field in ("mobile", "task_id"):
        if field not in columns and not (field == "task_id" and "return_status" in columns):
            raise ReceiverError(
                f"no column is {field}; the first line must name the columns, or use --map COLUMN={field}"
            )
    doubled = [name for name, count in Counter(column for column in columns if column).items() if count > 1]
    if doubled:
        raise ReceiverError(f"two columns are {', '.join(doubled)}; choose with --map COLUMN=FIELD")
    unused = [name for name, column in zip(names, columns, strict=True) if column is None]
    if unused:
        print(f"columns not used: {', '.join(unused)}", file=sys.stderr)
    return columns


def _field(name: str, mapping: Mapping[str, str]) -> str | None:
    if mapping and name.strip() in mapping:
        return mapping[name.strip()]
    field = _KNOWN_COLUMNS.get(re.sub(r"[\s_-]", "", name).lower())
    # A mapped field is that column's alone.
    return None if field in mapping.values() else field


def _pair(text: str) -> tuple[str, str]:
    column, equals, field = text.partition("=")
    if not equals or field not in FIELDS:
        raise ReceiverError(f"--map: {text}: not COLUMN=FIELD with a field of {', '.join(sorted(FIELDS))}")
    return column.strip(), field


# --- Progress -------------------------------------------------------------------------------------------


@contextmanager
def _progress(file: TextIO) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _count: None
        return
    size = _size(file)
    columns = (BarColumn(), DownloadColumn()) if size else (MofNCompleteColumn(),)
    with Progress("{task.description}", *columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("recording", total=size)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            completed = file.buffer.tell() if size else done
            progress.update(task, completed=completed, description=f"{done:,} lines")

        yield advance


def _size(file: TextIO) -> int | None:
    if not file.seekable():
        return None
    position = file.buffer.tell()
    size: int = file.buffer.seek(0, 2)
    file.buffer.seek(position)
    return size
