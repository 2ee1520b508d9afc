"""`events`: print receipts and replies, for a program that reads lines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.cli.common import ACTOR, open_runtime, print_json
from receiver.core import ReceiverError, write_file
from receiver.messages import Event, Position, list_events
from receiver.messages.fields import as_json

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_PAGE = 1000
_POLL_SECONDS = 0.5


@click.command()
@click.option("--follow", is_flag=True, help="Then print new ones, until interrupted.")
@click.option(
    "--cursor-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Continue after the last run; updated while this one runs.",
)
def events(follow: bool, cursor_file: Path | None) -> None:
    """Print receipts and replies as JSON lines, oldest first, with full numbers. None is missed or repeated.

    \b
    Example:
      receiver events --follow --cursor-file events.cursor | my-consumer
    """
    with open_runtime() as runtime:
        runtime.audit(ACTOR, "events.read")
        position = Position() if cursor_file is None else read_cursor(cursor_file)
        while True:
            page = _next(runtime, position)
            try:
                for event in page:
                    print_json({"kind": event.kind.value} | as_json(event.row))
                    position = event.position
            finally:  # also if the reader stops or a disk is full: the next run continues after the printed ones
                if page:
                    _write(cursor_file, position)
            if page:
                continue
            if not follow:
                return
            time.sleep(_POLL_SECONDS)


def _next(runtime: Runtime, position: Position) -> list[Event]:
    return runtime.ask(lambda connection: list_events(connection, position, _PAGE, None))


def read_cursor(path: Path) -> Position:
    """Return the position in a cursor file; the beginning if there is no file. Raises ReceiverError."""
    if not path.exists():
        return Position()
    receipt_id, _, reply_id = path.read_text().strip().partition(".")
    if not (receipt_id.isdigit() and reply_id.isdigit()):
        raise ReceiverError(f"{path}: not a cursor of `receiver events`; remove the file to start over")
    return Position(int(receipt_id), int(reply_id))


def _write(path: Path | None, position: Position) -> None:
    if path is not None:
        write_file(path, f"{position.receipt_id}.{position.reply_id}\n")
