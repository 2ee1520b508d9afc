"""Replies without a task id: of no message, and otherwise as any other reply, on both databases, encrypted too."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from pyarrow import parquet

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.core import Reply, Unreadable, new_id
from receiver.db import migrate
from receiver.db.encryption import is_token
from receiver.db.encryption.ciphers import Keyring
from receiver.db.engine import Database
from receiver.db.tables import messages, pushes, replies
from receiver.maintenance import rekey
from receiver.maintenance.erase import erase_number, find_traces
from receiver.maintenance.move_to_postgres import move, prepare
from receiver.maintenance.prune import Plan, prune
from receiver.maintenance.retention import RetentionKind
from receiver.maintenance.verify import verify
from receiver.messages import recording
from tests.conftest import ENCRYPTION_KEYS, make_key
from tests.harness.factories import NOON, READER, make_push, make_send
from tests.harness.hooks import hook
from tests.harness.journal import save_pushes
from tests.web.console.staff import log_in
from tests.webhooks.test_webhooks import ALLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.config import Settings
    from receiver.core import Push
    from receiver.runtime import Runtime

KEY = ("old", bytes(range(32)))
NUMBER, OTHER, MASKED = "15080921090", "15080921091", "1508092****"


@pytest.fixture(params=["plain", "encrypted"])
def services(request: pytest.FixtureRequest, settings: Settings, make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime on a plain database, and on one that is encrypted."""
    keys = ENCRYPTION_KEYS or ((KEY,) if request.param == "encrypted" else ())
    if keys:
        database = Database(settings.database_url)
        rekey.encrypt(database, Keyring(keys))
        database.close()
    return make_runtime(encryption_keys=keys, webhooks_allow=ALLOW, bind=("127.0.0.1", 1))


def taskless(content: str = "退订", *, mobile: str = NUMBER, **more: Any) -> Push:
    return make_push(task_id=None, content=content, mobile=mobile, **more)


def fill(runtime: Runtime) -> Push:
    """One reply pushed twice, one with a task id that is else the same, and others."""
    first = taskless()
    # One that was refused has no task id either, and is no reason to answer.
    refused = make_send(task_id=None, mobile="15080920001", reference="r", sent_at=NOON, error_message="no")
    sends = [make_send(), make_send(task_id="2", mobile=OTHER), refused]
    runtime.database.write(partial(recording.record_sent, sends=sends, recorded_at=NOON))
    save_pushes(runtime.database, [first, make_push(content="退订"), taskless(mobile=OTHER)])
    save_pushes(runtime.database, [replace(first, id=new_id()), taskless(mobile=MASKED)])
    save_pushes(runtime.database, [first])  # as after a commit whose outcome was unknown
    return first


def scalar(runtime: Runtime, query: sa.Select[Any]) -> Any:
    return runtime.ask(lambda connection: connection.execute(query).scalar_one())


def faults(runtime: Runtime) -> list[Any]:
    return [finding for finding in verify(runtime.database, runtime.admission.read_again) if not finding.ok]


@pytest.mark.parametrize("given", [{}, {"taskid": ""}, {"taskid": " \u3000"}, {"TaskId": ""}])
def test_reply_is_read_without_a_task_id_and_a_receipt_is_not(given: dict[str, str]) -> None:
    fields = {"mobile": NUMBER, "receivetime": "2026-11-23 12:00:00", **given}
    reply, _ = READER.read(body=urlencode(fields | {"content": "hi"}).encode(), query=b"", endpoint=None)
    assert isinstance(reply, Reply)
    assert reply.task_id is None
    receipt, _ = READER.read(body=urlencode(fields | {"status": "1"}).encode(), query=b"", endpoint=None)
    assert receipt == Unreadable(error="taskid: empty" if given else "taskid: missing")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (b"&taskid=&taskid=1", "taskid: given twice with two values"),
        (b"&taskid=1%00", "taskid: control character"),
        (b"&taskid=" + b"9" * 65, "taskid: over 64 characters"),
    ],
)
def test_task_id_that_is_there_and_bad_is_a_fault_of_a_reply_too(given: bytes, error: str) -> None:
    body = b"mobile=15080921090&content=hi&receivetime=2026-11-23+12:00:00" + given
    assert READER.read(body=body, query=b"", endpoint=None)[0] == Unreadable(error=error)


