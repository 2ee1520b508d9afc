"""The how-to pages on tools, as code: their blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HOW_TO = Path(__file__).parents[2] / "deploy/docs/how-to"
PAGES = ("dlt", "dbt", "duckdb", "pandas", "excel")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|--) (\S+)\n")


@dataclass(frozen=True)
class Block:
    """One block of code to paste."""

    language: str
    code: str

    @property
    def file(self) -> str:
        """Return the name of its file, which a comment in its first line says; empty: it is no file."""
        named = _FILE.match(self.code)
        return named[1] if named else ""


def text(page: str) -> str:
    """Return a page's text."""
    return (_HOW_TO / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page."""
    return [Block(language, code) for language, code in _BLOCK.findall(text(page))]


def files(page: str) -> dict[str, str]:
    """Return the files that a page has a reader write: their code by name."""
    return {block.file: block.code for block in blocks(page) if block.file}


def command(page: str, word: str) -> str:
    """Return the one block for a shell that has a word in it."""
    (code,) = (block.code for block in blocks(page) if block.language == "sh" and word in block.code)
    return code
