"""`python -m tests.bench.scale`: one node against two on the same PostgreSQL, what that server takes by itself, and two
nodes with a server each, as accounts on databases of their own have them.

All share the machine's cores with the load, so what counts beside the rate is the processor time that a push takes of a
node and of the database: from it follows what either can take on cores of its own.
"""

from __future__ import annotations

import argparse
import json
import os
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

from tests.bench.contestants import ROOT, await_projected, await_true
from tests.bench.report import publish
from tests.bench.slow_fsync import build_slow_fsync
from tests.bench.usage import cpu_seconds, list_tree
from tests.harness.leaks import SECRET
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH = 100
_PUSHES_EACH = 40_000  # that a writer without a receiver saves
_GENERATORS = 2
_CLIENTS_EACH = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What takes the pushes: so many nodes of so many serving processes each; no node: the database alone."""

    nodes: int
    processes: int  # of each node; without a node: writers that hand over ready batches
    databases: int = 1  # each on a server of its own; as many as nodes, or one for all
    projects: bool = True  # without a node: while they append, and until all is projected
    recorded: bool = False  # without a node: the sends are recorded before

    @property
    def text(self) -> str:
        """It in words."""
        if not self.nodes:
            writers = f"{self.processes} writer{'s' * (self.processes > 1)}"
            told = ", appends alone" * (not self.projects) + ", sends recorded before" * self.recorded
            return f"no node: {writers} of ready batches of {_BATCH}{told}"
        own = ", a database each" * (self.databases > 1)
        return (
            f"{self.nodes} node{'s' * (self.nodes > 1)} of {self.processes} process{'es' * (self.processes > 1)}{own}"
        )


_SHAPES = (
    Shape(nodes=1, processes=1),
    Shape(nodes=2, processes=1),
    Shape(nodes=2, processes=1, databases=2),
    Shape(nodes=1, processes=2),
    Shape(nodes=0, processes=1, projects=False),
    Shape(nodes=0, processes=1),
    Shape(nodes=0, processes=1, recorded=True),
    Shape(nodes=0, processes=2, projects=False),
    Shape(nodes=0, processes=2),
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A tree of the program, and what a writer of ready batches calls there, as MODULE:NAME."""

    tree: Path = ROOT
    database: str = "receiver.db.engine:Database"
    save: str = "receiver.messages.journal:append"
    make_push: str = "tests.harness.factories:make_push"
    projects: bool = True  # what follows from a push comes after it is saved


