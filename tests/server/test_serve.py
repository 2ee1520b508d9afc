"""The real server: gunicorn, its own worker, signals, raw bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SECRET
from tests.harness.server import ServeProcess, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIPT = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with ServeProcess(tmp_path_factory.mktemp("served")) as process:
        yield process


def post(target: str, body: bytes, *extra: str, version: str = "1.1") -> bytes:
    lines = [f"POST {target} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *extra, "", ""]
    return "\r\n".join(lines).encode() + body


def test_newcomer_sees_urls_and_next_steps_and_the_secret_once(tmp_path: Path) -> None:
    unset = {"RECEIVER_PUSH_TOKENS": ""}
    first = ServeProcess(tmp_path, environment=unset)
    with first:
        pass
    told = first.told.read_text()
    secret = (tmp_path / "push-secret").read_text().strip().removeprefix("default:")
    assert f"/push/{secret}" in told
    assert "receiver keys create" in told
    assert "/api/v1/messages" in told
    first.told.write_text("")
    with first:
        pass
    assert secret not in first.told.read_text() + first.log.read_text()
    assert first.run("push-url").stdout == f"http://127.0.0.1:{first.port}/push/{secret}\n"
    assert (tmp_path / "push-secret").stat().st_mode & 0o777 == 0o600


def test_second_serve_on_the_embedded_database_is_refused(served: ServeProcess) -> None:
    second = served.run("serve", "--bind", "127.0.0.1:0")
    assert second.returncode == 1
    assert "another `receiver serve` runs" in second.stderr


def test_wrong_settings_stop_the_start_and_are_all_named(tmp_path: Path) -> None:
    environment = {"RECEIVER_BIND": "nowhere", "RECEIVER_TIMEZONE": "Mars", "RECEIVER_PUSH_TOKENS": "a:short"}
    process = ServeProcess(tmp_path, environment=environment)
    failed = process.run("serve")
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    for name in environment:
        assert name in failed.stderr


def test_postgresql_without_a_schema_names_the_fix(tmp_path: Path, postgres_database_url: str) -> None:
    process = ServeProcess(tmp_path, postgres_database_url)
    failed = process.run("serve")
    assert (failed.returncode, failed.stderr) == (1, "receiver: the database is empty; run `receiver db upgrade`\n")
    process.upgrade()
    with process:
        assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"


def test_answer_has_no_surprises(served: ServeProcess) -> None:
    answer = served.push(RECEIPT)
    assert (answer.status, answer.body) == (200, b"ok")
    assert uuid.UUID(answer.headers["X-Push-Id"]).version == 7


def test_trailing_slash_changes_nothing_and_nothing_redirects(served: ServeProcess) -> None:
    for path in ("", "/", "/receipt", "/receipt/", "//", "/receipts", "/reply/x"):
        assert served.push(RECEIPT, path).headers["X-Push-Outcome"] == "accepted"


def test_pipelined_pushes_are_each_answered(served: ServeProcess) -> None:
    with served.connect() as connection:
        connection.sendall(post(served.target, RECEIPT) * 3)
        ids = {read_answer(connection).headers["X-Push-Id"] for _ in range(3)}
    assert len(ids) == 3


def test_long_query_is_a_push_and_a_longer_one_too_large(served: ServeProcess) -> None:
    query = RECEIPT.decode() + "&note=" + "x" * 60_000
    assert served.request("GET", f"{served.target}?{query}").headers["X-Push-Outcome"] == "accepted"
    assert served.request("GET", f"{served.target}?{query}{'x' * 6000}").status == 413
    assert served.request("GET", f"{served.target}?{query}{'x' * 40_000}").status == 414


def test_refused_bodies_are_read_off_so_that_the_answer_arrives(served: ServeProcess) -> None:
    large = b"x" * 900_000
    assert served.push(large).status == 413
    assert served.request("POST", "/push/wrong-secret-of-some-length-0000", large).status == 404


def test_malformed_requests_are_answered_without_being_quoted(served: ServeProcess) -> None:
    for raw in (
        f"POST {served.target} HTTP/9.9\r\n\r\n".encode(),
        f"POST {served.target} with spaces HTTP/1.1\r\n\r\n".encode(),
        f"POST {served.target} HTTP/1.1\r\nContent-Length: -5\r\n\r\n".encode(),
        f"POST {served.target} HTTP/1.1\r\nbad header {SECRET}\r\n\r\n".encode(),
        f"POST {served.target} HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
    ):
        answer = served.exchange(raw, end_sending=True)
        assert 400 <= answer.status < 506
        assert SECRET.encode() not in answer.body
    assert SECRET not in served.log.read_text()


def test_peers_that_never_close_do_not_hold_up_others(served: ServeProcess) -> None:
    """gunicorn's own worker waits two seconds for each of these, on the thread that accepts."""
    stuck = []
    for path in ("/healthz", served.target) * 10:
        connection = served.connect()
        connection.sendall(post(path, RECEIPT, "Connection: close"))
        stuck.append(connection)
    started = time.monotonic()
    for _ in range(20):
        assert served.push(RECEIPT).status == 200
    assert time.monotonic() - started < 30
    for connection in stuck:
        assert read_answer(connection).status in (200, 405)
        connection.close()


def test_connection_closed_by_us_ends_after_a_moment(served: ServeProcess) -> None:
    with served.connect() as connection:
        connection.sendall(post(served.target, RECEIPT, "Connection: close"))
        read_answer(connection)
        connection.settimeout(20)
        assert connection.recv(1) == b""


def test_sigterm_finishes_what_was_taken(tmp_path: Path, database_url: str) -> None:
    process = ServeProcess(tmp_path, database_url if "postgresql" in database_url else "")
    if process.database_url:
        process.upgrade()
    acknowledged: set[str] = set()
    many = threading.Event()

    def pusher(number: int) -> None:
        with process.connect() as connection, suppress(OSError):
            for count in range(10_000):
                body = RECEIPT.replace(b"3313746", f"{number}-{count}".encode())
                connection.sendall(post(process.target, body))
                acknowledged.add(read_answer(connection).headers["X-Push-Id"])
                if len(acknowledged) > 50:
                    many.set()

    with process:
        headers = process.make_key("pushes")
        threads = [threading.Thread(target=pusher, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert many.wait(60)
        assert process.stop() == 0
        for thread in threads:
            thread.join()
    with process:
        kept: set[str] = set()
        cursor = ""
        while True:
            page = process.request("GET", f"/api/v1/pushes?limit=1000{cursor}", headers=headers).json
            kept |= {row["id"] for row in page["items"]}
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
    assert acknowledged <= kept


def test_wsgi_app_serves_under_plain_gunicorn(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    process.upgrade()
    command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--bind", f"127.0.0.1:{process.port}", "--threads", "4"]
    with process.log.open("ab") as log:
        root = Path(__file__).parents[2]
        plain = subprocess.Popen([*command, "--no-control-socket"], env=process.env, cwd=root, stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                answer = process.push(RECEIPT)
                break
            except OSError:
                time.sleep(0.1)
        assert answer.headers["X-Push-Outcome"] == "accepted"
    finally:
        plain.send_signal(signal.SIGTERM)
        plain.wait(timeout=40)
