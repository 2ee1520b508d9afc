"""Measurements as a page that people read: medians, what they were measured on, and how to repeat it."""

from __future__ import annotations

import os
import platform
import shlex
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.contestants import CONTESTANTS, PGBENCH
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.bench.load import LoadResult

_TITLE = "# Benchmarks\n"
_FSYNCS = 200
_COLUMNS = (
    "database",
    "clients",
    "connection",
    "server",
    "pushes/s",
    "lowest–highest",
    "against naive",
    "against fastify",
    "p50 ms",
    "p99 ms",
    "max ms",
    "CPU s per 1,000",
    "database's",
    "peak RSS MB",
    "errors",
)
_TEXT_COLUMNS = {"database", "connection", "server"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One contestant under one load on one database."""

    contestant: str
    database: str
    clients: int
    per_push: bool
    slow_closers: int = 0

    @property
    def connection(self) -> str:
        """How its clients use their connections, in words."""
        kind = "each push" if self.per_push else "kept"
        return f"{kind}, {self.slow_closers} do not close" if self.slow_closers else kind


def render(
    results: Mapping[Cell, Sequence[LoadResult]],
    failures: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    postgres_version: str,
) -> str:
    """Write the section: its words, its table, and what went wrong if anything did."""
    used = {(cell.contestant, cell.database) for cell in results}
    lines = [
        _explain(rounds, seconds),
        "",
        describe_machine(postgres_version),
        "",
        f"Command: `{command_line()}`. Servers:",
        "",
        *(
            f"- {name} ({database}): `{_shown_command(name, database)}`"
            for name, database in sorted(used)
            if database != "postgresql+2ms"
        ),
        "",
        *_table(results),
    ]
    if failures:
        lines += ["", "What failed:", "", *(f"- {' '.join(failure.split())[:300]}" for failure in failures)]
    return "\n".join(lines)


def describe_machine(postgres_version: str) -> str:
    """Tell what the numbers were measured on, in one line; without a version, PostgreSQL had no part in them."""
    postgres = f"PostgreSQL {postgres_version} (durable: fsync and synchronous_commit on), " if postgres_version else ""
    model = next((text for text in _cpu_models() if text), platform.machine())
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {len(os.sched_getaffinity(0))} cores ({model}), kernel "
        f"{platform.release()}, Python {platform.python_version()}, {postgres}SQLite {sqlite3.sqlite_version}; "
        f"a 4 KiB write with fsync takes {_fsync_ms():.2f} ms here (median)."
    )


def write_section(path: Path, section: str, *, name: str) -> None:
    """Put the section between its markers; the file's other text stays, and a missing file or section is made."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else _TITLE
    if begin in old and end in old:
        before, rest = old.split(begin, 1)
        after = rest.split(end, 1)[1]
    else:
        before, after = old.rstrip("\n") + "\n\n", "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n{section}\n{end}{after}", encoding="utf-8")


def publish(
    name: str, title: str, about: str, lines: Iterable[str], *, version: str, page: Path = Path("deploy/BENCHMARKS.md")
) -> None:
    """Write a section, and print it: what was done, on which machine, by which command, and its table."""
    machine, command = describe_machine(version), f"Command: `{command_line()}`."
    section = "\n".join([f"## {title}", "", about, "", machine, "", command, "", *lines])
    write_section(page, section, name=name)
    print(section)


def command_line() -> str:
    """Return how this program was called, with `URL` for each database."""
    spec = sys.modules["__main__"].__spec__
    program = spec.name.removesuffix(".__main__") if spec else sys.argv[0]
    words = ["URL" if "://" in word else word for word in sys.argv[1:] if word != "--write"]
    return shlex.join(["python", "-m", program, *words])


def _explain(rounds: int, seconds: float) -> str:
    measured = f"one round of {seconds:g} s" if rounds == 1 else f"the median of {rounds} rounds of {seconds:g} s"
    return (
        f"Each number is {measured} after a warm-up, the servers taking turns; every server is started anew on an "
        "empty database for each. A client sends one push and waits for its answer before the next; the load "
        "generator runs on the same cores. *CPU*: user and system time of the server's processes; the database "
        "server's beside it, both until the projection has caught up. *Peak RSS*: of the server's processes, added up. "
        "After every run the stored pushes, and a receiver's receipts, are counted against the acknowledged pushes."
    )


def _table(results: Mapping[Cell, Sequence[LoadResult]]) -> Iterable[str]:
    yield "| " + " | ".join(_COLUMNS) + " |"
    yield "|" + "|".join("---" if column in _TEXT_COLUMNS else "--:" for column in _COLUMNS) + "|"
    by_load: dict[tuple[str, int, bool, int], list[Cell]] = defaultdict(list)
    for cell in results:
        by_load[cell.database, cell.clients, cell.per_push, cell.slow_closers].append(cell)
    for (database, clients, _, _), cells in sorted(by_load.items()):
        for cell in cells:
            row = [database, str(clients), cell.connection, cell.contestant]
            rivals = [results.get(replace(cell, contestant=rival)) for rival in ("naive", "fastify")]
            yield "| " + " | ".join(row + _numbers(results[cell], rivals)) + " |"


def _shown_command(name: str, database: str) -> str:
    if name == PGBENCH:
        return "pgbench --no-vacuum --protocol=prepared --jobs=1 --file=tests/bench/rivals/pgbench.sql"
    command = " ".join(CONTESTANTS[name].command(database, "PORT"))
    shown = command.replace(sys.executable, "python").replace(f"{Path.cwd()}/", "")
    return f"RECEIVER_PUSH_LANE=off {shown}" if name == "receiver-no-lane" else shown


def _numbers(rounds: Sequence[LoadResult], rivals: Sequence[Sequence[LoadResult] | None]) -> list[str]:
    rates = [result.pushes_per_second for result in rounds]
    against = ["" if rival is None else f"{statistics.median(rates) / _median(rival, _rate):.1f} ×" for rival in rivals]
    has_database_server = "database" in rounds[0].usage
    return [
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}–{max(rates):,.0f}",
        *against,
        f"{_median(rounds, lambda result: result.p50_ms):.1f}",
        f"{_median(rounds, lambda result: result.p99_ms):.1f}",
        f"{_median(rounds, lambda result: result.max_ms):.1f}",
        f"{_median(rounds, lambda result: result.usage['server'].cpu_seconds_per_1000):.2f}",
        f"{_median(rounds, lambda result: result.usage['database'].cpu_seconds_per_1000):.2f}"
        if has_database_server
        else "",
        f"{_median(rounds, lambda result: result.usage['server'].peak_rss_bytes) / 1e6:.0f}",
        str(sum(result.errors for result in rounds)),
    ]


def _rate(result: LoadResult) -> float:
    return result.pushes_per_second


def _median(rounds: Sequence[LoadResult], value: Callable[[LoadResult], float]) -> float:
    return statistics.median(value(result) for result in rounds)


def _cpu_models() -> Iterable[str]:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()


def _fsync_ms() -> float:
    """Time what a commit waits for at least; it differs a hundredfold between disks."""
    taken = []
    with tempfile.TemporaryFile(dir=find_shared_place(on_disk=True)) as file:
        for _ in range(_FSYNCS):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken)
