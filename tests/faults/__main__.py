"""`python -m tests.faults`: what is lost, refused and slow while nodes, links, disks and clocks fail.

One fault after another under steady load, each with its recovery and a quiet spell. Exit code 1 where an acknowledged
push is not stored once, or `receiver verify` finds anything.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import write_section
from tests.faults.blows import faults
from tests.faults.cluster import Cluster, missing
from tests.faults.report import render
from tests.faults.run import run

if TYPE_CHECKING:
    from types import FrameType

_PAGE = Path("deploy/BENCHMARKS.md")


def main() -> int:
    """Run it, print the table, write it if asked, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="three faults, as CI has them")
    parser.add_argument("--rate", type=float, default=200, help="pushes a second (200)")
    parser.add_argument("--seconds", type=float, default=5, help="quiet spell after each fault (5)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each receiver (1)")
    parser.add_argument("--only", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what nginx, receivers and databases said there")
    parser.add_argument("--write", action="store_true", help=f"write the table into {_PAGE}")
    given = parser.parse_args()
    if lacking := missing():
        print(f"python -m tests.faults: not on this machine: {lacking}", file=sys.stderr)
        return 2
    chosen = [fault for fault in faults(short=given.short) if not given.only or given.only in fault.name]
    for how in (signal.SIGINT, signal.SIGTERM):
        signal.signal(how, _end)
    with Cluster(workers=given.workers) as cluster:
        measured, account = run(
            cluster,
            chosen,
            rate=given.rate,
            quiet_seconds=given.seconds,
            tell=lambda line: print(line, file=sys.stderr),
        )
        if given.logs is not None:
            cluster.keep_logs(given.logs)
    section = render(measured, account, rate=given.rate, workers=given.workers)
    print(section)
    if given.write:
        write_section(_PAGE, section, name="faults")
    return 0 if account.ok else 1


def _end(how: int, _frame: FrameType | None) -> None:
    """Leave by way of all that ends what was started; a second Ctrl-C does not cut that short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + how)


if __name__ == "__main__":
    sys.exit(main())
