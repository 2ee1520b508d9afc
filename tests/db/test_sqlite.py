"""The embedded database's file: one door, one checkpointer, a log that stays small, and a file that may go away."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from receiver.db import checkpointer as checkpointer_module
from receiver.db import sqlite
from receiver.db.checkpointer import checkpointer
from receiver.db.engine import Database
from receiver.messages.export_files import FileFormat, iter_file
from receiver.messages.queries import Filter
from receiver.web.metrics_collector import Scrape
from tests.db.several_writers import own_sqlite, write_at_once
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.programs import require_program
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

BUILDS = pytest.mark.parametrize("with_own_sqlite", [False, True], ids=["newest SQLite", "the interpreter's own"])
BODY = b"mobile=15080921090&taskid=%d&status=1&receivetime=2019-07-23+17%%3A00%%3A00"


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """The embedded database alone."""
    return sqlite_database_url


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 4), False),
        ((3, 50, 7), True),
        ((3, 51, 1), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
    ],
)
def test_versions_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], mended: bool) -> None:
    assert sqlite.is_fixed(version) is mended


def test_a_library_that_is_newer_than_the_interpreters_serves() -> None:
    import sqlite3 as of_python  # noqa: PLC0415  (looked at, and never opened a file with)

    assert of_python.sqlite_version_info <= sqlite.VERSION


def test_every_connection_overwrites_what_is_deleted_and_leaves_checkpoints_alone(runtime: Runtime) -> None:
    found = {}
    for database in (runtime.database, runtime.intake_database):
        with database.reading() as connection:
            for pragma in ("journal_mode", "synchronous", "wal_autocheckpoint", "secure_delete", "journal_size_limit"):
                found[pragma] = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,
            "wal_autocheckpoint": 0,
            "secure_delete": 1,
            "journal_size_limit": sqlite.LOG_MAX_BYTES,
        }


def test_caches_of_readers_are_small(runtime: Runtime) -> None:
    sizes = []
    for database in (runtime.database, runtime.intake_database):
        with database.reading() as connection:
            sizes.append(-(connection.exec_driver_sql("PRAGMA cache_size").scalar() or 0))  # in KiB
    assert sizes == [sqlite.CACHE_KIB, 65536]
    assert 30 * sqlite.CACHE_KIB <= 128 * 1024  # of as many connections as there may be


# --- Who moves the log ----------------------------------------------------------------------------------


@contextmanager
def traced_writes(command: list[str], out: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, or watch processes by their ids, and note each write with its thread and its file."""
    watched = ("-f", "-y", "-qq", "-s", "0", "-e", "trace=pwrite64,write,ftruncate")
    traced = subprocess.Popen(
        [require_program("strace"), *watched, "-o", str(out), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield traced
    finally:
        traced.terminate()
        traced.wait(timeout=30)


def threads_that_wrote(trace: Path, database: Path) -> set[str]:
    """The threads that wrote into the database's file itself, which in WAL mode checkpoints alone do."""
    return set(re.findall(rf"^(\d+) +pwrite64\(\d+<{re.escape(str(database))}>", trace.read_text(), re.MULTILINE))


@BUILDS
def test_one_thread_of_the_server_checkpoints_and_no_other_connection_ever(
    tmp_path: Path, with_own_sqlite: bool
) -> None:
    environment = own_sqlite(tmp_path / "shim") if with_own_sqlite else {}
    (tmp_path / "data").mkdir(mode=0o700)
    process = ServeProcess(tmp_path / "data", environment=environment, patient=True)
    process.upgrade()
    database = process.data_dir / "receiver.db"
    lines = "taskId,phone\n" + "".join(f"beside-{row},150809{row:05d}\n" for row in range(3000))
    (tmp_path / "sends.csv").write_text(lines)
    commands = [
        ["messages", "import", str(tmp_path / "sends.csv")],
        ["erase", "15080900007", "--yes"],
        ["keys", "create", "me", "--scope", "read"],
    ]
    with process:
        _, worker = process.await_worker()
        threads = [argument for thread in Path(f"/proc/{worker}/task").iterdir() for argument in ("-p", thread.name)]
        with traced_writes(threads, tmp_path / "server"), Pushers(process, 2) as pushers:
            time.sleep(0.5)  # until it is attached
            for number, arguments in enumerate(commands):
                with traced_writes(
                    [sys.executable, "-m", "receiver", *arguments], tmp_path / f"command{number}", env=process.env
                ) as command:
                    assert command.wait(timeout=60) == 0
            pushers.await_acks(200)
        assert len(threads_that_wrote(tmp_path / "server", database)) == 1
        for number in range(len(commands)):
            trace = tmp_path / f"command{number}"
            assert "receiver.db-wal" in trace.read_text()  # it wrote, and was seen to
            assert threads_that_wrote(trace, database) == set()


def test_nobody_writes_while_the_log_is_moved(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sqlite.path_of(runtime.settings.database_url)
    tried: list[str] = []

    class Watched:
        """A connection that, as it moves the log, lets another try to write."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def execute(self, statement: str) -> Any:
            if "wal_checkpoint" in statement:
                with closing(sqlite.connect(path, timeout_seconds=0)) as other:
                    try:
                        other.execute("BEGIN IMMEDIATE")
                        tried.append("began to write")
                    except sqlite.sqlite3.OperationalError as error:
                        tried.append(str(error))
            return self._connection.execute(statement)

        def close(self) -> None:
            self._connection.close()

    monkeypatch.setattr(
        checkpointer_module, "connect", lambda *args, **kwargs: Watched(sqlite.connect(*args, **kwargs))
    )
    work = checkpointer_module._Work(path, path.with_name("lock of its own"), path.with_name("request"))
    save_pushes(runtime.database, [make_push()])
    work.check()
    work.close()
    assert set(tried) == {"database is locked"}  # more than one, where a busy machine has it ask again


def test_a_command_without_a_server_keeps_the_log_small_by_itself(runtime: Runtime) -> None:
    path = sqlite.path_of(runtime.settings.database_url)
    save_pushes(runtime.database, [make_push(task_id=f"t{number}") for number in range(200)])
    deadline = time.monotonic() + 30
    while _left_in_log(path):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _left_in_log(path: Path) -> int:
    """Frames of the log that are not in the file yet, as a connection that moves none of them sees it."""
    log, moved = (int.from_bytes(part, sys.byteorder) for part in _index(path))
    return log - moved


def _index(path: Path) -> tuple[bytes, bytes]:
    """`mxFrame` and `nBackfill` of the log's index; asked of a process of its own, whose locks may be dropped."""
    script = "import sys; data = open(sys.argv[1], 'rb').read(); sys.stdout.buffer.write(data[16:20] + data[96:100])"
    read = subprocess.run([sys.executable, "-c", script, f"{path}-shm"], capture_output=True, check=True).stdout
    return read[:4], read[4:8]


# --- How large the log gets -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", [FileFormat.CSV, FileFormat.NDJSON])
def test_export_that_is_hardly_read_holds_no_old_state(runtime: Runtime, form: FileFormat) -> None:
    save_pushes(runtime.database, [make_push(task_id=f"t{number}") for number in range(2500)])
    with runtime.exporting() as connection:
        pieces = iter_file(
            connection, "messages", form, Filter(), runtime.clock(), in_full=True, zone=runtime.settings.timezone
        )
        begin = next(pieces) + next(pieces)
        save_pushes(runtime.database, [make_push(task_id="later")])
        checkpointer(sqlite.path_of(runtime.settings.database_url)).truncate()  # raises where a reader is in the way
        text = (begin + b"".join(pieces)).decode()
    assert [f"t{number}" in text for number in (0, 2499)] == [True, True]
    assert "later" not in text


def test_log_that_has_grown_shrinks_and_its_size_is_a_metric(runtime: Runtime) -> None:
    path = sqlite.path_of(runtime.settings.database_url)
    with runtime.database.reading() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM pushes").scalar()  # an old state, as long as this is open
        while sqlite.log_bytes(path) <= sqlite.LOG_MAX_BYTES * 1.1:
            body = b"x" * 60_000
            save_pushes(runtime.database, [make_push(body=body) for _ in range(50)])
        gauges = {family.name: family for family in Scrape(runtime).collect()}
        assert gauges["receiver_sqlite_log_bytes"].samples[0].value > sqlite.LOG_MAX_BYTES
    deadline = time.monotonic() + 30
    while sqlite.log_bytes(path) > sqlite.LOG_MAX_BYTES:
        assert time.monotonic() < deadline
        save_pushes(runtime.database, [make_push()])
        time.sleep(0.1)


def test_checkpointer_that_failed_begins_again(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []

    def fail(*_: Any, **__: Any) -> Any:
        failures.append(1)
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer_module, "connect", fail)
        save_pushes(runtime.database, [make_push()])
        deadline = time.monotonic() + 30
        while not failures:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    runtime.database.empty_log()


# --- Several processes ----------------------------------------------------------------------------------


@BUILDS
def test_several_processes_write_beside_a_server_and_nothing_is_lost(tmp_path: Path, with_own_sqlite: bool) -> None:
    report = write_at_once(tmp_path, 4, with_own_sqlite=with_own_sqlite)
    assert report.good, report
    assert report.acknowledged
    assert report.written
    assert ("of this Python" in report.sqlite) is (with_own_sqlite or _of_python() == sqlite.VERSION)


@pytest.mark.parametrize(
    "command",
    [("prune", "--yes", "--now-is-right"), ("erase", "15080921090", "--yes"), ("verify",), ("spool", "drain")],
    ids=" ".join,
)
def test_command_waits_longer_for_a_busy_database_than_a_push(tmp_path: Path, command: tuple[str, ...]) -> None:
    process = ServeProcess(tmp_path)
    process.upgrade()
    with closing(sqlite3.connect(tmp_path / "receiver.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(1.5, other.execute, ["ROLLBACK"])
        ending.start()
        ended = process.run(*command)
        ending.join()
    assert (ended.returncode, ended.stderr.count("lock")) == (0, 0), ended.stderr


def _of_python() -> tuple[int, ...]:
    script = "import sqlite3; print(*sqlite3.sqlite_version_info)"
    return tuple(
        map(int, subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.split())
    )


@BUILDS
def test_start_doctor_and_backup_name_the_sqlite_in_use(tmp_path: Path, with_own_sqlite: bool) -> None:
    environment = own_sqlite(tmp_path / "shim") if with_own_sqlite else {}
    (tmp_path / "data").mkdir(mode=0o700)
    with ServeProcess(tmp_path / "data", environment=environment) as process:
        version = _of_python() if with_own_sqlite else sqlite.VERSION
        said = f"SQLite {'.'.join(map(str, version))} "
        (line,) = [json.loads(line) for line in process.log.read_text().splitlines() if "embedded database" in line]
        assert line["sqlite"].startswith(said)
        checks = {row["check"]: row for row in json.loads(process.run("doctor", "--json").stdout)}
        assert checks["SQLite"]["text"] == line["sqlite"]
        assert checks["SQLite"]["note"] is not sqlite.is_fixed(version)  # type: ignore[arg-type]
        assert line["level"] == ("info" if sqlite.is_fixed(version) else "warning")  # type: ignore[arg-type]
        made = json.loads(process.run("backup", str(tmp_path / "backups"), "--json").stdout)
        assert made["sqlite"] == line["sqlite"]


# --- A file that goes away ------------------------------------------------------------------------------


def remove(data_dir: Path) -> None:
    for path in data_dir.glob("receiver.db*"):
        path.unlink()


def replace(data_dir: Path) -> None:
    """Put another file in its place, as a restore by hand does."""
    shutil.copy(data_dir / "receiver.db", data_dir / "copy")
    remove(data_dir)
    (data_dir / "copy").rename(data_dir / "receiver.db")


def remove_log(data_dir: Path) -> None:
    (data_dir / "receiver.db-wal").unlink()


@pytest.mark.parametrize("happens", [remove, replace, remove_log])
def test_nothing_is_acknowledged_into_a_file_that_has_gone(tmp_path: Path, happens: Callable[[Path], None]) -> None:
    with ServeProcess(tmp_path) as process:
        process.key = process.make_key("read")
        assert process.push(BODY % 1).headers["X-Push-Outcome"] == "accepted"
        time.sleep(0.6)  # until the file has what the log had
        happens(tmp_path)
        answers = [process.push(BODY % number) for number in range(2, 12)]
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["X-Push-Outcome"] for answer in answers} == {"spooled"}
        ready = process.request("GET", "/readyz")
        assert ready.json["durable"] == "spool"
        assert str(tmp_path / "receiver.db") in ready.json["reason"]
        if happens is remove:
            assert process.run("doctor").returncode == 1
            refused = process.run("keys", "create", "me", "--scope", "read")
            assert refused.returncode == 1
            assert "is missing while a server uses it" in refused.stderr
            assert not (tmp_path / "receiver.db").exists()
    with ServeProcess(tmp_path) as process:
        deadline = time.monotonic() + 30
        while any((tmp_path / "spool").glob("*.spool")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with closing(sqlite.connect_to_read(tmp_path / "receiver.db")) as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM pushes")}
    assert {answer.headers["X-Push-Id"].replace("-", "") for answer in answers} <= kept


def test_file_and_log_are_private_in_a_directory_that_is_not_and_serve_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with ServeProcess(tmp_path) as process:
        process.push(b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:03")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("receiver.db*")}
        assert {"receiver.db", "receiver.db-wal"} <= set(modes)
        assert set(modes.values()) == {0o600}
        assert f"chmod 700 {tmp_path}" in process.log.read_text()


def test_engine_that_is_dropped_unclosed_leaves_the_next_one_its_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    log = sqlite.log_of(tmp_path / "receiver.db")
    for _ in range(3):
        database = Database(url)
        database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (id INTEGER)"))
        database.require_file()
        assert log.exists()
        checkpointer(tmp_path / "receiver.db").leave(database)
        del database
        gc.collect()
        assert not log.exists()  # with its last connection


def test_idle_server_notices_that_its_file_has_gone(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        remove(tmp_path)
        deadline = time.monotonic() + 10
        while process.request("GET", "/readyz").json["durable"] != "spool":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        looked = process.run("run", "alarms", "--dry-run", "--json")
        assert "database_away" in looked.stdout or "is missing" in looked.stderr


def test_second_server_is_refused_though_every_lock_file_was_removed(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        for path in tmp_path.glob("*lock*"):
            path.unlink()
        second = process.run("serve", "--bind", "127.0.0.1:0")
    assert second.returncode == 1
    assert "another `receiver serve` runs" in second.stderr
