"""Every defence of this project, how it is taken away, and the test that then fails.

Each part has a table, `PART.toml` beside this file, of `[[defence]]`s:

    is      what is defended, in words
    file    where it stands
    old     text that stands there exactly once
    new     what takes its place, so that the defence is gone and the program still runs
    also    further changes, where one is not enough: a list of { file, old, new }; without `file`, in the same one
    test    what must fail then, as FILE::FUNCTION
    only    which of its cases are run, as pytest's -k

`python -m tests.mutations` takes them away one by one. Nothing here imports what is mutated.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
# By name of their table; the order in which they are shown.
PARTS = {
    "gate": "The gate and its secrets",
    "door": "What arrives at the door",
    "access": "Console, keys and accounts",
    "audit": "The audit",
    "retention": "Retention",
    "projection": "The journal and its projection",
    "forgetting": "Forgetting",
    "encryption": "Encryption at rest",
    "forwarding": "Forwarding",
    "sqlite": "The embedded database's file",
    "supply": "What is brought along",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One text that takes another's place."""

    file: str  # from the project's root
    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """A defence that is taken away, and the test that must fail then."""

    part: str
    defence: str
    changes: tuple[Change, ...]
    test: str
    only: str | None

    @property
    def function(self) -> str:
        """The test's name, without its file."""
        return self.test.partition("::")[2]


def load() -> list[Mutation]:
    """Give every mutation, in the order of the parts and of their tables."""
    return [_read(part, row) for part in PARTS for row in _table(part)]


def changed(mutation: Mutation, root: Path) -> dict[str, str]:
    """Give each file's text without the defence. Raises ValueError where a text does not stand there exactly once."""
    texts: dict[str, str] = {}
    for change in mutation.changes:
        text = texts.get(change.file) or (root / change.file).read_text(encoding="utf-8")
        if text.count(change.old) != 1:
            raise ValueError(f"{change.file} has it {text.count(change.old)} times: {change.old.strip()[:80]}")
        texts[change.file] = text.replace(change.old, change.new)
    return texts


def _table(part: str) -> list[dict[str, Any]]:
    path = Path(__file__).with_name(f"{part}.toml")
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["defence"]
    return rows


def _read(part: str, row: dict[str, Any]) -> Mutation:
    file = row["file"]
    changes = [row, *row.get("also", ())]
    return Mutation(
        part=part,
        defence=row["is"],
        changes=tuple(Change(file=one.get("file", file), old=one["old"], new=one["new"]) for one in changes),
        test=row["test"],
        only=row.get("only"),
    )
