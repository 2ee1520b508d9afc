"""dlt loads what the API lists and what the views show into DuckDB."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.tools.compare import as_columns, assert_same
from tests.tools.environments import program, run
from tests.tools.recipes import blocks
from tests.tools.rows import Push

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House, Row

# Without dlt's own columns. `extra` has become a column for each of its names (which are in lower case).
_DUMP = """
import json, os, sys
import duckdb

table, = sys.argv[1:]
connection = duckdb.connect(next(name for name in os.listdir() if name.endswith(".duckdb")), read_only=True)
connection.execute("SET TimeZone = 'UTC'")
result = connection.execute(f'SELECT * EXCLUDE (_dlt_load_id, _dlt_id) FROM sms."{table}"')
names = [column[0] for column in result.description]
print(json.dumps([dict(zip(names, row)) for row in result.fetchall()], default=str))
"""
# Each as its documentation has it first; the names of files and tables are the recipes'.
_FIRST_EXAMPLE = """
import os, sys
import dlt
from dlt.sources.rest_api import rest_api_source

paginator = {paginator}
source = rest_api_source({{
    "client": {{
        "base_url": os.environ["RECEIVER_URL"] + "/api/v1/",
        "auth": {{"token": os.environ["RECEIVER_KEY"]}},
        **({{"paginator": paginator}} if paginator else {{}}),
    }},
    "resource_defaults": {{"primary_key": "id", "write_disposition": "merge"}},
    "resources": ["messages", "receipts", "replies", {{"name": "events", "primary_key": "event_id"}}],
}})
dlt.pipeline("receiver", destination="duckdb", dataset_name="sms").run(source)
"""
_CURSOR = '{"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor", "has_more_path": "has_more"}'
_TABLES = {"messages": "id", "receipts": "id", "replies": "id", "events": "event_id"}


def run_python(code: str, house: House, place: Path) -> None:
    run([program("load", "python"), "-"], place, house.environment, stdin=code)


def table(place: Path, name: str) -> list[Row]:
    """Return a table's rows."""
    found: list[Row] = json.loads(run([program("load", "python"), "-c", _DUMP, name], place, {}))
    return found


def assert_loaded(house: House, place: Path) -> None:
    """Every table has every row of its list."""
    for name, key in _TABLES.items():
        assert_same(table(place, name), as_columns(house.rows(name), "__"), key=key)


@pytest.mark.parametrize("paginator", ["None", _CURSOR], ids=["auto", "cursor"])
def test_dlt_pages_through_every_list_and_ends(house: House, tmp_path: Path, paginator: str) -> None:
    run_python(_FIRST_EXAMPLE.format(paginator=paginator), house, tmp_path)
    assert_loaded(house, tmp_path)


def test_dlt_takes_what_changed_since_its_last_run_alone(house: House, tmp_path: Path) -> None:
    recipe = blocks("dlt")[0].code
    counted = recipe + "\nprint(pipeline.last_trace.last_normalize_info.row_counts.get('messages', 0))\n"
    run_python(recipe, house, tmp_path)
    assert_loaded(house, tmp_path)
    late = Push("plain-105", "13900000105", status="0", at="2026-11-21 00:00:00")
    assert house.process.push(late.body).status == 200
    (changed,) = house.ask("messages", task_id="plain-105")["items"]
    assert changed["status"] == "failed"
    printed = run([program("load", "python"), "-"], tmp_path, house.environment, stdin=counted)
    assert 1 <= int(printed.split()[-1]) < 10  # it, and those of the last moment that the run before had seen
    assert_loaded(house, tmp_path)


@pytest.mark.parametrize("backend", ["sqlalchemy", "pyarrow", "pandas"])
def test_dlt_copies_the_views(postgres_house: House, tmp_path: Path, backend: str) -> None:
    recipe = blocks("dlt")[1].code
    assert 'backend="pyarrow"' in recipe
    run_python(recipe.replace('backend="pyarrow"', f'backend="{backend}"'), postgres_house, tmp_path)
    for name in ("messages", "receipts", "replies"):
        rows = postgres_house.masked_rows(name)
        found = [{column: row.get(column) for column in rows[0]} for row in table(tmp_path, name)]
        assert_same(found, rows)
