"""The run: load, one fault after another, and in the end the account of every acknowledged push."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.faults.client import NOT_SENT, Pushed
from tests.faults.cluster import ROOT, WORLD, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.faults.blows import Fault

_RECOVER_SECONDS = 180.0
_ACKS_SECONDS = 30.0
_FULL_CLIENTS = 64
_FULL_SECONDS = 30.0
_WARM_UP_SECONDS = 3.0


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
    not_sent: int  # by the client, which had too many in flight
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
    sent_again: int  # acknowledged ones whose kept connection nginx ended as it was used again
    unverified: str  # what `receiver verify` and the spools have to say; empty: nothing

    @property
    def ok(self) -> bool:
        """Whether every acknowledged push is stored once."""
        return self.acked > 0 and not (self.missing or self.wrong or self.unverified)


@dataclass(frozen=True, kw_only=True)
class Full:
    """What the cluster took, whole, from clients that each wait for their answer."""

    clients: int
    rate: float  # acknowledged pushes a second
    cpu_us: dict[str, float]  # that a push takes of nginx, of the receivers, of the primary, of the standby
    pushed: list[Pushed]


def measure_full(cluster: Cluster) -> Full:
    """Push as fast as it is answered for half a minute, and wait until all is as before."""
    with pushing(cluster, "--clients", str(_FULL_CLIENTS)) as out:
        time.sleep(_WARM_UP_SECONDS)
        begun, before = time.monotonic(), cluster.cpu_seconds()
        time.sleep(_FULL_SECONDS)
        ended, after = time.monotonic(), cluster.cpu_seconds()
    cluster.await_healthy(_RECOVER_SECONDS)
    pushed = _read(out)
    acked = sum(push.acked is not None and begun <= push.acked < ended for push in pushed)
    return Full(
        clients=_FULL_CLIENTS,
        rate=acked / (ended - begun),
        cpu_us={name: 1e6 * (after[name] - before[name]) / max(1, acked) for name in before},
        pushed=pushed,
    )


def run(
    cluster: Cluster,
    faults: Sequence[Fault],
    *,
    rate: float,
    quiet_seconds: float,
    tell: Callable[[str], None],
    minutes: float = 0,
    before: Sequence[Pushed] = (),
) -> tuple[list[Measured], Account]:
    """Break one thing after another under load, and see what was kept, and what of the pushes `before`.

    `minutes`: in turn for as long as that; 0: each thing once.
    """
    passed = []
    with pushing(cluster, "--rate", f"{rate:g}") as out:
        deadline = time.monotonic() + 60 * minutes
        time.sleep(quiet_seconds)
        for fault in itertools.cycle(faults) if minutes else faults:
            if minutes and time.monotonic() >= deadline:
                break
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
    pushed = _read(out)
    return [_measure(fault, pushed) for fault in passed], take_account(cluster, [*before, *pushed])


def _read(out: Path) -> list[Pushed]:
    with out.open() as lines:
        return [Pushed(**json.loads(line)) for line in lines]


@contextmanager
def pushing(cluster: Cluster, *pace: str) -> Iterator[Path]:
    """Push from outside; gives the file that says, when it is over, what became of each push. `pace`: an option."""
    out = cluster.place / f"pushed{pace[0]}.ndjson"
    command = [sys.executable, "-m", "tests.faults.client", "--connect", WORLD, *pace]
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
    refused = [push for push in during if push.refusals and push.refusals != [NOT_SENT]]
    waits = [push.acked - push.begun for push in refused if push.acked is not None]
    at_once = [push.acked - push.begun for push in during if push.acked is not None and not push.refusals]
    return Measured(
        name=fault.name,
        lasted=fault.mended - fault.begun,
        acked=sum(push.acked is not None for push in during),
        spooled=sum(push.outcome == "spooled" for push in during),
        not_sent=sum(push.refusals == [NOT_SENT] for push in during),
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
    left = [str(path) for node in cluster.nodes for path in (cluster.data_dir(node) / "spool").glob("*.spool")]
    return Account(
        acked=len(acks),
        journalled=len(journal),
        missing=[push_id for push_id, push in acks.items() if journal.get(push_id) != push.task_id],
        wrong=[task_id for task_id in pushes.keys() | kept.keys() if kept[task_id] != [pushes[task_id]]],
        twice=len(journal) - len(acks.keys() & journal.keys()),
        sent_again=sum(push.idle_seconds is not None for push in acks.values()),
        unverified="\n".join([*left, verified.stdout + verified.stderr] if left or verified.returncode else []),
    )
