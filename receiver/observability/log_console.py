"""Log lines for people at a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_STDERR = 2


def make_renderer() -> Callable[[dict[str, Any]], str]:
    """Return what writes an event as a line, in colours on a terminal."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=os.isatty(_STDERR), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return lambda event: str(renderer(None, "", event))
