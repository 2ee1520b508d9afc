"""What an endpoint has missed is sent again: what failed, and all of a time for a receiver that lost it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.audit import log
from receiver.auth.api_keys import Scope
from receiver.core import first_id_of
from receiver.db import set_aside
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import receipts, rows_set_aside, timers
from receiver.webhooks import deliveries, endpoints, fan_out, recovery
from tests.conftest import make_key
from tests.harness.factories import make_push, make_send
from tests.harness.hooks import Hook, Sent, hook
from tests.harness.waiting import await_true
from tests.webhooks.test_webhooks import ALLOW, add, await_settled, change, count, data_of, keep, type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from receiver.runtime import Runtime
    from receiver.webhooks.endpoints import Endpoint


@pytest.fixture
def services(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime that may reach this machine."""
    return make_runtime(webhooks_allow=ALLOW)


@pytest.fixture
def target() -> Iterator[Hook]:
    """A target on this machine."""
    with hook() as made:
        yield made


def replay(services: Runtime, name: str, **body: Any) -> Any:
    headers = {"Authorization": make_key(services, Scope.WEBHOOKS, Scope.PII)}
    client = create_app(services).test_client()
    return client.post(f"/api/v1/webhooks/{name}/replay", json=body, headers=headers)


def ids_of(sent: list[Sent]) -> list[tuple[str, str]]:
    return sorted((type_of(one), one.headers["webhook-id"]) for one in sent)


def since(services: Runtime, **ago: int) -> str:
    moment: datetime = services.now() - timedelta(**ago)
    return moment.isoformat()


def test_everything_since_a_time_comes_again_under_the_same_ids(services: Runtime, target: Hook) -> None:
    add(services, target, pii=True)
    add(services, target, "other", accounts=["default"], events=["reply.received"])
    keep(services, make_push(), make_push(), make_push(content="T", second=5), make_push(task_id="2", status="0"))
    first = target.await_taken(6)
    await_settled(services)
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 5}
    again = target.await_taken(11)[6:]
    await_settled(services)
    of_other = [one for one in first if type_of(one) == "reply.received"][1:]
    assert ids_of(again) == ids_of([one for one in first if one not in of_other])
    assert {data_of(one).get("content") for one in again} == {"T", None}
    assert len(target.all) == 11


def test_message_is_sent_again_in_the_order_of_its_receipts_under_the_ids_of_the_changes_it_had(
    services: Runtime, target: Hook
) -> None:
    add(services, target, events=["receipt.received", "message.status_changed"])
    # Failed, then delivered: two changes. Neither the older one nor the second one of the same time is one.
    steps = (("0", 1), ("1", 2), ("9", 0), ("0", 2))
    for status, second in steps:
        keep(services, make_push(status=status, second=second))
    first = target.await_taken(6)
    await_settled(services)
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 6}
    again = target.await_taken(12)[6:]
    assert [one.headers["webhook-id"] for one in again] == [one.headers["webhook-id"] for one in first]
    assert [type_of(one) for one in again].count("message.status_changed") == 2
    await_settled(services)


def test_pushes_come_again_as_they_came(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    batch = [make_push(), make_push(), make_push(body=b"not a form")]
    keep(services, *batch)
    target.await_taken(3)
    await_settled(services)
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 3}
    again = target.await_taken(6)[3:]
    assert {one.headers["X-Push-Id"] for one in again} == {str(push.id) for push in batch}


def test_only_the_span_and_what_is_not_queued_already_comes_again(services: Runtime, target: Hook) -> None:
    add(services, target, events=["receipt.received"])
    old = services.now() - timedelta(hours=3)
    keep(services, replace(make_push(), received_at=old), make_push(task_id="2"))
    target.await_taken(2)
    await_settled(services)
    services.webhooks.pause("test", services.webhooks.find("shop"))
    keep(services, make_push(task_id="3"))
    await_true(lambda: count(services, deliveries_table) == 1)
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 1}
    ended = since(services, hours=1)
    assert replay(services, "shop", since=since(services, hours=4), until=ended, all=True).json == {"replayed": 1}
    services.webhooks.resume("test", services.webhooks.find("shop"))
    assert sorted(data_of(one)["task_id"] for one in target.await_taken(5)[2:]) == ["2", "3", "3313746"]


def test_timers_run_out_again_for_what_is_not_delivered(services: Runtime, target: Hook) -> None:
    add(services, target, events=["message.not_delivered"], not_delivered_after_seconds=600)
    sent_at = services.now() - timedelta(minutes=20)
    services.recorder.record([make_send(task_id=str(number), sent_at=sent_at) for number in range(2)])
    first = target.await_taken(2)
    await_settled(services)  # what is queued already does not come again
    await_true(lambda: count(services, timers) == 0)
    keep(services, make_push(task_id="0"))
    replay(services, "shop", since=since(services, hours=1), all=True)
    (again,) = target.await_taken(3)[2:]
    assert data_of(again)["task_id"] == "1"
    assert ids_of([again])[0] in ids_of(first)
    await_true(lambda: count(services, timers) == 0)
    assert len(target.all) == 3


