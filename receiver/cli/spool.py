"""`spool`: records that are not in the database yet."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from receiver.cli.common import as_json, open_runtime, print_json
from receiver.cli.groups import CommandGroup
from receiver.cli.state import find_room, room_text
from receiver.config import SPOOL_DIR, load_settings
from receiver.core import SettingsError
from receiver.intake.spool import spool_state


@click.group(cls=CommandGroup)
def spool() -> None:
    """Show the spool, and save it to the database by hand."""


@spool.command()
@as_json
def status(as_json: bool) -> None:
    """Print the spool's records, bytes and age. Works without the database; exit code 1 for damaged files.

    \b
    Example:
      receiver spool status
    """
    settings = load_settings()
    directory = settings.data_dir / SPOOL_DIR
    state = spool_state(directory)
    room = find_room(settings, state)
    age = 0.0 if state.oldest_at is None else round(max(0.0, time.time() - state.oldest_at), 1)
    if as_json:
        print_json({**asdict(state), "age_seconds": age, "seconds_left": room, "directory": str(directory)})
    elif state.records or state.bytes:
        line = f"{state.records} records in {directory}: {state.bytes} bytes, the oldest file {age:.0f} s old"
        print(line + room_text(room))
    else:
        print(f"no records in {directory}")
    for name in state.damaged:
        print(f"receiver: {name} has unreadable parts; all others in it are saved", file=sys.stderr)
    if state.damaged:
        sys.exit(1)


@spool.command()
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another node's data directory, or a copy of its spool directory.",
)
def drain(source: Path | None) -> None:
    """Save a spool to the database. A running server does this by itself: use it for a node that is gone.

    Safe to repeat: stored records are not stored twice.

    \b
    Example:
      receiver spool drain --from /mnt/dead-node/var
    """
    with open_runtime() as runtime:
        directory = runtime.spool.directory
        if source is not None:
            directory = source / SPOOL_DIR if (source / SPOOL_DIR).is_dir() else source
        if not directory.is_dir() and source is not None:
            raise SettingsError(f"{source}: no spool in it")
        runtime.make_ready(patient=True)
        saved = runtime.drain(directory)
        left = spool_state(directory)
    print(f"{saved} records saved")
    if left.records:
        print(f"receiver: {left.records} records remain in files that another process holds", file=sys.stderr)
        sys.exit(1)
