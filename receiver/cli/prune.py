"""`prune`: delete data past its retention period."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from receiver.alerting.figures import drop_mended
from receiver.cli.common import ACTOR, as_json, open_for_long, open_runtime, print_json, print_list
from receiver.cli.events import read_cursor
from receiver.config import Settings, audit_days, retention_problems
from receiver.core import ReceiverError, SettingsError
from receiver.core.cursors import read_unfiltered
from receiver.maintenance.horizons import require_none_ahead, require_present
from receiver.maintenance.prune import Due, Plan, look, prune
from receiver.maintenance.retention import RetentionKind, cutoffs_of, keep_days_of
from receiver.messages.events import EventKind, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from receiver.runtime import Runtime


@click.command("prune")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in RetentionKind]),
    multiple=True,
    help="Only this kind; may be repeated.",
)
@click.option("--days", type=click.IntRange(1, 36500), help="With one --kind: overrides its RECEIVER_KEEP_…_DAYS.")
@click.option("--yes", is_flag=True, help="Delete; without it nothing is changed.")
@click.option(
    "--cursor-file",
    "cursor_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Cursor file of `receiver events`: keep what its reader has not read. May be repeated.",
)
@click.option("--cursor", "cursors", multiple=True, help="Cursor of GET /events, likewise. May be repeated.")
@click.option(
    "--now-is-right",
    is_flag=True,
    help="Confirm the clock, after over three days without a push and without a prune.",
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
    """Delete data older than RECEIVER_KEEP_…_DAYS. Without --yes it prints what it would delete and changes nothing.

    Deletes in small batches while the server runs; if interrupted, run it again. The delivery report keeps its counts.
    A message stays as long as a receipt or reply of it does, and the rest of those are deleted with it. It refuses to
    run if this clock is over three days after the newest push and the last prune: the clock may be ahead.

    \b
    Examples:
      receiver prune
      receiver prune --yes
      receiver prune --kind pushes --days 7 --yes
      receiver prune --cursor-file events.cursor --yes
    """
    if days is not None and len(kinds) != 1:
        raise click.UsageError("--days goes with one --kind.")
    chosen = [RetentionKind(kind) for kind in kinds]
    with open_runtime() as runtime:
        keep_days = _keep_days(runtime.settings, chosen[0] if days is not None else None, days)
        readers = _slowest_reader(runtime, cursor_files, cursors)
        plan = _plan(runtime, keep_days, chosen, readers)
        _run(runtime, plan, yes=yes, as_json=as_json, now_is_right=now_is_right)


@click.command("prune")
@as_json
def run_prune(as_json: bool) -> None:
    """Run `receiver prune --yes` from a timer.

    \b
    Example (crontab):
      40 4 * * *  receiver run prune
    """
    with open_runtime() as runtime:
        _run(runtime, _plan(runtime, _keep_days(runtime.settings, None, None), (), None), yes=True, as_json=as_json)


def _keep_days(settings: Settings, kind: RetentionKind | None, days: int | None) -> dict[RetentionKind, int]:
    """Return the retention days of each kind, one of them overridden. Raises SettingsError if they conflict."""
    fields = {f"keep_{each}_days": kept for each, kept in keep_days_of(settings).items()}
    if kind is not None and days is not None:
        fields[f"keep_{kind}_days"] = days
        if kind is RetentionKind.AUDIT:
            try:
                audit_days(str(days))
            except ValueError as error:
                raise SettingsError(f"--days: {error}") from None
        if problems := retention_problems({**fields, "no_receipt_after": settings.no_receipt_after}):
            raise SettingsError("; ".join(problems))
    return {each: fields[f"keep_{each}_days"] for each in RetentionKind}


def _plan(
    runtime: Runtime, keep_days: Mapping[RetentionKind, int], kinds: Sequence[RetentionKind], readers: Position | None
) -> Plan:
    cutoffs = cutoffs_of(keep_days, runtime.now())
    for kind in kinds:
        if kind not in cutoffs:
            raise SettingsError(f"RECEIVER_KEEP_{kind.upper()}_DAYS: 0 keeps it forever; pass --days N")
    return Plan(kinds=tuple(kinds) or tuple(cutoffs), cutoffs=cutoffs, readers=readers)


def _slowest_reader(runtime: Runtime, files: Sequence[Path], cursors: Sequence[str]) -> Position | None:
    """Return the position of the slowest of these readers, for each kind of those that read it; None: no readers."""
    positions = [read_cursor(path) for path in files]
    for cursor in cursors:
        try:
            positions.append(Position.of_parts(read_unfiltered(runtime.shared_secret("cursor"), cursor)))
        except ValueError:
            raise ReceiverError("--cursor: not a cursor of GET /events; pass its `next_cursor`") from None
    if not positions:
        return None
    return Position(
        min((one.receipt_id for one in positions if EventKind.RECEIPT in one.kinds), default=_HOLDS_NOTHING),
        min((one.reply_id for one in positions if EventKind.REPLY in one.kinds), default=_HOLDS_NOTHING),
    )


_HOLDS_NOTHING = 2**63 - 1  # above all ids


def _run(runtime: Runtime, plan: Plan, *, yes: bool, as_json: bool, now_is_right: bool = False) -> None:
    runtime.make_ready(patient=True)
    runtime.ask(lambda connection: require_none_ahead(connection, runtime.now()))
    if yes and not now_is_right:
        runtime.ask(lambda connection: require_present(connection, runtime.now()))
    with open_for_long(runtime) as database:
        shows_bar = yes and sys.stderr.isatty()
        due: list[Due] = []
        if shows_bar or not yes:  # counting reads every row to delete, which a timer does not need
            with database.reading() as connection:
                due = look(connection, plan)
        if not yes:
            _print_due(due, as_json=as_json)
            return
        with _progress(due, shown=shows_bar) as advance:
            deleted = prune(database, plan, now=runtime.now, on_progress=advance)
        database.write(drop_mended)
    runtime.audit(ACTOR, "prune", mobile=None, **{kind.value: rows for kind, rows in deleted.items()})
    if as_json:
        print_json({kind.value: rows for kind, rows in deleted.items()})
    else:
        print(", ".join(f"{rows:,} {kind}" for kind, rows in deleted.items()) + " deleted")


def _print_due(due: Sequence[Due], *, as_json: bool) -> None:
    print_list(
        due,
        {
            "kind": lambda one: one.kind,
            "before": lambda one: f"{one.before:%Y-%m-%d %H:%M}",
            "rows": lambda one: f"{one.rows:,}",
            "oldest": lambda one: one.oldest and f"{one.oldest:%Y-%m-%d %H:%M}",
            "newest": lambda one: one.newest and f"{one.newest:%Y-%m-%d %H:%M}",
            "bytes": lambda one: one.bytes and f"{one.bytes:,}",
        },
        as_json=as_json,
        fields=_fields,
        by_line=True,
    )
    if not as_json:
        print("nothing was changed; add --yes to delete them")


def _fields(due: Due) -> dict[str, object]:
    return {
        "kind": due.kind.value,
        "before": due.before.isoformat(),
        "rows": due.rows,
        "oldest": due.oldest and due.oldest.isoformat(),
        "newest": due.newest and due.newest.isoformat(),
        "bytes": due.bytes,
    }


@contextmanager
def _progress(due: Sequence[Due], *, shown: bool) -> Iterator[Callable[[RetentionKind, int], None]]:
    """Show the progress, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        tasks = {one.kind: bar.add_task(one.kind.value, total=one.rows) for one in due}
        yield lambda kind, rows: bar.advance(tasks[kind], rows) if kind in tasks else None
