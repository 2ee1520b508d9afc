"""The page of forwarding: an administrator makes, tries, holds and ends targets, and sends again what was given up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from standardwebhooks.webhooks import Webhook

from receiver.app import create_app
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import targets
from receiver.webhooks import deliveries, endpoints
from tests.conftest import SECRET
from tests.harness.factories import make_push
from tests.harness.hooks import Hook, hook
from tests.harness.waiting import await_true
from tests.web.console.staff import log_in
from tests.webhooks.test_webhooks import ALLOW, change, count, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """An embedded database: what is asked of it is tested on both elsewhere."""
    return sqlite_database_url


@pytest.fixture
def services(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime that may reach this machine."""
    return make_runtime(webhooks_allow=ALLOW)


@pytest.fixture
def target() -> Iterator[Hook]:
    """A target on this machine."""
    with hook() as made:
        yield made


def test_target_is_made_tried_and_held_in_the_console(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    made = staff.post("/webhooks", {"name": "shop", "url": target.url("/x?key=K1"), "format": "webhooks"})
    (secret,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", made.text)
    staff.post("/webhooks/change", {"name": "shop", "action": "test"})
    assert Webhook(secret).verify(target.all[0].body, dict(target.all[0].headers))["type"] == "receiver.test"
    page = staff.get("/webhooks").text
    assert target.url("/x?…") in page
    assert "HTTP status 200" in page
    assert secret not in page
    assert "K1" not in page
    staff.post("/webhooks/change", {"name": "shop", "action": "pause"})
    assert "paused" in staff.get("/webhooks").text
    rotated = staff.post("/webhooks/change", {"name": "shop", "action": "rotate"}).text
    assert secret not in rotated
    assert services.webhooks.find("shop").signing_secrets[0] in rotated
    staff.post("/webhooks/change", {"name": "shop", "action": "resume"})
    assert services.webhooks.find("shop").paused_at is None
    staff.surely("/webhooks/change", {"name": "shop", "action": "remove"})
    assert services.ask(endpoints.list_endpoints) == []


def test_target_that_refuses_everything_is_shown_as_failing_with_its_answer(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    staff.post("/webhooks", {"name": "old", "url": target.url(), "format": "raw"})
    assert 'data-state="delivered"' in staff.get("/webhooks").text
    target.behave = lambda _sent: (404, {})
    keep(services, make_push())
    await_true(lambda: services.webhooks.find("old").failed_at is not None)
    page = staff.get("/webhooks").text
    assert 'data-state="failed">failing<' in page
    assert "answered with HTTP status 404" in page
    assert 'value="resume"' in page


def test_wrong_target_is_told_beside_its_field(services: Runtime) -> None:
    staff = log_in(create_app(services), services, "admin")
    fields = {"name": "a b", "url": "http://169.254.169.254/", "format": "webhooks", "not_delivered_after_seconds": "x"}
    answer = staff.post("/webhooks", fields)
    assert answer.status_code == 422
    for name in ("name", "url", "not_delivered_after_seconds"):
        assert f'id="{name}-error"' in answer.text
    assert "RECEIVER_WEBHOOKS_ALLOW" in answer.text
    assert services.ask(endpoints.list_endpoints) == []


def test_what_was_given_up_is_listed_and_sent_again(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    staff.post("/webhooks", {"name": "old", "url": target.url(), "format": "raw"})
    staff.post("/webhooks/change", {"name": "old", "action": "pause"})
    push = make_push()
    keep(services, push)
    await_true(lambda: count(services, deliveries_table) == 1)
    now = services.now()
    change(services, sa.update(deliveries_table).values(dead_at=now, failing_since=now - deliveries.LIFE, attempts=9))
    assert str(push.id) in staff.get("/webhooks/old/dead").text
    staff.post("/webhooks/change", {"name": "old", "action": "resume"})
    assert "Dead letters: 1." in staff.post("/webhooks/change", {"name": "old", "action": "replay"}).text
    staff.surely("/webhooks/change", {"name": "old", "action": "replay"})
    assert target.await_taken(1)[0].headers["X-Push-Id"] == str(push.id)


def test_target_is_changed_and_its_deliveries_are_shown_and_sent_again(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    staff.post("/webhooks", {"name": "shop", "url": target.url(), "format": "webhooks", "event": "receipt.received"})
    keep(services, make_push())
    target.await_taken(1)
    await_true(lambda: "receipt.received" in staff.get("/webhooks/shop?state=delivered").text.split("<tbody>")[1][:900])
    fields = {"action": "update", "url": target.url("/new?key=K2"), "event": "receipt.received", "pii": "1"}
    changed = staff.post("/webhooks/shop", fields | {"headers": "Authorization: Bearer t0ken\nX-Tenant: 7"})
    assert changed.status_code in (200, 302, 303)
    found = services.webhooks.find("shop")
    assert (found.url, found.pii, found.headers) == (
        target.url("/new?key=K2"),
        True,
        {"Authorization": "Bearer t0ken", "X-Tenant": "7"},
    )
    page = staff.get("/webhooks/shop").text
    assert "Authorization, X-Tenant" in page
    assert "t0ken" not in page
    assert "K2" not in page
    staff.surely("/webhooks/shop", {"action": "replay", "since": "2026-01-01T00:00", "all": "1"})
    again = target.await_taken(2)[1]
    assert (again.path, again.headers["webhook-id"]) == ("/new?key=K2", target.all[0].headers["webhook-id"])
    staff.post("/webhooks/shop", {"action": "update", "event": "receipt.received", "no_headers": "1"})
    found = services.webhooks.find("shop")
    assert (found.url, found.pii, found.headers) == (target.url("/new?key=K2"), False, {})


def test_last_event_is_not_taken_away(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    fields = {"event": "message.not_delivered", "not_delivered_after_seconds": "30"}
    staff.post("/webhooks", {"name": "shop", "url": target.url(), "format": "webhooks", **fields})
    refused = staff.post("/webhooks/shop", {"action": "update", **fields, "not_delivered_after_seconds": ""})
    assert refused.status_code == 422
    assert 'id="not_delivered_after_seconds-error"' in refused.text
    assert services.webhooks.find("shop").events == ("message.not_delivered",)


@pytest.mark.parametrize("tokens", [(("default", SECRET),), (("default", SECRET), ("second", SECRET[::-1]))])
def test_endpoint_keeps_an_account_that_is_no_longer_configured(
    make_runtime: Callable[..., Runtime], target: Hook, tokens: tuple[tuple[str, str], ...]
) -> None:
    services = make_runtime(webhooks_allow=ALLOW, push_tokens=tokens)
    services.webhooks.add("test", name="shop", url=target.url(), form="webhooks", accounts=["default"])
    change(services, sa.update(targets).values(accounts=["gone"]))
    staff = log_in(create_app(services), services, "admin")
    page = staff.get("/webhooks/shop").text
    chosen = re.findall(r'name="account" value="([^"]+)" checked', page)
    assert chosen == ["gone"]
    staff.post("/webhooks/shop", {"action": "update", "account": chosen, "pii": "1"})
    found = services.webhooks.find("shop")
    assert (found.accounts, found.pii) == (("gone",), True)


def test_wrong_change_is_told_beside_its_field(services: Runtime, target: Hook) -> None:
    staff = log_in(create_app(services), services, "admin")
    staff.post("/webhooks", {"name": "shop", "url": target.url(), "format": "webhooks"})
    wrong = {"action": "update", "url": "http://10.0.0.1/", "headers": "Host: a", "not_delivered_after_seconds": "x"}
    answer = staff.post("/webhooks/shop", wrong)
    assert answer.status_code == 422
    for name in ("url", "headers", "not_delivered_after_seconds"):
        assert f'id="{name}-error"' in answer.text
    twice = staff.post("/webhooks/shop", {"action": "update", "headers": "X-Tenant: 7\nX-Tenant: 8"})
    assert twice.status_code == 422
    assert 'id="headers-error"' in twice.text
    for since in ("", "yesterday", "2999-01-01T00:00"):
        refused = staff.post("/webhooks/shop", {"action": "replay", "since": since})
        assert refused.status_code == 422
        assert 'id="since-error"' in refused.text
    span = {"since": "2026-01-02T00:00", "until": "2026-01-01T00:00"}
    refused = staff.post("/webhooks/shop", {"action": "replay", **span})
    assert "The end must be after the beginning." in refused.text.split('id="until-error"')[1][:80]
    assert services.webhooks.find("shop").url == target.url()
