"""Recording sends and looking messages up, over the API."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from tests.conftest import OTHER_SECRET, SECRET, make_key
from tests.harness.factories import NOON
from tests.intake.test_push import RECEIPT, REPLY, push

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

SEND = {"task_id": "3313746", "mobile": "15080921090"}
URL = "/api/v1/messages"
ACCOUNTS = (("default", SECRET), ("other", OTHER_SECRET))


def problem_of(answer: Any) -> dict[str, str]:
    assert answer.content_type == "application/problem+json"
    return {error["pointer"]: error["detail"] for error in answer.json.get("errors", [])}


def test_send_is_recorded_and_answered(client: FlaskClient, bearer: dict[str, str]) -> None:
    given = SEND | {
        "template_id": "540",
        "reference": "order-7",
        "sent_at": "2026-11-23T12:00:00.123",
        "success_counts": "1",
        "remain_point": 241,
    }
    answer = client.post(URL, json=given, headers=bearer)
    assert answer.status_code == 201
    message = answer.json
    assert message["sent_at"] == "2026-11-23T04:00:00.123Z"
    fields = ("account", "task_id", "mobile", "template_id", "reference", "matched", "conflicting", "receipt_count")
    assert [message[name] for name in fields] == [
        *("default", "3313746", "15080921090", "540", "order-7", True, False, 0),
    ]


def test_body_may_begin_with_a_byte_order_mark(client: FlaskClient, bearer: dict[str, str]) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(SEND).encode()
    assert client.post(URL, data=body, content_type="application/json", headers=bearer).status_code == 201


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T04:00:00.123456789Z",
        "2026-11-23T12:00:00.1234567+0800",
        "2026-11-23 12:00:00.123+08",
        "20261123T040000.123Z",
    ],
)
def test_time_may_be_written_as_any_language_writes_iso_8601(
    text: str, client: FlaskClient, bearer: dict[str, str]
) -> None:
    assert client.post(URL, json=SEND | {"sent_at": text}, headers=bearer).json["sent_at"] == "2026-11-23T04:00:00.123Z"


def test_repeating_a_record_changes_nothing(client: FlaskClient, bearer: dict[str, str]) -> None:
    first = client.post(URL, json=SEND, headers=bearer)
    again = client.post(URL, json=SEND, headers=bearer)
    assert (first.status_code, again.status_code) == (201, 200)
    stamp = {"updated_at": ""}  # it comes after the answer
    assert first.get_json() | stamp == again.get_json() | stamp


def test_null_is_filled_and_a_differing_value_is_a_conflict(client: FlaskClient, bearer: dict[str, str]) -> None:
    client.post(URL, json=SEND, headers=bearer)
    filled = client.post(URL, json=SEND | {"template_id": "540"}, headers=bearer)
    assert (filled.status_code, filled.json["template_id"]) == (200, "540")
    refused = client.post(URL, json=SEND | {"template_id": "541", "reference": "r"}, headers=bearer)
    assert refused.status_code == 409
    assert problem_of(refused) == {"#/template_id": "differs from the recorded value"}
    unchanged = client.get(f"{URL}/{filled.json['id']}", headers=bearer).json
    assert (unchanged["template_id"], unchanged["reference"]) == ("540", None)


def test_one_bad_item_refuses_no_other(client: FlaskClient, bearer: dict[str, str]) -> None:
    client.post(URL, json=SEND | {"template_id": "540"}, headers=bearer)
    items = [
        {"task_id": "new", "mobile": "+86 150-8092-1090"},
        SEND | {"template_id": "541"},
        {"task_id": "x", "mobile": "1508092****"},
        {"task_id": "", "mobile": "15080921090", "colour": "red"},
        "not an object",
        SEND,
        {"task_id": "new", "mobile": "15080921090"},
    ]
    answer = client.post(URL, json=items, headers=bearer)
    assert answer.status_code == 201
    assert [item["status"] for item in answer.json["items"]] == [201, 409, 422, 422, 422, 200, 200]
    errors = [item["error"]["errors"] for item in answer.json["items"] if "error" in item]
    assert [[error["pointer"] for error in item] for item in errors] == [
        ["#/1/template_id"],
        ["#/2/mobile"],
        ["#/3/colour", "#/3/task_id"],
        ["#/4"],
    ]
    assert answer.json["items"][0]["message"]["id"] == answer.json["items"][6]["message"]["id"]


def test_list_without_anything_new_is_200(client: FlaskClient, bearer: dict[str, str]) -> None:
    client.post(URL, json=SEND, headers=bearer)
    assert client.post(URL, json=[SEND, {"task_id": "", "mobile": ""}], headers=bearer).status_code == 200


@pytest.mark.parametrize("body", [[], [SEND] * 1001, 7, "text"])
def test_body_that_is_no_record_is_named(body: Any, client: FlaskClient, bearer: dict[str, str]) -> None:
    assert client.post(URL, json=body, headers=bearer).status_code == 422


def test_refused_send_is_recorded_with_the_platforms_words(client: FlaskClient, bearer: dict[str, str]) -> None:
    refused = {
        "mobile": "15080921090",
        "reference": "order-8",
        "sent_at": "2026-11-23T12:00:00+08:00",
        "return_status": "0",
        "message": "相同手机号码一分钟之内只可发送一次",
    }
    first = client.post(URL, json=refused, headers=bearer)
    again = client.post(URL, json=refused, headers=bearer)
    other = client.post(URL, json=refused | {"message": "余额不足"}, headers=bearer)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    message = first.json
    assert (message["status"], message["error_message"], message["task_id"]) == ("refused", refused["message"], None)
    timeline = client.get(f"{URL}/{message['id']}", headers=bearer).json["timeline"]
    assert [entry["kind"] for entry in timeline] == ["refused", "recorded"]


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"message": "no"}, {"#/message"}),
        ({"return_status": "0"}, {"#/task_id", "#/reference", "#/sent_at", "#/message"}),
        ({"return_status": "2"}, {"#/return_status"}),
        ({"mobile": "1508092109O"}, {"#/mobile"}),
        ({"task_id": "x" * 65}, {"#/task_id"}),
        ({"task_id": "a\0b"}, {"#/task_id"}),
        ({"reference": "\ud800"}, {"#/reference"}),
        ({"sent_at": "0001-01-01T00:00:00"}, {"#/sent_at"}),
        ({"sent_at": "tomorrow", "success_counts": 1.5}, {"#/sent_at", "#/success_counts"}),
        ({"remain_point": True}, {"#/remain_point"}),
        ({"account": "nobody"}, {"#/account"}),
    ],
)  # fmt: skip
def test_every_wrong_field_is_named(
    change: dict[str, Any], pointers: set[str], client: FlaskClient, bearer: dict[str, str]
) -> None:
    body = json.dumps(SEND | change)  # the client's own cannot send a lone surrogate
    answer = client.post(URL, data=body, content_type="application/json", headers=bearer)
    assert answer.status_code == 422
    assert set(problem_of(answer)) == pointers


def test_unmatched_message_is_joined_when_its_send_is_recorded(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    push(client, RECEIPT)
    (before,) = client.get(URL, headers=bearer).json["items"]
    assert (before["matched"], before["recorded_at"], before["status"]) == (False, None, "delivered")
    recorded = client.post(URL, json=SEND | {"sent_at": "2019-07-23T16:59:56+08:00"}, headers=bearer)
    assert recorded.status_code == 201
    after = recorded.json
    assert (after["id"], after["matched"], after["latency_seconds"]) == (before["id"], True, 4.0)


def test_masked_receipt_belongs_to_the_one_message_that_fits(client: FlaskClient, bearer: dict[str, str]) -> None:
    push(client, RECEIPT | {"mobile": "1508092****"})
    assert client.get(URL, headers=bearer).json["items"] == []
    client.post(URL, json=SEND, headers=bearer)
    (message,) = client.get(URL, headers=bearer).json["items"]
    assert (message["status"], message["receipt_count"]) == ("delivered", 1)
    client.post(URL, json=SEND | {"mobile": "15080921091"}, headers=bearer)
    statuses = [(item["status"], item["receipt_count"]) for item in client.get(URL, headers=bearer).json["items"]]
    assert [count for _, count in statuses] == [0, 0]
    (receipt,) = client.get("/api/v1/receipts", headers=bearer).json["items"]
    assert receipt["message_id"] is None


def test_numbers_are_masked_without_pii_and_found_by_the_full_number(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    push(client, RECEIPT | {"note": "call 15080921090"})
    push(client, RECEIPT | {"mobile": "1508092****", "taskid": "9"})
    reader = {"Authorization": make_key(runtime, Scope.READ)}
    (message,) = client.get(URL, query_string={"mobile": "+86 150 8092 1090"}, headers=reader).json["items"]
    assert message["mobile"] == "150****1090"
    (in_full,) = client.post(f"{URL}/search", json={"mobile": "15080921090"}, headers=bearer).json["items"]
    assert in_full["mobile"] == "15080921090"
    receipts = client.get("/api/v1/receipts", headers=reader).json["items"]
    assert [(row["mobile"], row["extra"]) for row in receipts] == [
        ("150********", {}),
        ("150****1090", {"note": "call 150****1090"}),
    ]


def test_waiting_message_becomes_late_and_then_has_no_receipt(client: FlaskClient, bearer: dict[str, str]) -> None:
    def seen(after: timedelta) -> tuple[str, bool]:
        with time_machine.travel(NOON + after, tick=False):
            row = client.get(f"{URL}/{message_id}", headers=bearer).json
            for name, value in {"status": row["status"], "late": str(row["late"]).lower()}.items():
                found = client.get(URL, query_string={name: value}, headers=bearer).json["items"]
                assert [item["id"] for item in found] == [message_id]
            return row["status"], row["late"]

    with time_machine.travel(NOON, tick=False):
        message_id = client.post(URL, json=SEND | {"sent_at": NOON.isoformat()}, headers=bearer).json["id"]
    assert seen(timedelta(seconds=59)) == ("pending", False)
    assert seen(timedelta(seconds=61)) == ("pending", True)
    assert seen(timedelta(hours=71)) == ("pending", True)
    assert seen(timedelta(hours=72, seconds=1)) == ("no_receipt", False)
    local = NOON + timedelta(hours=80)
    push(client, RECEIPT | {"receivetime": f"{local:%Y-%m-%d %H:%M:%S}"})
    assert seen(timedelta(hours=100)) == ("delivered", False)


def test_latest_report_decides_and_both_kinds_conflict(client: FlaskClient, bearer: dict[str, str]) -> None:
    push(client, RECEIPT | {"receivetime": "2019-07-23 17:00:05", "status": "0"})
    push(client, RECEIPT)
    (message,) = client.get(URL, query_string={"conflicting": "true"}, headers=bearer).json["items"]
    assert (message["status"], message["reported_at"]) == ("failed", "2019-07-23T09:00:05Z")
    push(client, RECEIPT | {"receivetime": "2019-07-23 17:00:05"})
    (message,) = client.get(URL, headers=bearer).json["items"]
    assert (message["status"], message["receipt_count"]) == ("delivered", 3)


def test_one_message_comes_with_its_timeline(client: FlaskClient, bearer: dict[str, str]) -> None:
    client.post(URL, json=SEND | {"sent_at": "2019-07-23T16:59:56.500+08:00"}, headers=bearer)
    push(client, RECEIPT)
    push(client, REPLY)
    (message,) = client.get(URL, headers=bearer).json["items"]
    timeline = client.get(f"{URL}/{message['id']}", headers=bearer).json["timeline"]
    assert [(entry["kind"], entry["at"]) for entry in timeline][:3] == [
        ("sent", "2019-07-23T08:59:56.500Z"),
        ("receipt", "2019-07-23T09:00:00Z"),
        ("reply", "2019-07-23T09:05:00Z"),
    ]
    assert timeline[2]["content"] == "收到"


def test_every_filter_narrows(client: FlaskClient, runtime: Runtime, bearer: dict[str, str]) -> None:
    client.post(
        URL,
        json=[
            SEND | {"template_id": "540", "reference": "a", "sent_at": "2026-11-23T12:00:00+08:00"},
            {"task_id": "2", "mobile": "15080921091", "template_id": "541", "sent_at": "2026-11-23T13:00:00+08:00"},
        ],
        headers=bearer,
    )
    push(client, RECEIPT | {"taskid": "3", "status": "0"})
    assert runtime.projector.await_reached(stamped=True) is None  # two answers are compared
    cases: dict[tuple[str, str], list[str]] = {
        ("mobile", "15080921090"): ["3", "3313746"],
        ("task_id", "2"): ["2"],
        ("account", "default"): ["3", "2", "3313746"],
        ("status", "failed"): ["3"],
        ("template_id", "540"): ["3313746"],
        ("reference", "a"): ["3313746"],
        ("sent_from", "2026-11-23T13:00:00"): ["2"],
        ("sent_to", "2026-11-23T05:00:00Z"): ["3313746"],
        ("matched", "false"): ["3"],
        ("matched", "true"): ["2", "3313746"],
        ("conflicting", "true"): [],
    }
    for (name, value), task_ids in cases.items():
        by_query = client.get(URL, query_string={name: value}, headers=bearer)
        assert sorted(item["task_id"] for item in by_query.json["items"]) == sorted(task_ids), name
        as_json: Any = {"true": True, "false": False}.get(value, value)
        by_body = client.post(f"{URL}/search", json={name: as_json}, headers=bearer)
        assert by_body.json["items"] == by_query.json["items"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mobile", "12"),
        ("status", "lost"),
        ("late", "yes"),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "１"),
        ("cursor", "nonsense"),
        ("sent_from", "now"),
        ("account", "nobody"),
        ("task_id", "a\0"),
        ("colour", "red"),
    ],
)
def test_wrong_filter_is_422_and_named(name: str, value: str, client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = client.get(URL, query_string={name: value}, headers=bearer)
    assert answer.status_code == 422
    assert set(problem_of(answer)) == {f"#/{name}"}


def test_account_must_be_said_where_there_are_several(
    make_runtime: Callable[..., Runtime], bearer: dict[str, str]
) -> None:
    runtime = make_runtime(push_tokens=ACCOUNTS)
    client = create_app(runtime).test_client()
    assert set(problem_of(client.post(URL, json=SEND, headers=bearer))) == {"#/account"}
    assert client.post(URL, json=SEND | {"account": "other"}, headers=bearer).status_code == 201


def test_key_bound_to_an_account_sees_and_records_no_other(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(push_tokens=ACCOUNTS)
    client = create_app(runtime).test_client()
    everything = {"Authorization": make_key(runtime)}
    bound = {"Authorization": make_key(runtime, accounts=("other",))}
    foreign = client.post(URL, json=SEND | {"account": "default"}, headers=everything).json["id"]
    push(client, RECEIPT)
    push(client, REPLY)
    own = client.post(URL, json=SEND, headers=bound)
    assert (own.status_code, own.json["account"]) == (201, "other")
    assert [row["id"] for row in client.get(URL, headers=bound).json["items"]] == [own.json["id"]]
    for path in ("receipts", "replies", "pushes"):
        assert len(client.get(f"/api/v1/{path}", headers=everything).json["items"]) > 0
        assert client.get(f"/api/v1/{path}", headers=bound).json["items"] == []
    push_id = client.get("/api/v1/pushes", headers=everything).json["items"][0]["id"]
    assert client.get(f"/api/v1/pushes/{push_id}", headers=bound).status_code == 404
    assert client.post(f"/api/v1/pushes/{push_id}/replay", headers=bound).status_code == 404
    assert client.get(f"{URL}/{foreign}", headers=bound).status_code == 404
    assert client.get(URL, query_string={"account": "default"}, headers=bound).status_code == 403
    assert client.post(URL, json=SEND | {"account": "default"}, headers=bound).status_code == 403


def test_waiting_for_a_message_ends_when_its_status_changes(client: FlaskClient, bearer: dict[str, str]) -> None:
    message_id = client.post(URL, json=SEND, headers=bearer).json["id"]
    later = threading.Timer(0.5, lambda: push(client.application.test_client(), RECEIPT))
    later.start()
    answer = client.get(f"{URL}/{message_id}", query_string={"wait": 30}, headers=bearer)
    later.join()
    assert answer.json["status"] == "delivered"
    assert client.get(f"{URL}/{message_id}", query_string={"wait": 31}, headers=bearer).status_code == 422


@pytest.mark.parametrize(
    "message_id", ["0", "x", "999999999999999999", "9999999999999999999", "99999999999999999999", "１", "-1"]
)
def test_unknown_message_is_404(message_id: str, client: FlaskClient, bearer: dict[str, str]) -> None:
    assert client.get(f"{URL}/{message_id}", headers=bearer).status_code == 404


@pytest.mark.parametrize("path", ["", "/search", "/verified"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{bad", "not JSON at line 1, column 2: "),
        (b'{"a": 1,\n  ]', "not JSON at line 2, column 3: "),
        ("{\"mobile\": \"号".encode("gbk"), "not UTF-8 at byte 13: "),
        (b"[" * 100_000, "not JSON at line 1, column 1: nested too deep"),
    ],
)  # fmt: skip
def test_body_that_is_no_json_is_told_where(
    path: str, body: bytes, said: str, client: FlaskClient, bearer: dict[str, str]
) -> None:
    answer = client.post(URL + path, data=body, content_type="application/json", headers=bearer)
    assert (answer.status_code, answer.json["code"]) == (400, "malformed")
    assert answer.json["detail"].startswith(said)
    assert problem_of(answer) == {"#": answer.json["detail"]}


@pytest.mark.parametrize("path", ["", "/search", "/verified"])
@pytest.mark.parametrize("declared", ["application/x-www-form-urlencoded", "text/plain", None])
def test_body_of_another_type_is_told_which_is_wanted(
    path: str, declared: str | None, client: FlaskClient, bearer: dict[str, str]
) -> None:
    answer = client.post(URL + path, data=json.dumps(SEND), content_type=declared, headers=bearer)
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json["detail"]


def test_slash_at_the_end_of_a_path_changes_nothing(client: FlaskClient, bearer: dict[str, str]) -> None:
    made = client.post(f"{URL}/", json=SEND, headers=bearer)
    assert made.status_code == 201
    client.get("/api/v1/events", headers=bearer)  # so that the message has its stamp
    for path in (URL, f"{URL}/{made.json['id']}", "/api/v1/receipts", "/api/v1/events"):
        answer = client.get(f"{path}/", headers=bearer)
        assert (answer.status_code, answer.json) == (200, client.get(path, headers=bearer).json)
    assert client.get(f"{URL}//", headers=bearer).status_code == 404
    assert client.get(f"{URL}/").status_code == 401
