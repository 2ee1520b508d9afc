"""An embedded database is moved into PostgreSQL while pushes come in: all of it once, and one truth at any time."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured, Outcome, ReceiverError
from receiver.db import handover, migrate, version
from receiver.db.engine import Database
from receiver.db.tables import attempts, metadata, pushes
from receiver.maintenance.move_to_postgres import Moved, move, moved_before, place_of, prepare, undo
from receiver.maintenance.verify import verify
from receiver.messages import recording
from receiver.runtime import Runtime
from tests.conftest import make_key, make_settings
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true
from tests.intake.test_promises import assert_kept, await_empty_spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLACE = "db.example:5432/receiver"


# --- While a server takes pushes ------------------------------------------------------------------------


@pytest.mark.timeout(480)
def test_move_under_load_that_is_killed_and_run_again_keeps_every_push_once(
    tmp_path: Path, postgres_database_url: str
) -> None:
    process = ServeProcess(tmp_path, patient=False)
    process.upgrade()
    key = process.make_key("read", "pii")
    command = [sys.executable, "-m", "receiver", "db", "copy", "--to", postgres_database_url.replace("+psycopg", "")]

    def start_copy(until: str) -> subprocess.Popen[str]:
        running = subprocess.Popen(command, env=process.env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line)
            if until in line:
                return running
        raise AssertionError(said)

    with process, Pushers(process, 4, pause_seconds=0.005) as pushers:
        pushers.await_acks(300)
        first = process.request("GET", "/api/v1/events?limit=200", headers=key).json
        for until in ("copying", "copying", "verifying"):
            with start_copy(until) as running:
                time.sleep(random.uniform(0, 0.2))  # wherever it is by then, at its end perhaps
                running.kill()
        assert subprocess.run(command, env=process.env, cwd=tmp_path, check=False, timeout=120).returncode == 0
        spooled = pushers.outcomes["spooled"]
        pushers.await_acks(100)
        assert pushers.outcomes["spooled"] - spooled >= 100 - 4  # those under way when it was looked at
        await_true(lambda: "was moved to" in process.request("GET", "/readyz").json["reason"])  # a write has failed

    assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert pushers.failures == 0
    refused = process.run("serve")
    assert refused.returncode == 1
    assert refused.stderr.startswith("receiver: this database was moved to 127.0.0.1:")
    process.database_url = postgres_database_url
    with process:
        await_empty_spool(process)
        events = first["items"]
        cursor = first["next_cursor"]
        while page := process.request("GET", f"/api/v1/events?limit=1000&after={cursor}", headers=key).json:
            cursor = page["next_cursor"]
            events += page["items"]
            if not page["has_more"]:
                break
        verified = process.run("verify")
    assert_kept(process, pushers)
    assert sorted(event["task_id"] for event in events if event["kind"] == "receipt") == sorted(pushers.acks.values())
    assert {event["task_id"] for event in events if event["kind"] == "message"} == set(pushers.acks.values())
    assert len({event["event_id"] for event in events}) == len(events)
    assert (verified.returncode, verified.stderr) == (0, "")


# --- Rows -------------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime on an embedded database with a bit of everything, without a server."""
    runtime = Runtime(make_settings(f"sqlite:///{tmp_path / 'receiver.db'}", tmp_path))
    migrate.upgrade(runtime.database)
    make_key(runtime)
    runtime.shared_secret("cursors")
    runtime.audit("cli", "test", nothing="\0")
    extra = b"mobile=15080921090&taskid=9&status=1&receivetime=2019-07-23+17:00:00&other=%00"
    sends = [make_send(), make_send(task_id="masked", mobile="15080920001"), make_send(task_id="a\0b", sent_at=NOON)]
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=NOON))
    save(
        runtime,
        make_push(),
        make_push(),
        make_push(status="0", second=5),
        make_push(content="退订\0"),
        make_push(content="退订\0", task_id=None),
        make_push(task_id="masked", mobile="1508092****"),
        make_push(body=b"mobile=1&nonsense"),
        make_push(body=extra),
        *(make_push(task_id=f"many-{number}") for number in range(40)),
    )
    yield runtime
    runtime.stop()


@pytest.fixture
def target(postgres_database_url: str) -> Iterator[Database]:
    """An empty PostgreSQL database."""
    database = Database(postgres_database_url)
    yield database
    database.close()


def save(runtime: Runtime, *batch: Any) -> None:
    save_pushes(runtime.database, batch)


def run(database: Database, statement: str) -> None:
    database.write(lambda connection: connection.execute(sa.text(statement)))


def rows(database: Database) -> dict[str, list[str]]:
    with database.reading() as connection:
        return {
            table.name: sorted(
                repr(tuple(row)).replace("\\x00", "\u2400") for row in connection.execute(sa.select(table))
            )
            for table in metadata.sorted_tables
        }


def moved(runtime: Runtime, target: Database, verify: Callable[[], None] = lambda: None) -> Moved:
    prepare(runtime.database, target)
    return move(runtime.database, target, PLACE, verify)


def assert_moved(runtime: Runtime, target: Database) -> None:
    assert rows(target) == rows(runtime.database)
    assert all(finding.ok for finding in verify(target, runtime.admission.read_again))
    version.require_schema(target)
    with pytest.raises(DatabaseMisconfigured, match="this database was moved to"):
        runtime.make_ready()


def test_every_row_is_the_same_in_postgresql_but_for_nul(runtime: Runtime, target: Database) -> None:
    found = moved(runtime, target)
    assert (found.rows["pushes"], found.nul_texts) == (48, 1)
    assert_moved(runtime, target)


