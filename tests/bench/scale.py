"""`python -m tests.bench.scale`: one node against two on the same PostgreSQL, and what that server takes by itself.

All share the machine's cores with the load, so what counts beside the rate is the processor time that a push takes of a
node and of the database: from it follows what either can take on cores of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from receiver.db.engine import Database
from receiver.messages.projection import save_pushes_in
from tests.bench.report import describe_machine, write_section
from tests.bench.slow_fsync import build_slow_fsync
from tests.bench.usage import cpu_seconds, list_tree
from tests.harness.factories import make_push
from tests.harness.leaks import SECRET
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

_PAGE = Path("deploy/BENCHMARKS.md")
_BATCH = 100
_PUSHES_EACH = 20_000  # that a writer without a receiver saves
_GENERATORS = 2
_CLIENTS_EACH = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What takes the pushes: so many nodes of so many serving processes each; no node: the database alone."""

    nodes: int
    processes: int  # of each node; without a node: writers that hand over ready batches

    @property
    def text(self) -> str:
        """It in words."""
        if not self.nodes:
            return f"no node: {self.processes} writer{'s' * (self.processes > 1)} of ready batches of {_BATCH}"
        return f"{self.nodes} node{'s' * (self.nodes > 1)} of {self.processes} process{'es' * (self.processes > 1)}"


