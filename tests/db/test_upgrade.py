"""The schema is brought up to date while others are at work with it: none waits long, and a kill costs nothing.

The migrations are the first, and some that the tests add.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.db import migrate, version
from receiver.db.engine import Database
from tests.bench import upgrade as bench
from tests.harness.factories import make_push
from tests.harness.migrations import Migrations
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true
from tests.intake.test_push import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

_SECONDS = 60.0
_ADD_COLUMN = 'op.add_column("messages", sa.Column("colour", sa.Text()))'
_ADD_TABLE = 'op.create_table("colours", sa.Column("name", sa.Text(), primary_key=True))'
_INDEX = "ix_messages_next"
_ADD_INDEX = f'create_index("{_INDEX}", "messages", ["task_id"])'


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    (directory := tmp_path / "migrations").mkdir()
    return Migrations(directory, monkeypatch)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the first schema."""
    made = Database(database_url)
    migrate.upgrade(made)
    yield made
    made.close()


@pytest.fixture
def postgres(postgres_database_url: str) -> Iterator[Database]:
    """The same, of PostgreSQL."""
    made = Database(postgres_database_url)
    migrate.upgrade(made)
    yield made
    made.close()


def push_to(database: Database) -> None:
    """Add a message, as a push under the version before would."""
    row = {"task_id": str(time.monotonic_ns())}
    added = sa.text("INSERT INTO messages (account, task_id, mobile) VALUES ('default', :task_id, '15080921090')")
    database.write(lambda connection: connection.execute(added, row))


def plain(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), application_name="another")


