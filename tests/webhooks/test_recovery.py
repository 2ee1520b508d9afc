"""What an endpoint has missed is sent again: what failed, and all of a time for a receiver that lost it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import timers
from receiver.webhooks import deliveries, recovery
from tests.conftest import make_key
from tests.harness.factories import make_push, make_send
from tests.harness.hooks import Hook, Sent, hook
from tests.harness.waiting import await_true
from tests.webhooks.test_webhooks import ALLOW, add, await_settled, change, count, data_of, keep, type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from receiver.runtime import Runtime


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


def test_message_is_sent_again_in_the_order_of_its_receipts(services: Runtime, target: Hook) -> None:
    add(services, target, events=["receipt.received", "message.status_changed"])
    keep(services, make_push(status="0", second=1), make_push(status="1", second=2), make_push(status="9", second=0))
    target.await_taken(5)
    await_settled(services)
    replay(services, "shop", since=since(services, hours=1), all=True)
    again = target.await_taken(9)[5:]
    assert [(type_of(one), data_of(one)["status"]) for one in again] == [
        ("receipt.received", "failed"),
        ("receipt.received", "delivered"),
        ("message.status_changed", "delivered"),
        ("receipt.received", "unknown"),
    ]


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


def test_span_of_no_time_or_of_too_much_is_refused(
    services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, target)
    keep(services, make_push(), make_push(task_id="2"))
    target.await_taken(4)
    await_settled(services)
    monkeypatch.setattr(recovery, "ROWS_MAX", 1)
    early = since(services, hours=1)
    for body in (
        {"since": since(services, hours=-1)},
        {"since": early, "until": early, "all": True},
        {"since": early, "all": True},
        {"since": early, "ids": ["1"]},
        {"all": True},
        {"until": early},
    ):
        assert replay(services, "shop", **body).status_code == 422, body
    assert len(target.all) == 4
