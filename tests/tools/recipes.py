"""The recipes' page, as code: its blocks by section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "deploy/docs/how-to/reporting-tools.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of code to paste."""

    language: str
    code: str

    @property
    def file(self) -> str:
        """Return the name of its file, which a comment in its first line says."""
        return self.code.partition("\n")[0].lstrip("#- ")


def blocks(section: str) -> list[Block]:
    """Return the blocks under a heading of the page."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [Block(language, code) for language, code in _BLOCK.findall(text)]


def sections() -> list[str]:
    """Return the headings of the page."""
    return re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
