"""`python -m tests.bench.size`: what a message takes on disk, with its send, its receipt and the journal's row."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from receiver.db import migrate
from receiver.db.engine import Database
from receiver.intake import Spool, spool_state
from receiver.messages import record_sent
from tests.bench.report import describe_machine, write_section
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from receiver.core import Push, SentMessage

_BATCH = 500
_ABOUT = (
    "Bytes a message, indexes included: the record of its send, its receipt, and the journal's row with the push byte "
    "for byte. Batches of 500, then VACUUM. The spool's are for a push alone."
)


def main() -> int:
    """Fill both databases and a spool, and write down what they take."""
    parser = argparse.ArgumentParser(description="measure what a message takes on disk")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--report", type=Path, default=Path("deploy/BENCHMARKS.md"))
    arguments = parser.parse_args()
    rows = []
    with PostgresServer() as server, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        rows.append(("PostgreSQL", _postgresql(server.url(), arguments.messages)))
        rows.append(("SQLite", _sqlite(place / "receiver.db", arguments.messages)))
        rows.append(("spool", _spool(place / "spool")))
        machine = describe_machine(_version(server.url()))
    lines = ["## On disk", "", _ABOUT, "", machine, ""]
    lines += [f"Command: `python -m tests.bench.size --messages {arguments.messages}`.", ""]
    lines += ["| in | bytes |", "|---|--:|", *(f"| {name} | {size:,.0f} |" for name, size in rows)]
    write_section(arguments.report, "\n".join(lines), name="size")
    return 0


def batches(count: int) -> Iterator[tuple[list[SentMessage], list[Push]]]:
    """Messages to numbers of all kinds, one a second."""
    chance = random.Random(1)
    for first in range(0, count, _BATCH):
        keys = [
            (str(3_000_000_000 + n), f"1{chance.randrange(3, 10)}{chance.randrange(10**9):09}")
            for n in range(first, first + _BATCH)
        ]
        sends = [make_send(task_id=task_id, mobile=mobile, template_id="540", sent_at=NOON) for task_id, mobile in keys]
        pushes = [make_push(task_id=task_id, mobile=mobile, second=n) for n, (task_id, mobile) in enumerate(keys)]
        yield sends, pushes


def _fill(database: Database, count: int) -> None:
    migrate.upgrade(database)
    for sends, pushes in batches(count):
        database.write(partial(_record, sends))
        save_pushes(database, pushes)


def _record(sends: list[SentMessage], connection: sa.Connection) -> None:
    record_sent(connection, sends, recorded_at=NOON)


def _postgresql(url: str, count: int) -> float:
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=60)
    migrate.upgrade(database)
    with psycopg.connect(url, autocommit=True) as connection:
        size = "SELECT pg_database_size(current_database())"
        empty = connection.execute(size).fetchone()
        _fill(database, count)
        connection.execute("VACUUM ANALYZE")
        full = connection.execute(size).fetchone()
    database.close()
    assert empty
    assert full
    return float(full[0] - empty[0]) / count


def _sqlite(path: Path, count: int) -> float:
    database = Database(f"sqlite:///{path}", patience_seconds=60)
    _fill(database, count)
    database.close()
    return path.stat().st_size / count


def _spool(directory: Path) -> float:
    spool = Spool(directory, max_bytes=1 << 30)
    for _, pushes in batches(10_000):
        spool.append(pushes)
    spool.close()
    state = spool_state(directory)
    return state.bytes / state.records


def _version(url: str) -> str:
    with psycopg.connect(url) as connection:
        return connection.execute("SHOW server_version").fetchone()[0]  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
