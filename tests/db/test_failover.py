"""A primary and its standby, both real: another primary is found in time, and what was acknowledged is in it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from receiver.core import DatabaseUnavailable
from receiver.db import migrate
from receiver.db.engine import Database
from receiver.messages import journal
from tests.harness.factories import make_push
from tests.harness.ports import free_port
from tests.harness.postgres import PostgresServer
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true
from tests.intake.test_promises import assert_kept, await_accepted, await_empty_spool, migrated, project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """A server whose own default is not to wait for any disk: commits of ours do all the same."""
    with PostgresServer({"wal_keep_size": "1GB"}, durable=False) as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A copy of the primary, which keeps nothing without it from then on."""
    with PostgresServer({"wal_retrieve_retry_interval": "100ms"}, durable=False, standby_of=primary) as server:
        primary.set("synchronous_standby_names", "standby")
        yield server


def url_of(*servers: PostgresServer | int, database: str = "postgres") -> str:
    hosts = ",".join(f"127.0.0.1:{server if isinstance(server, int) else server.port}" for server in servers)
    return f"postgresql+psycopg://postgres@{hosts}/{database}?target_session_attrs=read-write"


@contextmanager
def black_hole() -> Iterator[int]:
    """A port from which nothing comes back, not even a refusal: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        fill = [socket.socket() for _ in range(4)]
        for filling in fill:
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", port))
        yield port
        for filling in fill:
            filling.close()


def port_of(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.scalar(sa.text("SHOW port")) or 0)


def test_the_primary_is_found_behind_servers_that_refuse_or_are_silent(postgres_url: str) -> None:
    found = int(psycopg.connect(postgres_url).info.port)
    user = psycopg.connect(postgres_url).info.user
    with black_hole() as hole:
        for others in ([free_port()], [hole], [hole, free_port(), hole]):
            database = Database(url_of(*others, found).replace("postgres@", f"{user}@"))
            assert port_of(database) == found
            database.close()


def test_servers_that_are_all_silent_take_no_more_than_the_patience_for_one() -> None:
    """The driver alone gives each of them two seconds."""
    with black_hole() as hole, black_hole() as other:
        database = Database(url_of(*[hole, other] * 10), patience_seconds=0.4)
        begun = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            port_of(database)
        assert time.monotonic() - begun < 20
        database.close()


def test_server_that_becomes_read_only_is_left_for_the_one_that_is_promoted(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    database = Database(url_of(standby, primary))
    database.write(lambda connection: connection.execute(sa.text("CREATE TABLE kept (id int)")))
    database.connect()
    assert port_of(database) == primary.port  # and connected to it
    insert = "INSERT INTO kept VALUES (1)"
    ways: list[Callable[[], Any]] = [
        lambda: database.write_at_once(lambda driver: driver.execute(insert)),
        lambda: database.write(lambda connection: connection.execute(sa.text(insert))),
    ]
    primary.set("synchronous_standby_names", "")
    for way in ways:
        database.connect()
        primary.set("default_transaction_read_only", "on")
        for _ in range(2):  # by the connection from before, and by one made anew
            with pytest.raises(DatabaseUnavailable, match="read-only"):
                way()
        primary.set("default_transaction_read_only", "off")
        way()
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        Database(url_of(standby)).require_writable()
    primary.set("default_transaction_read_only", "on")
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        ways[0]()
    standby.promote()
    for way in ways:
        way()
    assert port_of(database) == standby.port
    database.close()


@pytest.mark.parametrize("first", ["standby", pytest.param("black hole", marks=pytest.mark.thorough)])
def test_killed_primary_loses_no_acknowledged_push(
    tmp_path: Path, primary: PostgresServer, standby: PostgresServer, first: str
) -> None:
    with black_hole() as hole:
        process = migrated(tmp_path, url_of(*([hole] if first == "black hole" else []), standby, primary))
        with process, Pushers(process, 8, pause_seconds=0.02) as pushers:
            await_accepted(pushers)
            primary.kill()
            pushers.await_acks(100)
            standby.promote()
            promoted_at = time.monotonic()
            await_accepted(pushers)
            took = time.monotonic() - promoted_at
            await_empty_spool(process)
    print(f"recovered {took:.1f} s after the promotion, slowest acknowledgement {max(pushers.seconds):.2f} s")
    assert pushers.failures == 0
    assert set(pushers.outcomes) == {"accepted", "spooled"}
    process.database_url = standby.url()
    assert_kept(process, pushers)


def test_without_its_standby_the_primary_is_away_and_is_asked_to_commit_once(
    tmp_path: Path, primary: PostgresServer, standby: PostgresServer
) -> None:
    """A commit hangs there until the standby is back, and holds a connection as long."""
    process = migrated(tmp_path, url_of(primary))
    with process, Pushers(process, 4, pause_seconds=0.02) as pushers:
        await_accepted(pushers)
        standby.shut_down()
        pushers.await_acks(200)
        await_true(lambda: "standby" in process.request("GET", "/readyz").json.get("reason", ""))
        begun = pushers.outcomes["spooled"]
        waiting = commits_that_wait(primary)
        pushers.await_acks(200)
        assert pushers.outcomes["spooled"] >= begun + 200
        assert commits_that_wait(primary) == waiting < 10
        standby.start()
        await_accepted(pushers)
        await_empty_spool(process)
    assert pushers.failures == 0
    project(process)
    process.database_url = standby.url()
    await_true(lambda: standby_has_all(primary, standby))
    assert_kept(process, pushers)


def test_commit_whose_wait_for_the_standby_was_cancelled_is_not_taken_for_one(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    """PostgreSQL calls it a success, with a warning: it is on one server, and gone with it."""
    database = Database(url_of(primary))
    migrate.upgrade(database)
    await_true(lambda: standby_has_all(primary, standby))
    standby.shut_down()

    # The trap: no error here.
    with psycopg.connect(primary.url(), options="-c synchronous_commit=on") as plain:
        plain.execute("CREATE TABLE trap ()")
        with cancelling(primary):
            plain.commit()

    plain_push, other_push = make_push(), make_push(mobile="1508092****")
    for push in (plain_push, other_push):
        with cancelling(primary), pytest.raises(DatabaseUnavailable):
            journal.append(database, [push])
    with psycopg.connect(primary.url()) as connection:
        rows = connection.execute("SELECT id FROM pushes ORDER BY id").fetchall()
        assert rows == [(plain_push.id,), (other_push.id,)]

    # Saved again, they change nothing, and so wait for nothing: what proves them kept has to.
    impatient = Database(url_of(primary), patience_seconds=1)
    unreadable = make_push(body=b"mobile=")
    with cancelling(primary), pytest.raises(DatabaseUnavailable):
        journal.append(database, [unreadable])
    journal.append(database, [unreadable])
    with pytest.raises(DatabaseUnavailable):
        impatient.require_durable()
    standby.start()
    database.require_durable()
    with psycopg.connect(standby.url()) as connection:
        assert len(connection.execute("SELECT id FROM pushes").fetchall()) == 3
    database.close()
    impatient.close()


def test_connection_that_appends_is_kept_and_let_go_long_after_its_deadline(postgres_url: str) -> None:
    database = Database(postgres_url, patience_seconds=0.2)
    pids: list[int] = []

    def note(driver: Any) -> None:
        pids.append(driver.info.backend_pid)

    database.write_at_once(note)
    database.write_at_once(note)
    time.sleep(0.3)
    database.connect()  # drops it
    database.write_at_once(note)
    assert pids[0] == pids[1] != pids[2]
    time.sleep(0.3)
    database.close()


def commits_that_wait(server: PostgresServer) -> int:
    return len(_waiting_commits(server))


def _waiting_commits(server: PostgresServer) -> list[int]:
    with psycopg.connect(server.url()) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return [row[0] for row in rows]


def standby_has_all(primary: PostgresServer, standby: PostgresServer) -> bool:
    with psycopg.connect(primary.url()) as one, psycopg.connect(standby.url()) as other:
        written = one.execute("SELECT pg_current_wal_lsn()").fetchone()
        query = "SELECT pg_last_wal_replay_lsn() >= %s"
        return other.execute(query, written).fetchone() == (True,)


@contextmanager
def cancelling(server: PostgresServer) -> Iterator[None]:
    """Cancel the wait of the commit that is made meanwhile."""

    def cancel() -> None:
        await_true(lambda: bool(_waiting_commits(server)))
        with psycopg.connect(server.url(), autocommit=True) as connection:
            for pid in _waiting_commits(server):
                connection.execute("SELECT pg_cancel_backend(%s)", [pid])

    thread = threading.Thread(target=cancel)
    thread.start()
    yield
    thread.join()


def test_url_of_several_servers_works_from_a_file(
    tmp_path: Path, primary: PostgresServer, standby: PostgresServer
) -> None:
    """As libpq has it, and without a word on what the servers must be: a standby can keep nothing."""
    (tmp_path / "url").write_text(f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres\n")
    process = ServeProcess(tmp_path, environment={"RECEIVER_DATABASE_URL_FILE": str(tmp_path / "url")})
    made = process.run("db", "upgrade")
    assert made.returncode == 0, made.stderr
    with psycopg.connect(primary.url()) as connection:
        assert connection.execute("SELECT count(*) FROM pushes").fetchone() == (0,)
