"""`python -m tests.bench.queries URL …`: what questions cost the server, on databases that `tests.bench.fill` made.

Every question is asked as the program asks it; its statements are then timed by the server itself (EXPLAIN ANALYZE:
planning and execution), over many draws of what is asked for.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg
import sqlalchemy as sa

from receiver.db.engine import SESSION_OPTIONS, Database
from receiver.db.tables import messages
from receiver.messages import queries
from receiver.messages.events import Position, list_events
from receiver.messages.queries import Clock, Filter, Page
from receiver.reporting import delivery
from receiver.reporting.figures import ReportQuestion, Unit
from tests.bench.report import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ZONE = ZoneInfo("Asia/Shanghai")
_LIMIT = 50
_TIMES = re.compile(r"(?:Planning|Execution) Time: ([0-9.]+) ms")

Question = tuple[str, "Callable[[sa.Connection], Any]"]


class Asked:
    """One database, and what can be asked of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url.replace("postgresql://", "postgresql+psycopg://"))
        with self.database.reading() as connection:
            self.newest: int = connection.scalar(sa.select(sa.func.max(messages.c.id))) or 0
            last = connection.scalar(sa.select(sa.func.max(messages.c.sent_at)))
            assert isinstance(last, datetime)
            self.now = last
        self.clock = Clock(now=self.now, late_after=timedelta(seconds=60), no_receipt_after=timedelta(hours=72))

    def sample(self, chance: random.Random) -> Any:
        """Some message that was sent."""
        while True:
            with self.database.reading() as connection:
                row = connection.execute(
                    sa.select(messages).where(messages.c.id == chance.randint(1, self.newest))
                ).one_or_none()
            if row is not None and row.task_id is not None:
                return row

    def questions(self, chance: random.Random) -> Iterator[Question]:
        """Draw each question once."""
        row = self.sample(chance)
        recent = self.now - timedelta(minutes=10)
        deep = max(1, self.newest // 2)

        def page(before: int | None = None, **wanted: Any) -> Callable[[sa.Connection], Any]:
            asked = Page(limit=_LIMIT + 1, before=before, filter=Filter(**wanted))
            return lambda connection: queries.list_messages(connection, asked, self.clock)

        yield "by task id", page(task_id=row.task_id)
        yield "by number", page(mobile=row.mobile)
        yield "by a number often sent to", page(mobile="13900000007")
        yield (
            "one message with its timeline",
            lambda c: (
                queries.find_message(c, row.id, self.clock),
                queries.list_inbound_events(c, row.id),
            ),
        )
        yield "first page", page()
        yield "page in the middle of all", page(before=deep)
        yield "page in the middle, by template", page(before=deep, template_id="540")
        yield "late, last 10 minutes", page(late=True, sent_from=recent)
        yield "conflicting, last 10 minutes", page(conflicting=True, sent_from=recent)
        yield "refused, last 10 minutes", page(status="refused", sent_from=recent)
        yield "unmatched", page(matched=False)
        receipts_page = Page(limit=_LIMIT + 1, filter=Filter(task_id=row.task_id))
        yield "receipts by task id", lambda c: queries.list_receipts(c, receipts_page)
        replies_page = Page(limit=_LIMIT + 1, filter=Filter(q="没申请"))
        yield "replies by a text that every third has", lambda c: queries.list_replies(c, replies_page)
        rare_page = Page(limit=_LIMIT + 1, filter=Filter(q=f"ok {row.id}"))
        yield "replies by a rare text", lambda c: queries.list_replies(c, rare_page)
        short_page = Page(limit=_LIMIT + 1, filter=Filter(q="退", opt_out=True))
        yield "opt-outs by one character", lambda c: queries.list_replies(c, short_page)
        month_ago = self.now - timedelta(days=30)
        ten_minutes = Filter(received_from=month_ago, received_to=month_ago + timedelta(minutes=10), status="unknown")
        yield (
            "unknown receipts of ten minutes a month ago",
            lambda c: queries.list_receipts(c, Page(limit=_LIMIT + 1, filter=ten_minutes)),
        )
        yield "events, a page in the middle", lambda c: list_events(c, Position(deep, 0), _LIMIT, None, self.clock)
        midnight = self.now.astimezone(_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
        span = {"since": midnight - timedelta(days=29), "until": midnight + timedelta(days=1), "zone": _ZONE}
        for title, dimensions in (
            ("30 days by day", {"unit": Unit.DAY}),
            ("30 days by day and template", {"unit": Unit.DAY, "by_template": True}),
            ("30 days by template", {"by_template": True}),
        ):
            asked = ReportQuestion(**span, **dimensions)  # type: ignore[arg-type]
            yield f"report, {title}", lambda c, asked=asked: delivery.delivery_report(c, asked, self.clock)  # type: ignore[misc]


@contextmanager
def _statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements that go out."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        noted.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def measure(asked: Asked, draws: int) -> dict[str, tuple[list[float], list[float]]]:
    """Give the milliseconds of each question: by the server, and from outside the function that asks."""
    chance = random.Random(540)
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with psycopg.connect(asked.url, autocommit=True, options=SESSION_OPTIONS) as plain:
        for _ in range(draws):
            for title, question in asked.questions(chance):
                with asked.database.reading() as connection, _statements(asked.database.engine) as noted:
                    begun = time.perf_counter()
                    question(connection)
                    whole = (time.perf_counter() - begun) * 1000
                server = 0.0
                for statement, parameters in noted:
                    plan = plain.execute(f"EXPLAIN ANALYZE {statement}", parameters).fetchall()
                    server += sum(float(time_) for row in plan for time_ in _TIMES.findall(row[0]))
                found[title][0].append(server)
                found[title][1].append(whole)
    return found


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", help="postgresql://… of filled databases, the largest last")
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    databases = [Asked(url) for url in given.urls]
    results = [measure(asked, given.draws) for asked in databases]
    largest = databases[-1]
    with largest.database.reading() as connection:
        version = str(connection.scalar(sa.text("SHOW server_version"))).split(" ")[0]
    heads = [f"{asked.newest:,}: {name}" for asked in databases for name in ("p50", "p99", "asked p50", "asked p95")]
    rows = [[title, *(cell for result in results for cell in _cells(result[title]))] for title in results[-1]]
    table = ["| question | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    publish(
        "queries",
        "Questions",
        "Milliseconds of the server (planning and execution), and of the function that asks it, over "
        f"{given.draws} draws, by the number of messages in the database.",
        table,
        version=version,
    )
    return 0


def _cells(times: tuple[Sequence[float], Sequence[float]]) -> list[str]:
    server, whole = (statistics.quantiles(values, n=100) for values in times)
    return [f"{value:.2f}" for value in (server[49], server[98], whole[49], whole[94])]


if __name__ == "__main__":
    sys.exit(main())
