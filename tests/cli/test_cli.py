"""The commands, as a person or a script runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from receiver.cli.doctor import file_system_type
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    ("serve",), ("push-url",), ("db", "upgrade"), ("db", "current"), ("keys", "create"), ("keys", "list"),
    ("keys", "revoke"), ("messages", "import"), ("pushes", "list"), ("pushes", "replay"), ("watch",), ("doctor",),
    ("status",), ("prune",), ("erase",), ("lookup",),
)  # fmt: skip
GOOD = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"
ODD = b"mobile=15080921090&taskid=2&status=1&receivetime=2019%2F07%2F23+17%3A00%3A00"


@pytest.fixture
def installed(tmp_path: Path) -> ServeProcess:
    process = ServeProcess(tmp_path)
    assert process.run("db", "upgrade").returncode == 0
    return process


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(command: tuple[str, ...], tmp_path: Path) -> None:
    shown = ServeProcess(tmp_path).run(*command, "--help")
    assert shown.returncode == 0
    assert f"  receiver {' '.join(command)}" in shown.stdout
    assert "Example" in shown.stdout


def test_unknown_command_and_option_are_usage_errors(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    assert process.run("nonsense").returncode == 2
    assert process.run("keys", "create", "x", "--scope", "everything").returncode == 2


def test_schema_version_is_told_before_and_after_the_upgrade(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    before = json.loads(process.run("db", "current", "--json").stdout)
    assert process.run("db", "upgrade").returncode == 0
    after = json.loads(process.run("db", "current", "--json").stdout)
    assert (before["database"], after["database"]) == (None, after["program"])
    assert process.run("db", "upgrade").returncode == 0


def test_key_is_printed_once_alone_on_the_last_line(installed: ServeProcess) -> None:
    made = installed.run("keys", "create", "me", "--scope", "read", "--expires-days", "7")
    key = made.stdout.splitlines()[-1]
    assert key.startswith("rcv_")
    assert made.stdout == key + "\n"
    listed = installed.run("keys", "list", "--json")
    assert key not in listed.stdout
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["scopes"], row["revoked_at"]) == ("me", ["read"], None)
    again = installed.run("keys", "create", "me", "--scope", "read")
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert installed.run("keys", "revoke", "me").returncode == 0
    assert json.loads(installed.run("keys", "list", "--json").stdout)[0]["revoked_at"] is not None
    assert installed.run("keys", "revoke", "nobody").returncode == 1
    assert installed.run("keys", "create", "b", "--scope", "read", "--account", "none").returncode == 1


def test_status_and_doctor_work_with_and_without_server_and_database(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    down = process.run("status", "--json")
    assert down.returncode == 1
    assert "receiver serve" in json.loads(down.stdout)["server"]
    assert "db upgrade" in json.loads(down.stdout)["database"]
    assert "FAIL  database" in process.run("doctor").stdout
    with process:
        process.push(GOOD)
        process.push(b"nonsense")
        up = process.run("status", "--json")
        assert (up.returncode, json.loads(up.stdout)["database"]) == (0, "ok")
        assert json.loads(up.stdout)["quarantined_last_day"] == "1"
        assert "FAIL  API keys" in process.run("doctor").stdout
        process.make_key("read")
        healthy = process.run("doctor")
        assert (healthy.returncode, "FAIL" in healthy.stdout) == (0, False)
        tmp_path.chmod(0o755)
        assert "chmod 700" in process.run("doctor").stdout


def test_database_away_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    for command in (("keys", "list"), ("pushes", "list"), ("spool", "drain")):
        failed = process.run(*command)
        assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
        assert "unavailable" in failed.stderr


def test_corrupt_embedded_database_is_said_and_left_alone(tmp_path: Path) -> None:
    damaged = b"this is no database" * 100
    (tmp_path / "receiver.db").write_bytes(damaged)
    failed = ServeProcess(tmp_path).run("serve")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
    assert "corrupt" in failed.stderr
    assert (tmp_path / "receiver.db").read_bytes() == damaged


def test_pushes_are_listed_and_replayed_with_new_settings(installed: ServeProcess) -> None:
    with installed:
        installed.push(GOOD)
        installed.push(ODD)
    rows = [json.loads(line) for line in installed.run("pushes", "list", "--json").stdout.splitlines()]
    assert [row["outcome"] for row in rows] == ["quarantined", "accepted"]
    assert "150****1090" in rows[1]["what"]
    assert "15080921090" not in installed.run("pushes", "list").stdout
    assert installed.run("pushes", "replay").returncode == 2
    still = installed.run("pushes", "replay", "--quarantined")
    assert still.stdout == "0 accepted, 1 still quarantined\n"
    installed.environment = {"RECEIVER_TIME_FORMATS": "%Y/%m/%d %H:%M:%S"}
    mended = installed.run("pushes", "replay", rows[0]["id"])
    assert mended.stdout == "1 accepted, 0 still quarantined\n"
    none = installed.run("pushes", "list", "--outcome", "quarantined", "--json")
    assert (none.returncode, none.stdout) == (0, ""), none.stderr
    assert installed.run("pushes", "replay", "00000000-0000-7000-8000-000000000000").returncode == 1


def test_watch_prints_pushes_as_they_come_masked(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        process.push(GOOD)
        command = [sys.executable, "-m", "receiver", "watch", "--count", "2"]
        watching = subprocess.Popen(command, env=process.env, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        for number in range(100):  # until it has begun to look
            process.push(GOOD.replace(b"taskid=1", b"taskid=77%d" % number))
            process.push(b"mobile=15080921090&taskid=78&content=hi%d&receivetime=2019-07-23+17%%3A00%%3A00" % number)
            with suppress(subprocess.TimeoutExpired):
                watching.wait(1)
                break
        printed, _ = watching.communicate(timeout=60)
    reply, receipt = sorted(printed.splitlines(), key=lambda line: "receipt" in line)
    assert re.search(r" receipt 150\*{4}1090 task 77\d+ delivered ", receipt)
    assert re.search(r" reply 150\*{4}1090 task 78 ", reply)


def test_secret_from_a_file(installed: ServeProcess, tmp_path: Path) -> None:
    secret = "a-secret-from-a-file-of-its-own-00"
    (tmp_path / "tokens").write_text(f"default:{secret}\n")
    installed.environment = {"RECEIVER_PUSH_TOKENS": "", "RECEIVER_PUSH_TOKENS_FILE": str(tmp_path / "tokens")}
    assert installed.run("push-url").stdout.endswith(f"/push/{secret}\n")


def test_doctor_tells_the_file_system_that_holds_a_directory(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    inner = tmp_path / "with space" / "var"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\n/dev/b {tmp_path}/with\\040space btrfs rw,x 0 0\n/dev/c {tmp_path}/with xfs rw 0 0\n"
    )
    assert file_system_type(inner, mounts) == "btrfs"
    assert file_system_type(tmp_path, mounts) == "ext4"
    assert file_system_type(tmp_path, tmp_path / "none") == ""
