"""Pages of the documentation, rendered from their Markdown in the page's language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markupsafe import Markup

import receiver
from receiver.web.console.pages import blueprint, language, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markdown_it.token import Token
    from werkzeug.wrappers import Response

# Language: file of the page.
_RUNBOOK: Mapping[str, str] = {"en": "RUNBOOK.md", "zh-CN": "RUNBOOK.zh-CN.md"}

_PACKAGE = Path(receiver.__file__).parent
_INSIDE_WHEEL = _PACKAGE / "docs"
_FILES = _INSIDE_WHEEL if _INSIDE_WHEEL.is_dir() else _PACKAGE.parent / "deploy"
_OTHER_LANGUAGE = re.compile(r"^\[(?:中文|English)\]\(.*\n", re.MULTILINE)
_NO_SLUG = re.compile(r"[^\w\- ]")
# Raw HTML stays text, so that a page can have no more than Markdown says.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_MARKDOWN.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>')
_MARKDOWN.add_render_rule("table_close", lambda *_: "</table></div>")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of a page."""

    level: int
    anchor: str
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered page: its title, its headings below that, its body."""

    title: str
    sections: Sequence[Section]
    body: Markup


@blueprint.get("/runbook")
def runbook() -> Response:
    """Show the runbook; each alarm has its own heading."""
    return render("document.html", document=read_document(_RUNBOOK[language()]))


@cache
def read_document(name: str) -> Document:
    """Return a page. Links to files that the console does not serve become their text."""
    text = (_FILES / name).read_text(encoding="utf-8")
    tokens = _MARKDOWN.parse(_OTHER_LANGUAGE.sub("", text, count=1))
    sections = []
    for cell in tokens:
        if "text-align:right" in str(cell.attrs.pop("style", "")):  # an inline style, which the policy forbids
            cell.attrSet("class", "num")
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            section = Section(int(heading.tag[1:]), _slug(inline.content), inline.content)
            heading.attrSet("id", section.anchor)
            sections.append(section)
        if inline.children:
            inline.children = _without_foreign_links(inline.children)
    body = Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))  # noqa: S704  (raw HTML is off)
    return Document(sections[0].title, sections[1:], body)


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub has it."""
    return _NO_SLUG.sub("", heading.lower()).replace(" ", "-")


def _without_foreign_links(tokens: list[Token]) -> list[Token]:
    kept, dropping = [], False
    for token in tokens:
        if token.type == "link_open":
            dropping = not str(token.attrs.get("href", "")).startswith(("#", "https://"))
        if not (dropping and token.type in ("link_open", "link_close")):
            kept.append(token)
    return kept
