"""The recipes of the how-to page are code, and ask for what there is; `make test-tools` runs them."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.tools.recipes import PAGE, blocks, sections

if TYPE_CHECKING:
    from flask.testing import FlaskClient

_FILE = re.compile(r"\b(messages|receipts|replies)\.(csv|ndjson|parquet|xlsx)(?:\?([a-z_=&0-9-]*))?")
_PARSERS = {"python": ast.parse, "yaml": yaml.safe_load, "sql": str, "sh": str}


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


@pytest.mark.parametrize("section", sections())
def test_every_block_of_a_recipe_is_code(section: str) -> None:
    assert blocks(section)
    for block in blocks(section):
        assert _PARSERS[block.language](block.code)


def test_every_file_that_a_recipe_asks_for_is_one_with_its_parameters(paths: Any) -> None:
    asked = _FILE.findall(PAGE.read_text())
    served = [(name, kind, query) for name, kind, query in asked if f"/api/v1/exports/{name}.{kind}" in paths]
    assert {kind for _, kind, _ in served} == {"csv", "ndjson", "parquet", "xlsx"}
    assert served == asked
    for name, kind, query in served:
        given = {pair.partition("=")[0] for pair in query.split("&") if pair}
        assert given <= parameters(paths, f"/api/v1/exports/{name}.{kind}")


def test_lists_that_the_recipe_for_dlt_reads_have_its_parameters(paths: Any) -> None:
    recipe = blocks("dlt")[0].code
    for name in ("messages", "receipts", "replies"):
        assert f'"{name}"' in recipe
    for name in ("messages", "receipts", "replies", "events"):
        assert {"cursor", "limit"} <= parameters(paths, f"/api/v1/{name}")
    assert set(re.findall(r'"start_param": "(\w+)"', recipe)) <= parameters(paths, "/api/v1/messages")
