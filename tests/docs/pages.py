"""Which pages there are."""

from __future__ import annotations

from tests.docs.blocks import DOCS, ROOT

README = ROOT / "README.md"
CHINESE = DOCS / "zh-CN"

_KINDS = ("tutorial", "how-to", "runbook")
PAGES = (README, *(page for kind in _KINDS for page in sorted(DOCS.glob(f"{kind}/*.md"))))
"""What is executed: English, since the pages in Chinese have the same code."""

ENGLISH = (README, *sorted(page for page in DOCS.glob("**/*.md") if not page.is_relative_to(CHINESE)))
ALL = (*ENGLISH, *sorted(CHINESE.glob("**/*.md")))

APART = ("reference", "runbook", "decisions")
"""Directories that the budget of prose leaves out."""
