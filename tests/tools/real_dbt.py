"""dbt builds a model over the views, brings it up to date, and tests them with its usual number of threads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.tools.compare import assert_same
from tests.tools.environments import install_duckdb_extensions, program, run
from tests.tools.recipes import files
from tests.tools.rows import Push

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House, Row

_DUMP = """
import json, duckdb
connection = duckdb.connect("sms.duckdb", read_only=True)
connection.execute("SET TimeZone = 'UTC'")
result = connection.execute("SELECT * FROM messages")
names = [column[0] for column in result.description]
print(json.dumps([dict(zip(names, row)) for row in result.fetchall()], default=str))
"""
# As dbt's documentation has it; {{ and }} are dbt's own.
_POSTGRES = """
sms:
  target: dev
  outputs:
    dev:
      type: postgres
      threads: 4
      schema: reporting
      host: 127.0.0.1
      port: {port}
      user: {user}
      password: {password}
      dbname: {database}
"""
_TESTS = "".join(
    f"      - name: {name}\n        columns:\n          - name: id\n            data_tests: [unique, not_null]\n"
    for name in ("messages", "receipts", "replies")
)


def make_project(place: Path) -> None:
    """Write the recipe's files."""
    for name, code in files("dbt").items():
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)


def dbt(house: House, place: Path, *arguments: str) -> str:
    return run([program("dbt", "dbt"), "--no-use-colors", *arguments], place, house.environment)


def built(place: Path) -> list[Row]:
    found: list[Row] = json.loads(run([program("dbt", "python"), "-c", _DUMP], place, {}))
    return found


def test_dbt_on_duckdb_builds_a_model_and_brings_it_up_to_date(postgres_house: House, tmp_path: Path) -> None:
    make_project(tmp_path)
    install_duckdb_extensions(tmp_path)
    rows = postgres_house.masked_rows("messages")
    assert "ERROR=0" in dbt(postgres_house, tmp_path, "build")
    assert_same(built(tmp_path), rows)
    late = Push("plain-103", "13900000103", status="0", at="2026-11-21 00:00:00")
    assert postgres_house.process.push(late.body).status == 200
    rows = postgres_house.masked_rows("messages")
    assert [row["status"] for row in rows if row["task_id"] == "plain-103"] == ["failed"]
    assert "ERROR=0" in dbt(postgres_house, tmp_path, "build")
    assert_same(built(tmp_path), rows)


def test_dbt_on_postgres_tests_the_views_with_four_threads(postgres_house: House, tmp_path: Path) -> None:
    make_project(tmp_path)
    (tmp_path / "models/messages.sql").unlink()
    sources = tmp_path / "models/sources.yml"
    login = postgres_house.login
    text = sources.read_text().replace("    database: receiver\n", "")
    sources.write_text(text.partition("    tables:\n")[0] + "    tables:\n" + _TESTS)
    (tmp_path / "profiles.yml").write_text(_POSTGRES.format(**login))
    assert "ERROR=0" in dbt(postgres_house, tmp_path, "test")
    # The messages changed today; receipts and replies have no time of change.
    dbt(postgres_house, tmp_path, "source", "freshness", "--select", "source:reporting.messages")
    (found,) = json.loads((tmp_path / "target/sources.json").read_text())["results"]
    assert found["status"] == "pass"
    assert "error" not in dbt(postgres_house, tmp_path, "docs", "generate").lower()
