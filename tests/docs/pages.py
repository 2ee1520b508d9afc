"""Which pages there are."""

from __future__ import annotations

from tests.docs.blocks import DOCS, ROOT

README = ROOT / "README.md"
PAGES = (README, *sorted(DOCS.glob("tutorial/*.md")), *sorted(DOCS.glob("how-to/*.md")))
"""What is executed: English, since the pages in Chinese have the same code."""
