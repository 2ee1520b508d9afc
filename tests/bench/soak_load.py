"""The load of `tests.bench.soak`: pushes at a steady rate, and what goes on beside them."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from receiver.webhooks.endpoints import EventType
from tests.bench.clients import Clients
from tests.bench.load import percentile_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

    from tests.bench.bad_target import BadTarget
    from tests.harness.server import ServeProcess

CLIENTS = 64
_ZONE = ZoneInfo("Asia/Shanghai")
_PASSWORD = "as long as it takes"
_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')
_PUSH_ID = re.compile(rb"\r\nx-push-id: *([0-9a-f-]{36})\r\n")
_SEND_AGE_SECONDS = 3.0
# A prune deletes the messages of whole days, whose report it closes first: these were sent on a day before today.
_BACKDATED_SECONDS = 30 * 3600
# Retention is in days, and this takes hours: `receiver prune` with cutoffs of so many seconds, of all but the audit. It
# looks through the messages of all days before today: of these only for those that came as long ago.
_PRUNE = """
import sys
from datetime import timedelta
from receiver.cli import main, prune
from receiver.maintenance import prune as work
kept, backdated = (timedelta(seconds=float(given)) for given in sys.argv[1:])
kinds = [kind for kind in work.RetentionKind if kind is not work.RetentionKind.AUDIT]
prune.cutoffs_of = lambda keep_days, now: dict.fromkeys(kinds, now - kept)
move_horizon = work._move_horizon
def move(connection, kind, before):
    moved = move_horizon(connection, kind, before)
    return before - backdated if kind is work.RetentionKind.MESSAGES else moved
