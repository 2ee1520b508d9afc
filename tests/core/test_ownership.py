"""A data directory, or a file in it, that is somebody else's is said in one line; root leaves nothing in one."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from receiver.config import load_settings
from receiver.core import SettingsError, ownership
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

_NOBODY = pwd.getpwnam("nobody")
# Another user than root, who can still read this project and its Python wherever they are; writing is what is tried.
_AS_ANOTHER = (
    "setpriv", f"--reuid={_NOBODY.pw_uid}", f"--regid={_NOBODY.pw_gid}", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip
_IS_ROOT = os.geteuid() == 0
_OWNER = pwd.getpwuid(os.geteuid()).pw_name
_USER = "nobody" if _IS_ROOT else _OWNER


def run_unprivileged(process: ServeProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user without root's powers."""
    prefix = _AS_ANOTHER if _IS_ROOT else ()
    return subprocess.run(
        [*prefix, sys.executable, "-m", "receiver", *arguments],
        env={**process.env, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=60, cwd="/",
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that anybody may enter."""
    if _IS_ROOT:
        for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("command", [("serve",), ("status",), ("backup", "/nonexistent"), ("verify",)])
def test_data_directory_that_may_not_be_written_is_one_line(command: tuple[str, ...], place: Path) -> None:
    directory = place / "data"
    directory.mkdir(mode=0o555)
    done = run_unprivileged(ServeProcess(directory), *command)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"{directory} belongs to {_OWNER} (mode 0555)" in done.stderr
    assert f"runs as {_USER}" in done.stderr
    directory.chmod(0o755)
    assert list(directory.iterdir()) == []


def test_data_directory_that_cannot_be_made_is_one_line(place: Path) -> None:
    (place / "above").mkdir(mode=0o555)
    done = run_unprivileged(ServeProcess(place / "above" / "data"), "status")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"{place / 'above'} belongs to {_OWNER} (mode 0555)" in done.stderr
    (place / "above").chmod(0o755)


@pytest.fixture
def foreign(place: Path) -> ServeProcess:
    """A data directory of this user, with a database that was made by another."""
    directory = place / "data"
    directory.mkdir(mode=0o700)
    process = ServeProcess(directory)
    assert process.run("db", "upgrade").returncode == 0
    for path in directory.iterdir():
        if path.name.startswith("receiver.db"):
            path.chmod(0o444)
        elif _IS_ROOT:
            shutil.chown(path, _NOBODY.pw_uid, _NOBODY.pw_gid)
    if _IS_ROOT:
        shutil.chown(directory, _NOBODY.pw_uid, _NOBODY.pw_gid)
    return process


def test_database_of_another_user_is_named_with_its_owner(foreign: ServeProcess) -> None:
    says = f"{foreign.data_dir / 'receiver.db'} belongs to {_OWNER} (mode 0444)"
    listed = run_unprivileged(foreign, "keys", "list")
    assert (listed.returncode, len(listed.stderr.splitlines())) == (1, 1)
    assert says in listed.stderr
    status = run_unprivileged(foreign, "status", "--json")
    assert status.returncode == 1
    assert says in json.loads(status.stdout)["database"]
    checked = run_unprivileged(foreign, "doctor", "--json")
    (finding,) = (row for row in json.loads(checked.stdout) if row["check"] == "data directory")
    assert (checked.returncode, finding["ok"]) == (1, False)
    assert says in finding["text"]


def test_server_on_a_database_of_another_user_says_so_and_spools(foreign: ServeProcess) -> None:
    says = f"{foreign.data_dir / 'receiver.db'} belongs to {_OWNER} (mode 0444)"
    prefix = _AS_ANOTHER if _IS_ROOT else ()
    environment = {**foreign.env, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*prefix, sys.executable, "-m", "receiver", "serve"],
        env=environment, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", foreign.port), timeout=5):
                        break
                except OSError:
                    assert serving.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            answer = foreign.push(b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00")
            assert (answer.status, answer.headers["X-Push-Outcome"]) == (200, "spooled")
            assert says in foreign.request("GET", "/readyz").json["reason"]
        finally:
            serving.terminate()
            _, told = serving.communicate(timeout=60)
    assert any(says in line and "starting without the database" in line for line in told.splitlines())


def test_root_leaves_nothing_in_a_data_directory_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    if _IS_ROOT:
        shutil.chown(directory, _NOBODY.pw_uid, _NOBODY.pw_gid)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(directory))
    with pytest.raises(SettingsError) as refused:
        load_settings(tmp_path / "no.env")
    assert f"runuser -u {owner} -- receiver" in str(refused.value)
    assert list(directory.iterdir()) == []


def test_owner_without_a_name_is_told_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user_id: int) -> pwd.struct_passwd:
        raise KeyError(user_id)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert f"belongs to {os.geteuid()} (mode " in ownership.describe(tmp_path)