def test_it_is_kept_once_makes_no_message_and_is_told_everywhere_alike(services: Runtime) -> None:
    with hook() as target:
        services.webhooks.add(
            "test", name="shop", url=target.url(), form="webhooks", pii=True, events=["reply.received"]
        )
        first = fill(services)
        client, headers = create_app(services).test_client(), {"Authorization": make_key(services)}

        def get(path: str, **query: str) -> Any:
            return client.get(f"/api/v1/{path}", query_string=query, headers=headers)

        listed = get("replies").json["items"]
        assert sorted((row["mobile"], row["task_id"] or "", row["copies"]) for row in listed) == [
            (MASKED, "", 1),
            (NUMBER, "", 2),
            (NUMBER, "3313746", 1),
            (OTHER, "", 1),
        ]
        (mine,) = [row for row in listed if row["push_id"] == str(first.id)]
        wanted = {"message_id": None, "task_id": None, "account": "default", "content": "退订", "opt_out": True}
        assert {name: mine[name] for name in wanted} == wanted
        assert scalar(services, sa.select(sa.func.count()).select_from(messages)) == 3  # those that were recorded
        found = get("replies", mobile=NUMBER).json["items"]
        assert {row["id"] for row in found} == {row["id"] for row in listed if row["mobile"] == NUMBER}
        assert [row["mobile"] for row in get("replies", mobile=MASKED).json["items"]] == [MASKED]
        assert [row["task_id"] for row in get("replies", task_id="3313746").json["items"]] == ["3313746"]
        assert mine in get("replies", matched="false", opt_out="true", q="退", account="default").json["items"]
        events = get("events", kind="reply").json["items"]
        (event,) = [event for event in events if event["push_id"] == str(first.id)]
        assert event == {"kind": "reply", "event_id": f"reply_{mine['id']}", **mine}
        lines = get("exports/replies", format="ndjson").text.splitlines()
        (line,) = [row for row in map(json.loads, lines) if row["id"] == mine["id"]]
        assert line == {name: mine[name] for name in line}
        csv = get("exports/replies", format="csv", mobile=NUMBER).text.splitlines()
        assert [",default,," in row for row in csv[1:]].count(True) == 1
        sent = [json.loads(each.body)["data"] for each in target.await_taken(4)]
        # Counted since.
        assert {**mine, "copies": 1, "last_seen_at": mine["received_at"]} in [
            {**data, "copies": 1, "last_seen_at": data["received_at"]} for data in sent
        ]
        table = parquet.read_table(BytesIO(get("exports/replies", format="parquet").data))
        assert sorted(map(str, table["task_id"].to_pylist())) == ["3313746", "None", "None", "None"]
        masked = {"Authorization": make_key(services, Scope.READ)}
        (hidden,) = [
            row
            for row in client.get(f"/api/v1/replies?mobile={NUMBER}", headers=masked).json["items"]
            if row["task_id"] is None
        ]
        assert hidden["mobile"] == "150****1090"
        elsewhere = {"Authorization": make_key(services, Scope.READ, accounts=("other",))}
        assert client.get("/api/v1/replies", headers=elsewhere).json["items"] == []
        assert faults(services) == []


def test_inbox_shows_it_without_a_message(services: Runtime) -> None:
    save_pushes(services.database, [taskless("别再发了")])
    page = log_in(create_app(services), services, "analyst").page("/replies")
    assert "别再发了" in page.html
    assert ">–</td>" in page.html
    assert "None" not in page.html


@pytest.mark.parametrize(
    ("language", "never_sent", "said"),
    [("en", "never sent", "A reply from this number was received"), ("zh-CN", "没有发出", "收到过该号码的上行回复")],
)
def test_look_up_of_its_number_shows_it_and_does_not_say_that_nothing_was_sent(
    services: Runtime, language: str, never_sent: str, said: str
) -> None:
    staff = log_in(create_app(services), services, "support")

    def look_up(number: str) -> str:
        return str(staff.look_up(number, headers={"Accept-Language": language}).text)

    alone = make_push(task_id="9", mobile=OTHER, content="别再发了")  # of a message that nobody recorded
    save_pushes(services.database, [taskless("别再发了"), alone])
    for number in (NUMBER, OTHER):
        page = look_up(number)
        assert (page.count("别再发了"), never_sent in page, said in page) == (1, False, True)
    sends = [make_send(sent_at=services.now()), make_send(task_id="9", mobile=OTHER, sent_at=services.now())]
    services.database.write(partial(recording.record_sent, sends=sends, recorded_at=services.now()))
    for number in (NUMBER, OTHER):
        page = look_up(number)
        assert (page.count("别再发了"), said in page) == (1, False)
    assert never_sent in look_up("15080921099")


