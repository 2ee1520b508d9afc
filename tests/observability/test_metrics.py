"""One scrape tells what all serving processes have counted, whichever of them have died."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from receiver import __version__
from receiver.app import create_app
from receiver.messages import journal
from receiver.messages.journal import find_oldest_pending
from receiver.observability import metrics
from receiver.server import multiprocess_metrics
from receiver.server.multiprocess_metrics import MultiprocessMetrics
from receiver.web import access_log, send_proxy
from tests.bench.usage import is_running, list_tree
from tests.harness.factories import make_push
from tests.harness.journal import appending
from tests.harness.server import ServeProcess, read_answer
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

_RECEIPT = b"mobile=15080921090&taskid=%d&status=1&receivetime=2019-07-23+17%%3A00%%3A00"
_PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def served(
    module_postgres_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServeProcess, int]]:
    """Two serving processes on one PostgreSQL, and their master."""
    process = ServeProcess(tmp_path_factory.mktemp("served"), module_postgres_database_url, ("--workers", "2"))
    process.upgrade()
    with process:
        master, _ = process.await_worker()
        await_true(lambda: scrape(process)["receiver_serving_processes"] == 2)
        yield process, master


def scrape(served: ServeProcess) -> dict[str, float]:
    """Every sample of one scrape, on a connection of its own: whichever process takes it."""
    answer = served.request("GET", "/metrics")
    text = answer.body.decode()
    assert answer.status == 200, text
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


def push(served: ServeProcess, count: int) -> None:
    """Push on so many connections at once, so that both processes have some."""
    body = _RECEIPT % time.monotonic_ns()
    head = f"POST {served.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connections = [served.connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(head.encode() + body)
    for connection in connections:
        assert read_answer(connection).status == 200
        connection.close()


def pushed(served: ServeProcess) -> float:
    found = scrape(served)
    return sum(found[f'receiver_pushes_total{{outcome="{outcome}"}}'] for outcome in ("accepted", "spooled"))


def workers_of(master: int) -> set[int]:
    return {pid for pid in list_tree(master)[1:] if is_running(pid)}


def test_every_process_gives_the_sum_of_all(served: tuple[ServeProcess, int]) -> None:
    process, _ = served
    before = pushed(process)
    push(process, 40)
    await_true(lambda: pushed(process) == before + 40)  # counted a moment after the answer
    assert {pushed(process) for _ in range(20)} == {before + 40}
    delays = scrape(process)
    assert delays["receiver_receipt_delay_seconds_count"] == before + 40
    assert delays['receiver_receipt_delay_seconds_bucket{le="86400.0"}'] == 0
    assert delays["receiver_ack_seconds_count"] >= 40
    assert delays["receiver_last_push_timestamp_seconds"] == pytest.approx(time.time(), abs=_PATIENCE_SECONDS)


def test_requests_are_counted_by_route_and_pushes_are_not_among_them(served: tuple[ServeProcess, int]) -> None:
    process, _ = served
    key = process.make_key("read")
    before = scrape(process)
    for _ in range(3):
        assert process.request("GET", "/api/v1/messages?mobile=15080921090", headers=key).status == 200
        assert process.request("GET", "/api/v1/messages/15080921090").status == 401
        assert process.request("GET", "/puhs/15080921090").status == 404
        assert process.request("POST", "/push/15080921090", b"").status == 404
    push(process, 3)

    def counted(now: dict[str, float]) -> dict[str, float]:
        names = [name for name in now if "receiver_http_requests_total" in name and "/metrics" not in name]
        return {
            name.partition("{")[2]: now[name] - before.get(name, 0) for name in names if now[name] > before.get(name, 0)
        }

    one = "/api/v1/messages/<row_id:message_id>"
    await_true(lambda: len(counted(scrape(process))) == 3)
    await_true(lambda: set(counted(scrape(process)).values()) == {3})
    now = scrape(process)
    assert set(counted(now)) == {
        'method="GET",route="/api/v1/messages",status="2xx"}',
        f'method="GET",route="{one}",status="4xx"}}',
        'method="GET",route="none",status="4xx"}',
    }
    assert now[f'receiver_http_requests_total{{method="GET",route="{one}",status="5xx"}}'] == 0
    assert now[f'receiver_http_request_duration_seconds_count{{route="{one}"}}'] >= 3
    assert not [name for name in now if "push/" in name or "15080921090" in name]


def test_every_process_has_the_standard_figures_whichever_answers(served: tuple[ServeProcess, int]) -> None:
    process, master = served
    pids = {"master": master} | dict(zip("01", sorted(workers_of(master)), strict=True))
    for _ in range(5):
        now = scrape(process)
        for name, pid in pids.items():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found = now[f'process_resident_memory_bytes{{process="{name}"}}']
            assert found == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.3)
            assert now[f'process_start_time_seconds{{process="{name}"}}'] == pytest.approx(
                Path(f"/proc/{pid}").stat().st_mtime, abs=_PATIENCE_SECONDS
            )
            assert now[f'process_cpu_seconds_total{{process="{name}"}}'] > 0
            assert now[f'process_open_fds{{process="{name}"}}'] < now[f'process_max_fds{{process="{name}"}}']
    assert len([name for name in now if name.startswith("process_")]) == 6 * len(pids)


def test_what_has_not_happened_is_counted_as_0_from_the_start(served: tuple[ServeProcess, int]) -> None:
    now = scrape(served[0])
    for outcome in ("accepted", "refused", "outcome_unknown", "local_limit", "unrecorded"):
        assert now[f'receiver_sends_total{{outcome="{outcome}"}}'] == 0
    assert now['receiver_store_failures_total{reason="DatabaseUnavailable"}'] == 0
    (built,) = [name for name in now if name.startswith("receiver_build_info")]
    assert built == (
        f'receiver_build_info{{database="postgresql",python="{platform.python_version()}",version="{__version__}"}}'
    )


@pytest.mark.parametrize("given", [[6e10], [1.0, 6e10], [1.0, 2.0]])
def test_one_absurd_time_does_not_decide_the_sum(given: list[float]) -> None:
    histogram = metrics.ManyHistogram("tried", "Tried.", buckets=(1, 10), registry=CollectorRegistry())
    histogram.observe_all(given)
    found = {sample.name + sample.labels.get("le", ""): sample.value for sample in histogram.collect()[0].samples}
    assert found["tried_sum"] == sum(min(value, 7 * 86400) for value in given)
    assert found["tried_count"] == len(given)
    assert found["tried_bucket10.0"] == sum(value < 10 for value in given)


def test_nothing_falls_when_a_process_is_killed_or_renewed(served: tuple[ServeProcess, int]) -> None:
    process, master = served
    before = pushed(process)
    push(process, 40)
    await_true(lambda: pushed(process) == before + 40)
    for how in ("kill -9", "kill -HUP"):
        starts = scrape(process)["receiver_process_starts_total"]
        old = workers_of(master)
        if how == "kill -9":
            victim = min(old)
            os.kill(victim, signal.SIGKILL)
            gone, new = {victim}, 1
        else:
            os.kill(master, signal.SIGHUP)
            gone, new = old, 2
        totals: set[float] = set()

        def is_renewed(gone: set[int] = gone, expected: float = starts + new, totals: set[float] = totals) -> bool:
            totals.add(pushed(process))
            now = scrape(process)
            return (
                not gone & workers_of(master)
                and now["receiver_process_starts_total"] == expected
                and now["receiver_serving_processes"] == 2
            )

        await_true(is_renewed)
        assert totals == {before + 40}, how
    push(process, 40)
    await_true(lambda: pushed(process) == before + 80)


def test_restarts_add_no_files_and_other_commands_count_nowhere(served: tuple[ServeProcess, int]) -> None:
    process, master = served
    (directory,) = mapped_directories(min(workers_of(master)))
    held = {str(handle.readlink()) for handle in Path(f"/proc/{master}/fd").iterdir()}
    assert {place for place in held if "/receiver-metrics-" in place} == {str(directory)}
    files = {path.name for path in directory.glob("*.db")}
    assert {int(path.read_text()) for path in directory.glob("*.pid")} == {master, *workers_of(master)}
    assert {re.sub(r"_\d+\.db", "", name) for name in files} == set(multiprocess_metrics._KINDS)
    assert {int(re.findall(r"\d+", name)[-1]) for name in files} <= set(range(4))  # a reload has both at once
    starts = scrape(process)["receiver_process_starts_total"]
    assert process.run("status").returncode == 0
    assert {path.name for path in directory.glob("*.db")} == files
    assert scrape(process)["receiver_process_starts_total"] == starts


def mapped_directories(pid: int) -> set[Path]:
    """Where a process has what it counts."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {Path(name) for name in re.findall(r"(/\S+/receiver-metrics-[^/\s]+)/\S+\.db", maps)}


