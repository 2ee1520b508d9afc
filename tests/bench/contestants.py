"""Those that are measured, each started as its own users would start it, on an empty database."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg

from tests.bench.load import LoadResult, run_load
from tests.harness.ports import free_port
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.postgres import PostgresServer

SECRET = "bench-secret-of-the-default-account-0000000"
ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60
_STOP_SECONDS = 40
_SETTLE_SECONDS = 120.0
_POLL_SECONDS = 0.01

# Workers and threads of the rivals, by database: the best that were found for each, see beside them.
_WORKERS_AND_THREADS = {"sqlite": (1, 1), "postgresql": (3, 8)}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Something that takes pushes at `/push/SECRET`."""

    name: str
    databases: tuple[str, ...]  # of `sqlite`, `postgresql` and `postgresql+2ms`
    ready_path: str
    tree: Path = ROOT  # where its program is
    python: str = sys.executable
    projects: bool = False  # what follows from a push comes after its acknowledgement

    @property
    def is_receiver(self) -> bool:
        """Whether it is this program, of whatever version."""
        return self.name.startswith("receiver")

    def command(self, database: str, port: int | str) -> list[str]:
        """Give the command that starts it, without its environment. Raises LookupError where it cannot be had."""
        if self.name == "fastify":
            return ["node", str(_fastify() / "server.mjs")]
        return [self.python, *self._python_arguments(database.partition("+")[0], port)]

    def _python_arguments(self, database: str, port: int | str) -> list[str]:
        if self.is_receiver:
            return ["-m", "receiver", "serve", "--bind", f"127.0.0.1:{port}"]
        workers, threads = _WORKERS_AND_THREADS[database]
        return [
            *("-m", "gunicorn", "--preload", "--no-control-socket", "--worker-class", "gthread"),
            *("--workers", str(workers), "--threads", str(threads), "--bind", f"127.0.0.1:{port}"),
            f"tests.bench.rivals.{self.name}:app",
        ]

    def environment(self, database: str, database_url: str, data_dir: Path, port: int) -> dict[str, str]:
        """Give its settings; `database_url` is empty where it makes a file in `data_dir`."""
        if self.is_receiver:
            return {
                "RECEIVER_DATA_DIR": str(data_dir),
                "RECEIVER_PUSH_TOKENS": f"default:{SECRET}",
                "RECEIVER_PUSH_LANE": "off" if self.name == "receiver-no-lane" else "on",
                **({"RECEIVER_DATABASE_URL": database_url} if database_url else {}),
            }
        return {
            "PUSH_SECRET": SECRET,
            "PORT": str(port),
            "THREADS": str(_WORKERS_AND_THREADS[database.partition("+")[0]][1]),
            "DATABASE_URL": database_url or f"sqlite:///{data_dir / 'naive.db'}",
        }


_POSTGRESQL = ("postgresql", "postgresql+2ms")
PGBENCH = "pgbench"  # not a server but PostgreSQL's own measure: one row for each commit, nothing around it


def _fastify() -> Path:
    """Where the Fastify rival stands, its packages installed."""
    place = ROOT / "tests/bench/rivals/fastify_pg"
    if not (place / "node_modules").is_dir():
        if shutil.which("npm") is None:
            raise LookupError("npm is not there to install Fastify")
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True)
    return place


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant(name="naive", databases=("sqlite", *_POSTGRESQL), ready_path="/"),
        Contestant(name="fastify", databases=_POSTGRESQL, ready_path="/"),
        Contestant(name=PGBENCH, databases=_POSTGRESQL, ready_path=""),
        Contestant(name="receiver", databases=("sqlite", *_POSTGRESQL), ready_path="/healthz", projects=True),
        Contestant(name="receiver-no-lane", databases=("sqlite", "postgresql"), ready_path="/healthz", projects=True),
    )
}


