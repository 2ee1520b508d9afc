"""`python -m tests.bench.soak`: hours of steady pushes into one server on PostgreSQL: what grows, and is all there?

Beside the pushes: records of their sends, readers of the API and the console, exports, a webhook whose endpoint fails
for a minute in ten, `receiver status`, and `receiver prune`. Samples go to a file as they are taken: `--table FILE`
makes the section of a run that was broken off, too. Exit code 1 where a push is missing or `receiver verify` finds
something.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg

from receiver.core import first_id_of
from receiver.webhooks.endpoints import EventType, PayloadFormat
from tests.bench.bad_target import BadTarget, Misbehaviour
from tests.bench.clients import Clients
from tests.bench.forwarding import prepare
from tests.bench.load import percentile_ms
from tests.bench.report import publish
from tests.bench.usage import list_tree
from tests.harness.leaks import leaks
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_shared_place
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

_CLIENTS = 64
_ZONE = ZoneInfo("Asia/Shanghai")
_EVENTS = (EventType.NOT_DELIVERED, EventType.REPLY_RECEIVED)
_PASSWORD = "as long as it takes"
_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')
_PUSH_ID = re.compile(rb"\r\nx-push-id: *([0-9a-f-]{36})\r\n")
_BAD_LINE = re.compile(r'"level": "(?:warning|error|critical)"|Traceback')
_BEFORE_FIRST_SECONDS, _SEND_AGE_SECONDS = 2.0, 3.0
# A prune deletes the messages of whole days, whose report it closes first: these were sent on a day before today.
_BACKDATED_SECONDS = 30 * 3600
_DRAIN_SECONDS = 300.0
_MARKS_MINUTES = (15, 30, 60, 90, 120)
_SMOOTHED_SECONDS = 300.0  # a prune every five minutes makes the sizes a saw
_WARM_UP_SECONDS = 900.0
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


# --- The pushes -----------------------------------------------------------------------------------------------


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


def _push(
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
            port, path, _CLIENTS, per_push=False, ramp_seconds=1.0, rate=pace.rate, body_of=body_of, on_ack=note
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


# --- What goes on beside them ---------------------------------------------------------------------------------


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
            span = urllib.parse.urlencode({"from": f"{since:%Y-%m-%d}T00:00:00Z", "to": f"{since:%Y-%m-%dT%H}:00:00Z"})
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


# --- Samples --------------------------------------------------------------------------------------------------


def _sample_processes(root: int) -> dict[str, float]:
    rss, pss, files, threads = [], 0, 0, 0
    tree = list_tree(root)
    for pid in tree:
        with suppress(OSError, ValueError):
            place = Path(f"/proc/{pid}")
            said = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            rss.append(int(said.get("VmRSS", "0 kB").split()[0]) / 1024)
            threads += int(said["Threads"])
            files += len(list((place / "fd").iterdir()))
            rollup = dict(line.split(":", 1) for line in (place / "smaps_rollup").read_text().splitlines()[1:])
            pss += int(rollup["Pss"].split()[0])
    return {
        "processes": len(rss),
        "rss_mb": round(sum(rss), 1),
        "largest_mb": round(max(rss, default=0.0), 1),
        "pss_mb": round(pss / 1024, 1),
        "files": files,
        "threads": threads,
    }


def _sample_postgres(url: str) -> dict[str, float]:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(size) FROM pg_ls_waldir()) / 1e6, pg_database_size(current_database()) / 1e6, "
            "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()), "
            "(SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'pushes')"
        ).fetchone()
    assert row is not None
    return dict(
        zip(("wal_mb", "database_mb", "sessions", "journal_rows"), (round(float(n), 1) for n in row), strict=True)
    )


_SCRAPED = {
    "receiver_spool_records": "spool_records",
    "receiver_spool_bytes": "spool_bytes",
    "receiver_projection_lag_seconds": "projection_lag_s",
    "receiver_webhook_queue": "webhook_queue",
    "receiver_webhook_pending": "webhook_pending",
    "receiver_webhook_oldest_age_seconds": "webhook_oldest_s",
    "receiver_webhook_dead_letters": "webhook_dead",
}


def _scrape(node: ServeProcess) -> dict[str, float]:
    found = dict.fromkeys(_SCRAPED.values(), 0.0)
    for line in node.request("GET", "/metrics").body.decode().splitlines():
        name = _SCRAPED.get(re.split(r"[ {]", line, maxsplit=1)[0])
        if name:
            found[name] += float(line.rsplit(" ", 1)[1])
    return found


def _sample_data(node: ServeProcess) -> dict[str, float]:
    files = [path for path in node.data_dir.rglob("*") if path.is_file() and path != node.log]
    size = 0
    for path in files:
        with suppress(OSError):
            size += path.stat().st_size
    return {"data_files": len(files), "data_mb": round(size / 1e6, 2)}


class _Log:
    """The server's log: read and emptied at each sample, else hours of it would be gigabytes."""

    def __init__(self, node: ServeProcess, kept: Path) -> None:
        self._path = node.log
        self._kept = kept
        self.leaks = 0

    def take(self) -> dict[str, float]:
        """Count its warnings and errors, keep those, and empty it."""
        text = self._path.read_text(errors="replace")
        os.truncate(self._path, 0)
        bad = [line for line in text.splitlines() if _BAD_LINE.search(line) or not line.startswith("{")]
        self.leaks += len(leaks(text))
        with self._kept.open("a") as file:
            file.writelines(f"{line}\n" for line in bad)
        return {"log_warnings": len(bad), "log_mb": round(len(text) / 1e6, 2)}


