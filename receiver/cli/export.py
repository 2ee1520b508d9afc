"""`export`: a list as a file."""

from __future__ import annotations

import hashlib
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from receiver.cli.common import ACTOR, as_json, open_runtime, print_json
from receiver.core import MessageStatus, ReceiverError, parse_mobile, replacing_file
from receiver.messages.export_files import EXPORTS, FileFormat, gzipped, iter_file
from receiver.messages.queries import Filter
from receiver.messages.send_records import parse_filter_time

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_MESSAGES = ("sent_from", "sent_to", "updated_from", "updated_to")
_OF_RECEIPTS_AND_REPLIES = ("received_from", "received_to")
_ENDINGS = {f".{form}": form for form in FileFormat} | {".jsonl": FileFormat.NDJSON}


@click.command()
@click.argument("name", type=click.Choice(sorted(EXPORTS)))
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format", "form", type=click.Choice([form.value for form in FileFormat]), help="Default: by the file's name."
)
@click.option("--full-numbers", is_flag=True, help="Do not mask numbers.")
@click.option("--bom", is_flag=True, help="CSV for Excel: start with a byte order mark.")
@click.option(
    "--raw", is_flag=True, help="CSV for programs: no apostrophe before text that a spreadsheet would run as a formula."
)
@click.option("--account")
@click.option("--mobile")
@click.option("--task-id")
@click.option("--template-id", help="Messages only.")
@click.option("--status", help="Messages and receipts only.")
@click.option("--sent-from", metavar="TIME", help="Messages sent at or after this time.")
@click.option("--sent-to", metavar="TIME", help="Messages sent before this time.")
@click.option("--updated-from", metavar="TIME", help="Messages changed at or after this time.")
@click.option("--updated-to", metavar="TIME", help="Messages last changed before this time.")
@click.option("--received-from", metavar="TIME", help="Receipts and replies received at or after this time.")
@click.option("--received-to", metavar="TIME", help="Receipts and replies received before this time.")
@click.option("--after-id", type=click.IntRange(min=0), help="Rows with a higher id, to continue an export.")
@click.option("--to-id", type=click.IntRange(min=0), help="Rows with this id or a lower one.")
@as_json
def export(
    name: str, file: Path, form: str | None, full_numbers: bool, bom: bool, raw: bool, as_json: bool, **filters: Any
) -> None:
    """Write messages, receipts or replies to FILE (- for standard output), oldest first.

    The file's name sets the format: .csv, .ndjson, .parquet or .xlsx, plus .gz to compress. Prints the number of rows
    and the file's SHA-256 to standard error. A failed export leaves no partial file.

    A TIME without a zone is one of RECEIVER_TIMEZONE, and a date alone is the start of that day. Times in the file are
    UTC; in an XLSX they are of RECEIVER_TIMEZONE.

    \b
    Examples:
      receiver export messages november.csv --sent-from 2026-11-01 --sent-to 2026-12-01
      receiver export replies - --format ndjson | gzip > replies.ndjson.gz
    """
    format_ = _format(file, form)
    with open_runtime() as runtime, ExitStack() as stack:
        wanted = _filter(name, filters, runtime.settings.timezone)
        runtime.audit(ACTOR, f"{name}.export", mobile=wanted.mobile, format=format_.value, in_full=full_numbers)
        counted = [0]

        def count(rows: int) -> None:
            counted[0] += rows

        connection = stack.enter_context(runtime.exporting(stamped=wanted.of_changes))
        zone = runtime.settings.timezone
        pieces = iter_file(
            connection,
            name,
            format_,
            wanted,
            runtime.clock(),
            in_full=full_numbers,
            zone=zone,
            bom=bom,
            neutral=not raw,
            tell=count,
        )
        if file.suffix == ".gz":
            pieces = gzipped(pieces)
        size, digest = _write(file, pieces)
    summary = {"rows": counted[0], "bytes": size, "sha256": digest}
    if as_json and str(file) != "-":
        print_json(summary)
    else:
        print(f"{counted[0]:,} rows, {size:,} bytes, SHA-256 {digest}", file=sys.stderr)


def _format(file: Path, given: str | None) -> FileFormat:
    if given is not None:
        return FileFormat(given)
    suffixes = [suffix for suffix in file.suffixes if suffix != ".gz"]
    found = _ENDINGS.get(suffixes[-1]) if suffixes else None
    if found is None:
        raise ReceiverError(
            "unknown format; pass --format, or name the file .csv, .ndjson, .parquet or .xlsx (plus .gz to compress)"
        )
    return found


def _filter(name: str, given: dict[str, Any], zone: Any) -> Filter:
    values = {key: value for key, value in given.items() if value is not None}
    for key in (*_OF_MESSAGES, *_OF_RECEIPTS_AND_REPLIES):
        if key in values:
            try:
                values[key] = parse_filter_time(values[key], zone)
            except ValueError as error:
                raise ReceiverError(f"--{key.replace('_', '-')}: {error}") from None
    if "mobile" in values:
        number = parse_mobile(values["mobile"])
        if number is None:
            raise ReceiverError("--mobile: not a phone number")
        values["mobile"] = number
    if "status" in values and values["status"] not in set(MessageStatus):
        raise ReceiverError(f"--status: not one of {', '.join(MessageStatus)}")
    unfit = {"template_id", *_OF_MESSAGES} if name != "messages" else set(_OF_RECEIPTS_AND_REPLIES)
    if wrong := sorted(unfit & values.keys()) + (["status"] if name == "replies" and "status" in values else []):
        raise ReceiverError(f"{', '.join('--' + key.replace('_', '-') for key in wrong)}: no filter of {name}")
    account = values.pop("account", None)
    return Filter(**values, accounts=(account,) if account else None)


def _write(file: Path, pieces: Iterator[bytes]) -> tuple[int, str]:
    """Write a file, completely or not at all. Return its size and digest."""
    if str(file) == "-":
        return _pour(pieces, sys.stdout.buffer)
    try:
        with replacing_file(file, mode=0o666) as output:  # whom the user's own umask lets read it
            return _pour(pieces, output)
    except OSError as error:
        raise ReceiverError(f"{file}: {error.strerror}") from None


def _pour(pieces: Iterator[bytes], output: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    console = Console(stderr=True)
    columns = (TextColumn("writing"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        for piece in pieces:
            output.write(piece)
            digest.update(piece)
            size += len(piece)
            bar.update(task, completed=size)
    output.flush()
    return size, digest.hexdigest()