_SHAPES = (
    Shape(nodes=1, processes=1),
    Shape(nodes=2, processes=1),
    Shape(nodes=1, processes=2),
    Shape(nodes=0, processes=1),
    Shape(nodes=0, processes=2),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run found."""

    pushes_per_second: float
    p99_ms: float | None  # None: nobody waited for an answer
    node_cpu_per_1000: float  # seconds, of all nodes together
    database_cpu_per_1000: float


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    found: dict[tuple[str, Shape], list[Found]] = defaultdict(list)
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(dir=find_shared_place(on_disk=False)))
        stack.callback(shutil.rmtree, place)
        place.chmod(0o755)
        servers = {
            "as it is": stack.enter_context(PostgresServer()),
            "+ 2 ms": stack.enter_context(PostgresServer(preload=build_slow_fsync(place, 2))),
        }
        for _ in range(given.rounds):
            for disk, server in servers.items():
                for shape in _SHAPES:
                    one = _measure(server, shape, given.seconds)
                    found[disk, shape].append(one)
                    print(f"{disk}, {shape.text}: {one.pushes_per_second:,.0f}/s", file=sys.stderr)
        version = servers["as it is"].version
    columns = (
        "disk",
        "takes the pushes",
        "pushes/s",
        "against 1 node",
        "p99 ms",
        "nodes' CPU s per 1,000",
        "database's",
    )
    table = ["| " + " | ".join(columns) + " |", "|---|---|" + "--:|" * (len(columns) - 2)]
    table += [_row(disk, shape, found) for disk in servers for shape in _SHAPES]
    command = shlex.join(["python", "-m", "tests.bench.scale", *sys.argv[1:]])
    text = (
        "## One node and two on the same PostgreSQL\n\n"
        f"{_GENERATORS * _CLIENTS_EACH} clients that each wait for the answer before the next push, half of them to "
        f"each of two nodes; medians of {given.rounds} rounds in turns, every one on an empty database. The load, the "
        "nodes and PostgreSQL share the cores; the disk is the machine's own, and again with 2 ms more for each fsync. "
        "Without a node, the function that a node calls saves batches that were made before.\n\n"
        f"{describe_machine(version)}\n\nCommand: `{command}`.\n\n" + "\n".join(table)
    )
    write_section(_PAGE, text, name="scale")
    print(text)
    return 0


def _row(disk: str, shape: Shape, found: dict[tuple[str, Shape], list[Found]]) -> str:
    rounds = found[disk, shape]
    rates = [one.pushes_per_second for one in rounds]
    one_node = [one.pushes_per_second for one in found[disk, _SHAPES[0]]]
    ratio = statistics.median(mine / other for mine, other in zip(rates, one_node, strict=True))
    waits = [one.p99_ms for one in rounds if one.p99_ms is not None]
    cells = [
        disk,
        shape.text,
        f"{statistics.median(rates):,.0f}",
        f"{ratio:.2f}",
        f"{statistics.median(waits):.1f}" if waits else "",
        f"{statistics.median(one.node_cpu_per_1000 for one in rounds):.3f}",
        f"{statistics.median(one.database_cpu_per_1000 for one in rounds):.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _measure(server: PostgresServer, shape: Shape, seconds: float) -> Found:
    url = server.create_database("scale")
    try:
        with tempfile.TemporaryDirectory(dir=find_shared_place(on_disk=True)) as directory:
            upgraded = ServeProcess(Path(directory), url).run("db", "upgrade")
            if upgraded.returncode:
                raise RuntimeError(upgraded.stderr)
            run = _run_nodes if shape.nodes else _run_writers
            return run(server, url, shape, seconds, Path(directory))
    finally:
        server.drop_database("scale")


def _run_nodes(server: PostgresServer, url: str, shape: Shape, seconds: float, directory: Path) -> Found:
    with ExitStack() as stack:
        nodes = []
        for number in range(shape.nodes):
            place = directory / str(number)
            place.mkdir()
            node = ServeProcess(place, url, arguments=("--workers", str(shape.processes)), patient=False)
            nodes.append(stack.enter_context(node))
        masters = [node.await_worker()[0] for node in nodes]
        loads = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.bench.load", "--clients", str(_CLIENTS_EACH)),
                    *("--seconds", str(seconds), "--pid", str(masters[number % shape.nodes])),
                    *("--url", f"http://127.0.0.1:{nodes[number % shape.nodes].port}/push/{SECRET}"),
                ],
                stdout=subprocess.PIPE,
            )
            for number in range(_GENERATORS)
        ]
        used_before = _used(server, masters)
        said = [load.communicate(timeout=seconds + 60)[0] for load in loads]
        used = _used(server, masters)
        results = [json.loads(text) for text in said]
        _require_stored(url, at_least := sum(result["acked"] for result in results))
    errors = sum(result["errors"] for result in results)
    if errors:
        raise RuntimeError(f"{errors} errors, the first: {results[0]['first_error']}")
    return Found(
        pushes_per_second=sum(result["pushes_per_second"] for result in results),
        p99_ms=max(result["p99_ms"] for result in results),
        node_cpu_per_1000=1000 * (used[1] - used_before[1]) / at_least,
        database_cpu_per_1000=1000 * (used[0] - used_before[0]) / at_least,
    )


def _run_writers(server: PostgresServer, url: str, shape: Shape, _seconds: float, _directory: Path) -> Found:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(shape.processes + 1)
    done = context.Barrier(shape.processes + 1)
    writers = [context.Process(target=_write, args=(url, number, ready, done)) for number in range(shape.processes)]
    for writer in writers:
        writer.start()
    ready.wait(60)
    own = [writer.pid or 0 for writer in writers]
    used_before, begun = _used(server, own), time.perf_counter()
    done.wait(120)
    took, used = time.perf_counter() - begun, _used(server, own)
    for writer in writers:
        writer.join(30)
    saved = shape.processes * _PUSHES_EACH
    _require_stored(url, saved)
    return Found(
        pushes_per_second=saved / took,
        p99_ms=None,
        node_cpu_per_1000=1000 * (used[1] - used_before[1]) / saved,
        database_cpu_per_1000=1000 * (used[0] - used_before[0]) / saved,
    )


def _write(url: str, number: int, ready: Barrier, done: Barrier) -> None:
    pushes = [make_push(task_id=f"{number}-{one}", mobile=f"150{one:08d}") for one in range(_PUSHES_EACH)]
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=60)
    save_pushes_in(database, pushes[:1])
    ready.wait(60)
    for begin in range(1, _PUSHES_EACH, _BATCH):
        save_pushes_in(database, pushes[begin : begin + _BATCH])
    done.wait(120)
    database.close()


def _used(server: PostgresServer, masters: list[int]) -> tuple[float, float]:
    """Give the seconds of processor time so far: of the database, of what takes the pushes."""
    assert server.pid is not None
    return cpu_seconds(list_tree(server.pid)), sum(cpu_seconds(list_tree(master)) for master in masters)


def _require_stored(url: str, at_least: int) -> None:
    with psycopg.connect(url) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM pushes").fetchone() or (0,)
    if stored < at_least:
        raise RuntimeError(f"acknowledged {at_least} pushes, stored {stored}")


if __name__ == "__main__":
    sys.exit(main())
