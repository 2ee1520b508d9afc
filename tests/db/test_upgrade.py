"""The schema is brought up to date while others are at work with it: nobody waits long, and a kill costs nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from receiver.core import DatabaseUnavailable
from receiver.db import migrate, version
from receiver.db.engine import Database
from receiver.db.tables import metadata
from tests.bench import upgrade as bench
from tests.db.test_schema import _declared
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 60.0


@pytest.fixture
def database(postgres_database_url: str) -> Iterator[Database]:
    made = Database(postgres_database_url)
    yield made
    made.close()


def make_schema(database: Database, revision: str) -> None:
    config = migrate._config()
    with database.maintaining() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def unmake_schema(database: Database, revision: str) -> None:
    config = migrate._config()
    with database.maintaining() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def push_to(database: Database) -> None:
    """Add a message, as a push under the version before would."""
    row = {"task_id": str(time.monotonic_ns())}
    added = sa.text("INSERT INTO messages (account, task_id, mobile) VALUES ('default', :task_id, '15080921090')")
    database.write(lambda connection: connection.execute(added, row))


def plain(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), application_name="somebody")


def assert_complete(database: Database) -> None:
    """Fail unless the schema is that of a database that was made at once, with every index valid."""
    assert version.current_revision(database) == version.VERSION
    with database.reading() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": _declared}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        broken = connection.exec_driver_sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")
        assert broken.all() == []


def test_upgrade_gives_way_to_who_holds_a_lock_and_pushes_pass_between_its_tries(
    database: Database, postgres_database_url: str
) -> None:
    make_schema(database, "0005")
    push_to(database)
    said: list[str] = []
    with plain(postgres_database_url) as reader:
        reader.execute("SELECT 1 FROM messages")  # and holds on to it: a column is to be added to that table
        upgrading = threading.Thread(target=lambda: migrate.upgrade(database, say=said.append))
        upgrading.start()
        pushed = 0
        deadline = time.monotonic() + _SECONDS
        while len(said) < 3:
            push_to(database)
            pushed += 1
            assert time.monotonic() < deadline
        assert upgrading.is_alive()
        assert pushed > len(said)
    upgrading.join(_SECONDS)
    assert_complete(database)
    assert "somebody, idle in transaction) has held one on messages for" in said[0]


def test_upgrade_that_never_gets_its_lock_says_who_has_it_and_goes_on_next_time(
    database: Database, postgres_database_url: str
) -> None:
    make_schema(database, "0004")
    push_to_messages = "INSERT INTO messages (account, mobile) VALUES ('default', '1')"
    with plain(postgres_database_url) as other:
        other.execute(push_to_messages)
        with pytest.raises(DatabaseUnavailable, match=r"session \d+ \(somebody.*pg_terminate_backend.*db upgrade"):
            migrate.upgrade(database, patience_seconds=1)
        assert version.current_revision(database) == "0005"  # which needs no lock on messages
    migrate.upgrade(database)
    assert_complete(database)


def test_killed_upgrade_leaves_a_broken_index_that_the_next_one_builds_again(
    database: Database, postgres_database_url: str, tmp_path: Path
) -> None:
    make_schema(database, "0007")
    push_to(database)
    process = ServeProcess(tmp_path, postgres_database_url)
    state = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_messages_mobile_end')"
    with plain(postgres_database_url) as watcher, plain(postgres_database_url) as writer:
        watcher.autocommit = True
        writer.execute("UPDATE messages SET reference = 'x'")  # an index is not ready before its writers are done
        upgrade = subprocess.Popen([sys.executable, "-m", "receiver", "db", "upgrade"], env=process.env, cwd=tmp_path)
        await_true(lambda: watcher.execute(state).fetchone() == (False,))
        push_to(database)  # meanwhile
        upgrade.kill()
        upgrade.wait()
        # Its session would go on by itself: it goes with the server that dies too.
        watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
    again = process.run("db", "upgrade")
    assert (again.returncode, again.stderr) == (0, "")
    assert_complete(database)


def test_downgrade_of_the_views_that_gave_way_to_a_lock_goes_on_next_time(
    database: Database, postgres_database_url: str
) -> None:
    make_schema(database, "0022")
    push_to(database)
    # Of the first views; an older program has made it.
    mask = "CREATE FUNCTION reporting.mask(mobile text) RETURNS text LANGUAGE sql AS $$ SELECT '***' $$"
    database.write(lambda connection: connection.exec_driver_sql(mask))
    make_schema(database, "0023")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT to_regproc('reporting.mask')").scalar() is None
    with plain(postgres_database_url) as reader:
        reader.execute("SELECT 1 FROM messages")  # and holds on to it: an index is to be dropped from that table
        with pytest.raises(DatabaseUnavailable, match="LockNotAvailable"):
            unmake_schema(database, "0022")
    unmake_schema(database, "0022")
    migrate.upgrade(database)
    assert_complete(database)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_rolling_upgrade_across_an_index_fails_no_push_and_the_old_program_runs_on_the_new_schema() -> None:
    """A hundred thousand rows here; ten million in deploy/BENCHMARKS.md."""
    found = bench.measure(100_000, rate=100)
    assert sum(load["errors"] for load in found.loads) == 0
    assert found.stored >= found.acknowledged > 0
    assert found.schema == found.new_schema
    assert found.longest_wait_seconds < 1
