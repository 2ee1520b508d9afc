"""Whoever waits for an answer to half a request hears 408, and it stands in the log and the counts."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

_BODY = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17:00:00"
_PUSHES = {
    "a body that is short": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 73\r\n\r\n" + _BODY,
    "a body that is short, by Flask": b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: 73\r\n\r\n" + _BODY,
    "lines that end in LF": b"POST %b HTTP/1.1\nHost: x\nContent-Length: 68\n\n" + _BODY,
    "half a head": b"POST %b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nCont",
    "chunks without an end": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nm\r\n",
    "a body that is awaited": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
}
_OTHERS = {
    "half a line": b"POST /pu",
    "half a body of the API": b"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    "a head of /healthz in LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
}


@pytest.fixture(scope="module", params=["on", "off"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    environment = {
        "RECEIVER_PUSH_LANE": request.param,
        "RECEIVER_TRUSTED_PROXIES": "127.0.0.1",
        "TEST_REQUEST_SECONDS": "1",
    }
    with ServeProcess(tmp_path_factory.mktemp("late"), environment=environment) as process:
        yield process


def counted(process: ServeProcess) -> tuple[float, float]:
    text = process.request("GET", "/metrics").body.decode()
    names = ('receiver_push_refusals_total{reason="timeout"} ', "receiver_request_timeouts_total ")
    refused, late = (float(text.partition(f"\n{name}")[2].split()[0]) for name in names)
    return refused, late


def answers_to(process: ServeProcess, requests: list[bytes]) -> list[bytes]:
    """Send each on a connection of its own, at once, and read until it is ended."""
    connections = [socket.create_connection(("127.0.0.1", process.port), timeout=15) for _ in requests]
    for connection, raw in zip(connections, requests, strict=True):
        connection.sendall(raw)
    answers = []
    for connection in connections:
        with connection:
            answers.append(b"".join(iter(lambda sock=connection: sock.recv(65536), b"")))  # type: ignore[misc]
    return answers


def test_half_a_request_is_answered_408_and_counted(served: ServeProcess) -> None:
    refused, late = counted(served)
    target = served.target.encode()
    pushes = [raw % target for raw in _PUSHES.values()]
    for answer in answers_to(served, [*pushes, *_OTHERS.values()]):
        assert re.sub(rb"\A(HTTP/1.1 100 Continue\r\n\r\n)?", b"", answer).startswith(
            b"HTTP/1.1 408 Request Timeout\r\n"
        )
    assert counted(served) == (refused + len(_PUSHES), late + len(_PUSHES) + len(_OTHERS))
    deadline = time.monotonic() + 10  # a line is written a moment after the answer
    while (log := served.log.read_text()).count('"timeout"') < len(_PUSHES) or "requests timed out" not in log:
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    lines = [json.loads(line) for line in log.splitlines()]
    told = [line for line in lines if line.get("reason") == "timeout"]
    assert [line["http_status"] for line in told] == [408] * len(_PUSHES)
    assert {line["client"] for line in told} == {"127.0.0.1", "203.0.113.7"}
    given_up = [line for line in lines if line["event"].startswith("requests timed out")]
    assert sum(line["requests"] for line in given_up) == len(_OTHERS)


def test_kept_connection_that_is_idle_hears_nothing(served: ServeProcess) -> None:
    refused, late = counted(served)
    whole = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (served.target.encode(), len(_BODY)) + _BODY
    with socket.create_connection(("127.0.0.1", served.port), timeout=15) as connection:
        connection.sendall(whole)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            answer += connection.recv(65536)
        connection.settimeout(2.5)
        with pytest.raises(TimeoutError):
            connection.recv(65536)
    assert counted(served) == (refused, late)