def test_ids_go_on_where_they_were(runtime: Runtime, target: Database) -> None:
    run(runtime.database, "DELETE FROM messages WHERE task_id = 'many-39'")  # its id is never given again
    moved(runtime, target)
    with runtime.database.reading() as connection:
        last = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'messages'"))
    save_pushes(target, [make_push(task_id="new")])
    with target.reading() as connection:
        assert connection.scalar(sa.text("SELECT id FROM messages WHERE task_id = 'new'")) == last + 1


def test_failed_proof_moves_nothing_and_the_next_run_replaces_the_copy(runtime: Runtime, target: Database) -> None:
    def fail() -> None:
        raise ReceiverError("does not agree")

    with pytest.raises(ReceiverError, match="does not agree"):
        moved(runtime, target, fail)
    save(runtime, make_push(task_id="later"))
    run(runtime.database, "DELETE FROM receipts WHERE id = 3")
    run(runtime.database, "DELETE FROM pushes WHERE id IN (SELECT id FROM pushes ORDER BY id LIMIT 9)")
    with pytest.raises(DatabaseMisconfigured, match="a copy into this database is not complete"):
        version.require_schema(target)
    moved(runtime, target)
    assert rows(target) == rows(runtime.database)
    version.require_schema(target)


def test_copy_that_differs_from_its_source_moves_nothing(runtime: Runtime, target: Database) -> None:
    prepare(runtime.database, target)
    run(target, "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN new.extra = '{}'; RETURN new; END $$")  # fmt: skip
    run(target, "CREATE TRIGGER other BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION other()")
    with pytest.raises(ReceiverError, match="receipts: PostgreSQL returns different values"):
        moved(runtime, target)
    runtime.make_ready()
    version.require_schema(target)


def test_row_that_somebody_else_wrote_to_the_target_is_found_and_left_alone(runtime: Runtime, target: Database) -> None:
    def write() -> None:
        target.write(lambda there: there.execute(sa.insert(attempts).values(id=make_push().id, begun_at=NOON)))

    for verify_ in (write, lambda: None):
        with pytest.raises(ReceiverError, match="attempts has 1 rows in PostgreSQL, and not 0"):
            moved(runtime, target, verify_)
    runtime.make_ready()


def test_forgotten_transaction_on_the_target_is_named_and_the_source_goes_on(
    runtime: Runtime, target: Database, postgres_database_url: str
) -> None:
    migrate.upgrade(target)
    forgotten = Database(postgres_database_url)
    with forgotten.reading() as connection:
        connection.execute(sa.select(pushes)).all()
        with pytest.raises(ReceiverError, match="another transaction uses the tables in PostgreSQL"):
            moved(runtime, target)
    forgotten.close()
    save(runtime, make_push(task_id="after"))
    moved(runtime, target)
    assert_moved(runtime, target)


def test_target_with_rows_of_its_own_is_refused_and_left_alone(runtime: Runtime, target: Database) -> None:
    migrate.upgrade(target)
    push = make_push()
    save_pushes(target, [push])
    with pytest.raises(ReceiverError, match="and not 0; use an empty database"):
        moved(runtime, target)
    with target.reading() as connection:
        assert list(connection.scalars(sa.select(pushes.c.id))) == [push.id]


def test_moved_database_takes_no_write_and_its_pushes_are_spooled(runtime: Runtime, target: Database) -> None:
    runtime.start()
    assert runtime.availability.await_known(20)
    moved(runtime, target)
    before = rows(runtime.database)
    kept = [runtime.batch_writer.enqueue(make_push(task_id=f"after-{number}")).result(20) for number in range(3)]
    assert [one.outcome for one in kept] == [Outcome.SPOOLED] * 3
    assert runtime.recorder.record([make_send(task_id="after")]) is None
    with pytest.raises(ReceiverError, match="this database was moved to"):
        runtime.database.write(lambda connection: connection.execute(sa.delete(pushes)))
    assert rows(runtime.database) == before


def test_undo_takes_writes_again(runtime: Runtime, target: Database) -> None:
    moved(runtime, target)
    assert moved_before(runtime.database, target, PLACE)
    with pytest.raises(ReceiverError, match="this database was moved to"):
        moved_before(runtime.database, target, "db.example:5432/other")
    assert undo(runtime.database)
    assert not undo(runtime.database)
    runtime.make_ready()
    save(runtime, make_push(task_id="again"))


def test_complete_move_is_tidied_up_after_a_kill_in_its_last_moment(runtime: Runtime, target: Database) -> None:
    moved(runtime, target)
    target.write(handover.copied_rows.create)
    assert moved_before(runtime.database, target, PLACE)
    version.require_schema(target)


def test_place_is_told_without_user_and_password() -> None:
    assert place_of("postgresql+psycopg://me:secret@db1:5433,db2:5433/receiver") == "db1,db2:5433,5433/receiver"
    assert place_of("postgresql+psycopg:///receiver?host=/run/postgresql") == "/run/postgresql:5432/receiver"


def test_command_refuses_what_it_cannot_move(tmp_path: Path, postgres_database_url: str) -> None:
    process = ServeProcess(tmp_path)
    assert process.run("db", "copy", "--to", "mysql://x").stderr.startswith("receiver: --to: MySQL is not supported")
    process.database_url = postgres_database_url
    refused = process.run("db", "copy", "--to", "postgresql://x").stderr
    assert refused.startswith("receiver: RECEIVER_DATABASE_URL: unset it for the copy")
