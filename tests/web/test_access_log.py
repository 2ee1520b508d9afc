"""One log line a request, which tells what happened and gives nothing away."""

from __future__ import annotations

import json
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from receiver.core import LogFormat, Outcome
from receiver.intake.batch_writer import Acknowledged
from receiver.observability.log_fields import FIELDS, name_fields
from receiver.web.access_log import PushLine, _fields
from tests.conftest import SECRET
from tests.harness.factories import make_push
from tests.harness.leaks import leaks
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RECEIPT = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"
_PATIENCE_SECONDS = 60
_PROXYS_ID = "0f8fad5bd9cb469fa16570867728950e"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServeProcess, int]]:
    """A server behind a proxy, and the port of its door; the platform is out of reach."""
    door = free_port()
    environment = {
        "RECEIVER_TRUSTED_PROXIES": "127.0.0.1",
        "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{door}",
        "RECEIVER_PLATFORM_URL": "http://127.0.0.1:1/smsApi",
    }
    with ServeProcess(tmp_path_factory.mktemp("logged"), environment=environment) as process:
        yield process, door


def await_lines(process: ServeProcess, client: str, count: int) -> list[dict[str, Any]]:
    """Wait for that many lines of requests of a client; they come a moment after the answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        lines = [json.loads(line) for line in process.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        found = [line for line in lines if line["event"] == "request" and line["client"] == client]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("POST", f"/push/{SECRET}", _RECEIPT, (200, "/push/***", "info", "accepted")),
        ("POST", f"/push/{SECRET}?a=b", _RECEIPT, (200, "/push/***", "info", "accepted")),
        (
            "POST", f"/push/{SECRET}/reply", _RECEIPT,
            (200, "/push/***", "info", "quarantined"),
        ),
        ("PUT", f"/push/{SECRET}/", _RECEIPT, (200, "/push/***", "info", "accepted")),
        ("GET", f"/push/{SECRET}?content=%E6%94%B6", None, (200, "/push/***", "info", "quarantined")),
        ("POST", f"/push/not-{SECRET}", _RECEIPT, (404, "/push/***", "warning", None)),
        ("GET", f"/puhs/{SECRET}/15080921090?code=73519426", None, (404, None, "warning", None)),
        ("GET", f"//push/{SECRET}", None, (200, "/push/***", "info", None)),
        ("GET", "/api/v1/messages/15080921090", None, (401, "/api/v1/messages/<row_id:message_id>", "warning", None)),
        ("GET", f"/static/{SECRET}", None, (404, None, "warning", None)),
    ],
)  # fmt: skip
def test_line_tells_what_became_of_a_request(
    method: str,
    target: str,
    body: bytes | None,
    expected: tuple[int, str | None, str, str | None],
    served: tuple[ServeProcess, int],
) -> None:
    process, _ = served
    client = f"2001:db8::{uuid.uuid4().hex[:4]}"
    answer = process.request(method, target, body, {"X-Forwarded-For": client, "X-Request-Id": _PROXYS_ID})
    (line,) = await_lines(process, client, 1)
    assert (answer.status, line.get("route"), line["level"], line.get("outcome")) == expected
    assert (line["method"], line["http_status"], line["request_id"]) == (method, answer.status, _PROXYS_ID)
    assert line.get("push_id") == answer.headers.get("X-Push-Id")
    assert line.get("bytes_in") == (None if body is None else len(body))
    assert line["duration_ms"] >= 0
    assert leaks(json.dumps(line, ensure_ascii=False)) == []


def test_key_is_named_and_what_is_no_request_id_is_replaced(served: tuple[ServeProcess, int]) -> None:
    process, _ = served
    bearer = process.make_key("read")
    for given in (SECRET, "15080921090", "00000000-15080921090", bearer["Authorization"][7:], "x"):
        client = f"2001:db8::{uuid.uuid4().hex[:4]}"
        headers = {**bearer, "X-Forwarded-For": client, "X-Request-Id": given}
        answer = process.request("GET", "/api/v1/messages?mobile=15080921090", headers=headers)
        (line,) = await_lines(process, client, 1)
        assert line["actor"].startswith("key:key-")
        assert line["request_id"] == answer.headers["X-Request-Id"] != given


def test_unknown_method_is_not_quoted(served: tuple[ServeProcess, int]) -> None:
    process, _ = served
    process.request("SECRET-WORD", "/", headers={"X-Forwarded-For": "2001:db8::a:1"})
    (line,) = await_lines(process, "2001:db8::a:1", 1)
    assert (line["method"], line["http_status"]) == ("other", 405)


def test_send_through_the_door_has_its_line(served: tuple[ServeProcess, int]) -> None:
    process, door = served
    target = "/smsApi/verifyCode?phone=15080921090&variables=73519426"
    with socket.create_connection(("127.0.0.1", door), timeout=_PATIENCE_SECONDS) as connection:
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 2001:db8::a:2\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 502")
    (line,) = await_lines(process, "2001:db8::a:2", 1)
    assert (line["http_status"], line["route"], line["level"]) == (502, "/smsApi/verifyCode", "error")
    assert "/healthz" not in process.log.read_text()  # those are at level debug


def test_lines_for_people_and_below_info(tmp_path: Path) -> None:
    environment = {"RECEIVER_LOG_FORMAT": "console", "RECEIVER_LOG_LEVEL": "debug"}
    with ServeProcess(tmp_path, environment=environment) as process:
        process.push(_RECEIPT)
        process.stop()
        text = process.log.read_text()
    assert "/healthz" in text
    assert "outcome=accepted" in text
    assert '"event"' not in text


@pytest.mark.parametrize("form", [LogFormat.ECS, LogFormat.OTEL])
def test_lines_have_the_names_of_a_standard(form: LogFormat, tmp_path: Path) -> None:
    with ServeProcess(tmp_path, environment={"RECEIVER_LOG_FORMAT": form}) as process:
        process.push(_RECEIPT)  # by the fast path, and below by Flask
        process.push(_RECEIPT, "?a=b")
        process.request("GET", "/api/v1/messages/15080921090?mobile=15080921090")
        process.stop()
        text = process.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert leaks(text) == []
    if form is LogFormat.ECS:
        lines = [line for line in lines if line["event.action"] == "request" and line.get("http.route") != "/readyz"]
        common = {"ecs.version": "8.11.0", "service.name": "receiver"}
        assert all(common.items() <= line.items() for line in lines)
        assert all({"@timestamp", "log.level", "message"} <= line.keys() for line in lines)
        assert [line["message"] for line in lines[:2]] == ["POST /push/*** 200"] * 2
        assert all(isinstance(line["event.duration"], int) and line["event.duration"] > 10_000 for line in lines)
        attributes = lines
    else:
        lines = [line for line in lines if line["event_name"] == "request"]
        assert all(line["resource"]["service.name"] == "receiver" for line in lines)
        assert [(line["severity_text"], line["severity_number"]) for line in lines] == [("info", 9)] * 2 + [
            ("warning", 13)
        ]
        assert [line["body"] for line in lines[:2]] == ["POST /push/*** 200"] * 2
        assert all("timestamp" in line for line in lines)
        attributes = [line["attributes"] for line in lines]
    found = [(one["http.request.method"], one["http.route"], one["http.response.status_code"]) for one in attributes]
    assert found == [("POST", "/push/***", 200)] * 2 + [("GET", "/api/v1/messages/<row_id:message_id>", 401)]
    assert all(one["client.address"] == "127.0.0.1" for one in attributes)
    assert all(one["receiver.outcome"] == "accepted" and one["receiver.push_id"] for one in attributes[:2])
    names = {name for row in FIELDS.values() for name in (row.ecs, row.otel)}
    assert {name for one in attributes for name in one} - names <= {"ecs.version", "service.name", "service.version"}


def test_access_log_can_be_off(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, environment={"RECEIVER_ACCESS_LOG": "off"}) as process:
        assert process.push(_RECEIPT).status == process.push(_RECEIPT + b"&a=1", "?a=1").status == 200
        process.request("GET", "/nowhere")
        process.stop()
        assert "receiver.access" not in process.log.read_text()


def test_failed_push_has_its_line_even_with_the_access_log_off(tmp_path: Path) -> None:
    environment = {"RECEIVER_ACCESS_LOG": "off", "RECEIVER_SPOOL_MAX_BYTES": "1"}
    with ServeProcess(tmp_path, "postgresql://receiver@127.0.0.1:1/receiver", environment=environment) as process:
        assert process.push(_RECEIPT).status == 503
        process.stop()
        lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    (line,) = [line for line in lines if line["logger"] == "receiver.access"]
    assert (line["http_status"], line["route"], line["error"]) == (503, "/push/***", "SpoolUnavailable")
    assert "RECEIVER_SPOOL_MAX_BYTES" in line["reason"]
    assert None not in line.values()


@pytest.mark.parametrize("form", [form for form in LogFormat if form is not LogFormat.CONSOLE])
def test_rendered_line_is_what_the_logging_library_would_write(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "100 %s")
    kept = Acknowledged(make_push(), Outcome.ACCEPTED)
    for given_id in (None, _PROXYS_ID):
        line = json.loads(PushLine(form, 200).render(kept, given_id, 0.0123, now="now"))
        expected = _fields(kept, given_id, 0.0123, status=200)
        beside = {"event": "request", "level": "info", "logger": "receiver.access", "timestamp": "now"}
        assert line == name_fields(expected | beside, form)
