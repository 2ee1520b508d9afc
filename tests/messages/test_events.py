"""Events: a reader that goes on from its cursor misses none and sees none twice, whoever writes meanwhile."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.audit import log
from receiver.auth import api_keys, changes
from receiver.auth.api_keys import Scope
from receiver.db.tables import receipts, replies
from receiver.messages import Position, catch_up, journal, list_events
from receiver.runtime import Runtime
from tests.conftest import make_key, make_settings
from tests.harness.factories import make_push
from tests.harness.journal import appending, save_pushes
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient


WRITERS = 8
SECONDS = 1.2


def pushed(writer: int, number: int) -> Any:
    """The next push of a writer: a reply now and then, a masked number now and then."""
    mobile = f"156{writer:02d}{number:06d}" if number % 7 else "1560891****"
    content = "收到" if number % 5 == 0 else None
    return make_push(task_id=f"{writer}.{number}", mobile=mobile, content=content)


class Reader:
    """Reads the stream by pages of random size, from any of several nodes, until told to stop."""

    def __init__(self, clients: list[tuple[FlaskClient, dict[str, str]]]) -> None:
        self._clients = clients
        self._cursor: str | None = None
        self.seen: list[tuple[str, str]] = []

    def read(self, **query: Any) -> list[dict[str, Any]]:
        client, headers = random.choice(self._clients)
        given = {"limit": random.randint(1, 200)} | query | ({"after": self._cursor} if self._cursor else {})
        page = client.get("/api/v1/events", query_string=given, headers=headers)
        assert page.status_code == 200, page.json
        self._cursor = page.json["next_cursor"]
        self.seen += [(item["kind"], item["id"]) for item in page.json["items"]]
        items: list[dict[str, Any]] = page.json["items"]
        return items


def everything(runtime: Runtime) -> set[tuple[str, str]]:
    with runtime.database.reading() as connection:
        return {
            (kind, str(row_id))
            for kind, table in (("receipt", receipts), ("reply", replies))
            for row_id in connection.scalars(sa.select(table.c.id))
        }


class Writers:
    """Write pushes in batches of random size, some in transactions that stay open for a while."""

    def __init__(self, runtime: Runtime, seed: int) -> None:
        self._runtime = runtime
        self._seed = seed
        self._stopping = threading.Event()
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(writer,)) for writer in range(WRITERS)]
        if runtime.database.postgresql:  # on SQLite it would stop the others, which is no test of the reader
            self._threads.append(threading.Thread(target=self._hold_open))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer: int) -> None:
        chance = random.Random(f"{writer} {self._seed}")
        number = 0
        try:
            while not self._stopping.is_set():
                batch = [pushed(writer, number + k) for k in range(chance.randint(1, 5))]
                number += len(batch)
                if chance.random() < 0.3:
                    self._save_slowly(batch, chance.random() * 0.05)
                else:
                    save_pushes(self._runtime.database, batch)
        except BaseException as error:  # noqa: BLE001  (told to the test)
            self.failures.append(error)

    def _hold_open(self) -> None:
        """One transaction that has taken a place in the journal and stays open for seconds."""
        self._save_slowly([pushed(99, self._seed)], SECONDS * 0.7)

    def _save_slowly(self, batch: list[Any], seconds: float) -> None:
        database = self._runtime.database
        if database.postgresql:
            with appending(database, batch):
                time.sleep(seconds)
        else:
            journal.append(database, batch)


@pytest.mark.thorough
@pytest.mark.parametrize("run", range(10))
def test_nothing_is_missed_and_nothing_seen_twice_however_many_write(runtime: Runtime, run: int) -> None:
    other = Runtime(runtime.settings)  # another node on the same database
    nodes = [(create_app(part).test_client(), {"Authorization": make_key(runtime)}) for part in (runtime, other)]
    reader = Reader(nodes)
    with Writers(runtime, run) as writers:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends or len(reader.seen) <= 100:  # a busy machine takes longer over them
            reader.read()
            time.sleep(random.uniform(0, 0.05))
    while reader.read(limit=1000):
        pass
    other.stop()
    assert writers.failures == []
    assert len(reader.seen) == len(set(reader.seen))
    assert set(reader.seen) == everything(runtime)
    assert len(reader.seen) > 100


def task_ids(runtime: Runtime) -> list[str | None]:
    page = runtime.ask_present(lambda connection: list_events(connection, Position(), 10, None))
    return [event.row.task_id for event in page]


def test_open_append_holds_back_what_came_after_it_and_the_lag_is_shown(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    save_pushes(runtime.database, [make_push(task_id="before")])
    with appending(runtime.database, [make_push(task_id="open")]):
        journal.append(runtime.database, [make_push(task_id="after")])
        assert catch_up(runtime.database, seconds=0.5) is not None
        assert task_ids(runtime) == ["before"]
        await_true(lambda: runtime.projector.lag_seconds > 0.3)
    assert catch_up(runtime.database, seconds=10) is None
    assert task_ids(runtime) == ["before", "open", "after"]
    await_true(lambda: runtime.projector.lag_seconds == 0)


def test_append_that_failed_holds_nothing_back(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    with pytest.raises(RuntimeError), appending(runtime.database, [make_push(task_id="failed")]):
        raise RuntimeError
    journal.append(runtime.database, [make_push(task_id="after")])
    assert catch_up(runtime.database, seconds=10) is None
    assert task_ids(runtime) == ["after"]


def test_cursor_holds_after_a_dump_and_restore(postgres_database_url: str, tmp_path: Path) -> None:
    """What a restore keeps: rows, ids and sequences. What it does not: transaction ids, which start anew."""
    runtime = Runtime(make_settings(postgres_database_url, tmp_path))
    process = ServeProcess(tmp_path, postgres_database_url)
    process.upgrade()
    save_pushes(runtime.database, [pushed(0, number) for number in range(20)])
    reader = Reader([(create_app(runtime).test_client(), {"Authorization": make_key(runtime)})])
    assert reader.read(limit=5)

    def restore(connection: sa.Connection) -> None:
        # As pg_restore leaves it: every row written anew, in another order, by one new transaction.
        for name in ("receipts", "replies"):
            connection.execute(sa.text(f"CREATE TABLE copied AS SELECT * FROM {name} ORDER BY random()"))
            connection.execute(sa.text(f"TRUNCATE {name}"))
            connection.execute(sa.text(f"INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM copied"))
            connection.execute(sa.text("DROP TABLE copied"))

    runtime.database.write(restore)
    save_pushes(runtime.database, [pushed(1, 1)])
    while reader.read():
        pass
    assert sorted(reader.seen) == sorted(everything(runtime))
    runtime.stop()


def test_event_is_the_receipt_or_reply_with_its_kind(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    for content in (None, "退订"):
        runtime.batch_writer.enqueue(make_push(content=content)).result(60)
    answer = client.get("/api/v1/events", headers=bearer).json
    receipt, reply = answer["items"]
    assert receipt.pop("kind") == "receipt"
    assert reply.pop("kind") == "reply"
    assert receipt == client.get("/api/v1/receipts", headers=bearer).json["items"][0]
    assert reply == client.get("/api/v1/replies", headers=bearer).json["items"][0]
    again = client.get(f"/api/v1/events?after={answer['next_cursor']}", headers=bearer).json
    assert (again["items"], again["lag_seconds"]) == ([], 0.0)
    assert again["next_cursor"]


def test_numbers_are_masked_and_accounts_kept_apart(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(push_tokens=(("default", "a" * 22), ("other", "b" * 22)))
    client = create_app(runtime).test_client()
    for account in ("default", "other"):
        runtime.batch_writer.enqueue(make_push(account=account)).result(60)
    bound = {"Authorization": make_key(runtime, Scope.READ, accounts=("other",))}
    (event,) = client.get("/api/v1/events", headers=bound).json["items"]
    assert (event["account"], event["mobile"]) == ("other", "150****1090")
    cursor = client.get("/api/v1/events", headers=bound).json["next_cursor"]
    everyone = {"Authorization": make_key(runtime)}
    assert client.get(f"/api/v1/events?after={cursor}", headers=everyone).json["code"] == "invalid_cursor"


def test_wait_ends_with_the_next_event(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.extend(client.get("/api/v1/events?wait=30", headers=bearer).json["items"])
    )
    waiting.start()
    time.sleep(0.5)
    begun = time.monotonic()
    runtime.batch_writer.enqueue(make_push()).result(60)
    waiting.join(60)
    assert len(found) == 1
    assert time.monotonic() - begun < 20


def test_key_that_is_revoked_while_its_call_waits_gets_nothing(
    app: Flask, runtime: Runtime, bearer: dict[str, str]
) -> None:
    client = app.test_client()
    send = {"task_id": "3313746", "mobile": "15080921090"}
    message = client.post("/api/v1/messages", json=send, headers=bearer).json
    begin = client.get("/api/v1/events", headers=bearer).json["next_cursor"]
    headers = {"Authorization": make_key(runtime, Scope.READ)}
    (name,) = (key.name for key in runtime.ask(api_keys.list_keys) if key.scopes == {Scope.READ})
    lines = {**headers, "Accept": "application/x-ndjson"}
    calls = [
        (f"/api/v1/events?wait=30&after={begin}", headers),
        (f"/api/v1/messages/{message['id']}?wait=30", headers),
        (f"/api/v1/events?wait=30&after={begin}", lines),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(app.test_client().get, path, headers=given) for path, given in calls]
        time.sleep(0.7)
        runtime.database.write(lambda connection: changes.revoke_key(connection, name=name, now=runtime.now()))
        runtime.batch_writer.enqueue(make_push(task_id="3313746", mobile="15080921090")).result(60)
        answers = [call.result(60) for call in waiting]
    assert [(answer.status_code, answer.json["code"]) for answer in answers[:2]] == [(401, "unauthorized")] * 2
    assert (answers[2].status_code, answers[2].text) == (200, "")
    assert len(client.get(f"/api/v1/events?after={begin}", headers=bearer).json["items"]) == 1


def test_lines_are_streamed_each_with_its_cursor(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    runtime.batch_writer.enqueue(make_push()).result(60)
    for number in range(20):
        runtime.batch_writer.enqueue(pushed(1, number)).result(60)
    headers = {**bearer, "Accept": "application/x-ndjson"}
    answer = client.get("/api/v1/events?limit=3", headers=headers)
    assert answer.content_type == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 21
    rest = client.get(f"/api/v1/events?limit=1000&after={lines[7]['cursor']}", headers=bearer).json["items"]
    assert [(line["kind"], line["id"]) for line in lines[8:]] == [(item["kind"], item["id"]) for item in rest]


def test_head_of_the_stream_reads_nothing(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    runtime.batch_writer.enqueue(make_push(status=None, content="TD")).result(60)
    answer = client.head("/api/v1/events", headers={**bearer, "Accept": "application/x-ndjson"})
    assert (answer.status_code, answer.content_type, answer.data) == (200, "application/x-ndjson", b"")
    assert runtime.ask(lambda connection: log.list_audit(connection, 10)) == []
    assert len(client.get("/api/v1/events", headers=bearer).json["items"]) == 1
    assert [entry["action"] for entry in runtime.ask(lambda connection: log.list_audit(connection, 10))] == [
        "events.read"
    ]


def test_command_follows_and_goes_on_from_its_file(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        for number in range(3):
            process.push(pushed(0, number).body)
        arguments = ("events", "--cursor-file", str(tmp_path / "cursor"))
        first = process.run(*arguments)
        assert first.returncode == 0, first.stderr
        process.push(pushed(0, 3).body)
        second = process.run(*arguments)
        lines = [json.loads(line) for line in (first.stdout + second.stdout).splitlines()]
        key = process.make_key("read", "pii")
        events = process.request("GET", "/api/v1/events", headers=key).json["items"]
        assert lines == events
    assert [line["task_id"] for line in lines] == ["0.0", "0.1", "0.2", "0.3"]
    assert len(second.stdout.splitlines()) == 1
    (tmp_path / "cursor").write_text("nonsense")
    wrong = process.run(*arguments)
    assert (wrong.returncode, "remove the file" in wrong.stderr) == (1, True)
