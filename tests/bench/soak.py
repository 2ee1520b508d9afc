"""`python -m tests.bench.soak`: hours of steady pushes into one server on PostgreSQL: what grows, and is all there?

Beside the pushes: records of their sends, readers of the API and the console, exports, a webhook whose endpoint fails
for a minute in ten, `receiver status`, and `receiver prune`. Samples go to a file as they are taken: `--table FILE`
makes the section of a run that was broken off, too. Exit code 1 where a push is missing or `receiver verify` finds
something.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from receiver.core import first_id_of
from receiver.webhooks.endpoints import EventType, PayloadFormat
from tests.bench.bad_target import BadTarget, Misbehaviour
from tests.bench.forwarding import prepare
from tests.bench.load import percentile_ms
from tests.bench.report import publish
from tests.bench.soak_load import Beside, Pace, Traffic, make_trial, push
from tests.bench.soak_samples import (
    Log,
    describe,
    make_table,
    sample_data,
    sample_postgres,
    sample_processes,
    scrape,
)
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized

_BEFORE_FIRST_SECONDS = 2.0
_DRAIN_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was there in the end."""

    acknowledged: int
    acknowledged_twice: int  # ids that two acknowledgements had
    failed: int  # pushes without an acknowledgement
    stored: int
    pruned: int  # pushes, as the prunes said
    missing: int  # acknowledged, younger than the last prune's horizon, and not there
    undrained: float  # seconds of the projection's lag, and webhook events, that were left
    hooked: int  # events that the endpoint took
    verify: str  # empty: it found nothing
    leaks: int
    beside: Mapping[str, int]

    @property
    def good(self) -> bool:
        """Whether each acknowledged push is there or was pruned, and `verify` and the log say nothing wrong."""
        unknown = self.stored + self.pruned - self.acknowledged  # stored, and the answer did not arrive
        whole = not self.missing and not self.acknowledged_twice and 0 <= unknown <= self.failed
        return whole and not self.verify and not self.leaks


