"""Pushes for the world and the rest for the house, at two listeners of one server."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from tests.harness.certificates import Files
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.web.test_send_proxy import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECEIPT = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"
HOUSE = ("/", "/console/login", "/api/v1/docs", "/api/v1/messages", "/api/v1/openapi.json", "/metrics", "/readyz")


class Inside(ServeProcess):
    """The inside listener of another server."""

    def __init__(self, outside: ServeProcess, port: int) -> None:
        super().__init__(outside.data_dir, environment=outside.environment, tls=outside.tls)
        self.port = port


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServeProcess, Inside]]:
    inside, door = free_port(), free_port()
    binds = {"RECEIVER_INTERNAL_BIND": f"127.0.0.1:{inside}", "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{door}"}
    with ServeProcess(tmp_path_factory.mktemp("apart"), environment=binds) as outside:
        yield outside, Inside(outside, inside)


def test_world_finds_pushes_and_health_and_nothing_else(apart: tuple[ServeProcess, Inside]) -> None:
    outside, inside = apart
    assert outside.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
    assert outside.request("GET", f"{outside.target}?{RECEIPT.decode()}").headers["X-Push-Outcome"] == "accepted"
    assert outside.request("GET", "/healthz").status == 200
    assert outside.request("POST", "/push/wrong-secret-of-some-length-0000", RECEIPT).status == 404
    key = outside.make_key("read")
    around = ("/push/../console/login", "/push", "//console/login", "/push/%2e%2e/readyz", "/healthz/../metrics")
    nowhere = outside.request("GET", "/nowhere", headers=key)
    for path in (*HOUSE, *around):
        # What a peer says of the address means nothing.
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{inside.port}\r\nAuthorization: {key['Authorization']}\r\n\r\n"
        found = outside.exchange(head.encode())
        assert (found.status, "Location" in found.headers) == (404, False), path
        if not path.startswith("/push"):
            assert found.body == nowhere.body


def test_house_has_everything_and_pushes_too(apart: tuple[ServeProcess, Inside]) -> None:
    outside, inside = apart
    key = outside.make_key("read", "pushes")
    for path in HOUSE:
        assert inside.request("GET", path, headers=key).status in (200, 302), path
    before = inside.request("GET", "/metrics").body
    assert inside.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
    assert inside.request("GET", "/metrics").body != before


def test_door_keeps_to_itself(apart: tuple[ServeProcess, Inside]) -> None:
    outside, _ = apart
    port = int(outside.environment["RECEIVER_SEND_PROXY_BIND"].rpartition(":")[2])
    assert ask(port, "/readyz", method="GET")[0] == 404
    assert b"this listener only serves" in ask(port, outside.target)[2]


def test_everybody_is_told_the_right_address(apart: tuple[ServeProcess, Inside]) -> None:
    outside, inside = apart
    told = outside.told.read_text()
    assert f"listens on http://127.0.0.1:{outside.port}\n  pushes only; " in told
    assert f"console: http://127.0.0.1:{inside.port}/console" in told
    assert f"http://127.0.0.1:{inside.port}/api/v1/docs" in told
    assert outside.run("push-url").stdout.startswith(f"http://127.0.0.1:{outside.port}/push/")
    assert "ready, stores pushes in the database" in outside.run("status").stdout


def test_both_speak_tls(tmp_path: Path) -> None:
    files, port = Files(tmp_path), free_port()
    binds = {"RECEIVER_INTERNAL_BIND": f"127.0.0.1:{port}"}
    with ServeProcess(tmp_path, environment={**files.environment, **binds}, tls=files.trusting()) as outside:
        inside = Inside(outside, port)
        assert outside.push(RECEIPT).status == 200
        assert outside.request("GET", "/readyz").status == 404
        assert inside.request("GET", "/readyz").status == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 400
        connection.close()
