"""`python -m tests.bench.mixed EMPTY FULL`: pushes and questions at once, on databases of `tests.bench.fill`.

Pushes into the empty and the full one take turns. Then, into the full one at half its rate: pushes alone, beside
look-ups over HTTP, beside an export that never ends, and beside reports without a pause.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg

from tests.bench.contestants import CONTESTANTS, Running
from tests.bench.report import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CLIENTS = 32
_LOOK_UP_PAUSE_SECONDS = 0.05
_DRAWS = 200


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("empty", help="postgresql://… of an empty database")
    parser.add_argument("full", help="postgresql://… of a filled one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(given.rounds):
        for name, url in (("empty", given.empty), ("full", given.full)):
            with Running(CONTESTANTS["receiver"], "postgresql", url) as server:
                rates[name].append(push_from_a_process(server.url, given.seconds)["pushes_per_second"])
                server.settle()  # else the next one would project what this one left
            print(f"{name}: {rates[name][-1]:,.0f}/s", file=sys.stderr)
    empty, full = (statistics.median(rates[name]) for name in ("empty", "full"))
    pairs = [after / before for before, after in zip(rates["empty"], rates["full"], strict=True)]
    acks: dict[str, list[dict[str, Any]]] = {}
    asked: dict[str, list[float]] = {}
    with Running(CONTESTANTS["receiver"], "postgresql", given.full) as server:
        port = urlsplit(server.url).port or 0
        key = _make_key(given.full)
        beside: dict[str, Callable[[threading.Event], None]] = {
            "nothing": lambda stop: stop.wait(),  # type: ignore[dict-item]
            "look-ups": lambda stop: _look_up(stop, given.full, port, key, asked),
            "an export": lambda stop: _ask_on(stop, port, key, "/api/v1/exports/messages"),
            "reports": lambda stop: _ask_on(stop, port, key, _report_path(given.full)),
        }
        for _ in range(given.rounds):
            for name, work in beside.items():
                with _running(work):
                    acks.setdefault(name, []).append(push_from_a_process(server.url, 2 * given.seconds, rate=full / 2))
                print(f"beside {name}: p99 {acks[name][-1]['p99_ms']} ms", file=sys.stderr)
    with psycopg.connect(given.full) as connection:
        version = str(connection.execute("SHOW server_version").fetchone()[0]).split(" ")[0]
        count = connection.execute("SELECT reltuples::bigint FROM pg_class WHERE relname = 'messages'").fetchone()[0]
    lines = [
        f"| into | pushes/s (median of {given.rounds}) |",
        "|---|--:|",
        f"| empty tables | {empty:,.0f} |",
        f"| {count:,} messages | {full:,.0f} |",
        "",
        f"Ratio of each pair: {', '.join(f'{ratio:.2f}' for ratio in pairs)}; median {statistics.median(pairs):.2f}.",
        "",
        f"At half that rate ({full / 2:,.0f} pushes/s into the full one), acknowledgements in ms, and errors:",
        "",
        "| beside | p50 | p99 | slowest | errors |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, results in acks.items():
        medians = (statistics.median(result[field] for result in results) for field in ("p50_ms", "p99_ms", "max_ms"))
        errors = sum(result["errors"] for result in results)
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in medians) + f" | {errors} |")
    lines += [
        "",
        "Look-ups over HTTP meanwhile, in ms:",
        "",
        "| question | p50 | p95 | p99 | asked |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, times in asked.items():
        cuts = statistics.quantiles(times, n=100)
        lines.append(f"| {name} | {cuts[49]:.1f} | {cuts[94]:.1f} | {cuts[98]:.1f} | {len(times)} |")
    publish(
        "mixed",
        "Pushes and questions at once",
        "The load generator, the server and PostgreSQL share the cores.",
        lines,
        version=version,
    )
    return 0


def push_from_a_process(url: str, seconds: float, rate: float | None = None) -> dict[str, Any]:
    """Push in a process of its own, and give what it found."""
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--clients", str(_CLIENTS)]
    command += ["--seconds", str(seconds), *([] if rate is None else ["--rate", str(rate)])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _look_up(stop: threading.Event, database: str, port: int, key: str, times: dict[str, list[float]]) -> None:
    """Ask as support staff and their tools do, and note how long each answer takes."""
    chance = random.Random(540)
    with psycopg.connect(database) as connection:
        newest = connection.execute("SELECT max(id) FROM messages WHERE sent_at IS NOT NULL").fetchone()[0]
        ids = [chance.randint(1, newest) for _ in range(_DRAWS)]
        query = "SELECT id, task_id, mobile FROM messages WHERE id = ANY(%s) AND task_id IS NOT NULL"
        drawn = connection.execute(query, [ids]).fetchall()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.wait(_LOOK_UP_PAUSE_SECONDS):
        message_id, task_id, mobile = chance.choice(drawn)
        for name, method, path, body in (
            ("by number", "POST", "/api/v1/messages/search", {"mobile": mobile}),
            ("by task id", "GET", f"/api/v1/messages?task_id={task_id}", None),
            ("one message with its timeline", "GET", f"/api/v1/messages/{message_id}", None),
            ("first page", "GET", "/api/v1/messages?limit=50", None),
        ):
            begun = time.perf_counter()
            status = _ask(client, method, path, key, body)
            times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
            assert status == 200, f"{path}: {status}"


def _ask_on(stop: threading.Event, port: int, key: str, path: str) -> None:
    """Ask the same again and again, and read whatever comes."""
    while not stop.is_set():
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = client.getresponse()
        assert answer.status == 200, f"{path}: {answer.status}"
        while not stop.is_set() and answer.read(1 << 16):
            pass
        client.close()


def _ask(client: http.client.HTTPConnection, method: str, path: str, key: str, body: Any) -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    client.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    answer = client.getresponse()
    answer.read()
    return answer.status


def _report_path(database: str) -> str:
    with psycopg.connect(database) as connection:
        query = "SELECT max(sent_at)::date - 29, max(sent_at)::date + 1 FROM messages"
        first, end = connection.execute(query).fetchone()  # type: ignore[misc]
    return f"/api/v1/reports/delivery?from={first}&to={end}&group_by=day,template_id"


def _make_key(database: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "RECEIVER_DATABASE_URL": database, "RECEIVER_DATA_DIR": place}
        name = f"bench {time.time_ns()}"
        command = [sys.executable, "-m", "receiver", "keys", "create", name]
        scopes = [f"--scope={scope}" for scope in ("read", "reports", "export", "pii")]
        made = subprocess.run([*command, *scopes], env=environment, capture_output=True, text=True, check=True)
    return made.stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
