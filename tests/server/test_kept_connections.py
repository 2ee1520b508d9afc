"""Connections between two pushes: what their peers are told, and what becomes of a push that crosses their end."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

import pytest
import sqlalchemy as sa

from receiver.db.tables import messages
from tests.harness.certificates import Files
from tests.harness.server import ServeProcess, read_answer
from tests.server.test_serve import RECEIPT, post
from tests.server.test_tls import metric

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAY_SECONDS = 0.025
KEPT_SECONDS = 2
CROSSING = 60


class Relay:
    """A way of 25 ms in each direction to a server."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._join, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        away_reader, away_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(self._carry(reader, away_writer), self._carry(away_reader, writer))
        finally:
            for end in (writer, away_writer):
                end.close()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await asyncio.sleep(WAY_SECONDS)
            writer.write(piece)
        await asyncio.sleep(WAY_SECONDS)
        if writer.can_write_eof():
            writer.write_eof()


def receipt(task_id: str) -> bytes:
    return RECEIPT.replace(b"3313746", task_id.encode())


def stored(process: ServeProcess) -> set[str]:
    engine = sa.create_engine(f"sqlite:///{process.data_dir / 'receiver.db'}")
    with engine.connect() as connection:
        found = set(connection.scalars(sa.select(messages.c.task_id)))
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("scheme", "door"),
    [("http", "on"), ("https", "on"), *(pytest.param(s, "off", marks=pytest.mark.thorough) for s in ("http", "https"))],
)
def test_push_that_crosses_the_end_of_an_idle_connection_is_kept(tmp_path: Path, scheme: str, door: str) -> None:
    environment = {"RECEIVER_PUSH_LANE": door}
    tls = None
    if scheme == "https":
        pair = Files(tmp_path)
        environment |= pair.environment
        tls = pair.trusting()
    process = ServeProcess(tmp_path, environment=environment, tls=tls, keepalive=KEPT_SECONDS)
    with process, Relay(process.port) as relay, ExitStack() as stack:
        process.port, port = relay.port, process.port
        connections = [stack.enter_context(process.connect()) for _ in range(CROSSING)]

        def cross(number: int) -> bool:
            connection = connections[number]
            connection.sendall(post(process.target, receipt(f"first-{number}")))
            answer = read_answer(connection)
            assert (answer.headers["Connection"], answer.headers["Keep-Alive"]) == ("keep-alive", "timeout=1")
            # Before the end, across it, and as long after it as its news takes to come.
            time.sleep(KEPT_SECONDS - 0.1 + number * 0.7 / CROSSING)
            with suppress(OSError):  # its sender does not look, and may find it ended
                connection.sendall(post(process.target, receipt(f"second-{number}")))
            with suppress(OSError, ConnectionError):
                return read_answer(connection).status == 200
            return False

        with ThreadPoolExecutor(CROSSING) as senders:  # each by its own clock: one after the other, they come too late
            heard = {f"second-{number}" for number, taken in enumerate(senders.map(cross, range(CROSSING))) if taken}
        process.port = port
        expected = {f"second-{number}" for number in range(CROSSING)}
        deadline = time.monotonic() + 10
        while not expected <= stored(process):
            assert time.monotonic() < deadline, sorted(expected - stored(process))
            time.sleep(0.1)
    assert 0 < len(heard) < CROSSING


def test_client_that_keeps_to_what_it_is_told_never_meets_the_end(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, keepalive=KEPT_SECONDS) as process, Relay(process.port) as relay:
        process.port = relay.port
        with process.connect() as connection:
            for number in range(3):
                connection.sendall(post(process.target, receipt(f"{number}")))
                kept = read_answer(connection).headers["Keep-Alive"].removeprefix("timeout=")
                time.sleep(float(kept))


# --- What heads say ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["on", "off"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with ServeProcess(tmp_path_factory.mktemp("kept"), environment={"RECEIVER_PUSH_LANE": request.param}) as process:
        yield process


def test_kept_connection_says_how_long_and_another_does_not(served: ServeProcess) -> None:
    asked = b"Connection: keep-alive"
    push = post(served.target, RECEIPT)
    old = post(served.target, RECEIPT, version="1.0")
    for raw, kept in (
        (push, True),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"POST /push/wrong-secret-of-some-length-0000 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", True),
        (push.replace(b"Host: x", b"Connection: close"), False),
        (old, False),
        (old.replace(b"Host: x", asked), True),
    ):
        answer = served.exchange(raw)
        assert answer.headers["Connection"] == ("keep-alive" if kept else "close"), raw
        assert answer.headers.get("Keep-Alive") == ("timeout=60" if kept else None), raw


def test_offer_of_http_2_is_passed_over_and_costs_no_thread(served: ServeProcess) -> None:
    """As java.net.http sends it with every request over plain HTTP."""
    offers = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")
    lane = served.environment["RECEIVER_PUSH_LANE"] == "on"
    for offer, in_lane in (("Upgrade: h2c", lane), ("Upgrade: TLS/1.0", False)):
        before = metric(served, "receiver_fast_path_pushes_total")
        with served.connect() as connection:
            for _ in range(2):
                connection.sendall(post(served.target, RECEIPT, *offers, offer))
                answer = read_answer(connection)
                assert (answer.status, answer.headers["Connection"]) == (200, "keep-alive")
        assert metric(served, "receiver_fast_path_pushes_total") - before == (2 if in_lane else 0)


# --- Slow readers ---------------------------------------------------------------------------------------


def slow_reader(process: ServeProcess) -> socket.socket:
    """One that asks for a large answer and has next to no room for it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # else loopback itself holds megabytes
    connection.settimeout(60)
    connection.connect(("127.0.0.1", process.port))
    if process.tls is not None:
        connection = process.tls.wrap_socket(connection, server_hostname="localhost")
    connection.sendall(b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_hardly_reads_holds_no_thread_and_gets_all_of_it_in_the_end(tmp_path: Path, scheme: str) -> None:
    pair = Files(tmp_path) if scheme == "https" else None
    process = ServeProcess(
        tmp_path, environment=pair.environment if pair else {}, tls=pair.trusting() if pair else None
    )
    with process, ExitStack() as stack:
        whole = process.request("GET", "/api/v1/openapi.json").body
        readers = [stack.enter_context(slow_reader(process)) for _ in range(80)]
        for _ in range(4):
            for _ in range(5):
                begun = time.monotonic()
                assert process.request("GET", "/healthz").status == 200
                assert time.monotonic() - begun < 1
                assert process.push(RECEIPT).status == 200
            for reader in readers:
                reader.recv(16)
        reader = readers[-1]
        rest = b""
        while not rest.endswith(whole[-64:]):
            rest += reader.recv(65536)
        assert rest.endswith(whole)
        reader.sendall(post(process.target, RECEIPT))  # on the same connection, which is kept
        assert read_answer(reader).headers["X-Push-Outcome"] == "accepted"


@pytest.mark.thorough
def test_who_reads_next_to_nothing_is_ended(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process, ExitStack() as stack:
        reader = stack.enter_context(slow_reader(process))
        ends = select.poll()
        ends.register(reader, 0)  # what has come it may read on for minutes; that it is reset shows at once
        begun = time.monotonic()
        while not ends.poll(0):
            assert time.monotonic() - begun < 90
            assert reader.recv(16)
            time.sleep(1)
        assert time.monotonic() - begun > 25
