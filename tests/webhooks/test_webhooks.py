"""Own systems hear of everything: what they are sent, in which order, and what becomes of it where they fail."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jsonschema_rs
import pytest
import sqlalchemy as sa
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from receiver.app import create_app
from receiver.core import NameTaken, NotFound, SendResult, iso_milliseconds, new_id
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import delivery_history, forward_queue, messages, pushes, replies, timers
from receiver.db.tables import targets as targets_table
from receiver.intake.replay import replay_push
from receiver.net.egress_client import EgressResponse
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import deliveries, endpoints, payloads, service
from receiver.webhooks import worker as engine
from receiver.webhooks.endpoints import EndpointState, EventType
from receiver.webhooks.fan_out import fan_out
from tests.conftest import SECRET, make_key
from tests.harness.factories import make_push, make_send
from tests.harness.hooks import Hook, Sent, hook
from tests.harness.proxies import proxy_to
from tests.harness.waiting import await_true
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime

ALLOW = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MOBILE = "15080921090"


@pytest.fixture
def services(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime that may reach this machine."""
    return make_runtime(webhooks_allow=ALLOW)


@pytest.fixture
def target() -> Iterator[Hook]:
    """A target on this machine."""
    with hook() as made:
        yield made


def add(services: Runtime, target: Hook, name: str = "shop", *, form: str = "webhooks", **asked: Any) -> str | None:
    return services.webhooks.add("test", name=name, url=asked.pop("url", target.url()), form=form, **asked)


def keep(services: Runtime, *batch: Any) -> None:
    """Keep pushes as the committer does, all in one batch."""
    for future in [services.batch_writer.enqueue(push) for push in batch]:
        future.result(30)


def type_of(sent: Sent) -> str:
    return str(json.loads(sent.body)["type"])


def data_of(sent: Sent) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(sent.body)["data"]
    return data


