"""Traces: a span for each request that Flask answers, each batch of pushes and each call of the platform.

On if the extra `otel` is installed and `OTEL_EXPORTER_OTLP_ENDPOINT` is set (the other standard variables count too).
The spans are our own: ready-made instrumentations put paths, queries and statements into attributes, and each of them
may hold a secret or a number.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from receiver.observability.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.observability.otel import OtelTracer

_log = get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Span(Protocol):
    """An open span."""

    def set_attributes(self, attributes: Mapping[str, str | float | None]) -> None:
        """Add attributes; what is None is left out."""

    def fail(self, what: str) -> None:
        """Mark it as failed, by an error's type or a status."""


class _Nothing:
    def set_attributes(self, attributes: Mapping[str, str | float | None]) -> None:
        pass

    def fail(self, what: str) -> None:
        pass


_NOTHING: AbstractContextManager[Span] = nullcontext(_Nothing())
_traces: OtelTracer | None = None


def start() -> None:
    """Start tracing in this process, after any fork; no effect if started, or not configured."""
    global _traces  # noqa: PLW0603  (one for a process)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if _traces is not None or off or not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from receiver.observability.otel import OtelTracer  # noqa: PLC0415  (takes long to load, and most processes trace nothing)
    except ImportError:
        _log.warning("tracing is off: it needs the extra `otel`: pip install 'receiver[otel]'")
        return
    _traces = OtelTracer()


def stop() -> None:
    """Send pending spans, and end."""
    global _traces  # noqa: PLW0603
    if _traces is not None:
        _traces.close()
        _traces = None


def span(name: str, *, kind: str = "INTERNAL", traceparent: str | None = None) -> AbstractContextManager[Span]:
    """Return a span, to be entered. `kind`: INTERNAL, SERVER or CLIENT; `traceparent`: the header of a caller."""
    return _NOTHING if _traces is None else _traces.span(name, kind, traceparent)
