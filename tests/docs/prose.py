"""The prose of a page: its sentences, without headings, tables and code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

_SENTENCE_END = re.compile(r"(?<=[.!?])[)\"']*\s+(?=[A-Z`\"(\[])")
_PARSER = MarkdownIt("commonmark").enable("table")


def paragraphs(text: str, *, code: bool = False) -> Iterator[str]:
    """Yield each paragraph and list item; without `code`, code within a line stands as one word."""
    outside = ""  # what the token stands in, if that is no prose
    for token in _PARSER.parse(text):
        if token.type in ("heading_open", "table_open"):
            outside = token.type.removesuffix("_open")
        elif token.type == f"{outside}_close":
            outside = ""
        elif token.type == "inline" and not outside:
            yield "".join(_words(child, code=code) for child in token.children or [])


def _words(token: Token, *, code: bool) -> str:
    if token.type == "code_inline":
        return token.content if code else "CODE"
    return {"softbreak": " ", "hardbreak": " ", "text": token.content}.get(token.type, "")


def sentences(text: str) -> list[str]:
    """Return the sentences of a page."""
    return [one for paragraph in paragraphs(text) for one in _SENTENCE_END.split(paragraph) if one.strip()]


def words_of(sentence: str) -> int:
    """Return how many words a sentence has."""
    return sum(any(map(str.isalnum, word)) for word in sentence.split())
