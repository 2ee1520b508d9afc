"""A disk that fills up under the embedded database's mapped file: pushes are refused, and no process ends."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.db.engine import Database
from receiver.server.wal_index import WalIndex
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.server.test_serve import RECEIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
needs_mount = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="mounting needs root")


@contextmanager
def disk_of_small_blocks(path: Path) -> Iterator[None]:
    image = path.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", str(image)], check=True)
    path.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    try:
        path.chmod(0o700)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 1024):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    return ballast


def lengthen_log(database: Path) -> None:
    """Make its log's file long and let it begin anew: it can be written on when there is no room for anything else."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE ballast AS SELECT zeroblob(12000000) AS bytes")
        deadline = time.monotonic() + 20
        while connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]:  # the server's own may be under way
            assert time.monotonic() < deadline
        connection.execute("CREATE TABLE small (id INTEGER)")


@needs_mount
def test_full_disk_of_small_blocks_is_503_and_ends_no_worker(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with disk_of_small_blocks(data):
        process = ServeProcess(data, patient=False)
        process.log, process.told = tmp_path / "serve.log", tmp_path / "serve.out"
        with process:
            lengthen_log(data / "receiver.db")
            master, first = process.await_worker()
            process.kill(first)
            process.await_gone([first])
            assert process.push(RECEIPT).status == 200
            _, worker = process.await_worker()
            index = data / "receiver.db-shm"
            deadline = time.monotonic() + 20
            while index.stat().st_blocks * 512 < MIB:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            # Whoever has a connection to the database must not open this file.
            opened = [str(file.readlink()) for file in Path(f"/proc/{master}/fd").iterdir()]
            assert [name for name in opened if "receiver.db" in name] == []
            with Pushers(process, 8) as pushers:
                ballast = fill(data)
                deadline = time.monotonic() + 60
                while pushers.outcomes["503"] < 40:
                    assert time.monotonic() < deadline, pushers.outcomes
                    assert pushers.failures == 0
                    time.sleep(0.02)
                ballast.unlink()
                pushers.await_acks(20)
            assert pushers.failures == 0
            assert process.await_worker()[1] == worker
            assert "note  file system: blocks of 1024 bytes" in process.run("doctor").stdout


def test_room_is_taken_ahead_of_what_sqlite_maps(tmp_path: Path) -> None:
    index = tmp_path / "receiver.db-shm"
    room = WalIndex(tmp_path / "receiver.db")
    room.preallocate()
    assert not index.exists()
    for holes, expected in ((3, MIB), (MIB + 32768, 2 * MIB + 32768)):
        with index.open("wb") as file:
            file.truncate(holes)
        room.preallocate()
        room.preallocate()
        assert (index.stat().st_size, index.stat().st_blocks * 512 >= expected) == (expected, True)


def test_room_stays_where_the_database_is_reached_anew(tmp_path: Path) -> None:
    path = tmp_path / "receiver.db"
    database = Database(f"sqlite:///{path}")
    with database.reading() as connection:
        connection.exec_driver_sql("SELECT 1 FROM sqlite_schema")
    WalIndex(path).preallocate()
    database.connect()
    assert path.with_name(f"{path.name}-shm").stat().st_size == MIB
    database.close()
