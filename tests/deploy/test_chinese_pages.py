"""The pages in Chinese have the commands, names, tables and order of those in English."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# English, which is the authority, and Chinese.
PAGES = {
    "deploy/RUNBOOK.md": "deploy/RUNBOOK.zh-CN.md",
    "deploy/docs/tutorial/first-day.md": "deploy/docs/zh-CN/tutorial/first-day.md",
    "deploy/docs/reference/settings.md": "deploy/docs/zh-CN/reference/settings.md",
    "deploy/docs/reference/error-codes.md": "deploy/docs/zh-CN/reference/error-codes.md",
    "deploy/docs/reference/alarms.md": "deploy/docs/zh-CN/reference/alarms.md",
    "deploy/docs/reference/log-fields.md": "deploy/docs/zh-CN/reference/log-fields.md",
}
_INDENT = "    "
_HEADING = re.compile(r"(#+) +(.+)")
_COMMENT = re.compile(r"  +# .*")
_CODE = re.compile(r"`([^`]+)`")
_SETTING = re.compile(r"\bRECEIVER_[A-Z_]*[A-Z]")
_STEP = re.compile(r"[0-9]+\. ")

pairs = pytest.mark.parametrize(("english", "chinese"), PAGES.items(), ids=PAGES)


@dataclass
class Section:
    """What stands below one heading, up to the next of any level."""

    level: int = 0
    heading: str = ""
    prose: list[str] = field(default_factory=list)
    blocks: list[list[str]] = field(default_factory=list)  # their lines, without comments

    def names(self) -> set[str]:
        """Give what stands in backticks, and settings wherever they stand."""
        text = " ".join(line.strip() for line in self.prose)
        return {*_CODE.findall(text), *_SETTING.findall(text)}

    def text(self) -> str:
        return " ".join([*(line.strip() for line in self.prose), *(line for block in self.blocks for line in block)])

    def rows(self) -> list[int]:
        """Give the cells of each row of its tables."""
        return [_CODE.sub("", line).count("|") - 1 for line in self.prose if line.startswith("|")]

    def steps(self) -> int:
        return sum(bool(_STEP.match(line)) for line in self.prose)

    def points(self) -> int:
        return sum(line.startswith("- ") for line in self.prose)


def _sections(page: str) -> list[Section]:
    sections = [Section()]
    before, in_block, in_fence = "", False, False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        section = sections[-1]
        if line.startswith("```"):
            in_fence = not in_fence
            if in_fence:
                section.blocks.append([line])
        elif in_fence:
            section.blocks[-1].append(line)
        elif line.startswith(_INDENT) and (in_block or not before):
            if not in_block:
                section.blocks.append([])
            section.blocks[-1].append(_COMMENT.sub("", line))
            in_block = True
        elif heading := _HEADING.fullmatch(line):
            sections.append(Section(level=len(heading[1]), heading=heading[2]))
            in_block = False
        else:
            section.prose.append(line)
            in_block = False
        before = line
    return sections


def _matched(english: str, chinese: str) -> list[tuple[Section, Section]]:
    """Give each section beside its translation; the headings agree, or the rest would be compared with another."""
    ours, theirs = _sections(english), _sections(chinese)
    levels = [[section.level for section in sections] for sections in (ours, theirs)]
    assert levels[0] == levels[1]
    return list(zip(ours, theirs, strict=True))


@pairs
def test_the_code_is_the_same(english: str, chinese: str) -> None:
    for ours, theirs in _matched(english, chinese):
        assert theirs.blocks == ours.blocks, ours.heading


@pairs
def test_settings_commands_and_all_that_is_typed_have_the_same_names(english: str, chinese: str) -> None:
    for ours, theirs in _matched(english, chinese):
        assert ours.names() - theirs.names() == set(), ours.heading
        invented = {name for name in theirs.names() if name not in ours.text()}
        assert invented == set(), ours.heading


@pairs
def test_tables_and_lists_are_as_long(english: str, chinese: str) -> None:
    for ours, theirs in _matched(english, chinese):
        assert theirs.rows() == ours.rows(), ours.heading
        assert (theirs.steps(), theirs.points()) == (ours.steps(), ours.points()), ours.heading


@pairs
def test_each_leads_to_the_other(english: str, chinese: str) -> None:
    for page, other in ((english, chinese), (chinese, english)):
        assert f"]({os.path.relpath(ROOT / other, (ROOT / page).parent)})" in (ROOT / page).read_text(encoding="utf-8")
