"""The codes by which our triggers refuse a write; each begins the message that the driver brings."""

from __future__ import annotations

from enum import StrEnum


class TriggerCode(StrEnum):
    """Why a trigger refused."""

    MOVED = "receiver:moved"  # the words that follow say where to
    ENCRYPTION_CHANGED = "receiver:encryption-changed"
