"""A load of pushes for a bounded time, and what it found.

The machine that measures is the one that is measured: what this uses the server lacks, so it tells that too.

    python -m tests.bench.load --url http://127.0.0.1:8000/push/SECRET --clients 32 --seconds 5
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import socket
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.clients import Clients, SlowClosers
from tests.bench.usage import cpu_seconds, list_tree, peak_rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FINISH_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process and its descendants used while they were measured."""

    cpu_seconds_per_1000: float  # user and system time by 1,000 answered pushes, until they are settled
    peak_rss_bytes: int  # since their start, summed over them


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What a load found, without its warm-up, but for `acked`."""

    clients: int
    per_push: bool  # a connection for every push
    seconds: float
    pushes_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int  # not answered with 200, broken off, or never answered
    first_error: str
    reconnects: int  # kept connections that the server ended between two pushes; the push went out again
    acked: int  # every push answered with 200, the warm-up's too: what a store must hold in the end
    generator_cpu: float  # cores that the measuring itself took
    settle_seconds: float  # after the last answer, until all that follows from the pushes was done
    usage: Mapping[str, Usage]


def run_load(
    url: str,
    *,
    clients: int,
    seconds: float,
    per_push: bool = False,
    warm_up_seconds: float = 1.0,
    watch: Mapping[str, int] | None = None,
    slow_closers: int = 0,
    rate: float | None = None,
    settle: Callable[[], object] = lambda: None,
) -> LoadResult:
    """Push to the URL for so many seconds after a warm-up, and tell how it went.

    `slow_closers`: so many further peers that each ask for the connection's end, read the answer and do not close for
    three seconds, over and over; what they push is not counted.
    `rate`: at most so many pushes a second; None: as fast as they are answered. `watch`: names and process ids; what
    each one's tree uses is told under its name. `settle` returns once all that follows from the pushes so far is done:
    it is called after the warm-up, so that nothing of that counts, and in the end, so that all of the measured does.
    Raises ValueError for another address than 127.0.0.1, ConnectionError
    where nothing listens, RuntimeError where no push was answered.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname != "127.0.0.1" or not parts.port:
        raise ValueError(f"only http://127.0.0.1:PORT/… is loaded, not {url}")
    socket.create_connection(("127.0.0.1", parts.port), timeout=5).close()
    gc.collect()
    gc.disable()  # a collection here would be a pause of the server there
    try:
        ramp = warm_up_seconds / 2
        with (
            SlowClosers(parts.port, parts.path, slow_closers),
            Clients(parts.port, parts.path, clients, per_push=per_push, ramp_seconds=ramp, rate=rate) as running,
        ):
            return _measure(running, clients, seconds, warm_up_seconds, watch or {}, settle, per_push=per_push)
    finally:
        gc.enable()


def _measure(
    running: Clients,
    clients: int,
    seconds: float,
    warm_up_seconds: float,
    watch: Mapping[str, int],
    settle: Callable[[], object],
    *,
    per_push: bool,
) -> LoadResult:
    running.run(time.perf_counter() + warm_up_seconds)
    settle()
    before = {name: cpu_seconds(list_tree(root)) for name, root in watch.items()}
    own_before = time.process_time()
    running.begin_tally()
    tally = running.tally
    running.run(tally.begun + seconds)
    took = time.perf_counter() - tally.begun
    own_cpu = time.process_time() - own_before
    answered = tally.answered
    running.finish(_FINISH_SECONDS)
    finished = time.perf_counter()
    settle()
    settled = time.perf_counter()
    after = {name: cpu_seconds(list_tree(root)) for name, root in watch.items()}
    if not answered or not tally.latencies_seconds:
        raise RuntimeError(f"no push was answered in {took:.1f} s: {tally.first_error}")
    return LoadResult(
        clients=clients,
        per_push=per_push,
        seconds=round(took, 3),
        pushes_per_second=round(answered / took, 1),
        p50_ms=percentile_ms(tally.latencies_seconds, 0.50),
        p99_ms=percentile_ms(tally.latencies_seconds, 0.99),
        max_ms=percentile_ms(tally.latencies_seconds, 1),
        errors=tally.errors,
        first_error=tally.first_error,
        reconnects=tally.reconnects,
        acked=running.acked,
        generator_cpu=round(own_cpu / took, 3),
        settle_seconds=round(settled - finished, 3),
        usage={
            name: Usage(
                cpu_seconds_per_1000=round(1000 * max(0.0, after[name] - before[name]) / answered, 4),
                peak_rss_bytes=peak_rss_bytes(list_tree(root)),
            )
            for name, root in watch.items()
        },
    )


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """Give the one of them, in milliseconds, that this share of them does not exceed (nearest rank)."""
    return round(1000 * sorted(seconds)[math.ceil(share * len(seconds)) - 1], 3)


def main() -> None:
    """Run one load from the command line and print what it found as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description="Load a push URL on 127.0.0.1.")
    parser.add_argument("--url", required=True, help="http://127.0.0.1:PORT/push/SECRET")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--per-push", action="store_true", help="a new connection for every push")
    parser.add_argument("--rate", type=float, help="pushes a second, at most")
    parser.add_argument("--pid", type=int, help="the server's main process, to tell what it and its children use")
    given = parser.parse_args()
    result = run_load(
        given.url,
        clients=given.clients,
        seconds=given.seconds,
        per_push=given.per_push,
        warm_up_seconds=given.warm_up,
        rate=given.rate,
        watch={} if given.pid is None else {"server": given.pid},
    )
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
