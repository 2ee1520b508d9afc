"""What a check of the whole has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """One thing that was proved, or not."""

    name: str
    ok: bool
    count: int  # rows that were looked at
    details: tuple[str, ...] = ()  # what is wrong, numbers masked; at most the first twenty
