"""The defences that are taken away one by one: each names a function and a test that are there, and a few are tried."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from tests.mutations import ROOT, load, require_test, take_away
from tests.mutations.page import PAGE, last_seen, page

DEFENCES = load()
TRIED = ("secrets are compared in constant time", "no log line shows a push secret")


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_defence_can_be_taken_away_and_has_its_test() -> None:
    wrong = []
    for one in DEFENCES:
        try:
            compile(take_away(one, ROOT), one.file, "exec")
            require_test(one, ROOT)
        except (SyntaxError, ValueError) as error:
            wrong.append(f"{one.words}: {error}")
    assert not wrong, "\n".join(wrong)


def test_no_defence_is_listed_twice_and_the_page_has_each() -> None:
    words = [one.words for one in DEFENCES]
    assert len(set(words)) == len(words)
    assert PAGE.read_text(encoding="utf-8") == page(last_seen()), "run `python -m tests.mutations --page`"


def test_a_defence_that_is_taken_away_is_noticed() -> None:
    only = [argument for words in TRIED for argument in ("--only", words)]
    command = [sys.executable, "-m", "tests.mutations", *only]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.endswith("2 defences taken away, 2 noticed\n")


def test_a_name_that_is_not_there_is_told() -> None:
    one = DEFENCES[0]
    for place, words in (("receiver.nowhere:f", "no receiver/nowhere.py"), ("receiver.core.files:gone", "has no gone")):
        with pytest.raises(ValueError, match=words):
            take_away(replace(one, place=place), ROOT)


def test_every_attack_names_tests_that_are_there() -> None:
    table = [line for line in (ROOT / "deploy" / "ATTACKS.md").read_text(encoding="utf-8").splitlines() if "|" in line][
        2:
    ]
    for line in table:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert named, line
        for file, function in named:
            assert function in functions_of(file), (file, function)
