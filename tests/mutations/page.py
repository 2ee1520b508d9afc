"""The list for people: deploy/DEFENCES.md, made of the table."""

from __future__ import annotations

import re
from itertools import groupby

from tests.mutations import ROOT, load

PAGE = ROOT / "deploy" / "DEFENCES.md"
_HEAD = """\
# Defences

Each of these was taken out of a copy of the program, alone, and the test beside it failed, so that none of them can go
unnoticed; last on {day}. `tests/mutations/defences.toml` says what each function did instead.

Command: `python -m tests.mutations --workers 2 --write`.

For breadth, `make mutants` (mutmut) makes small changes of what judges values alone: 1480 mutants of numbers, opt-out,
states, parsing and alarm rules. On 2026-11-30 `receiver.core.numbers` had 104: 76 were killed at first, 101 after tests
of its bounds were added; the other 3 drop a `strict=True` behind a comparison of lengths, and change nothing.
"""
_DAY = re.compile(r"last on (\S+)\.")


def last_seen() -> str:
    """Return the day of the page: when each defence was last missed."""
    found = _DAY.search(PAGE.read_text(encoding="utf-8"))
    return found[1] if found else "no day yet"


def page(day: str) -> str:
    """Return the text of the page."""
    lines = [_HEAD.format(day=day)]
    for part, defences in groupby(load(), key=lambda one: one.part):
        lines += [f"## {part}\n", "| defence | function | the test that fails without it |", "|---|---|---|"]
        lines += [f"| {one.words} | `{one.place}` | `{one.test}` |" for one in defences]
        lines.append("")
    return "\n".join(lines)


def write(day: str) -> None:
    """Write the page."""
    PAGE.write_text(page(day), encoding="utf-8")
