"""The projection: a read sees what was acknowledged before it, and no push stops another."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.core import DatabaseUnavailable, ReceiverError
from receiver.db import migrate
from receiver.db.engine import Database
from receiver.db.tables import messages, pushes, receipts
from receiver.intake.admission import Admission
from receiver.intake.replay import replay_push
from receiver.maintenance.erase import NumberTraces, erase_number
from receiver.messages import journal, projection, projector, queries
from receiver.messages.projector import catch_up
from receiver.messages.queries import Filter, Page
from tests.conftest import make_key, make_settings
from tests.harness.factories import make_push
from tests.harness.journal import appending, save_pushes
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.runtime import Runtime

READS = 60


@pytest.mark.parametrize("nodes", [1, 2])
def test_read_sees_what_was_acknowledged_before_it(tmp_path: Path, request: pytest.FixtureRequest, nodes: int) -> None:
    """Under load; what one node has acknowledged, each of them shows."""
    url = request.getfixturevalue("postgres_database_url") if nodes > 1 else ""
    processes = [ServeProcess(tmp_path / str(number), url) for number in range(nodes)]
    processes[0].data_dir.mkdir()
    processes[0].upgrade()
    with ExitStack() as stack:
        for process in processes:
            process.data_dir.mkdir(exist_ok=True)
            stack.enter_context(process)
        key = processes[0].make_key("read")
        pushers = [stack.enter_context(Pushers(process, 4, pause_seconds=0.005)) for process in processes]
        for each in pushers:
            each.await_acks(20)
        for number in range(READS):
            writer, reader = processes[number % nodes], processes[(number + 1) % nodes]
            body = b"mobile=15080921090&taskid=seen%d&status=1&receivetime=2026-11-23+12:00:00" % number
            assert writer.push(body).headers["X-Push-Outcome"] == "accepted"
            answer = reader.request("GET", f"/api/v1/messages?task_id=seen{number}", headers=key)
            (message,) = answer.json["items"]
            assert message["status"] == "delivered"
            assert "X-Data-Lag-Seconds" not in answer.headers


@pytest.mark.parametrize("path", ["/api/v1/messages", "/api/v1/receipts", "/api/v1/events", "/api/v1/exports/messages"])
def test_answer_that_is_late_says_by_how_much(postgres_runtime: Runtime, path: str) -> None:
    runtime = postgres_runtime
    client, bearer = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    save_pushes(runtime.database, [make_push(task_id="before")])
    with appending(runtime.database, [make_push(task_id="open")]):
        journal.append(runtime.database, [make_push(task_id="behind it")])
        begun = time.monotonic()
        answer = client.get(path, headers=bearer)
        assert 1 <= time.monotonic() - begun < 5
        assert (answer.status_code, "before" in answer.text, "behind it" in answer.text) == (200, True, False)
        assert float(answer.headers["X-Data-Lag-Seconds"]) >= 0
    answer = client.get(path, headers=bearer)
    assert "behind it" in answer.text
    assert "X-Data-Lag-Seconds" not in answer.headers


def test_push_that_the_database_refuses_is_quarantined_and_stops_no_other(runtime: Runtime) -> None:
    """As after a damage, or a rule of the database that another hand has added."""
    refusal = (
        "CREATE TRIGGER odd BEFORE INSERT ON receipts WHEN new.vendor_status = 'odd'"
        " BEGIN SELECT RAISE(ABORT, 'constraint failed'); END"
        if runtime.settings.embedded
        else "ALTER TABLE receipts ADD CONSTRAINT odd CHECK (vendor_status <> 'odd')"
    )
    runtime.database.write(lambda connection: connection.exec_driver_sql(refusal))
    given = [make_push(task_id=f"t{number}", status="odd" if number == 20 else "1") for number in range(40)]
    journal.append(runtime.database, given)
    assert catch_up(runtime.database) is None
    quarantined = runtime.ask(lambda c: queries.list_pushes(c, Page(limit=9, filter=Filter(outcome="quarantined"))))
    assert [(push.id, push.error) for push in quarantined] == [(given[20].id, "body: refused by the database")]
    shown = runtime.ask(lambda c: queries.list_receipts(c, Page(limit=99)))
    assert {row.task_id for row in shown} == {f"t{number}" for number in range(40)} - {"t20"}


def test_fault_of_every_push_quarantines_few_and_says_so(runtime: Runtime) -> None:
    """Such as a table that another hand has changed: the program must not take the whole journal for damaged."""
    refusal = (
        "CREATE TRIGGER odd BEFORE INSERT ON receipts BEGIN SELECT RAISE(ABORT, 'constraint failed'); END"
        if runtime.settings.embedded
        else "ALTER TABLE receipts ADD CONSTRAINT odd CHECK (copies > 9)"
    )
    runtime.stop()
    database = Database(runtime.settings.database_url)
    database.write(lambda connection: connection.exec_driver_sql(refusal))
    journal.append(database, [make_push(task_id=f"t{number}") for number in range(80)])
    sets = projector._Sets(database, lambda: False)

    def project_all() -> None:
        while sets.project_next():
            pass

    for _ in range(3):
        with pytest.raises(ReceiverError, match="one push after another"):
            project_all()
    count = sa.select(sa.func.count()).where(pushes.c.outcome == "quarantined")
    with database.reading() as connection:
        assert connection.scalar(count) == projector._REFUSED_MAX
    database.close()


def test_projectors_of_many_processes_take_turns(runtime: Runtime) -> None:
    """Each push once, whoever projects it."""
    stopping = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stopping.is_set():
                catch_up(runtime.database)
        except BaseException as error:  # noqa: BLE001  (told to the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for batch in range(20):
        journal.append(runtime.database, [make_push(task_id=f"{batch}.{number}") for number in range(25)])
    stopping.set()
    for thread in threads:
        thread.join()
    assert failures == []

    def copies(connection: Any) -> list[int]:
        return [row.copies for row in queries.list_receipts(connection, Page(limit=1000))]

    assert runtime.ask(copies) == [1] * 500
    assert runtime.ask(lambda c: c.scalar(sa.select(sa.func.count()).select_from(pushes))) == 500


def test_projection_that_keeps_up_with_a_steady_load_is_not_late(runtime: Runtime) -> None:
    """There is always a push more; none of them waits."""
    ends = time.monotonic() + 5
    lags = []
    number = 0
    while time.monotonic() < ends:
        batch = [make_push(task_id=f"{number}.{each}") for each in range(30)]
        for future in [runtime.batch_writer.enqueue(push) for push in batch]:
            future.result(20)
        lags.append(runtime.projector.lag_seconds)
        number += 1
    assert max(lags) < 3.5
    assert runtime.projector.await_reached(20) is None
    assert runtime.projector.lag_seconds < 3.5


# --- Gaps in the journal's numbers, on PostgreSQL ---------------------------------------------------------


@pytest.fixture
def with_a_gap(postgres_database_url: str) -> Iterator[tuple[Database, ExitStack]]:
    """A database in which an append of `late` is under way, and `early`, with a later number, is committed."""
    migrate.upgrade(database := Database(postgres_database_url))
    with ExitStack() as late:
        late.enter_context(appending(database, [make_push(task_id="late")]))
        journal.append(database, [make_push(task_id="early", status="odd")])
        yield database, late
    database.close()


def projected(database: Database) -> set[str | None]:
    assert catch_up(database) is None
    with database.reading() as connection:
        return set(connection.scalars(sa.select(messages.c.task_id)))


def test_erasure_in_its_snapshot_passes_over_no_append_that_is_under_way(
    with_a_gap: tuple[Database, ExitStack], tmp_path: Path
) -> None:
    database, late = with_a_gap
    now = datetime.now(UTC)
    read_again = Admission(make_settings("", tmp_path)).read_again
    of_another: Any = (database, "13900000000", read_again)
    erasing = partial(erase_number, *of_another, found=NumberTraces(), since=now, now=now, actor="cli")
    thread = threading.Thread(target=partial(erasing, reason=None, mobile_hmac="x"))
    thread.start()
    time.sleep(0.05)  # its snapshot is taken, and does not show what commits now
    late.close()
    thread.join()
    assert projected(database) == {"early", "late"}


def test_replay_of_a_push_that_is_not_projected_yet_is_refused(with_a_gap: tuple[Database, ExitStack]) -> None:
    database, late = with_a_gap
    with database.reading() as connection:
        (push,) = queries.list_pushes(connection, Page(limit=9))
    with pytest.raises(DatabaseUnavailable, match="still being committed"):
        database.write(
            lambda connection: replay_push(connection, replace(make_push(task_id="early", status="odd"), id=push.id))
        )
    late.close()
    assert projected(database) == {"early", "late"}
    with database.reading() as connection:
        assert set(connection.scalars(sa.select(receipts.c.copies))) == {1}


def test_late_commit_is_not_quarantined_for_the_push_after_it(with_a_gap: tuple[Database, ExitStack]) -> None:
    database, late = with_a_gap
    refusal = "ALTER TABLE receipts ADD CONSTRAINT odd CHECK (vendor_status <> 'odd')"
    database.write(lambda connection: connection.exec_driver_sql(refusal))
    found: list[tuple[projection.Progress | None, Exception | None]] = []
    thread = threading.Thread(target=lambda: found.append(database.write(projection.project_one)))
    thread.start()
    time.sleep(0.05)  # it waits for the append to end
    late.close()
    thread.join()
    ((progress, error),) = found
    assert progress is not None
    assert (progress.pushes, error) == (1, None)
    assert projected(database) == {"late"}
    with database.reading() as connection:
        refused = connection.execute(sa.select(pushes.c.task_id, pushes.c.outcome).order_by(pushes.c.sequence)).all()
    assert refused == [("late", "accepted"), (None, "quarantined")]
