"""`push-secret`: a new secret takes over without a lost push, and an old one goes only when nothing comes by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from receiver.cli import cli
from receiver.config import load_settings, tokens
from receiver.core import ReceiverError
from receiver.db.engine import Database
from receiver.intake.secret_usage import NewUses, save_uses
from tests.conftest import OTHER_SECRET, SECRET
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

WRAPPER = Path(__file__).parents[2] / "deploy/bin/receiver"
OLD = f"default:{SECRET}"
BEGINNING = "old-"
OLD_SECRET = "old-secret-that-retires-000000000000000000000"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on a data directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path / "data"))
    for name in ("RECEIVER_PUSH_TOKENS", "RECEIVER_PUSH_TOKENS_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, **environment: str) -> Result:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(cli, words)

    assert run("db", "upgrade").exit_code == 0
    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "PUSH_TOKENS"
    made.write_text(f"{OLD},other:{OTHER_SECRET}\n")
    return made


def use(secret: str, at: datetime | None, account: str = "default") -> None:
    """Count a push by a secret, as a server does."""
    with closing(Database(load_settings().database_url)) as database:
        uses = [NewUses(account=account, secret=secret, pushes=1 if at else 0, last_used_at=at)]
        database.write(lambda connection: save_uses(connection, uses, now=datetime.now(UTC)))


def audited(run: Callable[..., Result]) -> list[tuple[str, dict[str, str]]]:
    lines = run("audit", "list", "--json").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    entries = entries[0] if len(entries) == 1 and isinstance(entries[0], list) else entries
    return [(entry["action"], entry["detail"]) for entry in entries if entry["action"].startswith("push_secret.")]


# --- Rotate --------------------------------------------------------------------------------------------------


def test_new_secret_is_the_active_one_of_its_account_and_the_old_one_stays(
    run: Callable[..., Result], file: Path
) -> None:
    file.chmod(0o640)
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    done = run("push-secret", "rotate", "--account", "default", RECEIVER_PUSH_TOKENS_FILE=str(file))
    assert done.exit_code == 0, done.output
    state = file.stat()
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o640, *owner)
    (new, *rest) = tokens(file.read_text().strip())
    assert rest == [("default", SECRET), ("other", OTHER_SECRET)]
    assert new[0] == "default"
    assert len(new[1]) == 48
    assert [path.name for path in file.parent.iterdir() if "PUSH_TOKENS" in path.name] == ["PUSH_TOKENS"]
    assert new[1] not in done.output  # no terminal
    assert SECRET not in done.output
    assert f"receiver push-secret remove {SECRET[:4]}\n" in done.stderr
    assert audited(run) == [("push_secret.rotate", {"account": "default", "name": "active"})]
    urls = [line.split("\t")[1].rpartition("/")[2] for line in run("push-url").stdout.splitlines()]
    assert urls == [new[1], SECRET, OTHER_SECRET]
    for account, active in (("default", new[1]), ("other", OTHER_SECRET)):
        assert run("push-url", "--active", "--account", account).stdout.endswith(f"/push/{active}\n")
    assert run("push-url", "--account", "other").stdout.endswith(f"/push/{OTHER_SECRET}\n")
    of_one = run("push-url", "--account", "default").stdout.splitlines()
    assert [line.split("\t")[0] for line in of_one] == ["default", "default"]
    for refused, answer in (
        (["--active"], "--account: choose one of default, other"),
        (["--account", "x"], "x: no such"),
    ):
        asked = run("push-url", *refused)
        assert (asked.exit_code, asked.stdout, answer in str(asked.exception)) == (1, "", True), asked.output


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ([], "with several nodes, copy {file} to each"),
        (
            ["--print-tokens"],
            "put the new content into the file on every node (Debian: /etc/receiver/secrets/PUSH_TOKENS)",
        ),
        (None, "set this value on every node"),
    ],
    ids=["file", "printed", "environment"],
)
def test_restart_is_said_before_the_new_url_is_pasted(
    run: Callable[..., Result], file: Path, words: list[str] | None, first: str
) -> None:
    where = {"RECEIVER_PUSH_TOKENS": OLD} if words is None else {"RECEIVER_PUSH_TOKENS_FILE": str(file)}
    said = run("push-secret", "rotate", "--account", "default", *(words or []), **where).stderr
    *_, warning, copy, restart, paste, remove = said.splitlines()
    assert warning.startswith("A running server does not know it yet: until its restart, the new URL gets 404.")
    assert copy == f"  1. {first.format(file=file)}"
    assert restart == "  2. restart the server on every node"
    assert paste == "  3. only then paste the new URL into the platform's console: receiver push-url"
    assert remove.startswith("  4. once `receiver status` says that the old one can be removed: ")


def test_generated_secret_is_rotated_in_the_data_directory(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "data/push-secret"
    before = tokens(file.read_text().strip())
    assert run("push-secret", "rotate").exit_code == 0
    new, old = tokens(file.read_text().strip())
    assert (old, file.stat().st_mode & 0o777) == (before[0], 0o600)
    assert new[1] != old[1]


def test_account_is_asked_for_where_there_are_several(run: Callable[..., Result], file: Path) -> None:
    text = file.read_text()
    for words, answer in (([], "choose one of default, other"), (["--account", "shop"], "no push secret of shop")):
        done = run("push-secret", "rotate", *words, RECEIVER_PUSH_TOKENS_FILE=str(file))
        assert isinstance(done.exception, ReceiverError)
        assert answer in str(done.exception)
    assert file.read_text() == text


@pytest.mark.parametrize("in_dotenv", [True, False])
def test_value_of_the_environment_is_not_changed_but_said(
    run: Callable[..., Result], tmp_path: Path, in_dotenv: bool
) -> None:
    dotenv = f"RECEIVER_PUSH_TOKENS={OLD}\n"
    (tmp_path / ".env").write_text(dotenv if in_dotenv else "")
    done = run("push-secret", "rotate", **({} if in_dotenv else {"RECEIVER_PUSH_TOKENS": OLD}))
    assert done.exit_code == 0
    assert done.stdout.startswith("RECEIVER_PUSH_TOKENS=default:")
    assert done.stdout.endswith(",THE PRESENT VALUE\n")
    assert SECRET not in done.output
    assert (tmp_path / ".env").read_text() == (dotenv if in_dotenv else "")
    assert audited(run) == []


def test_content_is_printed_for_a_place_that_only_others_can_write(run: Callable[..., Result], file: Path) -> None:
    text = file.read_text()
    done = run("push-secret", "rotate", "--account", "other", "--print-tokens", RECEIVER_PUSH_TOKENS_FILE=str(file))
    first, new, last = tokens(done.stdout.strip())
    assert (first, last, new[0]) == (("default", SECRET), ("other", OTHER_SECRET), "other")
    assert file.read_text() == text
    assert len(audited(run)) == 1


def test_file_that_cannot_be_written_stays_and_nothing_is_audited(run: Callable[..., Result], file: Path) -> None:
    text, link = file.read_text(), file.with_name("link")
    link.symlink_to(file)
    assert run("push-secret", "rotate", "--account", "default", RECEIVER_PUSH_TOKENS_FILE=str(link)).exit_code == 0
    assert (link.is_symlink(), file.read_text() != text) == (True, True)
    text = file.read_text()
    (file.parent / f".PUSH_TOKENS.{os.getpid()}").mkdir()  # where the draft would be
    done = run("push-secret", "rotate", "--account", "default")
    assert isinstance(done.exception, ReceiverError)
    assert str(done.exception).endswith("; nothing is changed")
    assert file.read_text() == text
    assert len(audited(run)) == 1


def test_two_changes_at_once_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); "
        "sys.stdin.read()"
    )
    lock, file = tmp_path / "data/push-secret.lock", tmp_path / "data/push-secret"
    text = file.read_text()
    with subprocess.Popen(
        [sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        other.stdout.readline()
        done = run("push-secret", "rotate")
        other.communicate("", timeout=60)
    assert "another change of the push secrets is running" in str(done.exception)
    assert file.read_text() == text


def test_file_that_has_changed_meanwhile_stays_as_it_is_then(
    run: Callable[..., Result], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = f"default:{OLD_SECRET}\n"

    def change(*_: object, **__: object) -> None:
        file.write_text(changed)

    monkeypatch.setattr("receiver.audit.AuditTrail.audit", change)
    done = run("push-secret", "rotate", "--account", "default", RECEIVER_PUSH_TOKENS_FILE=str(file))
    assert "has changed meanwhile; run this again" in str(done.exception)
    assert file.read_text() == changed


# --- Remove --------------------------------------------------------------------------------------------------


@pytest.fixture
def retiring(run: Callable[..., Result], file: Path) -> Path:
    """A file with an old secret beside the active one."""
    file.write_text(f"{OLD},default:{OLD_SECRET},other:{OTHER_SECRET}\n")
    assert run("push-secret", "list", RECEIVER_PUSH_TOKENS_FILE=str(file)).exit_code == 0
    return file


def test_old_secret_is_removed_by_its_first_characters(run: Callable[..., Result], retiring: Path) -> None:
    use(OLD_SECRET, datetime.now(UTC) - timedelta(hours=25))
    done = run("push-secret", "remove", f"{OLD_SECRET[:4]}…")
    assert done.exit_code == 0, done.exception
    assert retiring.read_text() == f"{OLD},other:{OTHER_SECRET}\n"
    assert OLD_SECRET not in done.output
    assert audited(run) == [("push_secret.remove", {"account": "default", "name": "retiring 1"})]


@pytest.mark.parametrize(
    ("beginning", "answer"),
    [
        (OLD_SECRET[:3], "give at least 4 characters"),
        ("nope", "no secret begins with that"),
        (None, "no secret can be removed yet"),
        (OTHER_SECRET, "it is the last secret of other"),
        (BEGINNING, "a push came by it at "),
    ],
)
def test_secret_that_is_needed_is_not_removed(
    run: Callable[..., Result], retiring: Path, beginning: str | None, answer: str
) -> None:
    text = retiring.read_text()
    use(OLD_SECRET, datetime.now(UTC) - timedelta(hours=23))
    done = run("push-secret", "remove", *([beginning] if beginning else []))
    assert isinstance(done.exception, ReceiverError)
    assert str(done.exception).startswith(answer)
    assert (retiring.read_text(), audited(run)) == (text, [])


def test_force_removes_what_is_in_use_but_never_the_only_one(run: Callable[..., Result], retiring: Path) -> None:
    use(OLD_SECRET, datetime.now(UTC))
    assert run("push-secret", "remove", BEGINNING, "--force").exit_code == 0
    assert run("push-secret", "remove", OTHER_SECRET, "--force").exit_code == 0
    done = run("push-secret", "remove", SECRET, "--force")
    assert "it is the only secret" in str(done.exception)
    assert retiring.read_text() == f"{OLD}\n"


def test_secret_that_can_go_needs_no_name(run: Callable[..., Result], retiring: Path) -> None:
    use(OLD_SECRET, datetime.now(UTC) - timedelta(days=8))
    assert run("push-secret", "remove").exit_code == 0
    assert retiring.read_text() == f"{OLD},other:{OTHER_SECRET}\n"


def test_list_has_what_a_secret_is_known_by_and_no_more(run: Callable[..., Result], retiring: Path) -> None:
    at = datetime(2026, 11, 1, 8, 0, 5, tzinfo=UTC)
    use(OLD_SECRET, at)
    shown = run("push-secret", "list", "--json")
    assert json.loads(shown.stdout)[1] == {
        "account": "default", "secret": "old-…", "state": "retiring 1", "last_push_at": str(at),
        "can_be_removed": True,
    }  # fmt: skip
    assert "2026-11-01 08:00Z" in run("push-secret", "list").stdout
    assert not any(secret in shown.output for secret in (SECRET, OLD_SECRET, OTHER_SECRET))


# --- The whole of it -----------------------------------------------------------------------------------------


def test_server_takes_both_secrets_after_a_rotation_and_one_after_the_removal(tmp_path: Path) -> None:
    form = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"
    file = tmp_path / "PUSH_TOKENS"
    file.write_text(f"{OLD}\n")
    environment = {"RECEIVER_PUSH_TOKENS": "", "RECEIVER_PUSH_TOKENS_FILE": str(file)}
    with ServeProcess(tmp_path, environment=environment) as process:

        def push(secret: str) -> int:
            process.target = f"/push/{secret}"
            return process.push(form).status

        assert push(SECRET) == 200
        assert process.run("push-secret", "rotate").returncode == 0
        new = file.read_text().split(",")[0].partition(":")[2]
        process.stop()
        process.start()
        assert [push(new), push(SECRET)] == [200, 200]
        process.stop()
        refused = process.run("push-secret", "remove", SECRET[:4])
        assert (refused.returncode, "a push came by it at" in refused.stderr) == (1, True)
        assert process.run("push-secret", "remove", SECRET[:4], "--force").returncode == 0
        process.start()
        assert [push(new), push(SECRET)] == [200, 404]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the script does")
def test_script_of_the_packages_places_what_the_service_user_may_not_write(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """A stand-in of systemd-run gives the credential, as systemd does, and runs this checkout's program."""
    etc, bin_ = tmp_path / "etc", tmp_path / "bin"
    (etc / "secrets").mkdir(parents=True)
    bin_.mkdir()
    (etc / "receiver.env").write_text("RECEIVER_BIND=127.0.0.1:8000\n")
    kept = etc / "secrets/PUSH_TOKENS"
    kept.write_text(f"{OLD}\n")
    kept.chmod(0o600)
    (bin_ / "systemd-run").write_text(
        f"#!/bin/sh\nset -e\nmkdir -p {tmp_path}/given\nfor name in {etc}/secrets/*; do\n"
        f'  cp "$name" "{tmp_path}/given/RECEIVER_$(basename "$name")"\ndone\n'
        'while [ "$1" != -- ]; do shift; done\nshift 2\n'
        f'CREDENTIALS_DIRECTORY={tmp_path}/given exec {sys.executable} -m receiver "$@"\n'
    )
    (bin_ / "systemd-run").chmod(0o755)
    script = tmp_path / "receiver"
    script.write_text(WRAPPER.read_text().replace("/etc/receiver", str(etc)))
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", script, *words], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    helped = call("push-secret", "rotate", "--help")
    assert (helped.returncode, "Make a new push secret" in helped.stdout) == (0, True)
    assert kept.read_text() == f"{OLD}\n"
    done = call("push-secret", "rotate")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    new, old = tokens(kept.read_text().strip())
    assert (old[1], kept.stat().st_mode & 0o777) == (SECRET, 0o600)
    assert new[1] not in done.stderr
    refused = call("push-secret", "remove", "nope")
    assert (refused.returncode, tokens(kept.read_text().strip())) == (1, (new, old))
    assert call("push-secret", "remove", SECRET[:6]).returncode == 0
    assert kept.read_text().strip() == f"default:{new[1]}"
    assert sorted(path.name for path in etc.iterdir()) == ["receiver.env", "secrets"]
    with subprocess.Popen(["flock", etc / "secrets", "sleep", "60"], start_new_session=True) as holder:
        busy = call("push-secret", "rotate")
        os.killpg(holder.pid, 15)
    assert (busy.returncode, "another change of the push secrets" in busy.stderr) == (1, True)
