"""`python -m tests.bench.door`: what the drop-in door adds to a send, beside the same send without it.

Each client asks the stand-in directly and through the door in turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.bench.report import publish
from tests.harness.platforms import APP_ID, APP_KEY, CODE
from tests.harness.ports import free_port
from tests.harness.postgres import PostgresServer
from tests.web.test_send_proxy import SEND, open_door

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WARM_UP = 50


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends", type=int, default=2000, help="per client count and database, each way")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    rows: list[list[str]] = []
    with ExitStack() as stack:
        platform_port = stack.enter_context(_platform())
        postgres = stack.enter_context(PostgresServer())
        for name, url in (("sqlite", ""), ("postgresql", postgres.url()), ("postgresql, away", "away")):
            for clients in given.clients:
                with tempfile.TemporaryDirectory() as place, _door(Path(place), platform_port, url) as port:
                    times = _measure(platform_port, port, clients, given.sends // clients)
                rows.append(_row(name, clients, times))
                print(*rows[-1], file=sys.stderr)
    columns = ("database", "clients", "direct p50", "door p50", "added", "direct p99", "door p99", "added", "sends")
    table = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    publish(
        "door",
        "The drop-in door",
        "What passing through the door adds to a send, in milliseconds: the same clients ask "
        "the stand-in directly and through the door in turns. Each send through the door is noted durably before it "
        "goes out and again with its answer; where the database is away, both go to the spool.",
        table,
        version=postgres.version,
    )
    return 0


@contextmanager
def _platform() -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "receiver", "simulate", "--bind", f"127.0.0.1:{port}", "--balance", "900000000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while True:
            try:
                _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "")
                break
            except OSError:
                time.sleep(0.05)
        yield port
        process.terminate()


@contextmanager
def _door(place: Path, platform_port: int, url: str) -> Iterator[int]:
    with open_door(place, platform_port, "" if url == "away" else url) as door:
        if url != "away":
            yield door.port
            return
        key = door.process.key
    door.process.database_url = "postgresql://nobody@127.0.0.1:1/none"
    with door.process:
        door.process.key = key
        yield door.port


def _measure(direct: int, door: int, clients: int, sends: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"direct": [], "door": []}
    lock = threading.Lock()

    def run(client: int) -> None:
        ways = {
            "direct": http.client.HTTPConnection("127.0.0.1", direct, timeout=60),
            "door": http.client.HTTPConnection("127.0.0.1", door, timeout=60),
        }
        own: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(sends + _WARM_UP):
            mobile = f"156{client:02d}{number:06d}"
            form = {"appId": APP_ID, "appKey": APP_KEY, "phone": mobile, "templateId": "540", "variables": CODE}
            for way, connection in ways.items():
                begun = time.perf_counter()
                _ask(connection, urlencode(form))
                own[way].append((time.perf_counter() - begun) * 1000)
        with lock:
            for way, found in own.items():
                times[way] += found[_WARM_UP:]

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _ask(connection: http.client.HTTPConnection, body: str) -> None:
    connection.request("POST", SEND, body, {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    if body and found["returnStatus"] != "1 ":
        raise RuntimeError(found)


def _row(name: str, clients: int, times: dict[str, list[float]]) -> list[str]:
    def percentile(values: Sequence[float], which: int) -> float:
        return statistics.quantiles(values, n=100)[which - 1]

    cells = [name, str(clients)]
    for which in (50, 99):
        direct, door = percentile(times["direct"], which), percentile(times["door"], which)
        cells += [f"{direct:.1f}", f"{door:.1f}", f"{door - direct:.1f}"]
    return [*cells, f"{len(times['door']):,}"]


if __name__ == "__main__":
    sys.exit(main())
