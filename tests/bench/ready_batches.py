"""A writer of ready batches into a database, without a node: of this tree, or of another that PYTHONPATH names.

It is run by its path and imports only what it is told. It says `ready`, waits for a line, saves all, says `done`, and
ends with its input.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="postgresql+psycopg://… or sqlite:///…")
    parser.add_argument("--prefix", required=True, help="of the task ids, another for each writer")
    parser.add_argument("--pushes", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    for name in ("--database", "--save", "--make-push"):
        parser.add_argument(name, required=True, metavar="MODULE:NAME")
    parser.add_argument("--project", action="store_true", help="beside the appends, as a serving process does")
    given = parser.parse_args()
    database, save, make_push = (_find(name) for name in (given.database, given.save, given.make_push))
    made = [make_push(task_id=f"{given.prefix}-{n}", mobile=f"150{n % 10**8:08d}") for n in range(given.pushes)]
    opened = database(given.url, patience_seconds=60)
    save(opened, made[:1])
    projector = _start_projector(opened) if given.project else None
    print("ready", flush=True)
    sys.stdin.readline()
    for begin in range(1, given.pushes, given.batch):
        save(opened, made[begin : begin + given.batch])
        if projector is not None:
            projector.nudge()
    if projector is not None:
        projector.await_reached(math.inf)
    print("done", flush=True)
    sys.stdin.read()
    if projector is not None:
        projector.stop()
    opened.close()


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _start_projector(database: Any) -> Any:
    availability = _find("receiver.db.availability:CircuitBreaker")()
    availability.mark_up()
    projector = _find("receiver.messages:Projector")(database, availability=availability)
    projector.start()
    return projector


if __name__ == "__main__":
    main()
