"""`messages import`: record past sends, or many at once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from receiver.cli.common import as_json, known_accounts, open_runtime, print_json
from receiver.cli.groups import CommandGroup
from receiver.core import ReceiverError, SentMessage, has_odd_length
from receiver.messages import recording
from receiver.messages.imports.columns import RecordReader, is_known
from receiver.messages.imports.files import Form, open_rows, rewindable
from receiver.messages.recording import Recorded
from receiver.messages.send_records import FIELDS, InvalidSendRecord, SendRecordParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

_BATCH_ROWS = 1000  # small, so that concurrent pushes hardly wait
_NICENESS = 10  # a server on this machine goes first
_REJECTS_SHOWN = 20


@click.group(cls=CommandGroup)
def messages() -> None:
    """Record sends."""


@messages.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Form]),
    help="Default: by the content. tsv: as `mysql -B` writes it.",
)
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="COLUMN=FIELD",
    help="Name the field of a column; may be repeated.",
)
@click.option("--account", help="The account of rows that name none.")
@click.option(
    "--rejects", type=click.File("w", encoding="utf-8"), help="Write every rejected line's number and reason."
)
@as_json
def import_(
    file: BinaryIO,
    form: str | None,
    mapping: tuple[str, ...],
    account: str | None,
    rejects: TextIO | None,
    as_json: bool,
) -> None:
    """Record the sends of a FILE, or of standard input (-): CSV, XLSX (its first sheet), NDJSON, a JSON array, TSV.

    Finds columns by name: taskId, phone, 手机号, 任务ID, 发送时间 and the like; task id and number are required. Text
    in UTF-8, UTF-16 or GB18030 (GBK). Safe to repeat: recorded sends do not change. Exit code 1 if a line was
    rejected; the others are recorded.

    \b
    Examples:
      receiver messages import sends.csv
      mysql -B -e 'SELECT taskId, phone, sendTime FROM sms' shop | receiver messages import -
    """
    os.nice(_NICENESS)
    with open_runtime() as runtime:
        settings = runtime.settings
        if account is not None:
            known_accounts(runtime, [account])
        sends = SendRecordParser(
            zone=settings.timezone, accounts=frozenset({account}) if account else settings.accounts
        )
        records = RecordReader(
            dict(_pair(text) for text in mapping), zone=settings.timezone, time_formats=settings.time_formats
        )
        source = rewindable(file)
        rows = open_rows(source, Form(form) if form else None, known=is_known)
        for note in rows.notes:
            print(note, file=sys.stderr)
        lines = records.read(rows)
        tally = _Tally(rejects, records)
        try:
            with _progress(source) as advance:
                while batch := list(islice(lines, _BATCH_ROWS)):
                    _record(runtime, sends, batch, tally)
                    advance(len(batch))
        except ReceiverError:
            if tally.counts:
                tally.print_summary(as_json=as_json)  # of the batches recorded so far
            raise
    tally.print_summary(as_json=as_json)
    if tally.counts["rejected"]:
        sys.exit(1)


class _Tally:
    """Counts the outcomes of the lines."""

    def __init__(self, rejects: TextIO | None, records: RecordReader) -> None:
        self.counts: Counter[str] = Counter()
        self._odd = 0
        self._first_odd = ""
        self._rejects = rejects
        self._records = records

    def reject(self, place: str, reason: str) -> None:
        self.counts["rejected"] += 1
        if self._rejects is not None:
            self._rejects.write(f"{place}: {reason}\n")
        elif self.counts["rejected"] <= _REJECTS_SHOWN:
            print(f"{place}: {reason}", file=sys.stderr)

    def count_odd(self, place: str, number: str) -> None:
        """Count a number of an unusual length. It is recorded: it may be a foreign one."""
        if has_odd_length(number):
            self._odd += 1
            self._first_odd = self._first_odd or place

    def print_summary(self, *, as_json: bool) -> None:
        outcome = {
            name: self.counts[name] for name in (*(o.value for o in Recorded if o is not Recorded.CONFLICT), "rejected")
        }
        if self._records.rounded:
            print("all task ids end in zeros; a spreadsheet may have rounded them: compare them", file=sys.stderr)
        if self._odd:
            print(f"{self._odd} rows have numbers of an unusual length (first: {self._first_odd})", file=sys.stderr)
        if unused := self._records.unused:
            print(f"unused columns: {', '.join(unused)}", file=sys.stderr)
        if as_json:
            print_json(outcome)
            return
        if self._rejects is None and outcome["rejected"] > _REJECTS_SHOWN:
            more = outcome["rejected"] - _REJECTS_SHOWN
            print(f"and {more} more rejected lines; --rejects FILE writes them all", file=sys.stderr)
        print(", ".join(f"{count} {name}" for name, count in outcome.items()))


def _record(runtime: Runtime, reader: SendRecordParser, batch: list[tuple[str, Any]], tally: _Tally) -> None:
    places: list[str] = []
    sends: list[SentMessage] = []
    for place, item in batch:
        try:
            if not isinstance(item, dict):
                raise InvalidSendRecord({"line": str(item)})
            sends.append(reader.read(item))
            places.append(place)
            tally.count_odd(place, str(item["mobile"]))
        except InvalidSendRecord as error:
            tally.reject(place, str(error))
    if not sends:
        return
    results = runtime.database.write(
        lambda connection: recording.record_sent(connection, sends, recorded_at=runtime.now())
    )
    for place, result in zip(places, results, strict=True):
        if result.outcome is Recorded.CONFLICT:
            tally.reject(place, "; ".join(f"{name}: differs from what is recorded" for name in result.differing))
        else:
            tally.counts[result.outcome] += 1


def _pair(text: str) -> tuple[str, str]:
    column, equals, field = text.partition("=")
    if not equals or field not in FIELDS:
        raise ReceiverError(f"--map: {text}: not COLUMN=FIELD; FIELD is one of {', '.join(sorted(FIELDS))}")
    return column.strip(), field


# --- Progress -------------------------------------------------------------------------------------------


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show the progress, on a terminal."""
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
            completed = file.tell() if size else done
            progress.update(task, completed=completed, description=f"{done:,} lines")

        yield advance


def _size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size
