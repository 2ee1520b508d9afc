"""Redaction: push secrets and full numbers are taken out of every text that leaves by a log or an error."""

from __future__ import annotations

import re

from receiver.core import mask_inside

# The last line of defence: our code logs none of these, but a library's error text may quote a request line.
# All of the path behind it: a mistyped URL has the secret anywhere, a query has a number and a reply's text.
_BEHIND_PUSH = re.compile(r"(/push(?:[/?]|%2f))[^\s\"'\\]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text without push secrets and full mainland numbers."""
    return mask_inside(_BEHIND_PUSH.sub(r"\1***", text))
