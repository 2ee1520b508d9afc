"""`python -m tests.bench.older`: this tree beside commit 17a1081, where one transaction did all that a push asks for.

That commit is taken out of the history and run by the same interpreter. Its acknowledgement waited for message, receipt
and report; this one's waits for the journal, and the rest is projected later. So processor time, of server and
database, is counted until all is projected; then pushes and receipts are counted against the acknowledgements. The
programs take turns, burst by burst, each on an empty database unless a part says otherwise; load, servers and
PostgreSQL (1 GB of buffers) share the cores. The older program has the system's SQLite, this one its own. Each part is
a section of the page, with the ratios to the older program in brackets.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import scale
from tests.bench.contestants import CONTESTANTS, ROOT, Burst, Contestant, run_burst
from tests.bench.report import command_line, describe_machine, write_section
from tests.bench.scale import Program, Shape
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from tests.bench.load import LoadResult

COMMIT = "17a1081"
_THIS, _OLDER, _HELD = "receiver", f"receiver-{COMMIT}", "receiver, projection held back"
_CLIENTS = 32
_SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}
_NODES = (Shape(nodes=1, processes=1), Shape(nodes=2, processes=1))
_BATCHES = tuple(
    Shape(nodes=0, processes=writers, projects=projects) for writers in (1, 2) for projects in (False, True)
)


@dataclass(frozen=True)
class Bench:
    """What all parts are measured with."""

    given: argparse.Namespace
    server: PostgresServer
    place: Path  # a folder for a while
    contestants: dict[str, Contestant]
    programs: dict[str, Program]  # this and the older one


@dataclass(frozen=True)
class Row:
    """One program under one load: a line of the table."""

    shape: tuple[str, ...]  # the same for those that are compared
    program: str


Figures = dict[str, float]  # by the columns' heads
Bursts = dict[Row, Callable[[], Figures]]
Found = dict[Row, list[Figures]]


@dataclass(frozen=True)
class Part:
    """One question, and what measures it: a round at a time."""

    title: str
    about: str
    shape: tuple[str, ...]  # heads of the columns that tell the load
    columns: tuple[str, ...]  # of `_FORMATS`
    bursts: Callable[[Bench], Bursts]  # a round of them, in turn
    across: str = ""  # of a program's lines the first, with which its others are compared


def main() -> int:
    """Measure, write a section for each part, and give the exit code: 1 if anything failed."""
    given = _parse_arguments()
    failed = False
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer(_SERVER))
        place = find_shared_place(on_disk=True)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receiver-older-", dir=place)))
        older = take_older(place / "tree")
        contestants = {
            **CONTESTANTS,
            _OLDER: replace(CONTESTANTS[_THIS], name=_OLDER, tree=older.tree, projects=False),
            _HELD: CONTESTANTS[_THIS],
        }
        bench = Bench(given, server, place, contestants, {_THIS: Program(), _OLDER: older})
        for name in given.only:
            found, failures = _measure(PARTS[name], bench)
            section = _write(PARTS[name], given, found, failures, server.version)
            write_section(given.out, section, name=f"older-{name}")
            print(section, end="\n\n", flush=True)
            failed = failed or bool(failures)
    return 1 if failed else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each burst, but for those of `held`")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--held-seconds", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=10_000_000, help="messages that `full` pushes into, on PostgreSQL")
    parser.add_argument("--embedded-rows", type=int, default=1_000_000, help="the same on SQLite")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("deploy/BENCHMARKS.md"), help="the page to write into")
    given = parser.parse_args()
    if unknown := set(given.only) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    return given


def take_older(tree: Path) -> Program:
    """Take the older program out of the history. Raises LookupError where that does not reach back so far."""
    taken = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if taken.returncode != 0:
        raise LookupError(f"{COMMIT} is not in the history here: {taken.stderr.decode().strip()}")
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", str(tree)], input=taken.stdout, check=True)
    return Program(
        tree=tree,
        database="receiver.store.database:Database",
        save="receiver.store.write:save_pushes_in",
        make_push="tests.factories:make_push",
        projects=False,
    )


def _measure(part: Part, bench: Bench) -> tuple[Found, list[str]]:
    failures = []
    bursts = part.bursts(bench)
    found: Found = {row: [] for row in bursts}  # in this order, whoever is measured first
    for number in range(1, bench.given.rounds + 1):
        for row, burst in list(bursts.items())[:: 1 if number % 2 else -1]:  # nobody is always the first
            title = f"{part.title}, round {number}: {', '.join(row.shape)}, {row.program}"
            try:
                found[row].append(burst())
            except Exception as error:  # noqa: BLE001  (one that fails must not cost the others' results)
                failures.append(f"{title}: {error}")
                print(failures[-1], file=sys.stderr)
                continue
            print(f"{title}: {found[row][-1]}", file=sys.stderr)
    return found, failures


# --- Over HTTP ----------------------------------------------------------------------------------------


def _over_http(bench: Bench, database: str, name: str, burst: Burst, into: str | Path = "") -> Callable[[], Figures]:
    server = bench.server if database == "postgresql" else None
    return lambda: _figures(run_burst(bench.contestants[name], database, server, burst, into=into))


def _figures(result: LoadResult) -> Figures:
    used = {name: 1000 * usage.cpu_seconds_per_1000 for name, usage in result.usage.items()}
    return {
        "pushes/s": result.pushes_per_second,
        "p50 ms": result.p50_ms,
        "p99 ms": result.p99_ms,
        "slowest ms": result.max_ms,
        "CPU µs a push": sum(used.values()),
        "the program's": used["server"],
        "the database's": used.get("database", 0.0),
        "projected after s": result.settle_seconds,
        "errors": result.errors,
    }


_LOAD = ("database", "clients")


def _bursts(bench: Bench, bursts: Sequence[Burst], names: Sequence[str] = (_THIS, _OLDER)) -> Bursts:
    """Both programs on both databases, and others where they can."""
    return {
        Row((database, str(burst.clients)), name): _over_http(
            bench, database, name, replace(burst, projects=name != _HELD)
        )
        for database in ("postgresql", "sqlite")
        for burst in bursts
        for name in names
        if database in bench.contestants[name].databases and (name != _HELD or database == "postgresql")
    }


def _burst(bench: Bench, clients: int, *, per_push: bool = False, seconds: float | None = None) -> Burst:
    given = bench.given
    return Burst(clients=clients, per_push=per_push, seconds=seconds or given.seconds, warm_up_seconds=given.warm_up)


def _full(bench: Bench) -> Bursts:
    """Fill a database of each kind by each program, once; it grows by the bursts."""
    rows: Bursts = {}
    for name, program in bench.programs.items():
        url = bench.server.create_database(f"full_{len(rows)}")
        fill = [sys.executable, "-P", "-m", "tests.bench.fill", url, "--messages", str(bench.given.rows)]
        environment = {**os.environ, "PYTHONPATH": str(program.tree)}
        subprocess.run(fill, cwd=program.tree, env=environment, check=True)
        data_dir = bench.place / f"full-{len(rows)}"
        data_dir.mkdir()
        scale.fill_embedded(data_dir, bench.given.embedded_rows, program)
        for database, count, filled in (
            ("postgresql", bench.given.rows, url),
            ("sqlite", bench.given.embedded_rows, data_dir),
        ):
            for there, into in (("none", ""), (f"{count:,}", filled)):
                rows[Row((database, there), name)] = _over_http(bench, database, name, _burst(bench, _CLIENTS), into)
    # So that the programs take turns, and those into none come first.
    return dict(sorted(rows.items(), key=lambda item: (item[0].shape[0], item[0].shape[1] != "none")))


# --- Nodes, and ready batches -------------------------------------------------------------------------


def _shapes(bench: Bench, shapes: Sequence[Shape]) -> Bursts:
    def measure(shape: Shape, program: Program) -> Figures:
        found = scale.measure([bench.server], shape, bench.given.seconds, program)
        return {
            "pushes/s": found.pushes_per_second,
            "p99 ms": found.p99_ms or 0.0,
            "CPU µs a push": 1000 * (found.node_cpu_per_1000 + found.database_cpu_per_1000),
            "the program's": 1000 * found.node_cpu_per_1000,
            "the database's": 1000 * found.database_cpu_per_1000,
        }

    return {
        Row((shape.text,), name): partial(measure, shape, program)
        for shape in shapes
        for name, program in bench.programs.items()
    }


# --- The page -----------------------------------------------------------------------------------------

_FORMATS = {
    "pushes/s": ",.0f",
    "p50 ms": ".2f",
    "p99 ms": ".1f",
    "slowest ms": ",.0f",
    "CPU µs a push": ",.0f",
    "the program's": ",.0f",
    "the database's": ",.0f",
    "projected after s": ".2f",
    "errors": ".0f",
}
_COMPARED = ("pushes/s", "p50 ms", "p99 ms", "CPU µs a push")
_HTTP = tuple(_FORMATS)
_NODE = ("pushes/s", "p99 ms", "CPU µs a push", "the program's", "the database's")

PARTS = {
    "kept": Part(
        "kept connections",
        f"*{_HELD}*: its turn is taken by another, so nothing is projected while its time is counted.",
        _LOAD,
        _HTTP,
        lambda bench: _bursts(
            bench, [_burst(bench, clients) for clients in (32, 128)], (_THIS, _OLDER, "fastify", _HELD)
        ),
    ),
    "lone": Part(
        "one client, one push after the other", "", _LOAD, _HTTP, lambda bench: _bursts(bench, [_burst(bench, 1)])
    ),
    "each": Part(
        "a connection for each push",
        "",
        _LOAD,
        _HTTP,
        lambda bench: _bursts(bench, [_burst(bench, _CLIENTS, per_push=True)]),
    ),
    "held": Part(
        "held",
        "Here each burst lasts 60 s, or `--held-seconds`.",
        _LOAD,
        _HTTP,
        lambda bench: _bursts(bench, [_burst(bench, _CLIENTS, seconds=bench.given.held_seconds)]),
    ),
    "batches": Part(
        "ready batches, straight into PostgreSQL",
        "As `tests.bench.scale` has it, 40,000 pushes a writer; the older program saves all, also in *appends alone*.",
        ("writers",),
        tuple(column for column in _NODE if column != "p99 ms"),
        lambda bench: _shapes(bench, _BATCHES),
    ),
    "nodes": Part(
        "two nodes on one PostgreSQL",
        "As `tests.bench.scale` has it, 32 clients to each node or 64 to the one.",
        ("nodes",),
        _NODE,
        lambda bench: _shapes(bench, _NODES),
        across="1 node",
    ),
    "full": Part(
        "into millions of messages",
        f"{_CLIENTS} clients, kept connections.",
        ("database", "messages there"),
        _HTTP,
        _full,
        across="none there",
    ),
}


def _write(part: Part, given: argparse.Namespace, found: Found, failures: Sequence[str], version: str) -> str:
    compared = [column for column in part.columns if column in _COMPARED]
    heads = [*part.shape, "program", *part.columns, "lowest–highest pushes/s"]
    heads += [f"against {part.across}: pushes/s, CPU"] * bool(part.across)
    lines = [
        f"## Beside commit {COMMIT}: {part.title}",
        "",
        f"Medians of {given.rounds} bursts of {given.seconds:g} s. {part.about}".rstrip(),
        f"{describe_machine(version)} Command: `{command_line()}`.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * (len(part.shape) + 1) + "--:|" * (len(heads) - len(part.shape) - 1),
    ]
    medians = {
        row: {column: statistics.median(figures[column] for figures in rounds) for column in part.columns}
        for row, rounds in found.items()
        if rounds
    }
    for row, mine in medians.items():
        older = medians.get(replace(row, program=_OLDER), {}) if row.program != _OLDER else {}
        cells = [*row.shape, row.program]
        for column, value in mine.items():
            ratio = f" ({value / older[column]:.2f} ×)" if column in compared and older.get(column) else ""
            cells.append(f"{value:{_FORMATS[column]}}{ratio}" if value or column != "the database's" else "")
        rates = [figures["pushes/s"] for figures in found[row]]
        cells.append(f"{min(rates):,.0f}–{max(rates):,.0f}")
        if part.across:
            cells.append(_against_first(row, medians))
        lines.append("| " + " | ".join(cells) + " |")
    if failures:
        lines += ["", "What failed:", "", *(f"- {' '.join(failure.split())[:300]}" for failure in failures)]
    return "\n".join(lines)


def _against_first(row: Row, medians: dict[Row, Figures]) -> str:
    """Give the ratios to the first line of the same program and database."""
    alike = (other for other in medians if other.program == row.program and other.shape[:-1] == row.shape[:-1])
    first = next(alike)
    if first == row:
        return ""
    return ", ".join(f"{medians[row][column] / medians[first][column]:.2f}" for column in ("pushes/s", "CPU µs a push"))


if __name__ == "__main__":
    sys.exit(main())
