"""Lists by time, as the console has them: every row once, in the order that they show, at a bounded cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.messages import queries
from receiver.messages.queries import Filter, Page
from receiver.messages.recording import record_sent
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.messages.queries import Listed, MessageRow, ReplyRow
    from receiver.runtime import Runtime

NUMBERS = ("15080921090", "13900000001", "13900000002")
NEVER = datetime.min.replace(tzinfo=UTC)
SECOND = timedelta(seconds=1)


def fill(runtime: Runtime) -> None:
    """Sends out of order, three at the same moment; receipts of some, some without a send; a reply alone."""
    sends = [
        make_send(
            task_id=f"t{n}", mobile=NUMBERS[n % 3], template_id=f"{n % 2}", sent_at=NOON - (n * 7 % 40) // 3 * SECOND
        )
        for n in range(40)
    ]
    runtime.database.write(lambda connection: record_sent(connection, sends, recorded_at=NOON))
    pushes = [make_push(task_id=f"t{n}", mobile=NUMBERS[n % 3], status=f"{n % 2}") for n in range(0, 40, 3)]
    pushes += [make_push(task_id=f"u{n}", second=-n) for n in range(8)]
    pushes += [make_push(task_id=f"r{n}", content=f"text {n % 3}", second=-(n * 5 % 12)) for n in range(12)]
    save_pushes(runtime.database, pushes)


def moment_of(row: MessageRow) -> datetime:
    return row.counted_at or row.reported_at or NEVER


def walk(read: Callable[[Any], Listed[Any]]) -> list[Any]:
    rows, before = list[Any](), None
    while True:
        listed = read(before)
        rows += listed.rows
        if listed.end is None:
            return rows
        before = listed.end


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "status": {"status": "failed"},
    "late": {"late": True},
    "not late": {"late": False},
    "without a send": {"matched": False},
    "with a send": {"matched": True},
    "conflicting": {"conflicting": True},
    "template": {"template_id": "1"},
    "task": {"task_id": "t3"},
    "number": {"mobile": NUMBERS[1]},
    "numbers": {"mobiles": NUMBERS[1:]},
    "span": {"sent_from": NOON - 9 * SECOND, "sent_to": NOON - 2 * SECOND},
    "nothing": {"reference": "none"},
    "all at once": {
        "status": "failed", "late": False, "matched": True, "conflicting": False, "template_id": "1",
        "mobiles": NUMBERS, "accounts": ("default",), "sent_from": NOON - 12 * SECOND, "sent_to": NOON,
    },
}  # fmt: skip


FEW = {"mobile", "mobiles", "task_id", "matched"}  # these are found by their own index, and sorted


def test_messages_are_in_the_order_of_their_times_under_every_filter(runtime: Runtime) -> None:
    fill(runtime)
    clock = runtime.clock(NOON + timedelta(minutes=5))
    for name, wanted in FILTERS.items():
        narrowed = Filter(**wanted)
        every = runtime.ask(lambda c, w=narrowed: queries.list_messages(c, Page(limit=1000, filter=w), clock))  # type: ignore[misc]
        expected = [row.id for row in sorted(every, key=lambda row: (moment_of(row), row.id), reverse=True)]
        for most in (200_000,) if FEW & set(wanted) else (200_000, 4):

            def read(before: Any, narrowed: Filter = narrowed, most: int = most) -> Listed[MessageRow]:
                page = Page(limit=3, before=before, filter=narrowed)
                return runtime.ask(lambda c: queries.list_messages_by_time(c, page, clock, most=most))

            assert [row.id for row in walk(read)] == expected, (name, most)
        hits = runtime.ask(lambda c, w=narrowed: queries.count_messages(c, w, clock))  # type: ignore[misc]
        assert (hits.number, hits.exact) == (len(every), True), name


def test_every_message_comes_once_while_others_arrive(runtime: Runtime) -> None:
    fill(runtime)
    clock, arrived = runtime.clock(NOON), iter(range(1000, 2000))

    def read(before: Any) -> Listed[MessageRow]:
        found = runtime.ask(lambda c: queries.list_messages_by_time(c, Page(limit=4, before=before), clock))
        sends = [make_send(task_id=f"n{next(arrived)}", sent_at=NOON + SECOND) for _ in range(3)]
        runtime.database.write(lambda connection: record_sent(connection, sends, recorded_at=NOON))
        return found

    rows = walk(read)
    there = runtime.ask(lambda c: queries.list_messages(c, Page(limit=1000), clock))
    before = {row.id for row in there if not (row.task_id or "").startswith("n")}
    assert len(rows) == len(before)
    assert {row.id for row in rows} == before


REPLY_FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "text": {"q": "text 1"},
    "number": {"mobile": NUMBERS[0]},
    "numbers": {"mobiles": NUMBERS},
    "account": {"accounts": ("default",)},
    "another account": {"accounts": ("other",)},
    "no opt-outs": {"opt_out": False},
    "opt-outs": {"opt_out": True},
    "received": {"received_from": NOON - timedelta(days=1)},
    "without a send": {"matched": False},
}


def test_replies_are_in_the_order_of_their_times_under_every_filter(runtime: Runtime) -> None:
    fill(runtime)
    for name, wanted in REPLY_FILTERS.items():
        narrowed = Filter(**wanted)

        def read(before: Any, narrowed: Filter = narrowed) -> Listed[ReplyRow]:
            page = Page(limit=2, before=before, filter=narrowed)
            return runtime.ask(lambda connection: queries.list_replies_by_time(connection, page))

        every = runtime.ask(lambda c, w=narrowed: queries.list_replies(c, Page(limit=1000, filter=w)))  # type: ignore[misc]
        expected = [row.id for row in sorted(every, key=lambda row: (row.replied_at, row.id), reverse=True)]
        assert [row.id for row in walk(read)] == expected, name
        hits = runtime.ask(lambda c, w=narrowed: queries.count_replies(c, w))  # type: ignore[misc]
        assert hits == queries.Hits(number=len(every), exact=True), name


def test_count_ends_at_its_bound(runtime: Runtime) -> None:
    def work(connection: sa.Connection) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)"
        columns = "(account, task_id, mobile)"
        rows = "SELECT 'default', CAST(i AS TEXT), '1' FROM n"
        insert = f"INSERT INTO messages {columns}"
        sqlite = connection.dialect.name == "sqlite"
        connection.exec_driver_sql(f"{insert} {numbers} {rows}" if sqlite else f"{numbers} {insert} {rows}")

    runtime.database.write(work)
    clock = runtime.clock()
    hits = runtime.ask(lambda connection: queries.count_messages(connection, Filter(), clock))
    assert hits == queries.Hits(number=queries.HITS_MAX, exact=False)


def test_numbers_without_messages_are_named_under_the_other_filters(runtime: Runtime) -> None:
    fill(runtime)
    clock = runtime.clock(NOON)
    asked = (*NUMBERS, "13800000000")

    def missing(**wanted: Any) -> list[str]:
        narrowed = Filter(mobiles=asked, **wanted)
        return runtime.ask(lambda c: queries.find_numbers_without_messages(c, asked, narrowed, clock))

    assert missing() == ["13800000000"]
    assert missing(task_id="t1") == [NUMBERS[0], NUMBERS[2], "13800000000"]
    assert missing(accounts=("other",)) == list(asked)


def test_pages_are_read_along_the_index_of_times(runtime: Runtime) -> None:
    fill(runtime)
    asked = list[tuple[str, Any]]()
    page = Page(limit=50, before=(NOON, 7), filter=Filter(status="failed"))

    def plan(connection: sa.Connection) -> str:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
        sa.event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        queries.list_messages_by_time(connection, page, runtime.clock(NOON))
        statement, parameters = asked[0]
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters))

    found = runtime.database.write(plan)
    assert "ix_messages_listed_at" in found
    assert "SCAN messages" not in found  # it begins at the place, not at the first row
    assert "B-TREE" not in found
    assert "Sort" not in found
