"""Logs: one line an event, from which secrets and numbers have been taken out."""

from __future__ import annotations

import atexit
import io
import logging
import threading
from contextvars import ContextVar
from functools import cached_property
from importlib import import_module
from typing import Any

from receiver.core import LogFormat
from receiver.observability.line_writer import LineWriter
from receiver.observability.redaction import redact

# The id of the request that this thread answers: every line of it has that.
bound_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class EventLogger:
    """The logger of a module: events by name, values by keyword; `exc_info`: an error, or True for this one."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def log(self, level: int, event: str, *, exc_info: Any = None, **values: Any) -> None:
        """Log an event at a level of `logging`."""
        if self._logger.isEnabledFor(level):
            self._logger.log(level, {**values, "event": event}, exc_info=exc_info)

    def debug(self, event: str, **values: Any) -> None:
        """Log what only a developer asks for."""
        self.log(logging.DEBUG, event, **values)

    def info(self, event: str, **values: Any) -> None:
        """Log what happened as it should."""
        self.log(logging.INFO, event, **values)

    def warning(self, event: str, **values: Any) -> None:
        """Log what an operator should look at."""
        self.log(logging.WARNING, event, **values)

    def error(self, event: str, **values: Any) -> None:
        """Log what failed."""
        self.log(logging.ERROR, event, **values)

    def exception(self, event: str, **values: Any) -> None:
        """Log what failed, with the error that is being handled."""
        self.log(logging.ERROR, event, exc_info=True, **values)


def get_logger(name: str) -> EventLogger:
    """Return the logger of a module."""
    return EventLogger(name)


def configure_logging(level: int = logging.INFO, *, form: LogFormat = LogFormat.JSON) -> None:
    """Send every log of this process, libraries' included, to standard error as redacted lines.

    Libraries log from INFO on only: below it they log paths and values.
    """
    _handler.setFormatter(_Formatter(form))
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


class _Formatter(logging.Formatter):
    """Makes a record's line. What renders it is imported at the first: most commands log nothing."""

    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._form = form

    @cached_property
    def _renderer(self) -> logging.Formatter:
        renderer: logging.Formatter = import_module("receiver.observability.log_lines").renderer_of(self._form)
        return renderer

    def format(self, record: logging.LogRecord) -> str:
        return self._renderer.format(record)


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


def take_dropped() -> int:
    """Return how many lines were dropped since the last call."""
    return _writer.take_dropped()


def open_stderr() -> io.TextIOBase:
    """Return a replacement for `sys.stderr` that never blocks a thread."""
    return _Stream()
