"""Own systems hear of everything: what they are sent, in which order, and what becomes of it where they fail."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from receiver.app import create_app
from receiver.core import NameTaken, NotFound, SendResult, new_id
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import forward_queue, messages, pushes, replies, timers
from receiver.db.tables import targets as targets_table
from receiver.intake import replay_push
from receiver.net import egress
from receiver.net.egress import EgressResponse
from receiver.webhooks import deliveries, endpoints, service
from receiver.webhooks import worker as engine
from receiver.webhooks.endpoints import EndpointState, EventType
from receiver.webhooks.fan_out import fan_out
from tests.conftest import SECRET, make_key
from tests.harness.factories import make_push, make_send
from tests.harness.hooks import Hook, Sent, await_true, hook
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

ALLOW = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MOBILE = "15080921090"


@pytest.fixture
def parts(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime that may reach this machine."""
    return make_runtime(webhooks_allow=ALLOW)


@pytest.fixture
def target() -> Iterator[Hook]:
    """A target on this machine."""
    with hook() as made:
        yield made


def add(parts: Runtime, target: Hook, name: str = "shop", *, form: str = "webhooks", **asked: Any) -> str | None:
    return parts.webhooks.add("test", name=name, url=asked.pop("url", target.url()), form=form, **asked)


def keep(parts: Runtime, *batch: Any) -> None:
    """Keep pushes as the committer does, all in one batch."""
    for future in [parts.batch_writer.submit(push) for push in batch]:
        future.result(30)


def type_of(sent: Sent) -> str:
    return str(json.loads(sent.body)["type"])


def data_of(sent: Sent) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(sent.body)["data"]
    return data


