"""Take every defence away, one at a time, and see that its test fails.

python -m tests.mutations --workers 2           all of them; some minutes on two cores
python -m tests.mutations --only audit          those with a word in their part, sentence, function or test
python -m tests.mutations --workers 2 --write   and notes the day in deploy/DEFENCES.md, if each was noticed
python -m tests.mutations --page                writes deploy/DEFENCES.md anew, keeps its day and runs nothing

Exit code 1 where any survives, or could not be tried.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.mutations import load
from tests.mutations.page import last_seen, write
from tests.mutations.runs import Outcome, Verdict, run


def main() -> int:
    """Run those that were asked for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="WORD", default=[], help="may be repeated")
    parser.add_argument("--workers", type=int, default=1, help="so many at once")
    parser.add_argument("--seconds", type=float, default=180, help="that each may take")
    parser.add_argument("--write", action="store_true", help="write deploy/DEFENCES.md if all were noticed today")
    parser.add_argument("--page", action="store_true", help="write deploy/DEFENCES.md without a run")
    given = parser.parse_args()
    if given.page:
        write(last_seen())
        return 0
    defences = load()
    chosen = [one for one in defences if not given.only or any(word in str(one) for word in given.only)]
    if not chosen:
        parser.error("nothing of that name")

    def tell(outcome: Outcome) -> None:
        print(outcome, flush=True)

    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        outcomes = run(chosen, workers=given.workers, seconds=given.seconds, place=Path(place), tell=tell)
    noticed = sum(outcome.verdict is Verdict.FAILED for outcome in outcomes)
    print(f"{len(outcomes)} defences taken away, {noticed} noticed")
    if given.write and noticed == len(defences):
        write(f"{datetime.now(UTC):%Y-%m-%d}")
    return int(noticed != len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
