"""`python -m tests.bench.idle`: honest pushes beside strangers that hold more connections than there is room for.

The strangers say nothing, and whoever is ended comes again. Flood, load generator and server share the cores.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.bench.contestants import CONTESTANTS, Running
from tests.bench.mixed import push_from_a_process
from tests.bench.report import publish
from tests.bench.usage import cpu_seconds, list_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALONE, _BESIDE = "none", "idle connections"


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flood", metavar="PORT", type=int, help="be the flood, until ended")
    parser.add_argument("--connections", type=int, default=5000, help="that strangers hold")
    parser.add_argument("--rate", type=int, default=200, help="that they open a second once they hold them")
    parser.add_argument("--files", type=int, default=16384, help="that the server may have open")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (given.files, given.files))
    if given.flood:
        _flood(given.flood, given.connections, given.rate)
        return 0
    found: dict[str, list[dict[str, Any]]] = {_ALONE: [], _BESIDE: []}
    for _ in range(given.rounds):
        for how, results in found.items():
            with Running(CONTESTANTS["receiver"], "sqlite", "") as server, _flooding(server.url, how, given):
                before = cpu_seconds(list_tree(server.pid))
                result = push_from_a_process(server.url, given.seconds)
                taken = cpu_seconds(list_tree(server.pid)) - before
                results.append({**result, "cpu_ms": taken / result["acked"] * 1000})
            print(f"{how}: {results[-1]}", file=sys.stderr)
    rates = [[result["pushes_per_second"] for result in results] for results in found.values()]
    share = statistics.median(beside / alone for alone, beside in zip(*rates, strict=True))
    lines = [
        (
            f"32 clients push as fast as they are answered, into the embedded database; {given.connections:,} others"
            f" hold connections and say nothing, {given.rate:,} new ones come a second. The server may open"
            f" {given.files:,} files. The median of {given.rounds} rounds of {given.seconds:g} s; beside the strangers"
            f" {share:.2f} of the rate without them (median of the pairs). Where others use the cores too, the server's"
            " CPU time a push says more."
        ),
        "",
        "| strangers | honest pushes/s | lowest–highest | p50 ms | p99 ms | server's CPU ms a push | errors |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for how, results in found.items():
        rate, p50, p99, cpu = (
            statistics.median(result[field] for result in results)
            for field in ("pushes_per_second", "p50_ms", "p99_ms", "cpu_ms")
        )
        every = [result["pushes_per_second"] for result in results]
        errors = sum(result["errors"] for result in results)
        extent = f"{min(every):,.0f}–{max(every):,.0f}"
        lines.append(f"| {how} | {rate:,.0f} | {extent} | {p50:.1f} | {p99:.1f} | {cpu:.3f} | {errors} |")
    about = "The strangers say nothing, and whoever is ended comes again. All share the cores."
    publish("idle", "A flood of idle connections", about, lines, version="not used")
    return 0


@contextmanager
def _flooding(url: str, how: str, given: argparse.Namespace) -> Iterator[None]:
    """Flood from a process of its own, once it holds its connections."""
    if how == _ALONE:
        yield
        return
    command = [sys.executable, "-m", "tests.bench.idle", "--flood", str(urlsplit(url).port)]
    command += ["--connections", str(given.connections), "--rate", str(given.rate), "--files", str(given.files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def _flood(port: int, connections: int, rate: int) -> None:
    held: deque[socket.socket] = deque()
    while len(held) < connections:
        held.append(socket.create_connection(("127.0.0.1", port), timeout=30))
    print("held", flush=True)
    while True:
        time.sleep(1 / rate)
        held.popleft().close()  # the oldest, which the server has ended by now
        held.append(socket.create_connection(("127.0.0.1", port), timeout=30))


if __name__ == "__main__":
    sys.exit(main())
