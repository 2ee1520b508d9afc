"""A backup that is made while pushes come in holds all that was acknowledged before, and is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.core import Push, ReceiverError, SettingsError
from receiver.db import migrate
from receiver.db.engine import Database
from receiver.db.sqlite import sqlite3
from receiver.db.tables import receipts
from receiver.intake.spool import Spool, copy_spool
from receiver.intake.spool_records import Damage, read_file
from receiver.maintenance.backup import make_backup, restore
from receiver.maintenance.snapshot import summarize
from receiver.net.serving import serving_lock, take_serving_lock
from tests.conftest import make_settings
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.intake.test_promises import await_empty_spool, small_disk, stored

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.config import Settings


def backed_up(process: ServeProcess, directory: Path, *options: str) -> Path:
    made = process.run("backup", str(directory), "--json", *options)
    assert made.returncode == 0, made.stderr
    path: str = json.loads(made.stdout)["path"]
    return directory / path


def installed(data_dir: Path) -> ServeProcess:
    data_dir.mkdir(exist_ok=True)
    process = ServeProcess(data_dir, patient=False)
    process.upgrade()
    return process


@pytest.mark.timeout(300)
def test_backup_under_load_holds_every_push_acknowledged_before_it_began(tmp_path: Path) -> None:
    process = installed(tmp_path / "var")
    with process, Pushers(process, 8) as pushers:
        pushers.await_acks(200)
        with closing(sqlite3.connect(process.data_dir / "receiver.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            while pushers.outcomes["spooled"] < 500:
                pushers.await_acks(1)
        before = dict(pushers.acks)  # the spool is being saved from here on: records move while they are copied
        backup = backed_up(process, tmp_path / "backups")
        pushers.await_acks(1)
    assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert pushers.failures == 0

    elsewhere = ServeProcess(tmp_path / "elsewhere")
    restored = process.run("restore", str(backup), "--to", str(elsewhere.data_dir))
    assert restored.returncode == 0, restored.stderr
    assert "may be missing" in restored.stdout
    assert "newest push: " in restored.stdout
    with elsewhere:
        await_empty_spool(elsewhere)
        verified = elsewhere.run("verify")
    assert (verified.returncode, verified.stderr) == (0, "")
    kept = stored(elsewhere)
    assert before.items() <= kept.items()
    assert kept.items() <= pushers.acks.items()
    newest = json.loads((backup / "manifest.json").read_text())["newest_push"]
    assert newest == max(kept)


def test_backup_that_is_killed_leaves_none_and_the_server_goes_on(tmp_path: Path) -> None:
    process = installed(tmp_path / "var")
    directory = tmp_path / "backups"
    directory.mkdir()
    with process, Pushers(process, 4) as pushers:
        pushers.await_acks(200)
        command = [sys.executable, "-m", "receiver", "backup", str(directory)]
        running = subprocess.Popen(command, env=process.env, cwd=process.data_dir)
        deadline = time.monotonic() + 60
        while not (drafts := list(directory.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        assert running.wait(20) == -signal.SIGKILL
        assert [path.name for path in directory.iterdir()] == [drafts[0].name]
        assert drafts[0].name.endswith(".partial")
        pushers.await_acks(100)
        backup = backed_up(process, directory)
    assert [path.name for path in directory.iterdir()] == [backup.name]
    assert set(pushers.outcomes) <= {"accepted", "spooled"}


# --- Without a server ---------------------------------------------------------------------------------


def make_installed(data_dir: Path) -> Settings:
    settings = make_settings(f"sqlite:///{data_dir / 'receiver.db'}", data_dir)
    data_dir.mkdir()
    database = Database(settings.database_url)
    migrate.upgrade(database)
    database.close()
    return settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installed receiver that does not run."""
    return make_installed(tmp_path / "var")


def back_up(settings: Settings, directory: Path, keep: int | None = None) -> Path:
    return make_backup(settings, directory, verify=None, keep=keep).path


