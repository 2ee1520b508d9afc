"""`python -m tests.bench.memory OTHER`: the memory of a server that waits and of one under load.

OTHER is a checkout of commit 17a1081 with its own `.venv`. It, this tree and the naive view take turns, each started on
an empty database that has its schema. After the first acknowledged push the server waits, then 32 clients push as fast
as they are answered.

PSS decides: it gives each process its part of the pages that several share, so the sum over master and workers is what
the machine lacks. RSS counts a shared page in each process. Private dirty pages are what no other process shares and no
file holds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from tests.bench.contestants import CONTESTANTS, Contestant, Running
from tests.bench.mixed import push_from_a_process
from tests.bench.report import publish
from tests.bench.usage import Memory, list_tree, memory
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place

if TYPE_CHECKING:
    from collections.abc import Iterator

_OLDER = "receiver-17a1081"
_NAMES = ("receiver", _OLDER, "naive")
_BODY = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2026-11-23+09%3A14%3A03"
_SAMPLE_SECONDS = 0.25
_MOMENTS = ("idle", "peak under load", "after it", "after the console")
_MEASURES = {"pss": "PSS", "rss": "RSS", "private_dirty": "private dirty"}
_PAGES = ("/console/login", "/api/v1/docs", "/api/v1/messages")  # each answers, whoever asks

Found = dict[tuple[str, str], list[dict[str, Memory]]]  # by database and program, the moments of each round


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of 17a1081")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the load")
    parser.add_argument("--rest", type=float, default=5.0, metavar="SECONDS", help="after the load")
    parser.add_argument("--databases", type=lambda text: text.split(","), default=["sqlite", "postgresql"])
    parser.add_argument("--programs", type=lambda text: text.split(","), default=list(_NAMES))
    parser.add_argument("--out", type=Path, default=Path("deploy/BENCHMARKS.md"), help="the page to write into")
    given = parser.parse_args()
    contestants = {**CONTESTANTS, _OLDER: _in_checkout(given.other.resolve())}
    found: Found = {(database, name): [] for database in given.databases for name in given.programs}
    with PostgresServer({"shared_buffers": "256MB"}) as server:
        for number in range(given.rounds):
            for (database, name), rounds in list(found.items())[:: -1 if number % 2 else 1]:
                rounds.append(_measure(contestants[name], database, server, given))
                shown = {moment: f"{it.pss / 1e6:.1f} MB" for moment, it in rounds[-1].items()}
                print(f"round {number + 1}, {database}, {name}: {shown}", file=sys.stderr)
        version = server.version
    about = (
        f"MB, the sum over the server's processes, medians of {given.rounds} rounds, and the ratio to {_OLDER} in"
        f" brackets. *Idle*: {given.idle:g} s after the first acknowledged push. *Under load*: the highest value while"
        f" 32 clients push for {given.seconds:g} s as fast as they are answered, and the value {given.rest:g} s later."
        " *After the console*: once its login page, the API and the API's page have answered too."
        " PSS decides: it divides a page between the processes that share it, so the sum is what the machine lacks."
        " RSS counts such a page in each of them. Private dirty pages belong to one process and to no file."
    )
    publish("memory", "Memory", about, _table(found), version=version, page=given.out)
    return 0


def _in_checkout(tree: Path) -> Contestant:
    python = tree / ".venv/bin/python"
    return replace(CONTESTANTS["receiver"], name=_OLDER, tree=tree, python=str(python), projects=False)


def _measure(
    contestant: Contestant, database: str, server: PostgresServer, given: argparse.Namespace
) -> dict[str, Memory]:
    with ExitStack() as stack:
        url, data_dir = "", None
        if database == "postgresql":
            url = server.create_database("memory")
            stack.callback(server.drop_database, "memory")
        elif contestant.is_receiver:
            place = tempfile.TemporaryDirectory(prefix="receiver-memory-", dir=find_shared_place(on_disk=True))
            data_dir = Path(stack.enter_context(place))
            with Running(contestant, database, url, data_dir=data_dir):
                pass  # the start that makes the schema is not the one that is measured
        running = stack.enter_context(Running(contestant, database, url, data_dir=data_dir))
        with urllib.request.urlopen(running.url, _BODY, timeout=30) as answer:
            assert answer.status == 200
        time.sleep(given.idle)
        idle = memory(list_tree(running.pid))
        if not given.seconds:
            return {_MOMENTS[0]: idle}
        with _sampling(running.pid) as samples:
            push_from_a_process(running.url, given.seconds)
        time.sleep(given.rest)
        rested = memory(list_tree(running.pid))
        found = [idle, max(samples, key=lambda sample: sample.pss), rested]
        if contestant.is_receiver:
            for page in _PAGES:
                _ask(urljoin(running.url, page))
            found.append(memory(list_tree(running.pid)))
        return dict(zip(_MOMENTS, found, strict=False))


def _ask(url: str) -> None:
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(url, timeout=30) as answer:  # 401 is an answer too
        answer.read()


@contextmanager
def _sampling(root: int) -> Iterator[list[Memory]]:
    """Sample the memory until the context is left; the load comes from another process."""
    samples: list[Memory] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append(memory(list_tree(root)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _table(found: Found) -> list[str]:
    moments = [moment for moment in _MOMENTS if any(moment in each for rounds in found.values() for each in rounds)]
    shown = [("pss", moment) for moment in moments] + [("rss", "idle"), ("private_dirty", "idle")]
    heads = ["database", "program", "processes", *(f"{_MEASURES[measure]}, {moment}" for measure, moment in shown)]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for (database, name), rounds in found.items():
        cells = [database, name, str(rounds[0]["idle"].processes)]
        older = found.get((database, _OLDER), []) if name != _OLDER else []
        for measure, moment in shown:
            value = _median(rounds, moment, measure) if moment in rounds[0] else 0
            ratio = f" ({value / _median(older, moment, measure):.2f} ×)" if older else ""
            cells.append(f"{value / 1e6:.1f}{ratio}" if value else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _median(rounds: list[dict[str, Memory]], moment: str, measure: str) -> float:
    values: list[int] = [getattr(each[moment], measure) for each in rounds]
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(main())
