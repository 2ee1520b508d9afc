"""`python -m tests.bench.exports`: exports of a list against psql's COPY of its bare rows, in turns, on PostgreSQL.

Beside the seconds stands the processor time of the server, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from receiver.db.engine import Database
from receiver.messages.export_files import FileFormat, iter_file
from receiver.messages.queries import Clock, Filter
from tests.bench.fill import fill
from tests.bench.report import publish
from tests.bench.usage import cpu_seconds, list_tree, peak_rss_bytes
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import as_unprivileged, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = Path("deploy/BENCHMARKS.md")
_TABLES = ("messages", "receipts")
_COPY = "psql's COPY"
_FORMS = (FileFormat.CSV, FileFormat.NDJSON, FileFormat.PARQUET)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one export took."""

    seconds: float
    server_seconds: float  # of its processors
    rss: tuple[float, float] = (0, 0)  # peak MB after a tenth of the rows, and after all


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=_PAGE, help="the page to write into")
    given = parser.parse_args()
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with PostgresServer() as server:
        assert server.pid is not None
        url = server.create_database("exports")
        fill(url, given.rows)
        for number in range(given.rounds):
            for table in _TABLES:
                found[table, _COPY].append(_timed(server.pid, partial(_copy, url, table)))
                for form in _FORMS:
                    run = _timed(server.pid, partial(_in_process, url, table, form, given.rows))
                    found[table, form].append(run)
                print(f"round {number + 1}: {table}", file=sys.stderr)
        version = server.version
    lines = ["| | seconds | of COPY's rate | server's CPU s | peak memory |", "|---|--:|--:|--:|--:|"]
    lines += [_row(table, way, found) for table in _TABLES for way in (_COPY, *_FORMS)]
    publish(
        "exports",
        "Exports",
        f"{given.rows:,} messages, masked, without the process's start, against psql's COPY of the bare "
        f"rows of the table in the same round; medians of {given.rounds} rounds. Those of receipts look up each one's "
        "message, which the bare rows lack. Memory: the process's peak, after a tenth of the rows and after all. An "
        "XLSX is written at some 50,000 rows per second of one core, and leaves while it is written.",
        lines,
        version=version,
        page=given.out,
    )
    return 0


def _row(table: str, way: str, found: dict[tuple[str, str], list[Run]]) -> str:
    runs, bare = found[table, way], found[table, _COPY]
    ratio = statistics.median(one.seconds / mine.seconds for mine, one in zip(runs, bare, strict=True))
    server = statistics.median(run.server_seconds for run in runs)
    before, after = (statistics.median(run.rss[place] for run in runs) for place in (0, 1))
    memory = f"{before:.0f} MB, {after:.0f} MB" if after else ""
    seconds = statistics.median(run.seconds for run in runs)
    return f"| {table}, {way} | {seconds:.2f} | {ratio:.2f} | {server:.2f} | {memory} |"


def _timed(server: int, work: Callable[[], tuple[float, tuple[float, float]]]) -> Run:
    before = cpu_seconds(list_tree(server))
    seconds, rss = work()
    time.sleep(0.2)  # the session ends, and its time is its parent's
    used = cpu_seconds(list_tree(server)) - before
    return Run(seconds=seconds, server_seconds=used, rss=rss)


def _copy(url: str, table: str) -> tuple[float, tuple[float, float]]:
    statement = f"COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT (FORMAT csv)"
    begun = time.perf_counter()
    command = [str(find_binaries() / "psql"), url, "-qXc", statement]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, **as_unprivileged())
    return time.perf_counter() - begun, (0, 0)


def _in_process(url: str, table: str, form: FileFormat, rows: int) -> tuple[float, tuple[float, float]]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_export, (url, table, form, rows))


def _export(url: str, table: str, form: FileFormat, rows: int) -> tuple[float, tuple[float, float]]:
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=3600)
    clock = Clock(now=datetime.now(UTC), late_after=timedelta(minutes=1), no_receipt_after=timedelta(days=3))

    def export(wanted: Filter) -> None:
        with database.reading() as connection:
            pieces = iter_file(connection, table, form, wanted, clock, in_full=False, zone=ZoneInfo("Asia/Shanghai"))
            for _ in pieces:
                pass

    export(Filter(to_id=rows // 10))
    before = peak_rss_bytes([os.getpid()])
    begun = time.perf_counter()
    export(Filter())
    seconds = time.perf_counter() - begun
    return seconds, (before / 1e6, peak_rss_bytes([os.getpid()]) / 1e6)


if __name__ == "__main__":
    sys.exit(main())
