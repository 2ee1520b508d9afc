"""More connections than there is pool for: the idlest go, newcomers and honest pushes do not."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import Config

from receiver.server.closing import Lingering
from receiver.server.limits import ConnectionLimits
from receiver.server.peers import ConnectionPool, Entry, Peer, PeerConnection
from tests.harness.ports import free_port
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess, read_answer
from tests.server.test_serve import RECEIPT, post
from tests.web.test_listeners import Inside
from tests.web.test_send_proxy import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HALF = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Le"


@contextmanager
def files(count: int) -> Iterator[None]:
    """Let this process have so many open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_ended(connection: socket.socket) -> bool:
    """Whether the other side has ended it by now."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        connection.settimeout(60)


def await_ended(connection: socket.socket, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_ended(connection):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- A flood of strangers ---------------------------------------------------------------------------------


def test_idle_strangers_without_end_cost_no_honest_push_and_no_sign_of_life(tmp_path: Path) -> None:
    inside_port, door_port = free_port(), free_port()
    binds = {"RECEIVER_INTERNAL_BIND": f"127.0.0.1:{inside_port}", "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{door_port}"}
    process = ServeProcess(tmp_path, environment=binds, open_files=1024)
    inside = Inside(process, inside_port)
    with process, files(6000), ExitStack() as stack:
        _, worker = process.await_worker()
        with Pushers(process, 4) as pushers:
            pushers.await_acks(20)
            strangers: list[socket.socket] = []
            for _ in range(20):
                strangers += [stack.enter_context(process.connect()) for _ in range(250)]
                assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
                assert inside.request("GET", "/healthz").status == 200
            assert ask(door_port, "/nowhere")[0] == 404
            pushers.await_acks(20)
        assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
        await_ended(strangers[0])
        assert not is_ended(strangers[-1])
        strangers[-1].sendall(post(process.target, RECEIPT))
        assert read_answer(strangers[-1]).status == 200
        assert process.await_worker()[1] == worker


def test_who_keeps_connections_and_forgets_them_shuts_nobody_out(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, open_files=256) as process, ExitStack() as stack:
        kept = []
        for _ in range(400):
            kept.append(stack.enter_context(process.connect()))
            kept[-1].sendall(post(process.target, RECEIPT))
            assert read_answer(kept[-1]).headers["X-Push-Outcome"] == "accepted"
        await_ended(kept[0])
        kept[-1].sendall(post(process.target, RECEIPT))
        assert read_answer(kept[-1]).status == 200


@pytest.mark.parametrize(("open_files", "count"), [(40, 100), (256, 300)])
def test_half_requests_on_every_descriptor_shut_nobody_out_and_end_no_worker(
    tmp_path: Path, open_files: int, count: int
) -> None:
    """With 40 the system itself has no descriptor left; some ten at a time then have their moment of a second.

    The server's own files are more than 40, so a push may find none for the database: it is refused, and sent again.
    """
    with ServeProcess(tmp_path, open_files=open_files) as process, ExitStack() as stack:
        _, worker = process.await_worker()
        half = []
        for _ in range(count):
            half.append(stack.enter_context(process.connect()))
            half[-1].sendall(HALF % process.target.encode())
        # Whose requests do not end goes for who comes, once they have had a moment.
        answers: list[int] = []
        deadline = time.monotonic() + 60
        while answers.count(200) < 3:
            answers.append(process.push(RECEIPT).status)
            assert set(answers) <= ({200} if open_files == 256 else {200, 503})
            assert time.monotonic() < deadline
        with process.connect() as kept:
            for _ in range(3):
                kept.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\n" % process.target.encode())
                kept.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(RECEIPT), RECEIPT))
                assert read_answer(kept).status == 200
                half += [stack.enter_context(process.connect()) for _ in range(20)]
                for connection in half[-20:]:
                    connection.sendall(HALF % process.target.encode())
        assert process.await_worker()[1] == worker


def test_push_that_a_busy_worker_has_not_read_is_read_before_its_connection_would_be_closed(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, open_files=160) as process, process.connect() as kept, ExitStack() as stack:
        _, worker = process.await_worker()
        assert process.request("GET", "/healthz").status == 200  # so `kept` is accepted
        os.kill(worker, signal.SIGSTOP)
        time.sleep(1.1)  # what a connection has before it may be closed for another
        for _ in range(ConnectionLimits.within(160).connections + 10):
            stack.enter_context(process.connect())
        kept.sendall(post(process.target, RECEIPT))
        os.kill(worker, signal.SIGCONT)
        assert read_answer(kept).headers["X-Push-Outcome"] == "accepted"


def test_connection_that_is_closed_for_another_in_the_turn_it_ends_itself_ends_no_loop() -> None:
    with selectors.DefaultSelector() as poller:
        lingering = Lingering(poller, 10)
        servers = []
        for _ in range(2):
            client, server = socket.socketpair()
            lingering.end(server)
            client.close()
            servers.append(server)
        turn = poller.select()
        assert len(turn) == 2
        assert lingering.close_oldest()
        for key, _ in turn:
            key.data(key.fileobj)
        assert not poller.get_map()
        assert not lingering.close_oldest()
        assert [server.fileno() for server in servers] == [-1, -1]


@pytest.mark.thorough
def test_who_asks_nothing_is_ended_after_the_time_of_a_request(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process, process.connect() as connection:
        begun = time.monotonic()
        connection.settimeout(40)
        assert connection.recv(1) == b""
        assert 19 < time.monotonic() - begun < 30


def test_soft_limit_of_a_shell_is_raised(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with ServeProcess(tmp_path) as process:
            _, worker = process.await_worker()
            assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- Who goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_files", [64, 256, 1024, 16384, 1_000_000])
def test_shares_leave_room_for_all_else(open_files: int) -> None:
    limits = ConnectionLimits.within(open_files)
    assert 16 < limits.connections <= 4096
    assert open_files - limits.connections - 2 * limits.ended >= min(256, open_files // 2)
    assert 0 < limits.internal + limits.send_proxy < limits.connections / 2


def test_idlest_goes_first_and_who_was_acknowledged_after_the_strangers() -> None:
    pool = ConnectionPool(9)
    entrance = Entry(("127.0.0.1", 1), pool, None)
    now = time.monotonic()

    def idle(seconds: float, *, trusted: bool = False) -> Peer:
        with socket.socket() as sock:
            peer = Peer(PeerConnection(Config(), sock, ("127.0.0.1", 2), entrance))
        peer.conn.trusted = trusted
        peer.idle_since = now - seconds
        pool.mark_idle(peer)
        return peer

    assert pool.idlest(now) is None
    long_kept, kept = idle(70, trusted=True), idle(0.1, trusted=True)
    stranger, newcomer = idle(3), idle(0)
    order: list[Any] = []
    while (peer := pool.idlest(now)) is not None:
        order.append(peer)
        pool.mark_active(peer)
    assert order == [stranger, long_kept, newcomer, kept]
