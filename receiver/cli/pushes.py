"""`pushes` and `watch`: the push journal."""

from __future__ import annotations

import time
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from receiver.cli.common import ACTOR, as_json, open_runtime, print_json, print_list, print_table
from receiver.cli.groups import CommandGroup
from receiver.config import parsers as to
from receiver.config import within
from receiver.core import NotFound, Outcome, Receipt, Reply, mask_mobile
from receiver.intake import service
from receiver.intake.sources import READ_MAX_PUSHES, find_sources
from receiver.messages import queries
from receiver.messages.queries import Filter, Page, PushRow

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_WATCH_SECONDS = 0.5
_WATCH_ROWS = 500


@click.group(cls=CommandGroup)
def pushes() -> None:
    """List the push journal, and parse pushes again."""


@pushes.command("list")
@click.option(
    "--outcome",
    type=click.Choice([outcome.value for outcome in (Outcome.ACCEPTED, Outcome.QUARANTINED)]),
    help="Only this outcome.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@as_json
def list_(outcome: str | None, limit: int, as_json: bool) -> None:
    """List the newest pushes.

    \b
    Example:
      receiver pushes list --outcome quarantined
    """
    page = Page(limit=limit, filter=Filter(outcome=outcome))
    with open_runtime() as runtime:
        rows = [_summary(runtime, row) for row in runtime.ask(lambda c: queries.list_pushes(c, page))]
    columns = {"id": "id", "received": "received_at", "outcome": "outcome", "what": "what", "from": "remote_addr"}
    print_list(
        rows, {name: itemgetter(key) for name, key in columns.items()}, as_json=as_json, fields=dict, by_line=True
    )


@pushes.command()
@click.option(
    "--allow",
    metavar="NETWORKS",
    help="The allow-list to test (default: RECEIVER_PUSH_ALLOW).",
)
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="Days to go back.")
@as_json
def sources(allow: str | None, days: int, as_json: bool) -> None:
    """List the source addresses of pushes, and which of them an allow-list would refuse.

    \b
    Example:
      receiver pushes sources --allow 203.0.113.0/24,198.51.100.7
    """
    try:
        given = to.networks(allow or "")
    except ValueError as error:
        raise click.UsageError(f"--allow: {error}") from None
    with open_runtime() as runtime:
        networks = given or runtime.settings.push_allow
        since = runtime.now() - timedelta(days=days)
        sources = runtime.ask(lambda connection: find_sources(connection, since=since))
    rows = [
        {
            "address": source.address,
            "pushes": source.pushes,
            "last_push": f"{source.last_at:%Y-%m-%dT%H:%M:%S}Z",
            "would_refuse": bool(networks) and not within(source.address, networks),
        }
        for source in sources.found
    ]
    if as_json:
        print_json({"items": rows, "complete": sources.complete})
        return
    print_table(
        ["address", "pushes", "last push", "would refuse"],
        [(row["address"], row["pushes"], row["last_push"], "yes" if row["would_refuse"] else "no") for row in rows],
    )
    if not sources.complete:
        print(f"only the newest {READ_MAX_PUSHES:,} pushes were read")


@pushes.command()
@click.argument("ids", metavar="ID…", nargs=-1, type=click.UUID)
@click.option("--quarantined", is_flag=True, help="Every quarantined push, instead of ids.")
def replay(ids: tuple[UUID, ...], quarantined: bool) -> None:
    """Parse pushes again with the current settings. Adds missing rows, and replaces rows that parse differently now.

    \b
    Example:
      receiver pushes replay --quarantined
    """
    if bool(ids) == quarantined:
        raise click.UsageError("pass ids, or --quarantined")
    with open_runtime() as runtime:
        counts = dict.fromkeys(Outcome, 0)
        for row in _quarantined(runtime) if quarantined else (_find(runtime, push_id) for push_id in ids):
            counts[service.replay(runtime.trail, runtime.admission, ACTOR, row)] += 1
    print(f"{counts[Outcome.ACCEPTED]} accepted, {counts[Outcome.QUARANTINED]} still quarantined")


@click.command()
@click.option("--count", type=click.IntRange(1), help="Stop after so many.")
@as_json
def watch(count: int | None, as_json: bool) -> None:
    """Print pushes as they arrive, with masked numbers, until interrupted.

    \b
    Example:
      receiver watch
    """
    with open_runtime() as runtime:
        newest = runtime.ask(lambda c: queries.iter_new_pushes(c, None, 1))
        # What `read_back` gives again is skipped.
        after, seen = (newest[0].id if newest else UUID(int=0)), {row.id for row in newest}
        left = count
        while left is None or left > 0:
            rows = runtime.ask(lambda c, after=after: queries.iter_new_pushes(c, after, _WATCH_ROWS))  # type: ignore[misc]
            for row in [row for row in rows if row.id not in seen][:left]:
                summary = _summary(runtime, row)
                seen.add(row.id)
                print_json(summary) if as_json else print(_line(summary), flush=True)
                left = None if left is None else left - 1
            if len(rows) == _WATCH_ROWS:
                after = rows[-1].id
            elif rows:
                after = max(after, queries.read_back(rows[-1].id))
                seen = {push_id for push_id in seen if push_id > after}
            if len(rows) < _WATCH_ROWS:
                time.sleep(_WATCH_SECONDS)


def _summary(runtime: Runtime, row: PushRow) -> dict[str, Any]:
    reading = runtime.admission.read_again(row.as_push()).reading
    what = row.error or ""
    if isinstance(reading, Receipt):
        what = f"receipt {mask_mobile(reading.mobile)} task {reading.task_id} {reading.status.name.lower()}"
    elif isinstance(reading, Reply):
        what = f"reply {mask_mobile(reading.mobile)} task {reading.task_id or '-'}"
    return {
        "id": str(row.id),
        "received_at": f"{row.received_at:%Y-%m-%dT%H:%M:%S}Z",
        "account": row.account,
        "outcome": row.outcome,
        "what": what if row.outcome == Outcome.ACCEPTED else row.error,
        "remote_addr": row.remote_addr,
    }


def _line(summary: dict[str, Any]) -> str:
    return f"{summary['received_at']}  {summary['outcome']:<11}  {summary['what']}  ({summary['remote_addr']})"


def _find(runtime: Runtime, push_id: UUID) -> PushRow:
    row = runtime.ask(lambda connection: queries.find_push(connection, push_id))
    if row is None:
        raise NotFound(f"there is no push {push_id}; see `receiver pushes list`")
    return row


def _quarantined(runtime: Runtime) -> list[PushRow]:
    pushes: list[PushRow] = []
    before = None
    while True:
        page = Page(limit=1000, before=before, filter=Filter(outcome=Outcome.QUARANTINED))
        rows = runtime.ask(lambda connection, page=page: queries.list_pushes(connection, page))  # type: ignore[misc]
        pushes += rows
        if len(rows) < page.limit:
            return pushes[::-1]
        before = rows[-1].id
