"""Events: a reader that goes on from its cursor misses none and sees none twice, whoever writes meanwhile."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.audit import log
from receiver.auth import api_keys, changes
from receiver.auth.api_keys import Scope
from receiver.core.cursors import Cursors
from receiver.db.tables import receipts, replies
from receiver.messages import journal
from receiver.messages.events import EventKind, Position, find_position, list_events
from receiver.messages.projector import catch_up
from receiver.messages.recording import record_sent
from receiver.runtime import Runtime
from tests.conftest import make_key, make_settings
from tests.harness.changers import Changers
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import appending, save_pushes
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true
from tests.messages.test_stamps import open_transaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient


WRITERS = 8
INBOUND = Position(kinds=frozenset({EventKind.RECEIPT, EventKind.REPLY}))
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
        self.seen: list[str] = []  # ids of events
        self.copy: dict[str, dict[str, Any]] = {}  # messages, by their id

    def read(self, **query: Any) -> list[dict[str, Any]]:
        client, headers = random.choice(self._clients)
        given = {"limit": random.randint(1, 200)} | query | ({"cursor": self._cursor} if self._cursor else {})
        page = client.get("/api/v1/events", query_string=given, headers=headers)
        assert page.status_code == 200, page.json
        self._cursor = page.json["next_cursor"]
        items: list[dict[str, Any]] = page.json["items"]
        self.seen += [item["event_id"] for item in items]
        self.copy |= {item["id"]: item for item in items if item["kind"] == "message"}
        return items

    def assert_has_everything(self, runtime: Runtime) -> None:
        """Fail unless it has seen every receipt and reply, nothing twice, and has every message as it is."""
        assert len(self.seen) == len(set(self.seen))
        assert {event_id for event_id in self.seen if not event_id.startswith("message_")} == everything(runtime)
        client, headers = self._clients[0]
        query: dict[str, Any] = {"limit": 1000}
        there: dict[str, dict[str, Any]] = {}
        while query.get("cursor", "") is not None:
            page = client.get("/api/v1/messages", query_string=query, headers=headers).json
            there |= {message["id"]: message for message in page["items"]}
            query["cursor"] = page["next_cursor"]
        own = ("kind", "event_id")
        assert {
            message_id: {name: value for name, value in event.items() if name not in own}
            for message_id, event in self.copy.items()
        } == there


def everything(runtime: Runtime) -> set[str]:
    with runtime.database.reading() as connection:
        return {
            f"{kind}_{row_id}"
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
    reader.assert_has_everything(runtime)
    assert len(reader.seen) > 100


def test_reader_of_changes_has_every_message_right_however_many_change_them(runtime: Runtime) -> None:
    reader = Reader([(create_app(runtime).test_client(), {"Authorization": make_key(runtime)})])
    with Changers(runtime.database) as changers:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends or len(reader.copy) < 20:
            reader.read()
    while reader.read(limit=1000):
        pass
    assert changers.failures == []
    reader.assert_has_everything(runtime)


def task_ids(runtime: Runtime) -> list[str | None]:
    ask = partial(list_events, after=INBOUND, limit=10, accounts=None, clock=runtime.clock())
    return [event.row.task_id for event in runtime.ask_present(ask)]


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
        for name in ("receipts", "replies", "messages"):
            connection.execute(sa.text(f"CREATE TABLE copied AS SELECT * FROM {name} ORDER BY random()"))
            connection.execute(sa.text(f"TRUNCATE {name}"))
            connection.execute(sa.text(f"INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM copied"))
            connection.execute(sa.text("DROP TABLE copied"))

    runtime.database.write(restore)
    save_pushes(runtime.database, [pushed(1, 1)])
    while reader.read():
        pass
    reader.assert_has_everything(runtime)
    runtime.stop()


def test_event_is_the_receipt_reply_or_message_with_its_kind_and_an_id_of_its_own(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    for content in (None, "退订"):
        runtime.batch_writer.enqueue(make_push(content=content)).result(60)
    answer = client.get("/api/v1/events", headers=bearer).json
    events = {event.pop("kind"): event for event in answer["items"]}
    assert len(events) == len(answer["items"]) == 3
    stamp = datetime.fromisoformat(events["message"]["updated_at"])
    assert {kind: event.pop("event_id") for kind, event in events.items()} == {
        "receipt": f"receipt_{events['receipt']['id']}",
        "reply": f"reply_{events['reply']['id']}",
        "message": f"message_{events['message']['id']}_{round(stamp.timestamp() * 1000)}",
    }
    for kind, path in (("receipt", "receipts"), ("reply", "replies"), ("message", "messages")):
        assert [events[kind]] == client.get(f"/api/v1/{path}", headers=bearer).json["items"]
    again = client.get(f"/api/v1/events?cursor={answer['next_cursor']}", headers=bearer).json
    assert (again["items"], again["has_more"], again["lag_seconds"]) == ([], False, 0.0)
    assert again["next_cursor"] == answer["next_cursor"]


def test_numbers_are_masked_and_accounts_kept_apart(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(push_tokens=(("default", "a" * 22), ("other", "b" * 22)))
    client = create_app(runtime).test_client()
    for account in ("default", "other"):
        runtime.batch_writer.enqueue(make_push(account=account)).result(60)
    bound = {"Authorization": make_key(runtime, Scope.READ, accounts=("other",))}
    events = client.get("/api/v1/events", headers=bound).json["items"]
    assert sorted(event["kind"] for event in events) == ["message", "receipt"]
    assert {(event["account"], event["mobile"]) for event in events} == {("other", "150****1090")}
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
    assert sorted(event["kind"] for event in found) == ["message", "receipt"]
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
    assert len(client.get(f"/api/v1/events?after={begin}&kind=message", headers=bearer).json["errors"]) == 1
    assert len(client.get(f"/api/v1/events?after={begin}", headers=bearer).json["items"]) == 2


def test_lines_are_streamed_each_with_its_cursor(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    runtime.batch_writer.enqueue(make_push()).result(60)
    for number in range(20):
        runtime.batch_writer.enqueue(pushed(1, number)).result(60)
    headers = {**bearer, "Accept": "application/x-ndjson"}
    answer = client.get("/api/v1/events?limit=3", headers=headers)
    assert answer.content_type == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert Counter(line["kind"] for line in lines) == {"receipt": 17, "reply": 4, "message": 18}  # three are masked
    rest = client.get(f"/api/v1/events?limit=1000&cursor={lines[7]['cursor']}", headers=bearer).json["items"]
    assert [line["event_id"] for line in lines[8:]] == [item["event_id"] for item in rest]


by_event_id = itemgetter("event_id")


def test_head_of_the_stream_reads_nothing(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    runtime.batch_writer.enqueue(make_push(status=None, content="TD")).result(60)
    answer = client.head("/api/v1/events", headers={**bearer, "Accept": "application/x-ndjson"})
    assert (answer.status_code, answer.content_type, answer.data) == (200, "application/x-ndjson", b"")
    assert runtime.ask(lambda connection: log.list_audit(connection, 10)) == []
    items = client.get("/api/v1/events", headers=bearer).json["items"]
    assert sorted(event["kind"] for event in items) == ["message", "reply"]
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
        assert sorted(lines, key=by_event_id) == sorted(events, key=by_event_id)
        replies = process.run("events", "--kind", "reply").stdout.splitlines()
    assert [line["task_id"] for line in lines if line["kind"] != "message"] == ["0.0", "0.1", "0.2", "0.3"]
    assert [line["task_id"] for line in map(json.loads, second.stdout.splitlines())] == ["0.3", "0.3"]
    assert [json.loads(line)["task_id"] for line in replies] == ["0.0"]
    (tmp_path / "cursor").write_text("nonsense")
    wrong = process.run(*arguments)
    assert (wrong.returncode, "remove the file" in wrong.stderr) == (1, True)


# --- Cursors and pages ------------------------------------------------------------------------------------


def get(client: FlaskClient, bearer: dict[str, str], **query: Any) -> Any:
    return client.get("/api/v1/events", query_string=query, headers=bearer)


def ids_of(answer: Any) -> list[str]:
    return [event["event_id"] for event in answer.json["items"]]


def test_links_lead_to_the_last_page_and_end_there(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    save_pushes(runtime.database, [make_push(task_id=f"{number}") for number in range(5)])
    everything = ids_of(get(client, bearer, limit=1000))
    for begin in ("/api/v1/events?limit=3", "/api/v1/events?limit=3&after="):
        path: str | None = begin
        seen = []
        while path is not None:
            answer = client.get(path, headers=bearer)
            seen += ids_of(answer)
            link = answer.headers.get("Link")
            assert answer.json["has_more"] is (link is not None)
            assert answer.json["next_cursor"]
            path = link and link.removeprefix("<").removesuffix('>; rel="next"')
        assert seen == everything
    assert len(everything) == 10


@pytest.mark.parametrize("name", ["cursor", "after"])
def test_both_names_of_the_cursor_mean_the_same_and_empty_is_the_beginning(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime, name: str
) -> None:
    save_pushes(runtime.database, [make_push(task_id=f"{number}") for number in range(3)])
    first, rest = get(client, bearer, limit=2, **{name: ""}), get(client, bearer)
    assert ids_of(first) == ids_of(rest)[:2]
    cursor = first.json["next_cursor"]
    assert ids_of(get(client, bearer, **{name: cursor})) == ids_of(rest)[2:]
    assert ids_of(get(client, bearer, cursor=cursor, after=cursor)) == ids_of(rest)[2:]
    refused = get(client, bearer, **{name: "x"})
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_cursor")
    assert [error["parameter"] for error in refused.json["errors"]] == [name]


def test_two_cursors_that_differ_are_refused(client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = get(client, bearer, cursor=get(client, bearer).json["next_cursor"], after="x")
    assert (answer.status_code, [error["parameter"] for error in answer.json["errors"]]) == (422, ["after"])


def test_cursor_from_before_messages_were_events_goes_on_and_has_all_of_these_to_come(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    save_pushes(runtime.database, [make_push(task_id=f"{number}") for number in range(3)])
    with runtime.database.reading() as connection:
        first, *rest = connection.scalars(sa.select(receipts.c.id).order_by(receipts.c.id))
    old = Cursors(runtime.shared_secret("cursor"), "events", {"accounts": None}).make(first, 0)
    events = get(client, bearer, after=old).json["items"]
    following = [f"receipt_{n}" for n in rest]
    assert [event["event_id"] for event in events if event["kind"] == "receipt"] == following
    assert len([event for event in events if event["kind"] == "message"]) == 3
    assert ids_of(get(client, bearer, after=old, kind="receipt,reply")) == following


def test_kinds_are_chosen_and_the_cursor_is_for_them(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    save_pushes(runtime.database, [make_push(task_id="1"), make_push(task_id="2", content="hello")])
    some = get(client, bearer, kind="reply,message").json
    assert sorted(event["kind"] for event in some["items"]) == ["message", "message", "reply"]
    assert get(client, bearer, kind="message,reply", cursor=some["next_cursor"]).json["items"] == []
    refused = get(client, bearer, kind="receipt", cursor=some["next_cursor"])
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_cursor")
    assert len(get(client, bearer, kind="").json["items"]) == 4
    for nonsense in ("nonsense", "receipt,nonsense"):
        refused = get(client, bearer, kind=nonsense)
        assert (refused.status_code, refused.json["errors"][0]["pointer"].startswith("#/kind")) == (422, True)


def test_reader_begins_at_a_time(client: FlaskClient, bearer: dict[str, str], runtime: Runtime) -> None:
    save_pushes(runtime.database, [make_push(task_id="before")])
    time.sleep(0.01)
    begun = datetime.now(UTC)
    # One that waited in the spool of a node, received before, follows it; and a message that changes later.
    save_pushes(runtime.database, [make_push(task_id="after"), make_push(task_id="before", content="hello")])
    spooled = replace(make_push(task_id="spooled"), received_at=begun - timedelta(hours=1))
    save_pushes(runtime.database, [spooled])
    moment = begun.isoformat().replace("+00:00", "Z")
    first = get(client, bearer, limit=2, **{"from": moment}).json
    rest = get(client, bearer, cursor=first["next_cursor"], **{"from": moment}).json
    found = sorted((event["kind"], event["task_id"]) for event in first["items"] + rest["items"])
    assert found == [
        *(("message", task_id) for task_id in ("after", "before", "spooled")),
        *(("receipt", task_id) for task_id in ("after", "spooled")),
        ("reply", "before"),
    ]
    assert get(client, bearer, **{"from": "2099-01-01"}).json["items"] == []
    assert len(get(client, bearer, **{"from": "1970-01-01"}).json["items"]) == 7


def test_page_of_receipts_reads_no_messages_that_come_after_it(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    save_pushes(runtime.database, [make_push(task_id=f"{number}") for number in range(30)])
    read: list[int] = []
    with runtime.database.engine.connect() as connection:
        sa.event.listen(connection, "after_cursor_execute", lambda *given: read.append(given[1].rowcount))
        page = list_events(connection, Position(), 10, None, runtime.clock())
        assert ([event.kind for event in page], sum(read)) == ([EventKind.RECEIPT] * 10, 10)
        rest = list_events(connection, page[-1].position, 100, None, runtime.clock())
    assert [event.kind for event in rest] == [EventKind.RECEIPT] * 20 + [EventKind.MESSAGE] * 30


def test_begin_far_back_reads_no_row_but_the_first(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    save_pushes(runtime.database, [make_push(task_id=f"{number}") for number in range(3)])
    asked: list[str] = []
    with runtime.database.engine.connect() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))
        begin = find_position(connection, datetime(2001, 1, 1, tzinfo=UTC))
    assert (begin.receipt_id, begin.reply_id) == (0, 0)
    assert len(asked) == 2
    assert all("ORDER BY" in statement and "LIMIT" in statement for statement in asked)


def test_reader_that_begins_where_nothing_is_yet_gets_what_comes(
    client: FlaskClient, bearer: dict[str, str], runtime: Runtime
) -> None:
    save_pushes(runtime.database, [make_push(task_id="before")])
    moment = (datetime.now(UTC) + timedelta(milliseconds=1)).isoformat().replace("+00:00", "Z")
    cursor = get(client, bearer, kind="receipt", **{"from": moment}).json["next_cursor"]
    save_pushes(runtime.database, [make_push(task_id="after")])
    (event,) = get(client, bearer, kind="receipt", cursor=cursor).json["items"]
    assert event["task_id"] == "after"


def test_message_that_is_recorded_late_comes_after_what_was_read(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    reader = Reader([(create_app(runtime).test_client(), {"Authorization": make_key(runtime)})])
    with open_transaction(runtime) as late:
        record_sent(late, [make_send(task_id="late")], recorded_at=NOON)
        save_pushes(runtime.database, [make_push(task_id="early")])
        assert {event["task_id"] for event in reader.read(limit=1000)} == {"early"}
    assert [event["task_id"] for event in reader.read(limit=1000)] == ["late"]


def test_description_tells_the_kinds_apart(client: FlaskClient) -> None:
    schemas = client.get("/api/v1/openapi.json").json["components"]["schemas"]
    assert schemas["EventList"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Event"}
    event = schemas["Event"]
    assert event["discriminator"]["propertyName"] == "kind"
    assert {"$ref": "#/components/schemas/MessageEvent"} in event["oneOf"]
    for kind, reference in event["discriminator"]["mapping"].items():
        schema = schemas[reference.rpartition("/")[2]]
        assert schema["properties"]["kind"]["enum"] == [kind]
        assert schema["required"] == sorted(schema["properties"])  # none is there for another kind
