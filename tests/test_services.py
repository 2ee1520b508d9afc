"""Users, API keys, webhook endpoints and advice are changed in one place each.

That only a service imports the functions that write these rows is said in pyproject.toml; here, that nothing else
writes the tables.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import receiver

PACKAGE = Path(receiver.__file__).parent

# Table: the modules with a statement that writes it. Beside the changes by staff: a use or a delivery that is recorded.
WRITERS = {
    "users": {"auth/changes.py", "auth/users.py"},
    "api_keys": {"auth/changes.py", "auth/api_keys.py"},
    "targets": {"webhooks/changes.py", "webhooks/deliveries.py"},
    "advice": {"support/advice.py"},
    "push_secrets": {"intake/secret_usage.py"},
    "shared_secrets": {"db/shared_secrets.py"},
}


def written(source: str) -> set[str]:
    """The tables whose rows a module inserts, updates or deletes by name."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args)
    return {
        ast.unparse(call.args[-1]).rpartition(".")[2]
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] in ("insert", "update", "delete")
    }


@pytest.mark.parametrize(
    "statement",
    ["sa.update(users)", "sa.insert(tables.users).values(x=1)", "delete(users)", "insert(dialect.name, users)"],
)
def test_each_way_to_write_a_table_is_seen(statement: str) -> None:
    assert written(statement) == {"users"}


def test_each_of_these_tables_is_written_in_its_place_alone() -> None:
    found: dict[str, set[str]] = {table: set() for table in WRITERS}
    for path in PACKAGE.rglob("*.py"):
        for table in written(path.read_text()) & found.keys():
            found[table].add(str(path.relative_to(PACKAGE)))
    assert found == WRITERS