def test_backup_and_what_is_restored_are_for_this_user_alone(settings: Settings, tmp_path: Path) -> None:
    (settings.data_dir / "push-secret").write_text("default:secret")
    backup = back_up(settings, tmp_path / "backups")
    restore(backup, tmp_path / "elsewhere", force=False)
    modes = {"receiver.db": "0o600", "push-secret": "0o600", "spool": "0o700"}
    for directory, more in ((backup, {"manifest.json": "0o600"}), (tmp_path / "elsewhere", {})):
        assert {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir()} == modes | more
    assert (tmp_path / "elsewhere" / "push-secret").read_text() == "default:secret"


def test_directories_may_have_any_name(tmp_path: Path) -> None:
    place = tmp_path / "50%20of? 数据#1"
    place.mkdir()
    process = ServeProcess(place / "var")
    process.data_dir.mkdir()
    assert process.run("db", "upgrade").returncode == 0
    backup = backed_up(process, place / "backups")  # verified
    assert summarize(backup / "receiver.db").schema == summarize(process.data_dir / "receiver.db").schema
    restored = ServeProcess(place / "restored")
    restored.data_dir.mkdir()
    assert restored.run("restore", str(backup)).returncode == 0
    assert "database: ok" in restored.run("status").stdout
    assert {path.name for path in tmp_path.iterdir()} == {place.name}  # nothing under a part of the name


def test_older_backups_go_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    for number in (1, 2):  # as if made on earlier days
        back_up(settings, directory).rename(directory / f"receiver-2026110{number}T030000Z")
    foreign = directory / "receiver-20200101T000000Z"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"kept": "by somebody else"}')
    (directory / "notes").write_text("mine")
    newest = back_up(settings, directory, keep=2)
    left = {"notes", foreign.name, "receiver-20261102T030000Z", newest.name}
    assert {path.name for path in directory.iterdir()} == left