class Running:
    """One contestant, up from entering the context to leaving it; without a `data_dir`, what it stored is gone then."""

    def __init__(
        self, contestant: Contestant, database: str, database_url: str, *, data_dir: Path | None = None
    ) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/push/{SECRET}"
        self._contestant = contestant
        self._database = database
        self._database_url = database_url
        self._keeps = data_dir is not None
        self._data_dir = data_dir or Path(
            tempfile.mkdtemp(prefix="receiver-bench-", dir=find_shared_place(on_disk=True))
        )
        self._log = self._data_dir / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if not self._keeps:
            shutil.rmtree(self._data_dir, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Its main process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it; what it stored stays until the context is left."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own group, made below: nobody else is in it
            process.wait()

    def settle(self) -> None:
        """Wait until all its pushes are stored, and what follows from them. Raises TimeoutError."""
        if self._contestant.is_receiver:
            await_true(lambda: self._spooled() == 0, "the spool was not drained")
        if self._contestant.projects:
            with closing(self._open_database()) as connection:
                await_projected(connection)

    def _spooled(self) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            connection.request("GET", "/readyz", headers={"Connection": "close"})
            return int(json.load(connection.getresponse())["spool"]["records"])

    def count_stored(self) -> tuple[int, ...]:
        """Count the pushes in its database, and of a receiver its receipts and their copies."""
        queries = ["SELECT count(*) FROM pushes"]
        queries += ["SELECT coalesce(sum(copies), 0) FROM receipts"] * self._contestant.is_receiver
        with closing(self._open_database()) as connection:
            return tuple(_read_number(connection, query) for query in queries)

    def _open_database(self) -> psycopg.Connection | sqlite3.Connection:
        if self._database_url:
            return psycopg.connect(self._database_url, autocommit=True)
        return sqlite3.connect(next(self._data_dir.glob("*.db")))

    def _start(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_", "GUNICORN_"))},
            **self._contestant.environment(self._database, self._database_url, self._data_dir, self._port),
            "PYTHONPATH": str(self._contestant.tree),
        }
        with self._log.open("ab") as log:
            if self._contestant.is_receiver and self._database_url:
                upgrade = [self._contestant.python, "-m", "receiver", "db", "upgrade"]
                subprocess.run(upgrade, env=environment, cwd=self._data_dir, stdout=log, stderr=log, check=True)
            self._process = subprocess.Popen(
                self._contestant.command(self._database, self._port),
                env=environment,
                cwd=self._data_dir,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._contestant.name} did not start: {self._log.read_text(errors='replace')}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)) as connection:
            try:
                connection.request("GET", self._contestant.ready_path, headers={"Connection": "close"})
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


def await_projected(connection: psycopg.Connection | sqlite3.Connection) -> None:
    """Wait until all pushes of a database are projected. Raises TimeoutError."""
    await_true(lambda: _read_number(connection, _PENDING) <= 0, "pushes are not projected")


def await_true(done: Callable[[], bool], otherwise: str) -> None:
    """Wait until it is. Raises TimeoutError, which says what is not."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} after {_SETTLE_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


_PENDING = "SELECT coalesce(max(sequence), 0) - (SELECT position FROM projection) FROM pushes"


def _read_number(connection: psycopg.Connection | sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, kw_only=True)
class Burst:
    """A load, and how long it lasts."""

    clients: int
    seconds: float
    warm_up_seconds: float = 1.0
    per_push: bool = False
    slow_closers: int = 0
    projects: bool = True  # else nothing is projected, on PostgreSQL, until it is over


def run_burst(
    contestant: Contestant, database: str, server: PostgresServer | None, burst: Burst, *, into: str | Path = ""
) -> LoadResult:
    """Start the contestant, load it, stop it, and see that it stored what it acknowledged, and what follows from that.

    On an empty database, which is dropped then, or on that of the URL `into`, or of the data directory.
    Raises RuntimeError if any is missing.
    """
    with ExitStack() as stack:
        url, data_dir = ("", into) if isinstance(into, Path) else (into, None)
        if server is not None and not into:
            url = server.create_database("bench")
            stack.callback(server.drop_database, "bench")
        running = stack.enter_context(Running(contestant, database, url, data_dir=data_dir))
        before = running.count_stored() if into else (0, 0)
        watch = {"server": running.pid}
        if server is not None and server.pid is not None:
            watch["database"] = server.pid
        with nullcontext() if burst.projects else _without_projection(url):
            result = run_load(
                running.url,
                clients=burst.clients,
                seconds=burst.seconds,
                per_push=burst.per_push,
                warm_up_seconds=burst.warm_up_seconds,
                watch=watch,
                slow_closers=burst.slow_closers,
                settle=running.settle if burst.projects else lambda: None,
            )
        running.settle()
        running.stop()
        stored = [after - there for there, after in zip(before, running.count_stored(), strict=False)]
    if any(number < result.acked for number in stored):
        raise RuntimeError(f"acknowledged {result.acked} pushes, stored (and projected) {stored}")
    return result


@contextmanager
def _without_projection(database_url: str) -> Iterator[None]:
    """Take the projector's turn, so that no other does."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT position FROM projection FOR UPDATE")
        yield
