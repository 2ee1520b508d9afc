"""`events`: print receipts, replies and changes of messages, for a program that reads lines."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.cli.common import ACTOR, open_runtime, print_json
from receiver.core import ReceiverError, write_file
from receiver.messages.events import Event, EventKind, Position, list_events
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
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in EventKind]),
    multiple=True,
    help="Default: all.",
)
def events(follow: bool, cursor_file: Path | None, kinds: tuple[str, ...]) -> None:
    """Print receipts, replies and changed messages as JSON lines, oldest first, with full numbers.

    None is missed or repeated. A message is printed as it is, once after its last change.

    \b
    Examples:
      receiver events --follow --cursor-file events.cursor | my-consumer
      receiver events --kind reply
    """
    wanted = frozenset(map(EventKind, kinds or EventKind))
    with open_runtime() as runtime:
        runtime.audit(ACTOR, "events.read")
        position = replace(Position() if cursor_file is None else read_cursor(cursor_file), kinds=wanted)
        while True:
            page = _next(runtime, position)
            try:
                for event in page:
                    print_json({"kind": event.kind.value, "event_id": event.id} | as_json(event.row))
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
    return runtime.ask(
        lambda connection: list_events(connection, position, _PAGE, None, runtime.clock()),
        stamped=EventKind.MESSAGE in position.kinds,
    )


def read_cursor(path: Path) -> Position:
    """Return the position in a cursor file; the beginning if there is no file. Raises ReceiverError."""
    if not path.exists():
        return Position()
    try:
        return Position.of_parts(path.read_text().strip().split("."))
    except ValueError:
        raise ReceiverError(f"{path}: not a cursor of `receiver events`; remove the file to start over") from None


def _write(path: Path | None, position: Position) -> None:
    if path is not None:
        write_file(path, ".".join(position.parts) + "\n")
