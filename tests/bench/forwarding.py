"""`python -m tests.bench.forwarding`: what forwarding promises, counted, and what it costs an acknowledgement.

Two nodes on one PostgreSQL forward to a target that fails, hangs, resets, answers 410 and restarts, while the nodes are
killed by SIGKILL and started again: what is missing, out of order for its message, or there twice? And with all targets
hanging, pushes at a fixed rate beside the same without targets, side by side.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from receiver.db import migrate
from receiver.db.engine import Database
from receiver.webhooks.changes import create_endpoint
from receiver.webhooks.endpoints import EventType, NewEndpoint, PayloadFormat
from tests.bench.bad_target import BadTarget, Misbehaviour
from tests.bench.report import publish
from tests.bench.usage import list_tree
from tests.harness.leaks import SECRET
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EVENTS_EACH = 10  # of a message: five receipts in turn good and bad, each of which changes its state
_RECEIPTS_EACH = _EVENTS_EACH // 2
_PUSHERS = 8
_ALLOW = {"RECEIVER_WEBHOOKS_ALLOW": "127.0.0.0/8"}
_CLIENTS = 16
_FORMS = (PayloadFormat.RAW, PayloadFormat.WEBHOOKS)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What came of a course."""

    events: int
    missing: int
    out_of_order: int  # messages whose events did not first come in order
    duplicates: int
    kills: int
    seconds: float
    pushing_seconds: float


def run_course(
    url: str, *, messages: int, kills: int, seconds: float, bad: Misbehaviour, short: bool = False
) -> Counted:
    """Push, kill and count, on an empty database.

    `short`: a killed node is not started again, and what it had in hand is not waited for until its lease ends.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=find_shared_place(on_disk=True))))
        target = stack.enter_context(BadTarget(place / "taken", bad))
        prepare(url, target.url, PayloadFormat.WEBHOOKS)
        nodes = []
        for number in range(2):
            (place / str(number)).mkdir()
            node = ServeProcess(place / str(number), url, environment=_ALLOW)
            nodes.append(stack.enter_context(node))
        begun = time.monotonic()
        pushing = [threading.Thread(target=_push, args=(nodes, share), daemon=True) for share in _shares(messages)]
        for thread in pushing:
            thread.start()
        expected, killed, pushed_at = messages * _EVENTS_EACH, 0, 0.0
        while time.monotonic() - begun < seconds:
            time.sleep(0.2)
            still_pushing = any(thread.is_alive() for thread in pushing)
            if not still_pushing and not pushed_at:
                pushed_at = time.monotonic() - begun
            if killed < kills and target.taken >= expected * (killed + 1) / (kills + 2):
                _kill(nodes[killed % 2])
                if not short:
                    nodes[killed % 2].start()
                killed += 1
            if _resume(url, hurry=short) == 0 and not still_pushing and killed >= kills:
                break
        took = time.monotonic() - begun
        lines = [tuple(line.split()) for line in (place / "taken").read_text().splitlines()]
    return _count(lines, messages, killed, took, pushed_at)


def _shares(messages: int) -> Iterator[range]:
    for number in range(_PUSHERS):
        yield range(number, messages, _PUSHERS)


def _push(nodes: Sequence[ServeProcess], tasks: Sequence[int]) -> None:
    """Push every receipt of these messages, those of one message in order, until each is acknowledged."""
    chance = random.Random(tasks[0] if tasks else 0)
    connections: dict[int, http.client.HTTPConnection] = {}
    for second in range(_RECEIPTS_EACH):
        for task in tasks:
            body = f"mobile=150{task:08d}&taskid=t{task}&status={second % 2}&receivetime=2026-11-23+09:14:{second:02d}"
            while not _acknowledged(nodes[chance.randrange(len(nodes))], connections, body):
                time.sleep(0.05)


def _acknowledged(node: ServeProcess, connections: dict[int, http.client.HTTPConnection], body: str) -> bool:
    connection = connections.setdefault(node.port, http.client.HTTPConnection("127.0.0.1", node.port, timeout=20))
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/push/{SECRET}", body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return answer.status == 200


def _kill(node: ServeProcess) -> None:
    master, _ = node.await_worker()
    for pid in list_tree(master)[::-1]:
        node.kill(pid)


def _resume(url: str, *, hurry: bool) -> int:
    """Resume the target where it was paused; give how much is still to be forwarded."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE targets SET paused_at = NULL, retry_at = NULL WHERE paused_at IS NOT NULL")
        if hurry:
            connection.execute("UPDATE targets SET retry_at = NULL WHERE retry_at IS NOT NULL")
            connection.execute("UPDATE deliveries SET next_at = now() WHERE next_at > now() AND attempts > 0")
            # No lease is longer than a minute: these wait for an earlier one of their message, which was just hurried.
            connection.execute("UPDATE deliveries SET next_at = now() WHERE next_at > now() + interval '60 s'")
            # Not those that are in somebody's hands just now, which have most of their lease before them.
            lapsed = "UPDATE deliveries SET next_at = now() WHERE next_at BETWEEN now() AND now() + interval '55 s'"
            connection.execute(lapsed)
        query = "SELECT (SELECT count(*) FROM forward_queue) + (SELECT count(*) FROM deliveries)"
        (left,) = connection.execute(query).fetchone() or (0,)
        return int(left)


