"""`access`: the permissions of keys and users, for access reviews."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import click

from receiver.auth import service
from receiver.cli.common import ACTOR, accounts_text, as_json, cell_text, open_runtime, print_list
from receiver.cli.groups import CommandGroup
from receiver.core import neutral

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from receiver.auth.access_review import ReviewedAccess


_COLUMNS: Mapping[str, Callable[[ReviewedAccess], object]] = {
    "kind": lambda entry: entry.kind,
    "name": lambda entry: entry.name,
    "may": lambda entry: " ".join(entry.may),
    "accounts": lambda entry: accounts_text(entry.accounts),
    "created": lambda entry: entry.created_at,
    "last used": lambda entry: entry.last_used_at,
    "expires": lambda entry: entry.expires_at,
    "ended": lambda entry: entry.ended_at,
    "unused for 90 days": lambda entry: "unused" if entry.unused else "",
}


@click.group(cls=CommandGroup)
def access() -> None:
    """Review the permissions of keys and users."""


@access.command()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for a spreadsheet.")
@as_json
def review(as_csv: bool, as_json: bool) -> None:
    """List every key and user with permissions, accounts and last use.

    \b
    Example:
      receiver access review --csv > access-2026-q4.csv
    """
    with open_runtime() as runtime:
        entries = service.review_access(runtime.trail, ACTOR)
    if as_csv and not as_json:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(_COLUMNS)
        rows.writerows([neutral(cell_text(column(entry))) for column in _COLUMNS.values()] for entry in entries)
        return
    print_list(entries, _COLUMNS, as_json=as_json, by_line=True)
