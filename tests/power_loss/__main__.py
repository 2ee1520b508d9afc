"""`python -m tests.power_loss`: what is found of every acknowledged push when the power fails at any moment.

A running receiver with its embedded database is recorded: every write, sync and change of names below its data
directory, and every acknowledgement. Then the power fails at many places of that record, and for each the disk is
built in the forms in which it may be found: of what was not synced nothing, everything, some writes, some sectors, the
later half, or sizes without data; names as POSIX promises (strict) or as ext4 and xfs keep them (ordered). Each is
opened as a restart would; every push acknowledged before must be in journal or spool. Exit code 1 where one is missing.

A tenth of the cuts is looked at again as if no sync had ever happened: there pushes must be missing, or the rest proves
nothing. --without-fsync does that alone, for all or for what has a path with this end (`.spool`, `/spool`, `/`,
`/receiver.db`; `=-wal`); exit code 1 where hardly anything is missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import write_section
from tests.power_loss.report import render
from tests.power_loss.run import control, made_place, run
from tests.power_loss.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.power_loss.run import Tally

_PAGE = Path("deploy/BENCHMARKS.md")
_SHOWN = 5


def main() -> int:
    """Run it, print the table, write it if asked, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.power_loss", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, help="a scenario; may be repeated")
    parser.add_argument("--cuts", type=int, default=400, help="places where the power fails, for each scenario (400)")
    parser.add_argument("--started", type=int, default=3, help="images of each that the product goes on with (3)")
    parser.add_argument("--without-fsync", nargs="?", const="", metavar="END", help="the control")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the first image that lacks a push there")
    parser.add_argument("--write", action="store_true", help=f"write the table into {_PAGE}")
    given = parser.parse_args()
    if shutil.which("cc") is None:
        print("python -m tests.power_loss: not on this machine: a C compiler", file=sys.stderr)
        return 2
    chosen = [scenario for scenario in SCENARIOS if not given.only or scenario.name in given.only]
    tallies = []
    for scenario in chosen:
        with made_place() as place:
            if given.without_fsync is not None:
                tally = control(scenario, Path(place), cuts=given.cuts, unsynced=given.without_fsync)
            else:
                tally = run(scenario, Path(place), cuts=given.cuts, started=given.started, tell=_tell, keep=given.keep)
            tallies.append(tally)
            _tell_faults(tally)
    section = render(tallies)
    print(section)
    if given.write and given.without_fsync is None:
        write_section(_PAGE, section, name="power-loss")
    if given.without_fsync is not None:
        return int(not any(tally.noticed for tally in tallies))
    return int(not all(tally.ok for tally in tallies))


def _tell_faults(tally: Tally) -> None:
    for fault in [*tally.examples[:_SHOWN], *tally.damaged[:_SHOWN], *tally.unfit]:
        _tell(f"{tally.scenario.name}: {fault}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
