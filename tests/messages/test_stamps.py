"""`updated_at`: every change gets a stamp, and stamps are committed in their order, whoever writes and commits when."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.db import migrate
from receiver.db.engine import Database
from receiver.db.tables import UNSTAMPED, messages, projection, receipts
from receiver.intake.replay import replay_push
from receiver.maintenance.rebuild import rebuild
from receiver.messages import journal
from receiver.messages.projection_sql import MISSING_MESSAGES
from receiver.messages.projector import catch_up
from receiver.messages.recording import record_sent, record_verified
from receiver.messages.stamping import Stamping
from receiver.messages.stamps import is_any_unstamped
from receiver.reporting import rollup
from receiver.sending import attempts
from tests.harness.changers import Changers
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import appending, save_pushes
from tests.sending.test_sending import TAKEN, make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

MOBILE, OTHER = "15080921090", "13900001090"
LATER = datetime(2099, 1, 1, tzinfo=UTC)


def record(runtime: Runtime, *sends: Any) -> None:
    runtime.database.write(partial(record_sent, sends=list(sends), recorded_at=NOON))


def verify_code(runtime: Runtime) -> None:
    used = partial(record_verified, account="default", task_id="t", mobile=MOBILE, verified_at=NOON)
    runtime.database.write(used)


def stamps(runtime: Runtime) -> dict[str | None, datetime]:
    """The stamp of each task's message, once all are given."""
    assert catch_up(runtime.database, seconds=20) is None
    with runtime.database.reading() as connection:
        rows = connection.execute(sa.select(messages.c.task_id, messages.c.updated_at)).all()
    assert all(row.updated_at > UNSTAMPED for row in rows)
    return {row.task_id: row.updated_at for row in rows}


def last_stamp(runtime: Runtime) -> datetime:
    with runtime.database.reading() as connection:
        given: datetime = connection.execute(sa.select(projection.c.stamped_at)).scalar_one()
    return given


@contextmanager
def open_transaction(runtime: Runtime) -> Iterator[sa.Connection]:
    """A transaction of PostgreSQL, committed at the end of the block."""
    with runtime.database.engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.deadline = None
        yield connection


def replay(runtime: Runtime) -> None:
    """The push says another time, as read today: its receipt is replaced, in a message that stays as it is."""
    with runtime.database.reading() as connection:
        push_id = connection.execute(sa.select(receipts.c.push_id).where(receipts.c.vendor_status == "0")).scalar_one()
    again = make_push(task_id="t", status="7", second=-60)
    object.__setattr__(again, "id", push_id)
    runtime.database.write(partial(replay_push, push=again))


def lose_a_receipt(runtime: Runtime) -> None:
    """Damage, which a rebuild mends."""
    deleted = sa.delete(receipts).where(receipts.c.vendor_status == "0")
    runtime.database.write(lambda connection: connection.execute(deleted))
    rebuild(runtime.database, patience_seconds=30)


