"""The list for people: deploy/DEFENCES.md, made of the tables and of what was seen when each defence was taken away."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.mutations import PARTS, ROOT, load
from tests.mutations.runs import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.mutations.runs import Outcome

PAGE = ROOT / "deploy" / "DEFENCES.md"
_HEAD = """\
# Defences

Each of these was taken out of the program, alone, and the test beside it failed: so none of them can go unnoticed. The
table of what is taken out, and how, is `tests/mutations`; the day is the one on which that was last seen.

Command: `python -m tests.mutations --workers 2 --write`.
"""
_ROW = re.compile(r"\| (?P<defence>.+) \| `(?P<file>[^`]+)` \| `(?P<test>[^`]+)` \| (?P<seen>[^|]+) \|")
NEVER = "not yet"


def rows() -> Mapping[str, str]:
    """Give the day on which each defence of the page was seen to be missed, by its words."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {found["defence"]: found["seen"] for found in map(_ROW.fullmatch, text.splitlines()) if found}


def write(outcomes: Iterable[Outcome]) -> None:
    """Bring the page up to date; what was not run keeps its day."""
    seen = dict(rows())
    for outcome in outcomes:
        noticed = outcome.verdict is Verdict.FAILED
        seen[as_cell(outcome.mutation.defence)] = f"{datetime.now(UTC):%Y-%m-%d}" if noticed else NEVER
    lines = [_HEAD]
    for part, title in PARTS.items():
        lines += [
            f"## {title}\n",
            "| defence | it stands in | the test that fails without it | seen |",
            "|---|---|---|---|",
        ]
        for one in load():
            if one.part == part:
                defence = as_cell(one.defence)
                file = one.changes[0].file
                lines.append(f"| {defence} | `{file}` | `{one.test}` | {seen.get(defence, NEVER)} |")
        lines.append("")
    PAGE.write_text("\n".join(lines), encoding="utf-8")


def as_cell(text: str) -> str:
    """Give a text as it stands in a table."""
    return text.replace("|", "\\|")