def columns(database: Database, table: str) -> set[str]:
    """Return a table's columns; none: there is no such table."""
    with database.reading() as connection:
        inspector = sa.inspect(connection)
        return {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()


def indexes(database: Database) -> set[str]:
    """Return the names of the messages' indexes. Fails where PostgreSQL has one that is not valid."""
    with database.reading() as connection:
        if database.postgresql:
            broken = connection.exec_driver_sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")
            assert broken.all() == []
            query = "SELECT indexname FROM pg_indexes WHERE tablename = 'messages'"
        else:
            query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'messages'"
        return set(connection.exec_driver_sql(query).scalars())


@pytest.mark.parametrize("rows", [0, 3])
def test_upgrade_takes_every_migration_that_is_missing_and_builds_its_index(
    database: Database, migrations: Migrations, rows: int
) -> None:
    for _ in range(rows):
        push_to(database)
    migrations.add(_ADD_INDEX)
    newest = migrations.add(_ADD_COLUMN)
    migrate.upgrade(database)
    assert version.current_revision(database) == newest
    assert _INDEX in indexes(database)
    assert "colour" in columns(database, "messages")
    migrate.upgrade(database)  # and again: nothing is to be done


def test_migration_that_fails_changes_nothing_and_those_before_it_stay(
    database: Database, migrations: Migrations
) -> None:
    before = migrations.add(_ADD_TABLE)
    migrations.add(f'{_ADD_COLUMN}\nop.execute("SELECT nonsense FROM messages")')
    with pytest.raises((DatabaseMisconfigured, DatabaseUnavailable, sa.exc.DBAPIError)):
        migrate.upgrade(database)
    assert "colour" not in columns(database, "messages")
    # With the embedded database, which has one writer, all are one transaction.
    assert version.current_revision(database) == (before if database.postgresql else version.FIRST)
    assert columns(database, "colours") == ({"name"} if database.postgresql else set())


def test_program_refuses_an_older_schema_until_it_is_upgraded(database: Database, migrations: Migrations) -> None:
    version.require_schema(database)
    migrations.add(_ADD_COLUMN)
    with pytest.raises(DatabaseMisconfigured, match="schema is older than this program; run `receiver db upgrade`"):
        version.require_schema(database)
    migrate.upgrade(database)
    version.require_schema(database)


def test_commands_say_which_schema_is_there_and_which_is_wanted(
    database: Database, database_url: str, migrations: Migrations, tmp_path: Path
) -> None:
    newest = migrations.add(_ADD_COLUMN)
    process = ServeProcess(tmp_path, database_url)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            migrations.command(*arguments), env=process.env, cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert done.stderr == ""
        return done.stdout.strip()

    assert run("db", "current") == f"database {version.FIRST}, program {newest}"
    assert run("db", "upgrade") == f"schema {newest}"
    assert run("db", "current") == f"database {newest}, program {newest}"
    # This program, one version back, runs on the newer schema and does not change it.
    assert process.run("db", "upgrade").stdout.strip() == f"schema {newest}"
    version.require_schema(database)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_embedded_database_is_upgraded_by_the_program_that_serves(
    make_runtime: Callable[..., Runtime], migrations: Migrations
) -> None:
    newest = migrations.add(_ADD_COLUMN)
    runtime = make_runtime()
    kept = runtime.batch_writer.enqueue(make_push()).result(timeout=20)
    assert version.current_revision(runtime.database) == newest
    assert [row.id for row in journal(runtime)] == [kept.push.id]


def test_upgrade_gives_way_to_who_holds_a_lock_and_pushes_pass_between_its_tries(
    postgres: Database, postgres_database_url: str, migrations: Migrations
) -> None:
    newest = migrations.add(_ADD_COLUMN)
    push_to(postgres)
    said: list[str] = []
    with plain(postgres_database_url) as reader:
        reader.execute("SELECT 1 FROM messages")  # and holds on to it: a column is to be added to that table
        upgrading = threading.Thread(target=lambda: migrate.upgrade(postgres, say=said.append))
        upgrading.start()
        pushed = 0
        deadline = time.monotonic() + _SECONDS
        while len(said) < 3:
            push_to(postgres)
            pushed += 1
            assert time.monotonic() < deadline
        assert upgrading.is_alive()
        assert pushed > len(said)
    upgrading.join(_SECONDS)
    assert version.current_revision(postgres) == newest
    assert "colour" in columns(postgres, "messages")
    assert "another, idle in transaction) has held one on messages for" in said[0]


def test_upgrade_that_never_gets_its_lock_says_who_has_it_and_goes_on_next_time(
    postgres: Database, postgres_database_url: str, migrations: Migrations
) -> None:
    before = migrations.add(_ADD_TABLE)  # which needs no lock on messages
    newest = migrations.add(_ADD_COLUMN)
    with plain(postgres_database_url) as other:
        other.execute("INSERT INTO messages (account, mobile) VALUES ('default', '1')")
        with pytest.raises(DatabaseUnavailable, match=r"session \d+ \(another.*pg_terminate_backend.*db upgrade"):
            migrate.upgrade(postgres, patience_seconds=1)
        assert version.current_revision(postgres) == before
    migrate.upgrade(postgres)
    assert version.current_revision(postgres) == newest
    assert "colour" in columns(postgres, "messages")


def test_killed_upgrade_leaves_a_broken_index_that_the_next_one_builds_again(
    postgres: Database, postgres_database_url: str, migrations: Migrations, tmp_path: Path
) -> None:
    newest = migrations.add(_ADD_INDEX)
    push_to(postgres)
    process = ServeProcess(tmp_path, postgres_database_url)
    state = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{_INDEX}')"
    with plain(postgres_database_url) as watcher, plain(postgres_database_url) as writer:
        watcher.autocommit = True
        writer.execute("UPDATE messages SET reference = 'x'")  # an index is not ready before its writers are done
        upgrade = subprocess.Popen(migrations.command("db", "upgrade"), env=process.env, cwd=tmp_path)
        await_true(lambda: watcher.execute(state).fetchone() == (False,))
        push_to(postgres)  # meanwhile
        upgrade.kill()
        upgrade.wait()
        # Its session would go on by itself: it goes with the server that dies too.
        watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
    again = subprocess.run(
        migrations.command("db", "upgrade"), env=process.env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert version.current_revision(postgres) == newest
    assert _INDEX in indexes(postgres)


def test_migration_written_as_sql_is_what_squawk_takes(migrations: Migrations) -> None:
    """What `make check` has of the first migration, where no index is built beside writers."""
    migrations.add(_ADD_INDEX)
    config = migrate.scripts()
    config.output_buffer = written = io.StringIO()
    command.upgrade(config, f"{version.FIRST}:head", sql=True)
    text = written.getvalue()
    assert f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {_INDEX} ON messages (task_id);" in text
    assert text.index("SET lock_timeout = '200ms'") < text.index("COMMIT;\n\nSET lock_timeout = '15min'")
    squawk = [str(Path(sys.executable).with_name("squawk")), "--exclude", "prefer-robust-stmts"]
    linted = subprocess.run(squawk, input=text, capture_output=True, text=True, check=False)
    assert (linted.returncode, "0 issues" in linted.stdout + linted.stderr) == (0, True)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_rolling_upgrade_across_an_index_fails_no_push_and_the_old_program_runs_on_the_new_schema() -> None:
    """A hundred thousand rows here; ten million in deploy/BENCHMARKS.md."""
    found = bench.measure(100_000, rate=100)
    assert sum(load["errors"] for load in found.loads) == 0
    assert found.stored >= found.acknowledged > 0
    assert found.schema == found.new_schema
    assert found.longest_wait_seconds < 1
