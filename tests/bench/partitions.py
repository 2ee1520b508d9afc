"""`python -m tests.bench.partitions URL`: receipts as one table against receipts by month, on a filled database.

Copies the receipts twice into a schema of its own, which is dropped in the end; the two take turns in everything.
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import statistics
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from receiver.db.engine import SESSION_OPTIONS
from tests.bench.report import describe_machine, write_section

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = Path("deploy/BENCHMARKS.md")
_TABLES = ("plain", "parted")
_TIMES = re.compile(r"(?:Planning|Execution) Time: ([0-9.]+) ms")
_BATCH = 100
_DELETE_BATCH = 5000
_COPIES = """
CREATE SCHEMA bench_partitions;
SET search_path = bench_partitions, public;
CREATE TABLE plain (LIKE public.receipts INCLUDING ALL);
CREATE TABLE parted (LIKE public.receipts INCLUDING DEFAULTS INCLUDING IDENTITY) PARTITION BY RANGE (reported_at);
CREATE TABLE parted_default PARTITION OF parted DEFAULT;
DO $$ BEGIN FOR month IN 0..11 LOOP
    EXECUTE format('CREATE TABLE parted_%s PARTITION OF parted FOR VALUES FROM (%L) TO (%L)', month,
        date_trunc('month', now()) + (month - 9) * interval '1 month',
        date_trunc('month', now()) + (month - 8) * interval '1 month');
END LOOP; END $$;
INSERT INTO plain OVERRIDING SYSTEM VALUE SELECT * FROM public.receipts ORDER BY id;
INSERT INTO parted OVERRIDING SYSTEM VALUE SELECT * FROM public.receipts ORDER BY id;
ALTER TABLE parted ADD PRIMARY KEY (id, reported_at);
CREATE UNIQUE INDEX ON parted (message_id, reported_at, vendor_status, masked_mobile);
CREATE UNIQUE INDEX ON parted (task_id, account, masked_mobile, reported_at, vendor_status) WHERE masked_mobile <> '';
CREATE INDEX ON parted USING brin (received_at);
"""
_INSERT = """
INSERT INTO {table} (id, message_id, push_id, received_at, last_seen_at, copies, vendor_status, reported_at)
    OVERRIDING SYSTEM VALUE
SELECT first + n, first + n, %s::uuid, now(), now(), 1, '1', date_trunc('second', now()) - n * interval '1 second'
FROM (SELECT %s::bigint AS first) AS given, generate_series(1, %s) AS n
ON CONFLICT (message_id, reported_at, vendor_status, masked_mobile) DO UPDATE SET copies = {table}.copies + 1
"""
_QUESTIONS = {
    "receipts of a message": "SELECT * FROM {table} WHERE message_id = %s",
    "newest page of 50": "SELECT * FROM {table} WHERE id <= %s + 1000000000 ORDER BY id DESC LIMIT 50",
    "page in the middle": "SELECT * FROM {table} WHERE id < %s ORDER BY id DESC LIMIT 50",
}


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="postgresql://… of a database that tests.bench.fill has filled")
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    with psycopg.connect(given.url, autocommit=True, options=SESSION_OPTIONS) as connection:
        connection.execute("SET statement_timeout = 0")
        version = connection.execute("SHOW server_version").fetchone()
        assert version is not None
        try:
            connection.execute(_COPIES)
            connection.execute("VACUUM ANALYZE plain, parted")
            rows = [*_ask(connection, given.draws), *_insert(connection, given.draws), *_forget(connection)]
        finally:
            connection.execute("DROP SCHEMA bench_partitions CASCADE")
    table = ["| | one table | by month | ratio |", "|---|--:|--:|--:|"]
    table += [f"| {name} | {_shown(plain)} | {_shown(parted)} | {parted / plain:.2f} |" for name, plain, parted in rows]
    command = shlex.join(["python", "-m", "tests.bench.partitions", "URL", *sys.argv[2:]])
    text = (
        "## Receipts by month?\n\nTwelve partitions and a DEFAULT one against one table, medians; questions are the "
        "server's planning and execution. Deleting rows in batches takes no lock that a push waits for; dropping a "
        "month takes an exclusive one on the whole table.\n\n"
        f"{describe_machine(version[0].split(' ')[0])}\n\nCommand: `{command}`.\n\n" + "\n".join(table)
    )
    write_section(_PAGE, text, name="partitions")
    print("\n".join(table))
    return 0


def _ask(connection: psycopg.Connection[Any], draws: int) -> list[tuple[str, float, float]]:
    chance = random.Random(540)
    newest = connection.execute("SELECT max(id) FROM plain").fetchone()[0]
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(draws):
        drawn = chance.randint(1, newest)
        for name, question in _QUESTIONS.items():
            for table in _TABLES:
                plan = connection.execute(f"EXPLAIN ANALYZE {question.format(table=table)}", [drawn]).fetchall()
                times[name, table].append(sum(float(found) for row in plan for found in _TIMES.findall(row[0])))
    return [_row(f"{name}, ms", *(times[name, table] for table in _TABLES)) for name in _QUESTIONS]


def _insert(connection: psycopg.Connection[Any], draws: int) -> list[tuple[str, float, float]]:
    times: dict[str, list[float]] = defaultdict(list)
    first = 10**10
    for _ in range(draws):
        first += _BATCH
        for table in _TABLES:
            begun = time.perf_counter()
            connection.execute(_INSERT.format(table=table), [uuid.uuid4(), first, _BATCH], prepare=True)
            times[table].append((time.perf_counter() - begun) / _BATCH * 1e6)
    return [_row(f"a receipt in a batch of {_BATCH}, µs", *(times[table] for table in _TABLES))]


def _forget(connection: psycopg.Connection[Any]) -> list[tuple[str, float, float]]:
    """A month's receipts: deleted day by day in small batches and vacuumed, against a partition that is dropped."""
    month = "FROM pg_class WHERE relname = 'parted_7'"
    rows = connection.execute(f"SELECT reltuples::bigint {month}").fetchone()[0]
    slowest = 0.0
    begun = time.perf_counter()
    deleted = 0
    while deleted < rows:
        step = time.perf_counter()
        found = connection.execute(
            "DELETE FROM plain WHERE id IN (SELECT id FROM plain WHERE id > %s ORDER BY id LIMIT %s)",
            [deleted, _DELETE_BATCH],
        )
        slowest = max(slowest, time.perf_counter() - step)
        deleted += max(1, found.rowcount)
    connection.execute("VACUUM plain")
    plain = time.perf_counter() - begun
    begun = time.perf_counter()
    connection.execute("DROP TABLE parted_7")
    parted = time.perf_counter() - begun
    return [("a month's receipts gone, s", plain, parted), ("… longest hold of a lock, s", slowest, parted)]


def _row(name: str, plain: Sequence[float], parted: Sequence[float]) -> tuple[str, float, float]:
    return name, statistics.median(plain), statistics.median(parted)


def _shown(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
