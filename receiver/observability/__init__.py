"""Logs, metrics and traces."""

from __future__ import annotations

from receiver.observability.line_writer import LineWriter
from receiver.observability.logging import (
    EventLogger,
    bound_request_id,
    configure_logging,
    flush,
    get_logger,
    open_stderr,
    take_dropped,
    write_rendered,
)
from receiver.observability.redaction import redact

__all__ = [
    "EventLogger",
    "LineWriter",
    "bound_request_id",
    "configure_logging",
    "flush",
    "get_logger",
    "open_stderr",
    "redact",
    "take_dropped",
    "write_rendered",
]
