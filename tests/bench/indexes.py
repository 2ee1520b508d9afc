"""`python -m tests.bench.indexes URL`: what each index that no constraint needs takes, on a filled database.

Bytes as they are; time as the difference that it makes to a push, and to the record of a send, when it is dropped in a
transaction that is then rolled back. With and without take turns.
"""

from __future__ import annotations

import argparse
import random
import shlex
import statistics
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from receiver.core import new_id
from receiver.db.engine import Database
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages import journal, projection, record_sent
from tests.bench.report import describe_machine, write_section
from tests.harness.factories import NOON, make_push, make_send

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = Path("deploy/BENCHMARKS.md")
_BATCH, _BATCHES = 100, 20
_TABLES = (pushes, messages, receipts, replies)
# What asks by each: the query stands beside the index in db/tables.
_ASKED_BY = {
    "ix_pushes_quarantined": "GET /pushes?outcome=quarantined",
    "ix_messages_mobile": "look-up by number",
    "ix_messages_mobile_end": "look-up by the last digits",
    "ix_messages_reference": "look-up by reference",
    "ix_messages_age_from": "lists by time of sending, late, reports by hour",
    "ix_messages_unmatched": "GET /messages?matched=false",
    "ix_receipts_received_at": "lists of a time of receiving",
    "ix_replies_received_at": "lists of a time of receiving",
    "ix_replies_opt_out": "GET /replies?opt_out=true",
    "ix_replies_opt_out_review": "GET /replies?opt_out_review=true",
    "ix_replies_text": "GET /replies?q=",
}


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="postgresql://… of a database that tests.bench.fill has filled")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    declared = {str(index.name) for table in _TABLES for index in table.indexes if not index.unique}
    if missing := declared - _ASKED_BY.keys():
        raise SystemExit(f"nobody says what asks by {', '.join(sorted(missing))}")
    database = Database(given.url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=600)
    took: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        for index in _ASKED_BY:
            for what, work in (("push", _push), ("record", _record)):
                for kept in (True, False):
                    took[index, what, kept].append(_measure(database, None if kept else index, work))
    with psycopg.connect(given.url) as connection:
        sizes = {
            str(row[0]): int(row[1])
            for row in connection.execute("SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'i'")
        }
        rows = {table: max(1, _one(connection, f"SELECT count(*) FROM {table}")) for table in map(str, _TABLES)}
        version = str(_one(connection, "SHOW server_version")).split(" ")[0]
    table = ["| index | what asks by it | bytes a row | µs a push | µs a record |", "|---|---|--:|--:|--:|"]
    for index, asked in _ASKED_BY.items():
        cells = [f"{sizes[index] / rows[index.split('_')[1]]:.1f}"]
        for what in ("push", "record"):
            pairs = zip(took[index, what, True], took[index, what, False], strict=True)
            cells.append(f"{statistics.median(with_it - without for with_it, without in pairs):+.1f}")
        table.append(f"| `{index}` | {asked} | " + " | ".join(cells) + " |")
    whole = {
        what: statistics.median(one for index in _ASKED_BY for one in took[index, what, True])
        for what in ("push", "record")
    }
    database.close()
    command = shlex.join(["python", "-m", "tests.bench.indexes", "URL", *sys.argv[2:]])
    text = (
        f"## What the indexes take\n\nOn {rows['messages']:,} messages, in batches of {_BATCH}, one push in fifty a "
        f"reply, all of new messages; a push takes {whole['push']:.0f} µs of the server and a record "
        f"{whole['record']:.0f} with all of them. The difference is the median of {given.rounds} pairs; what is within "
        "a few µs of nothing is nothing. Keys and unique indexes make rows come once, and are not on trial.\n\n"
        f"{describe_machine(version)}\n\nCommand: `{command}`.\n\n" + "\n".join(table)
    )
    write_section(_PAGE, text, name="indexes")
    print("\n".join(table))
    return 0


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _measure(database: Database, index: str | None, work: Callable[[sa.Connection], None]) -> float:
    """Give the microseconds a row of some batches, without an index where one is named; nothing of it stays."""
    seconds = 0.0

    def measured(connection: sa.Connection) -> None:
        nonlocal seconds
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        if index is not None:
            connection.execute(sa.text(f"DROP INDEX {index}"))
        begun = time.perf_counter()
        work(connection)
        seconds = time.perf_counter() - begun
        raise _RollBack

    with suppress(_RollBack):
        database.write(measured)
    return seconds / (_BATCH * _BATCHES) * 1e6


class _RollBack(Exception):
    """Ends a transaction of which nothing is to stay."""


def _push(connection: sa.Connection) -> None:
    # In the caller's transaction, which is rolled back; a receiver appends in one of its own.
    driver: Any = connection.connection.driver_connection
    for _ in range(_BATCHES):
        rows = [journal._values(_some_push(number), None) for number in range(_BATCH)]
        journal._append_postgresql(driver, rows)
    projection.catch_up(connection)


def _some_push(number: int) -> Any:
    given = {"mobile": _some_mobile(), "task_id": new_id().hex}
    return make_push(**given, content="好的,明天见") if number % 50 == 0 else make_push(**given)  # type: ignore[arg-type]


def _record(connection: sa.Connection) -> None:
    for _ in range(_BATCHES):
        sends = [
            make_send(mobile=_some_mobile(), task_id=new_id().hex, reference=new_id().hex, sent_at=NOON)
            for _ in range(_BATCH)
        ]
        record_sent(connection, sends, recorded_at=NOON)


def _some_mobile() -> str:
    return f"1{random.randrange(3 * 10**9, 10**10)}"


if __name__ == "__main__":
    sys.exit(main())
