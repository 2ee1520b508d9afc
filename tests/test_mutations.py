"""The list of defences that are taken away one by one: it fits the program as it is, so that it cannot rot."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.mutations import PARTS, ROOT, Mutation, changed, load
from tests.mutations.page import NEVER, as_cell, rows

MUTATIONS = load()


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("part", PARTS)
def test_every_defence_can_be_taken_away_and_has_its_test(part: str) -> None:
    found = [one for one in MUTATIONS if one.part == part]
    assert found
    for one in found:
        require_fit(one)


def require_fit(one: Mutation) -> None:
    for file, text in changed(one, ROOT).items():  # each old text stands there once
        assert text != (ROOT / file).read_text(encoding="utf-8"), one.defence
        if file.endswith(".py"):
            compile(text, file, "exec")
    file = one.test.partition("::")[0]
    assert one.function in functions_of(file), one.test


def test_no_defence_is_listed_twice_and_the_page_has_each() -> None:
    words = [one.defence for one in MUTATIONS]
    assert len(set(words)) == len(words)
    assert list(rows()) == [as_cell(word) for word in words]
    assert [word for word, seen in rows().items() if seen == NEVER] == []  # run it with --write


def test_every_attack_names_tests_that_are_there() -> None:
    table = [line for line in (ROOT / "deploy" / "ATTACKS.md").read_text(encoding="utf-8").splitlines() if "|" in line][
        2:
    ]
    for line in table:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert named, line
        for file, function in named:
            assert function in functions_of(file), (file, function)
