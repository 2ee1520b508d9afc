"""The recipes of the how-to pages are code, and ask for what there is; `make test-tools` runs them."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.tools.recipes import PAGES, blocks, command, files, text

if TYPE_CHECKING:
    from flask.testing import FlaskClient

_FILE = re.compile(r"\b(messages|receipts|replies)\.(csv|ndjson|parquet|xlsx)(?:\?([a-z_=&0-9-]*))?")
_PARSERS = {"python": ast.parse, "yaml": yaml.safe_load, "sql": str, "sh": str}
# What `make test-tools` runs, by page.
_RUN = {
    "dlt": ["events.py", "lists.py", "views.py"],
    "dbt": ["dbt_project.yml", "profiles.yml", "models/sources.yml", "models/messages.sql"],
    "duckdb": ["ask.py"],
    "pandas": ["with_pandas.py", "with_polars.py"],
    "excel": [],
}


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """An embedded database: none is asked."""
    return sqlite_database_url


@pytest.fixture
def paths(client: FlaskClient) -> Any:
    """Every path that the API describes."""
    return client.get("/api/v1/openapi.json").json["paths"]


def parameters(paths: Any, path: str) -> set[str]:
    shared, asked = paths[path].get("parameters", []), paths[path]["get"].get("parameters", [])
    return {parameter["name"] for parameter in (*shared, *asked)}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_recipe_is_code(page: str) -> None:
    assert blocks(page)
    for block in blocks(page):
        assert _PARSERS[block.language](block.code)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_a_recipe_is_one_that_is_run(page: str) -> None:
    assert list(files(page)) == _RUN[page]
    assert {block.language for block in blocks(page) if not block.file} <= {"sh"}


def test_every_export_that_a_recipe_asks_for_is_one_with_its_parameters(paths: Any) -> None:
    code = [*(code for page in PAGES for code in files(page).values()), command("excel", "messages.xlsx")]
    # In its prose too: what a reader changes an address to.
    asked = [found for recipe in (*code, text("duckdb")) for found in _FILE.findall(recipe) if "exports/" in recipe]
    assert {kind for _, kind, _ in asked} == {"csv", "ndjson", "parquet", "xlsx"}
    for name, kind, query in asked:
        assert f"/api/v1/exports/{name}.{kind}" in paths
        given = {pair.partition("=")[0] for pair in query.split("&") if pair}
        assert given <= parameters(paths, f"/api/v1/exports/{name}.{kind}")


def test_lists_that_the_recipe_for_dlt_reads_have_its_parameters(paths: Any) -> None:
    recipe = files("dlt")["lists.py"]
    for name in ("messages", "receipts", "replies"):
        assert f'"{name}"' in recipe
    for name in ("messages", "receipts", "replies", "events"):
        assert {"cursor", "limit"} <= parameters(paths, f"/api/v1/{name}")
    (parameter,) = re.findall(r'"start_param": "(\w+)"', recipe)
    assert parameter in parameters(paths, "/api/v1/messages")