def test_what_the_database_cannot_tell_is_left_out(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(metrics_allow=(ip_network("127.0.0.0/8"),))
    client = create_app(runtime).test_client()
    assert "receiver_send_spikes 0.0" in client.get("/metrics").text
    runtime._drainer.stop()  # which would find out that this is not true
    runtime.availability.mark_down("a test says so")
    page = client.get("/metrics").text
    assert "receiver_send_spikes 0.0" not in page
    assert "receiver_spool_records 0.0" in page
    assert "receiver_database_up 0.0" in page


def test_append_that_does_not_end_is_seen_by_whoever_is_asked(postgres_runtime: Runtime) -> None:
    assert postgres_runtime.ask_present(find_oldest_pending) is None
    with appending(postgres_runtime.database, [make_push()]):
        journal.append(postgres_runtime.database, [make_push(task_id="after")])
        assert postgres_runtime.ask_present(find_oldest_pending) is not None
    assert postgres_runtime.ask(find_oldest_pending) is None


def test_place_of_a_killed_master_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocess_metrics, "_MEMORY", tmp_path / "none")
    killed, living = MultiprocessMetrics(tmp_path), MultiprocessMetrics(tmp_path)
    os.close(killed._lock)
    assert living.assign_slot({0, 2}) == 1
    next_one = MultiprocessMetrics(tmp_path)
    assert killed.directory is not None
    assert not killed.directory.exists()
    assert living.directory is not None
    assert living.directory.exists()
    next_one.close()
    living.close()
    assert list(tmp_path.glob("receiver-metrics-*")) == []


