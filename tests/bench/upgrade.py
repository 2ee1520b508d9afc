"""`python -m tests.bench.upgrade`: a rolling upgrade across a migration that indexes ten million rows, under load.

Two nodes of this program behind nginx, at half the full load. Then: `db upgrade` by a program that has one migration
more, each node replaced in turn by it, and one of them by this program again, on the newer schema.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from receiver.db.version import VERSION
from tests.bench.report import publish
from tests.harness.postgres import PostgresServer
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parent.parent.parent
_CLIENTS = 32
_SAMPLE_SECONDS = 0.05
_SPELL_SECONDS = 10.0
_READY_SECONDS = 60.0
_SERVER = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "512MB",
    "log_lock_waits": "on",
    "deadlock_timeout": "100ms",
}
_NGINX = """
daemon off; pid {place}/nginx.pid; error_log {place}/error.log; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
    uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    upstream receivers {{ server 127.0.0.1:{one} max_fails=0; server 127.0.0.1:{other} max_fails=0; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port}; keepalive_requests 10000000;
        location / {{
            proxy_pass http://receivers; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""
_NEXT_MIGRATION = """
from receiver.db.migration_ops import create_index

revision, down_revision, branch_labels, depends_on = "{version}", "{before}", None, None


def upgrade():
    create_index("ix_messages_next", "messages", ["task_id"])
"""
_WAITS = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0), count(*)
FROM pg_locks WHERE NOT granted AND locktype = 'relation'
"""


@dataclass
class Found:
    """What one upgrade showed."""

    messages: int = 0
    machine_load: float = 0.0  # its load average before, which tells what else was at work
    rate: float = 0.0  # pushes a second that were offered
    upgrade_seconds: float = 0.0
    replace_seconds: list[float] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)  # one after the other, until the upgrade is done
    acknowledged: int = 0
    stored: int = 0
    spooled: float = 0.0
    longest_wait_seconds: float = 0.0  # of any session, for a lock on a table, sampled
    logged_waits: int = 0  # of over 100 ms, in the server's log
    version: str = ""
    schema: str = ""
    new_schema: str = ""


def _make_next_program(place: Path) -> str:
    """Make the program that comes after this one, which indexes messages; return its schema."""
    schema = f"{int(VERSION) + 1:04}"
    for name in ("receiver", "migrations"):
        shutil.copytree(_ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    module = place / "receiver/db/version.py"
    module.write_text(module.read_text().replace(f'\nVERSION = "{VERSION}"', f'\nVERSION = "{schema}"'))
    (place / "migrations/versions/index.py").write_text(_NEXT_MIGRATION.format(version=schema, before=VERSION))
    return schema


def measure(messages: int, rate: float | None = None) -> Found:
    """Upgrade under a load of so many pushes a second; None: half of what the old nodes take."""
    found = Found()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receiver-upgrade-")))
        new = place / "new"
        found.new_schema = _make_next_program(new)
        postgres = stack.enter_context(PostgresServer(_SERVER))
        url = postgres.create_database("upgrade")
        found.version = postgres.version
        fill = [sys.executable, "-m", "tests.bench.fill", url, "--messages", str(messages)]
        subprocess.run(fill, cwd=_ROOT, check=True)
        nodes = [_node(place / name, url, _ROOT) for name in ("one", "other")]
        front = stack.enter_context(_front(place / "front", nodes))
        target = f"http://127.0.0.1:{front.port}{front.target}"
        try:
            for node in nodes:
                node.start()
                _await_database(node)
            logged_before = len(postgres.log.read_bytes())
            found.machine_load = os.getloadavg()[0]
            if rate is None:
                full = _load(target, 5.0, None)
                found.acknowledged += full["acked"]
                rate = full["pushes_per_second"] / 2
            found.rate = rate
            with _sampling(url, found), _loading(target, rate, found):
                _upgrade_in_turn(found, nodes, url, new)
            found.acknowledged += sum(load["acked"] for load in found.loads)
            found.spooled += sum(_spooled(node) for node in nodes)
            _await_empty_spools(nodes)
        finally:
            for node in nodes:
                node.stop()
        with psycopg.connect(url) as connection:
            found.messages = messages
            (found.stored,) = connection.execute("SELECT count(*) FROM pushes").fetchone() or (0,)
            (found.schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
        logged = postgres.log.read_bytes()[logged_before:].decode(errors="replace")
        found.logged_waits = len(re.findall("still waiting for .* on relation", logged))
    return found


def _upgrade_in_turn(found: Found, nodes: list[ServeProcess], url: str, new: Path) -> None:
    begun = time.monotonic()
    upgraded = ServeProcess(nodes[0].data_dir, url, environment={"PYTHONPATH": str(new)}).run("db", "upgrade")
    if upgraded.returncode != 0:
        raise RuntimeError(upgraded.stderr)
    found.upgrade_seconds = time.monotonic() - begun
    for number, program in ((0, new), (1, new), (0, _ROOT)):  # the last: one version back
        begun = time.monotonic()
        found.spooled += _spooled(nodes[number])
        nodes[number].stop()
        nodes[number] = _node(nodes[number].data_dir, url, program, nodes[number].port)
        nodes[number].start()
        _await_database(nodes[number])
        found.replace_seconds.append(time.monotonic() - begun)


def _node(data_dir: Path, url: str, program: Path, port: int | None = None) -> ServeProcess:
    data_dir.mkdir(exist_ok=True)
    node = ServeProcess(data_dir, url, environment={"PYTHONPATH": str(program)}, patient=False)
    node.port = port or node.port
    return node


def _await_database(node: ServeProcess) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while node.request("GET", "/readyz").json.get("durable") != "database":
        if time.monotonic() > deadline:
            raise RuntimeError(node.log.read_text(errors="replace"))
        time.sleep(0.05)


def _await_empty_spools(nodes: list[ServeProcess]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while any(node.request("GET", "/readyz").json["spool"]["records"] for node in nodes):
        if time.monotonic() > deadline:
            raise RuntimeError("the spool was not saved")
        time.sleep(0.1)


def _spooled(node: ServeProcess) -> float:
    page = node.request("GET", "/metrics").body.decode()
    line = re.search(r'^receiver_pushes_total\{outcome="spooled"\} (\S+)', page, re.MULTILINE)
    return float(line[1]) if line else 0.0


def _load(url: str, seconds: float, rate: float | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--clients", str(_CLIENTS)]
    command += ["--seconds", str(seconds), "--warm-up", "0.1", *([] if rate is None else ["--rate", str(rate)])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def _front(place: Path, nodes: list[ServeProcess]) -> Iterator[ServeProcess]:
    """Run nginx before the nodes."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is needed: apt-get install nginx-light")
    place.mkdir()
    front = ServeProcess(place)
    one, other = (node.port for node in nodes)
    (place / "nginx.conf").write_text(_NGINX.format(place=place, one=one, other=other, port=front.port))
    with subprocess.Popen([program, "-p", place, "-c", place / "nginx.conf"]) as nginx:
        try:
            while not (place / "nginx.pid").exists():
                if nginx.poll() is not None:
                    raise RuntimeError((place / "error.log").read_text())
                time.sleep(0.05)
            yield front
        finally:
            nginx.terminate()


@contextmanager
def _loading(target: str, rate: float, found: Found) -> Iterator[None]:
    """Push from before until after, in spells."""
    done = threading.Event()

    def load() -> None:
        while not done.is_set() or not found.loads:
            found.loads.append(_load(target, _SPELL_SECONDS, rate))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        time.sleep(2)
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _sampling(url: str, found: Found) -> Iterator[None]:
    """Note the longest wait for a lock on a table that any session has meanwhile."""
    stop = threading.Event()

    def sample() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(_SAMPLE_SECONDS):
                longest, _ = connection.execute(_WAITS).fetchone() or (0, 0)
                found.longest_wait_seconds = max(found.longest_wait_seconds, float(longest))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _describe(found: Found) -> str:
    loads = found.loads
    p50, p99 = (statistics.median(load[name] for load in loads) for name in ("p50_ms", "p99_ms"))
    rows = [
        ("messages", f"{found.messages:,}"),
        (
            "pushes offered, half of the full load",
            f"{found.rate:,.0f}/s for {sum(load['seconds'] for load in loads):.0f} s",
        ),
        ("`db upgrade`, which indexes them all", f"{found.upgrade_seconds:.1f} s"),
        (
            "each node replaced, and one by the old program again",
            ", ".join(f"{taken:.1f} s" for taken in found.replace_seconds),
        ),
        ("failed pushes", f"{sum(load['errors'] for load in loads)}"),
        ("acknowledged from the spool", f"{found.spooled:.0f}"),
        ("acknowledged, stored", f"{found.acknowledged:,}, {found.stored:,}"),
        ("longest wait of any session for a lock on a table", f"{1000 * found.longest_wait_seconds:.0f} ms"),
        ("such waits of over 100 ms in the server's log", f"{found.logged_waits}"),
        ("acknowledgement p50, p99 (median of spells of ten seconds)", f"{p50:.1f}, {p99:.1f} ms"),
        ("the worst spell's p99, the slowest of all", f"{_worst(loads, 'p99_ms')}, {_worst(loads, 'max_ms')} ms"),
    ]
    return "\n".join(["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows)])


def _worst(loads: list[dict[str, Any]], name: str) -> str:
    return f"{max(load[name] for load in loads):,.0f}"


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000_000)
    given = parser.parse_args()
    found = measure(given.messages)
    publish(
        "upgrade",
        "A rolling upgrade under load",
        "Two nodes of this program behind nginx; `db upgrade` by one with a further index of messages, each node "
        "replaced in turn, then one of them by this program again, on the newer schema. The load generator, nginx, the "
        "servers and PostgreSQL share the cores.",
        [_describe(found)],
        version=found.version,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
