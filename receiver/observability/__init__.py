"""Logs, metrics and traces."""

from __future__ import annotations

from receiver.observability.line_writer import LineWriter
from receiver.observability.logging import (
    configure_logging,
    count_dropped,
    flush,
    get_logger,
    open_stderr,
    redact,
    write_rendered,
)

__all__ = [
    "LineWriter",
    "configure_logging",
    "count_dropped",
    "flush",
    "get_logger",
    "open_stderr",
    "redact",
    "write_rendered",
]
