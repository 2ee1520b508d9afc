"""A push: raw request in, answer and rows out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from receiver.messages import queries
from receiver.messages.queries import Page
from tests.conftest import SECRET
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

RECEIPT = {"mobile": "15080921090", "taskid": "3313746", "status": "1", "receivetime": "2019-07-23 17:00:00"}
REPLY = {"mobile": "15080921090", "taskid": "3313746", "content": "收到", "receivetime": "2019-07-23 17:05:00"}


def push(client: FlaskClient, fields: dict[str, str], path: str = "") -> TestResponse:
    return client.post(
        f"/push/{SECRET}{path}",
        data=urlencode(fields).encode(),
        content_type="application/x-www-form-urlencoded;charset=utf-8",
    )


def receipts(runtime: Runtime) -> list[queries.ReceiptRow]:
    return runtime.ask(lambda connection: queries.list_receipts(connection, Page(limit=1000)))


def replies(runtime: Runtime) -> list[queries.ReplyRow]:
    return runtime.ask(lambda connection: queries.list_replies(connection, Page(limit=1000)))


def journal(runtime: Runtime) -> list[queries.PushRow]:
    return runtime.ask(lambda connection: queries.list_pushes(connection, Page(limit=1000)))


def messages(runtime: Runtime) -> list[queries.MessageRow]:
    return runtime.ask(lambda connection: queries.list_messages(connection, Page(limit=1000), runtime.clock()))


def test_receipt_is_acknowledged_and_kept_with_its_message(client: FlaskClient, runtime: Runtime) -> None:
    answer = push(client, RECEIPT)
    assert (answer.status_code, answer.data) == (200, b"ok")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Push-Outcome"] == "accepted"
    (row,) = receipts(runtime)
    assert (row.mobile, row.task_id, row.status, row.vendor_status) == ("15080921090", "3313746", "delivered", "1")
    assert row.reported_at.isoformat() == "2019-07-23T09:00:00+00:00"
    (kept,) = journal(runtime)
    assert str(kept.id) == answer.headers["X-Push-Id"] == str(row.push_id)
    assert kept.body == urlencode(RECEIPT).encode()
    (message,) = messages(runtime)
    assert (message.status, message.matched, message.receipt_count, message.id) == (
        "delivered",
        False,
        1,
        row.message_id,
    )


def test_second_identical_receipt_is_counted_not_stored(client: FlaskClient, runtime: Runtime) -> None:
    push(client, RECEIPT)
    (first,) = receipts(runtime)
    push(client, RECEIPT)
    (second,) = receipts(runtime)
    assert (first.copies, second.copies) == (1, 2)
    assert second.last_seen_at > first.last_seen_at
    unchanged = {name for name in queries.ReceiptRow.__slots__ if getattr(first, name) == getattr(second, name)}
    assert unchanged == set(queries.ReceiptRow.__slots__) - {"copies", "last_seen_at"}
    assert len(journal(runtime)) == 2


def test_same_push_id_saved_again_counts_once(runtime: Runtime) -> None:
    batch = [make_push(), make_push(status="0")]
    for _ in range(2):
        save_pushes(runtime.database, batch)
    assert [row.copies for row in receipts(runtime)] == [1, 1]
    assert len(journal(runtime)) == 2


def test_reply_is_kept_with_its_content(client: FlaskClient, runtime: Runtime) -> None:
    push(client, REPLY)
    (row,) = replies(runtime)
    assert (row.content, row.opt_out, row.copies) == ("收到", False, 1)
    assert messages(runtime)[0].status == "pending"


def test_same_content_at_another_time_is_another_reply(client: FlaskClient, runtime: Runtime) -> None:
    push(client, REPLY)
    push(client, REPLY | {"receivetime": "2019-07-23 17:06:00"})
    push(client, REPLY | {"content": "TD"})
    assert [(row.content, row.opt_out) for row in replies(runtime)] == [("TD", True), ("收到", False), ("收到", False)]


def test_very_long_reply_is_kept_whole(client: FlaskClient, runtime: Runtime) -> None:
    content = "长" * 7000
    push(client, REPLY | {"content": content})
    push(client, REPLY | {"content": content})
    (row,) = replies(runtime)
    assert (row.content, row.copies) == (content, 2)


def test_text_of_any_kind_survives_unchanged(client: FlaskClient, runtime: Runtime) -> None:
    for content in ("😀👍🏽", "\u202eمرحبا\u202c", "e\u0301", "퐀", "line\nbreak\ttab", "", " padded "):
        assert push(client, REPLY | {"content": content}).headers["X-Push-Outcome"] == "accepted"
        assert replies(runtime)[0].content == content


def test_nul_in_content_and_in_extra_is_kept_and_shown(client: FlaskClient, runtime: Runtime) -> None:
    push(client, REPLY | {"content": "a\0b", "note": "x\0y"})
    (row,) = replies(runtime)
    assert row.content == "a\u2400b"
    assert row.extra == {"note": "x\u2400y"}
    assert b"a%00b" in journal(runtime)[0].body
    assert b"x%00y" in journal(runtime)[0].body


def test_task_ids_of_every_shape_survive_unchanged(client: FlaskClient, runtime: Runtime) -> None:
    for task_id in ("1", "1234567890123456789", "0007", "a" * 64, "任务-7", "ffffffffffffffffffffffffffffffff"):
        push(client, RECEIPT | {"taskid": task_id})
        assert receipts(runtime)[0].task_id == task_id


def test_quarantined_push_is_acknowledged_with_every_fault(client: FlaskClient, runtime: Runtime) -> None:
    answer = push(client, {"mobile": "not a number", "status": "1", "receivetime": "yesterday"})
    assert answer.status_code == 200
    assert answer.headers["X-Push-Outcome"] == "quarantined"
    error = "mobile: not a phone number; taskid: missing; receivetime: not of the form yyyy-MM-dd HH:mm:ss"
    assert answer.headers["X-Push-Error"] == error
    (kept,) = journal(runtime)
    assert (kept.outcome, kept.error) == ("quarantined", error)
    assert receipts(runtime) == messages(runtime) == []  # type: ignore[comparison-overlap]


def test_bare_probe_is_acknowledged_and_forgotten(client: FlaskClient, runtime: Runtime) -> None:
    for method in ("GET", "HEAD"):
        answer = client.open(f"/push/{SECRET}", method=method)
        assert answer.status_code == 200
        assert "X-Push-Id" not in answer.headers
    assert journal(runtime) == []


def test_push_in_the_query_is_kept(client: FlaskClient, runtime: Runtime) -> None:
    answer = client.get(f"/push/{SECRET}?{urlencode(RECEIPT)}")
    assert answer.headers["X-Push-Outcome"] == "accepted"
    (kept,) = journal(runtime)
    assert (kept.method, kept.query.decode(), kept.body) == ("GET", urlencode(RECEIPT), b"")


def test_wrong_secret_is_404_and_leaves_nothing(client: FlaskClient, runtime: Runtime) -> None:
    answer = client.post("/push/wrong-secret-of-some-length-00000", data=urlencode(RECEIPT))
    assert answer.status_code == 404
    assert journal(runtime) == []
    assert [refusal.reason for refusal in runtime.admission.refusals] == ["secret"]


def test_fifty_identical_pushes_at_once_are_one_row(client: FlaskClient, runtime: Runtime) -> None:
    barrier = threading.Barrier(50)
    outcomes: list[Any] = []

    def one() -> None:
        barrier.wait()
        outcomes.append(runtime.batch_writer.enqueue(make_push()).result(timeout=30).outcome)

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = receipts(runtime)
    assert (row.copies, len(journal(runtime)), len(outcomes)) == (50, 50, 50)
