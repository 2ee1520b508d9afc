"""CSV cells that a spreadsheet would read as a formula. Source: OWASP, CSV Injection.

Programs skip white space of any kind before a formula, and accept full-width signs. Such a cell gets an apostrophe in
front; so does one that already began with apostrophes before a formula, so that removing one restores the original
exactly.
"""

from __future__ import annotations

from typing import Any

_SIGNS = "=+-@"
SIGNS = _SIGNS + "".join(chr(ord(sign) + 0xFEE0) for sign in _SIGNS)  # and of full width
BREAKS = "\t\n\r"  # one that begins a cell may end another before it
# White space as Unicode has it, what takes no place, and the apostrophe itself.
SKIPPED = "".join(chr(code) for code in range(0x10000) if chr(code).isspace()) + "\u180e\u200b\u2060\ufeff'"


def may_be_formula(text: str) -> bool:
    """Return whether a spreadsheet may read a cell as a formula."""
    return text.lstrip(SKIPPED)[:1] in tuple(SIGNS) or text.lstrip("'")[:1] in tuple(BREAKS)


def neutral(value: Any) -> Any:
    """Return a CSV cell that no spreadsheet reads as a formula."""
    return f"'{value}" if isinstance(value, str) and may_be_formula(value) else value


def bare(text: str) -> str:
    """Return a CSV cell as it was before `neutral`."""
    return text[1:] if text.startswith("'") and may_be_formula(text) else text
