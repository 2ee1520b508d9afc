"""A writer of ready batches into a database, without a node: of this tree, or of another that PYTHONPATH names.

It is run by its path and imports only what it is told. It says `ready`, waits for a line, saves all, says `done`, and
ends with its input.
"""

from __future__ import annotations

import argparse
import math
import sys
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any

_SENDS = 1000  # in one transaction


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
    parser.add_argument("--recorded", action="store_true", help="the sends of these pushes are recorded before")
    given = parser.parse_args()
    database, save, make_push = (_find(name) for name in (given.database, given.save, given.make_push))
    made = [make_push(task_id=f"{given.prefix}-{n}", mobile=f"150{n % 10**8:08d}") for n in range(given.pushes)]
    opened = database(given.url, patience_seconds=60)
    if given.recorded:
        _record_sends(opened, made)
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


def _record_sends(database: Any, made: list[Any]) -> None:
    record_sent, make_send = _find("receiver.messages:record_sent"), _find("tests.harness.factories:make_send")
    now = datetime.now(UTC)
    for begin in range(0, len(made), _SENDS):
        events = [push.reading for push in made[begin : begin + _SENDS]]
        sends = [make_send(task_id=event.task_id, mobile=event.mobile, sent_at=now) for event in events]
        database.write(partial(record_sent, sends=sends, recorded_at=now))


def _start_projector(database: Any) -> Any:
    availability = _find("receiver.db.availability:CircuitBreaker")()
    availability.mark_up()
    projector = _find("receiver.messages.projector:Projector")(database, availability=availability)
    projector.start()
    return projector


if __name__ == "__main__":
    main()