def test_what_failed_since_a_time_and_what_was_accepted_is_sent_again(services: Runtime, target: Hook) -> None:
    add(services, target, events=["receipt.received"])
    target.behave = lambda _sent: (404, {})
    keep(services, *(make_push(task_id=str(number)) for number in range(3)))
    target.await_tried(3)
    await_true(lambda: count(services, deliveries_table, deliveries_table.c.attempts == 1) == 3)
    now = services.now()
    dead = {"dead_at": now, "failing_since": now - deliveries.LIFE, "attempts": 9}
    last = sa.select(sa.func.max(deliveries_table.c.id)).scalar_subquery()
    change(services, sa.update(deliveries_table).where(deliveries_table.c.id == last).values(dead))
    target.behave = lambda _sent: (200, {})
    assert replay(services, "shop", since=since(services, hours=1)).json == {"replayed": 3}
    accepted = target.await_taken(3)
    await_settled(services)
    headers = {"Authorization": make_key(services, Scope.WEBHOOKS)}
    listed = create_app(services).test_client().get("/api/v1/webhooks/shop/deliveries", headers=headers).json["items"]
    assert replay(services, "shop", ids=[listed[0]["id"]]).json == {"replayed": 1}
    assert target.await_taken(4)[3].headers["webhook-id"] == listed[0]["webhook_id"]
    assert listed[0]["webhook_id"] in {one.headers["webhook-id"] for one in accepted}


def test_what_failed_comes_again_only_if_it_was_queued_before_the_end(services: Runtime, target: Hook) -> None:
    add(services, target, events=["receipt.received"])
    target.behave = lambda _sent: (404, {})
    keep(services, make_push(), make_push(task_id="2"))
    target.await_tried(2)
    await_true(lambda: count(services, deliveries_table, deliveries_table.c.attempts == 1) == 2)
    first = sa.select(sa.func.min(deliveries_table.c.id)).scalar_subquery()
    earlier = services.now() - timedelta(hours=2)
    change(services, sa.update(deliveries_table).where(deliveries_table.c.id == first).values(created_at=earlier))
    span = {"since": since(services, hours=3), "until": since(services, hours=1)}
    services.webhooks.pause("test", services.webhooks.find("shop"))
    assert replay(services, "shop", **span).json == {"replayed": 1}
    assert replay(services, "shop", since=span["since"]).json == {"replayed": 1}


def test_push_whose_id_is_a_little_older_than_its_time_comes_again(services: Runtime, target: Hook) -> None:
    add(services, target, form="raw")
    began = services.now()
    early = first_id_of(began - timedelta(milliseconds=2))
    keep(services, replace(make_push(), id=early, received_at=began))
    target.await_taken(1)
    await_settled(services)
    assert replay(services, "shop", since=began.isoformat(), all=True).json == {"replayed": 1}
    assert target.await_taken(2)[1].headers["X-Push-Id"] == str(early)


# --- One at a time, and beside pushes ---------------------------------------------------------------------


