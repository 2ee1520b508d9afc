"""The audit at a syslog server: in order, at least once, whatever stops meanwhile."""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from receiver.audit import Shipper, find_shipped, find_unshipped_since
from receiver.core import SyslogAddress, parse_address
from receiver.net.syslog import SyslogConnection, SyslogError, write_line
from receiver.observability import metrics
from receiver.runtime import Runtime
from receiver.web.metrics_collector import Scrape
from tests.conftest import make_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LINE = re.compile(
    r"<110>1 \S+ \S+ receiver - (\S+) "
    r'\[receiver@32473 id="(\d+)" position="(\d+)" actor="[^"]*" action="[^"]*" hash="[0-9a-f]{64}"\] (.*)'
)


class Server:
    """A syslog server over TCP or TLS that keeps the lines that it was sent."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port: int = self._listener.getsockname()[1]
        self.lines: list[str] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which also ends its thread's wait
        self._listener.close()
        self._thread.join(20)
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as file:
                while length := _octets(file):
                    self.lines.append(file.read(length).decode())
        except OSError:
            return


def _octets(file: Any) -> int:
    digits = b""
    while (read := file.read(1)) not in (b"", b" "):
        digits += read
    return int(digits or 0)


def positions(lines: list[str]) -> list[int]:
    found = [_LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [int(match[3]) for match in found if match]


def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def note(runtime: Runtime, entries: int) -> None:
    for number in range(entries):
        runtime.audit("user:li.wei", "look_up", page=number)


@contextmanager
def shipping(runtime: Runtime, address: str | SyslogAddress, tls: ssl.SSLContext | None = None) -> Iterator[Shipper]:
    target = address if isinstance(address, SyslogAddress) else parse_address(address)
    shipper = Shipper(runtime.database, target, require_database=runtime.require_database, tls=tls, retry_seconds=0.05)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop()


def test_entries_arrive_in_order_and_go_on_after_a_restart_of_either_side(runtime: Runtime) -> None:
    note(runtime, 3)
    server = Server()
    with shipping(runtime, f"tcp://127.0.0.1:{server.port}"):
        until(lambda: len(server.lines) == 3)
        note(runtime, 2)
        until(lambda: len(server.lines) == 5)
        until(lambda: runtime.ask(find_shipped) == 5)
        server.close()
        failures = metrics.AUDIT_SYSLOG_FAILURES._value.get()
        note(runtime, 2)
        until(lambda: metrics.AUDIT_SYSLOG_FAILURES._value.get() > failures)
        assert runtime.ask(find_unshipped_since) is not None
        again = Server(server.port)
        until(lambda: positions(again.lines)[-2:] == [6, 7])
    assert positions(server.lines) == [1, 2, 3, 4, 5]
    note(runtime, 1)
    with shipping(runtime, f"tcp://127.0.0.1:{again.port}"):
        until(lambda: 8 in positions(again.lines))
        until(lambda: runtime.ask(find_unshipped_since) is None)
    received = positions(again.lines)
    assert received == sorted(received)
    again.close()


def test_server_that_ends_its_side_is_taken_for_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = parse_address(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        with SyslogConnection(address) as way, listener.accept()[0] as taken:
            way.require_open()
            taken.shutdown(socket.SHUT_WR)  # and reads on, as one does that is about to end
            select.select([way._socket], [], [], 20)
            with pytest.raises(SyslogError, match="it closed the connection"):
                way.require_open()


def test_one_process_of_all_sends(postgres_runtime: Runtime) -> None:
    note(postgres_runtime, 50)
    server = Server()
    address = f"tcp://127.0.0.1:{server.port}"
    with shipping(postgres_runtime, address), shipping(postgres_runtime, address), shipping(postgres_runtime, address):
        until(lambda: postgres_runtime.ask(find_shipped) == 50)
        note(postgres_runtime, 50)
        until(lambda: postgres_runtime.ask(find_shipped) == 100)
    assert positions(server.lines) == list(range(1, 101))
    server.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_entries_arrive_over_unix_sockets_and_udp(runtime: Runtime, tmp_path: Path) -> None:
    note(runtime, 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(40)
        with shipping(runtime, f"unix:{tmp_path / 'log'}"):
            assert positions([log.recv(65536).decode() for _ in range(2)]) == [1, 2]
            until(lambda: runtime.ask(find_shipped) == 2)
    note(runtime, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(40)
        with shipping(runtime, f"udp://127.0.0.1:{log.getsockname()[1]}"):
            assert positions([log.recv(65536).decode()]) == [3]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_entries_arrive_over_tls_only_at_a_server_that_proves_its_name(runtime: Runtime) -> None:
    import trustme  # noqa: PLC0415

    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(of_server)
    note(runtime, 2)
    server = Server(tls=of_server)
    failures = metrics.AUDIT_SYSLOG_FAILURES._value.get()
    with shipping(runtime, f"tls://localhost:{server.port}", of_client):
        until(lambda: metrics.AUDIT_SYSLOG_FAILURES._value.get() > failures)
    assert server.lines == []
    authority.configure_trust(of_client)
    trusted = Server(tls=of_server)
    with shipping(runtime, f"tls://localhost:{trusted.port}", of_client):
        until(lambda: positions(trusted.lines) == [1, 2])
    server.close()
    trusted.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_serving_process_sends_and_tells_how_far_behind_it_is(make_runtime: Callable[..., Runtime]) -> None:
    server = Server()
    runtime = make_runtime(audit_syslog=f"tcp://127.0.0.1:{server.port}")
    note(runtime, 2)
    until(lambda: positions(server.lines) == [1, 2])
    until(lambda: runtime.ask(find_unshipped_since) is None)
    gauges = {metric.name: metric for metric in Scrape(runtime).collect()}
    assert gauges["receiver_audit_syslog_lag_seconds"].samples[0].value == 0
    server.close()


def test_what_people_choose_cannot_break_out_of_its_field(tmp_path: Path) -> None:
    now = Runtime(make_settings("sqlite://", tmp_path)).now()
    line = write_line(
        at=now,
        host="a b",
        app="receiver",
        name="look up\n",
        data={"actor": 'x"] [y\\\n'},
        message=json.dumps({"a": "\n"}),
    ).decode()
    assert line.endswith('ab receiver - lookup [receiver@32473 actor="x\\"\\] [y\\\\�"] {"a": "\\n"}')


@pytest.mark.parametrize(
    "wrong", ["dev/log", "unix:dev", "http://x", "tcp://", "tcp://h:x", "udp://h/path", "tls://u@h:1"]
)
def test_addresses_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_address(wrong)
    assert str(parse_address("tls://logs.example.com")) == "tls://logs.example.com:6514"
