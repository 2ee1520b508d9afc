"""A log record as a line: its fields, redacted, in one of the formats."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from receiver.core import LogFormat
from receiver.observability.log_fields import name_fields
from receiver.observability.logging import bound_request_id
from receiver.observability.redaction import redact

if TYPE_CHECKING:
    import logging
    from collections.abc import MutableMapping

_STDERR = 2


def renderer_of(form: LogFormat) -> logging.Formatter:
    """Return what makes lines of records: of our events, and of any library's."""
    rendering: list[structlog.typing.Processor] = [_for_people()]
    if form is not LogFormat.CONSOLE:
        rendering = [partial(_name_fields, form), structlog.processors.JSONRenderer(ensure_ascii=False)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _add_values,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _add_error_type,
            structlog.processors.format_exc_info,
            _redact_event,
            *rendering,
        ],
    )


def _for_people() -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(
        colors=os.isatty(_STDERR), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


def _add_values(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if isinstance(given := event["_record"].msg, dict):
        event.update(given)
    if (asked := bound_request_id.get()) is not None:
        event.setdefault("request_id", asked)
    return event


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
