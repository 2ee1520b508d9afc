"""What a command prints where standard output is not UTF-8, or goes away: nothing ends it, nothing is told twice."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from receiver.cli.common import print_table
from tests.harness.factories import make_push
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime

CONTENTS = ("收到👍", "T", "привет ✓", "退订")


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """An embedded database."""
    return sqlite_database_url


@pytest.fixture
def process(tmp_path: Path, database_url: str, runtime: Runtime) -> ServeProcess:
    """The commands on a database with replies of every kind of letter."""
    for number, content in enumerate(CONTENTS):
        runtime.batch_writer.enqueue(make_push(task_id=f"{number}", content=content)).result(60)
    return ServeProcess(tmp_path, database_url=database_url)


def run(process: ServeProcess, encoding: str, *arguments: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "receiver", *arguments],
        env={**process.env, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=120,
        cwd=process.data_dir,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "utf-8"])
def test_events_are_whole_json_in_any_encoding_and_each_is_told_once(process: ServeProcess, encoding: str) -> None:
    arguments = ("events", "--kind", "reply", "--cursor-file", str(process.data_dir / "cursor"))
    lines = [json.loads(line) for line in run(process, encoding, *arguments).decode(encoding).splitlines()]
    assert [line["content"] for line in lines] == list(CONTENTS)
    assert run(process, encoding, *arguments) == b""


def test_table_with_a_letter_that_the_output_has_not_is_printed_with_its_number(process: ServeProcess) -> None:
    made = run(process, "gbk", "keys", "create", "钥匙👍", "--scope", "read")
    listed = run(process, "gbk", "keys", "list").decode("gbk")
    assert made
    assert "钥匙\\U0001f44d" in listed


def test_table_shows_names_as_they_are(process: ServeProcess) -> None:
    assert run(process, "utf-8", "keys", "create", "[/b] :smile: [red]x", "--scope", "read")
    assert "[/b] :smile: [red]x" in run(process, "utf-8", "keys", "list").decode()


def test_table_does_not_let_a_text_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["said"], [["余额\x1b[2J不足\r\nx\u202e"]])
    assert capsys.readouterr().out.split("\n")[1].rstrip() == "余额�[2J不足 x�"


@pytest.mark.parametrize("command", ["events", "keys list", "doctor"])
def test_output_that_takes_nothing_more_is_one_line(process: ServeProcess, command: str) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123  (as a disk that is full)
        done = subprocess.run(
            [sys.executable, "-m", "receiver", *command.split()],
            env=process.env,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
            cwd=process.data_dir,
        )
    said = b"receiver: No space left on device: for the output, or in the data directory\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_reader_that_goes_away_is_told_the_rest_the_next_time(process: ServeProcess, runtime: Runtime) -> None:
    futures = [
        runtime.batch_writer.enqueue(make_push(task_id=f"9{number}", content="T" * 300)) for number in range(400)
    ]
    for future in futures:
        future.result(60)
    arguments = ("events", "--kind", "reply", "--cursor-file", str(process.data_dir / "cursor"))
    with subprocess.Popen(
        [sys.executable, "-m", "receiver", *arguments],
        env=process.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=process.data_dir,
    ) as reading:
        assert reading.stdout is not None
        first = json.loads(reading.stdout.readline())
        reading.stdout.close()
    assert first["content"] == CONTENTS[0]
    rest = [json.loads(line) for line in run(process, "utf-8", *arguments).splitlines()]
    assert 0 < len(rest) < 404
    assert first not in rest