def count(parts: Runtime, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(*where)
    return parts.ask(lambda connection: connection.execute(query).scalar_one())


def change(parts: Runtime, statement: sa.Update | sa.Delete) -> None:
    parts.database.write(lambda connection: connection.execute(statement))


def await_settled(parts: Runtime) -> None:
    """Wait until nothing is left to be forwarded."""
    await_true(lambda: count(parts, forward_queue) == 0 and count(parts, deliveries_table) == 0)


# --- What is sent -----------------------------------------------------------------------------------------


def test_raw_target_is_sent_method_query_bytes_and_content_type_as_they_came(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw", url=target.url("/old/receiver?key=K%2F1"))
    client = create_app(parts).test_client()
    body = "mobile=15080921090&taskid=1&content=退订%20&receivetime=2026-11-23+09:14:03".encode("gb18030")
    pushed = client.post(f"/push/{SECRET}?x=%41&y", data=body, content_type="text/weird; charset=gb18030")
    line = "mobile=15080921090&taskid=2&status=1&receivetime=2026-11-23%2009:14:03"
    client.get(f"/push/{SECRET}?{line}")
    client.post(f"/push/{SECRET}", data=b"\xff\x00 not a form")
    sent = {one.headers["X-Push-Id"]: one for one in target.await_taken(3)}
    first = sent.pop(pushed.headers["X-Push-Id"])
    assert (first.method, first.path, first.body) == ("POST", "/old/receiver?key=K%2F1&x=%41&y", body)
    assert first.headers["Content-Type"] == "text/weird; charset=gb18030"
    by_method = {one.method: one for one in sent.values()}
    assert (by_method["GET"].path, by_method["GET"].body) == (f"/old/receiver?key=K%2F1&{line}", b"")
    assert "Content-Type" not in by_method["GET"].headers
    assert by_method["POST"].body == b"\xff\x00 not a form"
    await_settled(parts)


def test_raw_target_is_sent_every_copy(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    batch = [make_push(), make_push(), make_push(mobile="1508092****"), make_push(mobile="1508092****")]
    keep(parts, *batch)
    sent = target.await_taken(4)
    await_settled(parts)
    assert {UUID(one.headers["X-Push-Id"]) for one in sent} == {push.id for push in batch}
    assert len(target.all) == 4


def test_package_of_standard_webhooks_verifies_a_post(parts: Runtime, target: Hook) -> None:
    secret = add(parts, target)
    assert secret is not None
    keep(parts, make_push())
    sent = target.await_taken(2)[0]
    assert sent.headers["Content-Type"] == "application/json"
    headers = {name: value for name, value in sent.headers.items() if name.startswith("webhook-")}
    assert Webhook(secret).verify(sent.body, headers)["type"] == "receipt.received"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(sent.body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoints.new_secret()).verify(sent.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(sent.body, headers | {"webhook-id": "msg_other"})


def test_both_secrets_sign_for_a_day_after_a_rotation(parts: Runtime, target: Hook) -> None:
    old = add(parts, target, events=["receipt.received"])
    new = parts.webhooks.rotate("test", parts.webhooks.find("shop"))
    keep(parts, make_push())
    sent = target.await_taken(1)[0]
    for secret in (old, new):
        assert Webhook(str(secret)).verify(sent.body, dict(sent.headers))
    yesterday = datetime.now(UTC) - timedelta(seconds=1)
    change(parts, sa.update(targets_table).values(old_secret_until=yesterday))
    keep(parts, make_push(task_id="2"))
    sent = target.await_taken(2)[1]
    assert Webhook(new).verify(sent.body, dict(sent.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(str(old)).verify(sent.body, dict(sent.headers))


@pytest.mark.parametrize("pii", [True, False])
def test_event_has_the_shape_of_the_api(parts: Runtime, target: Hook, pii: bool) -> None:
    parts.recorder.record([make_send(template_id="540", reference="order-1")])
    add(parts, target, pii=pii)
    body = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2026-11-23+09:14:03&note=call+15080921091"
    keep(parts, make_push(body=body), make_push(content="请打 15080921092", second=5))
    by_type = {type_of(sent): data_of(sent) for sent in target.await_taken(3)}
    await_settled(parts)
    client = create_app(parts).test_client()
    scopes = [scope for scope in targets_scopes() if pii or scope != "pii"]
    headers = {"Authorization": make_key(parts, *scopes)}
    lists = {"receipt.received": "receipts", "reply.received": "replies", "message.status_changed": "messages"}
    for event, resource in lists.items():
        (shown,) = client.get(f"/api/v1/{resource}", headers=headers).json["items"]
        shown = shown if pii or resource != "replies" else shown | {"content": "***"}
        # What was read a moment apart: the reply may have come between.
        counts = ("receipt_count", "reply_count")
        assert {k: v for k, v in by_type[event].items() if k not in counts} == {
            k: v for k, v in shown.items() if k not in counts
        }
        assert set(by_type[event]) == set(shown)
    text = json.dumps(by_type, ensure_ascii=False)
    assert all((number in text) == pii for number in ("15080921090", "15080921091", "15080921092"))


def targets_scopes() -> list[Any]:
    from receiver.auth.api_keys import Scope  # noqa: PLC0415

    return list(Scope)


def test_only_the_first_sighting_is_an_event_and_only_a_change_is_a_change(parts: Runtime, target: Hook) -> None:
    add(parts, target)
    steps = [make_push(), make_push(), make_push(status="0", second=-60), make_push(status="0", second=60)]
    for push in steps:
        keep(parts, push)
    keep(parts, make_push(content="T"), make_push(content="T"))
    target.await_taken(6)
    await_settled(parts)
    assert [type_of(sent) for sent in target.taken] == [
        "receipt.received",  # delivered
        "message.status_changed",
        "receipt.received",  # failed, a minute earlier: changes nothing
        "receipt.received",  # failed, a minute later
        "message.status_changed",
        "reply.received",
    ]
    assert data_of(target.taken[4])["status"] == "failed"


def test_target_hears_of_what_it_asked_for_and_of_its_accounts(
    make_runtime: Callable[..., Runtime], target: Hook
) -> None:
    tokens = (("default", SECRET), ("second", SECRET[::-1]))
    parts = make_runtime(webhooks_allow=ALLOW, push_tokens=tokens)
    add(parts, target, "replies", events=["reply.received"], url=target.url("/replies"))
    add(parts, target, "second", events=["receipt.received"], accounts=["second"], url=target.url("/second"))
    add(parts, target, "raw", form="raw", accounts=["second"], url=target.url("/raw"))
    keep(parts, make_push(), make_push(content="hi"), make_push(account="second", task_id="9"))
    target.await_taken(3)
    await_settled(parts)
    assert sorted(sent.path for sent in target.all) == ["/raw", "/replies", "/second"]


def test_push_that_is_read_in_another_way_is_an_event_and_is_not_sent_raw_again(parts: Runtime, target: Hook) -> None:
    add(parts, target, events=["receipt.received"], url=target.url("/hooks"))
    add(parts, target, "raw", form="raw", url=target.url("/raw"))
    unread = make_push(body=b"mobile=15080921090&taskid=1&status=1&receivetime=23.11.2026+09:14")
    keep(parts, unread)
    target.await_taken(1)
    good = make_push(body=b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:00")
    from dataclasses import replace  # noqa: PLC0415

    again = replace(unread, reading=good.reading)
    for _ in range(2):
        parts.database.write(partial(replay_push, push=again))
    parts.webhook_worker.look()
    target.await_taken(2)
    await_settled(parts)
    assert [sent.path for sent in target.all] == ["/raw", "/hooks"]


def test_masked_receipt_that_finds_its_message_changes_its_status(parts: Runtime, target: Hook) -> None:
    add(parts, target)
    keep(parts, make_push(mobile="1508092****"))
    assert data_of(target.await_taken(1)[0])["message_id"] is None
    parts.recorder.record([make_send()])
    parts.webhook_worker.look()
    target.await_taken(2)
    await_settled(parts)
    assert [type_of(sent) for sent in target.all] == ["receipt.received", "message.status_changed"]
    assert data_of(target.taken[1])["status"] == "delivered"


def test_send_tells_of_its_states_and_of_its_receipt_that_came_first(parts: Runtime, target: Hook) -> None:
    add(parts, target)
    attempt = make_attempt()
    parts.recorder.begin(attempt, day_began=parts.now())
    # Its receipt is here before its answer, under a row of its own, and its target does not answer yet.
    target.behave = lambda _sent: (503, {"Retry-After": "1"})
    keep(parts, make_push(task_id="77", mobile=attempt.mobile))
    target.await_tried(1)
    result = SendResult(state=None, answered_at=parts.now(), task_id="77")
    message_id = parts.recorder.finish(attempt, result)
    keys = sa.select(deliveries_table.c.order_key)
    assert set(parts.ask(lambda connection: connection.scalars(keys).all())) == {message_id}  # it goes first, as ever
    target.behave = lambda _sent: (200, {})
    resume(parts)
    target.await_taken(3)
    await_settled(parts)
    kinds = [type_of(sent) for sent in target.taken]
    assert sorted(kinds) == ["message.status_changed", "message.status_changed", "receipt.received"]
    assert {data_of(sent).get("message_id") or data_of(sent)["id"] for sent in target.taken} == {str(message_id)}
    assert data_of(target.taken[-1])["status"] == "delivered"


def resume(parts: Runtime, name: str = "shop") -> None:
    parts.webhooks.resume("test", parts.webhooks.find(name))


def test_what_was_spooled_is_forwarded_too(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    parts.availability.mark_down("for a test")
    push = make_push()
    keep(parts, push)
    (sent,) = target.await_taken(1)
    assert sent.headers["X-Push-Id"] == str(push.id)


def test_nothing_is_left_to_forward_while_there_is_no_target(parts: Runtime) -> None:
    parts.recorder.record([make_send()])
    keep(parts, make_push(), make_push(), make_push(mobile="1508092****"), make_push(body=b"?"))
    newest = sa.select(sa.func.max(forward_queue.c.id))
    assert parts.ask(lambda connection: connection.scalar(newest)) is None
    last = "SELECT last_value, is_called FROM forward_queue_id_seq"
    if parts.database.postgresql:
        assert parts.ask(lambda connection: tuple(connection.execute(sa.text(last)).one())) == (1, False)
    else:
        given = sa.text("SELECT count(*) FROM sqlite_sequence WHERE name = 'forward_queue'")
        assert parts.ask(lambda connection: connection.scalar(given)) == 0


# --- What time alone brings about -------------------------------------------------------------------------


def test_message_that_is_not_delivered_in_time_is_told_of_once(parts: Runtime, target: Hook) -> None:
    add(parts, target, not_delivered_after_seconds=3600, events=["message.no_receipt"])
    now = parts.now()
    long_ago = timedelta(hours=2)
    sends = [
        make_send(task_id="late", sent_at=now - long_ago),
        make_send(task_id="failed", sent_at=now - long_ago),
        make_send(task_id="delivered", sent_at=now - long_ago),
        make_send(task_id="young", sent_at=now),
        make_send(task_id="history", sent_at=now - timedelta(days=30)),
        make_send(task_id=None, reference="refused", sent_at=now - long_ago, error_message="余额不足"),
    ]
    keep(parts, make_push(task_id="delivered"), make_push(task_id="failed", status="0"))
    parts.recorder.record(sends)
    parts.webhook_worker.look()
    target.await_taken(2)
    await_true(lambda: count(parts, timers, timers.c.due_at <= now) == 0 and count(parts, deliveries_table) == 0)
    told = sorted((type_of(sent), data_of(sent)["task_id"]) for sent in target.all)
    assert told == [("message.not_delivered", "failed"), ("message.not_delivered", "late")]
    change(parts, sa.update(timers).values(due_at=now - timedelta(seconds=1)))  # 72 hours go by
    change(parts, sa.update(messages).values(sent_at=now - timedelta(days=4)))
    parts.webhook_worker.look()
    target.await_taken(5)
    await_true(lambda: count(parts, timers) == 0 and count(parts, deliveries_table) == 0)
    told = sorted((type_of(sent), data_of(sent)["task_id"]) for sent in target.all[2:])
    # `young` is due for both now.
    expected = [("message.no_receipt", "late"), ("message.no_receipt", "young"), ("message.not_delivered", "young")]
    assert told == expected
    assert {data_of(sent)["status"] for sent in target.all[2:]} == {"no_receipt"}


# --- Several nodes ----------------------------------------------------------------------------------------


@pytest.fixture
def nodes(postgres_runtime: Runtime) -> Iterator[sa.Engine]:
    """A way for two nodes into a database with a target, whose own forwarder rests. Who waits for a lock fails."""
    postgres_runtime.webhook_worker.stop()
    new = endpoints.NewEndpoint(name="shop", url="https://127.0.0.1:9/", format=endpoints.PayloadFormat.RAW)
    postgres_runtime.database.write(partial(endpoints.create_target, new=new, now=postgres_runtime.now()))
    engine = sa.create_engine(postgres_runtime.settings.database_url, connect_args={"options": "-c lock_timeout=2s"})
    yield engine
    engine.dispose()


def leave(nodes: sa.Engine, *order_keys: int | None) -> list[int]:
    """Make deliveries that are due, and give their ids."""
    due = datetime.now(UTC) - timedelta(seconds=9)
    table = deliveries_table.c
    with nodes.begin() as connection:
        (target_id,) = connection.scalars(sa.select(targets_table.c.id))
        row = {"target_id": target_id, "event": "push", "created_at": due, "next_at": due}
        rows = [{**row, "event_id": new_id(), "push_id": new_id(), "order_key": key} for key in order_keys]
        connection.execute(sa.insert(deliveries_table), rows)
        return list(connection.scalars(sa.select(table.id).order_by(table.id)))


def claim(parts: Runtime, connection: sa.Connection, *, limit: int = 9) -> list[int]:
    (target_id,) = connection.scalars(sa.select(targets_table.c.id))
    found = deliveries.claim(connection, target_id, parts.clock(), limit=limit)
    return [delivery.id for delivery in found.deliveries] if found else []


def test_what_a_node_has_claimed_is_no_others_until_its_lease_is_over(
    postgres_runtime: Runtime, nodes: sa.Engine
) -> None:
    first, second, *others = leave(nodes, 7, 7, None, None, None)
    begun = datetime.now(UTC)
    with nodes.begin() as one, nodes.begin() as other:
        assert claim(postgres_runtime, one, limit=2) == [first, others[0]]  # a message's second event waits
        assert claim(postgres_runtime, other) == others[1:]  # while the first node's transaction is open
    table = deliveries_table.c
    with nodes.begin() as connection:
        assert claim(postgres_runtime, connection) == []
        ends = connection.scalars(sa.select(table.next_at).where(table.id != second)).all()
        assert all(begun < end <= datetime.now(UTC) + deliveries.LEASE for end in ends)
        connection.execute(sa.update(deliveries_table).values(next_at=begun))
        assert claim(postgres_runtime, connection) == [first, *others]


def test_target_that_fails_is_tried_by_one_node_with_one_delivery(postgres_runtime: Runtime, nodes: sa.Engine) -> None:
    first, *_ = leave(nodes, None, None, None)
    with nodes.begin() as connection:
        connection.execute(sa.update(targets_table).values(failures=deliveries.BREAKER_FAILURES))
    with nodes.begin() as one, nodes.begin() as other:
        assert (claim(postgres_runtime, one), claim(postgres_runtime, other)) == ([first], [])
    with nodes.begin() as other:
        assert claim(postgres_runtime, other) == []


def test_one_node_at_a_time_makes_deliveries_of_what_was_left(nodes: sa.Engine) -> None:
    with nodes.begin() as connection:
        left = [{"kind": "push", "push_id": new_id(), "message_id": None} for _ in range(3)]
        connection.execute(sa.insert(forward_queue), left)
    make = partial(fan_out, limit=2, no_receipt_after=timedelta(hours=1))
    with nodes.begin() as one, nodes.begin() as other:
        assert (make(one), make(other)) == (2, 0)
    with nodes.begin() as other:
        assert make(other) == 1


# --- Where a target fails ---------------------------------------------------------------------------------


def test_message_waits_for_its_first_event_and_others_do_not(parts: Runtime, target: Hook) -> None:
    add(parts, target, pii=True)
    failing = threading.Event()
    failing.set()

    def behave(sent: Sent) -> tuple[int, dict[str, str]]:
        return (404, {}) if failing.is_set() and data_of(sent)["task_id"] == "stuck" else (200, {})

    target.behave = behave
    for second in range(3):
        keep(parts, make_push(task_id="stuck", second=second, status=str(second % 2)))
    keep(parts, *(make_push(task_id=f"free{number}") for number in range(5)))
    target.await_taken(10)
    assert {data_of(sent)["task_id"] for sent in target.taken} == {f"free{number}" for number in range(5)}
    tried = [sent for sent in target.all if data_of(sent)["task_id"] == "stuck"]
    assert {data_of(sent)["reported_at"] for sent in tried} == {data_of(tried[0])["reported_at"]}
    failing.clear()
    resume(parts)
    target.await_taken(16)
    await_settled(parts)
    stuck = [sent for sent in target.taken if data_of(sent)["task_id"] == "stuck"]
    kinds = [type_of(sent) for sent in stuck]
    assert kinds == ["receipt.received", "message.status_changed"] * 3
    assert stuck[0].headers["webhook-id"] == tried[0].headers["webhook-id"]
    times = [data_of(sent)["reported_at"] for sent in stuck if type_of(sent) == "receipt.received"]
    assert times == sorted(times)


def test_answer_410_pauses_a_target_and_nothing_is_lost(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    target.behave = lambda _sent: (410, {})
    keep(parts, make_push())
    await_true(lambda: parts.webhooks.find("shop").paused_at is not None)
    assert parts.webhooks.find("shop").paused_because == "answered with HTTP status 410"
    keep(parts, make_push(), make_push(task_id="2"))
    await_true(lambda: count(parts, deliveries_table) == 3)
    tried = len(target.all)
    target.behave = lambda _sent: (200, {})
    resume(parts)
    target.await_taken(3)
    await_settled(parts)
    assert len(target.all) == tried + 3


def test_paused_target_is_sent_nothing_and_later_everything(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    parts.webhooks.pause("test", parts.webhooks.find("shop"))
    pushed = [make_push(task_id=f"{number}") for number in range(30)]
    keep(parts, *pushed)
    await_true(lambda: count(parts, deliveries_table) == 30)
    assert parts.database.write(partial(claim, parts)) == []  # whichever node asks
    assert target.all == []
    resume(parts)
    sent = target.await_taken(30)
    assert {UUID(one.headers["X-Push-Id"]) for one in sent} == {push.id for push in pushed}


def test_what_fails_for_three_days_is_given_up_and_can_be_sent_again(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    target.behave = lambda _sent: (500, {})
    keep(parts, make_push(), make_push(task_id="2"))
    target.await_tried(2)
    await_true(lambda: count(parts, deliveries_table, deliveries_table.c.attempts > 0) == 2)
    shop = parts.webhooks.find("shop")
    assert parts.ask(partial(endpoints.list_dead, target=shop, limit=9)) == []
    long_ago = datetime.now(UTC) - deliveries.LIFE
    change(parts, sa.update(deliveries_table).values(failing_since=long_ago))
    resume(parts)
    await_true(lambda: count(parts, deliveries_table, deliveries_table.c.dead_at.isnot(None)) == 2)
    dead = parts.ask(partial(endpoints.list_dead, target=shop, limit=9))
    assert [letter.last_error for letter in dead] == ["answered with HTTP status 500"] * 2
    assert parts.ask(partial(endpoints.find_health, target=shop)).pending == 0
    target.behave = lambda _sent: (200, {})
    resume(parts)
    assert parts.webhooks.replay("test", shop, [dead[0].id]) == 1
    (sent,) = target.await_taken(1)
    assert sent.headers["X-Push-Id"] == str(dead[0].push_id)
    assert parts.webhooks.replay("test", shop) == 1
    target.await_taken(2)
    await_settled(parts)


def test_target_that_fails_five_times_in_a_row_is_tried_by_one_at_a_time(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    target.behave = lambda _sent: (500, {})
    keep(parts, *(make_push(task_id=f"{number}") for number in range(40)))
    await_true(lambda: parts.webhooks.find("shop").failures >= deliveries.BREAKER_FAILURES)
    assert parts.webhooks.find("shop").retry_at is not None
    # What four threads could have had in their hands, each up to its fifth failure in a row; not forty.
    assert len(target.all) <= 4 * deliveries.BREAKER_FAILURES
    target.behave = lambda _sent: (200, {})
    resume(parts)
    target.await_taken(40)
    await_settled(parts)
    assert parts.webhooks.find("shop").failures == 0


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500])
def test_target_that_takes_nothing_is_failing_at_once_and_good_once_it_takes_something(
    parts: Runtime, target: Hook, status: int
) -> None:
    add(parts, target, form="raw")
    assert parts.webhooks.find("shop").state is EndpointState.GOOD
    target.behave = lambda _sent: (status, {})
    keep(parts, make_push())
    await_true(lambda: parts.webhooks.find("shop").failed_at is not None)
    assert parts.webhooks.find("shop").state is EndpointState.FAILING
    target.behave = lambda _sent: (200, {})
    resume(parts)
    await_settled(parts)
    assert parts.webhooks.find("shop").state is EndpointState.GOOD
    parts.webhooks.pause("test", parts.webhooks.find("shop"))
    assert parts.webhooks.find("shop").state is EndpointState.PAUSED


def test_redirect_is_a_failure_that_says_so(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    target.behave = lambda _sent: (302, {"Location": target.url("/elsewhere")})
    keep(parts, make_push())
    await_true(lambda: "redirect" in (parts.webhooks.find("shop").last_error or ""))
    assert count(parts, deliveries_table) == 1
    assert {sent.path for sent in target.all} == {"/hook"}


def test_retry_after_is_kept_to_within_bounds() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    cases = {"120": 120.0, "0": 1.0, "99999999": 3600.0, "Thu, 26 Nov 2026 12:00:30 GMT": 30.0, "soon": None, "": None}
    for text, seconds in cases.items():
        assert engine.retry_after_seconds(EgressResponse(status=503, retry_after=text), now) == seconds
    assert engine.retry_after_seconds(EgressResponse(status=503, retry_after=None), now) is None


def test_waits_grow_from_seconds_to_hours_and_are_spread() -> None:
    first = [engine.wait_seconds(0) for _ in range(200)]
    late = [engine.wait_seconds(9) for _ in range(200)]
    assert min(first) >= 1
    assert max(first) <= 5
    assert max(first) - min(first) > 2
    assert 3600 < max(late) <= 6 * 3600
    assert min(late) < 3600


def test_target_that_hangs_does_not_hold_up_another(parts: Runtime, target: Hook) -> None:
    with hook() as good:
        target.behave = lambda _sent: None
        add(parts, target, "hanging", form="raw")
        add(parts, good, "good", form="raw")
        keep(parts, *(make_push(task_id=f"{number}") for number in range(60)))
        good.await_taken(60)
        assert target.taken == []


def test_acknowledgement_waits_for_no_target(parts: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "EXCHANGE_SECONDS", 60.0)  # longer than `keep` has patience
    target.behave = lambda _sent: None
    add(parts, target, "one", form="raw")
    add(parts, target, "other")
    keep(parts, make_push(task_id="1"))
    target.await_tried(2)
    for number in range(2, 5):
        keep(parts, make_push(task_id=f"{number}"))
    assert (count(parts, pushes), target.taken) == (4, [])


def test_what_is_not_kept_any_more_is_not_sent(parts: Runtime, target: Hook) -> None:
    add(parts, target, form="raw")
    add(parts, target, "hooks")
    for name in ("shop", "hooks"):
        parts.webhooks.pause("test", parts.webhooks.find(name))
    keep(parts, make_push(), make_push(content="secret", task_id="2"))
    await_true(lambda: count(parts, deliveries_table) == 5)
    for table in (pushes, replies):
        change(parts, sa.delete(table))
    for name in ("shop", "hooks"):
        resume(parts, name)
    await_settled(parts)
    assert sorted(type_of(sent) for sent in target.all) == ["message.status_changed", "receipt.received"]


def test_removed_target_is_sent_nothing_and_leaves_nothing(parts: Runtime, target: Hook) -> None:
    add(parts, target, not_delivered_after_seconds=3600)
    shop = parts.webhooks.find("shop")
    parts.webhooks.pause("test", shop)
    parts.recorder.record([make_send()])
    keep(parts, make_push())
    await_true(lambda: count(parts, deliveries_table) == 2 and count(parts, timers) == 2)
    parts.webhooks.remove("test", shop)
    assert (count(parts, deliveries_table), count(parts, timers)) == (0, 0)
    with pytest.raises(NotFound):
        parts.webhooks.find("shop")
    assert target.all == []


# --- Asking for one ---------------------------------------------------------------------------------------


def test_target_that_cannot_be_is_refused_with_every_reason(make_runtime: Callable[..., Runtime], target: Hook) -> None:
    parts = make_runtime()
    with pytest.raises(service.InvalidEndpoint) as refused:
        parts.webhooks.add(
            "test", name="a b", url="http://169.254.169.254/x", form="xml", accounts=["none"], events=["x"]
        )
    assert set(refused.value.faults) == {"name", "url", "format", "accounts", "events"}
    assert "RECEIVER_WEBHOOKS_ALLOW" in refused.value.faults["url"]
    with pytest.raises(service.InvalidEndpoint) as refused:
        add(parts, target)
    assert set(refused.value.faults) == {"url"}
    assert parts.ask(endpoints.list_targets) == []


def test_name_is_given_once(parts: Runtime, target: Hook) -> None:
    add(parts, target)
    with pytest.raises(NameTaken):
        add(parts, target)


def test_event_without_its_time_is_refused(parts: Runtime, target: Hook) -> None:
    with pytest.raises(service.InvalidEndpoint) as refused:
        add(parts, target, events=[EventType.NOT_DELIVERED])
    assert set(refused.value.faults) == {"not_delivered_after_seconds"}


def test_test_event_says_that_it_is_one(parts: Runtime, target: Hook) -> None:
    secret = add(parts, target)
    tried = parts.webhooks.try_out("test", parts.webhooks.find("shop"))
    assert (tried.status, tried.taken) == (200, True)
    (sent,) = target.all
    assert Webhook(str(secret)).verify(sent.body, dict(sent.headers))["type"] == "receiver.test"
    target.behave = lambda _sent: (302, {"Location": "http://169.254.169.254/"})
    assert parts.webhooks.try_out("test", parts.webhooks.find("shop")).status == 302


def test_ids_of_pushes_and_events_are_not_used_twice(parts: Runtime, target: Hook) -> None:
    add(parts, target)
    keep(parts, *(make_push(task_id=f"{number}") for number in range(20)))
    sent = target.await_taken(40)
    by_id = defaultdict(list)
    for one in sent:
        by_id[one.headers["webhook-id"]].append(one)
    assert len(by_id) == 40
    assert new_id().hex not in by_id
