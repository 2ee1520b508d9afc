"""OpenTelemetry behind `tracing.py`; needs the extra `otel`, and is loaded only if traces are switched on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry import trace

_FLUSH_MILLISECONDS = 2000


class OtelTracer:
    """Makes spans and sends them from its own thread: create it after the fork."""

    def __init__(self) -> None:
        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "receiver"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("receiver")

    @contextmanager
    def span(self, name: str, kind: str, traceparent: str | None) -> Iterator[OtelSpan]:
        """Open a span of that kind; `traceparent`: the caller's span, its parent."""
        above = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        with self._tracer.start_as_current_span(
            name, above, SpanKind[kind], record_exception=False, set_status_on_exception=False
        ) as inner:
            begun = OtelSpan(inner)
            try:
                yield begun
            except Exception as error:
                begun.fail(type(error).__name__)
                raise

    def close(self) -> None:
        """Send pending spans, and end."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()


class OtelSpan:
    """One open span."""

    def __init__(self, inner: trace.Span) -> None:
        self._inner = inner

    def set_attributes(self, attributes: Mapping[str, str | float | None]) -> None:
        """Add attributes; what is None is left out."""
        self._inner.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, what: str) -> None:
        """Mark it as failed, by an error's type or a status; never by a text, which may hold a secret."""
        self._inner.set_attribute("error.type", what)
        self._inner.set_status(StatusCode.ERROR)