def count(services: Runtime, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(*where)
    return services.ask(lambda connection: connection.execute(query).scalar_one())


def change(services: Runtime, statement: sa.Update | sa.Delete) -> None:
    services.database.write(lambda connection: connection.execute(statement))


def await_settled(services: Runtime) -> None:
    """Wait until nothing is left to be forwarded."""
    await_true(lambda: count(services, forward_queue) == 0 and count(services, deliveries_table) == 0)


# --- What is sent -----------------------------------------------------------------------------------------


def test_raw_target_is_sent_method_query_bytes_and_content_type_as_they_came(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw", url=target.url("/old/receiver?key=K%2F1"))
    client = create_app(services).test_client()
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
    await_settled(services)


def test_raw_target_is_sent_every_copy(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    batch = [make_push(), make_push(), make_push(mobile="1508092****"), make_push(mobile="1508092****")]
    keep(services, *batch)
    sent = target.await_taken(4)
    await_settled(services)
    assert {UUID(one.headers["X-Push-Id"]) for one in sent} == {push.id for push in batch}
    assert len(target.all) == 4


def test_package_of_standard_webhooks_verifies_a_post(services: Runtime, target: Hook) -> None:
    secret = add(services, target)
    assert secret is not None
    keep(services, make_push())
    sent = target.await_taken(2)[0]
    assert sent.headers["Content-Type"] == "application/json"
    headers = {name: value for name, value in sent.headers.items() if name.startswith("Webhook-")}
    assert Webhook(secret).verify(sent.body, headers)["type"] == "receipt.received"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(sent.body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint_changes.new_secret()).verify(sent.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(sent.body, headers | {"Webhook-Id": "msg_other"})


def test_both_secrets_sign_for_a_day_after_a_rotation(services: Runtime, target: Hook) -> None:
    old = add(services, target, events=["receipt.received"])
    new = services.webhooks.rotate("test", services.webhooks.find("shop"))
    keep(services, make_push())
    sent = target.await_taken(1)[0]
    for secret in (old, new):
        assert Webhook(str(secret)).verify(sent.body, dict(sent.headers))
    yesterday = datetime.now(UTC) - timedelta(seconds=1)
    change(services, sa.update(targets_table).values(old_secret_until=yesterday))
    keep(services, make_push(task_id="2"))
    sent = target.await_taken(2)[1]
    assert Webhook(new).verify(sent.body, dict(sent.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(str(old)).verify(sent.body, dict(sent.headers))


@pytest.mark.parametrize("pii", [True, False])
def test_event_has_the_shape_of_the_api(services: Runtime, target: Hook, pii: bool) -> None:
    services.recorder.record([make_send(template_id="540", reference="order-1")])
    add(services, target, pii=pii)
    body = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2026-11-23+09:14:03&note=call+15080921091"
    keep(services, make_push(body=body), make_push(content="请打 15080921092", second=5))
    by_type = {type_of(sent): data_of(sent) for sent in target.await_taken(3)}
    await_settled(services)
    client = create_app(services).test_client()
    scopes = [scope for scope in targets_scopes() if pii or scope != "pii"]
    headers = {"Authorization": make_key(services, *scopes)}
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


def test_only_the_first_sighting_is_an_event_and_only_a_change_is_a_change(services: Runtime, target: Hook) -> None:
    add(services, target)
    steps = [make_push(), make_push(), make_push(status="0", second=-60), make_push(status="0", second=60)]
    for push in steps:
        keep(services, push)
    keep(services, make_push(content="T"), make_push(content="T"))
    target.await_taken(6)
    await_settled(services)
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
    services = make_runtime(webhooks_allow=ALLOW, push_tokens=tokens)
    add(services, target, "replies", events=["reply.received"], url=target.url("/replies"))
    add(services, target, "second", events=["receipt.received"], accounts=["second"], url=target.url("/second"))
    add(services, target, "raw", form="raw", accounts=["second"], url=target.url("/raw"))
    keep(services, make_push(), make_push(content="hi"), make_push(account="second", task_id="9"))
    target.await_taken(3)
    await_settled(services)
    assert sorted(sent.path for sent in target.all) == ["/raw", "/replies", "/second"]


def test_push_that_is_read_in_another_way_is_an_event_and_is_not_sent_raw_again(
    services: Runtime, target: Hook
) -> None:
    add(services, target, events=["receipt.received"], url=target.url("/hooks"))
    add(services, target, "raw", form="raw", url=target.url("/raw"))
    unread = make_push(body=b"mobile=15080921090&taskid=1&status=1&receivetime=23.11.2026+09:14")
    keep(services, unread)
    target.await_taken(1)
    good = make_push(body=b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:00")
    from dataclasses import replace  # noqa: PLC0415

    again = replace(unread, reading=good.reading)
    for _ in range(2):
        services.database.write(partial(replay_push, push=again))
    services.webhook_worker.run_now()
    target.await_taken(2)
    await_settled(services)
    assert [sent.path for sent in target.all] == ["/raw", "/hooks"]


def test_masked_receipt_that_finds_its_message_changes_its_status(services: Runtime, target: Hook) -> None:
    add(services, target)
    keep(services, make_push(mobile="1508092****"))
    assert data_of(target.await_taken(1)[0])["message_id"] is None
    services.recorder.record([make_send()])
    services.webhook_worker.run_now()
    target.await_taken(2)
    await_settled(services)
    assert [type_of(sent) for sent in target.all] == ["receipt.received", "message.status_changed"]
    assert data_of(target.taken[1])["status"] == "delivered"


def test_send_tells_of_its_states_and_of_its_receipt_that_came_first(services: Runtime, target: Hook) -> None:
    add(services, target)
    attempt = make_attempt()
    services.recorder.begin(attempt, day_began=services.now())
    # Its receipt is here before its answer, under a row of its own, and its target does not answer yet.
    target.behave = lambda _sent: (503, {"Retry-After": "1"})
    keep(services, make_push(task_id="77", mobile=attempt.mobile))
    target.await_tried(1)
    result = SendResult(state=None, answered_at=services.now(), task_id="77")
    message_id = services.recorder.finish(attempt, result)
    keys = sa.select(deliveries_table.c.order_key)
    assert set(services.ask(lambda connection: connection.scalars(keys).all())) == {
        message_id
    }  # it goes first, as ever
    target.behave = lambda _sent: (200, {})
    resume(services)
    target.await_taken(3)
    await_settled(services)
    kinds = [type_of(sent) for sent in target.taken]
    assert sorted(kinds) == ["message.status_changed", "message.status_changed", "receipt.received"]
    assert {data_of(sent).get("message_id") or data_of(sent)["id"] for sent in target.taken} == {str(message_id)}
    assert data_of(target.taken[-1])["status"] == "delivered"


def resume(services: Runtime, name: str = "shop") -> None:
    services.webhooks.resume("test", services.webhooks.find(name))


def test_what_was_spooled_is_forwarded_too(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    services.availability.mark_down("for a test")
    push = make_push()
    keep(services, push)
    (sent,) = target.await_taken(1)
    assert sent.headers["X-Push-Id"] == str(push.id)


def test_nothing_is_left_to_forward_while_there_is_no_target(services: Runtime) -> None:
    services.recorder.record([make_send()])
    keep(services, make_push(), make_push(), make_push(body=b"?"))
    keep(services, make_push(mobile="1508092****", status="0", second=9))  # changes the state of the send's message
    newest = sa.select(sa.func.max(forward_queue.c.id))
    assert services.ask(lambda connection: connection.scalar(newest)) is None
    last = "SELECT last_value, is_called FROM forward_queue_id_seq"
    if services.database.postgresql:
        assert services.ask(lambda connection: tuple(connection.execute(sa.text(last)).one())) == (1, False)
    else:
        given = sa.text("SELECT count(*) FROM sqlite_sequence WHERE name = 'forward_queue'")
        assert services.ask(lambda connection: connection.scalar(given)) == 0


def test_proxy_takes_events_and_tests_of_a_name_that_only_it_knows(
    make_runtime: Callable[..., Runtime], target: Hook
) -> None:
    with proxy_to(target.port) as proxy:
        services = make_runtime(webhooks_proxy=proxy.url("me:secret"))
        add(services, target, url="http://shop.invalid/hook", events=["receipt.received"])
        assert services.webhooks.try_out("test", services.webhooks.find("shop")).taken
        keep(services, make_push())
        assert [type_of(sent) for sent in target.await_taken(2)] == ["receiver.test", "receipt.received"]
        assert all(head.startswith(b"POST http://shop.invalid/hook ") for head in proxy.heads)
        with pytest.raises(service.InvalidEndpoint, match="not public"):
            add(services, target, "inside", url="http://10.0.0.1/")


# --- What time alone brings about -------------------------------------------------------------------------


def test_message_that_is_not_delivered_in_time_is_told_of_once(services: Runtime, target: Hook) -> None:
    add(services, target, not_delivered_after_seconds=3600, events=["message.no_receipt"])
    now = services.now()
    long_ago = timedelta(hours=2)
    sends = [
        make_send(task_id="late", sent_at=now - long_ago),
        make_send(task_id="failed", sent_at=now - long_ago),
        make_send(task_id="delivered", sent_at=now - long_ago),
        make_send(task_id="young", sent_at=now),
        make_send(task_id="history", sent_at=now - timedelta(days=30)),
        make_send(task_id=None, reference="refused", sent_at=now - long_ago, error_message="余额不足"),
    ]
    keep(services, make_push(task_id="delivered"), make_push(task_id="failed", status="0"))
    services.recorder.record(sends)
    services.webhook_worker.run_now()
    target.await_taken(2)
    await_true(lambda: count(services, timers, timers.c.due_at <= now) == 0 and count(services, deliveries_table) == 0)
    told = sorted((type_of(sent), data_of(sent)["task_id"]) for sent in target.all)
    assert told == [("message.not_delivered", "failed"), ("message.not_delivered", "late")]
    change(services, sa.update(timers).values(due_at=now - timedelta(seconds=1)))  # 72 hours go by
    change(services, sa.update(messages).values(sent_at=now - timedelta(days=4)))
    services.webhook_worker.run_now()
    target.await_taken(5)
    await_true(lambda: count(services, timers) == 0 and count(services, deliveries_table) == 0)
    told = sorted((type_of(sent), data_of(sent)["task_id"]) for sent in target.all[2:])
    # `young` is due for both now.
    expected = [("message.no_receipt", "late"), ("message.no_receipt", "young"), ("message.not_delivered", "young")]
    assert told == expected
    assert {data_of(sent)["status"] for sent in target.all[2:]} == {"no_receipt"}


def test_timer_of_an_event_that_is_no_longer_wanted_sends_nothing(services: Runtime, target: Hook) -> None:
    add(services, target, not_delivered_after_seconds=3600)
    now = services.now()
    services.recorder.record([make_send(task_id="late", sent_at=now - timedelta(minutes=50))])
    services.webhook_worker.run_now()
    await_true(lambda: count(services, timers) == 2)
    services.webhooks.update("test", services.webhooks.find("shop"), {"not_delivered_after_seconds": None})
    change(services, sa.update(timers).values(due_at=now - timedelta(seconds=1)))
    services.webhook_worker.run_now()
    await_true(lambda: count(services, timers) == 0 and count(services, deliveries_table) == 0)
    assert [type_of(sent) for sent in target.all] == ["message.no_receipt"]


def test_fan_out_that_is_late_takes_long_steps_and_short_rests_though_pushes_come_in(
    services: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, float]] = []
    left = [True]

    def make(_connection: sa.Connection, *, limit: int, no_receipt_after: timedelta) -> int:
        assert no_receipt_after
        steps.append((limit, time.monotonic()))
        time.sleep(0.01)
        return limit if left[0] else 0

    monkeypatch.setattr(engine, "fan_out", make)
    for name, seconds in (
        ("_LATE_SECONDS", 0.5), ("_VERY_LATE_SECONDS", 1.5),
        ("POLL_SECONDS", 0.05), ("_POLL_WITHOUT_ENDPOINTS_SECONDS", 0.05),
    ):  # fmt: skip
        monkeypatch.setattr(engine, name, seconds)
    services.webhook_worker.stop()
    worker = engine.WebhookWorker(
        services.database,
        availability=services.availability,
        policy=services.egress_policy,
        clock=services.clock,
        is_busy=lambda: True,
    )
    worker.start()
    await_true(lambda: steps[-1:] and steps[-1][0] == 500)
    await_true(lambda: any(later - before < 0.05 for (_, before), (_, later) in pairwise(steps)))  # late: 0.09 at least
    left[0] = False  # caught up
    await_true(lambda: steps[-1][0] == 50)
    worker.stop()
    limits = [limit for limit, _ in steps]
    assert [limits[0], *(after for before, after in pairwise(limits) if after != before)] == [50, 500, 50]


# --- Several nodes ----------------------------------------------------------------------------------------


@pytest.fixture
def nodes(postgres_runtime: Runtime) -> Iterator[sa.Engine]:
    """A way for two nodes into a database with a target, whose own forwarder rests. Who waits for a lock fails."""
    postgres_runtime.webhook_worker.stop()
    new = endpoints.NewEndpoint(name="shop", url="https://127.0.0.1:9/", format=endpoints.PayloadFormat.RAW)
    postgres_runtime.database.write(partial(endpoint_changes.create_endpoint, new=new, now=postgres_runtime.now()))
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


def claim(services: Runtime, connection: sa.Connection, *, limit: int = 9) -> list[int]:
    (target_id,) = connection.scalars(sa.select(targets_table.c.id))
    found = deliveries.claim(connection, target_id, services.clock(), limit=limit)
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


def test_two_nodes_settle_what_both_have_sent(nodes: sa.Engine) -> None:
    leave(nodes, None, None)
    with nodes.connect() as connection:
        rows = connection.execute(sa.select(deliveries_table).order_by(deliveries_table.c.id)).all()
    names = [name for name in deliveries.QueuedDelivery.__slots__ if name != "__weakref__"]
    sent = [deliveries.QueuedDelivery(**{name: getattr(row, name) for name in names}) for row in rows]

    def settle(connection: sa.Connection) -> None:
        result = deliveries.Settlement(delivered=[(one, 200) for one in sent], last_failed=False, last_status=200)
        deliveries.settle(connection, rows[0].target_id, result)

    failed: list[Exception] = []

    def settle_too() -> None:
        try:
            with nodes.begin() as second:
                settle(second)
        except Exception as error:  # noqa: BLE001  (it is what is asserted)
            failed.append(error)

    other = threading.Thread(target=settle_too)
    with nodes.begin() as first:
        settle(first)
        other.start()
        other.join(0.5)
        assert other.is_alive()  # it waits for the first one's rows
    other.join(30)
    assert failed == []
    with nodes.connect() as connection:
        kept = connection.scalars(sa.select(delivery_history.c.id).order_by(delivery_history.c.id)).all()
        left = connection.scalar(sa.select(sa.func.count()).select_from(deliveries_table))
    assert (kept, left) == ([row.id for row in rows], 0)


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


def test_message_waits_for_its_first_event_and_others_do_not(services: Runtime, target: Hook) -> None:
    add(services, target, pii=True)
    failing = threading.Event()
    failing.set()

    def behave(sent: Sent) -> tuple[int, dict[str, str]]:
        return (404, {}) if failing.is_set() and data_of(sent)["task_id"] == "stuck" else (200, {})

    target.behave = behave
    for second in range(3):
        keep(services, make_push(task_id="stuck", second=second, status=str(second % 2)))
    keep(services, *(make_push(task_id=f"free{number}") for number in range(5)))
    target.await_taken(10)
    assert {data_of(sent)["task_id"] for sent in target.taken} == {f"free{number}" for number in range(5)}
    tried = [sent for sent in target.all if data_of(sent)["task_id"] == "stuck"]
    assert {data_of(sent)["reported_at"] for sent in tried} == {data_of(tried[0])["reported_at"]}
    failing.clear()
    resume(services)
    target.await_taken(16)
    await_settled(services)
    stuck = [sent for sent in target.taken if data_of(sent)["task_id"] == "stuck"]
    kinds = [type_of(sent) for sent in stuck]
    assert kinds == ["receipt.received", "message.status_changed"] * 3
    assert stuck[0].headers["webhook-id"] == tried[0].headers["webhook-id"]
    times = [data_of(sent)["reported_at"] for sent in stuck if type_of(sent) == "receipt.received"]
    assert times == sorted(times)


def test_answer_410_pauses_a_target_and_nothing_is_lost(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    target.behave = lambda _sent: (410, {})
    keep(services, make_push())
    await_true(lambda: services.webhooks.find("shop").paused_at is not None)
    assert services.webhooks.find("shop").paused_because == "answered with HTTP status 410"
    keep(services, make_push(), make_push(task_id="2"))
    await_true(lambda: count(services, deliveries_table) == 3)
    tried = len(target.all)
    target.behave = lambda _sent: (200, {})
    resume(services)
    target.await_taken(3)
    await_settled(services)
    assert len(target.all) == tried + 3


def test_paused_target_is_sent_nothing_and_later_everything(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    services.webhooks.pause("test", services.webhooks.find("shop"))
    pushed = [make_push(task_id=f"{number}") for number in range(30)]
    keep(services, *pushed)
    await_true(lambda: count(services, deliveries_table) == 30)
    assert services.database.write(partial(claim, services)) == []  # whichever node asks
    assert target.all == []
    resume(services)
    sent = target.await_taken(30)
    assert {UUID(one.headers["X-Push-Id"]) for one in sent} == {push.id for push in pushed}


def test_what_fails_for_three_days_is_given_up_and_can_be_sent_again(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    target.behave = lambda _sent: (500, {})
    keep(services, make_push(), make_push(task_id="2"))
    target.await_tried(2)
    await_true(lambda: count(services, deliveries_table, deliveries_table.c.attempts > 0) == 2)
    shop = services.webhooks.find("shop")
    list_dead = partial(endpoints.list_deliveries, target=shop, limit=9, state=endpoints.DeliveryState.DEAD)
    assert services.ask(list_dead) == []
    long_ago = datetime.now(UTC) - deliveries.LIFE
    change(services, sa.update(deliveries_table).values(failing_since=long_ago))
    resume(services)
    await_true(lambda: count(services, deliveries_table, deliveries_table.c.dead_at.isnot(None)) == 2)
    dead = services.ask(list_dead)
    assert [letter.last_error for letter in dead] == ["answered with HTTP status 500"] * 2
    assert services.ask(partial(endpoints.find_health, target=shop)).pending == 0
    target.behave = lambda _sent: (200, {})
    resume(services)
    assert services.webhooks.replay("test", shop, [dead[0].id]) == 1
    (sent,) = target.await_taken(1)
    assert sent.headers["X-Push-Id"] == str(dead[0].push_id)
    assert services.webhooks.replay("test", shop) == 1
    target.await_taken(2)
    await_settled(services)


def test_target_that_fails_five_times_in_a_row_is_tried_by_one_at_a_time(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    target.behave = lambda _sent: (500, {})
    keep(services, *(make_push(task_id=f"{number}") for number in range(40)))
    await_true(lambda: services.webhooks.find("shop").failures >= deliveries.BREAKER_FAILURES)
    assert services.webhooks.find("shop").retry_at is not None
    # What four threads could have had in their hands, each up to its fifth failure in a row; not forty.
    assert len(target.all) <= 4 * deliveries.BREAKER_FAILURES
    target.behave = lambda _sent: (200, {})
    resume(services)
    target.await_taken(40)
    await_settled(services)
    assert services.webhooks.find("shop").failures == 0


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500])
def test_target_that_takes_nothing_is_failing_at_once_and_good_once_it_takes_something(
    services: Runtime, target: Hook, status: int
) -> None:
    add(services, target, form="raw")
    assert services.webhooks.find("shop").state is EndpointState.GOOD
    target.behave = lambda _sent: (status, {})
    keep(services, make_push())
    await_true(lambda: services.webhooks.find("shop").failed_at is not None)
    assert services.webhooks.find("shop").state is EndpointState.FAILING
    target.behave = lambda _sent: (200, {})
    resume(services)
    await_settled(services)
    assert services.webhooks.find("shop").state is EndpointState.GOOD
    services.webhooks.pause("test", services.webhooks.find("shop"))
    assert services.webhooks.find("shop").state is EndpointState.PAUSED


def test_delivery_that_cannot_be_sent_says_nothing_of_its_target(
    services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, target, form="raw")
    target.behave = lambda _sent: (404, {})
    keep(services, make_push())
    await_true(lambda: services.webhooks.find("shop").failed_at is not None)
    failing = services.webhooks.find("shop")

    def unreadable(*_: Any, **__: Any) -> None:
        raise ValueError

    monkeypatch.setattr(engine, "render", unreadable)
    keep(services, make_push(task_id="other"))
    await_true(lambda: "cannot be written" in (services.webhooks.find("shop").last_error or ""))
    found = services.webhooks.find("shop")
    assert (found.state, found.failing_since, found.last_status) == (EndpointState.FAILING, failing.failing_since, 404)
    monkeypatch.undo()
    target.behave = lambda _sent: (200, {})
    resume(services)
    await_settled(services)
    good = services.webhooks.find("shop")
    assert (good.state, good.last_status) == (EndpointState.GOOD, 200)
    monkeypatch.setattr(engine, "render", unreadable)
    keep(services, make_push(task_id="third"))
    await_true(lambda: services.webhooks.find("shop").failed_at != found.failed_at)
    assert services.webhooks.find("shop").state is EndpointState.GOOD


def test_redirect_is_a_failure_that_says_so(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    target.behave = lambda _sent: (302, {"Location": target.url("/elsewhere")})
    keep(services, make_push())
    await_true(lambda: "redirect" in (services.webhooks.find("shop").last_error or ""))
    assert count(services, deliveries_table) == 1
    assert {sent.path for sent in target.all} == {"/hook"}


def test_retry_after_is_kept_to_within_bounds() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    cases = {"120": 120.0, "0": 1.0, "99999999": 3600.0, "Thu, 26 Nov 2026 12:00:30 GMT": 30.0, "soon": None, "": None}
    for text, seconds in cases.items():
        answer = EgressResponse(status=503, headers=[(b"retry-after", text.encode())])
        assert engine.retry_after_seconds(answer, now) == seconds
    assert engine.retry_after_seconds(EgressResponse(status=503), now) is None


def test_waits_grow_from_seconds_to_hours_and_are_spread() -> None:
    first = [engine.wait_seconds(0) for _ in range(200)]
    late = [engine.wait_seconds(9) for _ in range(200)]
    assert min(first) >= 1
    assert max(first) <= 5
    assert max(first) - min(first) > 2
    assert 3600 < max(late) <= 6 * 3600
    assert min(late) < 3600


def test_target_that_hangs_does_not_hold_up_another(services: Runtime, target: Hook) -> None:
    with hook() as good:
        target.behave = lambda _sent: None
        add(services, target, "hanging", form="raw")
        add(services, good, "good", form="raw")
        keep(services, *(make_push(task_id=f"{number}") for number in range(60)))
        good.await_taken(60)
        assert target.taken == []


def test_acknowledgement_waits_for_no_target(services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "EXCHANGE_SECONDS", 60.0)  # longer than `keep` has patience
    target.behave = lambda _sent: None
    add(services, target, "one", form="raw")
    add(services, target, "other")
    keep(services, make_push(task_id="1"))
    target.await_tried(2)
    for number in range(2, 5):
        keep(services, make_push(task_id=f"{number}"))
    assert (count(services, pushes), target.taken) == (4, [])


def test_what_is_not_kept_any_more_is_not_sent(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    add(services, target, "hooks")
    for name in ("shop", "hooks"):
        services.webhooks.pause("test", services.webhooks.find(name))
    keep(services, make_push(), make_push(content="secret", task_id="2"))
    await_true(lambda: count(services, deliveries_table) == 5)
    for table in (pushes, replies):
        change(services, sa.delete(table))
    for name in ("shop", "hooks"):
        resume(services, name)
    await_settled(services)
    assert sorted(type_of(sent) for sent in target.all) == ["message.status_changed", "receipt.received"]


def test_removed_target_is_sent_nothing_and_leaves_nothing(services: Runtime, target: Hook) -> None:
    add(services, target, not_delivered_after_seconds=3600)
    shop = services.webhooks.find("shop")
    services.webhooks.pause("test", shop)
    services.recorder.record([make_send()])
    keep(services, make_push())
    await_true(lambda: count(services, deliveries_table) == 2 and count(services, timers) == 2)
    services.webhooks.remove("test", shop)
    assert (count(services, deliveries_table), count(services, timers)) == (0, 0)
    with pytest.raises(NotFound):
        services.webhooks.find("shop")
    assert target.all == []


# --- Asking for one ---------------------------------------------------------------------------------------


def test_target_that_cannot_be_is_refused_with_every_reason(make_runtime: Callable[..., Runtime], target: Hook) -> None:
    services = make_runtime()
    with pytest.raises(service.InvalidEndpoint) as refused:
        services.webhooks.add(
            "test", name="a b", url="http://169.254.169.254/x", form="xml", accounts=["none"], events=["x"]
        )
    assert set(refused.value.faults) == {"name", "url", "format", "accounts", "events"}
    assert "RECEIVER_WEBHOOKS_ALLOW" in refused.value.faults["url"]
    with pytest.raises(service.InvalidEndpoint) as refused:
        add(services, target)
    assert set(refused.value.faults) == {"url"}
    assert services.ask(endpoints.list_endpoints) == []


def test_name_is_given_once(services: Runtime, target: Hook) -> None:
    add(services, target)
    with pytest.raises(NameTaken):
        add(services, target)


def test_event_without_its_time_is_refused(services: Runtime, target: Hook) -> None:
    with pytest.raises(service.InvalidEndpoint) as refused:
        add(services, target, events=[EventType.NOT_DELIVERED])
    assert set(refused.value.faults) == {"not_delivered_after_seconds"}


def test_test_event_says_that_it_is_one(services: Runtime, target: Hook) -> None:
    secret = add(services, target)
    tried = services.webhooks.try_out("test", services.webhooks.find("shop"))
    assert (tried.status, tried.taken) == (200, True)
    (sent,) = target.all
    assert Webhook(str(secret)).verify(sent.body, dict(sent.headers))["type"] == "receiver.test"
    target.behave = lambda _sent: (302, {"Location": "http://169.254.169.254/"})
    assert services.webhooks.try_out("test", services.webhooks.find("shop")).status == 302


def test_event_that_is_made_or_queued_again_says_when_it_happened(services: Runtime, target: Hook) -> None:
    add(services, target, events=["receipt.received", "reply.received"])
    long_ago = services.now() - timedelta(days=5)
    keep(services, replace(make_push(), received_at=long_ago), replace(make_push(content="T"), received_at=long_ago))
    target.await_taken(2)
    await_settled(services)
    change(services, sa.update(delivery_history).values(created_at=long_ago))
    shop = services.webhooks.find("shop")
    assert services.webhooks.replay_since("test", shop, long_ago - timedelta(hours=1), everything=True) == 2
    sent = target.await_taken(4)
    await_settled(services)
    assert {json.loads(one.body)["timestamp"] for one in sent} == {iso_milliseconds(long_ago)}
    services.webhooks.pause("test", shop)
    accepted = services.ask(lambda connection: connection.scalars(sa.select(delivery_history.c.id)).all())
    assert services.webhooks.replay("test", shop, accepted) == 4
    # The queue is as old as it is since now, for its alarm too.
    health = services.ask(partial(endpoints.find_health, target=shop))
    oldest = services.ask(endpoints.find_oldest)["shop"]
    assert health.oldest_at == oldest
    assert services.now() - oldest < timedelta(minutes=5)
    resume(services)
    assert {json.loads(one.body)["timestamp"] for one in target.await_taken(8)} == {iso_milliseconds(long_ago)}


def test_ids_of_pushes_and_events_are_not_used_twice(services: Runtime, target: Hook) -> None:
    add(services, target)
    keep(services, *(make_push(task_id=f"{number}") for number in range(20)))
    sent = target.await_taken(40)
    by_id = defaultdict(list)
    for one in sent:
        by_id[one.headers["webhook-id"]].append(one)
    assert len(by_id) == 40
    assert new_id().hex not in by_id


# --- The description of what is sent ----------------------------------------------------------------------


def test_every_event_is_as_the_description_of_the_api_says(services: Runtime, target: Hook) -> None:
    secret = add(services, target, not_delivered_after_seconds=3600)
    services.recorder.record([make_send(task_id="late", sent_at=services.now() - timedelta(hours=2))])
    keep(services, make_push(), make_push(content="13900000099", second=5))
    services.webhooks.try_out("test", services.webhooks.find("shop"))
    target.await_taken(5)
    past = services.now() - timedelta(seconds=1)
    change(services, sa.update(messages).values(sent_at=past - timedelta(days=4)))
    change(services, sa.update(timers).values(due_at=past))
    services.webhook_worker.run_now()
    sent = target.await_taken(6)
    document = create_app(services).test_client().get("/api/v1/openapi.json").json
    assert {type_of(one) for one in sent} == set(document["webhooks"]) == {*EventType, payloads.TEST_EVENT}
    for one in sent:
        described = document["webhooks"][type_of(one)]["post"]
        assert all(one.headers[parameter["name"]] for parameter in described["parameters"])
        content = described["requestBody"]["content"][one.headers["Content-Type"]]
        body = json.loads(one.body)
        for value in (body, content["example"]):
            schema = content["schema"] | {"components": document["components"]}
            jsonschema_rs.validate(schema, value)
        assert set(body) == set(content["schema"]["properties"])
        assert secret is not None
        assert Webhook(secret).verify(one.body, dict(one.headers)) == body
