"""`prune`: what is older than it is kept for goes."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from receiver.alerting import drop_mended
from receiver.cli.common import as_json, open_runtime, print_json, print_table
from receiver.cli.events import read_cursor
from receiver.config import Settings, audit_days, keeping_problems
from receiver.core import ReceiverError, SettingsError, read_unfiltered
from receiver.db.engine import Connection, Database
from receiver.maintenance.horizons import require_none_ahead, require_present
from receiver.maintenance.prune import Due, Plan, RetentionKind, find_overdue, list_horizons, look, prune
from receiver.messages import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from receiver.runtime import Runtime

_PATIENCE_SECONDS = 24 * 3600.0  # for all of it: counting and deleting millions of rows take minutes


@click.command("prune")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in RetentionKind]),
    multiple=True,
    help="Only this; may be repeated.",
)
@click.option("--days", type=click.IntRange(1, 36500), help="With one --kind: instead of its RECEIVER_KEEP_…_DAYS.")
@click.option("--yes", is_flag=True, help="Delete; without it nothing is changed.")
@click.option(
    "--cursor-file",
    "cursor_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Of `receiver events`: what its reader has not read stays. May be repeated.",
)
@click.option("--cursor", "cursors", multiple=True, help="Of GET /events, the same. May be repeated.")
@click.option(
    "--now-is-right",
    is_flag=True,
    help="The clock is right, though for over three days nothing came and nothing was pruned.",
)
@as_json
def prune_(
    kinds: tuple[str, ...],
    days: int | None,
    yes: bool,
    cursor_files: tuple[Path, ...],
    cursors: tuple[str, ...],
    now_is_right: bool,
    as_json: bool,
) -> None:
    """Delete what is older than RECEIVER_KEEP_…_DAYS. Without --yes it says what would go, and changes nothing.

    In small batches beside a server at work; broken off anywhere, it goes on when it is run again. The delivery report
    keeps its counts. A message stays as long as a receipt or reply of it does; what is left of those goes with it.
    It refuses where this clock is over three days after all that came and after the last prune: it may run ahead.

    \b
    Examples:
      receiver prune
      receiver prune --yes
      receiver prune --kind pushes --days 7 --yes
      receiver prune --cursor-file events.cursor --yes
    """
    if days is not None and len(kinds) != 1:
        raise click.UsageError("--days goes with one --kind.")
    wanted = [RetentionKind(kind) for kind in kinds]
    with open_runtime() as runtime:
        keeps = _keeps(runtime.settings, wanted[0] if days is not None else None, days)
        readers = _readers(runtime, cursor_files, cursors)
        plan = _plan(runtime, keeps, wanted, readers)
        _run(runtime, plan, yes=yes, as_json=as_json, now_is_right=now_is_right)


@click.command("prune")
@as_json
def job_prune(as_json: bool) -> None:
    """Do what `receiver prune --yes` does, for a timer.

    \b
    Example (crontab):
      40 4 * * *  receiver run prune
    """
    with open_runtime() as runtime:
        _run(runtime, _plan(runtime, _keeps(runtime.settings, None, None), (), None), yes=True, as_json=as_json)


def _keeps(settings: Settings, kind: RetentionKind | None, days: int | None) -> dict[RetentionKind, int]:
    """Return for how many days each kind is kept, one of them changed. Raises SettingsError where that will not do."""
    fields = {f"keep_{each}_days": getattr(settings, f"keep_{each}_days") for each in RetentionKind}
    if kind is not None and days is not None:
        fields[f"keep_{kind}_days"] = days
        if kind is RetentionKind.AUDIT:
            try:
                audit_days(str(days))
            except ValueError as error:
                raise SettingsError(f"--days: {error}") from None
        if problems := keeping_problems({**fields, "no_receipt_after": settings.no_receipt_after}):
            raise SettingsError("; ".join(problems))
    return {each: fields[f"keep_{each}_days"] for each in RetentionKind}


def cutoffs_of(runtime: Runtime, keeps: Mapping[RetentionKind, int] | None = None) -> dict[RetentionKind, datetime]:
    """Return before when each kind goes; one that is kept for ever is missing."""
    now = runtime.now()
    days = keeps or _keeps(runtime.settings, None, None)
    return {kind: now - timedelta(days=number) for kind, number in days.items() if number}


_OVERDUE_AFTER = timedelta(days=2)


def find_unpruned(connection: Connection, runtime: Runtime) -> list[RetentionKind]:
    """Return the kinds that ought to have been pruned two days ago and were not."""
    lately = runtime.now() - _OVERDUE_AFTER
    horizons = list_horizons(connection)
    cutoffs = {
        kind: before - _OVERDUE_AFTER
        for kind, before in cutoffs_of(runtime).items()
        if kind not in horizons or (horizons[kind].pruned_at or before) < lately
    }
    return find_overdue(connection, cutoffs)


def _plan(
    runtime: Runtime, keeps: Mapping[RetentionKind, int], kinds: Sequence[RetentionKind], readers: Position | None
) -> Plan:
    cutoffs = cutoffs_of(runtime, keeps)
    for kind in kinds:
        if kind not in cutoffs:
            raise SettingsError(f"RECEIVER_KEEP_{kind.upper()}_DAYS: 0, for ever; name the days: --days N")
    return Plan(kinds=tuple(kinds) or tuple(cutoffs), cutoffs=cutoffs, readers=readers)


def _readers(runtime: Runtime, files: Sequence[Path], cursors: Sequence[str]) -> Position | None:
    """Return how far the slowest of these readers has come; None: none was named."""
    found = [read_cursor(path) for path in files]
    for cursor in cursors:
        parts = read_unfiltered(runtime.shared_secret("cursor"), cursor)
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            raise ReceiverError("--cursor: a cursor of another list; take `next_cursor` of GET /events")
        found.append(Position(int(parts[0]), int(parts[1])))
    if not found:
        return None
    return Position(min(one.receipt_id for one in found), min(one.reply_id for one in found))


def _run(runtime: Runtime, plan: Plan, *, yes: bool, as_json: bool, now_is_right: bool = False) -> None:
    runtime.make_ready()
    runtime.ask(lambda connection: require_none_ahead(connection, runtime.now()))
    if yes and not now_is_right:
        runtime.ask(lambda connection: require_present(connection, runtime.now()))
    database = Database(runtime.settings.database_url, patience_seconds=_PATIENCE_SECONDS, sealing=runtime.encryption)
    try:
        shows_bar = yes and sys.stderr.isatty()
        due: list[Due] = []
        if shows_bar or not yes:  # counting reads all that goes: not for a timer's sake
            with database.reading() as connection:
                due = look(connection, plan)
        if not yes:
            _tell_due(due, as_json=as_json)
            return
        with _bar(due, shown=shows_bar) as tell:
            gone = prune(database, plan, now=runtime.now, tell=tell)
        database.write(drop_mended)
    finally:
        database.close()
    runtime.audit("cli", "prune", mobile=None, **{kind.value: rows for kind, rows in gone.items()})
    if as_json:
        print_json({kind.value: rows for kind, rows in gone.items()})
    else:
        print(", ".join(f"{rows:,} {kind}" for kind, rows in gone.items()) + " deleted")


def _tell_due(due: Sequence[Due], *, as_json: bool) -> None:
    if as_json:
        for one in due:
            print_json(
                {
                    "kind": one.kind.value,
                    "before": one.before.isoformat(),
                    "rows": one.rows,
                    "oldest": one.oldest and one.oldest.isoformat(),
                    "newest": one.newest and one.newest.isoformat(),
                    "bytes": one.bytes,
                }
            )
        return
    print_table(
        ["kind", "before", "rows", "oldest", "newest", "bytes"],
        [
            [
                one.kind,
                f"{one.before:%Y-%m-%d %H:%M}",
                f"{one.rows:,}",
                one.oldest and f"{one.oldest:%Y-%m-%d %H:%M}",
                one.newest and f"{one.newest:%Y-%m-%d %H:%M}",
                one.bytes and f"{one.bytes:,}",
            ]
            for one in due
        ],
    )
    print("nothing was changed; add --yes to delete them")


@contextmanager
def _bar(due: Sequence[Due], *, shown: bool) -> Iterator[Callable[[RetentionKind, int], None]]:
    """Show how far it has come, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        tasks = {one.kind: bar.add_task(one.kind.value, total=one.rows) for one in due}
        yield lambda kind, rows: bar.advance(tasks[kind], rows) if kind in tasks else None
