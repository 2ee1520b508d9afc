"""`python -m tests.bench.flood`: what a wrong secret costs the server, and honest pushes beside a flood of them.

With the push lane and without it. Each wrong push has a secret of its own and comes on a kept connection, or on one of
its own; the flood, the load generator, the server and PostgreSQL share the cores.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.bench.contestants import CONTESTANTS, Running
from tests.bench.mixed import push_from_a_process
from tests.bench.report import publish
from tests.bench.usage import cpu_seconds, list_tree
from tests.harness.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENDERS = 8
_COSTED = 1000
_BODY = b"mobile=15080921090&taskid=flood&status=1&receivetime=2026-11-23+09%3A14%3A03"
_FLOODS = ("none", "kept connections", "a connection each")


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flood", nargs=3, metavar=("PORT", "RATE", "HOW"), help="be the flood, until ended")
    parser.add_argument("--rate", type=int, default=2000, help="wrong pushes a second")
    parser.add_argument("--only", nargs="+", default=["receiver", "receiver-no-lane"], help="these servers alone")
    parser.add_argument("--rounds", type=int, default=3, help="beside a flood; 0: only what each costs")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    if given.flood:
        port, rate, how = given.flood
        _flood(int(port), int(rate), per_push=how == _FLOODS[2])
        return 0
    costs = {name: _costs(name) for name in given.only}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with PostgresServer() as postgres:
        for _ in range(given.rounds):
            for name in given.only:
                for how in _FLOODS:
                    result = _measure(postgres, name, how, rate=given.rate, seconds=given.seconds)
                    found.setdefault((name, how), []).append(result)
                    print(f"{name}, {how}: {result}", file=sys.stderr)
        version = postgres.version
    lines = [
        f"Processor time of the server, by {_COSTED:,} requests one after the other on one connection:",
        "",
        "| server | an honest push, ms | a wrong secret, ms |",
        "|---|--:|--:|",
        *(f"| {name} | {honest:.3f} | {wrong:.3f} |" for name, (honest, wrong) in costs.items()),
    ]
    if found:
        lines += [
            "",
            (
                f"32 clients push as fast as they are answered, {given.rate:,} wrong pushes a second beside them;"
                f" the median of {given.rounds} rounds of {given.seconds:g} s."
            ),
            "",
            "| server | wrong pushes | refused/s | honest pushes/s | p50 ms | p99 ms | errors |",
            "|---|---|--:|--:|--:|--:|--:|",
        ]
    for (name, how), results in found.items():
        rates = (statistics.median(result[field] for result in results) for field in ("refused", "pushes_per_second"))
        times = (statistics.median(result[field] for result in results) for field in ("p50_ms", "p99_ms"))
        numbers = [*(f"{rate:,.0f}" for rate in rates), *(f"{taken:.1f}" for taken in times)]
        errors = sum(result["errors"] for result in results)
        lines.append(f"| {name} | {how} | {' | '.join(numbers)} | {errors} |")
    publish(
        "flood",
        "A flood of wrong secrets",
        "Each wrong push has a secret of its own. Flood, load generator, server and PostgreSQL share the cores.",
        lines,
        version=version,
    )
    return 0


def _costs(name: str) -> tuple[float, float]:
    """Give the milliseconds of processor time that an honest push and a wrong one take, on the embedded database."""
    with Running(CONTESTANTS[name], "sqlite", "") as server:
        parts = urlsplit(server.url)
        with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=30) as connection:
            taken = []
            for wrong in (False, True):
                before = cpu_seconds(list_tree(server.pid))
                for _ in range(_COSTED):
                    path = b"/push/" + os.urandom(20).hex().encode() if wrong else parts.path.encode()
                    _push(connection, path, b"404" if wrong else b"200")
                taken.append((cpu_seconds(list_tree(server.pid)) - before) / _COSTED * 1000)
    honest_ms, wrong_ms = taken
    return honest_ms, wrong_ms


def _push(connection: socket.socket, path: bytes, status: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(_BODY))
    connection.sendall(head + _BODY)
    answer = b""
    while not answer.endswith((b"}", b"\r\n\r\nok")) and (piece := connection.recv(4096)):  # JSON, or the ack
        answer += piece
    assert answer.startswith(b"HTTP/1.1 %b " % status), answer


def _measure(postgres: PostgresServer, name: str, how: str, *, rate: int, seconds: float) -> dict[str, Any]:
    url = postgres.create_database("flood")
    try:
        with Running(CONTESTANTS[name], "postgresql", url) as server, _flooding(server.url, rate, how) as refused:
            before, begun = refused(), time.monotonic()
            result = push_from_a_process(server.url, seconds)
            return {**result, "refused": (refused() - before) / (time.monotonic() - begun)}
    finally:
        postgres.drop_database("flood")


@contextmanager
def _flooding(url: str, rate: int, how: str) -> Iterator[Any]:
    """Flood from a process of its own; gives what tells how many it was refused so far."""
    if how == _FLOODS[0]:
        yield lambda: 0
        return
    command = [sys.executable, "-m", "tests.bench.flood", "--flood", str(urlsplit(url).port), str(rate), how]
    counted = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:

        def read() -> None:
            nonlocal counted
            assert process.stdout is not None
            for line in process.stdout:
                counted = int(line)

        reader = threading.Thread(target=read)
        reader.start()
        while not counted:
            time.sleep(0.05)
        try:
            yield lambda: counted
        finally:
            process.terminate()
            reader.join()


def _flood(port: int, rate: int, *, per_push: bool) -> None:
    refused = [0] * _SENDERS
    for number in range(_SENDERS):
        send = threading.Thread(
            target=_send, args=(port, rate / _SENDERS, refused, number), kwargs={"per_push": per_push}
        )
        send.daemon = True
        send.start()
    while True:
        time.sleep(0.1)
        print(sum(refused), flush=True)


def _send(port: int, rate: float, refused: list[int], number: int, *, per_push: bool) -> None:
    connection: socket.socket | None = None
    due = time.monotonic()
    while True:
        due = max(due + 1 / rate, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        _push(connection, b"/push/" + os.urandom(20).hex().encode(), b"404")
        refused[number] += 1
        if per_push:
            connection.close()
            connection = None


if __name__ == "__main__":
    sys.exit(main())
