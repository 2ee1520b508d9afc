"""PostgreSQL is backed up under load by deploy/postgresql/backup.sh, and a rehearsal proves what it has made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.maintenance.backup_notes import find_backups
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_binaries, find_shared_place
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.intake.test_promises import stored

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = Path(__file__).parents[2] / "deploy" / "postgresql"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: a physical backup is of all that is in one."""
    with PostgresServer(durable=False) as server:
        yield server


def run(script: str, *arguments: str, url: str = "", data_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_", "PG"))}
    environment |= {
        "RECEIVER_DATABASE_URL": url,
        "PG_BIN": str(find_binaries()),
        "RECEIVER": str(Path(sys.executable).with_name("receiver")),
        "RECEIVER_DATA_DIR": str(data_dir or ""),
        "TMPDIR": str(find_shared_place(on_disk=True)),  # a socket's path has to be short
    }
    return subprocess.run(
        [str(SCRIPTS / script), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=150
    )


@pytest.mark.timeout(480)
def test_backups_under_load_hold_every_push_acknowledged_before_they_began(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = server.create_database("receiver")
    process = ServeProcess(tmp_path, url)
    process.upgrade()
    before: list[dict[str, str]] = []
    backups: list[str] = []
    with process, Pushers(process, 4, pause_seconds=0.005) as pushers:
        for options in ([], ["--physical"]):
            pushers.await_acks(200)
            before.append(dict(pushers.acks))
            made = run("backup.sh", *options, str(tmp_path / "backups"), url=url)
            assert made.returncode == 0, made.stderr
            backups.append(made.stdout.strip())
        pushers.await_acks(1)
    assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert {Path(backup).suffix for backup in backups} == {".dump", ".base"}
    leftovers = set(find_shared_place(on_disk=True).glob("receiver-rehearsal.*"))
    for backup, acks in zip(backups, before, strict=True):
        rehearsed = run("rehearse-restore.sh", backup)
        assert rehearsed.returncode == 0, rehearsed.stderr + rehearsed.stdout
        found = re.search(r"journal was looked through: (\d+) checked", rehearsed.stdout)
        assert found is not None
        assert len(acks) <= int(found[1]) <= len(pushers.acks)
        newest = re.search(r"newest push: (\S+) received 20", rehearsed.stdout)
        assert newest is not None
        assert max(acks) <= newest[1] <= max(pushers.acks)
        assert "are not in this backup" in rehearsed.stdout
    assert set(find_shared_place(on_disk=True).glob("receiver-rehearsal.*")) <= leftovers

    elsewhere = ServeProcess(tmp_path, server.create_database("elsewhere"))
    restore = [str(find_binaries() / "pg_restore"), "--no-owner", "--dbname", elsewhere.database_url, backups[0]]
    subprocess.run(restore, check=True, timeout=60)
    kept = stored(elsewhere)
    assert before[0].items() <= kept.items() <= pushers.acks.items()


def test_scripts_say_what_is_wrong_and_leave_nothing(server: PostgresServer, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    missing = run("backup.sh", str(backups), url=server.url("missing"), data_dir=tmp_path)
    assert find_backups(tmp_path)["backup.sh"].failing
    assert missing.returncode != 0
    assert 'database "missing" does not exist' in missing.stderr
    foreign = run("backup.sh", str(backups), url=server.create_database("foreign"))
    assert foreign.stderr == "backup.sh: the dump has no table pushes; is that receiver's database?\n"
    assert list(backups.iterdir()) == []
    assert "set RECEIVER_DATABASE_URL" in run("backup.sh", str(backups)).stderr
    assert "no backup_manifest" in run("rehearse-restore.sh", str(backups)).stderr


def test_older_dumps_go_and_nothing_else(server: PostgresServer, tmp_path: Path) -> None:
    url = server.create_database("kept")
    ServeProcess(tmp_path, url).upgrade()
    backups = tmp_path / "backups"
    backups.mkdir()
    for name in ("receiver-20261101T030000Z.dump", "receiver-20261102T030000Z.dump", "receiver-20200101T000000Z.base"):
        (backups / name).write_text("")
    (backups / "notes.dump").write_text("mine")
    made = run("backup.sh", "--keep", "2", str(backups), url=url, data_dir=tmp_path)
    assert not find_backups(tmp_path)["backup.sh"].failing
    newest, removed = made.stdout.splitlines()
    assert removed == f"removed: {backups}/receiver-20261101T030000Z.dump"
    left = {"receiver-20261102T030000Z.dump", "receiver-20200101T000000Z.base", "notes.dump", Path(newest).name}
    assert {path.name for path in backups.iterdir()} == left


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_scripts_have_no_fault_that_shellcheck_knows() -> None:
    checked = subprocess.run(
        ["shellcheck", *map(str, SCRIPTS.glob("*.sh"))], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.stdout == ""
