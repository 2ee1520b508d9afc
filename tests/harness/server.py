"""A real `receiver serve` for tests, and raw HTTP to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl  # noqa: TC003  (a dataclass' field)
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self

from receiver.auth import api_keys, changes
from receiver.db import migrate
from receiver.db.engine import Database
from tests.bench.usage import is_running, list_tree
from tests.harness.leaks import SECRET, leaks
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.harness.preloaded import Command, Preloaded

_START_SECONDS = 60
_ANSWER_SECONDS = 60
_COMMAND_SECONDS = 120
_PATIENT = ("-P", str(Path(__file__).with_name("patient.py")))


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.body)


@dataclass
class ServeProcess:
    """`receiver serve` with its own data directory.

    `patient`: pushes wait for the database for 20 seconds, and not for 0.4, before they go to the spool.
    """

    data_dir: Path
    database_url: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None  # what its clients trust; None: plain HTTP
    patient: bool = True
    redirections: str = ""  # of its output, as the shell has them: "2>&-"
    pass_fds: tuple[int, ...] = ()
    open_files: int = 0  # the hard limit that it is given; 0: that of the tests
    forked: bool = True  # where something is preloaded; else its command line names it, as that of a user's
    preloaded: ClassVar[Preloaded | None] = None  # what its commands are forks of; None: each is loaded anew
    keepalive: int = 0  # the seconds that it keeps an idle connection; 0: as it is

    def __post_init__(self) -> None:
        self.port = free_port()
        self.log = self.data_dir / "serve.log"  # standard error
        self.told = self.data_dir / "serve.out"  # what it tells a person
        self.target = f"/push/{SECRET}"
        self.key: Mapping[str, str] = {}  # headers, once a test has made a key
        self.listener: socket.socket | None = None  # one that is handed over, as systemd does
        self._process: subprocess.Popen[bytes] | Command | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECEIVER_")},
            "RECEIVER_DATA_DIR": str(self.data_dir),
            "RECEIVER_DATABASE_URL": self.database_url.replace("+psycopg", ""),
            "RECEIVER_BIND": f"127.0.0.1:{self.port}",
            "RECEIVER_PUSH_TOKENS": f"default:{SECRET}",
            "RECEIVER_ENCRYPTION_KEYS": os.environ.get("RECEIVER_ENCRYPTION_KEYS", ""),  # RECEIVER_TEST_ENCRYPTED
            **({"TEST_KEEPALIVE": str(self.keepalive)} if self.keepalive else {}),
            **self.environment,
        }

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run another `receiver` command on the same settings."""
        if self.preloaded is not None and self.preloaded.fits(self.env):
            return self.preloaded.run(arguments, self.env, self.data_dir, stdin, _COMMAND_SECONDS)
        return subprocess.run(
            [sys.executable, "-m", "receiver", *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            cwd=self.data_dir,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log, self.told.open("ab") as told, Path(os.devnull).open("rb") as nothing:
            own = bool(self.redirections or self.pass_fds or self.open_files or self.listener or not self.forked)
            if self.preloaded is not None and not own and self.preloaded.fits(self.env):
                self._process = self.preloaded.start(
                    ("serve", *self.arguments), self.env, self.data_dir, (nothing, told, log), patient=self.patient
                )
            else:
                self._process = self._launch(told, log)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if self.request("GET", "/healthz").status == 200:
                    return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text(errors="replace"))
            time.sleep(0.05)

    def _launch(self, told: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
        program: tuple[str, ...] = _PATIENT if self.patient else ("-m", "receiver")
        command = [sys.executable, *program, "serve", *self.arguments]
        if self.open_files:
            command = ["bash", "-c", f'ulimit -n {self.open_files}; exec "$@"', "bash", *command]
        handed_over: tuple[int, ...] = ()
        if self.listener is not None:
            # systemd's protocol: file descriptor 3, and this process' own id.
            handed_over = (self.listener.fileno(),)
            script = f'exec 3<&{handed_over[0]}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
            command = ["bash", "-c", script, "bash", *command]
        if self.redirections:
            command = ["bash", "-c", f'exec "$@" {self.redirections}', "bash", *command]
        return subprocess.Popen(
            command,
            env=self.env,
            stdout=told,
            stderr=log,
            cwd=self.data_dir,
            pass_fds=(*handed_over, *self.pass_fds),
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """End it and give its exit code."""
        if self._process is None:
            return None
        self._process.send_signal(how)
        code = self._process.wait(timeout=60)
        self._process = None
        assert leaks(self.log.read_text(errors="replace")) == []
        return code

    def await_worker(self) -> tuple[int, int]:
        """Its master and its worker, once there is one that runs."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            running = [pid for pid in list_tree(self._process.pid)[1:] if is_running(pid)]
            if running:
                return self._process.pid, running[-1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self, pid: int) -> None:
        """End one of its processes by SIGKILL."""
        os.kill(pid, signal.SIGKILL)
        if self._process is not None and pid == self._process.pid:
            self._process.wait(timeout=60)
            self._process = None

    def await_gone(self, pids: list[int], seconds: float = 60) -> None:
        """Wait until these processes have ended."""
        deadline = time.monotonic() + seconds
        while any(is_running(pid) for pid in pids):
            assert time.monotonic() < deadline, f"{pids} still run"
            time.sleep(0.02)

    def connect(self) -> socket.socket:
        """Open a connection to it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_SECONDS)
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_hostname="localhost")

    def exchange(self, raw: bytes, *, end_sending: bool = False) -> Answer:
        """Send raw bytes on a connection of their own and read one answer."""
        with self.connect() as connection:
            connection.sendall(raw)
            if end_sending:
                connection.shutdown(socket.SHUT_WR)
            return read_answer(connection, head=raw.startswith(b"HEAD "))

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return self.exchange("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def push(self, body: bytes, path: str = "") -> Answer:
        """Push a form as the platform does."""
        form = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
        return self.request("POST", self.target + path, body, form)

    def upgrade(self) -> None:
        """Bring its database's schema up to date, as `receiver db upgrade` does."""
        with closing(self._open_database()) as database:
            migrate.upgrade(database)

    def make_key(self, *scopes: str) -> dict[str, str]:
        """Make an API key, as `receiver keys create` does; its headers."""
        create = partial(
            changes.create_key,
            name=f"key-{time.monotonic_ns()}",
            scopes=[api_keys.Scope(scope) for scope in scopes],
            accounts=None,
            now=datetime.now(UTC),
            expires_at=None,
        )
        with closing(self._open_database()) as database:
            return {"Authorization": f"Bearer {database.write(create)}"}

    def _open_database(self) -> Database:
        return Database(self.database_url or f"sqlite:///{self.data_dir / 'receiver.db'}")


def read_answer(connection: socket.socket, *, head: bool = False) -> Answer:
    """Read one answer, and no byte of the next; interim ones are passed over."""
    while True:
        top = _until_blank_line(connection)
        first, *lines = top.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        if status >= 200:
            break
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = 0 if head else int(headers.get("Content-Length", "0"))
    body = b""
    while len(body) < length:
        piece = connection.recv(length - len(body))
        if not piece:
            raise ConnectionError("the connection ended inside the body")
        body += piece
    return Answer(status, headers, body)


def _until_blank_line(connection: socket.socket) -> bytes:
    top = b""
    while not top.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            raise ConnectionError(f"the connection ended inside the head: {top!r}")
        top += piece
    return top.removesuffix(b"\r\n\r\n")
