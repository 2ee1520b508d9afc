"""The result of a consistency check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """One property that was checked."""

    name: str
    ok: bool
    count: int  # rows checked
    details: tuple[str, ...] = ()  # what is wrong, numbers masked; at most the first twenty
