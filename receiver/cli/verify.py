"""`verify`: check that the stored data is consistent."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from receiver.audit import verify_audit
from receiver.cli.common import as_json, open_for_long, open_runtime, print_json
from receiver.core import CheckResult
from receiver.intake.spool import spool_state
from receiver.maintenance.verify import verify
from receiver.messages.projector import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime


@click.command("verify")
@as_json
def verify_(as_json: bool) -> None:
    """Check that journal, receipts, replies, states, spool and audit agree. Changes nothing; servers may run.

    Exit code 0 only if every check passes.

    \b
    Example:
      receiver verify
    """
    with open_runtime() as runtime, show_progress() as advance:
        findings = list(_findings(runtime, advance))
    if as_json:
        for finding in findings:
            print_json(asdict(finding))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.count} checked")
            for detail in finding.details:
                print(f"        {detail}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _findings(runtime: Runtime, advance: Callable[[int], None]) -> Iterator[CheckResult]:
    runtime.make_ready(patient=True)
    checkpoints, faults = runtime.checkpoints.read()  # before the database, so that it contains every one of them
    with open_for_long(runtime) as database:
        catch_up(database)
        yield from verify(database, runtime.admission.read_again, advance)
        audit = verify_audit(database, checkpoints, advance)
        yield replace(audit, ok=audit.ok and not faults, details=(*faults, *audit.details))
    spool = spool_state(runtime.spool.directory)
    waiting = (f"{spool.records} records are not in the database yet",) if spool.records else ()
    yield CheckResult(
        name="spool can be read",
        ok=not spool.damaged,
        count=spool.records,
        details=(*waiting, *(f"{name} has unreadable parts" for name in spool.damaged)),
    )


class show_progress:  # noqa: N801  (a context manager, called like a function)
    """Shows the number of rows read, on a terminal."""

    def __enter__(self) -> Callable[[int], None]:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.completed:,.0f} rows read"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        task = self._bar.add_task("verify", total=None)
        self._bar.start()
        return lambda rows: self._bar.advance(task, rows)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