def test_scrape_while_a_process_gets_its_files_reads_none_that_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail where a file has its name before its size: a scrape then ended with 500."""
    monkeypatch.setattr(multiprocess_metrics, "_MEMORY", tmp_path / "none")
    shared = MultiprocessMetrics(tmp_path)
    made = os.posix_fallocate
    read = []

    def scrape_and_make(file: int, offset: int, size: int) -> None:
        read.append(list(MultiProcessCollector(None, str(shared.directory)).collect()))  # type: ignore[no-untyped-call]
        made(file, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", scrape_and_make)
    assert shared.assign_slot(set()) == 0
    assert read == [[]] * len(multiprocess_metrics._KINDS)
    shared.close()


_COUNT_ALL = """
import json, sys
from pathlib import Path
from receiver.observability import metrics
from receiver.server import multiprocess_metrics

multiprocess_metrics._MEMORY = Path(sys.argv[1])
shared = multiprocess_metrics.MultiprocessMetrics(Path(sys.argv[1]))
shared.start_counting(shared.assign_slot(()))
for route, methods in json.load(sys.stdin):
    for method in methods:
        for status in (200, 302, 404, 503):
            metrics.count_request(route, method, status, 0.1)
for path in shared.directory.glob("*.db"):
    print(path.name.rpartition("_")[0], path.stat().st_size, int.from_bytes(path.read_bytes()[:4], sys.byteorder))
shared.close()
"""


def test_files_have_room_for_every_route_requested_in_every_way(runtime: Runtime, tmp_path: Path) -> None:
    rules = create_app(runtime).url_map.iter_rules()
    routes: list[tuple[str | None, list[str]]] = [(rule.rule, sorted(rule.methods or ())) for rule in rules]
    beside = (None, *send_proxy._INTERFACES, send_proxy._OTHER_ROUTE)
    routes += [(route, sorted(access_log._METHODS)) for route in beside]
    counted = subprocess.run(
        [sys.executable, "-c", _COUNT_ALL, str(tmp_path)],
        input=json.dumps(routes),
        capture_output=True,
        text=True,
        check=True,
    )
    files = {kind: (int(size), int(used)) for kind, size, used in map(str.split, counted.stdout.splitlines())}
    assert {kind: size for kind, (size, _) in files.items()} == multiprocess_metrics._KINDS
    assert {kind: used for kind, (size, used) in files.items() if used > size / 2} == {}
    assert files["counter"][1] > 100 * len(routes)  # they were counted there


def test_without_a_place_each_process_counts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocess_metrics, "_MEMORY", tmp_path / "none")
    assert MultiprocessMetrics(tmp_path / "none either").assign_slot(set()) is None
