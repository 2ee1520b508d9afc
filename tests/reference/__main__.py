"""Writes what is generated."""

from __future__ import annotations

from tests.reference import generated

for path, text in generated().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
