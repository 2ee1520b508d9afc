"""dlt loads what the API lists and what the views show into DuckDB."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.tools.compare import as_columns, assert_same
from tests.tools.environments import program, run
from tests.tools.house import LISTS
from tests.tools.recipes import files
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
result = connection.execute(f"FROM sms.{table}")
names = [column[0] for column in result.description]
rows = [dict(zip(names, row)) for row in result.fetchall()]
print(json.dumps([{name: row[name] for name in names if not name.startswith("_dlt_")} for row in rows], default=str))
"""
# Each as its documentation has it first; the names of files and tables are the recipes'.
_FIRST_EXAMPLE = """
import os, sys
import dlt
from dlt.sources.rest_api import rest_api_source

paginator = {paginator}
source = rest_api_source({{
    "client": {{
        "base_url": os.environ["SMS_URL"] + "/api/v1/",
        "auth": {{"token": os.environ["SMS_KEY"]}},
        **({{"paginator": paginator}} if paginator else {{}}),
    }},
    "resource_defaults": {{"primary_key": "id", "write_disposition": "merge"}},
    "resources": ["messages", "receipts", "replies", {{"name": "events", "primary_key": "event_id"}}],
}})
dlt.pipeline("receiver", destination="duckdb", dataset_name="sms").run(source)
"""
_CURSOR = '{"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor", "has_more_path": "has_more"}'
_LISTS = dict.fromkeys(LISTS, "id")


def run_python(code: str, house: House, place: Path) -> None:
    run([program("load", "python"), "-"], place, house.environment, stdin=code)


def table(place: Path, name: str) -> list[Row]:
    """Return a table's rows."""
    found: list[Row] = json.loads(run([program("load", "python"), "-c", _DUMP, name], place, {}))
    return found


def assert_loaded(house: House, place: Path, tables: dict[str, str]) -> None:
    """Every table, named with its key, has every row of its list."""
    for name, key in tables.items():
        assert_same(table(place, name), as_columns(house.rows(name), "__"), key=key)


def run_counted(recipe: str, house: House, place: Path) -> dict[str, int]:
    """Run a recipe; return how many rows it has loaded by table."""
    counted = recipe + "\nimport json; print(json.dumps(pipeline.last_trace.last_normalize_info.row_counts))\n"
    printed = run([program("load", "python"), "-"], place, house.environment, stdin=counted)
    found: dict[str, int] = json.loads(printed.splitlines()[-1])
    return {name: count for name, count in found.items() if not name.startswith("_dlt")}


def change(house: House, number: int) -> None:
    """Let a message have its first receipt, long after it was sent."""
    late = Push(f"plain-{number}", f"1390000{number:04d}", status="0", at="2026-11-21 00:00:00")
    assert house.process.push(late.body).status == 200
    (changed,) = house.ask("messages", task_id=late.task_id)["items"]
    assert changed["status"] == "failed"


@pytest.mark.parametrize("paginator", ["None", _CURSOR], ids=["auto", "cursor"])
def test_dlt_pages_through_every_list_and_ends(house: House, tmp_path: Path, paginator: str) -> None:
    run_python(_FIRST_EXAMPLE.format(paginator=paginator), house, tmp_path)
    assert_loaded(house, tmp_path, _LISTS | {"events": "event_id"})


def test_dlt_takes_what_changed_since_its_last_run_alone(house: House, tmp_path: Path) -> None:
    recipe = files("dlt")["lists.py"]
    run_python(recipe, house, tmp_path)
    assert_loaded(house, tmp_path, _LISTS)
    change(house, 105)
    # It, and those of the last moment that the run before had seen.
    assert 1 <= run_counted(recipe, house, tmp_path)["messages"] < 10
    assert_loaded(house, tmp_path, _LISTS)


def test_dlt_goes_on_in_the_events_where_it_left_them(house: House, tmp_path: Path) -> None:
    recipe = files("dlt")["events.py"]
    run_python(recipe, house, tmp_path)
    assert_events_loaded(house, tmp_path)
    change(house, 106)
    assert run_counted(recipe, house, tmp_path) == {"message": 1, "receipt": 1}
    assert_events_loaded(house, tmp_path)


def assert_events_loaded(house: House, place: Path) -> None:
    """Every table has the newest event of each of its rows."""
    for kind in ("message", "receipt", "reply"):
        events = [event for event in house.rows("events") if event["kind"] == kind]
        assert_same(table(place, kind), as_columns(events, "__"))


@pytest.mark.parametrize("backend", ["sqlalchemy", "pyarrow", "pandas"])
def test_dlt_copies_the_views(postgres_house: House, tmp_path: Path, backend: str) -> None:
    recipe = files("dlt")["views.py"]
    assert 'backend="pyarrow"' in recipe
    run_python(recipe.replace('backend="pyarrow"', f'backend="{backend}"'), postgres_house, tmp_path)
    for name in LISTS:
        assert_same(table(tmp_path, name), postgres_house.masked_rows(name))
