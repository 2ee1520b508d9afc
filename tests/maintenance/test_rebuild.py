"""`receiver db rebuild`: what follows from the journal is put right in place, and what is right is not touched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import new_id
from receiver.db.tables import forward_queue, messages, receipts, replies
from receiver.intake.replay import replay_push
from receiver.maintenance.rebuild import rebuild
from receiver.maintenance.verify import verify
from receiver.messages.projector import catch_up
from receiver.messages.recording import record_sent
from receiver.webhooks.changes import create_endpoint
from receiver.webhooks.endpoints import EventType, NewEndpoint, PayloadFormat
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.running import examples
from tests.harness.server import ServeProcess
from tests.messages.test_order import Steps, apply, empty, expected, steps, stored

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime

SECONDS = 60


def rows(runtime: Runtime) -> dict[str, list[Any]]:
    with runtime.database.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(table.c.id))]
            for table in (messages, receipts, replies, forward_queue)
        }


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=steps())
def test_unharmed_database_stays_as_it_is(runtime: Runtime, transactions: Steps) -> None:
    empty(runtime)
    apply(runtime, transactions)
    before = rows(runtime)
    assert rebuild(runtime.database, patience_seconds=SECONDS).nothing
    assert rows(runtime) == before


HARMS = (
    sa.delete(receipts).where(receipts.c.id % 2 == 0),
    sa.delete(replies),
    sa.update(receipts).values(copies=receipts.c.copies + 7),
    sa.update(replies).values(last_seen_at=NOON),
    sa.update(receipts).values(message_id=None).where(receipts.c.masked_mobile != ""),
    sa.update(messages).values(status=3, seen=8, reported_at=NOON),
    sa.delete(messages).where(messages.c.recorded_at.is_(None)),
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=steps(), harms=st.sets(st.integers(0, len(HARMS) - 1), min_size=1))
def test_harmed_rows_follow_from_the_journal_again(runtime: Runtime, transactions: Steps, harms: set[int]) -> None:
    empty(runtime)
    apply(runtime, transactions)
    for number in sorted(harms):
        runtime.database.write(lambda connection, number=number: connection.execute(HARMS[number]))  # type: ignore[misc]
    rebuild(runtime.database, patience_seconds=SECONDS)
    assert stored(runtime) == expected(transactions)
    assert rebuild(runtime.database, patience_seconds=SECONDS).nothing
    assert all(finding.ok for finding in verify(runtime.database, runtime.admission.read_again))


def test_only_what_is_wrong_is_written_and_no_webhook_gets_it(runtime: Runtime) -> None:
    hook = NewEndpoint(
        name="shop", url="https://shop.example/hook", format=PayloadFormat.WEBHOOKS, events=tuple(EventType)
    )
    runtime.database.write(lambda connection: create_endpoint(connection, hook, now=NOON))
    unreadable = make_push(body=b"mobile=15080921090")
    pushes = [make_push(task_id=f"t{number}", second=number) for number in range(9)]
    save_pushes(runtime.database, [*pushes, unreadable, make_push(task_id=None, content="hello")])
    save_pushes(runtime.database, [make_push(task_id="t1", second=1)])
    runtime.database.write(lambda c: record_sent(c, [make_send(task_id="t0")], recorded_at=NOON))
    readable = replace(unreadable, reading=make_push(task_id="late").reading)
    runtime.database.write(lambda c: replay_push(c, readable))
    assert catch_up(runtime.database) is None
    before = rows(runtime)

    def harm(connection: sa.Connection) -> None:
        connection.execute(sa.update(receipts).where(receipts.c.id == before["receipts"][1][0]).values(copies=5))
        connection.execute(sa.update(messages).where(messages.c.task_id == "t2").values(status=2))
        false = {"push_id": new_id(), "message_id": before["messages"][3][0], "vendor_status": "0", "copies": 1}
        times = dict.fromkeys(("received_at", "last_seen_at", "reported_at"), NOON)
        connection.execute(sa.insert(receipts).values(**false, **times))

    runtime.database.write(harm)
    found = rebuild(runtime.database, patience_seconds=SECONDS)
    assert (found.deleted, found.inserted, found.corrected, found.states) == (1, 0, 1, 1)
    after = rows(runtime)
    pairs = list(zip(after["messages"], before["messages"], strict=True))
    assert [row[2] for row, old in pairs if row != old] == ["t2", before["messages"][3][2]]  # their stamps
    assert [row[:-1] for row, _ in pairs] == [old[:-1] for _, old in pairs]
    assert after | {"messages": []} == before | {"messages": []}


def test_erased_number_stays_erased(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        for number in ("15080921090", "15080921091"):
            process.push(b"mobile=%b&taskid=1&status=1&receivetime=2026-11-23+12:00:00" % number.encode())
        assert process.run("erase", "15080921090", "--yes").returncode == 0
        done = process.run("db", "rebuild")
        assert (done.returncode, done.stdout) == (0, "every row follows from the journal\n"), done.stderr
        assert process.run("verify").returncode == 0
