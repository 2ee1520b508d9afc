"""Targets over the API and on the command line: made, seen, held, tried and ended by whoever is let."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from standardwebhooks.webhooks import Webhook

from receiver.app import create_app
from receiver.audit import log
from receiver.auth.api_keys import Scope
from receiver.cli import cli
from receiver.db.tables import deliveries as deliveries_table
from receiver.db.tables import delivery_history
from receiver.webhooks import deliveries, endpoints
from tests.conftest import SECRET, make_key
from tests.harness.factories import make_push
from tests.harness.hooks import Hook, hook
from tests.harness.waiting import await_true
from tests.webhooks.test_webhooks import ALLOW, change, count, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

TWO_ACCOUNTS = (("default", SECRET), ("second", SECRET[::-1]))


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """An embedded database: what is asked of it is tested on both elsewhere."""
    return sqlite_database_url


@pytest.fixture
def services(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime with two accounts that may reach this machine."""
    return make_runtime(webhooks_allow=ALLOW, push_tokens=TWO_ACCOUNTS)


@pytest.fixture
def client(services: Runtime) -> FlaskClient:
    """A client of it."""
    return create_app(services).test_client()


@pytest.fixture
def target() -> Iterator[Hook]:
    """A target on this machine."""
    with hook() as made:
        yield made


def ask(client: FlaskClient, services: Runtime, *scopes: Scope, accounts: tuple[str, ...] | None = None) -> Any:
    headers = {"Authorization": make_key(services, *(scopes or (Scope.WEBHOOKS, Scope.PII)), accounts=accounts)}

    def request(method: str, path: str, body: Any = None) -> TestResponse:
        more: dict[str, Any] = {} if body is None else {"json": body}
        return client.open(f"/api/v1/webhooks{path}", method=method, headers=headers, **more)

    return request


def wanted(target: Hook, name: str = "shop", **more: Any) -> dict[str, Any]:
    return {"name": name, "url": target.url("/hook?key=K1"), "format": "webhooks"} | more


def test_target_is_made_seen_and_removed_and_its_secret_is_shown_once(
    client: FlaskClient, services: Runtime, target: Hook
) -> None:
    request = ask(client, services)
    made = request("POST", "", wanted(target, not_delivered_after_seconds=30))
    assert made.status_code == 201
    secret = made.json["secret"]
    keep(services, make_push())
    sent = target.await_taken(1)[0]
    assert Webhook(secret).verify(sent.body, dict(sent.headers))
    (listed,) = request("GET", "").json["items"]
    assert listed["name"] == "shop"
    assert listed["url"].endswith("/hook?…")
    assert "message.not_delivered" in listed["events"]
    again = request("GET", "/shop")
    assert all(secret not in answer.text and "K1" not in answer.text for answer in (again, request("GET", "")))
    assert request("POST", "", wanted(target)).status_code == 409
    assert request("DELETE", "/shop").status_code == 204
    assert request("GET", "/shop").status_code == 404
    assert request("GET", "").json == {"items": []}


def test_every_wrong_field_is_named(client: FlaskClient, services: Runtime) -> None:
    request = ask(client, services)
    body = {"name": "a b", "url": "http://10.0.0.1/", "format": "raw", "events": ["reply.received"], "accounts": ["x"]}
    refused = request("POST", "", body)
    assert refused.status_code == 422
    assert {error["pointer"] for error in refused.json["errors"]} == {"#/name", "#/url", "#/events", "#/accounts"}
    assert request("POST", "", {"name": "a", "url": "http://x", "format": "xml", "color": 1}).status_code == 422


@pytest.mark.parametrize("more", [{"pii": True}, {"format": "raw"}])
def test_key_that_sees_no_numbers_makes_no_target_that_does(
    client: FlaskClient, services: Runtime, target: Hook, more: dict[str, Any]
) -> None:
    request = ask(client, services, Scope.WEBHOOKS)
    refused = request("POST", "", wanted(target, **more))
    assert (refused.status_code, refused.json["code"]) == (403, "missing_scope")
    assert services.ask(endpoints.list_endpoints) == []
    assert request("POST", "", wanted(target)).status_code == 201


