"""Who is let in: every route has a policy, and each way of lacking a key is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.audit import list_audit
from receiver.auth import changes
from receiver.auth.api_keys import Scope
from receiver.web.auth import CONSOLE, POLICIES, Open, policy_for
from tests.conftest import make_key
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

IMPLICIT_METHODS = {"HEAD", "OPTIONS"}


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """(endpoint, method, path) of every route but the staff pages', which have a table of their own."""
    return [
        (rule.endpoint, method, re.sub("<row_id:[a-z_]+>|<string:push_id>", "1", rule.rule))
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith(f"{CONSOLE}.")  # which has its own table, and its own test
        for method in sorted((rule.methods or set()) - IMPLICIT_METHODS)
    ]


def scoped(app: Flask) -> list[tuple[Scope, str, str]]:
    found = []
    for endpoint, method, path in routes(app):
        policy = policy_for(endpoint, method)
        if isinstance(policy, Scope):
            found.append((policy, method, path))
    return found


def test_every_route_has_a_policy_and_every_policy_a_route(app: Flask) -> None:
    without = [(endpoint, method) for endpoint, method, _ in routes(app) if policy_for(endpoint, method) is None]
    assert without == []
    assert set(POLICIES) == {endpoint for endpoint, _, _ in routes(app)}
    assert len(scoped(app)) >= 9


def test_route_without_a_policy_is_closed(app: Flask) -> None:
    app.add_url_rule("/forgotten", "forgotten", lambda: "open")
    assert app.test_client().get("/forgotten").status_code == 403


def test_no_key_and_wrong_keys_are_refused_on_every_route(app: Flask, client: FlaskClient, runtime: Runtime) -> None:
    now = runtime.now()

    def create(name: str, days: int) -> str:
        return runtime.database.write(
            lambda connection: changes.create_key(
                connection,
                name=name,
                scopes=list(Scope),
                accounts=None,
                now=now,
                expires_at=now + timedelta(days=days),
            )
        )

    revoked, expired = create("revoked", 1), create("expired", -1)
    runtime.database.write(lambda connection: changes.revoke_key(connection, name="revoked", now=now))
    bad = ["", "Bearer", "Bearer ", "Bearer rcv_wrong", f"Basic {revoked}", f"Bearer {revoked}", f"Bearer {expired}"]
    for number, (_, method, path) in enumerate(scoped(app)):
        for header in bad:
            answer = client.open(
                path,
                method=method,
                headers={"Authorization": header} if header else {},
                environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"},  # one address may not try so many
            )
            assert answer.status_code == 401, (method, path, header)
            sent = header.startswith("Bearer rcv_")  # RFC 6750: a fault is named only where a key was sent
            fault = ', error="invalid_token"' if sent else ""
            assert answer.headers["WWW-Authenticate"] == f'Bearer realm="receiver"{fault}'


def test_key_without_the_scope_is_refused_on_every_route(app: Flask, client: FlaskClient, runtime: Runtime) -> None:
    for scope, method, path in scoped(app):
        others = {"Authorization": make_key(runtime, *(set(Scope) - {scope}))}
        own = {"Authorization": make_key(runtime, scope)}
        refused = client.open(path, method=method, headers=others)
        assert (refused.status_code, refused.json["code"]) == (403, "missing_scope"), (method, path)
        lacking = f'Bearer realm="receiver", error="insufficient_scope", scope="{scope.value}"'
        assert refused.headers["WWW-Authenticate"] == lacking, (method, path)
        assert client.open(path, method=method, headers=own).status_code not in (401, 403), (method, path)


def test_methods_of_a_path_are_told_to_all_and_audited_nowhere(
    app: Flask, client: FlaskClient, runtime: Runtime
) -> None:
    for endpoint, method, path in routes(app):
        if endpoint == "push.push":
            continue  # any method may carry a push
        answer = client.options(path)
        assert (answer.status_code, answer.data) == (204, b""), path
        methods = answer.headers["Allow"].split(", ")
        assert method in methods, path
        assert "Access-Control-Allow-Origin" not in answer.headers  # pages of other hosts have no business here
        wrong = client.put(path)
        assert (wrong.status_code, sorted(wrong.headers["Allow"].split(", "))) == (405, sorted(methods)), path
    assert runtime.ask(lambda connection: list_audit(connection, 10)) == []


def test_open_routes_are_those_meant_to_be(app: Flask) -> None:
    opened = {endpoint for endpoint, method, _ in routes(app) if policy_for(endpoint, method) is Open.TO_ALL}
    assert opened == {
        "ops.home", "ops.console", "ops.healthz", "ops.readyz", "docs.page", "docs.page_with_slash",
        "docs.asset", "docs.errors",
        "api-docs.openapi_json",
    }  # fmt: skip


def test_metrics_are_for_their_addresses(make_runtime: Callable[..., Runtime], runtime: Runtime) -> None:
    open_to_test = make_runtime(metrics_allow=(ip_network("127.0.0.0/8"),))
    closed = make_runtime(metrics_allow=(ip_network("192.0.2.0/24"),))
    page = create_app(open_to_test).test_client().get("/metrics")
    assert page.status_code == 200
    assert b"receiver_pushes_total" in page.data
    assert create_app(closed).test_client().get("/metrics").status_code == 403


@pytest.mark.parametrize("path", ["messages", "receipts", "replies", "pushes"])
def test_reads_of_numbers_and_contents_are_audited_without_the_number(
    path: str, client: FlaskClient, runtime: Runtime, bearer: dict[str, str]
) -> None:
    query = {"mobile": "15080921090"} if path != "pushes" else {}
    client.get(f"/api/v1/{path}", query_string=query, headers=bearer)
    (entry,) = runtime.ask(lambda connection: list_audit(connection, 10))
    assert entry["actor"].startswith("key:")
    assert "15080921090" not in str(entry)
    assert path == "pushes" or len(entry["detail"]["mobile_hmac"]) == 64


def test_replay_is_audited(client: FlaskClient, runtime: Runtime, bearer: dict[str, str]) -> None:
    push = make_push()
    save_pushes(runtime.database, [push])
    client.post(f"/api/v1/pushes/{push.id}/replay", headers=bearer)
    (entry,) = runtime.ask(lambda connection: list_audit(connection, 10))
    assert (entry["action"], entry["detail"]) == ("push.replay", {"push_id": str(push.id)})