# --- The run --------------------------------------------------------------------------------------------------


def soak(url: str, pace: Pace, samples_path: Path) -> Verdict:
    """Do it on an empty database, and write the samples."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", dir=find_shared_place(on_disk=True)))
        )
        none = Misbehaviour(fails=0.0, resets=0.0, hangs=0.0)
        target = stack.enter_context(BadTarget(place / "taken", none))
        prepare(url, target.url, PayloadFormat.WEBHOOKS, wanted=_EVENTS)
        (place / "data").mkdir(mode=0o700)
        node = ServeProcess(place / "data", url, environment={"RECEIVER_WEBHOOKS_ALLOW": "127.0.0.0/8"}, patient=False)
        stack.enter_context(node)
        master, _ = node.await_worker()
        log = _Log(node, samples_path.with_suffix(".log"))
        sent: Synchronized[int] = context.Value("q", 0)
        stop = context.Event()
        windows, theirs = context.Pipe(duplex=False)
        traffic = Traffic(time.time() + _BEFORE_FIRST_SECONDS, pace.rate)
        beside = Beside(node, pace, traffic, sent, target)
        beside.start()
        acked = place / "acked"
        pushing = context.Process(
            target=_push, args=(node.port, node.target, traffic, pace, str(acked), sent, stop, theirs), daemon=True
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
    seen: tuple[ServeProcess, int, str, _Log, Beside, BadTarget],
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
        **_sample_processes(master),
        **_sample_postgres(url),
        **_scrape(node),
        **_sample_data(node),
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
        found = _scrape(node)
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


# --- The table ------------------------------------------------------------------------------------------------

# What is shown, of which samples before a mark (the mean, the greatest, their sum since the beginning), and digits.
_ROWS: tuple[tuple[str, str, Callable[[Sequence[float]], float], int], ...] = (
    ("acknowledged pushes/s", "acks_per_second", statistics.fmean, 0),
    ("acknowledgement p50, ms", "p50_ms", statistics.fmean, 1),
    ("acknowledgement p99, ms", "p99_ms", statistics.fmean, 1),
    ("slowest acknowledgement, ms", "slowest_ms", max, 0),
    ("questions p99, ms", "read_p99_ms", statistics.fmean, 0),
    ("RSS of all processes, MB", "rss_mb", statistics.fmean, 0),
    ("PSS of all processes, MB", "pss_mb", statistics.fmean, 0),
    ("RSS of the largest process, MB", "largest_mb", statistics.fmean, 0),
    ("open files", "files", statistics.fmean, 0),
    ("threads", "threads", statistics.fmean, 0),
    ("sessions in PostgreSQL", "sessions", statistics.fmean, 0),
    ("PostgreSQL's WAL, MB", "wal_mb", statistics.fmean, 0),
    ("database, MB", "database_mb", statistics.fmean, 0),
    ("pushes in the journal, thousand", "journal_rows", lambda values: statistics.fmean(values) / 1000, 0),
    ("files of the data directory", "data_files", statistics.fmean, 0),
    ("bytes of the data directory, MB", "data_mb", statistics.fmean, 1),
    ("projection lag, s", "projection_lag_s", statistics.fmean, 2),
    ("records in the spool", "spool_records", max, 0),
    ("webhook events not made into deliveries", "webhook_queue", statistics.fmean, 0),
    ("webhook deliveries pending", "webhook_pending", statistics.fmean, 0),
    ("the last prune, s", "prune_s", statistics.fmean, 0),
)


def make_table(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table: each measure at the marks, and last against first quarter after a warm-up."""
    end = samples[-1]["second"]
    marks = [minutes * 60.0 for minutes in _MARKS_MINUTES if minutes * 60 <= end + 60]
    if not marks or end - marks[-1] > _SMOOTHED_SECONDS:
        marks.append(end)
    after = [one for one in samples if one["second"] >= min(_WARM_UP_SECONDS, end / 4)]
    quarter = max(1, len(after) // 4)
    heads = [f"{int(mark // 3600)}:{int(mark % 3600 // 60):02d}" for mark in marks]
    lines = [f"| | {' | '.join(heads)} | last quarter : first |", "|---|" + "--:|" * (len(marks) + 1)]
    for title, name, fold, digits in _ROWS:
        cells = []
        for mark in marks:
            near = [one[name] for one in samples if mark - _SMOOTHED_SECONDS < one["second"] <= mark + 60]
            cells.append(f"{fold(near):,.{digits}f}" if near else "")
        first, last = (statistics.fmean(one[name] for one in part) for part in (after[:quarter], after[-quarter:]))
        ratio = f"{last / first:.2f}" if first else ("0 : 0" if not last else f"{last:,.{digits}f} : 0")
        lines.append(f"| {title} | {' | '.join(cells)} | {ratio} |")
    errors, warnings = (sum(one[name] for one in samples) for name in ("errors", "log_warnings"))
    lines += ["", f"Failed pushes: {errors}. Warnings and errors in the log: {warnings}."]
    return lines


def _describe(pace: Pace) -> str:
    return (
        f"{pace.rate:,.0f} pushes/s, evenly, over {_CLIENTS} kept connections: receipts, a twelfth of failures, 5 % "
        "copies, 2.5 % replies, 0.5 % that cannot be read. A tenth of the sends is recorded after its receipt. Beside: "
        "records of sends, five questions a second to the API and a look-up a second in the console, an export every "
        f"{pace.export_every:.0f} s, `status` every {pace.status_every:.0f} s, a webhook of replies and failures whose "
        f"endpoint fails for {pace.outage_seconds:.0f} s of {pace.outage_every:.0f}, and a prune every "
        f"{pace.prune_every:.0f} s of what is older than {pace.keep_seconds / 60:.0f} minutes (retention is in days: "
        "only the cutoff is the bench's own). Each cell: the mean of the five minutes before, of the slowest and the "
        "spool the greatest. The ratio: means of the last and the first quarter after 15 minutes. The load, the server "
        "and PostgreSQL share the cores."
    )


def main() -> int:
    """Run it, write the section, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0, help="for how long (7200)")
    parser.add_argument("--rate", type=float, default=500.0, help="pushes a second (500)")
    parser.add_argument("--samples", type=Path, default=Path("soak.jsonl"), help="the file of the samples (soak.jsonl)")
    parser.add_argument("--trial", action="store_true", help="all that happens beside in seconds, not in minutes")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="write the section of these samples, and run nothing"
    )
    given = parser.parse_args()
    pace = Pace(seconds=given.seconds, rate=given.rate)
    if given.trial:
        pace = make_trial(given.seconds, given.rate)
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
    publish("soak", "Hours of steady load", _describe(pace), lines, version=version)
    return 0 if verdict is None or verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
