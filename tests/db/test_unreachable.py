"""What cannot be reached or listened on is named, with what to do, by all who tell of it alike."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.cli.listeners import find_listener
from receiver.db.engine import Database
from receiver.db.unreachable import explain
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on, and answers nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_that_is_taken_is_one_line_before_anything_else_is_told(tmp_path: Path, taken: int) -> None:
    failed = ServeProcess(tmp_path).run("serve", "--bind", f"127.0.0.1:{taken}")
    assert (failed.returncode, failed.stdout) == (1, "")
    (line,) = failed.stderr.splitlines()
    by = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    says = f"127.0.0.1:{taken} is in use by {by}; choose another port: RECEIVER_BIND=127.0.0.1:PORT"
    assert line == f"receiver: RECEIVER_BIND: {says}"


def test_receiver_that_has_the_port_is_named_with_its_master(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir(mode=0o700)
    with ServeProcess(tmp_path / "first", patient=False, forked=False) as first:
        failed = ServeProcess(tmp_path / "second").run("serve", "--bind", f"127.0.0.1:{first.port}")
        assert f"is in use by receiver (pid {first.await_worker()[0]}); choose another port" in failed.stderr


@pytest.mark.parametrize(
    ("listens", "asked", "is_it"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_listener_is_found_by_address_and_port(listens: str, asked: str, is_it: bool) -> None:
    with socket.socket(socket.AF_INET6 if ":" in listens else socket.AF_INET) as listener:
        listener.bind((listens, 0))
        port = listener.getsockname()[1]
        assert find_listener(asked, port) is None  # nobody listens yet
        listener.listen()
        found = find_listener(asked, port)
    assert (found and found[0]) == (os.getpid() if is_it else None)


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        ("no-such-host.invalid:8000", "the host no-such-host.invalid does not resolve"),
        ("192.0.2.1:8000", "192.0.2.1:8000 is not on this machine"),
    ],
)
def test_address_that_is_not_ours_is_one_line(tmp_path: Path, bind: str, says: str) -> None:
    failed = ServeProcess(tmp_path).run("serve", "--bind", bind)
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"receiver: RECEIVER_BIND: {says}")


@pytest.fixture
def closed() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_database_that_refuses_connections_is_named_by_all_who_tell_of_it(tmp_path: Path, closed: int) -> None:
    reason = f"127.0.0.1:{closed} refuses connections"
    url = f"postgresql://u:hunter2@127.0.0.1:{closed}/x"
    with ServeProcess(tmp_path, database_url=url) as process:
        ready = process.request("GET", "/readyz")
        checked, said = process.run("doctor"), process.run("status")
    assert reason in json.loads(ready.body)["reason"]
    assert checked.stdout.count(reason) == 1
    assert reason in said.stdout
    assert reason in process.log.read_text()
    for text in (ready.body.decode(), checked.stdout, said.stdout, process.log.read_text()):
        assert "hunter2" not in text


def test_each_server_of_several_says_why(closed: int, taken: int) -> None:
    hosts = f"127.0.0.1:{closed},no-such-host.invalid:5432,127.0.0.1:{taken}"
    database = Database(f"postgresql+psycopg://u:hunter2@{hosts}/x", patience_seconds=0.8)
    with pytest.raises(Exception, match="refuses") as caught, database.reading():
        pass
    text = str(caught.value)
    assert f"127.0.0.1:{closed} refuses connections" in text
    assert "the name no-such-host.invalid is not known" in text
    assert f"127.0.0.1:{taken} does not answer in time" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("database or disk is full", "the disk is full"),
        ("attempt to write a readonly database", "may not be written by this user"),
        ("unable to open database file", "may not be opened by this user"),
        (
            'connection to server at "db1" (10.0.0.5), port 5432 failed: FATAL:  sorry, too many clients already',
            "db1:5432 accepts no more connections",
        ),
        ('connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory\n\tIs', "is not there"),
        ('connection to server at "db1", port 5432 failed: FATAL:  password of bob is hunter2', "db1:5432 fails"),
    ],
)
def test_words_of_the_driver_become_what_to_mend(text: str, says: str) -> None:
    said = explain(text)
    assert said is not None
    assert says in said
    assert "hunter2" not in said


def test_what_says_no_reason_is_left_to_its_name() -> None:
    assert explain("server closed the connection unexpectedly") is None
