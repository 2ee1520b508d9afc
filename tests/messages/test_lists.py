"""Pages: every row once, however many arrive meanwhile; cursors that nobody can bend."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from werkzeug.http import parse_options_header

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.core import OptOutWords
from receiver.messages.recording import record_sent
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.intake.test_push import REPLY, push
from tests.messages.test_messages_api import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

LISTS = ("messages", "receipts", "replies", "pushes")


def arrive(runtime: Runtime, first: int, count: int) -> None:
    batch = [
        make_push(task_id=str(number), status=None if reply else "1", content="hi" if reply else None)
        for number in range(first, first + count)
        for reply in (False, True)
    ]
    save_pushes(runtime.database, batch)
    assert runtime.projector.await_reached(stamped=True) is None  # the rows that two answers show are the same


def walk(client: FlaskClient, path: str, headers: dict[str, str], between: Callable[[], None]) -> list[str]:
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 7}
    while True:
        page = client.get(f"/api/v1/{path}", query_string=query, headers=headers).json
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return seen
        query["cursor"] = page["next_cursor"]
        between()


@pytest.mark.parametrize("path", LISTS)
def test_pages_give_every_row_once_while_rows_arrive(
    path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 30)
    there = {item["id"] for item in client.get(f"/api/v1/{path}?limit=1000", headers=bearer).json["items"]}
    arrived = iter(range(1000, 100_000, 5))
    seen = walk(client, path, bearer, lambda: arrive(runtime, next(arrived), 5))
    assert len(seen) == len(set(seen))
    assert set(seen) == there


@pytest.mark.parametrize("path", [*LISTS, "audit"])
def test_links_lead_through_all_pages(path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]) -> None:
    arrive(runtime, 0, 10)
    for number in range(10):
        runtime.audit("cli", "test", number=number)
    filters = "actor=cli&action=test" if path == "audit" else "account=default"
    url, seen = f"/api/v1/{path}?limit=4&{filters}", list[str]()
    while True:
        page = client.get(url, headers=bearer)
        seen += [item["id"] for item in page.json["items"]]
        link = parse_options_header(page.headers.get("Link"))
        assert page.json["has_more"] == (page.json["next_cursor"] is not None) == ("Link" in page.headers)
        if not page.json["has_more"]:
            break
        assert link[1] == {"rel": "next"}
        url = link[0].strip("<>")
        assert url.startswith(f"/api/v1/{path}?limit=4&")
    assert len(seen) == len(set(seen)) >= 10
    everything = client.get(f"/api/v1/{path}?limit=1000&{filters}", headers=bearer)
    assert seen == [item["id"] for item in everything.json["items"]]


@pytest.mark.parametrize("path", [*LISTS, "audit", "webhooks/shop/deliveries", "webhooks/shop/dead"])
def test_empty_cursor_is_the_first_page(
    path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 3)
    runtime.webhooks.add("cli", name="shop", url="https://93.184.216.34/", form="raw")
    first, empty = (client.get(f"/api/v1/{path}?limit=2{more}", headers=bearer) for more in ("", "&cursor="))
    assert (first.status_code, empty.status_code) == (200, 200)
    if path != "audit":  # which has the first reading too
        assert empty.json["items"] == first.json["items"]


def test_search_with_an_empty_cursor_is_the_first_page(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 3)
    body = {"limit": 2, "cursor": ""}
    items = client.post("/api/v1/messages/search", json=body, headers=bearer).json["items"]
    assert items == client.get("/api/v1/messages?limit=2", headers=bearer).json["items"]


def test_link_is_beside_what_was_asked_for(client: FlaskClient, runtime: Runtime, bearer: dict[str, str]) -> None:
    arrive(runtime, 0, 3)
    under = {"SCRIPT_NAME": "/sms"}
    asked = {"mobile": "+86 150-8092-1090", "limit": "1"}
    link = client.get("/api/v1/messages", query_string=asked, headers=bearer, environ_overrides=under).headers["Link"]
    assert link.startswith("</sms/api/v1/messages?mobile=%2B86+150-8092-1090&limit=1&cursor=")
    assert "Link" in client.head("/api/v1/messages?limit=1", headers=bearer).headers


def test_search_by_post_has_no_link_and_says_that_there_is_more(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 3)
    answer = client.post("/api/v1/messages/search", json={"mobile": "15080921090", "limit": 1}, headers=bearer)
    assert (answer.json["has_more"], answer.headers.get("Link")) == (True, None)


def test_what_depends_on_now_is_fixed_by_the_cursor(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    sends = [make_send(task_id=str(number), sent_at=NOON - timedelta(seconds=number)) for number in range(20)]
    runtime.database.write(lambda connection: record_sent(connection, sends, recorded_at=NOON))
    query: dict[str, Any] = {"late": "true", "limit": 4}
    seen: list[str] = []
    with time_machine.travel(NOON + timedelta(seconds=50), tick=False) as clock:
        while True:
            page = client.get("/api/v1/messages", query_string=query, headers=bearer).json
            assert all(item["late"] for item in page["items"])
            seen += [item["task_id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
            clock.shift(3600)
    assert sorted(map(int, seen)) == list(range(11, 20))


@pytest.mark.parametrize("path", LISTS)
def test_bent_or_foreign_cursor_is_422(
    path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 3)
    cursor = client.get(f"/api/v1/{path}?limit=1", headers=bearer).json["next_cursor"]
    other = "received_from" if path != "messages" else "sent_from"
    other_list = LISTS[(LISTS.index(path) + 1) % len(LISTS)]
    for url in (
        f"/api/v1/{path}?cursor={cursor[:-9]}{'A' if cursor[-9] != 'A' else 'B'}{cursor[-8:]}",
        f"/api/v1/{path}?cursor=x{cursor}",
        f"/api/v1/{path}?cursor={cursor}&{other}=2020-01-01T00:00:00Z",
        f"/api/v1/{other_list}?cursor={cursor}",
    ):
        answer = client.get(url, headers=bearer)
        assert (answer.status_code, set(problem_of(answer))) == (422, {"#/cursor"})
    assert client.get(f"/api/v1/{path}?cursor={cursor}&limit=5", headers=bearer).status_code == 200


def test_cursor_shows_no_number_and_serves_on_any_node(
    client: FlaskClient, runtime: Runtime, make_runtime: Callable[..., Runtime], bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 3)
    query = {"mobile": "15080921090", "limit": "1"}
    cursor = client.get("/api/v1/messages", query_string=query, headers=bearer).json["next_cursor"]
    payload = cursor.rpartition(".")[0]
    assert b"0921090" not in base64.urlsafe_b64decode(payload.lstrip(".") + "===")
    other_node = create_app(make_runtime()).test_client()
    answer = other_node.get("/api/v1/messages", query_string=query | {"cursor": cursor}, headers=bearer)
    assert answer.status_code == 200


def test_receipts_and_replies_are_narrowed_by_what_fits(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    batch = [
        make_push(task_id="1", status="1"),
        make_push(task_id="2", mobile="15080921091", status="0"),
        make_push(task_id="2", mobile="1508092****", status="EXPIRED"),
        make_push(task_id="1", content="Stop!"),
        make_push(task_id="2", mobile="15080921091", content="100% 好的"),
    ]
    save_pushes(runtime.database, batch)
    runtime.database.write(lambda connection: record_sent(connection, [make_send(task_id="1")], recorded_at=NOON))

    def tasks(path: str, **query: str) -> list[str]:
        items = client.get(f"/api/v1/{path}", query_string=query, headers=bearer).json["items"]
        return [f"{item['task_id']} {item['mobile']}" for item in items]

    first, second, masked = "1 15080921090", "2 15080921091", "2 1508092****"
    assert sorted(tasks("receipts")) == sorted([masked, second, first])
    assert tasks("receipts", status="delivered") == [first]
    assert tasks("receipts", status="failed") == [second]
    assert tasks("receipts", status="unknown") == [masked]
    assert tasks("receipts", mobile="15080921091") == [second]
    assert tasks("receipts", mobile="1508092****") == [masked]
    assert sorted(tasks("receipts", task_id="2")) == sorted([masked, second])
    assert tasks("receipts", matched="true") == [first]
    assert sorted(tasks("receipts", matched="false")) == sorted([masked, second])
    assert tasks("receipts", received_from="2000-01-01T00:00:00Z", received_to="2000-01-02T00:00:00Z") == []
    assert tasks("replies", opt_out="true") == [first]
    assert tasks("replies", opt_out_review="true") == []
    assert sorted(tasks("replies", opt_out_review="false")) == sorted([first, second])
    at, half = batch[0].received_at, timedelta(minutes=30)
    hour = {"received_from": str(at - half), "received_to": str(at + half)}
    assert sorted(tasks("receipts", **hour)) == sorted([masked, second, first])
    assert tasks("receipts", **hour, status="failed", limit="1") == [second]
    assert tasks("replies", q="stop") == [first]
    assert tasks("replies", q="0%") == [second]
    assert tasks("replies", q="好的") == [second]
    assert tasks("replies", q="_") == []


@pytest.mark.parametrize("path", ["receipts", "replies"])
def test_one_receipt_or_reply_is_as_the_list_has_it(
    path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    arrive(runtime, 0, 10)
    save_pushes(runtime.database, [make_push(task_id=None, content="without a task"), make_push(mobile="150****1090")])
    masked = {"Authorization": make_key(runtime, Scope.READ)}
    for headers in (bearer, masked):
        items = client.get(f"/api/v1/{path}", headers=headers).json["items"]
        assert len(items) > 1
        for item in items:
            assert client.get(f"/api/v1/{path}/{item['id']}", headers=headers).json == item
    for unknown in ("0", "987654321987654321"):
        answer = client.get(f"/api/v1/{path}/{unknown}", headers=bearer)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert client.get(f"/api/v1/{path}/letters", headers=bearer).status_code == 404


def test_words_for_opting_out_are_those_of_the_settings(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(opt_out_words=OptOutWords(["不要了"]), opt_out_phrases=("别烦我",))
    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    for content in ("不要了!", "TD", "真的不要了吧", "投诉", "别烦我了"):
        push(client, REPLY | {"content": content})
    said = {
        flag: [item["content"] for item in client.get(f"/api/v1/replies?{flag}=true", headers=headers).json["items"]]
        for flag in ("opt_out", "opt_out_review")
    }
    assert said == {"opt_out": ["不要了!"], "opt_out_review": ["别烦我了", "真的不要了吧"]}


def test_slips_and_phrases_are_for_a_person_to_review(client: FlaskClient, bearer: dict[str, str]) -> None:
    slips = ["退丁", "别再给我发短信了！！再发就投诉到12321", "这是什么?没申请过"]
    for content in (*slips, "退订", "取件码"):
        push(client, REPLY | {"content": content})
    items = client.get("/api/v1/replies", headers=bearer).json["items"]
    assert {item["content"] for item in items if item["opt_out_review"]} == set(slips)
    assert [item["content"] for item in items if item["opt_out"]] == ["退订"]


def test_journal_shows_bytes_to_those_who_may_see_numbers(client: FlaskClient, runtime: Runtime) -> None:
    bad = make_push(body=b"mobile=15080921090&taskid=1")
    save_pushes(runtime.database, [bad, make_push()])
    plain = {"Authorization": make_key(runtime, Scope.PUSHES)}
    full = {"Authorization": make_key(runtime, Scope.PUSHES, Scope.PII)}
    (row,) = client.get("/api/v1/pushes?outcome=quarantined", headers=plain).json["items"]
    assert (row["id"], row["error"]) == (str(bad.id), "status: missing; receivetime: missing")
    assert (row["query"], row["body_base64"]) == (None, None)
    shown = client.get(f"/api/v1/pushes/{bad.id}", headers=full).json
    assert base64.b64decode(shown["body_base64"]) == bad.body


def test_replay_reads_again_with_the_present_settings_and_changes_no_copies(
    runtime: Runtime, make_runtime: Callable[..., Runtime], bearer: dict[str, str]
) -> None:
    body = b"mobile=15080921090&taskid=1&status=1&receivetime=2019/07/23%2017:00:00"
    odd, good = make_push(body=body), make_push(task_id="2")
    save_pushes(runtime.database, [odd, good, make_push(task_id="2")])
    client = create_app(make_runtime(time_formats=("%Y/%m/%d %H:%M:%S",))).test_client()
    for _ in range(2):
        for one in (odd, good):
            answer = client.post(f"/api/v1/pushes/{one.id}/replay", headers=bearer)
            assert (answer.status_code, answer.json["outcome"], answer.json["error"]) == (200, "accepted", None)
    rows = client.get("/api/v1/receipts", headers=bearer).json["items"]
    assert sorted((row["task_id"], row["copies"]) for row in rows) == [("1", 1), ("2", 2)]
