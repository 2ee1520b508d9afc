"""What `deploy` describes, whole, on one machine: nginx, two or three receivers, PostgreSQL with a synchronous standby
under Patroni, three of etcd; each in a network namespace with the very addresses that the files of `deploy` have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

from tests.bench.usage import cpu_seconds, list_tree
from tests.faults.clock import SkewedClock
from tests.faults.nets import Net
from tests.faults.units import Unit, end
from tests.harness.leaks import SECRET
from tests.harness.nginx import NAME, find_nginx, lay_out
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
_DEPLOYED_BIN = "/usr/lib/postgresql/15/bin"
POSTGRES_BIN = max(  # Debian's newest: Patroni's own packages know no other place
    (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")),
    key=lambda path: float(path.parent.name),
    default=Path(_DEPLOYED_BIN),
)
CLIENT = "203.0.113.10"
WORLD = "203.0.113.5"  # nginx, for the world
NODES = {"node1": "10.0.0.11", "node2": "10.0.0.12", "node3": "10.0.0.13"}
DATABASES = {"db1": "10.0.0.21", "db2": "10.0.0.22"}
_DCS = ("10.0.0.31", "10.0.0.32", "10.0.0.33")
_PASSWORD = "of-the-receiver-in-the-fault-run"
_NODE_DISK = "48M"
_DATABASE_DISK = 4 << 30  # sparse
_VERIFY_SECONDS = 1200
_START_SECONDS = 120.0
_POLL_SECONDS = 0.1
_APT = "apt-get install -y --no-install-recommends"
_NEEDED = {
    "ip": "iproute2",
    "nft": "nftables",
    "etcd": "etcd-server",
    "patroni": "patroni",
    "setpriv": "util-linux",
    "mount": "mount",
    "mkfs.ext4": "e2fsprogs",
    "cc": "gcc libc6-dev",
}


def missing() -> str | None:
    """Say what this machine lacks, and what to do; None where all is there."""
    if os.geteuid() != 0:
        return "network namespaces and mounts need root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    packages = [package for program, package in _NEEDED.items() if shutil.which(program, path=path) is None]
    packages += ["nginx-light"] * (find_nginx() is None)
    packages += ["postgresql"] * (not POSTGRES_BIN.is_dir())
    return f"{_APT} {' '.join(packages)}" if packages else None


class Cluster:
    """All of it, from entering the context to leaving it; nothing is left behind.

    `nodes`: how many receivers, two or three. `workers`: the processes of each.
    """

    def __init__(self, *, nodes: int = 2, workers: int = 1) -> None:
        self.nodes = dict(islice(NODES.items(), nodes))
        self._workers = workers
        self._stack = ExitStack()
        self.units: dict[str, Unit] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            error.add_note("\n".join(f"--- {unit.name}\n{unit.said()}" for unit in self.units.values()))
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- What it is asked ---

    def primary(self) -> str | None:
        """Name the database that is the primary now; None: there is none."""
        return next((name for name in DATABASES if self._patroni_says(name, "primary")), None)

    def standby(self) -> str | None:
        """Name the database that is the synchronous standby now; None: there is none."""
        return next((name for name in DATABASES if self._patroni_says(name, "sync")), None)

    def spooled_records(self, node: str) -> int | None:
        """Count what waits in a node's spool; None: the node or its database is away."""
        state = self._ask(node, f"http://{self.nodes[node]}:8000/readyz")
        if state is None or state.get("durable") != "database":
            return None
        return int(state["spool"]["records"])

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the primary."""
        address = DATABASES[self.primary() or "db1"]
        return self.net["node1"].run(lambda: self._query(address, statement))

    def receiver(self, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `receiver` command on a node."""
        command = self.net[node].command(sys.executable, "-m", "receiver", *arguments)
        return subprocess.run(
            command,
            env=self._receiver_environment(node),
            capture_output=True,
            text=True,
            check=False,
            timeout=_VERIFY_SECONDS,
        )

    def data_dir(self, node: str) -> Path:
        """Give the disk of a node or of a database."""
        return self.place / node

    def cpu_seconds(self) -> dict[str, float]:
        """Give the processor time so far of what takes pushes: by nginx, receivers, primary and standby."""
        kinds = {"nginx": ["nginx"], "receivers": list(self.nodes)}
        used = {kind: sum(cpu_seconds(self.units[name].tree()) for name in names) for kind, names in kinds.items()}
        for role, name in (("primary", self.primary()), ("standby", self.standby())):
            postmaster = self._postmaster(name) if name is not None else None
            used[role] = cpu_seconds(list_tree(postmaster)) if postmaster is not None else 0.0
        return used

    def await_healthy(self, seconds: float) -> float | None:
        """Wait until all spools are empty, the primary has its standby and nginx answers; how long it took.

        None: it did not come to that in time.
        """
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            if self._healthy():
                return time.monotonic() - begun
            time.sleep(_POLL_SECONDS)
        return None

    def await_drained(self, seconds: float) -> float | None:
        """Wait until all receivers keep pushes in the database and have nothing spooled; how long it took, or None."""
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            if all(self.spooled_records(node) == 0 for node in self.nodes):
                return time.monotonic() - begun
            time.sleep(_POLL_SECONDS)
        return None

    def keep_logs(self, where: Path) -> None:
        """Copy what everybody said, and what became of each push."""
        where.mkdir(parents=True, exist_ok=True)
        for path in (*self.place.glob("*.log"), *self.place.glob("*.ndjson"), *(self.place / "nginx").glob("**/*.log")):
            shutil.copy(path, where)

    # --- What is done to it ---

    def kill_postgres(self, name: str) -> None:
        """End a PostgreSQL server by SIGKILL."""
        os.kill(self._postmaster(name) or 0, signal.SIGKILL)

    @contextmanager
    def disk_full(self, name: str) -> Iterator[None]:
        """Leave no byte on the disk of a node or of a database."""
        ballast = self.data_dir(name) / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):  # the last ones byte by byte: files grow into what is left
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def own_clock(self, node: str) -> Iterator[SkewedClock]:
        """Restart a receiver under a clock of its own that can be set; back under the machine's afterwards."""
        directory = self.place / f"{node}-clock"
        directory.mkdir()
        clock = SkewedClock(directory)
        plain = self.units[node].environment
        self._restart(node, {**plain, **clock.environment})
        try:
            yield clock
        finally:
            self._restart(node, plain)

    # --- How it is made ---

    def _start(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="receiver-faults-", dir=find_shared_place(on_disk=True)))
        self.place.chmod(0o755)
        self._stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        hosts = {"client": (CLIENT,), "nginx": ("10.0.0.5", WORLD), "dcs": _DCS}
        hosts |= {name: (address,) for name, address in (self.nodes | DATABASES).items()}
        self.net = self._stack.enter_context(Net(hosts))
        for number, address in enumerate(_DCS, 1):
            self._start_etcd(f"etcd{number}", address)
        self._await(lambda: self._ask("dcs", f"http://{_DCS[0]}:2379/health") is not None, "etcd")
        for name in DATABASES:
            self._start_patroni(name)
        self._await(lambda: self.primary() is not None, "a primary")
        self._make_database()
        for node in self.nodes:
            (self.place / node).mkdir()
            self._mount(["-t", "tmpfs", "-o", f"size={_NODE_DISK},mode=0700", "tmpfs"], self.place / node)
        migrated = self.receiver("node1", "db", "upgrade")
        if migrated.returncode != 0:
            raise RuntimeError(migrated.stderr)
        for node, address in self.nodes.items():
            serve = ("serve", "--bind", f"{address}:8000", "--workers", str(self._workers))
            command = self.net[node].command(sys.executable, "-m", "receiver", *serve)
            self._add(node, command, self._receiver_environment(node))
        self._start_nginx()
        if self.await_healthy(_START_SECONDS) is None:
            raise RuntimeError("it did not come up whole")

    def _start_etcd(self, name: str, address: str) -> None:
        settings = dict(
            line.split("=", 1)
            for line in (ROOT / "deploy/patroni/etcd.default").read_text().splitlines()
            if line and not line.startswith("#")
        )
        settings |= {
            key: value.replace("10.0.0.31", address) for key, value in settings.items() if "CLUSTER" not in key
        }
        settings |= {"ETCD_NAME": name, "ETCD_DATA_DIR": str(self.place / name)}
        settings["ETCD_LOG_LEVEL"] = "error"
        self._add(name, self.net["dcs"].command("etcd"), _bare_environment() | settings)

    def _start_patroni(self, name: str) -> None:
        disk = self.place / name
        image = self.place / f"{name}.img"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(_DATABASE_DISK)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", image], check=True, capture_output=True)
        self._mount(["-o", "loop", str(image)], disk)
        shutil.chown(disk, "postgres", "postgres")
        sockets = self.place / f"{name}-run"
        sockets.mkdir()
        shutil.chown(sockets, "postgres", "postgres")
        text = (ROOT / "deploy/patroni/patroni.yml").read_text()
        for old, new in {
            "name: db1": f"name: {name}",
            "10.0.0.21": DATABASES[name],
            "/var/lib/postgresql/15/receiver": str(disk / "data"),
            _DEPLOYED_BIN: str(POSTGRES_BIN),
            "/var/lib/postgresql/receiver.pgpass": str(sockets / "pgpass"),
            "/var/run/postgresql": str(sockets),
        }.items():
            assert old in text, f"not in patroni.yml: {old}"
            text = text.replace(old, new)
        settings = sockets / "patroni.yml"
        settings.write_text(text)
        shutil.chown(settings, "postgres", "postgres")
        settings.chmod(0o600)
        self._stack.callback(self._end_postgres, name)
        command = self.net[name].command(*_AS_POSTGRES, "patroni", str(settings))
        self._add(name, command, _bare_environment(), restart_seconds=1.0)

    def _make_database(self) -> None:
        """As the README of deploy/patroni says."""
        sockets = self.place / f"{self.primary()}-run"
        for statement in (
            f"CREATE ROLE receiver LOGIN PASSWORD '{_PASSWORD}'",
            "CREATE DATABASE receiver OWNER receiver",
        ):
            command = [*_AS_POSTGRES, str(POSTGRES_BIN / "psql"), "-h", str(sockets), "-c", statement]
            subprocess.run(command, check=True, capture_output=True, env=_bare_environment(), cwd="/")

    def _start_nginx(self) -> None:
        front = self.place / "nginx"
        front.mkdir()
        self.authority = self.place / "authority.pem"
        lay_out(front, self._more_receivers()).cert_pem.write_to_path(self.authority)
        settings = front / "nginx.conf"
        settings.write_text(settings.read_text().replace("worker_connections 1024", "worker_connections 4096"))
        program = find_nginx()
        assert program is not None
        command = self.net["nginx"].command(program, "-p", str(front), "-c", str(front / "nginx.conf"))
        self._add("nginx", command, _bare_environment())

    def _more_receivers(self) -> dict[str, str]:
        """Give what to replace in receiver.conf, which names two: a line of the second by it and one for each more."""
        second, *more = list(self.nodes.values())[1:]
        lines = [
            f"    server {second}:8000 {kind};\n" for kind in ("max_fails=3 fail_timeout=1s", "backup max_fails=0")
        ]
        return {line: "".join(line.replace(second, each) for each in (second, *more)) for line in lines} if more else {}

    def _add(
        self, name: str, command: list[str], environment: Mapping[str, str], *, restart_seconds: float = 1.0
    ) -> None:
        unit = Unit(
            name=name,
            command=command,
            environment=environment,
            log=self.place / f"{name}.log",
            restart_seconds=restart_seconds,
        )
        self.units[name] = unit
        self._stack.callback(unit.stop)
        unit.start()

    def _restart(self, name: str, environment: Mapping[str, str]) -> None:
        unit = self.units[name]
        unit.stop()
        unit.environment = environment
        unit.start()
        self._await(lambda: self.spooled_records(name) is not None, name)

    def _mount(self, what: list[str], where: Path) -> None:
        subprocess.run(["mount", *what, str(where)], check=True, capture_output=True)
        self._stack.callback(subprocess.run, ["umount", "--lazy", str(where)], check=False)

    def _receiver_environment(self, node: str) -> dict[str, str]:
        hosts = ",".join(DATABASES.values())
        return _bare_environment() | {
            "RECEIVER_DATA_DIR": str(self.place / node),
            "RECEIVER_DATABASE_URL": (
                f"postgresql://receiver:{_PASSWORD}@{hosts}/receiver?target_session_attrs=read-write"
            ),
            "RECEIVER_PUSH_TOKENS": f"default:{SECRET}",
            "RECEIVER_TRUSTED_PROXIES": "10.0.0.5",
            "RECEIVER_PUBLIC_URL": f"https://{NAME}",
            "PYTHONPATH": str(ROOT),
        }

    def _healthy(self) -> bool:
        return (
            all(self.spooled_records(node) == 0 for node in self.nodes)
            and self.primary() is not None
            and self.standby() is not None
        )

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what} within {_START_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)

    def _patroni_says(self, name: str, role: str) -> bool:
        return self._ask(name, f"http://{DATABASES[name]}:8008/{role}") is not None

    def _ask(self, host: str, url: str) -> Any:
        """Give what a URL answers, asked on that host itself; None where it answers anything but 200."""

        def ask() -> Any:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return json.loads(answer.read())
            except (OSError, ValueError):
                return None

        return self.net[host].run(ask)

    def _query(self, address: str, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=address, user="receiver", password=_PASSWORD, dbname="receiver", connect_timeout=5
        ) as connection:
            return connection.execute(statement.encode()).fetchall()

    def _postmaster(self, name: str) -> int | None:
        try:
            return int((self.place / name / "data" / "postmaster.pid").read_text().splitlines()[0])
        except (OSError, IndexError, ValueError):
            return None

    def _end_postgres(self, name: str) -> None:
        """Patroni's server outlives Patroni where that was killed."""
        pid = self._postmaster(name)
        if pid is not None and _data_of(pid) == str(self.place / name / "data"):
            end(pid, seconds=20)


_AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")


def _data_of(pid: int) -> str | None:
    """Give the data directory that a PostgreSQL server's command line names; None: it is none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    return words[words.index("-D") + 1] if "-D" in words else None


def _bare_environment() -> dict[str, str]:
    """The environment without what is meant for other servers and for Python's own."""
    left_out = ("RECEIVER_", "PG", "PYTHON", "ETCD", "PATRONI", "LC_", "LANG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"PATH": f"{kept['PATH']}:/usr/sbin:/sbin"}
