"""Take every defence away, one at a time, and see that its test fails.

python -m tests.mutations --workers 2           all of them; some twenty minutes on two cores
python -m tests.mutations --only forwarding     those of a part, or with a word in their name or file
python -m tests.mutations --write               notes what was seen in deploy/DEFENCES.md

Exit code 1 where any survives, or could not be tried.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.mutations import load
from tests.mutations.page import write
from tests.mutations.runs import Outcome, Verdict, run


def main() -> int:
    """Run those that were asked for, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART|WORD", default=[], help="may be repeated")
    parser.add_argument("--workers", type=int, default=1, help="so many at once")
    parser.add_argument("--seconds", type=float, default=180, help="that each may take")
    parser.add_argument("--write", action="store_true", help="note what was seen in deploy/DEFENCES.md")
    given = parser.parse_args()
    chosen = [
        one
        for one in load()
        if not given.only
        or any(
            word in (one.part, one.function) or word in one.defence or word in one.changes[0].file
            for word in given.only
        )
    ]
    if not chosen:
        parser.error("nothing of that name")

    def tell(outcome: Outcome) -> None:
        print(outcome, flush=True)

    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        outcomes = run(chosen, workers=given.workers, seconds=given.seconds, place=Path(place), tell=tell)
    failed = sum(outcome.verdict is Verdict.FAILED for outcome in outcomes)
    print(f"{len(outcomes)} defences taken away, {failed} noticed")
    if given.write:
        write(outcomes)
    return int(failed != len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
