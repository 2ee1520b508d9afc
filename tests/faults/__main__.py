"""`python -m tests.faults`: what is lost, refused and slow while nodes, links, disks and clocks fail.

One fault after another under steady load, each with its recovery and a quiet spell; with `--minutes` a node, a database
and a link in turn. Exit code 1 where an acknowledged
push is not stored once, or `receiver verify` finds anything.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import write_section
from tests.faults.blows import faults, faults_in_turn
from tests.faults.cluster import NODES, Cluster, missing
from tests.faults.report import render
from tests.faults.run import measure_full, run

if TYPE_CHECKING:
    from types import FrameType

_PAGE = Path("deploy/BENCHMARKS.md")


def main() -> int:
    """Run it, print the table, write it if asked, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="three faults, as CI has them")
    parser.add_argument("--minutes", type=float, default=0, help="a node, a database, a link in turn for so long")
    parser.add_argument("--nodes", type=int, choices=range(2, len(NODES) + 1), default=2, help="receivers (2)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, default=200, help="pushes a second (200)")
    pace.add_argument("--half-load", action="store_true", help="half of what this machine takes, measured first")
    parser.add_argument("--seconds", type=float, default=5, help="quiet spell after each fault (5)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each receiver (1)")
    parser.add_argument("--only", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what nginx, receivers and databases said there")
    parser.add_argument("--write", action="store_true", help=f"write the table into {_PAGE}")
    given = parser.parse_args()
    if lacking := missing():
        print(f"python -m tests.faults: not on this machine: {lacking}", file=sys.stderr)
        return 2
    listed = faults_in_turn(given.nodes) if given.minutes else faults(short=given.short)
    chosen = [fault for fault in listed if not given.only or given.only in fault.name]
    if not chosen:
        parser.error(f"no fault has {given.only!r} in its name")
    for how in (signal.SIGINT, signal.SIGTERM):
        signal.signal(how, _end)
    beside = os.getloadavg()[0]  # of others: nothing of this runs yet
    with Cluster(nodes=given.nodes, workers=given.workers) as cluster:
        full = measure_full(cluster) if given.half_load else None
        rate = given.rate if full is None else full.rate / 2
        _tell(f"{rate:.0f} pushes a second")
        measured, account = run(
            cluster,
            chosen,
            rate=rate,
            quiet_seconds=given.seconds,
            tell=_tell,
            minutes=given.minutes,
            before=() if full is None else full.pushed,
        )
        if given.logs is not None:
            cluster.keep_logs(given.logs)
    section = render(measured, account, rate=rate, nodes=given.nodes, workers=given.workers, full=full, beside=beside)
    print(section)
    if given.write:
        write_section(_PAGE, section, name="faults")
    return 0 if account.ok else 1


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(how: int, _frame: FrameType | None) -> None:
    """Leave by way of all that ends what was started; a second Ctrl-C does not cut that short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + how)


if __name__ == "__main__":
    sys.exit(main())
