"""A log record as a line: its fields, redacted, in one of the formats."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib import import_module
from json import dumps
from typing import TYPE_CHECKING, Any

from receiver.core import LogFormat
from receiver.observability.log_fields import name_fields
from receiver.observability.logging import bound_request_id
from receiver.observability.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

# What logging itself puts into a record; all else is a value of the event.
_OF_RECORDS = frozenset(logging.makeLogRecord({}).__dict__)


def renderer_of(form: LogFormat) -> logging.Formatter:
    """Return what makes lines of records: of our events, and of any library's."""
    if form is LogFormat.CONSOLE:  # for people, and takes as long to load as most commands take to run
        return _Lines(import_module("receiver.observability.log_console").make_renderer())
    return _Lines(lambda event: dumps(name_fields(event, form), ensure_ascii=False, default=repr))


class _Lines(logging.Formatter):
    def __init__(self, write: Callable[[dict[str, Any]], str]) -> None:
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        return self._write(_redacted(self._fields(record)))

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        event = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.getMessage()}
        if (asked := bound_request_id.get()) is not None:
            event.setdefault("request_id", asked)
        event["level"], event["logger"] = record.levelname.lower(), record.name
        event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        event.update((name, value) for name, value in record.__dict__.items() if name not in _OF_RECORDS)
        if record.stack_info:
            event["stack_info"] = record.stack_info
        if record.exc_info and record.exc_info[1] is not None:
            event.setdefault("error", type(record.exc_info[1]).__name__)
            event["exception"] = self.formatException(record.exc_info)
        return event


def _redacted(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}
