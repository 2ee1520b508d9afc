"""What is recorded: a really running `receiver serve`, its clients, what locks its database, and commands beside it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess
from tests.power_loss.disk import MEMORY, Content, Disk, Names
from tests.power_loss.recorder import Entry, Kind, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DATABASE = "receiver.db"
_CLIENTS = 4
_WAIT_SECONDS = 60
_CHECKPOINTS = 4
_ROUNDS = 3
_FORGOTTEN = "15080929999"
# The lock is held by a process of its own that is recorded too: SQLite's last connection to close writes to the file.
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


class Recorded:
    """A receiver whose every write is recorded, in a data directory that was made before."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = (directory / "var").resolve()
        self.data_dir.mkdir(mode=0o700)
        self.recorder = Recorder(directory, root=self.data_dir)
        self.acks: dict[str, str] = {}  # push id: task id
        self._environment = environment(self.data_dir) | self.recorder.environment
        self.process = ServeProcess(directory, environment=self._environment, patient=False)

    @contextmanager
    def pushing(self, *, clients: int = _CLIENTS, pause_seconds: float = 0.002) -> Iterator[Pushers]:
        """Have clients push from entering the context to leaving it."""
        with Pushers(self.process, clients, pause_seconds=pause_seconds) as pushers:
            yield pushers
        self.acks |= pushers.acks

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the database from taking anything meanwhile."""
        command = [sys.executable, "-c", _LOCK, str(self.data_dir / DATABASE)]
        with subprocess.Popen(
            command, env=os.environ | self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            yield
            holder.communicate(timeout=_WAIT_SECONDS)

    def run(self, *arguments: str, stdin: str | None = None) -> None:
        """Run another `receiver` command, which is to succeed."""
        done = self.process.run(*arguments, stdin=stdin)
        if done.returncode:
            raise RuntimeError(f"receiver {arguments[0]} ended with {done.returncode}: {done.stderr}")

    def await_drained(self) -> None:
        """Wait until nothing waits in the spool."""
        await_true(lambda: not list((self.data_dir / "spool").glob("*.spool")))

    def count_checkpoints(self) -> int:
        """Count how often the database file itself was made durable so far."""
        inode = (self.data_dir / DATABASE).stat().st_ino
        return sum(entry.kind is Kind.SYNC_END and entry.file == inode for entry in self.recorder.entries())


@dataclass(frozen=True)
class Scenario:
    """What is done while everything is recorded."""

    name: str
    told: str
    act: Callable[[Recorded], None]


def record(scenario: Scenario, directory: Path) -> tuple[Path, list[Entry]]:
    """Act it out in an empty directory; give the data directory and the record.

    Raises RuntimeError where the record does not lead to the files that are there, or lacks an acknowledgement.
    """
    recorded = Recorded(directory)
    with recorded.process:
        scenario.act(recorded)
    entries = list(recorded.recorder.entries())
    _require_exact(recorded, entries)
    return recorded.data_dir, entries


def environment(data_dir: Path) -> dict[str, str]:
    """Give the settings of a receiver on this data directory."""
    return {"RECEIVER_DATA_DIR": str(data_dir), "RECEIVER_ENCRYPTION_KEYS": ""}


def await_true(condition: Callable[[], bool]) -> None:
    """Wait until it holds. Raises TimeoutError."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _require_exact(recorded: Recorded, entries: Sequence[Entry]) -> None:
    disk = Disk(recorded.data_dir)
    for entry in entries:
        disk.apply(entry)
    if lacking := recorded.acks.keys() - {entry.data.decode() for entry in entries if entry.kind is Kind.ACKED}:
        raise RuntimeError(f"the record lacks {len(lacking)} acknowledgements")
    image = disk.image(Content.ALL, Names.STRICT_ALL, random.Random(0))
    there = {
        str(path.relative_to(recorded.data_dir)): path.read_bytes() if path.is_file() else None
        for path in recorded.data_dir.rglob("*")
        if not path.name.endswith(MEMORY)
    }
    if wrong := [path for path in image.keys() | there.keys() if image.get(path, b"") != there.get(path, b"")]:
        raise RuntimeError(f"the record does not lead to what is there: {sorted(wrong)}")


def _spool(recorded: Recorded) -> None:
    with recorded.locked(), recorded.pushing() as pushers:
        pushers.await_acks(1200)


def _sqlite(recorded: Recorded) -> None:
    with recorded.pushing() as pushers:
        pushers.await_acks(800)
        await_true(lambda: recorded.count_checkpoints() >= _CHECKPOINTS)


def _drain(recorded: Recorded, *, rounds: int = _ROUNDS) -> None:
    with recorded.pushing(pause_seconds=0.01) as pushers:
        for _ in range(rounds):
            pushers.await_acks(100)
            with recorded.locked():
                await_true(lambda: bool(list((recorded.data_dir / "spool").glob("*.spool"))))
                pushers.await_acks(150)
            recorded.await_drained()


def _commands(recorded: Recorded) -> None:
    forgotten = [_push(recorded, f"forgotten-{number}") for number in range(20)]
    past = datetime.now(UTC) - timedelta(days=400)
    sends = [f"past-{number},1508092{number % 10_000:04d},{past:%Y-%m-%d %H:%M:%S}" for number in range(1000)]
    with recorded.pushing(clients=2, pause_seconds=0.03):
        recorded.run("messages", "import", "-", stdin="\n".join(["task_id,mobile,sent_at", *sends]))
        recorded.run("keys", "create", "cashier", "--scope", "read")
        recorded.recorder.give_up(forgotten)
        recorded.run("erase", "-", "--yes", "--reason", "request 4711", stdin=_FORGOTTEN)
        recorded.run("run", "prune")
        recorded.run("keys", "revoke", "cashier")


def _push(recorded: Recorded, task_id: str) -> str:
    body = f"mobile={_FORGOTTEN}&taskid={task_id}&status=1&receivetime=2019-07-23+17%3A00%3A00"
    return recorded.process.push(body.encode()).headers["X-Push-Id"]


SCENARIOS = (
    Scenario("spool", "the database locked all the time", _spool),
    Scenario("sqlite", "SQLite from an empty directory, several checkpoints", _sqlite),
    Scenario("drain", "SQLite locked three times: spool, drain, removal", _drain),
    Scenario("commands", "import, keys, forget and prune beside pushes", _commands),
)
SHORT = Scenario("short", "SQLite locked once: spool, drain, removal", lambda recorded: _drain(recorded, rounds=1))
