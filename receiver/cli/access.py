"""`access`: who may do what, for the review of each quarter."""

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
    """Look at who may do what."""


@access.command()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for a spreadsheet.")
@as_json
def review(as_csv: bool, as_json: bool) -> None:
    """List every key and user: what they may, of which accounts, and when they were last used.

    \b
    Example:
      receiver access review --csv > access-2026-q4.csv
    """
    with open_runtime() as runtime:
        now = runtime.now()
        found = runtime.audited(lambda connection: list_access(connection, now), "cli", "access.review")
    if as_json:
        for one in found:
            print_json(asdict(one))
    elif as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(_HEADINGS)
        rows.writerows([neutral(cell) for cell in _cells(one)] for one in found)
    else:
        print_table(_HEADINGS, [_cells(one) for one in found])


def _cells(one: ReviewedAccess) -> list[str]:
    times = [_moment(at) for at in (one.created_at, one.last_used_at, one.expires_at, one.ended_at)]
    accounts = "all" if one.accounts is None else " ".join(one.accounts)
    return [one.kind, one.name, " ".join(one.may), accounts, *times, "unused" if one.unused else ""]


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z" if at else ""