def _count(lines: Sequence[tuple[str, ...]], messages: int, kills: int, took: float, pushing_seconds: float) -> Counted:
    seen: set[str] = set()
    by_message: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for event_id, kind, task, reported_at in lines:
        if event_id not in seen:
            seen.add(event_id)
            by_message[task].append((kind, reported_at))
    missing = out_of_order = 0
    for number in range(messages):
        events = by_message.get(f"t{number}", [])
        missing += _EVENTS_EACH - len(events)
        kinds = [kind for kind, _ in events]
        times = [reported_at for kind, reported_at in events if kind == "receipt.received"]
        in_order = kinds == ["receipt.received", "message.status_changed"] * _RECEIPTS_EACH and times == sorted(times)
        out_of_order += len(events) == _EVENTS_EACH and not in_order
    return Counted(
        events=messages * _EVENTS_EACH,
        missing=missing,
        out_of_order=out_of_order,
        duplicates=len(lines) - len(seen),
        kills=kills,
        seconds=took,
        pushing_seconds=pushing_seconds,
    )


def prepare(url: str, target_url: str, *forms: PayloadFormat, wanted: Sequence[EventType] = tuple(EventType)) -> None:
    """Make the tables, and a target of each form; those of webhooks want these events."""
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"))
    migrate.upgrade(database)
    for number, form in enumerate(forms):
        events = tuple(wanted) if form is PayloadFormat.WEBHOOKS else ()
        new = NewEndpoint(name=f"t{number}", url=target_url, format=form, events=events)
        database.write(partial(create_endpoint, new=new, now=datetime.now(UTC)))
    database.close()


# --- What an acknowledgement costs ------------------------------------------------------------------------


