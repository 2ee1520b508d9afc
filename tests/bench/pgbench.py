"""PostgreSQL's own measure, pgbench: one row for each commit, and no HTTP."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.bench.load import LoadResult, Usage, percentile_ms
from tests.bench.usage import cpu_seconds, list_tree, peak_rss_bytes
from tests.harness.postgres_binaries import find_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCRIPT = Path(__file__).parent / "rivals/pgbench.sql"
_TABLE = """CREATE TABLE pushes (id bigserial PRIMARY KEY, mobile text, taskid text, status text,
    receivetime timestamp, raw text, UNIQUE (taskid, mobile, status, receivetime))"""


def run_pgbench(database_url: str, *, clients: int, seconds: float, watch: Mapping[str, int]) -> LoadResult:
    """Insert rows one a commit for so many seconds, and tell how it went. Raises LookupError without pgbench."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_TABLE)
    before = {name: cpu_seconds(list_tree(root)) for name, root in watch.items()}
    with tempfile.TemporaryDirectory() as directory:
        command = [_program(), "--no-vacuum", "--protocol=prepared", f"--file={_SCRIPT}", "--log"]
        command += [f"--client={clients}", "--jobs=1", f"--time={max(1, round(seconds))}", database_url]
        begun = time.perf_counter()
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
        took = time.perf_counter() - begun
        lines = [line for file in Path(directory).glob("pgbench_log.*") for line in file.read_text().splitlines()]
    latencies = [int(line.split()[2]) / 1e6 for line in lines]
    usage = {
        name: Usage(
            cpu_seconds_per_1000=round(1000 * (cpu_seconds(list_tree(root)) - before[name]) / len(latencies), 4),
            peak_rss_bytes=peak_rss_bytes(list_tree(root)),
        )
        for name, root in watch.items()
    }
    return LoadResult(
        clients=clients,
        per_push=False,
        seconds=round(took, 3),
        pushes_per_second=round(len(latencies) / max(1, round(seconds)), 1),
        p50_ms=percentile_ms(latencies, 0.50),
        p99_ms=percentile_ms(latencies, 0.99),
        max_ms=percentile_ms(latencies, 1),
        errors=0,
        first_error="",
        reconnects=0,
        acked=len(latencies),
        generator_cpu=0.0,
        settle_seconds=0.0,
        usage={"server": Usage(cpu_seconds_per_1000=0.0, peak_rss_bytes=0), **usage},
    )


def _program() -> str:
    beside = find_binaries() / "pgbench"
    found = str(beside) if beside.exists() else shutil.which("pgbench")
    found = found or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))), None)
    if found is None:
        raise LookupError("pgbench is not there")
    return found
