"""What is acknowledged is kept, whatever dies: processes, the database, its connection, the disk's room."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Self

import psycopg
import pytest

from receiver.db.engine import Database
from receiver.db.sqlite import sqlite3
from receiver.messages.projector import catch_up
from tests.bench.usage import list_tree
from tests.harness.postgres import PostgresServer
from tests.harness.programs import require_program
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = int(os.environ.get("RECEIVER_TEST_KILLS", "3"))  # rounds of each kind; 200 were run by hand
ACK_SECONDS = 0.7
DOORS = pytest.mark.parametrize("door", ["on", "off"])


def stored(process: ServeProcess) -> dict[str, str]:
    """Every push in the journal, by id: the task id of what it brought. Fails where anything is there twice."""
    project(process)
    if process.database_url:
        with psycopg.connect(process.database_url.replace("+psycopg", "")) as connection:
            rows = connection.execute(_STORED).fetchall()
            ids = [str(row[0]) for row in connection.execute("SELECT id FROM pushes")]
    else:
        with closing(sqlite3.connect(process.data_dir / "receiver.db")) as connection_:
            rows = connection_.execute(_STORED).fetchall()
            ids = [row[0] for row in connection_.execute("SELECT id FROM pushes")]
    assert all(copies == 1 for _, _, copies in rows)
    assert len(ids) == len(set(ids)) == len(rows)
    return {_dashed(str(push_id)): task_id for push_id, task_id, _ in rows}


def project(process: ServeProcess) -> None:
    """Project what the journal has, as the next start or any reader would."""
    if not process.database_url:  # as the user to whom the files belong
        assert "projection: up to date" in process.run("status").stdout
        return
    database = Database(process.database_url)
    catch_up(database)
    database.close()


def assert_follows_from_the_journal(process: ServeProcess) -> None:
    """Assert that recomputing messages, receipts, replies and report from the journal finds nothing to change."""
    assert process.run("db", "rebuild").stdout == "every row follows from the journal\n"


_STORED = "SELECT r.push_id, m.task_id, r.copies FROM receipts r JOIN messages m ON m.id = r.message_id"


def _dashed(push_id: str) -> str:
    bare = push_id.replace("-", "")
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def await_empty_spool(process: ServeProcess, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while any((process.data_dir / "spool").glob("*.spool")):
        assert time.monotonic() < deadline, list((process.data_dir / "spool").iterdir())
        time.sleep(0.1)


def assert_kept(process: ServeProcess, pushers: Pushers) -> None:
    kept = stored(process)
    lost = {push_id: task_id for push_id, task_id in pushers.acks.items() if kept.get(push_id) != task_id}
    assert not lost, f"{len(lost)} of {len(pushers.acks)} acknowledged pushes are not stored"


def assert_acknowledged_are_stored(process: ServeProcess, pushers: Pushers) -> None:
    """As `assert_kept`, where a proxy may have pushed one of them twice: it is not told what became of the first."""
    with psycopg.connect(process.database_url.replace("+psycopg", "")) as connection:
        kept = {str(row[0]) for row in connection.execute("SELECT id FROM pushes")}
        tasks = [row[0] for row in connection.execute("SELECT task_id FROM messages")]
    assert set(pushers.acks) <= kept
    assert len(tasks) == len(set(tasks))


def migrated(tmp_path: Path, url: str, door: str = "on", *, patient: bool = False) -> ServeProcess:
    lane = {"RECEIVER_PUSH_LANE": door}
    process = ServeProcess(tmp_path, url if "postgresql" in url else "", environment=lane, patient=patient)
    process.upgrade()
    return process


# --- Processes ----------------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize("away", [False, True], ids=["database up", "database away"])
@pytest.mark.timeout(90 + 10 * KILLS)
def test_kill_9_at_any_moment_loses_no_acknowledged_push(
    tmp_path: Path, database_url: str, door: str, away: bool
) -> None:
    process = migrated(tmp_path, database_url, door)
    right_url = process.database_url
    holder = None
    if away and right_url:
        process.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    elif away:
        holder = sqlite3.connect(tmp_path / "receiver.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
    process.start()
    with Pushers(process, 8) as pushers:
        for number in range(KILLS):
            pushers.await_acks(20)
            time.sleep(random.uniform(0, 0.3))
            master, worker = process.await_worker()
            process.kill(master if number % 2 else worker)
            if number % 2:
                process.await_gone([worker])
                process.start()
        _, worker = process.await_worker()
    process.stop(signal.SIGKILL)
    process.await_gone([worker])
    if holder is not None:
        holder.close()
    process.database_url = right_url
    with process:
        await_empty_spool(process)
    assert set(pushers.outcomes) <= ({"spooled", "503"} if away else {"accepted", "503", "spooled"})
    assert_kept(process, pushers)
    assert_follows_from_the_journal(process)


def test_sigterm_leaves_nothing_unkept_while_the_database_is_away(tmp_path: Path, postgres_database_url: str) -> None:
    process = migrated(tmp_path, postgres_database_url)
    process.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    process.start()
    with Pushers(process, 8) as pushers:
        pushers.await_acks(100)
        assert process.stop() == 0
    process.database_url = postgres_database_url
    with process:
        await_empty_spool(process)
    assert_kept(process, pushers)


@DOORS
def test_rolling_restart_under_load_fails_no_push(tmp_path: Path, postgres_database_url: str, door: str) -> None:
    process = migrated(tmp_path, postgres_database_url, door, patient=True)
    with process:
        master, worker = process.await_worker()
        with Pushers(process, 8) as pushers:
            for _ in range(2):
                pushers.await_acks(50)
                os.kill(master, signal.SIGHUP)
                process.await_gone([worker])
                _, worker = process.await_worker()
            pushers.await_acks(50)
        assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
    assert_kept(process, pushers)


def test_restart_behind_a_handed_over_socket_refuses_no_connection(tmp_path: Path) -> None:
    """As systemd does it: the socket is its, and outlives the server."""
    process = migrated(tmp_path, "", patient=True)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", process.port))
        listener.listen(128)
        process.listener = listener
        process.start()
        with Pushers(process, 4) as pushers:
            for _ in range(2):
                pushers.await_acks(20)
                process.stop()
                process.start()
            pushers.await_acks(20)
        assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
        process.stop()
    assert_kept(process, pushers)


NGINX = """
daemon off; pid {place}/nginx.pid; error_log {place}/error.log; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
    uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    upstream receivers {{ server 127.0.0.1:{one} max_fails=0; server 127.0.0.1:{other} max_fails=0; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://receivers; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""


def test_two_servers_behind_nginx_restart_in_turn_without_a_failed_push(
    tmp_path: Path, postgres_database_url: str
) -> None:
    program = require_program("nginx")
    for name in ("one", "other", "front"):
        (tmp_path / name).mkdir()
    one, other = (migrated(tmp_path / name, postgres_database_url, patient=True) for name in ("one", "other"))
    front = ServeProcess(tmp_path / "front")
    place = front.data_dir
    (place / "nginx.conf").write_text(NGINX.format(place=place, one=one.port, other=other.port, port=front.port))
    with one, other, subprocess.Popen([program, "-p", place, "-c", place / "nginx.conf"]) as nginx:
        try:
            while not (place / "nginx.pid").exists():
                assert nginx.poll() is None, (place / "error.log").read_text()
                time.sleep(0.05)
            with Pushers(front, 8) as pushers:
                for server in (one, other, one):
                    pushers.await_acks(100)
                    server.stop()
                    pushers.await_acks(100)
                    server.start()
                pushers.await_acks(100)
            assert (pushers.failures, set(pushers.outcomes)) == (0, {"accepted"})
        finally:
            nginx.terminate()
    assert_acknowledged_are_stored(one, pushers)


# --- The database -------------------------------------------------------------------------------------


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A durable server that a test may stop."""
    with PostgresServer() as server:
        yield server


@DOORS
def test_hung_postgresql_delays_no_acknowledgement_and_loses_none(
    tmp_path: Path, own_postgres: PostgresServer, door: str
) -> None:
    process = migrated(tmp_path, own_postgres.create_database("hung"), door)
    assert own_postgres.pid is not None
    with process, Pushers(process, 8, pause_seconds=0.02) as pushers:
        pushers.await_acks(100)
        stopped = list_tree(own_postgres.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            begun = len(pushers.seconds)
            pushers.await_acks(500)
            assert process.request("GET", "/readyz").json["durable"] == "spool"
            during = pushers.seconds[begun:]
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert sorted(during)[int(len(during) * 0.99)] < ACK_SECONDS
        assert max(during) < 2 * ACK_SECONDS
        await_accepted(pushers)
        await_empty_spool(process)
    assert set(pushers.outcomes) == {"accepted", "spooled"}
    assert pushers.failures == 0
    assert_kept(process, pushers)


@DOORS
def test_stopped_postgresql_comes_back_and_everything_is_stored(
    tmp_path: Path, own_postgres: PostgresServer, door: str
) -> None:
    process = migrated(tmp_path, own_postgres.create_database("stopped"), door)
    with process, Pushers(process, 8, pause_seconds=0.02) as pushers:
        pushers.await_acks(100)
        own_postgres.shut_down()
        pushers.await_acks(500)
        own_postgres.start()
        await_accepted(pushers)
        await_empty_spool(process)
    assert set(pushers.outcomes) == {"accepted", "spooled"}
    assert (pushers.failures, pushers.p99_seconds() < ACK_SECONDS) == (0, True)
    assert_kept(process, pushers)


def test_connection_cut_after_commit_stores_each_push_once(tmp_path: Path, postgres_database_url: str) -> None:
    process = migrated(tmp_path, postgres_database_url)
    with Answerless(process) as proxy, process, Pushers(process, 4, pause_seconds=0.01) as pushers:
        for _ in range(5):
            await_accepted(pushers)
            proxy.swallow_next_answer()
            pushers.await_acks(30)
        await_accepted(pushers)
        await_empty_spool(process)
        assert proxy.swallowed >= 3
    assert pushers.outcomes["spooled"] > 0
    process.database_url = postgres_database_url
    assert_kept(process, pushers)


def await_accepted(pushers: Pushers, seconds: float = 60) -> None:
    before = pushers.outcomes["accepted"]
    deadline = time.monotonic() + seconds
    while pushers.outcomes["accepted"] < before + 10:
        assert time.monotonic() < deadline, pushers.outcomes
        time.sleep(0.05)


class Answerless:
    """A way to PostgreSQL that can swallow the server's answer to a query, and end the connection."""

    def __init__(self, process: ServeProcess) -> None:
        with psycopg.connect(process.database_url.replace("+psycopg", "")) as connection:
            self._address = (connection.info.host, connection.info.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        process.database_url = process.database_url.replace(f":{self._address[1]}/", f":{port}/")
        self.swallowed = 0
        self._armed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def swallow_next_answer(self) -> None:
        self._armed.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._address)
            threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while piece := source.recv(65536):
                if answers and self._armed.is_set():
                    self._armed.clear()
                    self.swallowed += 1
                    break
                target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            with closing(end):
                pass


def test_pushes_wait_for_a_database_that_is_away_at_the_start(tmp_path: Path, postgres_database_url: str) -> None:
    process = migrated(tmp_path, postgres_database_url)
    process.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    with process, Pushers(process, 2) as pushers:
        pushers.await_acks(10)
        ready = process.request("GET", "/readyz")
        assert (ready.status, ready.json["durable"]) == (200, "spool")
        assert ready.json["spool"]["records"] >= 10
    state = process.run("spool", "status", "--json")
    assert f'"records": {len(pushers.acks)}' in state.stdout
    process.database_url = postgres_database_url
    drained = process.run("spool", "drain")
    assert (drained.returncode, drained.stdout) == (0, f"{len(pushers.acks)} records saved\n")
    assert_kept(process, pushers)


def test_spool_of_a_dead_node_is_drained_on_another(tmp_path: Path, postgres_database_url: str) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "other").mkdir()
    dead = migrated(tmp_path / "dead", postgres_database_url)
    dead.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    dead.start()
    with Pushers(dead, 2) as pushers:
        pushers.await_acks(10)
    _, worker = dead.await_worker()
    dead.stop(signal.SIGKILL)
    dead.await_gone([worker])
    other = ServeProcess(tmp_path / "other", postgres_database_url)
    for expected in (f"{len(pushers.acks)} records saved\n", "0 records saved\n"):
        drained = other.run("spool", "drain", "--from", str(dead.data_dir))
        assert (drained.returncode, drained.stdout) == (0, expected), drained.stderr
    assert_kept(other, pushers)


# --- The disk -----------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
@DOORS
def test_full_disk_is_503_without_a_false_acknowledgement_and_ends_by_itself(
    tmp_path: Path, postgres_database_url: str, door: str
) -> None:
    with small_disk(tmp_path / "data", "2m"):
        process = migrated(tmp_path / "data", postgres_database_url, door)
        process.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
        process.log = tmp_path / "serve.log"
        process.told = tmp_path / "serve.out"
        with process:
            ballast = tmp_path / "data" / "ballast"
            ballast.write_bytes(bytes(1_500_000))
            with Pushers(process, 8) as pushers:
                deadline = time.monotonic() + 60
                while pushers.outcomes["503"] < 50:
                    assert time.monotonic() < deadline, pushers.outcomes
                    time.sleep(0.02)
                assert process.request("GET", "/readyz").status == 503
                ballast.unlink()
                pushers.await_acks(50)
            assert pushers.failures == 0
        process.database_url = postgres_database_url
        with process:
            await_empty_spool(process)
        assert_kept(process, pushers)
