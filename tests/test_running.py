"""A run of tests: its parts are the whole, its order is that of what takes long, and it says what it left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import running

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
HOOKS = """
from tests.harness.running import pytest_collection_modifyitems, pytest_report_header, pytest_terminal_summary
"""
FILES = {
    "conftest.py": HOOKS,
    "test_short.py": """
import pytest
from tests.harness.programs import require_program
from tests.harness.running import examples

@pytest.mark.parametrize("number", range(7))
def test_case(number):
    print("CASE", number)

@pytest.mark.parametrize("name", ["no-such-program", "other-such-program", "no-such-program"])
def test_with_a_program(name):
    require_program(name)

def test_examples():
    print("EXAMPLES", examples(30), examples(4))
""",
    "test_starts.py": """
import subprocess

def test_one():
    pass
""",
}


def run(place: Path, environment: Mapping[str, str] | None = None, *arguments: str) -> str:
    for name, text in FILES.items():
        (place / name).write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_TEST", "PYTEST", "CI"))}
    plugins = ["-p", "no:cacheprovider", "-p", "hypothesispytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-v", *plugins, *arguments, str(place)],
        env={**kept, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(environment or {})},
        capture_output=True, text=True, check=False, cwd=place, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_was_left_out_is_said_in_one_line_each(tmp_path: Path) -> None:
    said = run(tmp_path)
    assert "2 tests: no no-such-program: .ci/run installs it\n" in said
    assert "1 test: no other-such-program: .ci/run installs it\n" in said
    assert "EXAMPLES 30 4" in said
    assert said.index("test_starts.py::test_one") < said.index("test_short.py::test_case")


def test_parts_are_the_whole_and_each_is_said(tmp_path: Path) -> None:
    ran: list[str] = []
    for part in ("1/3", "2/3", "3/3"):
        said = run(tmp_path, {"RECEIVER_TEST_SAMPLE": part, "RECEIVER_TEST_EXAMPLES": "1/3"}, "--hypothesis-seed=7")
        assert f"RECEIVER_TEST_SAMPLE={part}" in said
        assert "RECEIVER_TEST_EXAMPLES=1/3" in said
        assert "--hypothesis-seed=7" in said
        cases = [line for line in said.splitlines() if line.startswith("CASE ")]
        assert 2 <= len(cases) <= 3
        ran += cases
        if "EXAMPLES" in said.replace("RECEIVER_TEST_EXAMPLES", ""):
            ran.append("EXAMPLES")
            assert "EXAMPLES 10 3" in said
    assert sorted(ran) == [*(f"CASE {number}" for number in range(7)), "EXAMPLES"]


def test_many_cases_are_the_days_third_and_the_thorough_rest(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = thorough\n")
    many = (
        "import pytest\n\n"
        "@pytest.mark.parametrize('number', range(12))\ndef test_many(number):\n    print('MANY', number)\n"
    )
    (tmp_path / "test_many.py").write_text(many)
    days = []
    for seed in ("20261201", "20261202", "20261203"):
        quick, rest = (
            {
                line
                for line in run(tmp_path, None, f"--hypothesis-seed={seed}", "-m", which).splitlines()
                if "MANY" in line
            }
            for which in ("not thorough", "thorough")
        )
        assert (len(quick), quick | rest) == (4, {f"MANY {number}" for number in range(12)})
        assert quick & rest == set()
        days.append(quick)
    assert set.union(*days) == {f"MANY {number}" for number in range(12)}
    assert "CASE 0" in run(tmp_path, None, "-m", "not thorough")  # few cases are all quick


@pytest.mark.parametrize("whole", [3, 40, 150])
def test_all_examples_are_tried_unless_a_part_is_asked_for(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_EXAMPLES", "")
    assert running.examples(whole) == whole
    monkeypatch.setattr(running, "_EXAMPLES", "1/3")
    assert running.examples(whole) == max(3, whole // 3)
