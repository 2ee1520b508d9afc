"""Shared by the commands: the runtime of one command, and output for people or programs."""

from __future__ import annotations

import codecs
import json
import os
import sys
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from receiver.cli.settings import read_settings
from receiver.core import DatabaseUnavailable, ReceiverError, SettingsError, find_fault, try_lock
from receiver.db.engine import Database
from receiver.db.sqlite import path_of
from receiver.net.serving import is_served
from receiver.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from receiver.config import Settings
    from receiver.runtime import Runtime

T = TypeVar("T")

ACTOR = "cli"  # in the audit log
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


@contextmanager
def open_runtime(*, check_files: bool = True) -> Iterator[Runtime]:
    """Yield the runtime of a command, and stop it at the end. One that only asks the database opens a store instead.

    Raises DatabaseUnavailable if a file of the data directory is not writable, unless `check_files` is off.
    """
    # All that a server needs: it takes longer to load than a command that only asks takes to run.
    from receiver.runtime import Runtime  # noqa: PLC0415

    runtime = Runtime(_settings(check_files=check_files))
    try:
        yield runtime
    finally:
        runtime.stop()


@contextmanager
def open_store(*, check_files: bool = True) -> Iterator[Store]:
    """Yield the database of a command that only asks it, and close it at the end. Raises as `open_runtime` does."""
    store = Store(_settings(check_files=check_files))
    try:
        yield store
    finally:
        store.stop()


def _settings(*, check_files: bool) -> Settings:
    settings = read_settings()
    require_file_of_server(settings)
    if check_files:
        require_files(settings)
    return settings


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