def test_its_number_is_sealed_in_an_encrypted_database_and_opened_with_it(services: Runtime) -> None:
    fill(services)
    query = sa.text("SELECT masked_mobile FROM replies WHERE task_id IS NULL AND masked_mobile NOT LIKE '%*%'")
    kept = services.ask(lambda connection: connection.scalars(query).all())
    sealed = services.database.cipher() is not None
    assert [is_token(number) for number in kept if number] == [sealed] * 2
    if not sealed:
        return
    database = Database(services.settings.database_url)
    rekey.decrypt(database, Keyring(services.settings.encryption_keys))
    with database.reading() as connection:
        assert {number for number in connection.scalars(query) if number} == {NUMBER, OTHER}
    rekey.encrypt(database, Keyring(services.settings.encryption_keys))
    with database.reading() as connection:
        assert all(is_token(number) for number in connection.scalars(query) if number)
    database.close()


def test_it_is_forgotten_with_its_number_and_nobody_elses_is(services: Runtime) -> None:
    fill(services)
    save_pushes(services.database, [taskless(f"call {NUMBER}", mobile=OTHER, second=5)])
    save_pushes(services.database, [taskless(f"call me: {NUMBER}", second=5)])
    work = services.database, NUMBER, services.admission.read_again
    found = find_traces(*work)
    assert (found.rows["pushes"], found.rows["replies"], found.mentions["replies"]) == (4, 3, 1)
    now = services.now()
    gone = erase_number(*work, found=found, since=now, now=now, actor="cli", reason=None, mobile_hmac="x")
    assert gone == found.rows
    kept = services.ask(lambda connection: connection.scalars(sa.select(replies.c.masked_mobile)).all())
    assert sorted(kept) == [MASKED, OTHER, OTHER]
    assert not any(find_traces(*work).rows.values())
    assert faults(services) == []


def test_it_is_forgotten_whose_push_is_pruned_already(services: Runtime) -> None:
    fill(services)
    services.database.write(lambda connection: connection.execute(sa.delete(pushes)))
    work = services.database, NUMBER, services.admission.read_again
    found, now = find_traces(*work), services.now()
    assert found.rows["replies"] == 2
    erase_number(*work, found=found, since=now, now=now, actor="cli", reason=None, mobile_hmac="x")
    kept = services.ask(lambda connection: connection.scalars(sa.select(replies.c.masked_mobile)).all())
    assert sorted(kept) == [MASKED, OTHER]


def test_it_is_pruned_by_the_age_of_replies(services: Runtime) -> None:
    fill(services)
    now = services.now()
    early = Plan(kinds=(RetentionKind.REPLIES,), cutoffs={RetentionKind.REPLIES: now - timedelta(hours=1)})
    late = Plan(kinds=(RetentionKind.REPLIES,), cutoffs={RetentionKind.REPLIES: now + timedelta(seconds=1)})
    assert prune(services.database, early, now=services.now) == {RetentionKind.REPLIES: 0}
    assert prune(services.database, late, now=services.now) == {RetentionKind.REPLIES: 4}


def test_tampering_with_it_is_found(services: Runtime) -> None:
    first = fill(services)
    assert faults(services) == []
    ours = replies.c.push_id == first.id
    services.database.write(
        lambda connection: connection.execute(sa.update(replies).where(ours).values(account="second"))
    )
    (fault,) = faults(services)
    assert fault.name == "receipts and replies follow from the journal"
    assert len(fault.details) == 2
    assert NUMBER not in str(fault.details)


def test_push_that_was_quarantined_for_it_is_read_by_a_replay(runtime: Runtime) -> None:
    pushed = taskless()
    save_pushes(runtime.database, [replace(pushed, reading=Unreadable(error="taskid: missing"))])
    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    assert client.post(f"/api/v1/pushes/{pushed.id}/replay", headers=headers).json["outcome"] == "accepted"
    (row,) = client.get("/api/v1/replies", headers=headers).json["items"]
    assert (row["task_id"], row["opt_out"], row["copies"]) == (None, True, 1)
    assert faults(runtime) == []


def test_it_moves_to_postgresql(sqlite_database_url: str, postgres_database_url: str) -> None:
    source, target = Database(sqlite_database_url), Database(postgres_database_url)
    migrate.upgrade(source)
    pushed = taskless()
    save_pushes(source, [pushed])
    prepare(source, target)
    move(source, target, "there", lambda: None)
    save_pushes(target, [replace(pushed, id=new_id())])
    with target.reading() as connection:
        (row,) = connection.execute(sa.select(replies)).all()
        shown = connection.execute(sa.text("SELECT message_id, task_id, mobile FROM reporting.replies")).one()
    assert (row.masked_mobile, row.account, row.task_id, row.message_id, row.copies) == (
        NUMBER, "default", None, None, 2,
    )  # fmt: skip
    assert tuple(shown) == (None, None, "150****1090")
    for database in (source, target):
        database.close()
