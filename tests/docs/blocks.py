"""A page of the documentation as its blocks of code, and what the page says of running them.

Conventions, for whoever writes a page:

- `sh` is pasted into a shell, `text` directly after it is its output; `…` in it stands for anything.
- `ini` is settings, `python` a file whose name is in its first line, `sql` a question to the views on PostgreSQL.
- A comment on the line before a block exempts it: `<!-- not run: REASON -->`, `<!-- run by: tests/… -->`.
- `<!-- server: these settings -->` before an `ini` block starts the page's server with them, and
  `<!-- server: postgresql -->` anywhere on a page puts it on PostgreSQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy/docs"
LANGUAGES = ("sh", "text", "ini", "python", "sql", "json", "yaml", "toml", "nginx", "csv")

_MARKER = re.compile(r"<!-- (not run|run by|server): (\S.*?) -->\s*", re.DOTALL)
_POSTGRESQL = "postgresql"
_THESE_SETTINGS = "these settings"


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int  # of its fence, from 1
    language: str
    code: str
    not_run: str = ""  # why, or by which test it is run
    for_server: bool = False
    follows: bool = False  # directly the block before it


@dataclass(frozen=True)
class Page:
    """The blocks of a page."""

    blocks: tuple[Block, ...]
    postgresql: bool
    faults: tuple[str, ...]  # of its form


def read_page(path: Path) -> Page:
    """Return the page's blocks, and where it breaks the conventions."""
    reader = _Reader()
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            reader.take_html(line, token.content)
        elif token.type == "fence":
            reader.take_fence(line, token.info.strip(), token.content)
        elif token.type == "code_block":
            reader.faults.append(f"line {line}: indented code; fence it, with its language")
        elif not token.type.startswith(("list_item", "bullet_list", "ordered_list")):
            reader.take_other(line)
    reader.take_other(0)
    return Page(tuple(reader.blocks), reader.postgresql, tuple(reader.faults))


class _Reader:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.faults: list[str] = []
        self.postgresql = False
        self._marker: tuple[str, str] | None = None
        self._adjacent = False

    def take_html(self, line: int, content: str) -> None:
        for rest in _MARKER.sub("", content).splitlines():
            self.faults.append(f"line {line}: HTML: {rest}")
        for kind, what in _MARKER.findall(content):
            if (kind, what) == ("server", _POSTGRESQL):
                self.postgresql = True
            elif kind == "server" and what != _THESE_SETTINGS:
                self.faults.append(f"line {line}: server: {what}; known are {_THESE_SETTINGS}, {_POSTGRESQL}")
            else:
                self._marker = (kind, what)
            if kind == "run by" and not (ROOT / what).is_file():
                self.faults.append(f"line {line}: run by: {what} does not exist")

    def take_fence(self, line: int, language: str, code: str) -> None:
        kind, what = self._marker or ("", "")
        not_run = f"{kind}: {what}" if kind in ("not run", "run by") else ""
        follows = self._adjacent
        if language == "text" and follows and not not_run:
            not_run = self.blocks[-1].not_run  # what is not run has no output to compare
        if language not in LANGUAGES and not not_run:
            self.faults.append(f"line {line}: language {language!r}; known are {', '.join(LANGUAGES)}")
        if language == "text" and not not_run and not (follows and self.blocks[-1].language == "sh"):
            self.faults.append(f"line {line}: text is the output of the sh block directly before it, and there is none")
        if kind == "server" and language != "ini":
            self.faults.append(f"line {line}: server: {what} stands before an ini block")
        self.blocks.append(Block(line, language, code, not_run, kind == "server", follows))
        self._marker, self._adjacent = None, True

    def take_other(self, line: int) -> None:
        if self._marker is not None:
            self.faults.append(f"line {line}: <!-- {': '.join(self._marker)} --> has no block directly below it")
        self._marker, self._adjacent = None, False
