"""The schema: migrations make exactly the tables, an older one is refused, a newer one passes."""

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

from receiver.core import DatabaseMisconfigured, Outcome
from receiver.db import migrate
from receiver.db import version as schema
from receiver.db.tables import metadata
from receiver.messages import search
from receiver.runtime import Runtime
from tests.conftest import make_settings
from tests.harness.factories import make_push
from tests.harness.server import ServeProcess
from tests.intake.test_push import journal

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.config import Settings


def _declared(name: str | None, _kind: str, _parents: Any) -> bool:
    return name is None or not name.startswith(search.OWN_NAMES)


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
    revisions = [script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions()]
    assert revisions[::-1] == [f"{number:04}" for number in range(1, len(revisions) + 1)]
    assert revisions[0] == schema.VERSION


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


def test_schema_from_the_future_passes_and_an_older_one_is_refused(runtime: Runtime) -> None:
    schema.require_schema(runtime.database)

    def set_version(version: str) -> None:
        runtime.database.write(
            lambda connection: connection.execute(
                sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version}
            )
        )

    set_version("9999")
    schema.require_schema(runtime.database)
    migrate.upgrade(runtime.database)
    assert schema.current_revision(runtime.database) == "9999"


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
