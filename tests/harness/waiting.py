"""Waiting for what comes sooner or later, and not for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_SECONDS = 60.0  # in which anything happens, on the busiest machine


def await_true(condition: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait until it is so; fail if it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
