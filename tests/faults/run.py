"""The run: load, one fault after another, and in the end the account of every acknowledged push."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.faults.client import Pushed
from tests.faults.cluster import NODES, ROOT, WORLD, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.faults.blows import Fault

_RECOVER_SECONDS = 180.0
_ACKS_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A fault as it went by. Times are readings of the monotonic clock."""

    name: str
    begun: float
    mended: float
    drained_seconds: float | None  # from the mending until nothing was spooled; None: it never was
    healthy_seconds: float | None  # … and there was a primary with a synchronous standby; None too: not waited for
    ended: float  # of the quiet spell after it


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the client saw of one fault. Seconds; None: it was not seen to come to that."""

    name: str
    lasted: float
    acked: int
    spooled: int
    refused: Counter[str]  # pushes that a sender who pushes once has lost, by what they met
    longest_refusal: float | None  # of a push that is tried again every 100 ms, until it was taken
    slowest_ack: float  # of those that were taken at once
    acks_again: float  # from the blow until the last refusal
    drained: float | None
    healthy: float | None


@dataclass(frozen=True, kw_only=True)
class Account:
    """Every acknowledged push against what the primary holds in the end."""

    acked: int
    journalled: int
    missing: list[str]  # push ids
    wrong: list[str]  # task ids whose receipt or reply is not there once, with as many copies as pushes
    twice: int  # pushes in the journal that nobody was acknowledged: the other node took them too, or the ack was lost
    unverified: str  # what `receiver verify` and the spools have to say; empty: nothing

    @property
    def ok(self) -> bool:
        """Whether every acknowledged push is stored once."""
        return self.acked > 0 and not (self.missing or self.wrong or self.unverified)


def run(
    cluster: Cluster, faults: Sequence[Fault], *, rate: float, quiet_seconds: float, tell: Callable[[str], None]
) -> tuple[list[Measured], Account]:
    """Break one thing after another under load, and see what was kept."""
    passed = []
    with pushing(cluster, rate) as out:
        time.sleep(quiet_seconds)
        for fault in faults:
            begun = time.monotonic()
            fault.strike(cluster)
            mended = time.monotonic()
            drained = cluster.await_drained(_RECOVER_SECONDS)
            healthy = cluster.await_healthy(_RECOVER_SECONDS) if fault.then_whole else None
            time.sleep(quiet_seconds)
            passed.append(
                Passed(
                    name=fault.name,
                    begun=begun,
                    mended=mended,
                    drained_seconds=drained,
                    healthy_seconds=None if drained is None or healthy is None else drained + healthy,
                    ended=time.monotonic(),
                )
            )
            tell(f"{fault.name}: mended after {mended - begun:.1f} s, spools empty after {drained}, whole {healthy}")
    cluster.await_drained(_RECOVER_SECONDS)
    pushed = [Pushed(**json.loads(line)) for line in out.read_text().splitlines()]
    return [_measure(fault, pushed) for fault in passed], take_account(cluster, pushed)


@contextmanager
def pushing(cluster: Cluster, rate: float) -> Iterator[Path]:
    """Push from outside; gives the file that tells, when it is over, what became of each push."""
    out = cluster.place / "pushed.ndjson"
    command = [sys.executable, "-m", "tests.faults.client", "--connect", WORLD, "--rate", f"{rate:g}"]
    command += ["--authority", str(cluster.authority), "--out", str(out)]
    with (cluster.place / "client.log").open("wb") as log:
        client = subprocess.Popen(cluster.net["client"].command(*command), stderr=log, cwd=ROOT, process_group=0)
    try:
        deadline = time.monotonic() + _ACKS_SECONDS
        while not (out.exists() and '"push_id": "0' in out.read_text()):
            if client.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing was acknowledged: {(cluster.place / 'client.log').read_text()}")
            time.sleep(0.1)
        yield out
    finally:
        client.terminate()
        try:
            client.wait(_ACKS_SECONDS)
        finally:
            client.kill()
            client.wait()


def _measure(fault: Passed, pushed: Sequence[Pushed]) -> Measured:
    # A refused one belongs to the fault in which it was refused, though it may have begun just before the blow.
    during = [push for push in pushed if fault.begun <= (push.first_refused_at or push.begun) < fault.ended]
    refused = [push for push in during if push.refusals]
    waits = [push.acked - push.begun for push in refused if push.acked is not None]
    at_once = [push.acked - push.begun for push in during if push.acked is not None and not push.refusals]
    return Measured(
        name=fault.name,
        lasted=fault.mended - fault.begun,
        acked=sum(push.acked is not None for push in during),
        spooled=sum(push.outcome == "spooled" for push in during),
        refused=Counter(push.refusals[0] for push in refused),
        longest_refusal=max(waits, default=0.0) if waits or not refused else None,
        slowest_ack=max(at_once, default=0.0),
        acks_again=max((push.refused_at - fault.begun for push in refused if push.refused_at), default=0.0),
        drained=fault.drained_seconds,
        healthy=fault.healthy_seconds,
    )


def take_account(cluster: Cluster, pushed: Sequence[Pushed]) -> Account:
    """Look for every acknowledged push on the primary: in the journal by its id, and what it says in its table."""
    acks = {push.push_id: push for push in pushed if push.acked is not None}
    journal: dict[str, str] = {}
    for push_id, body in cluster.query("SELECT id::text, body FROM pushes"):
        journal[push_id] = parse_qs(bytes(body).decode())["taskid"][0]
    kept: dict[str, list[int]] = defaultdict(list)
    for table in ("receipts", "replies"):
        for task_id, copies in cluster.query(
            f"SELECT m.task_id, r.copies FROM {table} r JOIN messages m ON m.id = r.message_id"
        ):
            kept[task_id].append(copies)
    pushes = Counter(journal.values())
    verified = cluster.receiver("node1", "verify")
    left = [str(path) for node in NODES for path in (cluster.data_dir(node) / "spool").glob("*.spool")]
    return Account(
        acked=len(acks),
        journalled=len(journal),
        missing=[push_id for push_id, push in acks.items() if journal.get(push_id) != push.task_id],
        wrong=[task_id for task_id in pushes.keys() | kept.keys() if kept[task_id] != [pushes[task_id]]],
        twice=len(journal) - len(acks.keys() & journal.keys()),
        unverified="\n".join([*left, verified.stdout + verified.stderr] if left or verified.returncode else []),
    )