def test_backups_dated_in_the_future_do_not_push_out_those_of_now(settings: Settings, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    names = [f"receiver-{day}T030000Z" for day in ("20261101", "20261102", "20361101", "20361102")]
    for name in names:
        back_up(settings, directory).rename(directory / name)
    newest = back_up(settings, directory, keep=2)
    assert {path.name for path in directory.iterdir()} == {*names[1:], newest.name}


@pytest.mark.parametrize("name", ["../outside", "spool/../../outside", "spool/..", "spool/", "/outside", "notes"])
def test_restore_takes_no_file_that_a_backup_cannot_have(settings: Settings, tmp_path: Path, name: str) -> None:
    backup = back_up(settings, tmp_path / "backups")
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(b"x").hexdigest()
    (backup / "manifest.json").write_text(json.dumps(manifest))
    for place in (backup / "notes", backup.parent / "outside", tmp_path / "outside"):
        place.write_bytes(b"x")
    with pytest.raises(ReceiverError, match="an unexpected file"):
        restore(backup, tmp_path / "elsewhere", force=False)
    assert not (tmp_path / "elsewhere").exists()


def test_restore_refuses_what_would_harm_and_force_moves_it_aside(settings: Settings, tmp_path: Path) -> None:
    backup = back_up(settings, tmp_path / "backups")
    with serving_lock(settings.data_dir), pytest.raises(SettingsError, match="another `receiver serve` runs"):
        take_serving_lock(settings.data_dir)
    with pytest.raises(ReceiverError, match="--force"):
        restore(backup, settings.data_dir, force=False)
    # SQLite would take the old database's log for one of the new.
    (settings.data_dir / "receiver.db-wal").write_bytes(b"of the old one")
    old = (settings.data_dir / "receiver.db").read_bytes()
    aside = restore(backup, settings.data_dir, force=True).aside
    assert aside is not None
    assert (aside / "receiver.db").read_bytes() == old
    assert not (settings.data_dir / "receiver.db-wal").exists()
    assert summarize(settings.data_dir / "receiver.db").rows["pushes"] == 0


def test_reader_of_events_that_was_further_on_misses_none_after_a_restore(settings: Settings, tmp_path: Path) -> None:
    database = Database(settings.database_url)
    save_pushes(database, [make_push(task_id="kept")])
    backup = back_up(settings, tmp_path / "backups")
    save_pushes(database, [make_push(task_id="lost")])
    with database.reading() as connection:
        read_up_to = connection.scalar(sa.select(sa.func.max(receipts.c.id)))
    database.close()
    restore(backup, settings.data_dir, force=True)
    save_pushes(database, [make_push(task_id="new")])
    with database.reading() as connection:
        ids = list(connection.scalars(sa.select(receipts.c.id).order_by(receipts.c.id)))
    database.close()
    assert len(ids) == 2
    assert ids[0] < read_up_to < ids[1]


def test_damaged_backup_and_what_is_none_are_refused(settings: Settings, tmp_path: Path) -> None:
    backup = back_up(settings, tmp_path / "backups")
    with (backup / "receiver.db").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    with pytest.raises(ReceiverError, match=r"damaged: receiver\.db has changed"):
        restore(backup, tmp_path / "elsewhere", force=False)
    with pytest.raises(ReceiverError, match="is no backup of receiver"):
        restore(settings.data_dir, tmp_path / "elsewhere", force=False)
    assert not (tmp_path / "elsewhere").exists()


def test_damaged_database_is_not_called_a_backup(settings: Settings, tmp_path: Path) -> None:
    with (settings.data_dir / "receiver.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(ReceiverError, match="the database's copy is damaged"):
        back_up(settings, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_backup_where_none_can_be_written_or_read_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReceiverError, match=r"no backup was made: .*Not a directory"):
        back_up(settings, tmp_path / "file" / "backups")
    (settings.data_dir / "receiver.db").unlink()
    with pytest.raises(ReceiverError, match="there is no database to back up"):
        back_up(settings, tmp_path / "backups")
    assert not (tmp_path / "backups").exists()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_full_disk_leaves_nothing_that_looks_like_a_backup(settings: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "128k"):
        with pytest.raises(ReceiverError, match=r"full|No space"):
            back_up(settings, tmp_path / "small")
        assert list((tmp_path / "small").iterdir()) == []


def test_backup_beside_postgresql_holds_the_spool_and_the_secret(tmp_path: Path) -> None:
    settings = make_settings("postgresql+psycopg://nobody@127.0.0.1:1/none", tmp_path / "var")
    spool = Spool(settings.data_dir / "spool", max_bytes=1 << 20)
    (tmp_path / "var").mkdir()
    push = make_push()
    spool.append([push])
    backup = back_up(settings, tmp_path / "backups")
    spool.close()
    manifest = restore(backup, tmp_path / "elsewhere", force=False).manifest
    assert (manifest.schema, manifest.spool_records, manifest.newest_push) == (None, 1, str(push.id))
    (copy,) = (tmp_path / "elsewhere" / "spool").iterdir()
    assert [record.id for record in read_file(copy) if isinstance(record, Push)] == [push.id]


def test_backup_from_a_newer_program_is_told(settings: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(settings.data_dir / "receiver.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    backup = back_up(settings, tmp_path / "backups")
    told = ServeProcess(tmp_path).run("restore", str(backup), "--to", str(tmp_path / "elsewhere"))
    assert (told.returncode, told.stderr) == (0, "")
    assert "its schema 9999 is newer than this program's" in told.stdout


def test_record_that_was_being_written_is_not_in_a_copy_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1 << 20)
    spool.append([make_push(task_id="1"), make_push(task_id="2")])
    (path,) = (tmp_path / "spool").glob("*.spool")
    whole = path.read_bytes()
    last = whole.rindex(b"\xf5RSP")
    for number, cut in enumerate((last, last + 1, last + 7, last + 12, len(whole) - 1, len(whole))):
        path.write_bytes(whole[:cut])
        (copy,) = copy_spool(tmp_path / "spool", tmp_path / f"copy{number}")
        assert copy.read_bytes() == (whole if cut == len(whole) else whole[:last])
    path.write_bytes(b"x" + whole[1:last] + b"not torn, damaged")  # which a person has to see
    (copy,) = copy_spool(tmp_path / "spool", tmp_path / "damaged")
    assert copy.read_bytes() == path.read_bytes()
    assert any(isinstance(found, Damage) for found in read_file(copy))
    spool.close()
