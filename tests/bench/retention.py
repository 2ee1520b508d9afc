"""`python -m tests.bench.retention`: what a prune costs the pushes beside it, and how long a number takes to forget.

A journal of millions of pushes, a million of them past their days. The load is the same with and without the prune.
Then everything of one number is looked for in what is left, and deleted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from receiver.db import migrate
from receiver.db.engine import Database
from tests.bench.report import publish
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.postgres import PostgresServer
from tests.harness.server import ServeProcess

_ROOT = Path(__file__).parent.parent.parent
_SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}
_MOBILE = "13712345678"
_CLIENTS = 32
_SPELL_SECONDS = 10.0
# The first are older than the journal is kept for; ids as the gate gives them.
_FILL = """
INSERT INTO pushes (id, account, kind, outcome, method, query, body, content_type, remote_addr, received_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
        || substr(hash, 4, 15))::uuid, 'default', 'receipt', 'accepted', 'POST', ''::bytea,
       format('mobile=1%%s&taskid=%%s&status=1&receivetime=2026-11-23+09%%%%3A14%%%%3A03',
              lpad((n::bigint * 7919 %% 3000000000)::text, 10, '5'), 7000000000000000000 + n)::bytea,
       'application/x-www-form-urlencoded', '127.0.0.1', at
FROM (SELECT n, md5(n::text) AS hash,
             now() - CASE WHEN n <= %(old)s THEN interval '20 days' ELSE interval '13 days' END
             + n * interval '12 days' / %(count)s AS at
      FROM generate_series(1, %(count)s) AS n) AS drawn
"""


def measure(journal: int, old: int, rate: float) -> dict[str, Any]:
    """Prune so many of so many pushes under that load, and forget a number in the rest."""
    found: dict[str, Any] = {"journal": journal, "rate": rate}
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(_SERVER))
        url = postgres.create_database("retention")
        found["version"] = postgres.version
        _fill(url, journal, old)
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receiver-retention-")))
        node = stack.enter_context(ServeProcess(data_dir, url))
        target = f"http://127.0.0.1:{node.port}{node.target}"
        found["without"] = [_load(target, rate) for _ in range(2)]
        found["with"], found["prune_seconds"], found["pruned"] = _prune(node, target, rate)
        for name, arguments in (("look_seconds", ()), ("forget_seconds", ("--yes",))):
            begun = time.monotonic()
            found["rows"] = _run(node, "erase", "-", "--json", *arguments, stdin=f"{_MOBILE}\n")["rows"]
            found[name] = time.monotonic() - begun
        with psycopg.connect(url) as connection:
            (found["left"],) = connection.execute("SELECT count(*) FROM pushes").fetchone() or (0,)
    return found


def _fill(url: str, journal: int, old: int) -> None:
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=3600.0)
    migrate.upgrade(database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, {"count": journal, "old": old})
        connection.execute("VACUUM ANALYZE pushes")
    save_pushes(database, [make_push(mobile=_MOBILE, task_id=f"t{n}") for n in range(20)])
    database.close()


def _prune(node: ServeProcess, target: str, rate: float) -> tuple[list[dict[str, Any]], float, int]:
    """Load in spells from before the prune until after it."""
    loads: list[dict[str, Any]] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            loads.append(_load(target, rate))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        begun = time.monotonic()
        gone = _run(node, "prune", "--kind", "pushes", "--yes", "--now-is-right", "--json")["pushes"]
        taken = time.monotonic() - begun
    finally:
        done.set()
        thread.join()
    return loads, taken, gone


def _run(node: ServeProcess, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "receiver", *arguments],
        env=node.env,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=node.data_dir,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr + done.stdout)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _load(url: str, rate: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--clients", str(_CLIENTS)]
    command += ["--seconds", str(_SPELL_SECONDS), "--warm-up", "0.1", "--rate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _describe(found: dict[str, Any]) -> str:
    rows = [
        ("journal", f"{found['journal']:,} pushes"),
        ("load", f"{found['rate']:,.0f} pushes/s of {_CLIENTS} clients, in spells of ten seconds"),
        ("`receiver prune` under it", f"{found['pruned']:,} rows in {found['prune_seconds']:.0f} s"),
        ("acknowledgement without it: p50, p99 (medians), the slowest of all", _acknowledged(found["without"])),
        ("acknowledgement beside it: the same", _acknowledged(found["with"])),
        ("failed pushes", f"{sum(load['errors'] for load in (*found['without'], *found['with']))}"),
        (f"`receiver erase` on what is left, {found['left']:,} pushes: to look", f"{found['look_seconds']:.0f} s"),
        ("to look, delete and clean", f"{found['forget_seconds']:.0f} s"),
    ]
    return "\n".join(["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows)])


def _acknowledged(loads: list[dict[str, Any]]) -> str:
    p50, p99 = (statistics.median(load[name] for load in loads) for name in ("p50_ms", "p99_ms"))
    return f"{p50:.1f}, {p99:.1f}, {max(load['max_ms'] for load in loads):,.0f} ms"


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journal", type=int, default=4_000_000)
    parser.add_argument("--old", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1000.0)
    given = parser.parse_args()
    found = measure(given.journal, given.old, given.rate)
    publish(
        "retention",
        "Prune and forget",
        "Part of the journal goes while pushes come in; then everything of one number goes, "
        "twenty pushes of the rest. The load generator, the server, the commands and PostgreSQL share the cores.",
        [_describe(found)],
        version=found["version"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
