"""The schema: migrations make exactly the tables, and what the program makes anew; a newer one passes.

One of a build before the first release is refused, or taken over.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from receiver import audit
from receiver.core import DatabaseMisconfigured, Outcome
from receiver.db import migrate
from receiver.db import version as schema
from receiver.db.tables import metadata
from receiver.reporting import rollup, sql_views
from receiver.runtime import Runtime
from tests.conftest import make_settings
from tests.harness.factories import make_push
from tests.harness.server import ServeProcess
from tests.intake.test_push import journal

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.config import Settings


# What migrations make for the search in replies, beyond the tables.
_OF_SEARCH = ("ix_replies_text", "reply_text", "reply_terms", "ix_replies_grams", "reply_grams")


def _declared(name: str | None, _kind: str, _parents: Any) -> bool:
    return name is None or not name.startswith(_OF_SEARCH)


# SQLAlchemy cannot reflect an index on an expression there.
@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_migrations_make_exactly_the_tables(runtime: Runtime) -> None:
    with runtime.database.reading() as connection:
        # SQLite has no identity columns: what declares one reads back as no default at all.
        defaults = connection.dialect.name == "postgresql"
        options = {"compare_type": True, "compare_server_default": defaults, "include_name": _declared}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_version_is_that_of_the_newest_migration_and_they_go_up_one_by_one() -> None:
    revisions = [script.revision for script in ScriptDirectory.from_config(migrate.scripts()).walk_revisions()]
    first = int(schema.FIRST)
    assert revisions[::-1] == [f"{number:04}" for number in range(first, first + len(revisions))]
    assert revisions[0] == schema.VERSION


def test_what_the_program_makes_anew_is_what_the_migrations_made(runtime: Runtime) -> None:
    """Triggers and views, which a move to PostgreSQL and later migrations make: a change of them needs a migration."""

    def described(connection: sa.Connection) -> set[tuple[str, ...]]:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')")
        else:
            rows = connection.exec_driver_sql(_DESCRIBED)
        return {tuple(row) for row in rows}

    def make_anew(connection: sa.Connection) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
        by_migrations = described(connection)
        dialect = connection.dialect.name
        for made in (rollup, audit):
            for statement in (*made.drop_statements(dialect), *made.create_statements(dialect)):
                connection.exec_driver_sql(statement.strip())
        for statement in list(sql_views.renew_statements(dialect, connection)):
            connection.exec_driver_sql(statement)
        return by_migrations, described(connection)

    by_migrations, by_program = runtime.database.write(make_anew)
    assert by_program == by_migrations
    assert len(by_migrations) > 20


_DESCRIBED = """
    SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT viewname, definition FROM pg_views WHERE schemaname = 'reporting'
    UNION ALL SELECT relname || '.' || objsubid, description FROM pg_description
    JOIN pg_class ON pg_class.oid = objoid AND classoid = 'pg_class'::regclass
    WHERE relnamespace = 'reporting'::regnamespace