work._move_horizon = move
sys.argv = ["receiver", "prune", "--yes", "--json"]
main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long it takes, and how often what happens."""

    seconds: float
    rate: float
    sample_seconds: float = 30.0
    keep_seconds: float = 600.0
    prune_every: float = 300.0
    export_every: float = 60.0
    status_every: float = 60.0
    outage_every: float = 600.0
    outage_seconds: float = 60.0
    events: tuple[EventType, ...] = (EventType.NOT_DELIVERED, EventType.REPLY_RECEIVED)  # of the webhook


def make_trial(seconds: float, rate: float) -> Pace:
    """Return the pace of a trial: all that happens beside happens within seconds."""
    return Pace(
        seconds=seconds,
        rate=rate,
        sample_seconds=seconds / 6,
        keep_seconds=seconds / 4,
        prune_every=seconds / 2,
        export_every=seconds / 2,
        status_every=seconds / 2,
        outage_every=seconds / 2,
        outage_seconds=seconds / 20,
    )


class Traffic:
    """The push and the send of each number: the same wherever they are made."""

    def __init__(self, begun: float, rate: float) -> None:
        self._begun = begun - _BACKDATED_SECONDS
        self._rate = rate
        self._run = f"s{int(begun):x}"

    def is_receipt(self, number: int) -> bool:
        """Whether the push of this number is the first receipt of a message."""
        return number % 20 != 19 and number % 40 != 18 and number % 200 != 7

    def is_late(self, number: int) -> bool:
        """Whether its send is recorded after its receipt."""
        return number % 10 == 3

    def body_of(self, number: int) -> bytes:
        """Return the push: a receipt, one of twenty a copy, one of forty a reply, one of 200 unreadable."""
        if number % 200 == 7:
            return b"mobile=1234&status=perhaps"
        if number % 20 == 19:
            return self.body_of(number - 10)
        mobile, task_id = self.identity_of(number)
        said = b"status=%d" % (number % 12 != 0)
        if number % 40 == 18:
            mobile, task_id = self.identity_of(number - 1)
            said = b"content=%E6%94%B6%E5%88%B0"
        at = datetime.fromtimestamp(self._begun + number / self._rate, _ZONE)
        return f"mobile={mobile}&taskid={task_id}&receivetime={at:%Y-%m-%d+%H%%3A%M%%3A%S}&".encode() + said

    def identity_of(self, number: int) -> tuple[str, str]:
        """Return number and task id of a message."""
        return f"150{number * 61_803_399 % 100_000_000:08d}", f"{self._run}{number:010d}"

    def send_of(self, number: int) -> dict[str, Any]:
        """Return the record of its send."""
        mobile, task_id = self.identity_of(number)
        at = datetime.fromtimestamp(self._begun + number / self._rate - _SEND_AGE_SECONDS, UTC)
        template_id = str(540 + number % 8)
        return {"task_id": task_id, "mobile": mobile, "template_id": template_id, "sent_at": at.isoformat()}


def push(
    port: int,
    path: str,
    traffic: Traffic,
    pace: Pace,
    acked: str,
    sent: Synchronized[int],
    stop: Event,
    windows: Connection,
) -> None:
    """Push in a process of its own until `stop`, and hand over what each window found."""

    def body_of(number: int) -> bytes:
        sent.value = number
        return traffic.body_of(number)

    with Path(acked).open("ab", buffering=1 << 16) as file:

        def note(head: bytes) -> None:
            found = _PUSH_ID.search(head)
            file.write(found[1] + b"\n" if found else b"00000000-0000-0000-0000-000000000000\n")

        clients = Clients(
            port, path, CLIENTS, per_push=False, ramp_seconds=1.0, rate=pace.rate, body_of=body_of, on_ack=note
        )
        with clients as running:
            while not stop.is_set():
                running.begin_tally()
                end = time.perf_counter() + pace.sample_seconds
                while not stop.is_set() and (left := end - time.perf_counter()) > 0:
                    running.run(time.perf_counter() + min(left, 0.5))
                _hand_over(running, windows)
            running.begin_tally()
            running.finish(20)
            _hand_over(running, windows)


def _hand_over(running: Clients, windows: Connection) -> None:
    tally = running.tally
    times = tally.latencies_seconds or [0.0]
    seconds = max(time.perf_counter() - tally.begun, 0.001)
    p50, p99, slowest = (percentile_ms(times, share) for share in (0.5, 0.99, 1))
    windows.send(
        {
            "acks_per_second": round(tally.answered / seconds, 1),
            "p50_ms": p50,
            "p99_ms": p99,
            "slowest_ms": slowest,
            "errors": tally.errors,
            "first_error": tally.first_error,
            "generator_cpu": round(time.process_time(), 2),
        }
    )


class Beside:
    """Threads that ask, record, export and prune until they are stopped; each counts what it did."""

    def __init__(
        self, node: ServeProcess, pace: Pace, traffic: Traffic, sent: Synchronized[int], target: BadTarget
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.pruned: Counter[str] = Counter()
        self.first_failures: dict[str, str] = {}
        self.read_seconds: list[float] = []
        self.prune_seconds: list[float] = []
        self._node = node
        self._pace = pace
        self._traffic = traffic
        self._sent = sent
        self._target = target
        self._key = {**node.make_key("read", "reports", "export", "pii", "messages:write")}
        self._stop = threading.Event()
        self._recorded = [0, 0]  # up to which number sends are recorded: those ahead of their receipt, the late ones
        works: tuple[tuple[str, float, Callable[[], object]], ...] = (
            ("sends", 1.0, self._record),
            ("questions", 0.2, self._read()),
            ("console look-ups", 1.0, self._look_up()),
            ("exports", pace.export_every, self._export),
            ("prunes", pace.prune_every, self._prune),
            ("status", pace.status_every, lambda: self._command("status")),
            ("outages", pace.outage_every, self._break_target),
        )
        self._threads = [threading.Thread(target=self._run, args=work, daemon=True) for work in works]

    def start(self) -> None:
        """Record the first sends, and begin."""
        self._record()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them, once each has done what it is about."""
        self._stop.set()
        for thread in self._threads:
            thread.join(300)
        self._target.fail(False)

    def _run(self, name: str, every: float, work: Callable[[], object]) -> None:
        due = time.monotonic() + (every if every > 1 else 0)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + every, time.monotonic() - every)
            try:
                work()
                self.counts[name] += 1
            except Exception as error:  # noqa: BLE001  (it has to go on, and is told in the end)
                self.counts[f"failed {name}"] += 1
                self.first_failures.setdefault(name, f"{datetime.now(UTC):%H:%M:%S} {error!r}"[:500])

    def _record(self) -> None:
        sent, rate, is_late = self._sent.value, int(self._pace.rate), self._traffic.is_late
        ahead, late = sent + 3 * rate, max(0, sent - 2 * rate)
        numbers = [number for number in range(self._recorded[0] + 1, ahead + 1) if not is_late(number)]
        numbers += [number for number in range(self._recorded[1] + 1, late + 1) if is_late(number)]
        sends = [self._traffic.send_of(number) for number in numbers if self._traffic.is_receipt(number)]
        for begin in range(0, len(sends), 250):
            self._ask("POST", "/api/v1/messages", sends[begin : begin + 250], expects=(200, 201, 202))
        self._recorded = [ahead, late]

    def _read(self) -> Callable[[], object]:
        turn = 0

        def read() -> None:
            nonlocal turn
            turn += 1
            number = max(1, self._sent.value - 1000)
            mobile, task_id = self._traffic.identity_of(number - number % 10)
            since = datetime.now(UTC) - timedelta(seconds=_BACKDATED_SECONDS)
            day_before = since - timedelta(days=1)
            span = urllib.parse.urlencode(
                {"from": f"{day_before:%Y-%m-%d}T00:00:00Z", "to": f"{since:%Y-%m-%dT%H}:00:00Z"}
            )
            asked: Sequence[tuple[str, str, Any]] = (
                ("POST", "/api/v1/messages/search", {"mobile": mobile}),
                ("GET", "/api/v1/messages?limit=50", None),
                ("GET", f"/api/v1/messages?task_id={task_id}", None),
                ("GET", "/api/v1/receipts?limit=50", None),
                ("GET", f"/api/v1/reports/delivery?{span}&group_by=hour", None),
            )
            begun = time.perf_counter()
            self._ask(*asked[turn % len(asked)])
            self.read_seconds.append(time.perf_counter() - begun)

        return read

    def _look_up(self) -> Callable[[], object]:
        made = self._node.run("users", "create", "soak", "--role", "support", stdin=_PASSWORD)
        assert made.returncode == 0, made.stderr
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        address = f"http://127.0.0.1:{self._node.port}/console"

        def page(path: str, fields: Mapping[str, str] | None = None) -> str:
            data = None if fields is None else urllib.parse.urlencode(fields).encode()
            with browser.open(address + path, data, timeout=60) as answer:
                return str(answer.read().decode())

        def token(text: str) -> str:
            found = _CSRF.search(text)
            assert found is not None, "a page without a form"
            return found[1]

        page("/login", {"name": "soak", "password": _PASSWORD, "csrf_token": token(page("/login"))})

        def look_up() -> None:
            number = max(1, self._sent.value - 1000)
            mobile, _ = self._traffic.identity_of(number - number % 10)
            fields = {"wanted": mobile, "period": "30d", "csrf_token": token(page("/"))}
            assert 'class="answer-text' in page("/look-up", fields), "no answer"

        return look_up

    def _export(self) -> None:
        since = datetime.now(UTC) - timedelta(seconds=_BACKDATED_SECONDS + 3 * self._pace.export_every)
        query = urllib.parse.urlencode({"format": "csv", "sent_from": since.isoformat()})
        self.counts["exported rows"] += self._ask("GET", f"/api/v1/exports/messages?{query}").count(b"\n")

    def _prune(self) -> None:
        begun = time.monotonic()
        for kind, rows in json.loads(self._command("prune")).items():
            self.pruned[kind] += rows
        self.prune_seconds.append(time.monotonic() - begun)

    def _command(self, name: str) -> str:
        command = ["-m", "receiver", name]
        if name == "prune":
            command = ["-c", _PRUNE, str(self._pace.keep_seconds), str(_BACKDATED_SECONDS)]
        done = subprocess.run(
            [sys.executable, *command],
            env=self._node.env, cwd=self._node.data_dir, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"receiver {name}: {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}")
        return done.stdout

    def _break_target(self) -> None:
        self._target.fail(True)
        self._stop.wait(self._pace.outage_seconds)
        self._target.fail(False)

    def _ask(self, method: str, path: str, body: Any = None, expects: Sequence[int] = (200,)) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._node.port, timeout=120)
        try:
            headers = {**self._key, "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status not in expects:
            raise RuntimeError(f"{method} {path.partition('?')[0]}: {answer.status} {content[:200]!r}")
        return content
