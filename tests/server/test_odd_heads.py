"""A push whose head cannot be read is refused before its path is known, and counted and logged like others."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.leaks import SECRET
from tests.harness.server import ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADS = {
    # Status; the lines of the head behind the first and Host
    "over 100 fields": (431, [b"X-%d: y" % number for number in range(101)]),
    "over 8 kB in one field": (431, [b"X: " + b"y" * 8300]),
    "a space in a name": (400, [b"X y: z"]),
    "an unknown coding": (501, [b"Transfer-Encoding: zip"]),
    "an unknown expectation": (417, [b"Expect: 200-ok", b"Content-Length: 0"]),
}


@pytest.fixture(scope="module", params=["on", "off"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    environment = {"RECEIVER_PUSH_LANE": request.param, "RECEIVER_TRUSTED_PROXIES": "127.0.0.1"}
    with ServeProcess(tmp_path_factory.mktemp("heads"), environment=environment) as process:
        yield process


def refused(process: ServeProcess) -> float:
    text = process.request("GET", "/metrics").body.decode()
    return float(text.partition('\nreceiver_push_refusals_total{reason="head"} ')[2].split()[0])


def ask(process: ServeProcess, target: str, fields: list[bytes]) -> int:
    head = [b"POST %b HTTP/1.1" % target.encode(), b"Host: x", *fields, b"", b""]
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
        connection.sendall(b"\r\n".join(head))
        return read_answer(connection).status


def test_push_whose_head_is_refused_is_counted_and_logged(served: ServeProcess) -> None:
    before = refused(served)
    for status, fields in _HEADS.values():
        assert ask(served, served.target, [b"X-Forwarded-For: 203.0.113.7", *fields]) == status
    assert refused(served) == before + len(_HEADS)
    assert ask(served, "/console/login", _HEADS["over 100 fields"][1]) == 431
    assert ask(served, served.target, []) == 200
    assert refused(served) == before + len(_HEADS)
    deadline = time.monotonic() + 10  # a line is written a moment after the answer
    while len(told := re.findall(r'.*"reason": "head".*', log := served.log.read_text())) < len(_HEADS):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    lines = [json.loads(line) for line in told]
    assert [line["http_status"] for line in lines] == [status for status, _ in _HEADS.values()]
    assert {(line["event"], line["client"]) for line in lines} == {("push refused", "203.0.113.7")}
    assert SECRET not in log
