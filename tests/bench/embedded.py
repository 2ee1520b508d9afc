"""`python -m tests.bench.embedded`: what volume costs the embedded database, its backup, and its move to PostgreSQL."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.core import Push, new_id
from receiver.db import migrate
from receiver.db.engine import Database
from receiver.maintenance.backup import make_backup
from receiver.maintenance.move_to_postgres import Copy
from receiver.maintenance.verify import verify
from receiver.messages import queries
from receiver.messages.queries import Filter, Page
from receiver.runtime import Runtime
from tests.conftest import make_settings
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 500
_ROUNDS = 40
_PATIENCE_SECONDS = 24 * 3600.0


def main() -> int:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        empty, full = (_open(Path(place) / name) for name in ("empty", "full"))
        for first in range(0, given.messages, _BATCH):
            _save(full, first)
        print(f"{given.messages:,} messages:")
        _compare(empty, full, given.messages)
        directory = Path(place) / "backups"
        _timed("backup, without the proof", lambda: make_backup(full.settings, directory, verify=None))
        _move(full)
        for runtime in (empty, full):
            runtime.stop()
    return 0


def _open(data_dir: Path) -> Runtime:
    data_dir.mkdir()
    runtime = Runtime(make_settings(f"sqlite:///{data_dir / 'receiver.db'}", data_dir))
    migrate.upgrade(runtime.database)
    return runtime


def _batch(first: int) -> list[Push]:
    numbers = range(first, first + _BATCH)
    made = [make_push(mobile=_mobile(n), task_id=str(7_000_000_000 + n), second=n % 86400) for n in numbers]
    return [replace(push, id=new_id()) for push in made]


def _mobile(number: int) -> str:
    return f"1{3 + number % 7}{number * 7919 % 1_000_000_000:09d}"


def _save(runtime: Runtime, first: int) -> float:
    """Save a batch; give the processor time that it took."""
    batch = _batch(first)
    begun = time.process_time()
    save_pushes(runtime.database, batch)
    return time.process_time() - begun


def _look_up(runtime: Runtime, number: int) -> float:
    page = Page(limit=50, filter=Filter(mobile=_mobile(number)))
    begun = time.perf_counter()
    runtime.ask(lambda connection: queries.list_messages(connection, page, runtime.clock()))
    return time.perf_counter() - begun


def _compare(empty: Runtime, full: Runtime, messages: int) -> None:
    """Take turns, so that whatever else the machine does is felt by both."""
    costs: dict[str, tuple[list[float], list[float]]] = {"nearly empty": ([], []), "full": ([], [])}
    for round_ in range(_ROUNDS):
        for (pushes, look_ups), runtime in zip(costs.values(), (empty, full), strict=True):
            pushes.append(_save(runtime, messages + round_ * _BATCH) / _BATCH)
            look_ups.append(_look_up(runtime, messages + round_ * _BATCH))
    for name, (pushes, look_ups) in costs.items():
        push, look_up = statistics.median(pushes) * 1e6, statistics.median(look_ups) * 1e3
        print(f"  {name}: a push costs {push:.0f} µs of a processor, a look-up takes {look_up:.1f} ms")


def _move(full: Runtime) -> None:
    with PostgresServer() as server:
        url = server.create_database("moved").replace("postgresql://", "postgresql+psycopg://")
        target = Database(url, patience_seconds=_PATIENCE_SECONDS)
        copy = Copy(full.database, target, "the bench's")
        copy.prepare()
        _timed("copy while pushes come in", copy.catch_up)
        _timed("copy and count with the lock held", lambda: copy.finish(lambda: None))
        _timed("proof", lambda: list(verify(target, full.admission.read_again)))
        target.close()


def _timed(name: str, work: Callable[[], object]) -> None:
    begun = time.monotonic()
    work()
    print(f"  {name}: {time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