def test_key_of_an_account_sees_and_makes_targets_of_that_alone(
    client: FlaskClient, services: Runtime, target: Hook
) -> None:
    everything = ask(client, services)
    bound = ask(client, services, accounts=("second",))
    assert everything("POST", "", wanted(target, "all")).status_code == 201
    assert everything("POST", "", wanted(target, "first", accounts=["default"])).status_code == 201
    refused = bound("POST", "", wanted(target, "other", accounts=["default"]))
    assert (refused.status_code, refused.json["code"]) == (403, "account_closed")
    assert bound("POST", "", wanted(target, "own")).json["accounts"] == ["second"]
    assert [item["name"] for item in bound("GET", "").json["items"]] == ["own"]
    assert len(everything("GET", "").json["items"]) == 3
    for name in ("all", "first"):
        for method, path in (
            ("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/rotate"),
            ("POST", "/test"), ("GET", "/dead"), ("POST", "/replay"),
        ):  # fmt: skip
            body: dict[str, Any] | None = {} if path == "/replay" else None
            assert bound(method, f"/{name}{path}", body).status_code == 404, (name, method, path)
    assert target.all == []


def test_dead_letters_are_listed_by_pages_and_replayed(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    request("POST", "", wanted(target, format="raw"))
    request("POST", "/shop/pause")
    keep(services, *(make_push(task_id=f"{number}") for number in range(3)))
    await_true(lambda: count(services, deliveries_table) == 3)
    now = services.now()
    change(services, sa.update(deliveries_table).values(dead_at=now, failing_since=now - deliveries.LIFE, attempts=9))
    page = request("GET", "/shop/dead?limit=2").json
    rest = request("GET", f"/shop/dead?limit=2&cursor={page['next_cursor']}").json
    assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert request("GET", "/shop").json["dead"] == 3
    request("POST", "/shop/resume")
    assert request("POST", "/shop/replay", {"ids": [rest["items"][0]["id"]]}).json == {"replayed": 1}
    assert target.await_taken(1)[0].headers["X-Push-Id"] == rest["items"][0]["push_id"]
    assert request("POST", "/shop/replay", {}).json == {"replayed": 2}
    target.await_taken(3)


def test_target_that_refuses_everything_is_failing_wherever_it_is_shown(
    client: FlaskClient, services: Runtime, target: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECEIVER_DATABASE_URL", services.settings.database_url)
    runner, request = CliRunner(), ask(client, services)

    def states() -> tuple[str, str, bool]:
        (listed,) = json.loads(runner.invoke(cli, ["webhooks", "list", "--json"]).stdout)
        checks = {row["check"]: row["ok"] for row in json.loads(runner.invoke(cli, ["doctor", "--json"]).stdout)}
        return request("GET", "/shop").json["state"], listed["state"], checks["webhooks"]

    assert request("POST", "", wanted(target)).json["state"] == "good"
    assert states() == ("good", "good", True)
    target.behave = lambda _sent: (404, {})
    keep(services, make_push())
    await_true(lambda: services.ask(partial(endpoints.get_endpoint, name="shop")).failed_at is not None)
    assert states() == ("failing", "failing", False)
    shown = request("GET", "/shop").json
    assert (shown["failing_since"], shown["last_status"]) == (shown["failed_at"], 404)
    assert "failing since" in runner.invoke(cli, ["webhooks", "list"]).stdout
    target.behave = lambda _sent: (200, {})
    request("POST", "/shop/resume")
    await_true(lambda: states() == ("good", "good", True))
    assert request("GET", "/shop").json["failing_since"] is None


def test_test_and_rotation_answer_what_came_of_them(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    first = request("POST", "", wanted(target)).json["secret"]
    tried = request("POST", "/shop/test").json
    assert (tried["taken"], tried["status"], tried["error"]) == (True, 200, None)
    target.behave = lambda _sent: (500, {})
    assert request("POST", "/shop/test").json["taken"] is False
    assert request("POST", "/shop/rotate").json["secret"] != first
    request("POST", "", wanted(target, "old", format="raw"))
    assert request("POST", "/old/rotate").status_code == 404


def test_every_change_is_audited_without_url_or_secret(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    secret = request("POST", "", wanted(target)).json["secret"]
    for step in ("pause", "resume", "test", "replay"):
        request("POST", f"/shop/{step}", {} if step == "replay" else None)
    new = request("POST", "/shop/rotate").json["secret"]
    request("DELETE", "/shop")
    entries = services.ask(lambda connection: log.list_audit(connection, 20))[::-1]
    told = [entry["action"] for entry in entries if entry["action"].startswith("webhook.")]
    steps = ("create", "pause", "resume", "test", "replay", "rotate", "remove")
    assert told == [f"webhook.{step}" for step in steps]
    (replayed,) = (entry["detail"] for entry in entries if entry["action"] == "webhook.replay")
    assert replayed == {"name": "shop", "deliveries": 0}
    assert all(hidden not in str(entries) for hidden in (secret, new, "K1", "/hook"))


def test_audit_says_what_an_endpoint_gets_more_and_less(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    more: dict[str, Any] = {"accounts": ["second"], "headers": {"X-Tenant": "7"}, "events": ["reply.received"]}
    request("POST", "", wanted(target, not_delivered_after_seconds=30, **more))
    request("PATCH", "/shop", {"accounts": None, "not_delivered_after_seconds": 60, "headers": {}})
    request("PATCH", "/shop", {"accounts": ["default"], "not_delivered_after_seconds": None})
    entries = services.ask(lambda connection: log.list_audit(connection, 20))[::-1]
    made, widened, narrowed = (entry["detail"] for entry in entries if entry["action"].startswith("webhook."))
    assert (made["accounts"], made["not_delivered_after_seconds"], made["headers"]) == (["second"], 30, ["X-Tenant"])
    assert widened == {
        "name": "shop", "accounts": "all", "not_delivered_after_seconds": 60, "headers": [],
        "url_changed": False, "headers_changed": True,
    }  # fmt: skip
    assert narrowed == {
        "name": "shop", "accounts": ["default"], "not_delivered_after_seconds": 0, "events": ["reply.received"],
        "url_changed": False, "headers_changed": False,
    }  # fmt: skip


def test_metrics_tell_what_waits_and_what_became_of_attempts(
    make_runtime: Callable[..., Runtime], target: Hook
) -> None:
    services = make_runtime(webhooks_allow=ALLOW, metrics_allow=ALLOW[:1])
    client = create_app(services).test_client()
    name = "metered"
    ask(client, services)("POST", "", wanted(target, name, format="raw"))
    keep(services, make_push())
    target.await_taken(1)
    await_true(lambda: count(services, deliveries_table) == 0)
    ask(client, services)("POST", f"/{name}/pause")
    keep(services, make_push())
    await_true(lambda: count(services, deliveries_table) == 1)
    page = client.get("/metrics").text
    for line in (
        f'receiver_webhook_pending{{webhook="{name}"}} 1.0', f'receiver_webhook_dead_letters{{webhook="{name}"}} 0.0',
        f'receiver_webhook_attempts_total{{outcome="delivered",webhook="{name}"}} 1.0', "receiver_webhook_queue 0.0",
    ):  # fmt: skip
        assert line in page


def test_commands_do_what_the_api_does(
    services: Runtime, target: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECEIVER_DATABASE_URL", services.settings.database_url)
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS", f"default:{SECRET}")
    monkeypatch.setenv("RECEIVER_WEBHOOKS_ALLOW", "localhost")
    runner = CliRunner()

    def run(*arguments: str, code: int = 0) -> str:
        done = runner.invoke(cli, ["webhooks", *arguments])
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout if code == 0 else f"{done.output}{done.exception}"

    secret = run("add", "shop", target.url(), "--format", "webhooks", "--event", "receipt.received").splitlines()[-1]
    assert "every push" in run("add", "old", target.url("/old"), "--format", "raw")
    assert "RECEIVER_WEBHOOKS_ALLOW" in run("add", "no", "http://10.0.0.1/", "--format", "raw", code=1)
    assert "status 200" in run("test", "shop")
    assert Webhook(secret).verify(target.all[0].body, dict(target.all[0].headers))
    target.behave = lambda _sent: (404, {})
    assert "status 404" in run("test", "shop", code=1)
    run("update", "shop", code=2)
    assert "RECEIVER_WEBHOOKS_ALLOW" in run("update", "shop", "--url", "http://10.0.0.1/", code=1)
    run("update", "shop", "--url", target.url("/new"), "--pii", "--account", "default", "--all-events")
    changed = services.webhooks.find("shop")
    assert (changed.url, changed.pii, changed.accounts) == (target.url("/new"), True, ("default",))
    assert len(changed.events) == 4
    run("update", "shop", "--not-delivered-after", "9", "--all-accounts")
    run("update", "shop", "--no-pii")
    (tmp_path / "headers").write_text("Authorization: Bearer t0ken\n\nX-Tenant: 7\n")
    run("update", "shop", "--header", f"@{tmp_path / 'headers'}", "--header", "X-More: a:b")
    given = {"Authorization": "Bearer t0ken", "X-Tenant": "7", "X-More": "a:b"}
    assert services.webhooks.find("shop").headers == given
    assert "t0ken" not in run("list", "--json") + run("list")
    run("update", "shop", "--no-headers")
    assert services.webhooks.find("shop").headers == {}
    for wrong in ("t0ken", "@/no/such/file"):
        assert "t0ken" not in run("update", "shop", "--header", wrong, code=2)
    changed = services.webhooks.find("shop")
    assert (changed.not_delivered_after_seconds, changed.pii, changed.accounts) == (9, False, None)
    run("pause", "shop")
    shown = {item["name"]: item for item in json.loads(run("list", "--json"))}
    assert (shown["shop"]["paused_because"], shown["old"]["paused_because"]) == ("by cli", None)
    assert secret not in run("list", "--json")
    run("resume", "shop")
    new = run("rotate", "shop").splitlines()[-1]
    found = services.ask(partial(endpoints.get_endpoint, name="shop"))
    assert found.signing_secrets == (new, secret)
    assert run("dead-letters", "shop", "--json") == "[]\n"
    assert "0 will" in run("replay", "shop", "--all")
    for line in ("", "1 --since 2026-11-23", "--since yesterday", "--all --until 2026-11-23"):
        run("replay", "shop", *line.split(), code=2)
    run("replay", "shop", "--since", "2026-11-23", "--until", "2026-11-22", code=1)
    assert "0 will" in run("replay", "shop", "--since", "2026-11-22", "--until", "2026-11-23")
    assert "0 will" in run("replay", "shop", "--since", "2026-11-23 09:00", "--until", "2026-11-23T11:00", "--all")
    assert "before now" in run("replay", "shop", "--since", "2999-01-01", code=1)
    run("remove", "old")
    assert [target.name for target in services.ask(endpoints.list_endpoints)] == ["shop"]


def test_header_that_a_command_gives_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    (tmp_path / "headers").write_text("X-Tenant: t0ken\n")
    add = ["webhooks", "add", "shop", "https://shop.example/", "--format", "raw", "--header", "X-Tenant: 8"]
    done = CliRunner().invoke(cli, [*add, "--header", f"@{tmp_path / 'headers'}"])
    assert done.exit_code == 1
    assert "each name once" in f"{done.output}{done.exception}"
    assert "t0ken" not in f"{done.output}{done.exception}"


def test_new_url_keeps_secret_and_queue(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    secret = request("POST", "", wanted(target)).json["secret"]
    target.behave = lambda sent: (503, {"Retry-After": "3600"}) if sent.path.startswith("/hook?") else (200, {})
    keep(services, make_push())
    await_true(lambda: request("GET", "/shop").json["retry_at"] is not None)
    changed = request("PATCH", "/shop", {"url": target.url("/new?key=K2")})
    assert (changed.status_code, changed.json["url"]) == (200, target.url("/new?…"))
    sent = target.await_taken(2)
    assert {one.path for one in sent} == {"/new?key=K2"}
    assert {Webhook(secret).verify(one.body, dict(one.headers))["type"] for one in sent} == {
        "receipt.received",
        "message.status_changed",
    }
    (entry,) = [
        found["detail"]
        for found in services.ask(lambda connection: log.list_audit(connection, 20))
        if found["action"] == "webhook.update"
    ]
    assert entry == {"name": "shop", "url_changed": True, "headers_changed": False}


def test_change_sets_what_is_given_and_leaves_the_rest(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    request("POST", "", wanted(target, events=["reply.received"], not_delivered_after_seconds=30))

    def change_to(**body: Any) -> tuple[Any, ...]:
        found = request("PATCH", "/shop", body).json
        return found["events"], found["accounts"], found["pii"], found["not_delivered_after_seconds"]

    both = ["reply.received", "message.not_delivered"]
    assert change_to() == (both, None, False, 30)
    assert change_to(pii=True, accounts=["second"]) == (both, ["second"], True, 30)
    assert change_to(not_delivered_after_seconds=None, accounts=None) == (["reply.received"], None, True, None)
    assert change_to(not_delivered_after_seconds=5) == (both, None, True, 5)
    assert change_to(events=["receipt.received"], pii=False) == (["receipt.received"], None, False, None)
    everything = ["receipt.received", "reply.received", "message.status_changed", "message.no_receipt"]
    assert change_to(events=[]) == (everything, None, False, None)


def test_last_event_is_not_taken_away(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    alone = ["message.not_delivered"]
    request("POST", "", wanted(target, events=alone, not_delivered_after_seconds=30))
    refused = request("PATCH", "/shop", {"not_delivered_after_seconds": None})
    assert (refused.status_code, [error["pointer"] for error in refused.json["errors"]]) == (422, ["#/events"])
    assert request("GET", "/shop").json["events"] == alone
    changed = request("PATCH", "/shop", {"not_delivered_after_seconds": None, "events": ["reply.received"]})
    assert (changed.status_code, changed.json["events"]) == (200, ["reply.received"])
    request("POST", "", wanted(target, "raw", format="raw"))
    assert request("PATCH", "/raw", {"accounts": ["second"]}).status_code == 200


def test_change_is_checked_like_a_new_one(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    request("POST", "", wanted(target))
    body = {"url": "http://10.0.0.1/", "accounts": ["x"], "events": ["message.not_delivered"]}
    refused = request("PATCH", "/shop", body)
    assert refused.status_code == 422
    pointers = {error["pointer"] for error in refused.json["errors"]}
    assert pointers == {"#/url", "#/accounts", "#/not_delivered_after_seconds"}
    assert request("PATCH", "/shop", {"format": "raw"}).status_code == 422
    assert request("PATCH", "/nobody", {}).status_code == 404
    assert services.webhooks.find("shop").url == target.url("/hook?key=K1")


def test_key_changes_no_target_to_get_more_than_it_may_see(
    client: FlaskClient, services: Runtime, target: Hook
) -> None:
    everything = ask(client, services)
    everything("POST", "", wanted(target, "full", pii=True, accounts=["second"]))
    everything("POST", "", wanted(target, "raw", format="raw", accounts=["second"]))
    everything("POST", "", wanted(target, accounts=["second"]))
    blind = ask(client, services, Scope.WEBHOOKS)
    bound = ask(client, services, accounts=("second",))
    for request, name, body in (
        (blind, "full", {"url": target.url("/mine")}),
        (blind, "full", {"url": target.url("/mine"), "pii": False}),
        (blind, "raw", {"url": target.url("/mine")}),
        (blind, "raw", {"url": target.url("/mine"), "pii": False}),
        (blind, "shop", {"pii": True}),
        (bound, "shop", {"accounts": ["default"]}),
        (bound, "shop", {"accounts": None}),
    ):
        assert request("PATCH", f"/{name}", body).status_code == 403, body
    assert {services.webhooks.find(name).url for name in ("full", "raw")} == {target.url("/hook?key=K1")}
    assert everything("PATCH", "/full", {"pii": False}).status_code == 200
    assert blind("PATCH", "/full", {"url": target.url("/other")}).status_code == 200
    assert bound("PATCH", "/shop", {"url": target.url("/other")}).status_code == 200


def test_deliveries_are_listed_by_state_newest_first(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    request("POST", "", wanted(target, events=["receipt.received"]))

    def list_(query: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = request("GET", f"/shop/deliveries{query}").json["items"]
        return items

    keep(services, *(make_push(task_id=f"{number}") for number in range(3)))
    sent = target.await_taken(3)
    await_true(lambda: len(list_("?state=delivered")) == 3)
    target.behave = lambda _sent: (404, {})
    keep(services, make_push(task_id="refused"))
    await_true(lambda: len(list_("?state=failing")) == 1)
    request("POST", "/shop/pause")
    keep(services, make_push(task_id="held"))
    await_true(lambda: len(list_("?state=pending")) == 1)
    everything = list_()
    assert [item["state"] for item in everything] == ["pending", "failing", *["delivered"] * 3]
    assert everything == sorted(everything, key=lambda item: int(item["id"]), reverse=True)
    assert {item["webhook_id"] for item in everything[2:]} == {one.headers["webhook-id"] for one in sent}
    assert all(item["last_status"] == 200 and item["receipt_id"] for item in everything[2:])
    next_second = f"{services.now() + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"
    assert all(item["created_at"] < item["delivered_at"] < next_second for item in everything[2:])
    failing = everything[1]
    assert (failing["attempts"], failing["last_status"]) == (1, 404)
    assert failing["next_at"] > failing["created_at"]
    first = request("GET", "/shop/deliveries?limit=2").json
    second = request("GET", f"/shop/deliveries?limit=3&cursor={first['next_cursor']}").json
    assert first["items"] + second["items"] == everything
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert request("GET", f"/shop/deliveries?state=dead&cursor={first['next_cursor']}").status_code == 422
    assert request("GET", "/shop/deliveries?state=lost").status_code == 422


def test_accepted_deliveries_are_kept_up_to_a_bound(
    client: FlaskClient, services: Runtime, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "HISTORY_MAX", 5)
    monkeypatch.setattr(deliveries, "HISTORY_MORE", 2)
    request = ask(client, services)
    request("POST", "", wanted(target, events=["receipt.received"]))
    for number in range(12):
        keep(services, make_push(task_id=f"{number}"))
    sent = target.await_taken(12)
    await_true(lambda: request("GET", "/shop").json["delivered"] == 12)
    kept = request("GET", "/shop/deliveries").json["items"]
    assert 5 <= len(kept) <= 7
    newest = {one.headers["webhook-id"] for one in sent[-5:]}
    assert newest <= {item["webhook_id"] for item in kept}
    request("DELETE", "/shop")
    assert count(services, delivery_history) == 0


def test_headers_of_an_endpoint_go_with_each_request_and_are_never_shown(
    client: FlaskClient, services: Runtime, target: Hook
) -> None:
    request = ask(client, services)
    first, second = "Bearer t0ken-one", "Bearer t0ken-two"
    made = request("POST", "", wanted(target, headers={"Authorization": first, "X-Tenant": "7"}))
    assert made.json["header_names"] == ["Authorization", "X-Tenant"]
    request("POST", "", wanted(target, "old", format="raw", headers={"Authorization": first}))
    assert request("POST", "/shop/test").json["taken"] is True
    keep(services, make_push())
    sent = target.await_taken(4)
    assert {one.headers["Authorization"] for one in sent} == {first}
    assert Webhook(made.json["secret"]).verify(sent[0].body, dict(sent[0].headers))
    assert [one.headers.get("X-Tenant") for one in sent if "X-Push-Id" not in one.headers] == ["7"] * 3
    changed = request("PATCH", "/shop", {"headers": {"Authorization": second}})
    assert changed.json["header_names"] == ["Authorization"]
    request("POST", "/shop/test")
    assert target.await_taken(5)[4].headers["Authorization"] == second
    assert "X-Tenant" not in target.all[4].headers
    entries = services.ask(lambda connection: log.list_audit(connection, 20))
    shown = (str(entries), made.text, changed.text, request("GET", "").text, repr(services.webhooks.find("shop")))
    assert all("t0ken" not in text for text in shown)
    (entry,) = (found["detail"] for found in entries if found["action"] == "webhook.update")
    assert entry == {"name": "shop", "headers": ["Authorization"], "url_changed": False, "headers_changed": True}


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "a"}, {"content-length": "1"}, {"Transfer-Encoding": "chunked"}, {"webhook-id": "a"},
        {"X-Push-Id": "a"}, {"Connection": "close"}, {"User-Agent": "a"}, {"Proxy-Authorization": "a"},
        {"a b": "c"}, {"a:": "c"}, {"": "c"}, {"Größe": "1"},
        {"X-A": "b\r\nX-B: c"}, {"X-A": " b"}, {"X-A": ""}, {"X-A": "密"}, {"X-A": "b", "x-a": "c"},
        {f"X-{number}": "a" for number in range(11)},
    ],
)  # fmt: skip
def test_header_that_a_request_may_not_have_is_refused(
    client: FlaskClient, services: Runtime, target: Hook, headers: dict[str, str]
) -> None:
    refused = ask(client, services)("POST", "", wanted(target, headers=headers))
    assert refused.status_code == 422
    assert {error["pointer"].split("/")[1] for error in refused.json["errors"]} == {"headers"}


def test_headers_go_to_another_server_only_if_given_again(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    kept = {"Authorization": "Bearer t0ken"}
    request("POST", "", wanted(target, headers=kept))
    for url in (
        target.url().replace("http:", "https:"), f"http://127.0.0.2:{target.port}/", "http://localhost:1/",
    ):  # fmt: skip
        refused = request("PATCH", "/shop", {"url": url, "pii": True})
        assert refused.status_code == 422, url
        assert [error["pointer"] for error in refused.json["errors"]] == ["#/headers"]
    found = services.webhooks.find("shop")
    assert (found.url, found.pii, found.headers) == (target.url("/hook?key=K1"), False, kept)
    assert request("PATCH", "/shop", {"url": target.url("/new")}).status_code == 200
    with hook() as other:
        assert request("PATCH", "/shop", {"url": other.url(), "headers": {"X-Tenant": "7"}}).status_code == 200
        request("POST", "/shop/test")
        assert other.await_taken(1)[0].headers["X-Tenant"] == "7"
        assert "Authorization" not in other.all[0].headers
        assert request("PATCH", "/shop", {"url": target.url(), "headers": {}}).status_code == 200


def test_old_url_never_gets_the_headers_of_the_new_one(client: FlaskClient, services: Runtime, target: Hook) -> None:
    request = ask(client, services)
    request("POST", "", wanted(target, events=["receipt.received"]))
    for number in range(20):
        keep(services, make_push(task_id=f"{number}"))
        if number == 10:
            target.await_taken(3)
            request("PATCH", "/shop", {"url": target.url("/new"), "headers": {"Authorization": "new"}})
    target.await_taken(20)
    by_path = {one.path: set[str | None]() for one in target.all}
    for one in target.all:
        by_path[one.path].add(one.headers.get("Authorization"))
    assert by_path == {"/hook?key=K1": {None}, "/new": {"new"}}
