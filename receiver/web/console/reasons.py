"""Why a user wants to see full numbers, as they typed it."""

from __future__ import annotations

from flask import request

from receiver.core import TEXT_MAX_CHARS, mask_inside

_MIN_CHARS = 3


def find_reason() -> str | None:
    """Return the reason in the form that was sent, its spaces reduced; None: it is none, or far too long.

    Numbers in it are masked: it goes into the audit log, where none stands in full.
    """
    reason = " ".join(request.form.get("reason", "").split())
    return mask_inside(reason) if _MIN_CHARS <= len(reason) <= TEXT_MAX_CHARS else None
