"""How a run of tests goes: which files come first, which part of the slow tests, how many examples, what was left out.

`RECEIVER_TEST_SAMPLE=2/3` runs the second of three parts of what is chosen: each test of many cases has cases in each
part, and three parts are the whole. `RECEIVER_TEST_EXAMPLES=1/3` tries a third of the examples of a test that has a
database in its hands. Of a test of many cases the day's third is quick; the others are marked `thorough`.
"""

from __future__ import annotations

import collections
import os
import zlib
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_SAMPLE = os.environ.get("RECEIVER_TEST_SAMPLE", "")
_EXAMPLES = os.environ.get("RECEIVER_TEST_EXAMPLES", "")

_MANY = 3  # cases of one test
_THIRDS = 3

# What a module has in its hands whose tests start programs: seconds, where others take hundredths.
_STARTS = {"ServeProcess", "PostgresServer", "subprocess", "House", "Nginx", "migrated"}


def examples(whole: int) -> int:
    """Return how many examples a test tries that would try so many."""
    return max(3, int(whole * Fraction(_EXAMPLES))) if _EXAMPLES else whole


def pytest_report_header(config: pytest.Config) -> Iterator[str]:
    """Say what this run leaves to another, and how to have the same again."""
    if seed := config.getoption("hypothesis_seed", None):
        yield f"drawn by the seed {seed}; again: --hypothesis-seed={seed}"
    if _SAMPLE:
        yield f"sample: part {_SAMPLE} of these tests; again: RECEIVER_TEST_SAMPLE={_SAMPLE}"
    if _EXAMPLES:
        yield f"examples: {_EXAMPLES} of those tried on databases; again: RECEIVER_TEST_EXAMPLES={_EXAMPLES}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Choose the part that is to run, and put the files that take long first: what is short fills up the end."""
    if (seed := str(config.getoption("hypothesis_seed", None) or "")).isdigit():
        many = {test for test, count in collections.Counter(map(_test, items)).items() if count > _MANY}
        for item in _divide([item for item in items if _test(item) in many], int(seed), _THIRDS)[1]:
            item.add_marker("thorough")
    yield  # others are deselected
    if _SAMPLE:
        part, parts = map(int, _SAMPLE.split("/"))
        chosen, left = _divide(items, part, parts)
        config.hook.pytest_deselected(items=left)
        items[:] = chosen
    weights: collections.Counter[object] = collections.Counter()
    for item in items:
        weights[item.path] += _weigh(item)
    items.sort(key=lambda item: -weights[item.path])


def _divide(items: list[pytest.Item], part: int, parts: int) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the items of a part, and the others: the cases of each test in turn, each test from a place of its own."""
    seen: collections.Counter[str] = collections.Counter()
    divided: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for item in items:
        test = _test(item)
        place = (zlib.crc32(test.encode()) + seen[test]) % parts
        seen[test] += 1
        divided[place != part % parts].append(item)
    return divided


def _test(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _weigh(item: pytest.Item) -> int:
    """Return about how many hundredths of a second it takes."""
    if not _STARTS.isdisjoint(vars(getattr(item, "module", None) or object)):
        return 200
    return 15 if "settings" in getattr(item, "fixturenames", ()) else 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line each what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("left out")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} {'test' if count == 1 else 'tests'}: {reason}")