_THIS = Program()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run found."""

    pushes_per_second: float
    p99_ms: float | None  # None: nobody waited for an answer
    node_cpu_per_1000: float  # seconds, of all nodes together
    database_cpu_per_1000: float
    wal_bytes: float  # a push


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", metavar="TEXT", default="", help="shapes whose words hold this, on the disk as it is")
    given = parser.parse_args()
    shapes = [shape for shape in _SHAPES if given.only in shape.text]
    if not shapes:
        parser.error(f"no shape has {given.only!r} in its words")
    found: dict[tuple[str, Shape], list[Found]] = defaultdict(list)
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(dir=find_shared_place(on_disk=False)))
        stack.callback(shutil.rmtree, place)
        place.chmod(0o755)
        preloads = {"as it is": ""} if given.only else {"as it is": "", "+ 2 ms": build_slow_fsync(place, 2)}
        servers = {
            disk: [stack.enter_context(PostgresServer(preload=preload)) for _ in range(2)]
            for disk, preload in preloads.items()
        }
        for _ in range(given.rounds):
            for disk, pair in servers.items():
                for shape in shapes:
                    one = measure(pair, shape, given.seconds)
                    found[disk, shape].append(one)
                    print(f"{disk}, {shape.text}: {one.pushes_per_second:,.0f}/s", file=sys.stderr)
        version = servers["as it is"][0].version
    columns = (
        "disk",
        "takes the pushes",
        "pushes/s",
        f"against {shapes[0].text}",
        "p99 ms",
        "nodes' CPU s per 1,000",
        "databases'",
        "WAL bytes a push",
    )
    table = ["| " + " | ".join(columns) + " |", "|---|---|" + "--:|" * (len(columns) - 2)]
    table += [_row(disk, shape, shapes[0], found) for disk in servers for shape in shapes]
    publish(
        "scale",
        "One node and two on the same PostgreSQL",
        f"{_GENERATORS * _CLIENTS_EACH} clients that each wait for the answer before the next push, half of them to "
        f"each of two nodes; medians of {given.rounds} rounds in turns, every one on an empty database. The load, the "
        "nodes and PostgreSQL share the cores; the disk is the machine's own, and again with 2 ms more for each fsync. "
        "Without a node, the function that a node calls appends batches that were made before, with a projector beside "
        "it until all is projected, unless it says otherwise. *A database each*: two servers of PostgreSQL.",
        table,
        version=version,
    )
    return 0


def _row(disk: str, shape: Shape, against: Shape, found: dict[tuple[str, Shape], list[Found]]) -> str:
    rounds = found[disk, shape]
    rates = [one.pushes_per_second for one in rounds]
    others = [one.pushes_per_second for one in found[disk, against]]
    ratio = statistics.median(mine / other for mine, other in zip(rates, others, strict=True))
    waits = [one.p99_ms for one in rounds if one.p99_ms is not None]
    cells = [
        disk,
        shape.text,
        f"{statistics.median(rates):,.0f}",
        f"{ratio:.2f}",
        f"{statistics.median(waits):.1f}" if waits else "",
        f"{statistics.median(one.node_cpu_per_1000 for one in rounds):.3f}",
        f"{statistics.median(one.database_cpu_per_1000 for one in rounds):.3f}",
        f"{statistics.median(one.wal_bytes for one in rounds):,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def measure(servers: Sequence[PostgresServer], shape: Shape, seconds: float, program: Program = _THIS) -> Found:
    """Measure one shape on empty databases; all that was acknowledged must be stored, and projected.

    `servers`: as many as the shape has databases, or more.
    """
    used = servers[: shape.databases]
    with ExitStack() as stack:
        urls = []
        for server in used:
            stack.callback(server.drop_database, "scale")
            urls.append(server.create_database("scale"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=find_shared_place(on_disk=True))))
        for url in urls:
            _upgrade(directory, url, program)
        if shape.nodes:
            return _run_nodes(used, urls, shape, seconds, directory, program)
        return _run_writers(used[0], urls[0], shape, program)


def fill_embedded(data_dir: Path, rows: int, program: Program) -> None:
    """Make an embedded database with so many messages, from their receipts."""
    _upgrade(data_dir, "", program)
    url = f"sqlite:///{data_dir / 'receiver.db'}"
    for first in range(0, rows, _PUSHES_EACH):
        with _writer(url, first, _SHAPES[-1], program, min(_PUSHES_EACH, rows - first)) as writer:
            _hear([writer], "ready")
            print(file=writer.stdin, flush=True)
            _hear([writer], "done")


def _upgrade(data_dir: Path, url: str, program: Program) -> None:
    upgraded = _node(data_dir, url, program).run("db", "upgrade")
    if upgraded.returncode:
        raise RuntimeError(upgraded.stderr)


def _node(place: Path, url: str, program: Program, processes: int = 1) -> ServeProcess:
    tree = {"PYTHONPATH": str(program.tree)}
    return ServeProcess(place, url, arguments=("--workers", str(processes)), environment=tree, patient=False)


def _run_nodes(
    servers: Sequence[PostgresServer],
    urls: Sequence[str],
    shape: Shape,
    seconds: float,
    directory: Path,
    program: Program,
) -> Found:
    with ExitStack() as stack:
        nodes = []
        for number in range(shape.nodes):
            place = directory / str(number)
            place.mkdir()
            url = urls[number % len(urls)]
            nodes.append(stack.enter_context(_node(place, url, program, shape.processes)))
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
        used_before, wal_before = _used(servers, masters), _wal_bytes(urls)
        said = [load.communicate(timeout=seconds + 60)[0] for load in loads]
        results = [json.loads(text) for text in said]
        acked = sum(result["acked"] for result in results)
        for number, url in enumerate(urls):
            _await_stored(url, sum(result["acked"] for result in results[number :: len(urls)]), program)
        used, wal = _used(servers, masters), _wal_bytes(urls)
    errors = sum(result["errors"] for result in results)
    if errors:
        raise RuntimeError(f"{errors} errors, the first: {results[0]['first_error']}")
    return Found(
        pushes_per_second=sum(result["pushes_per_second"] for result in results),
        p99_ms=max(result["p99_ms"] for result in results),
        node_cpu_per_1000=1000 * (used[1] - used_before[1]) / acked,
        database_cpu_per_1000=1000 * (used[0] - used_before[0]) / acked,
        wal_bytes=(wal - wal_before) / acked,
    )


def _run_writers(server: PostgresServer, url: str, shape: Shape, program: Program) -> Found:
    with ExitStack() as stack:
        writers = [stack.enter_context(_writer(url, number, shape, program)) for number in range(shape.processes)]
        _hear(writers, "ready")
        own = [writer.pid for writer in writers]
        wal_before = _wal_bytes([url])
        used_before, begun = _used([server], own), time.perf_counter()
        for writer in writers:
            print(file=writer.stdin, flush=True)
        _hear(writers, "done")
        took, used = time.perf_counter() - begun, _used([server], own)
        wal = _wal_bytes([url])
    saved = shape.processes * _PUSHES_EACH
    if shape.projects or not program.projects:
        _await_stored(url, saved, program)
    return Found(
        pushes_per_second=saved / took,
        p99_ms=None,
        node_cpu_per_1000=1000 * (used[1] - used_before[1]) / saved,
        database_cpu_per_1000=1000 * (used[0] - used_before[0]) / saved,
        wal_bytes=(wal - wal_before) / saved,
    )


def _writer(url: str, number: int, shape: Shape, program: Program, pushes: int = _PUSHES_EACH) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", str(Path(__file__).with_name("ready_batches.py"))]
    command += [url.replace("postgresql://", "postgresql+psycopg://"), "--prefix", str(number)]
    command += ["--pushes", str(pushes), "--batch", str(_BATCH)]
    command += ["--database", program.database, "--save", program.save, "--make-push", program.make_push]
    command += ["--project"] * (shape.projects and program.projects) + ["--recorded"] * shape.recorded
    environment = {**os.environ, "PYTHONPATH": str(program.tree)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _hear(writers: list[subprocess.Popen[str]], word: str) -> None:
    for writer in writers:
        assert writer.stdout is not None
        if (said := writer.stdout.readline().strip()) != word:
            raise RuntimeError(f"a writer said {said!r} and not {word!r}")


def _used(servers: Sequence[PostgresServer], masters: list[int]) -> tuple[float, float]:
    """Give the seconds of processor time so far: of the databases, of what takes the pushes."""
    databases = [server.pid for server in servers if server.pid is not None]
    return (
        sum(cpu_seconds(list_tree(database)) for database in databases),
        sum(cpu_seconds(list_tree(master)) for master in masters),
    )


def _wal_bytes(urls: Sequence[str]) -> float:
    """Give what the servers of these databases have written to their logs so far."""
    total = 0.0
    for url in urls:
        with psycopg.connect(url) as connection:
            (written,) = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").fetchone() or (0,)
            total += float(written)
    return total


def _await_stored(url: str, at_least: int, program: Program) -> None:
    """Wait until all are stored and projected; a node may have spooled some. Raises TimeoutError."""
    with psycopg.connect(url, autocommit=True) as connection:

        def count(query: str) -> int:
            return int((connection.execute(query).fetchone() or (0,))[0])

        await_true(lambda: count("SELECT count(*) FROM pushes") >= at_least, "pushes are missing")
        if program.projects:
            await_projected(connection)
        await_true(lambda: count("SELECT sum(copies) FROM receipts") >= at_least, "receipts are missing")


if __name__ == "__main__":
    sys.exit(main())
