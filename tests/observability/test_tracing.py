"""Traces, as a real collector gets them: what happened, and nothing that gives anything away."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from werkzeug import Request, Response

from receiver.observability import tracing
from tests.harness.http import serve_http
from tests.harness.leaks import leaks
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RECEIPT = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"
_PATIENCE_SECONDS = 60
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector:
    """Takes what is exported over OTLP/HTTP."""

    def __init__(self) -> None:
        self.exports: list[Any] = []
        self.port = 0

    def take(self, request: Request) -> Response:
        self.exports.append(ExportTraceServiceRequest.FromString(request.get_data()))
        return Response()

    def spans(self) -> list[tuple[str, dict[str, str | int], str]]:
        """Name, attributes and trace of each span."""
        return [
            (
                span.name,
                {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes},
                span.trace_id.hex(),
            )
            for export in list(self.exports)
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    taking = Collector()
    with serve_http(taking.take) as taking.port:
        yield taking


def test_collector_gets_requests_batches_and_platform_calls_without_a_secret(
    collector: Collector, tmp_path: Path
) -> None:
    door = free_port()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RECEIVER_TRUSTED_PROXIES": "127.0.0.1",
        "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{door}",
        "RECEIVER_PLATFORM_URL": "http://127.0.0.1:1/smsApi",
    }
    with ServeProcess(tmp_path, environment=environment) as process:
        process.push(_RECEIPT)
        traceparent = {"traceparent": f"00-{_TRACE}-00f067aa0ba902b7-01"}
        process.request("PUT", process.target + "?mobile=15080921090", _RECEIPT, traceparent)
        process.request("GET", f"{process.target}/15080921090/nowhere?code=73519426")
        process.request("GET", "/api/v1/messages?mobile=15080921090", headers=process.make_key("read"))
        with socket.create_connection(("127.0.0.1", door), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET /smsApi/verifyCode?phone=15080921090&variables=73519426 HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.")
        wanted = {
            "PUT /push/***",
            "GET /push/***",
            "GET /api/v1/messages",
            "append pushes",
            "platform /verifyCode",
        }
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not wanted <= {name for name, _, _ in collector.spans()}:
            assert time.monotonic() < deadline, [name for name, _, _ in collector.spans()]
            time.sleep(0.05)
    found = {name: (attributes, trace) for name, attributes, trace in collector.spans()}
    pushed, trace = found["PUT /push/***"]
    assert trace == _TRACE
    assert pushed["http.response.status_code"] == 200
    assert pushed["receiver.push_id"]
    assert found["append pushes"][0]["receiver.pushes"] == 1
    assert found["platform /verifyCode"][0]["error.type"] == "PlatformUnreachable"
    assert leaks("\n".join(map(str, collector.exports))) == []


def test_nothing_is_traced_and_nothing_loaded_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing._ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.start()
    with tracing.span("a", traceparent=f"00-{_TRACE}-00f067aa0ba902b7-01") as span:
        assert not span.is_recording()
        tracing.note(span, {"a": 1, "b": None})
        tracing.fail(span, "c")
    loaded = "import sys, receiver.cli, receiver.app; print([name for name in sys.modules if '.sdk' in name])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"[]\n"
