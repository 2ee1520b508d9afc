"""The databases that tests are given one after the other: an emptied one is as a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.harness.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def databases(postgres_url: str, postgres_template: str) -> Iterator[Databases]:
    made = Databases(postgres_url, postgres_template)
    yield made
    made.close()


def change(url: str, *statements: str) -> int:
    """Run these, past the triggers that refuse some; the database's own number."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)
        found = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert found is not None
    return int(found[0])


def read(url: str) -> dict[str, object]:
    """Everything in it."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384 ORDER BY 1"
        ).fetchall()
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for (name,) in tables}


def test_an_emptied_database_is_as_a_new_one(databases: Databases) -> None:
    with databases.lend() as url:
        new = read(url)
        name = url
        number = change(
            url,
            "UPDATE projection SET position = 7",
            "DELETE FROM status_ages WHERE name = 'late_after'",
            "UPDATE audit_chain SET name = 'other'",
            "INSERT INTO status_ages VALUES ('other', 1)",
            "SELECT setval(seqrelid, 1000) FROM pg_sequence",
        )
        assert read(url) != new
    with databases.lend() as url:
        assert url != name
        assert read(url) == new
        assert change(url) == number


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX more ON audit (id)",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "GRANT SELECT ON audit TO PUBLIC",
        "CREATE OR REPLACE FUNCTION audit_keep_whole() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "DROP VIEW IF EXISTS nothing; CREATE VIEW more AS SELECT 1",
        "ALTER TABLE audit ALTER COLUMN id SET STATISTICS 7",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
        "ANALYZE status_ages",
        "INSERT INTO status_ages SELECT repeat('x', 900) || each, 1 FROM generate_series(1, 3000) each",
    ],
)
def test_a_database_whose_schema_a_test_has_changed_is_not_given_on(databases: Databases, statement: str) -> None:
    with databases.lend() as url:
        new = read(url)
        number = change(url, statement)
    with databases.lend() as url:
        assert change(url) != number
        assert read(url) == new


def test_what_is_still_connected_does_not_find_the_next_tests_database(databases: Databases) -> None:
    with databases.lend() as url:
        left = psycopg.connect(url.replace("+psycopg", ""))
    with databases.lend() as other:
        assert other != url
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url.replace("+psycopg", ""))
