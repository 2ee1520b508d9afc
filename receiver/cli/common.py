"""Shared by the commands: the runtime of one command, and output for people or programs."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from receiver.alerting.rules import hours_of
from receiver.cli.settings import read_settings
from receiver.core import DatabaseUnavailable, ReceiverError, SettingsError, find_disk, find_fault, try_lock
from receiver.db.engine import Database
from receiver.db.sqlite import path_of
from receiver.intake.secret_usage import UNUSED_FOR, SecretUse, find_uses
from receiver.intake.spool import SpoolState, seconds_left
from receiver.maintenance.backup import is_served
from receiver.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from receiver.config import Settings

T = TypeVar("T")

ACTOR = "cli"  # in the audit log
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


@contextmanager
def open_runtime(*, check_files: bool = True) -> Iterator[Runtime]:
    """Yield the runtime of a command, and stop it at the end.

    Raises DatabaseUnavailable if a file of the data directory is not writable, unless `check_files` is off.
    """
    settings = read_settings()
    require_file_of_server(settings)
    if check_files:
        require_files(settings)
    runtime = Runtime(settings)
    try:
        yield runtime
    finally:
        runtime.stop()


@contextmanager
def open_for_long(runtime: Runtime) -> Iterator[Database]:
    """Yield the database for a command that reads or deletes millions of rows, and close it at the end."""
    settings = runtime.settings
    database = Database(settings.database_url, patience_seconds=24 * 3600.0, encryption=runtime.encryption)
    with closing(database):
        yield database


def require_file_of_server(settings: Settings) -> None:
    """Raise ReceiverError if a running server's database file is gone: a command must not make an empty one."""
    if not settings.embedded:
        return
    path = path_of(settings.database_url)
    if not path.exists() and settings.data_dir.is_dir() and is_served(settings.data_dir):
        raise ReceiverError(f"{path} is missing while a server uses it; restore the file, or stop the server")


def require_files(settings: Settings) -> None:
    """Raise DatabaseUnavailable, naming file and owner, if a file of the data directory is not writable."""
    if (fault := find_fault(settings.own_files)) is not None:
        raise DatabaseUnavailable(fault)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock, so that no other process does the same. Raises ReceiverError if one does."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(handle):
            raise ReceiverError(f"another {what} is running")
        yield
    finally:
        os.close(handle)


def print_json(value: Any) -> None:
    """Print one JSON document on its own line; in ASCII if the output is not UTF-8."""
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    print(json.dumps(value, ensure_ascii=not is_utf8, default=str), flush=True)


def print_list(
    rows: Sequence[T],
    columns: Mapping[str, Callable[[T], object]],
    *,
    as_json: bool,
    fields: Callable[[Any], Any] = asdict,
    by_line: bool = False,
) -> None:
    """Print rows as a table for people, or as JSON: one array of their `fields`, or `by_line` an object a line."""
    if not as_json:
        print_table(list(columns), [[column(row) for column in columns.values()] for row in rows])
    elif by_line:
        for row in rows:
            print_json(fields(row))
    else:
        print_json([fields(row) for row in rows])


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows for people: as wide as the terminal; without a terminal, lines do not wrap."""
    # Takes as long to load as most commands take to run, and those print no table.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(cell_text, row))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, soft_wrap=not sys.stdout.isatty(), markup=False, emoji=False).print(table)


def cell_text(cell: object) -> str:
    """Return the text of one cell; a time is shown to the minute, in UTC."""
    if cell is None:
        return ""
    return f"{cell:%Y-%m-%d %H:%M}Z" if isinstance(cell, datetime) else one_line(str(cell))


def one_line(text: str) -> str:
    """Return a text of others for one line of a terminal, which it must not control."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def accounts_text(accounts: Sequence[str] | None) -> str:
    """Return the accounts that a key, a user or a webhook is limited to."""
    return "all" if accounts is None else " ".join(accounts)


def known_accounts(runtime: Runtime, accounts: Sequence[str]) -> list[str] | None:
    """Return the accounts to limit to; None: no limit. Raises SettingsError for an account that is not configured."""
    if unknown := sorted(set(accounts) - runtime.settings.accounts):
        raise SettingsError(f"--account: {', '.join(unknown)}: no such account is configured")
    return sorted(set(accounts)) or None


def find_room(settings: Settings, state: SpoolState) -> float | None:
    """Return for how many seconds the spool has room at its current rate; None if unknown."""
    disk = find_disk(settings.data_dir)
    return seconds_left(state, max_bytes=settings.spool_max_bytes, disk=disk, now=time.time())


def room_text(seconds: float | None) -> str:
    """Return for how long there is room, to append to a line; empty if unknown."""
    return "" if seconds is None else f"; room for {hours_of(seconds)} more hours at the current rate"


def secret_lines(runtime: Runtime) -> list[str]:
    """Return a line for each push secret, in the order of the settings; [] without a database."""
    try:
        uses = runtime.ask(lambda connection: find_uses(connection, runtime.settings.push_tokens))
    except ReceiverError:
        return []
    return [secret_line(use, runtime.now()) for use in uses]


def secret_line(use: SecretUse, now: datetime) -> str:
    """Return a push secret's name, its last use, and whether it can be removed."""
    last = f"last push {use.last_used_at:%Y-%m-%dT%H:%M:%S}Z" if use.last_used_at else "no push noted yet"
    removable = f"; unused for {UNUSED_FOR.days} days: can be removed" if use.can_go(now) else ""
    return f"{use.name}, {last}{removable}"
