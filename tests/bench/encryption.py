"""`python -m tests.bench.encryption`: what encryption at rest costs, off and on side by side.

Bytes on disk; pushes a second and their latency; how long `db encrypt` and `db rotate` take, the latter beside pushes
and killed once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from receiver.db import migrate
from receiver.db.encryption import ColumnEncryption
from receiver.db.encryption.ciphers import Keyring
from receiver.db.engine import Database
from receiver.intake.spool import Spool, spool_state
from receiver.maintenance.rekey import encrypt
from receiver.messages.recording import record_sent
from tests.bench.report import publish
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.postgres import PostgresServer
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from receiver.core import Push, SentMessage

OLD, NEW = ("old", bytes(range(32))), ("new", bytes(range(32, 64)))
_SERVER = {"shared_buffers": "512MB", "max_wal_size": "8GB"}
_ROOT = Path(__file__).parent.parent.parent
_CLIENTS = 32
_BATCH = 500
_READY_SECONDS = 300.0

Keys = tuple[tuple[str, bytes], ...]


def main() -> int:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000, help="whose bytes are measured")
    parser.add_argument("--rows", type=int, default=300_000, help="pushes, one in ten a reply, that are sealed anew")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each spell of pushes")
    parser.add_argument("--rounds", type=int, default=3, help="spells without and with, in turn")
    parser.add_argument("--rate", type=float, default=500.0, help="pushes a second beside the rotation")
    parser.add_argument("--report", type=Path, default=Path("deploy/BENCHMARKS.md"))
    given = parser.parse_args()
    lines = []
    load_before = os.getloadavg()[0]
    with PostgresServer(_SERVER) as server, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        sizes = {on: _sizes(server, place, given.messages, keys) for on, keys in ((False, ()), (True, (OLD,)))}
        lines += ["| bytes a message in | off | on |", "|---|--:|--:|"]
        lines += [f"| {name} | {sizes[False][name]:,.0f} | {sizes[True][name]:,.0f} |" for name in sizes[False]]
        spells = _spells(server, place, given.seconds, given.rounds)
        lines += ["", "| pushes, 32 clients | off | on |", "|---|--:|--:|"]
        for shown, name in (("a second", "pushes_per_second"), ("p50, ms", "p50_ms"), ("p99, ms", "p99_ms")):
            off, on = (statistics.median(spell[name] for spell in spells[which]) for which in (False, True))
            lines.append(f"| {shown} | {off:,.{0 if off > 100 else 1}f} | {on:,.{0 if on > 100 else 1}f} |")
        lines += ["", "| | |", "|---|--:|"]
        lines += [f"| {name} | {value} |" for name, value in _rotation(server, place, given.rows, given.rate)]
    about = (
        f"Without and with `RECEIVER_ENCRYPTION_KEYS`, in turn, medians of {given.rounds} spells of {given.seconds:.0f}"
        " s on PostgreSQL; the load generator, the servers and PostgreSQL share the cores. A message is the record of "
        f"its send, its receipt and the journal's row. Load average before: {load_before:.1f}."
    )
    publish("encryption", "Encryption at rest", about, lines, version=server.version, page=given.report)
    return 0


def _open(url: str, keys: Keys) -> Database:
    """Make a database, encrypted where there are keys."""
    plain = Database(url, patience_seconds=60)
    migrate.upgrade(plain)
    if keys:
        encrypt(plain, Keyring(keys))
    plain.close()
    return Database(url, patience_seconds=60, encryption=ColumnEncryption(keys))


# --- Bytes ----------------------------------------------------------------------------------------------


def _sizes(server: PostgresServer, place: Path, count: int, keys: Keys) -> dict[str, float]:
    name = f"size{len(keys)}"
    url = server.create_database(name)
    database = _open(_of_driver(url), keys)
    with psycopg.connect(url, autocommit=True) as connection:
        size = "SELECT pg_database_size(current_database())"
        (empty,) = connection.execute(size).fetchone() or (0,)
        _fill(database, count)
        connection.execute("VACUUM ANALYZE")
        (full,) = connection.execute(size).fetchone() or (0,)
    database.close()
    embedded = _open(f"sqlite:///{place / name}.db", keys)
    _fill(embedded, count)
    embedded.close()
    spool = Spool(place / name, max_bytes=1 << 30, ring=Keyring(keys) if keys else None)
    for _, pushes in _batches(5000):
        spool.append(pushes)
    spool.close()
    state = spool_state(place / name)
    return {
        "PostgreSQL": (full - empty) / count,
        "SQLite": (place / f"{name}.db").stat().st_size / count,
        "the spool (a push alone)": state.bytes / state.records,
    }


def _fill(database: Database, count: int) -> None:
    for sends, pushes in _batches(count):
        database.write(partial(record_sent, sends=sends, recorded_at=NOON))
        save_pushes(database, pushes)


def _batches(count: int) -> Iterator[tuple[list[SentMessage], list[Push]]]:
    """Messages to numbers of all kinds, one a second."""
    chance = random.Random(1)
    for first in range(0, count, _BATCH):
        keys = [
            (str(3_000_000_000 + n), f"1{chance.randrange(3, 10)}{chance.randrange(10**9):09}")
            for n in range(first, first + _BATCH)
        ]
        sends = [make_send(task_id=task_id, mobile=mobile, template_id="540", sent_at=NOON) for task_id, mobile in keys]
        pushes = [make_push(task_id=task_id, mobile=mobile, second=n) for n, (task_id, mobile) in enumerate(keys)]
        yield sends, pushes


def _of_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


# --- Pushes ---------------------------------------------------------------------------------------------


def _spells(server: PostgresServer, place: Path, seconds: float, rounds: int) -> dict[bool, list[dict[str, Any]]]:
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for number in range(rounds):
        for on in (False, True) if number % 2 else (True, False):
            url = server.create_database(f"spell{number}{int(on)}")
            _open(_of_driver(url), (OLD,) if on else ()).close()
            with _node(place / f"spell{number}{int(on)}", url, (OLD,) if on else ()) as node:
                found[on].append(_load(node, seconds))
    return found


def _node(data_dir: Path, url: str, keys: Keys) -> ServeProcess:
    data_dir.mkdir(exist_ok=True)
    text = ",".join(f"{name}:{b64encode(key).decode()}" for name, key in keys)
    return ServeProcess(data_dir, url, environment={"RECEIVER_ENCRYPTION_KEYS": text})


def _load(node: ServeProcess, seconds: float, rate: float | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.load", "--url", f"http://127.0.0.1:{node.port}{node.target}"]
    command += ["--clients", str(_CLIENTS), "--seconds", str(seconds), "--warm-up", "1"]
    command += [] if rate is None else ["--rate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# --- On, and another key --------------------------------------------------------------------------------


def _rotation(server: PostgresServer, place: Path, rows: int, rate: float) -> list[tuple[str, str]]:
    url = server.create_database("rotation")
    database = _open(_of_driver(url), ())
    for first in range(0, rows, 500):
        contents = [f"收到,谢谢 {n}" if n % 10 == 0 else None for n in range(first, first + 500)]
        batch = [
            make_push(task_id=f"r{n}", mobile=f"139{n % 10**8:08}", content=content)
            for n, content in enumerate(contents, first)
        ]
        save_pushes(database, batch)
    database.close()
    begun = time.monotonic()
    _run(_node(place / "rotation", url, (OLD,)), "db", "encrypt")
    encrypted = time.monotonic() - begun
    loads: list[dict[str, Any]] = []
    done = threading.Event()
    with _node(place / "rotation", url, (NEW, OLD)) as node:

        def load() -> None:
            while not done.is_set():
                loads.append(_load(node, 10.0, rate))

        alone = _load(node, 10.0, rate)
        thread = threading.Thread(target=load)
        thread.start()
        begun = time.monotonic()
        _kill_midway(node, url)
        _run(node, "db", "rotate")
        rotated = time.monotonic() - begun
        done.set()
        thread.join()
        _await_saved(node)
    acked = sum(load["acked"] for load in (alone, *loads))
    with psycopg.connect(url) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM pushes").fetchone() or (0,)
    if stored != rows + acked:
        raise RuntimeError(f"{acked} were acknowledged, and {stored - rows} are stored")
    p99 = statistics.median(load["p99_ms"] for load in loads)
    return [
        (f"`db encrypt` of {rows:,} pushes with their messages, receipts and replies, alone", f"{encrypted:.0f} s"),
        (f"`db rotate` of them at {rate:.0f} pushes/s, killed once on the way and run again", f"{rotated:.0f} s"),
        ("pushes acknowledged meanwhile, all of them stored; failed", f"{acked:,}; {_errors((alone, *loads))}"),
        ("their p99 before; beside the rotation", f"{alone['p99_ms']:.1f} ms; {p99:.1f} ms"),
    ]


def _errors(loads: Sequence[dict[str, Any]]) -> int:
    return sum(load["errors"] for load in loads)


def _kill_midway(node: ServeProcess, url: str) -> None:
    """Begin a rotation, and end it by SIGKILL once it has sealed some rows."""
    rotation = subprocess.Popen([sys.executable, "-m", "receiver", "db", "rotate"], env=node.env, cwd=node.data_dir)
    some = "SELECT substr(body, 4, 3) = 'new' FROM pushes ORDER BY id LIMIT 1"
    with psycopg.connect(url, autocommit=True) as connection:
        while not (connection.execute(some).fetchone() or (False,))[0]:
            if rotation.poll() is not None:
                raise RuntimeError("the rotation ended by itself")
            time.sleep(0.05)
    time.sleep(2)
    rotation.send_signal(signal.SIGKILL)
    if rotation.wait() != -signal.SIGKILL:
        raise RuntimeError("the rotation ended before it was killed; take more rows")


def _run(node: ServeProcess, *arguments: str) -> None:
    command = [sys.executable, "-m", "receiver", *arguments]
    done = subprocess.run(command, env=node.env, cwd=node.data_dir, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr + done.stdout)


def _await_saved(node: ServeProcess) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while node.request("GET", "/readyz").json["spool"]["records"]:
        if time.monotonic() > deadline:
            raise RuntimeError("the spool was not saved")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
