"""Those that are measured, each started as its own users would start it, on an empty database."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg

from tests.harness.postgres_binaries import find_shared_place

SECRET = "bench-secret-of-the-default-account-0000000"
_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60
_STOP_SECONDS = 40

# Workers and threads of the rivals, by database: the best that were found for each, see beside them.
_WORKERS_AND_THREADS = {"none": (2, 4), "sqlite": (1, 1), "postgresql": (3, 8)}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Something that takes pushes at `/push/SECRET`."""

    name: str
    databases: tuple[str, ...]  # of `none`, `sqlite`, `postgresql` and `postgresql+2ms`
    ready_path: str

    def command(self, database: str, port: int | str) -> list[str]:
        """Give the command that starts it, without its environment. Raises LookupError where it cannot be had."""
        if self.name == "fastify":
            return ["node", str(_fastify() / "server.mjs")]
        return [sys.executable, *self._python_arguments(database.partition("+")[0], port)]

    def _python_arguments(self, database: str, port: int | str) -> list[str]:
        if self.name == "fastapi":
            application = "tests.bench.rivals.fastapi_asyncpg:app"
            return ["-m", "uvicorn", "--workers", "2", "--port", str(port), "--log-level", "error", application]
        if self.name.startswith("receiver"):
            return ["-m", "receiver", "serve", "--bind", f"127.0.0.1:{port}"]
        workers, threads = _WORKERS_AND_THREADS[database]
        return [
            *("-m", "gunicorn", "--preload", "--no-control-socket", "--worker-class", "gthread"),
            *("--workers", str(workers), "--threads", str(threads), "--bind", f"127.0.0.1:{port}"),
            f"tests.bench.rivals.{self.name}:app",
        ]

    def environment(self, database: str, database_url: str, data_dir: Path, port: int) -> dict[str, str]:
        """Give its settings; `database_url` is empty where it makes a file in `data_dir`."""
        if self.name.startswith("receiver"):
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
    place = _ROOT / "tests/bench/rivals/fastify_pg"
    if not (place / "node_modules").is_dir():
        if shutil.which("npm") is None:
            raise LookupError("npm is not there to install Fastify")
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True)
    return place


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant(name="noop", databases=("none",), ready_path="/"),
        Contestant(name="naive", databases=("sqlite", *_POSTGRESQL), ready_path="/"),
        Contestant(name="fastapi", databases=_POSTGRESQL, ready_path="/"),
        Contestant(name="fastify", databases=_POSTGRESQL, ready_path="/"),
        Contestant(name=PGBENCH, databases=_POSTGRESQL, ready_path=""),
        Contestant(name="receiver", databases=("sqlite", *_POSTGRESQL), ready_path="/healthz"),
        Contestant(name="receiver-no-lane", databases=("sqlite", "postgresql"), ready_path="/healthz"),
    )
}


class Running:
    """One contestant, up from entering the context to leaving it; what it stored is gone then too."""

    def __init__(self, contestant: Contestant, database: str, database_url: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/push/{SECRET}"
        self._contestant = contestant
        self._database = database
        self._database_url = database_url
        self._data_dir = Path(tempfile.mkdtemp(prefix="receiver-bench-", dir=find_shared_place(on_disk=True)))
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

    def count_stored(self) -> int | None:
        """Count the pushes in its database; None where it keeps none."""
        if self._database == "none":
            return None
        count = "SELECT count(*) FROM pushes"
        if self._database_url:
            with psycopg.connect(self._database_url) as connection:
                row = connection.execute(count).fetchone()
        else:
            with closing(sqlite3.connect(next(self._data_dir.glob("*.db")))) as file:
                row = file.execute(count).fetchone()
        assert row is not None
        return int(row[0])

    def _start(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_", "GUNICORN_"))},
            **self._contestant.environment(self._database, self._database_url, self._data_dir, self._port),
            "PYTHONPATH": str(_ROOT),
        }
        with self._log.open("ab") as log:
            if self._contestant.name.startswith("receiver") and self._database_url:
                upgrade = [sys.executable, "-m", "receiver", "db", "upgrade"]
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
