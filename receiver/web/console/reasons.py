"""Why somebody wants to see full numbers, as they typed it."""

from __future__ import annotations

from flask import request

from receiver.core import TEXT_MAX_CHARS

_MIN_CHARS = 3


def find_reason() -> str | None:
    """Return the reason in the form that was sent, its spaces reduced; None: it is none, or far too long."""
    reason = " ".join(request.form.get("reason", "").split())
    return reason if _MIN_CHARS <= len(reason) <= TEXT_MAX_CHARS else None
