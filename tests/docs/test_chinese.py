"""The pages in Chinese have the headings, code, tables and links of those in English. Prose is left to people."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import DOCS, ROOT
from tests.docs.pages import CHINESE, README

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRANSLATED = ("tutorial", "how-to", "explanation", "runbook")
_COMMENTS = {"sh": "#", "ini": "#", "python": "#", "yaml": "#", "toml": "#", "nginx": "#", "sql": "--"}
_LANGUAGE_LINK = 3  # the line
_PARSER = MarkdownIt("commonmark").enable("table")


def _twin(english: Path) -> Path:
    return CHINESE / (README.name if english == README else english.relative_to(DOCS))


PAIRS = {
    page: _twin(page)
    for page in (
        README,
        DOCS / "index.md",
        *(page for kind in _TRANSLATED for page in sorted(DOCS.glob(f"{kind}/*.md"))),
    )
}

pairs = pytest.mark.parametrize(
    ("english", "chinese"), PAIRS.items(), ids=[str(page.relative_to(ROOT)) for page in PAIRS]
)


@dataclass
class Shape:
    """A page without its prose."""

    headings: list[str] = field(default_factory=list)  # their levels
    code: list[tuple[str, str]] = field(default_factory=list)  # language, and lines without comments
    tables: list[list[int]] = field(default_factory=list)  # the cells of each row
    links: list[str] = field(default_factory=list)
    images: int = 0
    names: set[str] = field(default_factory=set)  # code within lines


def read_shape(page: Path) -> Shape:
    """Return the shape of a page."""
    return _shape_of(page.read_text(encoding="utf-8"), page)


def _shape_of(text: str, page: Path) -> Shape:
    shape = Shape()
    for token in _PARSER.parse(text):
        if token.type == "heading_open":
            shape.headings.append(token.tag)
        elif token.type == "fence":
            shape.code.append(
                (token.info, "" if token.info == "text" else _without_comments(token.info, token.content))
            )
        elif token.type == "table_open":
            shape.tables.append([])
        elif token.type == "tr_open":
            shape.tables[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            shape.tables[-1][-1] += 1
        elif token.type == "inline" and not (token.map and token.map[0] + 1 == _LANGUAGE_LINK):
            children = token.children or []
            shape.links += [_target(page, str(child.attrs["href"])) for child in children if child.type == "link_open"]
            shape.images += sum(child.type == "image" for child in children)
            shape.names |= {child.content for child in children if child.type == "code_inline"}
    return shape


def _without_comments(language: str, code: str) -> str:
    if language == "text":
        return ""  # output may be in either language
    sign = _COMMENTS.get(language)
    if sign is None:
        return code
    lines = (re.sub(rf"(^|\s+){sign} .*", "", line) for line in code.splitlines())
    return "\n".join(line for line in lines if line.strip())


def _target(page: Path, link: str) -> str:
    """Return what a link leads to, the same for both languages."""
    path = link.partition("#")[0]
    if "://" in link or not path:
        return link if "://" in link else "#"
    target = Path(os.path.normpath(page.parent / path))
    if target.is_relative_to(CHINESE):
        target = README if target == CHINESE / README.name else DOCS / target.relative_to(CHINESE)
    return str(target.relative_to(ROOT))


def _differences(ours: Shape, theirs: Shape) -> Iterator[str]:
    for what in ("headings", "tables", "images"):
        if getattr(ours, what) != getattr(theirs, what):
            yield f"{what}: {getattr(ours, what)} and {getattr(theirs, what)}"
    if len(ours.code) != len(theirs.code):
        yield f"{len(ours.code)} blocks of code and {len(theirs.code)}"
    for number, (one, other) in enumerate(zip(ours.code, theirs.code, strict=False), start=1):
        if one != other:
            yield f"block {number}:\n{one[1]}\nand\n{other[1]}"
    if sorted(ours.links) != sorted(theirs.links):
        yield f"links: {sorted(ours.links)} and {sorted(theirs.links)}"
    if ours.names != theirs.names:
        missing, added = sorted(ours.names - theirs.names), sorted(theirs.names - ours.names)
        yield f"code within lines: missing {missing}, added {added}"


@pairs
def test_structure_and_code_are_the_same(english: Path, chinese: Path) -> None:
    assert chinese.exists()
    assert list(_differences(read_shape(english), read_shape(chinese))) == []


@pairs
def test_each_leads_to_the_other(english: Path, chinese: Path) -> None:
    for page, other, name in ((english, chinese, "中文"), (chinese, english, "English")):
        line = page.read_text(encoding="utf-8").splitlines()[_LANGUAGE_LINK - 1]
        assert f"[{name}]({os.path.relpath(other, page.parent)})" in line


def test_no_page_is_in_chinese_alone() -> None:
    there = {page for page in CHINESE.glob("**/*.md") if page.parent.name != "reference"}
    assert there - set(PAIRS.values()) == set()


def test_differences_of_structure_and_code_are_found() -> None:
    page = (
        "# A\n\n[x](x)\n\nRun `a`, see [b](b.md).\n\n```sh\ntrue  # so\n```\n\n```text\nok\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    changes = {
        "headings": ("# A", "## A"),
        "block 1": ("true", "false"),
        "links": ("b.md", "c.md"),
        "code within": ("`a`", "`b`"),
        "tables": ("| a | b |\n|---|---|\n| 1 | 2 |", "| a |\n|---|\n| 1 |"),
        "2 blocks": ("\n```text\nok\n```\n", ""),
    }

    def shape(text: str) -> Shape:
        return _shape_of(text, DOCS / "how-to/page.md")

    same = page.replace("# so", "# 这样").replace("Run `a`, see", "请运行 `a`，参见").replace("\nok\n", "\n好\n")
    assert list(_differences(shape(page), shape(same))) == []
    for begins, (old, new) in changes.items():
        found = list(_differences(shape(page), shape(page.replace(old, new))))
        assert any(begins in one for one in found), (begins, found)
