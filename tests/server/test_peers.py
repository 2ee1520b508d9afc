"""Peers that are slow, endless or never close: they cost a socket, and honest pushes nothing to speak of."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.programs import require_program
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

DOORS = pytest.mark.parametrize("door", ["on", "off"])
SLOW_PEERS = 2000
ROUTES = ("/api/v1/messages", "/healthz", "/nowhere")


@pytest.fixture(params=["on", "off"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServeProcess]:
    with ServeProcess(tmp_path, environment={"RECEIVER_PUSH_LANE": request.param}) as served:
        yield served


def usage(process: ServeProcess) -> tuple[int, int, int]:
    """Open files, threads, and resident bytes of the worker."""
    _, worker = process.await_worker()
    status = Path(f"/proc/{worker}/status").read_text()
    threads, kib = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("Threads", "VmRSS"))
    return len(list(Path(f"/proc/{worker}/fd").iterdir())), threads, kib * 1024


@pytest.mark.thorough
def test_slow_peers_hold_no_thread_and_do_not_stop_honest_pushes(process: ServeProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, SLOW_PEERS + 500), hard))
    heads = [
        request
        for path in (process.target, *ROUTES)
        for request in (
            f"POST {path} HTTP/1.1\r\nHost: x\r\n",
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nmobile=1",
            f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nmobil",
        )
    ]
    slow: list[socket.socket] = []
    try:
        with Pushers(process, 4) as pushers:
            pushers.await_acks(50)
            threads_before = usage(process)[1]
            for number in range(SLOW_PEERS):
                slow.append(process.connect())
                slow[-1].sendall(heads[number % len(heads)].encode())
            begun = time.monotonic()
            pushers.await_acks(200)
            # Honest pushes took a thread each where the lane is off; the slow ones never do.
            assert usage(process)[1] <= threads_before + 70
            assert process.request("GET", "/healthz").status == 200
            assert time.monotonic() - begun < 15  # those that hold a thread are ended after 20
        assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
        slow[0].settimeout(30)
        assert slow[0].recv(64).startswith(b"HTTP/1.1 408 ")  # a request has so long to arrive, and no longer
    finally:
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_peers_that_never_close_hold_up_no_route(process: ServeProcess) -> None:
    stuck: list[socket.socket] = []
    try:
        with Pushers(process, 4) as pushers:
            for number in range(50):
                path = (process.target, *ROUTES)[number % 4]
                connection = process.connect()
                connection.sendall(f"POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
                stuck.append(connection)
            begun = time.monotonic()
            pushers.await_acks(100)
            assert time.monotonic() - begun < 30
        assert pushers.failures == 0
    finally:
        for connection in stuck:
            connection.close()


def test_connections_leave_nothing_behind(process: ServeProcess) -> None:
    for _ in range(50):
        process.push(b"mobile=1")
    time.sleep(0.5)
    files, _, _ = usage(process)
    for number in range(1000):
        with process.connect() as connection:
            head = f"POST {process.target} HTTP/1.1\r\nContent-Length: 8\r\n\r\n".encode()
            connection.sendall(head + (b"mobile=1" if number % 3 else b"mob"))
            if number % 3 == 1:
                assert read_answer(connection).status == 200
    deadline = time.monotonic() + 30  # what the server ended itself lingers for two seconds
    while usage(process)[0] > files + 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_pipelined_pushes_are_answered_in_order(process: ServeProcess) -> None:
    bodies = [f"mobile=15080921090&taskid={n}&status=1&receivetime=2019-07-23+17:00:00" for n in range(30)]
    bodies[7] = "mobile=1"  # quarantined, so that the order shows
    head = f"POST {process.target} HTTP/1.1\r\nContent-Length: "
    with process.connect() as connection:
        connection.sendall("".join(f"{head}{len(body)}\r\n\r\n{body}" for body in bodies).encode())
        outcomes = [read_answer(connection).headers["X-Push-Outcome"] for _ in bodies]
    assert [number for number, outcome in enumerate(outcomes) if outcome == "quarantined"] == [7]


def test_push_that_comes_byte_by_byte_is_taken(process: ServeProcess) -> None:
    body = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17:00:00"
    raw = f"POST {process.target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with process.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw:
            connection.send(bytes([byte]))
            time.sleep(0.001)
        assert read_answer(connection).headers["X-Push-Outcome"] == "accepted"


# --- The promise as the kernel sees it ----------------------------------------------------------------


@DOORS
@pytest.mark.parametrize("away", [False, True], ids=["SQLite", "spool"])
def test_fsync_comes_before_the_answer(tmp_path: Path, door: str, away: bool) -> None:
    tracer = require_program("strace")
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none" if away else ""
    process = ServeProcess(tmp_path, url, environment={"RECEIVER_PUSH_LANE": door})
    trace = tmp_path / "trace"
    with process:
        process.push(b"mobile=1")  # so that files are open and the schema is known
        _, worker = process.await_worker()
        calls = "trace=fsync,fdatasync,recvfrom,sendto"
        with subprocess.Popen(
            [tracer, "-f", "-e", calls, "-s", "4000", "-o", trace, "-p", str(worker)], stderr=subprocess.PIPE
        ) as tracing:
            assert tracing.stderr is not None
            assert b"attached" in tracing.stderr.readline()
            answer = process.push(b"mobile=15080921090&taskid=traced&status=1&receivetime=2019-07-23+17:00:00")
            tracing.terminate()
    assert answer.headers["X-Push-Outcome"] == ("spooled" if away else "accepted")
    lines = trace.read_text().splitlines()
    received = next(number for number, line in enumerate(lines) if "taskid=traced" in line and "recv" in line)
    answered = next(number for number, line in enumerate(lines) if "HTTP/1.1 200" in line and number > received)
    synced = [line for line in lines[received:answered] if "sync" in line and "= 0" in line]
    assert synced, lines[received : answered + 1]