"""


def test_every_index_of_the_tables_is_there_with_its_condition(runtime: Runtime) -> None:
    def described(connection: sa.Connection) -> set[tuple[str, str, bool]]:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index'")
            return {(row[0], row[1], "UNIQUE" in (row[2] or "")) for row in rows}
        inspector = sa.inspect(connection)
        return {
            (table, str(index["name"]), bool(index["unique"]))
            for table in metadata.tables
            for index in inspector.get_indexes(table)
            if str(index["name"]).startswith(("ix_", "uq_")) and not index.get("duplicates_constraint")
        }

    by_migration = runtime.ask(described)
    declared = {
        (table.name, str(index.name), index.unique) for table in metadata.tables.values() for index in table.indexes
    }
    assert declared <= by_migration


def set_version(runtime: Runtime, version: str) -> None:
    stamp = sa.text("UPDATE alembic_version SET version_num = :version")
    runtime.database.write(lambda connection: connection.execute(stamp, {"version": version}))


def test_schema_from_the_future_passes(runtime: Runtime) -> None:
    schema.require_schema(runtime.database)
    set_version(runtime, "9999")
    schema.require_schema(runtime.database)
    migrate.upgrade(runtime.database)
    assert schema.current_revision(runtime.database) == "9999"


def test_database_of_a_build_before_the_first_release_is_refused_by_the_name_of_that_to_upgrade_it_with(
    runtime: Runtime,
) -> None:
    set_version(runtime, "0026")
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    line = (
        "the database's schema 0026 was made by a build before 0.1.0;"
        " upgrade it with build 230e7d4f first (receiver db upgrade), then with this one"
    )
    for refused in (schema.require_schema, migrate.upgrade):
        with pytest.raises(DatabaseMisconfigured) as error:
            refused(runtime.database)
        assert str(error.value) == line
    done = process.run("db", "upgrade")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"receiver: {line}\n")
    assert schema.current_revision(runtime.database) == "0026"


def test_database_that_the_last_of_those_builds_has_upgraded_is_taken_over_with_all_that_is_in_it(
    runtime: Runtime,
) -> None:
    pushed = runtime.batch_writer.enqueue(make_push()).result(timeout=20)
    set_version(runtime, "0027")
    # What its operator has added is left alone.
    runtime.database.write(lambda c: c.exec_driver_sql("CREATE INDEX own ON messages (status)"))
    with pytest.raises(DatabaseMisconfigured, match="run `receiver db upgrade`"):
        schema.require_schema(runtime.database)
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    done = process.run("db", "upgrade")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"schema {schema.VERSION}\n", "")
    schema.require_schema(runtime.database)
    assert [row.id for row in journal(runtime)] == [pushed.push.id]


def test_database_that_says_it_is_of_that_build_and_is_not_is_refused_and_stays(runtime: Runtime) -> None:
    set_version(runtime, "0027")
    changes = {
        "DROP INDEX ix_messages_mobile": "add_index ix_messages_mobile",
        "DROP INDEX ix_messages_mobile_end": "add_index ix_messages_mobile_end",
        "ALTER TABLE notes DROP COLUMN user_name": "add_column notes.user_name",
        "ALTER TABLE notes ADD COLUMN colour text": "remove_column notes.colour",
        "DROP TABLE advice": "add_table advice",
    }
    runtime.database.write(lambda connection: [connection.exec_driver_sql(change) for change in changes])
    with pytest.raises(DatabaseMisconfigured, match="0027 is not the one that build 230e7d4f makes:") as error:
        migrate.upgrade(runtime.database)
    assert set(str(error.value).split(": ")[1].split(", ")) == set(changes.values())
    assert schema.current_revision(runtime.database) == "0027"


def test_empty_database_names_the_fix(settings: Settings) -> None:
    runtime = Runtime(settings)
    with pytest.raises(DatabaseMisconfigured, match="receiver db upgrade"):
        schema.require_schema(runtime.database)
    runtime.stop()


def test_schema_that_is_missing_when_pushes_come_sends_them_to_the_spool(
    postgres_database_url: str, tmp_path: Path
) -> None:
    runtime = Runtime(make_settings(postgres_database_url, tmp_path))
    runtime.start()
    kept = runtime.batch_writer.enqueue(make_push()).result(timeout=20)
    assert kept.outcome is Outcome.SPOOLED
    assert "receiver db upgrade" in str(runtime.availability.reason)
    migrate.upgrade(runtime.database)
    deadline = time.monotonic() + 20
    while not runtime.spool.empty and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [row.id for row in journal(runtime)] == [kept.push.id]
    runtime.stop()


def test_upgrades_at_once_do_not_disturb_each_other(settings: Settings) -> None:
    process = ServeProcess(settings.data_dir, settings.database_url)
    command = [sys.executable, "-m", "receiver", "db", "upgrade"]
    started = [
        subprocess.Popen(command, env=process.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for upgrade in started:
        _, errors = upgrade.communicate(timeout=60)
        assert (upgrade.returncode, errors) == (0, b"")
