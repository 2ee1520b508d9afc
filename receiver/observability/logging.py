"""Logs: one JSON object a line, from which secrets and numbers have been taken out."""

from __future__ import annotations

import atexit
import io
import logging
import os
import re
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from receiver.core import LogFormat, mask_inside
from receiver.observability import metrics
from receiver.observability.line_writer import LineWriter
from receiver.observability.log_fields import name_fields

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# The last line of defence: our code logs none of these, but a library's error text may quote a request line.
# All of the path behind it: a mistyped URL has the secret anywhere, a query has a number and a reply's text.
_BEHIND_PUSH = re.compile(r"(/push(?:[/?]|%2f))[^\s\"'\\]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text without push secrets and full mainland numbers."""
    return mask_inside(_BEHIND_PUSH.sub(r"\1***", text))


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def _add_error_type(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.get("exc_info")
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if info is True:
        error = sys.exception()
    if error is not None:
        event.setdefault("error", type(error).__name__)
    return event


def _name_fields(
    form: LogFormat, _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return name_fields(event, form)


def configure_logging(level: int = logging.INFO, *, form: LogFormat = LogFormat.JSON) -> None:
    """Send every log of this process, libraries' included, to standard error as redacted lines.

    Libraries log from INFO on only: below it they log paths and values.
    """
    rendering: list[structlog.typing.Processor] = [_for_people()]
    if form is not LogFormat.CONSOLE:
        rendering = [partial(_name_fields, form), structlog.processors.JSONRenderer(ensure_ascii=False)]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _add_error_type,
            structlog.processors.format_exc_info,
            _redact_event,
            *rendering,
        ],
    )
    _handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("receiver").setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs every URL; one that the send proxy passes on may hold credentials and a code.
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    # gunicorn brings handlers of its own, which know no redaction.
    for name in ("gunicorn.error", "gunicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True


def _for_people() -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(
        colors=os.isatty(_STDERR), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


class _Handler(logging.Handler):
    """Passes every line to the writer, so that no caller waits for the reader of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  (a line that cannot be made is no reason to fail)
            line = f"a log line of {record.name} could not be made ({type(error).__name__})"
        write_rendered(f"{line}\n")


class _Stream(io.TextIOBase):
    """Standard error for code without a logger: printed tracebacks and warnings become log lines too."""

    def __init__(self) -> None:
        self._begun = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            lines, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            write_rendered(redact(lines) + end)
        return len(text)


def _render_dropped(count: int) -> str:
    record = logging.LogRecord(
        __name__, logging.WARNING, __file__, 0, "log lines dropped: standard error is not read fast enough", None, None
    )
    record.lines = count
    return f"{_handler.format(record)}\n"


_STDERR = 2
_handler = _Handler()
_writer = LineWriter(_STDERR, _render_dropped)
atexit.register(_writer.flush)


def write_rendered(lines: str) -> None:
    """Write finished lines to the log."""
    _writer.write(lines)


def flush() -> None:
    """Wait until the log is written, for two seconds at most."""
    _writer.flush()


def count_dropped() -> None:
    """Count the dropped lines in the metrics."""
    if count := _writer.take_dropped():
        metrics.LOG_LINES_DROPPED.inc(count)


def open_stderr() -> io.TextIOBase:
    """Return a replacement for `sys.stderr` that never blocks a thread."""
    return _Stream()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: events by name, values by keyword."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
