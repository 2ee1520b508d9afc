"""`python -m tests.bench`: receiver and its rivals under the same loads, side by side, in one run.

The servers take turns load by load and round by round, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.contestants import CONTESTANTS, PGBENCH, Burst, run_burst
from tests.bench.pgbench import run_pgbench
from tests.bench.report import Cell, render, write_section
from tests.bench.slow_fsync import build_slow_fsync
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.load import LoadResult

_DATABASES = ("sqlite", "postgresql", "postgresql+2ms")
_CLIENTS = (1, 8, 32, 128)
_SLOW_CLOSERS = 8
_SLOW_CLOSERS_BESIDE = 32  # clients


def main() -> int:
    """Measure, write the page, and give the exit code: 1 if anything failed."""
    given = _parse_arguments()
    rounds, seconds, warm_up = (1, 1.5, 0.5) if given.quick else (given.rounds, given.seconds, given.warm_up)
    cells = list(_cells(given.only, given.databases, given.clients))
    if not cells:
        print("nothing to measure: no chosen contestant has a chosen database", file=sys.stderr)
        return 2
    minutes = rounds * len(cells) * (seconds + warm_up + 2) / 60
    print(f"{rounds} rounds of {len(cells)} runs, some {minutes:.0f} minutes", file=sys.stderr)
    results: dict[Cell, list[LoadResult]] = defaultdict(list)
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        servers = {"postgresql": stack.enter_context(PostgresServer())}
        postgres = servers["postgresql"]
        if "postgresql+2ms" in given.databases:
            place = Path(tempfile.mkdtemp(dir=find_shared_place(on_disk=False)))
            stack.callback(shutil.rmtree, place)
            place.chmod(0o755)
            try:
                servers["postgresql+2ms"] = stack.enter_context(PostgresServer(preload=build_slow_fsync(place, 2)))
            except LookupError as error:
                failures.append(f"postgresql+2ms: left out, {error}")
                cells = [cell for cell in cells if cell.database != "postgresql+2ms"]
        for number, cell in itertools.product(range(1, rounds + 1), cells):
            shape = f"{cell.database}, {cell.clients} clients, {cell.connection}"
            title = f"round {number}: {cell.contestant}, {shape}"
            try:
                result = _run(cell, servers.get(cell.database), seconds, warm_up)
            except Exception as error:  # noqa: BLE001 - one that fails must not cost the others' results
                failures.append(f"{title}: {error}")
                print(failures[-1], file=sys.stderr)
                continue
            results[cell].append(result)
            print(f"{title}: {result.pushes_per_second:,.0f}/s, p99 {result.p99_ms:.1f} ms", file=sys.stderr)
            if result.errors:
                failures.append(f"{title}: {result.errors} errors, the first: {result.first_error}")
        section = render(
            results,
            failures,
            rounds=rounds,
            seconds=seconds,
            postgres_version=postgres.version,
        )
    write_section(given.out, section, name="pushes")
    print(section)
    return 1 if failures else 0


def _parse_arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure pushes against rivals.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring in each run")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", type=names, default=list(CONTESTANTS), metavar="NAME,…", help=", ".join(CONTESTANTS))
    parser.add_argument("--databases", type=names, default=list(_DATABASES), metavar="NAME,…")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=list(_CLIENTS))
    parser.add_argument("--out", type=Path, default=Path("deploy/BENCHMARKS.md"), help="the page to write into")
    given = parser.parse_args()
    for chosen, known in ((given.only, CONTESTANTS), (given.databases, _DATABASES)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return given


def _cells(names: list[str], databases: list[str], clients: list[int]) -> Iterator[Cell]:
    """List what is measured in one round; the contestants alternate fastest."""
    shapes = [(count, per_push, 0) for count, per_push in itertools.product(clients, (False, True))]
    if _SLOW_CLOSERS_BESIDE in clients:
        shapes.append((_SLOW_CLOSERS_BESIDE, False, _SLOW_CLOSERS))
    for database, (count, per_push, slow_closers) in itertools.product(databases, shapes):
        for name in names:
            if database in CONTESTANTS[name].databases and (name != PGBENCH or not (per_push or slow_closers)):
                yield Cell(
                    contestant=name, database=database, clients=count, per_push=per_push, slow_closers=slow_closers
                )


def _run(cell: Cell, server: PostgresServer | None, seconds: float, warm_up_seconds: float) -> LoadResult:
    if cell.contestant != PGBENCH:
        burst = Burst(
            clients=cell.clients,
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
            per_push=cell.per_push,
            slow_closers=cell.slow_closers,
        )
        return run_burst(CONTESTANTS[cell.contestant], cell.database, server, burst)
    assert server is not None
    assert server.pid is not None
    database_url = server.create_database("bench")
    try:
        return run_pgbench(database_url, clients=cell.clients, seconds=seconds, watch={"database": server.pid})
    finally:
        server.drop_database("bench")


if __name__ == "__main__":
    sys.exit(main())