@pytest.fixture
def steps(services: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What is done after each step of a recovery, whose transactions are of one row; the rest does nothing."""
    meanwhile: list[Callable[[], object]] = []

    def give_way(seconds: float) -> None:
        assert seconds >= 0
        if meanwhile:
            meanwhile.pop(0)()

    monkeypatch.setattr(services.webhooks, "_give_way", give_way)
    monkeypatch.setattr(recovery, "_ROWS_AT_ONCE", 1)
    return meanwhile


def paused_with_receipts(services: Runtime, target: Hook, **asked: Any) -> Endpoint:
    """An endpoint to which three receipts were sent, and which is paused."""
    add(services, target, events=["receipt.received", "message.status_changed"], **asked)
    keep(services, *(make_push(task_id=str(number)) for number in range(3)))
    target.await_taken(6)
    await_settled(services)
    services.webhooks.pause("test", services.webhooks.find("shop"))
    return services.webhooks.find("shop")


def test_events_are_made_in_small_transactions_that_give_way(
    services: Runtime, target: Hook, steps: list[Callable[[], object]]
) -> None:
    paused_with_receipts(services, target)
    queued: list[int] = []
    steps += [lambda: queued.append(count(services, deliveries_table))] * 3
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 6}
    assert queued == [2, 4, 6]


def test_second_call_is_refused_while_one_is_under_way_and_afterwards_queues_nothing_twice(
    services: Runtime, target: Hook, steps: list[Callable[[], object]]
) -> None:
    paused_with_receipts(services, target)
    early = since(services, hours=1)
    answers: list[Any] = []
    steps.append(lambda: answers.append(replay(services, "shop", since=early, all=True)))
    assert replay(services, "shop", since=early, all=True).json == {"replayed": 6}
    (second,) = answers
    assert (second.status_code, second.json["code"]) == (409, "conflict")
    assert "already" in second.json["detail"]
    assert replay(services, "shop", since=early, all=True).json == {"replayed": 0}
    assert count(services, deliveries_table) == 6


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has no such locks
def test_another_process_is_kept_off_by_the_database(services: Runtime, target: Hook) -> None:
    found = paused_with_receipts(services, target)
    early = since(services, hours=1)
    with services.database.maintaining() as connection:
        assert recovery.take_turn(connection, found)
        assert replay(services, "shop", since=early, all=True).status_code == 409
    assert replay(services, "shop", since=early, all=True).json == {"replayed": 6}


def test_full_queue_is_made_no_longer(services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    paused_with_receipts(services, target)
    early = since(services, hours=1)
    assert replay(services, "shop", since=early, all=True).json == {"replayed": 6}
    monkeypatch.setattr(endpoints, "PENDING_MAX", 6)
    refused = replay(services, "shop", since=early, all=True)
    assert (refused.status_code, count(services, deliveries_table)) == (409, 6)
    assert "6 deliveries" in refused.json["detail"]


def test_endpoint_that_is_narrowed_or_removed_meanwhile_gets_no_more(
    services: Runtime, target: Hook, steps: list[Callable[[], object]]
) -> None:
    found = paused_with_receipts(services, target)
    early = since(services, hours=1)
    steps.append(lambda: services.webhooks.update("test", found, {"events": ["receipt.received"]}))
    assert replay(services, "shop", since=early, all=True).json == {"replayed": 4}
    change(services, sa.delete(deliveries_table))
    steps.append(lambda: services.webhooks.remove("test", found))
    assert replay(services, "shop", since=early, all=True).status_code == 404
    assert count(services, deliveries_table) == 0
    entries = services.ask(lambda connection: log.list_audit(connection, 3))
    assert [(entry["action"], entry["detail"].get("deliveries")) for entry in entries] == [
        ("webhook.replay", 1),
        ("webhook.remove", None),
        ("webhook.replay_begin", None),
    ]


def test_timers_are_counted_set_in_small_transactions_and_not_twice(
    services: Runtime, target: Hook, steps: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, target, events=["message.not_delivered"], not_delivered_after_seconds=600)
    sent_at = services.now() - timedelta(minutes=20)
    services.recorder.record([make_send(task_id=str(number), sent_at=sent_at) for number in range(3)])
    target.await_taken(3)
    await_settled(services)
    services.webhooks.pause("test", services.webhooks.find("shop"))
    early, done = since(services, hours=1), []
    steps += [lambda: done.append(1)] * 4
    for _ in range(2):
        assert replay(services, "shop", since=early, all=True).json == {"replayed": 0}
        await_true(lambda: count(services, timers) == 0 and count(services, deliveries_table) == 3)
    assert len(done) == 4
    monkeypatch.setattr(recovery, "ROWS_MAX", 2)
    assert replay(services, "shop", since=early, all=True).status_code == 422


def test_row_that_cannot_be_read_is_left_out_and_noted(
    services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_with_receipts(services, target)
    first = services.ask(lambda connection: connection.scalar(sa.select(sa.func.min(receipts.c.id))))

    def make_again(connection: Any, found: Any, changes: Any, accounts: Any) -> Any:
        if any(change.receipt_id == first for change in changes):
            raise ValueError("damaged")
        return fan_out.make_again(connection, found, changes, accounts)

    monkeypatch.setattr(recovery, "make_again", make_again)
    monkeypatch.setattr(set_aside, "_noted", set_aside._Noted())  # it notes a row once in a process
    assert replay(services, "shop", since=since(services, hours=1), all=True).json == {"replayed": 4}
    set_aside.save_noted(services.database, services.now())

    def find_noted() -> list[tuple[Any, ...]]:
        column = rows_set_aside.c
        query = sa.select(column.table_name, column.row_id, column.reason)
        return [tuple(row) for row in services.ask(lambda connection: connection.execute(query).all())]

    await_true(lambda: find_noted() == [("receipts", str(first), "no_delivery")])  # the housekeeping saves them too


def test_final_count_is_in_the_audit(services: Runtime, target: Hook) -> None:
    paused_with_receipts(services, target)
    early = since(services, hours=1)
    replay(services, "shop", since=early, all=True)
    replay(services, "shop", since=early)
    failed, everything, begun = services.ask(lambda connection: log.list_audit(connection, 3))
    assert (everything["action"], everything["detail"]["deliveries"]) == ("webhook.replay", 6)
    assert (begun["action"], begun["detail"]["since"]) == ("webhook.replay_begin", everything["detail"]["since"])
    assert (failed["action"], failed["detail"]["deliveries"]) == ("webhook.replay", 0)


def test_span_of_no_time_or_of_too_much_is_refused(
    services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, target)
    keep(services, make_push(), make_push(task_id="2"))
    target.await_taken(4)
    await_settled(services)
    monkeypatch.setattr(recovery, "ROWS_MAX", 1)
    early = since(services, hours=1)
    for body, wrong in (
        ({"since": since(services, hours=-1)}, "since"),
        ({"since": early, "until": early, "all": True}, "until"),
        ({"since": early, "until": early}, "until"),
        ({"since": early, "all": True}, "since"),
        ({"since": early, "ids": ["1"]}, "ids"),
        ({"all": True}, "all"),
        ({"until": early}, "until"),
    ):
        refused = replay(services, "shop", **body)
        assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, f"#/{wrong}"), body
    assert len(target.all) == 4
