"""Questions that may be a little behind go to a replica, while it is close enough; a real one that streams."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from receiver.app import create_app
from receiver.config import load_settings
from receiver.core import DatabaseUnavailable, SettingsError
from receiver.db import migrate
from receiver.db.replica import Replica
from receiver.runtime import Runtime
from tests.conftest import make_key, make_settings
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.postgres import PostgresServer
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer({"wal_keep_size": "1GB"}, durable=False) as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    with PostgresServer(
        {"wal_retrieve_retry_interval": "100ms", "hot_standby_feedback": "on"}, durable=False, standby_of=primary
    ) as server:
        yield server


@pytest.fixture
def runtime(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> Iterator[Runtime]:
    """One whose replica may be two seconds behind."""
    settings = make_settings(
        driver(primary),
        tmp_path,
        read_database_url=driver(standby),
        replica_max_lag=timedelta(seconds=2),
        metrics_allow=(ip_network("127.0.0.0/8"),),
    )
    made = Runtime(settings)
    migrate.upgrade(made.database)
    made.start()
    yield made
    made.stop()


def driver(server: PostgresServer) -> str:
    return server.url().replace("postgresql://", "postgresql+psycopg://")


def run(server: PostgresServer, statement: str) -> Any:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        done = connection.execute(statement)
        return done.fetchone() if done.description else None


def port(runtime: Runtime) -> int:
    """Which server answers."""
    found = runtime.browse(lambda connection: connection.exec_driver_sql("SHOW port").scalar())
    return int(found or 0)


def push(runtime: Runtime, task_id: str = "1") -> None:
    save_pushes(runtime.database, [make_push(task_id=task_id)])


def test_lists_come_from_the_replica_with_their_lag_and_look_ups_from_the_primary(
    runtime: Runtime, primary: PostgresServer, standby: PostgresServer
) -> None:
    client: FlaskClient = create_app(runtime).test_client()
    bearer = {"Authorization": make_key(runtime)}
    await_true(lambda: port(runtime) == standby.port)
    run(standby, "SELECT pg_wal_replay_pause()")
    push(runtime)
    listed = client.get("/api/v1/messages", headers=bearer)
    assert (listed.json["items"], 0 <= float(listed.headers["X-Data-Lag-Seconds"]) <= 2) == ([], True)
    found = client.get("/api/v1/messages?task_id=1", headers=bearer)
    assert (len(found.json["items"]), "X-Data-Lag-Seconds" in found.headers) == (1, False)
    # What it lacks is older than two seconds, in time: the primary answers.
    await_true(lambda: client.get("/api/v1/messages", headers=bearer).json["items"])
    listed = client.get("/api/v1/messages", headers=bearer)
    assert "X-Data-Lag-Seconds" not in listed.headers
    with runtime.exporting() as connection:
        assert connection.exec_driver_sql("SHOW port").scalar() == str(primary.port)
    assert runtime.replica is not None
    assert (runtime.replica.lag_seconds() or 0) > 2
    run(standby, "SELECT pg_wal_replay_resume()")
    await_true(lambda: port(runtime) == standby.port)
    assert len(client.get("/api/v1/messages", headers=bearer).json["items"]) == 1
    with runtime.exporting() as connection:
        assert connection.exec_driver_sql("SHOW port").scalar() == str(standby.port)
    push(runtime, "2")
    await_true(lambda: len(client.get("/api/v1/messages", headers=bearer).json["items"]) == 2)
    first = client.get("/api/v1/messages?limit=1", headers=bearer)
    next_ = client.get(f"/api/v1/messages?limit=1&cursor={first.json['next_cursor']}", headers=bearer)
    assert ("X-Data-Lag-Seconds" in first.headers, "X-Data-Lag-Seconds" in next_.headers) == (True, False)
    assert [page.json["items"][0]["task_id"] for page in (first, next_)] == ["2", "1"]
    for path in ("reports/delivery?from=2026-11-01&to=2026-11-30", "receipts", "pushes"):
        assert "X-Data-Lag-Seconds" in client.get(f"/api/v1/{path}", headers=bearer).headers, path
    assert "receiver_replica_lag_seconds " in client.get("/metrics").text
    # One that answers nothing, and one that is gone: the primary does.
    standby.kill()
    assert port(runtime) == primary.port
    assert runtime.availability.up
    await_true(lambda: runtime.replica is not None and runtime.replica.lag_seconds() is None)
    assert "receiver_replica_lag_seconds +Inf" in client.get("/metrics").text
    with runtime.exporting() as connection:
        assert connection.exec_driver_sql("SHOW port").scalar() == str(primary.port)
    standby.start()
    await_true(lambda: port(runtime) == standby.port)


def test_replica_that_is_cut_off_or_promoted_is_not_taken_for_one_that_has_everything(
    runtime: Runtime, primary: PostgresServer, standby: PostgresServer
) -> None:
    await_true(lambda: port(runtime) == standby.port)
    standby.set("primary_conninfo", "")  # cut: it has replayed all that it has received
    push(runtime)
    await_true(lambda: port(runtime) == primary.port)
    standby.promote()
    for _ in range(3):
        run(standby, "CREATE TABLE of_its_own ()")  # its log goes on: further than the primary's
        run(standby, "DROP TABLE of_its_own")
    assert runtime.replica is not None
    runtime.replica._looked_at = float("-inf")
    assert runtime.replica.lag_seconds() is None
    assert port(runtime) == primary.port


def test_without_the_primary_no_lag_is_known(primary: PostgresServer, standby: PostgresServer) -> None:
    replica = Replica(driver(standby), primary=driver(primary), max_lag_seconds=1)
    await_true(lambda: replica.lag_seconds() is not None)
    primary.kill()
    await_true(lambda: replica.lag_seconds() is None)
    with pytest.raises(DatabaseUnavailable), replica.reading():
        pass
    replica.close()


def test_embedded_database_has_no_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_READ_DATABASE_URL", "postgresql://u:hunter2@h/d")
    with pytest.raises(SettingsError, match="RECEIVER_READ_DATABASE_URL: the embedded database has no replica"):
        load_settings()
    monkeypatch.setenv("RECEIVER_READ_DATABASE_URL", "sqlite:///x")
    with pytest.raises(SettingsError, match="RECEIVER_READ_DATABASE_URL: not the URL of a replica"):
        load_settings()