# What changes a message, beside its first receipt.
CHANGES: dict[str, Callable[[Runtime], object]] = {
    "a receipt": lambda runtime: save_pushes(runtime.database, [make_push(task_id="t", status="0", second=9)]),
    "an older receipt, which changes no state": lambda runtime: save_pushes(
        runtime.database, [make_push(task_id="t", second=-9)]
    ),
    "a reply": lambda runtime: save_pushes(runtime.database, [make_push(task_id="t", content="ok")]),
    "its record": lambda runtime: record(runtime, make_send(task_id="t")),
    "a used code": verify_code,
    "a replay": replay,
    "a rebuild": lose_a_receipt,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_gets_a_later_stamp_and_another_message_keeps_its_own(
    runtime: Runtime, change: Callable[[Runtime], object]
) -> None:
    older = make_push(task_id="t", status="0", second=-60)  # than what decides the state
    save_pushes(runtime.database, [make_push(task_id="t"), older, make_push(task_id="other")])
    before, given = stamps(runtime), last_stamp(runtime)
    assert set(before.values()) == {given}
    change(runtime)
    after = stamps(runtime)
    assert after["t"] > given
    assert after["other"] == before["other"]
    assert last_stamp(runtime) == after["t"]


def test_match_of_a_masked_number_stamps_the_message_that_gains_and_the_one_that_loses(runtime: Runtime) -> None:
    masked = make_push(task_id="t", mobile="150****1090")
    save_pushes(runtime.database, [masked])
    record(runtime, make_send(task_id="t"))
    alone = stamps(runtime)["t"]
    record(runtime, make_send(task_id="t", mobile="15080931090"))  # which fits as well: it belongs to neither now
    with runtime.database.reading() as connection:
        assert list(connection.scalars(sa.select(receipts.c.message_id))) == [None]
    assert stamps(runtime)["t"] > alone


def test_answer_of_the_platform_stamps_the_message_that_was_sent(runtime: Runtime) -> None:
    attempt = make_attempt()
    begun = partial(attempts.begin_attempt, attempt=attempt, recorded_at=NOON, day_began=NOON)
    runtime.database.write(begun)
    before = stamps(runtime)[None]
    runtime.database.write(partial(attempts.finish_attempt, attempt=attempt, result=TAKEN, recorded_at=NOON))
    assert stamps(runtime)[TAKEN.task_id] > before


def test_another_number_of_the_same_message_is_no_change(runtime: Runtime) -> None:
    """As `encrypt` and `rekey` write them: no reader need take all messages anew."""
    save_pushes(runtime.database, [make_push(task_id="t")])
    before = stamps(runtime)
    runtime.database.write(lambda connection: connection.execute(sa.update(messages).values(mobile=OTHER)))
    assert stamps(runtime) == before


def test_stamps_go_on_when_the_clock_is_set_back(runtime: Runtime) -> None:
    save_pushes(runtime.database, [make_push(task_id="t")])
    stamps(runtime)
    set_ahead = sa.update(projection).values(stamped_at=LATER)
    runtime.database.write(lambda connection: connection.execute(set_ahead))
    save_pushes(runtime.database, [make_push(task_id="t", content="ok")])
    first = stamps(runtime)["t"]
    verify_code(runtime)
    second = stamps(runtime)["t"]
    assert LATER < first < second < LATER + timedelta(seconds=1)


def test_late_commit_gets_a_stamp_above_those_given_meanwhile(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    record(runtime, make_send(task_id="late"), make_send(task_id="t"))
    begun = stamps(runtime)
    with open_transaction(runtime) as late:
        changed = [make_send(task_id="late", reference="r"), make_send(task_id="new")]
        record_sent(late, changed, recorded_at=NOON)
        verify_code(runtime)
        meanwhile = stamps(runtime)
        assert meanwhile["late"] == begun["late"]
        assert meanwhile["t"] > begun["t"]
    after = stamps(runtime)
    assert min(after["late"], after["new"]) > meanwhile["t"] == after["t"]


def test_append_that_commits_late_gets_its_stamp_in_its_turn(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    with appending(runtime.database, [make_push(task_id="late")]):
        verify_code(runtime)
        assert catch_up(runtime.database, seconds=0.5) is None
        given = last_stamp(runtime)
    assert stamps(runtime)["late"] > given


def test_message_that_an_open_transaction_holds_is_stamped_after_it_and_holds_up_no_other(
    postgres_runtime: Runtime,
) -> None:
    runtime = postgres_runtime
    record(runtime, make_send(task_id="held"))
    runtime.projector.stop()
    with open_transaction(runtime) as holder:
        holder.execute(sa.select(messages).where(messages.c.task_id == "held").with_for_update())
        verify_code(runtime)
        begun = time.monotonic()
        save_pushes(runtime.database, [make_push(task_id="pushed")])
        assert time.monotonic() - begun < 10
    assert set(stamps(runtime)) == {"held", "t", "pushed"}


REFUSING = {
    "postgresql": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'damaged'; END $$",
        (
            "CREATE TRIGGER refuse BEFORE UPDATE OF updated_at ON messages FOR EACH ROW"
            " WHEN (new.task_id = 'bad') EXECUTE FUNCTION refuse()"
        ),
    ),
    "sqlite": (
        (
            "CREATE TRIGGER refuse BEFORE UPDATE OF updated_at ON messages WHEN new.task_id = 'bad'"
            " AND new.updated_at > '1970-01-02' BEGIN SELECT RAISE(ABORT, 'damaged'); END"
        ),
    ),
}


def test_message_that_refuses_its_stamp_stops_neither_the_others_nor_the_projection(runtime: Runtime) -> None:
    runtime.database.write(
        lambda connection: [connection.exec_driver_sql(text) for text in REFUSING[connection.dialect.name]]
    )
    record(runtime, *(make_send(task_id=task_id) for task_id in ("a", "bad", "c")))
    save_pushes(runtime.database, [make_push(task_id="pushed")])
    assert catch_up(runtime.database, seconds=20) is None
    assert runtime.projector.await_reached(20, stamped=True) is None
    with runtime.database.reading() as connection:
        rows = connection.execute(sa.select(messages.c.task_id, messages.c.updated_at)).all()
    of_tasks = {row.task_id: row.updated_at for row in rows}
    assert [task_id for task_id, stamp in of_tasks.items() if stamp == UNSTAMPED] == ["bad"]
    assert set(of_tasks) == {"a", "bad", "c", "pushed"}


def test_look_for_unstamped_messages_reads_no_table_though_statistics_say_that_many_are(
    postgres_runtime: Runtime,
) -> None:
    postgres_runtime.projector.stop()
    asked: list[Any] = []
    with open_transaction(postgres_runtime) as connection:
        connection.exec_driver_sql(
            "INSERT INTO messages (account, task_id, mobile) SELECT 'default', n, '1' FROM generate_series(1, 5000) n"
        )
        connection.exec_driver_sql("ANALYZE messages")
        connection.execute(sa.update(messages).values(updated_at=LATER))
        sa.event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        assert not is_any_unstamped(connection)
        (statement, parameters) = asked[0]
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    assert "Seq Scan" not in "".join(plan)


def test_pass_over_many_unstamped_ends_with_what_changed_behind_it(runtime: Runtime) -> None:
    """The pass goes on from its last id; what changes below it, meanwhile, is stamped as well."""
    runtime.projector.stop()
    record(runtime, *(make_send(task_id=f"{number}") for number in range(25)))
    stamping = Stamping(runtime.database)
    assert stamping.stamp_next(limit=10)
    runtime.database.write(
        lambda connection: connection.execute(sa.update(messages).where(messages.c.task_id == "3").values(status=1))
    )
    turns = 1
    while stamping.stamp_next(limit=10):
        turns += 1
        assert turns < 9
    with runtime.database.reading() as connection:
        assert not is_any_unstamped(connection)


def test_program_of_the_version_before_gets_its_changes_stamped(runtime: Runtime) -> None:
    """During an upgrade; it knows no such column."""
    save_pushes(runtime.database, [make_push(task_id="t")])
    before = stamps(runtime)
    old = (
        MISSING_MESSAGES.replace(", updated_at", "").replace(", :stamp", "").removesuffix("NOTHING")
        + "UPDATE SET reported_at = messages.reported_at, status = messages.status, seen = messages.seen"
    ).replace("{which}", "true")
    runtime.database.write(lambda connection: connection.execute(sa.text(old)))
    assert stamps(runtime)["t"] > before["t"]


def test_stamping_changes_no_figure_of_the_report(runtime: Runtime) -> None:
    record(runtime, *(make_send(task_id=f"{number}", sent_at=NOON) for number in range(30)))
    save_pushes(runtime.database, [make_push(task_id=f"{number}", second=5) for number in range(20)])
    assert len(stamps(runtime)) == 30
    with runtime.database.reading() as connection:
        assert rollup.differences(connection) == []
        changes = connection.exec_driver_sql("SELECT sum(sent), sum(delivered) FROM delivery_hour_changes").one()
        hours = connection.exec_driver_sql("SELECT sum(sent), sum(delivered) FROM delivery_hours").one()
    assert [(a or 0) + (b or 0) for a, b in zip(changes, hours, strict=True)] == [30, 20]


def test_stamp_has_nothing_counted_anew(postgres_runtime: Runtime) -> None:
    """Without the tables of the counts, what counts anew fails."""
    record(postgres_runtime, make_send(task_id="t"))
    stamps(postgres_runtime)
    with postgres_runtime.database.engine.connect() as connection, connection.begin() as transaction:
        for table in ("delivery_hour_changes", "delivery_latency_changes"):
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO away_{table}")
        connection.execute(sa.update(messages).values(updated_at=LATER))
        with pytest.raises(sa.exc.ProgrammingError, match="delivery_hour_changes"):
            connection.execute(sa.update(messages).values(status=1))
        transaction.rollback()


def test_wait_for_stamps_ends_with_the_last_of_them(runtime: Runtime) -> None:
    record(runtime, *(make_send(task_id=f"{number}") for number in range(300)))
    begun = time.monotonic()
    runtime.projector.await_reached(20, stamped=True)
    assert time.monotonic() - begun < 15
    with runtime.database.reading() as connection:
        unstamped = sa.select(sa.func.count()).where(messages.c.updated_at == UNSTAMPED)
        assert connection.scalar(unstamped) == 0


def test_wait_that_sees_a_set_committed_waits_for_its_stamps_too(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(runtime, make_send(task_id="t"))
    assert runtime.projector.await_reached(20, stamped=True) is None
    goes_on, stamp_next = threading.Event(), Stamping.stamp_next

    def late(stamping: Stamping, *, limit: int) -> bool:
        goes_on.wait(30)
        return stamp_next(stamping, limit=limit)

    monkeypatch.setattr(Stamping, "stamp_next", late)
    journal.append(runtime.database, [make_push(task_id="t", mobile="150****1090")])
    assert runtime.projector.await_reached(1, stamped=True) is not None
    with runtime.database.reading() as connection:
        assert is_any_unstamped(connection)
    goes_on.set()
    assert runtime.projector.await_reached(20, stamped=True) is None


def test_reader_that_goes_on_from_the_highest_stamp_keeps_an_exact_copy(runtime: Runtime) -> None:
    """With many writers at once, some of which commit late."""
    copy: dict[int, Any] = {}
    shown = sa.select(messages)

    def read() -> None:
        since = max((row.updated_at for row in copy.values()), default=UNSTAMPED + timedelta(1))
        with runtime.database.reading() as connection:
            copy.update({row.id: row for row in connection.execute(shown.where(messages.c.updated_at >= since))})

    with Changers(runtime.database) as changers:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends or len(copy) < 20:
            read()
            time.sleep(0.01)
    assert changers.failures == []
    stamps(runtime)
    read()
    with runtime.database.reading() as connection:
        assert copy == {row.id: row for row in connection.execute(shown)}


def test_message_that_is_added_without_a_stamp_gets_a_present_one(database_url: str) -> None:
    """With the embedded database, too, in which the column's default is a time long ago."""
    database = Database(database_url)
    migrate.upgrade(database)
    begun = datetime.now(UTC) - timedelta(seconds=1)
    add = "INSERT INTO messages (account, task_id, mobile) VALUES ('default', 'a', '1')"
    database.write(lambda connection: connection.exec_driver_sql(add))
    assert catch_up(database) is None
    with database.reading() as connection:
        (stamp,) = connection.scalars(sa.select(messages.c.updated_at))
    assert stamp > begun
    database.close()
