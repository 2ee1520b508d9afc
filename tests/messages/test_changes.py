"""Incremental reading: a reader that goes on from the highest `updated_at` has every message right."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.core.cursors import Cursors
from receiver.db.tables import projection
from receiver.messages.queries import Filter, Page, list_messages
from receiver.messages.recording import record_sent
from tests.conftest import make_key
from tests.harness.changers import Changers
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess
from tests.messages.test_stamps import open_transaction, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from receiver.runtime import Runtime

BEGINNING = "1970-01-01T00:00:00Z"  # what tools begin with
Items = list[dict[str, Any]]


class Reader:
    """Keeps a copy of all messages, by their ids."""

    def __init__(self, runtime: Runtime) -> None:
        self._client = create_app(runtime).test_client()
        self._headers = {"Authorization": make_key(runtime)}
        self.copy: dict[str, dict[str, Any]] = {}
        self.lags = False  # the last answer said that it could not wait for all changes

    def get(self, path: str, **query: Any) -> Any:
        answer = self._client.get(f"/api/v1/{path}", query_string=query, headers=self._headers)
        assert answer.status_code == 200, answer.json
        self.lags = "X-Data-Lag-Seconds" in answer.headers
        return answer

    def changes(self, **query: Any) -> Items:
        """Read the changes since the highest time in the copy, as a list of several pages."""
        since = max((message["updated_at"] for message in self.copy.values()), default=BEGINNING)
        query = {"updated_from": since, "limit": 7} | query
        found: Items = []
        while True:
            page = self.get("messages", **query).json
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def changes_in_a_file(self) -> Items:
        """Read them as an export."""
        since = max((message["updated_at"] for message in self.copy.values()), default=BEGINNING)
        return [
            json.loads(line)
            for line in self.get("exports/messages", format="ndjson", updated_from=since).text.splitlines()
        ]

    def take(self, read: Callable[[], Items]) -> None:
        self.copy.update({message["id"]: message for message in read()})

    def everything(self) -> dict[str, dict[str, Any]]:
        return {message["id"]: message for message in self.get("messages", limit=1000).json["items"]}


@pytest.mark.parametrize("way", ["list", "file"])
def test_copy_is_exact_however_many_write_while_its_pages_are_read(runtime: Runtime, way: str) -> None:
    reader = Reader(runtime)
    read = reader.changes if way == "list" else reader.changes_in_a_file
    with Changers(runtime.database) as changers:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends or len(reader.copy) < 20:
            reader.take(read)
    assert changers.failures == []
    reader.lags = True
    while reader.lags:
        reader.take(read)
    there = reader.everything()
    assert reader.copy.keys() == there.keys()
    for message_id, message in reader.copy.items():
        assert message.items() <= there[message_id].items()  # a file has not every field
    assert len(reader.copy) > 20


def test_read_of_changes_shows_what_was_recorded_before_it(runtime: Runtime) -> None:
    reader = Reader(runtime)
    for number in range(20):
        record(runtime, make_send(task_id=f"{number}"))
        (message,) = reader.changes()[-1:]
        assert message["task_id"] == f"{number}"


def test_late_commit_is_a_change_of_the_next_read(postgres_runtime: Runtime) -> None:
    reader = Reader(postgres_runtime)
    with open_transaction(postgres_runtime) as late:
        record_sent(late, [make_send(task_id="late")], recorded_at=NOON)
        save_pushes(postgres_runtime.database, [make_push(task_id="early")])
        reader.take(reader.changes)
        assert [message["task_id"] for message in reader.copy.values()] == ["early"]
    reader.take(reader.changes)
    assert {message["task_id"] for message in reader.copy.values()} == {"early", "late"}


def test_read_of_changes_that_cannot_wait_for_stamps_says_that_it_lags(postgres_runtime: Runtime) -> None:
    reader = Reader(postgres_runtime)
    with open_transaction(postgres_runtime) as holder:
        holder.execute(sa.select(projection).with_for_update())  # another node's turn, which lasts
        record(postgres_runtime, make_send(task_id="t"))
        answer = reader.get("messages", updated_from=BEGINNING)
        assert (answer.json["items"], float(answer.headers["X-Data-Lag-Seconds"])) == ([], 1.0)
    answer = reader.get("messages", updated_from=BEGINNING)
    assert [message["task_id"] for message in answer.json["items"]] == ["t"]
    assert "X-Data-Lag-Seconds" not in answer.headers


def test_cursor_from_before_changes_could_be_asked_for_goes_on(runtime: Runtime) -> None:
    reader = Reader(runtime)
    record(runtime, *(make_send(task_id=f"{number}") for number in range(3)))
    newest, *rest = reader.get("messages").json["items"]
    filters = (
        *("accounts", "mobile", "task_id", "status", "late", "template_id", "reference", "sent_from", "sent_to"),
        *("received_from", "received_to", "matched", "conflicting", "q", "opt_out", "opt_out_review", "outcome"),
        *("after_id", "to_id"),
    )
    cursors = Cursors(runtime.shared_secret("cursor"), "messages", dict.fromkeys(filters))
    old = cursors.make(newest["id"], runtime.now().isoformat())
    following = reader.get("messages", cursor=old).json["items"]
    assert [row["id"] for row in following] == [row["id"] for row in rest]  # their stamps may have come meanwhile


def test_changes_come_in_their_order_from_the_index_alone(postgres_runtime: Runtime) -> None:
    """Also those of one stamp, over several pages; by ids, each page sorted all that an import has changed."""
    runtime = postgres_runtime
    first = [f"{number:02}" for number in range(20)]
    record(runtime, *(make_send(task_id=task_id) for task_id in first))
    reader = Reader(runtime)
    assert [row["task_id"] for row in reader.changes()] == first
    record(runtime, make_send(task_id="03", reference="changed"))
    assert [row["task_id"] for row in reader.changes()] == [*first[:3], *first[4:], "03"]
    asked: list[Any] = []
    with open_transaction(runtime) as connection:
        connection.exec_driver_sql(
            "INSERT INTO messages (account, task_id, mobile, updated_at)"
            " SELECT 'default', 'i' || n, '1', now() FROM generate_series(1, 5000) n"
        )
        connection.exec_driver_sql("ANALYZE messages")
        sa.event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        since = runtime.now() - timedelta(days=1)
        wanted = Page(limit=50, before=(since, 7), filter=Filter(updated_from=since, stamped_upto=runtime.now()))
        assert len(list_messages(connection, wanted, runtime.clock())) == 50
        (statement, parameters) = asked[0]
        plan = "".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
    assert "ix_messages_updated_at" in plan
    assert "Sort" not in plan


def test_period_of_changes_has_its_begin_and_not_its_end(runtime: Runtime) -> None:
    reader = Reader(runtime)
    for task_id in ("a", "b", "c"):
        record(runtime, make_send(task_id=task_id))
        reader.changes()
    times = {message["task_id"]: message["updated_at"] for message in reader.changes()}
    assert times["a"] < times["b"] < times["c"]

    def task_ids(**query: Any) -> set[str]:
        return {message["task_id"] for message in reader.get("messages", **query).json["items"]}

    assert task_ids(updated_from=times["b"]) == {"b", "c"}
    assert task_ids(updated_to=times["b"]) == {"a"}
    assert task_ids(updated_from=times["a"], updated_to=times["c"]) == {"a", "b"}
    searched = reader._client.post(
        "/api/v1/messages/search", json={"updated_from": times["c"]}, headers=reader._headers
    )
    assert [message["task_id"] for message in searched.json["items"]] == ["c"]


def test_message_always_has_a_time_of_its_last_change_and_at_first_one_below_that_to_come(runtime: Runtime) -> None:
    reader = Reader(runtime)
    record(runtime, make_send(task_id="before"))
    (before,) = reader.changes()
    recorded = reader._client.post(
        "/api/v1/messages", json={"task_id": "t", "mobile": "15080921091"}, headers=reader._headers
    )
    at_once = recorded.json["updated_at"]
    (stamped,) = [message for message in reader.changes() if message["task_id"] == "t"]
    assert before["updated_at"] <= at_once <= stamped["updated_at"]
    assert runtime.now() - datetime.fromisoformat(stamped["updated_at"]) < timedelta(minutes=1)


def test_command_exports_changes(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        for task_id in ("a", "b"):
            process.push(b"mobile=15080921090&taskid=%b&status=1&receivetime=2026-11-23+12:00:00" % task_id.encode())
            process.run("export", "messages", "all.ndjson")
        rows = [json.loads(line) for line in (tmp_path / "all.ndjson").read_text().splitlines()]
        since = {row["task_id"]: row["updated_at"] for row in rows}
        done = process.run("export", "messages", "-", "--format", "ndjson", "--updated-from", since["b"])
        assert [json.loads(line)["task_id"] for line in done.stdout.splitlines()] == ["b"], done.stderr
        refused = process.run("export", "receipts", "-", "--format", "csv", "--updated-to", since["b"])
        assert (refused.returncode, "--updated-to: no filter of receipts" in refused.stderr) == (1, True)
