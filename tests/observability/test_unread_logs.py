"""Whoever reads the log, or stops to, costs no push, and no stop."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from receiver.observability import LineWriter
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RECEIPT = b"mobile=15080921090&taskid=%d&status=1&receivetime=2019-07-23+17%%3A00%%3A00"
_STOP_SECONDS = 25  # less than gunicorn's patience with a worker
_PATIENCE_SECONDS = 60
_LOGS_MANY = """
import logging, sys, time
from receiver.observability import logging as logs, metrics
logs.configure_logging()
for number in range(15_000):
    logs.get_logger("receiver.test").info("one of many", number=number, more="x" * 400)
metrics.count_dropped_lines()
print(int(metrics.LOG_LINES_DROPPED._value.get()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe into which nothing more goes."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    fill(write)
    yield read, write
    for end in (read, write):
        os.close(end)


def fill(write: int) -> None:
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"\n")
    except BlockingIOError:
        os.set_blocking(write, True)


def read_until(pipe: BinaryIO, wanted: str) -> list[dict[str, Any]]:
    """The lines that come, up to one with such an event."""
    lines: list[dict[str, Any]] = []
    for line in pipe:
        if line.strip():
            lines.append(json.loads(line))
            if lines[-1]["event"] == wanted:
                return lines
    raise AssertionError(lines)


def outcome(process: ServeProcess, number: int) -> tuple[int, str | None]:
    answer = process.push(_RECEIPT % number)
    return answer.status, answer.headers.get("X-Push-Outcome")


def test_log_that_nobody_reads_stops_neither_pushes_nor_the_stop(tmp_path: Path, full_pipe: tuple[int, int]) -> None:
    read, write = full_pipe
    process = ServeProcess(tmp_path, redirections=f"2>&{write}", pass_fds=(write,), patient=False)
    with process:
        assert process.request("POST", "/push/not-the-secret", _RECEIPT % 1).status == 404
        assert outcome(process, 1)[0] == 200
        with closing(sqlite3.connect(tmp_path / "receiver.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert outcome(process, 2) == (200, "spooled")
        master, worker = process.await_worker()
        process.kill(worker)  # the master has a line for that, and another worker
        process.await_gone([worker])
        assert process.await_worker()[0] == master
        assert outcome(process, 3)[0] == 200
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < _STOP_SECONDS
    assert set(os.read(read, 65536)) == set(b"\n")  # what was in the pipe before
    assert process.run("spool", "drain").returncode == 0
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as database:
        assert database.execute("SELECT count(*) FROM pushes").fetchone() == (3,)


def test_reader_that_comes_back_reads_on(tmp_path: Path, full_pipe: tuple[int, int]) -> None:
    read, write = full_pipe
    with ServeProcess(tmp_path, redirections=f"2>&{write}", pass_fds=(write,)) as process:
        process.request("GET", "/nowhere")
        assert outcome(process, 1) == (200, "accepted")
        with open(read, "rb", closefd=False) as pipe:
            assert len(read_until(pipe, "request")) > 1  # those of the start before
            (line,) = read_until(pipe, "request")
        assert (line["http_status"], line["outcome"]) == (200, "accepted")


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_serves_without_a_place_for_its_output(redirections: str, tmp_path: Path) -> None:
    with ServeProcess(tmp_path, redirections=redirections) as process:
        assert process.request("POST", "/push/not-the-secret", _RECEIPT % 1).status == 404
        assert outcome(process, 1) == (200, "accepted")
        assert process.stop() == 0
    assert process.run("verify").returncode == 0


def test_lines_that_are_dropped_are_counted(full_pipe: tuple[int, int]) -> None:
    read, write = full_pipe
    with subprocess.Popen(
        [sys.executable, "-c", _LOGS_MANY], stderr=write, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as logging_process:
        try:
            assert logging_process.stdout is not None
            dropped = int(logging_process.stdout.readline())
            assert dropped > 0
            with open(read, "rb", closefd=False) as pipe:
                lines = (json.loads(line) for line in pipe if line.strip())
                come = list(islice(lines, 15_000 - dropped + 1))
            logging_process.communicate(b"\n", timeout=_PATIENCE_SECONDS)
        finally:
            logging_process.kill()  # one that fails cannot even say so: its pipe is full
    (counted,) = (line for line in come if "number" not in line)
    assert (counted["lines"], counted["level"]) == (dropped, "warning")
    assert [line["number"] for line in come if line != counted] == list(range(15_000 - dropped))


def test_command_that_ends_at_once_still_writes_its_lines(tmp_path: Path) -> None:
    script = (
        "from receiver.observability import logging as logs; logs.configure_logging();"
        " logs.get_logger('receiver.x').error('the last word')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=tmp_path, env=env())
    assert json.loads(done.stderr)["event"] == "the last word"


def env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_child_of_a_fork_writes_its_own_lines_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        writer = LineWriter(file.fileno(), str)
        writer.write("of the parent\n")
        child = os.fork()
        if not child:
            writer.write("of the child\n")
            writer.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        writer.flush()
    assert sorted(path.read_text().splitlines()) == ["of the child", "of the parent"]


def test_short_writes_and_full_disks_leave_whole_lines() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    writer = LineWriter(write, "{} dropped\n".format)
    sent = [f"{number} {'x' * (number % 700)}" for number in range(300)]
    writer.write("".join(f"{line}\n" for line in sent))
    with os.fdopen(read, "rb") as pipe:
        assert [pipe.readline().decode().rstrip("\n") for _ in sent] == sent
        os.close(write)
    full = LineWriter(os.open("/dev/full", os.O_WRONLY), "{} dropped\n".format)
    full.write("a\nb\n")
    full.flush()
    assert (full.take_dropped(), full.take_dropped()) == (2, 0)


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-m", "receiver", "push-url"],
        env=process.env, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
