"""Floods: what they may cost, and that honest pushes go on meanwhile."""

from __future__ import annotations

import gzip
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from gunicorn.config import Config

from receiver.db.tables import audit, metadata
from receiver.db.tables import pushes as table_of_pushes
from receiver.intake.admission import Admission, Refused
from receiver.server.fast_path import FastPath, Head
from receiver.server.framing import Gathered
from receiver.web.monitored import create_monitored
from tests.conftest import SECRET, make_settings
from tests.harness.pushers import Pushers
from tests.harness.server import ServeProcess, read_answer
from tests.web.console.staff import one_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

DOORS = ["on", pytest.param("off", marks=pytest.mark.thorough)]
_OF_HONEST_PUSHES = {"messages", "receipts", "delivery_hours", "delivery_latencies", "push_secrets", "shared_secrets"}


@pytest.fixture(scope="module", params=DOORS)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    place = tmp_path_factory.mktemp("floods")
    with ServeProcess(place, environment={"RECEIVER_PUSH_LANE": request.param}) as process:
        yield process


def rows(process: ServeProcess) -> dict[str, int]:
    """How many rows each table has; of the journal, those that no pusher of ours has made."""
    engine = sa.create_engine(f"sqlite:///{process.data_dir / 'receiver.db'}")
    with engine.connect() as connection:
        counts = {
            table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }
        guessed = sa.select(sa.func.count()).where(table_of_pushes.c.outcome == "quarantined")
        counts["pushes"] = connection.scalar(guessed) or 0
        # Slow ones of the test before may be refused only now.
        refused = sa.cast(audit.c.detail, sa.Text).contains("POST /api/v1/messages")
        counts["audit"] = connection.scalar(sa.select(sa.func.count()).select_from(audit).where(sa.not_(refused))) or 0
    engine.dispose()
    return {name: count for name, count in counts.items() if name not in _OF_HONEST_PUSHES}


# --- Slow ones --------------------------------------------------------------------------------------------

_SLOW = (
    b"POST %b HTTP/1.1\r\nHost: x\r\n",
    b"POST %b HTTP/1.1\r\nContent-Length: 100\r\n\r\nmob",
    b"POST %b HTTP/1.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    b"POST %b HTTP/1.0\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    b"POST %b HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nmob",
    b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nmo",
    b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n1;x=",
)


def test_slow_heads_and_bodies_take_no_thread(door: ServeProcess) -> None:
    _, worker = door.await_worker()

    def threads() -> int:
        return len(list(Path(f"/proc/{worker}/task").iterdir()))

    assert door.request("GET", "/healthz").status == 200
    before = threads()
    with ExitStack() as slow:
        for number in range(20 * len(_SLOW)):
            path = (door.target, "/console/login", "/api/v1/messages")[number % 3].encode()
            connection = slow.enter_context(door.connect())
            connection.sendall(_SLOW[number % len(_SLOW)] % path)
        # Later than all of them, so that each has had the thread by now that it would have had.
        assert door.request("GET", "/healthz").status == 200
        assert door.push(b"mobile=1").headers["X-Push-Outcome"] == "quarantined"
        assert threads() <= before + 5


def test_what_a_thread_reads_itself_has_to_arrive_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    gathered = Gathered(b"gathered", lambda *_: b"x")
    assert [gathered(), gathered()] == [b"gathered", b"x"]
    now += 59
    assert gathered() == b"x"
    now += 2
    with pytest.raises(TimeoutError):
        gathered()


# --- Large ones ---------------------------------------------------------------------------------------------


def rss_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


@pytest.mark.thorough
def test_bombs_are_bytes_floods_are_refused_and_memory_stays(door: ServeProcess) -> None:
    key = door.make_key("read", "messages:write")
    json_type = {"Content-Type": "application/json"}
    packed = gzip.compress(b"0" * 20_000_000)
    _, worker = door.await_worker()
    target = door.target
    before = rss_bytes(worker)
    with Pushers(door, 2, pause_seconds=0.02) as pushers:
        pushers.await_acks(2)
        for _ in range(3):
            # A body is kept as it comes: nothing is unpacked, so that 20 MB of zeros are 20 KB.
            bomb = door.request("POST", target, packed, {"Content-Encoding": "gzip"})
            assert (bomb.status, bomb.headers["X-Push-Outcome"]) == (200, "quarantined")
            assert (
                door.request(
                    "POST", "/api/v1/messages", packed, {**key, **json_type, "Content-Encoding": "gzip"}
                ).status
                == 400
            )
            for fields in (b"&" * 65_536, b"a&" * 32_768, b"=&" * 32_768, b"mobile=1&" * 7_281, b"%" * 65_536):
                assert door.push(fields).headers["X-Push-Outcome"] == "quarantined"
            many = "".join(f"X-{number}: y\r\n" for number in range(5_000))
            large = "X: " + "y" * 200_000
            for head in (many, large):
                raw = f"POST {target} HTTP/1.1\r\n{head}\r\nContent-Length: 0\r\n\r\n".encode()
                assert door.exchange(raw).status in (400, 431)
            assert door.request("GET", f"/api/v1/messages?q={'x' * 150_000}", headers=key).status == 414
            assert door.request("GET", f"/api/v1/messages?{'a=1&' * 10_000}", headers=key).status in (200, 422)
            for body in (
                b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000,
                b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}",
                b"1" * 100_000, b'"' + b"\\ud800" * 100_000 + b'"', b"[" + b"{}," * 50_000 + b"{}]",
            ):  # fmt: skip
                answer = door.request("POST", "/api/v1/messages", body, {**key, **json_type})
                assert answer.status in (400, 422), (answer.status, body[:20])
        pushers.await_acks(2)
    assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert rss_bytes(worker) - before < 150_000_000


