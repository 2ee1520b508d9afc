"""Cells of a CSV that a spreadsheet would take for a formula. Source: OWASP, CSV Injection.

Programs skip white space of any kind before a formula, and take a sign of full width for a plain one. What may be taken
for one begins with an apostrophe in the file; so does what was written with apostrophes before it, so that taking off
one gives back exactly what it was.
"""

from __future__ import annotations

from typing import Any

_SIGNS = "=+-@"
SIGNS = _SIGNS + "".join(chr(ord(sign) + 0xFEE0) for sign in _SIGNS)  # and of full width
BREAKS = "\t\n\r"  # one that begins a cell may end another before it
# White space as Unicode has it, what takes no place, and the apostrophe itself.
SKIPPED = "".join(chr(code) for code in range(0x10000) if chr(code).isspace()) + "\u180e\u200b\u2060\ufeff'"


def may_be_formula(text: str) -> bool:
    """Return whether a spreadsheet may take a cell for a formula."""
    return text.lstrip(SKIPPED)[:1] in tuple(SIGNS) or text.lstrip("'")[:1] in tuple(BREAKS)


def neutral(value: Any) -> Any:
    """Return a cell of a CSV so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and may_be_formula(value) else value


def bare(text: str) -> str:
    """Return what a cell of a CSV was before `neutral`."""
    return text[1:] if text.startswith("'") and may_be_formula(text) else text
