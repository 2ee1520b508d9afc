"""Traces: a span for each request that Flask answers, each batch of pushes and each call of the platform.

On if the extra `otel` is installed and `OTEL_EXPORTER_OTLP_ENDPOINT` is set (the other standard variables count too);
otherwise every span is OpenTelemetry's own that does nothing. The spans are our own: ready-made instrumentations put
paths, queries and statements into attributes, and each of them may hold a secret or a number.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from receiver.observability.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import TracerProvider

_log = get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MILLISECONDS = 2000
_PROPAGATOR = TraceContextTextMapPropagator()

_provider: TracerProvider | None = None
_tracer: trace.Tracer = trace.NoOpTracer()


def start() -> None:
    """Start tracing in this process, after any fork; no effect if started, or not configured."""
    global _provider, _tracer  # noqa: PLW0603  (one for a process)
    if _provider is not None or not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        # An extra; takes long to load, and most processes trace nothing.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        _log.warning("tracing is off: it needs the extra `otel`: pip install 'receiver[otel]'")
        return
    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "receiver"})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("receiver")


def stop() -> None:
    """Send pending spans, and end."""
    global _provider, _tracer
    if _provider is not None:
        _provider.force_flush(_FLUSH_MILLISECONDS)
        _provider.shutdown()
        _provider, _tracer = None, trace.NoOpTracer()


@contextmanager
def span(name: str, *, kind: str = "INTERNAL", traceparent: str | None = None) -> Iterator[trace.Span]:
    """Open a span. `kind`: INTERNAL, SERVER or CLIENT; `traceparent`: the header of a caller, its parent."""
    above = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    with _tracer.start_as_current_span(
        name, above, SpanKind[kind], record_exception=False, set_status_on_exception=False
    ) as begun:
        try:
            yield begun
        except Exception as error:
            fail(begun, type(error).__name__)
            raise


def note(span: trace.Span, attributes: Mapping[str, str | float | None]) -> None:
    """Add attributes; what is None is left out."""
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def fail(span: trace.Span, what: str) -> None:
    """Mark a span as failed, by an error's type or a status; never by a text, which may hold a secret."""
    span.set_attribute("error.type", what)
    span.set_status(StatusCode.ERROR)
