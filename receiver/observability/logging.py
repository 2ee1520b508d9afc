"""Logs: one JSON object a line, from which secrets and numbers have been taken out."""

from __future__ import annotations

import atexit
import io
import logging
import os
import re
import threading
from typing import TYPE_CHECKING, Any

import structlog

from receiver.core import mask_mobile
from receiver.observability import metrics
from receiver.observability.line_writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# The last line of defence: nobody should log these, but a library's error text may quote a request line.
# All that stands behind it: a mistyped URL has the secret anywhere, a query has a number and what somebody wrote.
_BEHIND_PUSH = re.compile(r"(/push(?:[/?]|%2f))[^\s\"'\\]+", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)(?:86|0086)?1\d{10}(?!\d)", re.ASCII)


def redact(text: str) -> str:
    """Take push secrets and full mainland numbers out of a text."""
    return _NUMBER.sub(lambda match: mask_mobile(match[0]), _BEHIND_PUSH.sub(r"\1***", text))


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def configure_logging(level: int = logging.INFO, *, form: str = "json") -> None:
    """Send every log of this process, libraries' included, to standard error as redacted lines.

    `form`: `json`, or `console` for a person's eyes. Below INFO, libraries are not heard: they tell paths and values.
    """
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
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.processors.JSONRenderer(ensure_ascii=False) if form == "json" else _for_people(),
        ],
    )
    _handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("receiver").setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # These tell every URL, and one that a sender asks us to pass on may hold credentials and a code.
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
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
    """Hands every line to the writer; nobody who logs waits for whoever reads."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  (a line that cannot be made is no reason to fail)
            line = f"a log line of {record.name} could not be made ({type(error).__name__})"
        write_rendered(f"{line}\n")


class _Stream(io.TextIOBase):
    """Standard error for what knows no logger: printed tracebacks and warnings go where every line goes."""

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


def _tell_dropped(count: int) -> str:
    record = logging.LogRecord(
        __name__, logging.WARNING, __file__, 0, "log lines dropped: they are not read as fast as they come", None, None
    )
    record.lines = count
    return f"{_handler.format(record)}\n"


_STDERR = 2
_handler = _Handler()
_writer = LineWriter(_STDERR, _tell_dropped)
atexit.register(_writer.flush)


def write_rendered(lines: str) -> None:
    """Write lines that are as they should be, where every other goes."""
    _writer.write(lines)


def flush() -> None:
    """Let what was logged be written before what comes, for two seconds at most."""
    _writer.flush()


def count_dropped() -> None:
    """Let the metrics know of the lines that were dropped."""
    if count := _writer.take_dropped():
        metrics.LOG_LINES_DROPPED.inc(count)


def open_stderr() -> io.TextIOBase:
    """Return a stream in the place of `sys.stderr`, on which no thread of a server can come to wait."""
    return _Stream()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: events by name, values by keyword."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