def soak(url: str, pace: Pace, samples_path: Path) -> Verdict:
    """Do it on an empty database, and write the samples."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", dir=find_shared_place(on_disk=True)))
        )
        none = Misbehaviour(fails=0.0, resets=0.0, hangs=0.0)
        target = stack.enter_context(BadTarget(place / "taken", none))
        prepare(url, target.url, PayloadFormat.WEBHOOKS, wanted=pace.events)
        (place / "data").mkdir(mode=0o700)
        node = ServeProcess(place / "data", url, environment={"RECEIVER_WEBHOOKS_ALLOW": "127.0.0.0/8"}, patient=False)
        stack.enter_context(node)
        master, _ = node.await_worker()
        log = Log(node, samples_path.with_suffix(".log"))
        sent: Synchronized[int] = context.Value("q", 0)
        stop = context.Event()
        windows, theirs = context.Pipe(duplex=False)
        traffic = Traffic(time.time() + _BEFORE_FIRST_SECONDS, pace.rate)
        beside = Beside(node, pace, traffic, sent, target)
        beside.start()
        acked = place / "acked"
        pushing = context.Process(
            target=push, args=(node.port, node.target, traffic, pace, str(acked), sent, stop, theirs), daemon=True
        )
        pushing.start()
        stack.callback(pushing.kill)
        stack.callback(beside.stop)
        begun, failed = time.monotonic(), 0
        for _ in range(max(1, round(pace.seconds / pace.sample_seconds))):
            failed += _sample(samples_path, begun, windows, pace, (node, master, url, log, beside, target))
        stop.set()
        while pushing.is_alive() or windows.poll():
            if windows.poll(0.2):
                failed += windows.recv()["errors"]
        beside.stop()
        undrained = _drain(node)
        log.take()
        verified = subprocess.run(
            [sys.executable, "-m", "receiver", "verify"],
            env=node.env, cwd=node.data_dir, capture_output=True, text=True, check=False,
        )  # fmt: skip
        verify = "" if verified.returncode == 0 else verified.stdout + verified.stderr
        if beside.first_failures:
            print(f"first failures: {beside.first_failures}", flush=True)
        return Verdict(
            failed=failed,
            pruned=beside.pruned["pushes"],
            undrained=undrained,
            hooked=target.taken,
            verify=verify,
            leaks=log.leaks,
            beside={**beside.counts, **{f"pruned {kind}": rows for kind, rows in beside.pruned.items()}},
            **_account(url, acked),
        )


def _sample(
    path: Path,
    begun: float,
    windows: Connection,
    pace: Pace,
    seen: tuple[ServeProcess, int, str, Log, Beside, BadTarget],
) -> int:
    """Wait for the end of a window, and write what is to be seen then; return its failed pushes."""
    node, master, url, log, beside, target = seen
    if not windows.poll(pace.sample_seconds * 2 + 60):
        raise RuntimeError("the pushes stand still")
    window = windows.recv()
    reads, beside.read_seconds = beside.read_seconds or [0.0], []
    sample = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "second": round(time.monotonic() - begun, 1),
        **window,
        **sample_processes(master),
        **sample_postgres(url),
        **scrape(node),
        **sample_data(node),
        **log.take(),
        "read_p99_ms": percentile_ms(reads, 0.99),
        "prune_s": round(beside.prune_seconds[-1], 1) if beside.prune_seconds else 0.0,
        "pruned": sum(beside.pruned.values()),
        "hooked": target.taken,
        "failed_beside": sum(count for name, count in beside.counts.items() if name.startswith("failed")),
    }
    with path.open("a") as file:
        file.write(json.dumps(sample) + "\n")
    print(json.dumps(sample), flush=True)
    if beside.first_failures:
        print(f"failures beside: {beside.first_failures}", flush=True)
    errors: int = window["errors"]
    return errors


def _drain(node: ServeProcess) -> float:
    """Wait until the projection and the webhook have caught up; return what they lack."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while True:
        found = scrape(node)
        left = sum(found[name] for name in ("projection_lag_s", "webhook_queue", "webhook_pending", "spool_records"))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def _account(url: str, acked: Path) -> dict[str, int]:
    """Compare the acknowledged ids with the journal."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE acked (id uuid)")
        with connection.cursor().copy("COPY acked FROM STDIN") as copy, acked.open("rb") as file:
            while piece := file.read(1 << 20):
                copy.write(piece)
        one = connection.execute("SELECT count(*), count(*) - count(DISTINCT id) FROM acked").fetchone() or (0, 0)
        (stored,) = connection.execute("SELECT count(*) FROM pushes").fetchone() or (0,)
        (horizon,) = connection.execute("SELECT max(horizon) FROM retention WHERE kind = 'pushes'").fetchone() or (
            None,
        )
        oldest = first_id_of(horizon or datetime(1970, 1, 1, tzinfo=UTC))
        query = (
            "SELECT count(*) FROM acked WHERE id >= %s AND NOT EXISTS (SELECT FROM pushes WHERE pushes.id = acked.id)"
        )
        (missing,) = connection.execute(query, [oldest]).fetchone() or (0,)
    return {"acknowledged": one[0], "acknowledged_twice": one[1], "stored": stored, "missing": missing}


def main() -> int:
    """Run it, write the section, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0, help="for how long (7200)")
    parser.add_argument("--rate", type=float, default=500.0, help="pushes a second (500)")
    parser.add_argument("--samples", type=Path, default=Path("soak.jsonl"), help="the file of the samples (soak.jsonl)")
    parser.add_argument("--trial", action="store_true", help="all that happens beside in seconds, not in minutes")
    parser.add_argument("--events", nargs="+", choices=list(EventType), help="of the webhook, instead of few")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="write the section of these samples, and run nothing"
    )
    given = parser.parse_args()
    pace = make_trial(given.seconds, given.rate) if given.trial else Pace(seconds=given.seconds, rate=given.rate)
    if given.events:
        pace = replace(pace, events=tuple(map(EventType, given.events)))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started, too
    verdict = None
    with PostgresServer() as server:
        version = server.version
        if given.table is None:
            given.samples.unlink(missing_ok=True)
            verdict = soak(server.create_database("soak"), pace, given.samples)
            print(json.dumps(asdict(verdict), indent=1), flush=True)
    samples = [json.loads(line) for line in (given.table or given.samples).read_text().splitlines()]
    lines = make_table(samples)
    if verdict is not None:
        lines.append(
            f"Acknowledged {verdict.acknowledged:,}, stored {verdict.stored:,} and pruned {verdict.pruned:,}, "
            f"missing {verdict.missing}; `receiver verify` finds {'something' if verdict.verify else 'nothing'}."
        )
    publish("soak", "Hours of steady load", describe(pace), lines, version=version)
    return 0 if verdict is None or verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
