"""`access`: the permissions of keys and users, for access reviews."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from receiver.auth.access_review import ReviewedAccess, list_access
from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.core import neutral

if TYPE_CHECKING:
    from datetime import datetime


_HEADINGS = ("kind", "name", "may", "accounts", "created", "last used", "expires", "ended", "unused for 90 days")


@click.group()
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
        now = runtime.now()
        entries = runtime.audited(lambda connection: list_access(connection, now), "cli", "access.review")
    if as_json:
        for entry in entries:
            print_json(asdict(entry))
    elif as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(_HEADINGS)
        rows.writerows([neutral(cell) for cell in _cells(entry)] for entry in entries)
    else:
        print_table(_HEADINGS, [_cells(entry) for entry in entries])


def _cells(entry: ReviewedAccess) -> list[str]:
    times = [_time_text(at) for at in (entry.created_at, entry.last_used_at, entry.expires_at, entry.ended_at)]
    accounts = "all" if entry.accounts is None else " ".join(entry.accounts)
    return [entry.kind, entry.name, " ".join(entry.may), accounts, *times, "unused" if entry.unused else ""]


def _time_text(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z" if at else ""
