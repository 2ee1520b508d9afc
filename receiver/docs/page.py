"""One page of the documentation: its title, its first sentence, its sections, and its Markdown for readers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from receiver.translations import N_

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePosixPath

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_OTHER_LANGUAGE = re.compile(r"\[(?:中文|English)\]\(")
_NO_SLUG = re.compile(r"[^\w\- ]")
# The first, with the next one where it is a word such as "Question."
_SENTENCE = re.compile(r".{12,}?(?:[.!?](?=\s|$)|[。！？]|$)|.+", re.DOTALL)
_CJK_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")


class Kind(Enum):
    """The kinds of pages, in the order in which they are listed. The value is the folder."""

    TUTORIAL = "tutorial"
    HOW_TO = "how-to"
    RUNBOOK = "runbook"
    REFERENCE = "reference"
    EXPLANATION = "explanation"
    DECISIONS = "decisions"
    PROJECT = ""

    @property
    def label(self) -> str:
        """Return its English name, the id of the catalogue."""
        return _LABELS[self]


_LABELS = {
    Kind.TUTORIAL: N_("Tutorials"),
    Kind.HOW_TO: N_("How-to guides"),
    Kind.RUNBOOK: N_("Runbook"),
    Kind.REFERENCE: N_("Reference pages"),
    Kind.EXPLANATION: N_("Explanation"),
    Kind.DECISIONS: N_("Decisions"),
    Kind.PROJECT: N_("About the project"),
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the plain text below it, up to the next heading."""

    level: int
    anchor: str
    title: str
    text: str
    line: int  # where it begins in the page's Markdown, from 0


@dataclass(frozen=True, slots=True)
class Document:
    """One page in one language."""

    path: str  # the address of the page, the same in each language: `how-to/tls`
    kind: Kind
    language: str  # of the text: English where a page has no other
    source: PurePosixPath  # of the file, from the root of the repository
    markdown: str  # as a reader sees it
    tokens: Sequence[Token]  # of markdown-it, the headings with their ids
    sections: Sequence[Section]  # the first is the page's title

    @property
    def title(self) -> str:
        """Return the title."""
        return self.sections[0].title if self.sections else self.path

    @property
    def summary(self) -> str:
        """Return the first sentence; empty if there is none."""
        found = _SENTENCE.match(next((section.text for section in self.sections if section.text), ""))
        return found[0] if found else ""

    def section_markdown(self, anchor: str) -> str:
        """Return one section with those below it; the whole page if it has no such section."""
        lines, begin, level = self.markdown.splitlines(), 0, 0
        for section in self.sections:
            if level and section.level <= level:
                lines = lines[: section.line]
                break
            if section.anchor == anchor:
                begin, level = section.line, section.level
        return "\n".join(lines[begin:]).rstrip() + "\n"


def parse_document(text: str, *, path: str, language: str, source: PurePosixPath) -> Document:
    """Return a page from the text of its file."""
    markdown = _for_readers(text)
    tokens = _parser().parse(markdown)
    return Document(
        path=path,
        kind=_kind_of(path),
        language=language,
        source=source,
        markdown=markdown,
        tokens=tokens,
        sections=_sections_of(tokens),
    )


@cache
def _parser() -> MarkdownIt:
    # A server may run for weeks before anyone opens a page.
    from markdown_it import MarkdownIt  # noqa: PLC0415

    # Raw HTML stays text, so that a page can have no more than Markdown says.
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _kind_of(path: str) -> Kind:
    folder = path.partition("/")[0] if "/" in path else ""
    return next((kind for kind in Kind if kind.value == folder), Kind.PROJECT)


def _for_readers(text: str) -> str:
    """Return Markdown without comments, which are for tests, and without the link to the other language."""
    lines: list[str] = []
    fence = comment = ""
    for line in text.splitlines():
        if opened := _FENCE.match(line):
            if not fence:
                fence = opened[1]
            elif opened[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif not fence:
            comment = comment or ("<!--" if line.lstrip().startswith("<!--") else "")
            if comment:
                comment = "" if "-->" in line else comment
                continue
            if _OTHER_LANGUAGE.match(line):
                continue
        if line.strip() or fence or (lines and lines[-1].strip()):
            lines.append(line)
    return "\n".join(lines).strip("\n") + "\n"


def _sections_of(tokens: Sequence[Token]) -> list[Section]:
    """Return the sections, and give each heading its anchor as id."""
    found: list[tuple[Token, str, list[str]]] = []
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            found.append((before, plain_text(token), []))
        elif found and token.type == "inline":
            found[-1][2].append(plain_text(token))
        elif found and token.type in ("fence", "code_block"):
            found[-1][2].append(token.content.strip())
    sections: list[Section] = []
    taken: dict[str, int] = {}
    for heading, title, texts in found:
        slug = _NO_SLUG.sub("", title.lower()).replace(" ", "-")  # as GitHub has it, and with the next line as well
        taken[slug] = count = taken.get(slug, -1) + 1
        anchor = f"{slug}-{count}" if count else slug
        heading.attrSet("id", anchor)
        line = heading.map[0] if heading.map else 0
        sections.append(Section(int(heading.tag[1:]), anchor, title, "\n".join(texts), line))
    return sections


def plain_text(inline: Token) -> str:
    """Return the text of a paragraph or heading without its marks."""
    parts = (" " if token.type.endswith("break") else token.content for token in inline.children or ())
    return _CJK_BREAK.sub("", "".join(parts))