@one_database
def test_body_of_the_api_has_a_bound(client: FlaskClient, bearer: dict[str, str]) -> None:
    for size, status in ((4 * 1024 * 1024 + 1, 413), (4 * 1024 * 1024, 400)):
        answer = client.post("/api/v1/messages", data=b" " * size, content_type="application/json", headers=bearer)
        assert answer.status_code == status, size


# --- Wrong secrets --------------------------------------------------------------------------------------


def test_flood_of_wrong_secrets_writes_nothing_and_stops_no_push(door: ServeProcess) -> None:
    before, files = rows(door), {path.name for path in door.data_dir.rglob("*")}
    answers: list[tuple[int, str]] = []
    logged_before = len(door.log.read_text())  # by the tests before
    begun = time.monotonic()
    with Pushers(door, 2, pause_seconds=0.02) as pushers:
        pushers.await_acks(2)
        with door.connect() as connection:
            for number in range(300):
                method, length = (b"GET", b"") if number % 3 else (b"POST", b"Content-Length: 8\r\n")
                path = b"/push/guess-%030d?mobile=15080921090" % number
                connection.sendall(b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method, path, length))
                if length:
                    connection.sendall(b"mobile=1")
                answer = read_answer(connection)
                answers.append((answer.status, answer.headers["X-Request-Id"]))
        pushers.await_acks(2)
    assert {status for status, _ in answers} == {404}
    assert len({given for _, given in answers}) == 300
    assert set(pushers.outcomes) <= {"accepted", "spooled"}
    assert rows(door) == before
    # The place in the audit's chain is that of what a test before may have had audited.
    known = {"receiver.db-wal", "receiver.db-shm", "receiver.db-checkpoint", "audit.anchors"}
    assert {path.name for path in door.data_dir.rglob("*")} - files <= known
    log = door.log.read_text()
    assert '"event": "push refused"' in log  # by the tests before perhaps, which may have used up this test's share
    log = log[logged_before:]
    told = log.count('"event": "push refused"')
    assert told <= 20 * ((time.monotonic() - begun) // 10 + 2)
    assert len(re.findall(r'"event": "request"[^\n]*"http_status": 404', log)) <= told


def test_refusals_beyond_a_bound_are_counted_in_the_log_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    gate = Admission(make_settings("sqlite://", tmp_path))

    def refuse() -> Refused:
        return gate.refuse_secret("192.0.2.1", None, request_id="0" * 32)

    def told() -> list[object]:
        lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        caplog.clear()
        return [line.get("suppressed", 1) for line in lines if "refused" in line["event"]]

    assert [refuse().logged for _ in range(50)] == [True] * 20 + [False] * 30
    gate.log_suppressed()
    assert told() == [1] * 20
    now += 10
    gate.log_suppressed()
    gate.log_suppressed()
    assert told() == [30]
    assert [refuse().logged for _ in range(21)] == [True] * 20 + [False]
    assert len(told()) == 20
    now += 10
    assert refuse().logged
    assert told() == [1, 1]  # what was left out, and this one
    assert len(gate.refusals) == 72


@one_database
def test_guesses_drive_no_honest_head_out_of_the_lanes_memory(make_runtime: Callable[..., Runtime]) -> None:
    lane = FastPath(create_monitored(make_runtime()), Config())
    client = ("127.0.0.1", 1)

    def head(secret: str) -> Head | None:
        return lane.head(f"POST /push/{secret} HTTP/1.1\r\nContent-Length: 8\r\n\r\n".encode(), client)

    honest = head(SECRET)
    assert honest is not None
    assert honest.secret is not None
    for number in range(5000):
        guess = head(f"guess-{number:030}")
        assert guess is not None
        assert guess.secret is None
    assert head(SECRET) is honest
    assert len(lane._wrong_heads) == 256
    refused: list[object] = []
    assert guess is not None
    assert lane.admit_and_enqueue(guess, b"mobile=1", client, refused.append)  # so that no thread has to
    assert [type(answer) for answer in refused] == [Refused]