def measure_ack(server: PostgresServer, *, targets: int, seconds: float, rate: float) -> dict[str, Any]:
    """Push at a rate to one node, all of whose targets hang; give what the load found."""
    url = server.create_database("forwarding_ack")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=find_shared_place(on_disk=True))))
        stack.callback(server.drop_database, "forwarding_ack")
        target = stack.enter_context(BadTarget(place / "taken", Misbehaviour(), hangs_always=True))
        node = ServeProcess(place, url, environment=_ALLOW)
        prepare(url, target.url, *(_FORMS[number % 2] for number in range(targets)))
        stack.enter_context(node)
        command = [sys.executable, "-m", "tests.bench.load", "--clients", str(_CLIENTS), "--seconds", str(seconds)]
        command += ["--rate", str(rate), "--url", f"http://127.0.0.1:{node.port}/push/{SECRET}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        node.stop(signal.SIGTERM)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def main() -> int:
    """Count and measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=330.0, help="for the course, at most")
    parser.add_argument("--part", choices=["course", "ack"], help="one of the two alone")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pair-seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--targets", type=int, default=3)
    given = parser.parse_args()
    good = True
    with PostgresServer() as server:
        if given.part != "ack":
            good = _write_course(server, given)
            server.drop_database("forwarding")
        if given.part != "course":
            _write_ack(server, given)
    return 0 if good else 1


def _write_course(server: PostgresServer, given: argparse.Namespace) -> bool:
    messages = given.events // _EVENTS_EACH
    marks = (given.events // 4, given.events // 2)
    bad = Misbehaviour(gone_at=marks, restart_at=(given.events // 3, 2 * given.events // 3))
    url = server.create_database("forwarding")
    found = run_course(url, messages=messages, kills=given.kills, seconds=given.seconds, bad=bad)
    about = (
        f"{messages:,} messages with {_RECEIPTS_EACH} receipts each, in turn good and bad, pushed to two nodes: "
        f"{found.events:,} signed events. The target answers 1 % with 500, resets 0.2 %, hangs on 0.01 %, answers 410 "
        f"twice (it was resumed then) and restarts twice, two seconds each; a node was killed by SIGKILL, all its "
        f"processes, {found.kills} times. An event is a duplicate where the target had answered 2xx to it before."
    )
    lines = (
        "| events | missing | messages out of order | duplicates | share | pushing s | until all were there s |\n"
        "|--:|--:|--:|--:|--:|--:|--:|\n"
        f"| {found.events:,} | {found.missing:,} | {found.out_of_order:,} | {found.duplicates:,} "
        f"| {found.duplicates / found.events:.2%} | {found.pushing_seconds:.0f} | {found.seconds:.0f} |"
    )
    title = "Forwarding to a target that fails, by nodes that are killed"
    publish("forwarding", title, about, [lines], version=server.version)
    return not found.missing and not found.out_of_order and found.duplicates < found.events / 100


def _write_ack(server: PostgresServer, given: argparse.Namespace) -> None:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for pair in range(given.pairs):
        for targets in (0, given.targets) if pair % 2 else (given.targets, 0):
            one = measure_ack(server, targets=targets, seconds=given.pair_seconds, rate=given.rate)
            found[targets].append(one)
            print(f"{targets} targets: {one['p50_ms']} {one['p99_ms']}", file=sys.stderr)
    rows = [
        f"| {name} | {_median(found[targets], 'pushes_per_second'):,.0f} | {_median(found[targets], 'p50_ms'):.2f} "
        f"| {_median(found[targets], 'p99_ms'):.1f} | {_median(found[targets], 'max_ms'):.0f} "
        f"| {sum(one['errors'] for one in found[targets])} |"
        for name, targets in (("no target", 0), (f"{given.targets} targets, all hang", given.targets))
    ]
    ratio = statistics.median(
        with_targets["p99_ms"] / without["p99_ms"]
        for with_targets, without in zip(found[given.targets], found[0], strict=True)
    )
    about = (
        f"{_CLIENTS} clients push {given.rate:,.0f} times a second to one node, {given.pair_seconds:.0f} s a run, on "
        f"an empty database each; medians of {given.pairs} pairs in turns. The load, the node, PostgreSQL and the "
        f"target share the cores. The median of the pairs' ratios of p99: {ratio:.2f}."
    )
    heads = ["| targets | pushes/s | p50 ms | p99 ms | max ms | errors |", "|---|--:|--:|--:|--:|--:|"]
    title = "An acknowledgement while all targets hang"
    publish("forwarding-ack", title, about, heads + rows, version=server.version)


def _median(rounds: Sequence[dict[str, Any]], name: str) -> float:
    return float(statistics.median(one[name] for one in rounds))


if __name__ == "__main__":
    sys.exit(main())
