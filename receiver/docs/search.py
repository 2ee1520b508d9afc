"""Search of the documentation: by words, or by Chinese without spaces; the same order each time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from receiver.docs.page import Document, Section

_TITLE, _HEADING, _TEXT = 12, 4, 1  # what a word weighs, by where it stands
_TERM = re.compile(r"[\u3400-\u9fff]+|[^\s\u3400-\u9fff]+")
_EXCERPT_CHARS = 160


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that was found, and the section of it that fits best."""

    page: Document
    section: Section
    excerpt: str  # of the section's text, around the first word that was found


def search(pages: Iterable[Document], query: str) -> list[Hit]:
    """Return the pages that have the words of a query, the best first: all of them, or else as many as any page has."""
    words = _words_of(query)
    found: list[tuple[int, int, Hit]] = []
    for page in pages:
        whole = page.title.casefold(), "\n".join(each.title for each in page.sections).casefold()
        texts = [f"{each.title}\n{each.text}".casefold() for each in page.sections]
        text = "\n".join([page.path, *texts])
        has = [word for word in words if word in text]
        if not has:
            continue
        score = sum((word in whole[0]) * _TITLE + (word in whole[1]) * _HEADING + _TEXT for word in has)
        best = max(range(len(texts)), key=lambda at: (_weight(page.sections[at], texts[at], has), -at))
        section = page.sections[best]
        found.append((len(has), score, Hit(page, section, _excerpt(section.text, has))))
    most = max((count for count, _, _ in found), default=0)
    return [hit for count, _, hit in sorted(found, key=lambda row: -row[1]) if count == most]


def _weight(section: Section, text: str, words: Sequence[str]) -> int:
    title = section.title.casefold()
    return sum((word in title) * _HEADING + (word in text) * _TEXT for word in words)


def _words_of(query: str) -> list[str]:
    """Return what to look for. Chinese has no spaces: each two characters beside each other are a word."""
    words: list[str] = []
    for term in _TERM.findall(query.casefold()):
        if "\u3400" <= term[0] <= "\u9fff":
            words += [term[at : at + 2] for at in range(max(1, len(term) - 1))]
        else:
            # A plural finds the singular as well.
            words.append(term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") else term)
    return list(dict.fromkeys(words))


def _excerpt(text: str, words: Sequence[str]) -> str:
    line = " ".join(text.split())
    folded = line.casefold()
    at = min((place for word in words if (place := folded.find(word)) >= 0), default=0)
    begin = 0 if at < _EXCERPT_CHARS // 2 else line.rfind(" ", 0, at - _EXCERPT_CHARS // 4) + 1
    if at - begin > _EXCERPT_CHARS:  # a text without spaces
        begin = at - _EXCERPT_CHARS // 4
    end = begin + _EXCERPT_CHARS
    return ("…" if begin else "") + line[begin:end].strip() + ("…" if end < len(line) else "")
