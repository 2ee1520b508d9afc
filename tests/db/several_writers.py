"""`python -m tests.db.several_writers`: several processes write to the embedded database beside a loaded server.

Commands of the product, one after the other without a pause, and two programs that write through the product's own
engine, one of which empties the log again and again. Afterwards: every acknowledged push is there once, SQLite finds
the file whole, and `receiver verify` finds nothing. Exit code 1 else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.db.sqlite import connect_unchanging, describe
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

_PUSHERS = 4
# Another program that writes, through the product's engine: a row that no other is about, in short transactions.
_WRITER = """
import sys, time
from receiver.db.engine import Database
from receiver.db.tables import notices
from receiver.core.domain import new_id
from datetime import UTC, datetime
database, empties, written = Database(sys.argv[1]), sys.argv[2] == "empties", 0
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    rows = [{"name": f"soak {new_id()}", "said_at": datetime.now(UTC)} for _ in range(20)]
    database.write(lambda connection: connection.execute(notices.insert(), rows))
    written += 1
    if empties and written % 20 == 0:
        database.empty_log()
    time.sleep(0.005)
database.close()
print(written)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What came of it."""

    sqlite: str  # which served
    seconds: float
    acknowledged: int
    missing: int
    commands: int
    failed: Sequence[str]  # commands that ended otherwise than with 0, and what they said
    written: int  # transactions of the other programs
    integrity: str
    verify: str  # empty: it found nothing
    log_peak_bytes: int

    @property
    def good(self) -> bool:
        """Whether nothing is missing and nothing is wrong."""
        return not self.missing and self.integrity == "ok" and not self.verify and not self.failed


def own_sqlite(directory: Path) -> dict[str, str]:
    """Return the environment of a process that is to have the interpreter's own SQLite."""
    directory.mkdir(exist_ok=True)
    (directory / "pysqlite3.py").write_text("raise ImportError('left out by a test')\n")
    return {"PYTHONPATH": os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])}


def write_at_once(directory: Path, seconds: float, *, with_own_sqlite: bool) -> Report:
    """Do it in an empty directory."""
    data_dir = directory / "data"
    data_dir.mkdir(mode=0o700)
    environment = own_sqlite(directory / "shim") if with_own_sqlite else {}
    process = ServeProcess(data_dir, environment=environment, patient=True)
    process.upgrade()
    asked = subprocess.run(
        [sys.executable, "-c", "from receiver.db.sqlite import describe; print(describe())"],
        env=process.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    database = data_dir / "receiver.db"
    peak = 0
    with process:
        commands = _Commands(process, seconds)
        with Pushers(process, _PUSHERS) as pushers:
            commands.start()
            writers = [_start_writer(process, kind, seconds) for kind in ("writes", "empties")]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                peak = max(peak, database.with_name("receiver.db-wal").stat().st_size)
                time.sleep(0.05)
            written = sum(int(writer.communicate(timeout=seconds + 120)[0] or 0) for writer in writers)
            commands.join()
        verified = process.run("verify")
    with closing(connect_unchanging(database)) as connection:
        integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        kept = {row[0] for row in connection.execute("SELECT id FROM pushes")}
    missing = sum(push_id.replace("-", "") not in kept for push_id in pushers.acks)
    return Report(
        sqlite=asked.stdout.strip(),
        seconds=seconds,
        acknowledged=len(pushers.acks),
        missing=missing,
        commands=commands.done,
        failed=commands.failed,
        written=written,
        integrity=integrity,
        verify="" if verified.returncode == 0 else verified.stdout + verified.stderr,
        log_peak_bytes=peak,
    )


def _start_writer(process: ServeProcess, kind: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, f"sqlite:///{process.data_dir / 'receiver.db'}", kind, str(seconds)],
        env=process.env,
        stdout=subprocess.PIPE,
        text=True,
    )


class _Commands(threading.Thread):
    """Runs commands of the product that write, one after the other."""

    def __init__(self, process: ServeProcess, seconds: float) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._seconds = seconds
        self.done = 0
        self.failed: list[str] = []

    def run(self) -> None:
        end = time.monotonic() + self._seconds
        for number in itertools.count():
            for arguments, stdin in self._round(number):
                if time.monotonic() > end:
                    return
                ended = self._process.run(*arguments, stdin=stdin)
                self.done += 1
                if ended.returncode:
                    self.failed.append(f"receiver {' '.join(arguments)}: {ended.stderr.strip()}")

    @staticmethod
    def _round(number: int) -> list[tuple[tuple[str, ...], str | None]]:
        lines = ["taskId,phone"] + [f"soak-{number}-{row},150809{row:05d}" for row in range(500)]
        return [
            (("messages", "import", "-"), "\n".join(lines) + "\n"),
            (("keys", "create", f"soak-{number}", "--scope", "read"), None),
            (("erase", f"150809{number % 500:05d}", "--yes"), None),
            (("keys", "revoke", f"soak-{number}"), None),
            (("prune", "--yes", "--now-is-right"), None),  # the pushes say that they are of 2019
        ]


def main() -> int:
    """Run it, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.db.several_writers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="for how long (180)")
    parser.add_argument("--own-sqlite", action="store_true", help="on the interpreter's own SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = write_at_once(Path(directory), given.seconds, with_own_sqlite=given.own_sqlite)
    for name in report.__slots__:
        print(f"{name.replace('_', ' ')}: {getattr(report, name)}")
    print(f"read by {describe()}")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
