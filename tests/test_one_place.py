"""One rule, one place: what may stand in one module alone stands in no other."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


@functools.cache
def _modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(_ROOT).as_posix(): ast.parse(path.read_text())
        for path in sorted((_ROOT / "receiver").rglob("*.py"))
    }


def modules_that_use(name: str) -> set[str]:
    """The modules that import a module, or have an attribute of one, by its dotted name."""
    return {path for path, tree in _modules().items() if name in set(_names(tree))}


def _names(tree: ast.AST) -> list[str]:
    """Each module that is imported with what is taken from it, and each attribute that is read of a plain name."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            found += [".".join(parts[: end + 1]) for end in range(len(parts))]
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.append(f"{node.value.id}.{node.attr}")
    return found


# The simulator stands in for the platform, whose HTTP client is another than ours, and pushes slowly or oddly by will.
_SIMULATOR = {"receiver/simulator/pusher.py", "receiver/simulator/check.py"}


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("httpcore2", {"receiver/net/egress_client.py"}),
        ("urllib.request", {"receiver/net/egress_client.py"}),  # which proxies the environment names
        ("http.client", _SIMULATOR),
        ("httpx2", set()),
        ("requests", set()),
        ("urllib3", set()),
    ],
)
def test_requests_go_out_by_one_client(name: str, places: set[str]) -> None:
    assert modules_that_use(name) == places


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("fcntl.flock", {"receiver/core/files.py"}),
        ("fcntl.lockf", set()),
        ("os.fsync", {"receiver/core/files.py"}),
        ("os.fdatasync", {"receiver/intake/spool.py"}),  # appended for an acknowledgement: the times can wait
        ("os.replace", set()),
        ("os.rename", set()),
    ],
)
def test_locks_and_durable_files_are_made_by_one_helper(name: str, places: set[str]) -> None:
    assert modules_that_use(name) == places


def test_file_takes_the_place_of_another_in_one_module() -> None:
    """A path's `replace` has one argument, a text's has two, a time's are named."""
    places = {
        path
        for path, tree in _modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace"
        if len(node.args) == 1 and not node.keywords
    }
    assert places == {"receiver/core/files.py"}


def test_number_is_masked_by_one_rule() -> None:
    """Only the rule, in Python and in SQL, joins parts of a text with stars; and the simulated platform's own mask."""
    places = {
        path
        for path, tree in _modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp | ast.JoinedStr) and _has_stars(node) and _has_part(node)
    }
    assert places == {"receiver/core/numbers.py", "receiver/db/sql.py", "receiver/simulator/traffic.py"}


def _has_stars(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Constant) and _STARS.search(str(node.value)) for node in ast.walk(tree))


def _has_part(tree: ast.AST) -> bool:
    """Whether a text is sliced, or SQL takes a part of one or repeats it."""
    return any(
        isinstance(node, ast.Slice) or (isinstance(node, ast.Constant) and _PART_IN_SQL.search(str(node.value)))
        for node in ast.walk(tree)
    )


_STARS = re.compile(r"^\*+$|'\*+'")
_PART_IN_SQL = re.compile(r"\b(substr|left|right|repeat)\(")
