"""What is audited: for every route of the API and the console, and for every refusal, without a flood of entries."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from receiver.audit import Checkpoint, list_audit
from receiver.auth import api_keys, changes
from receiver.auth.access_review import list_access
from receiver.auth.api_keys import Scope
from receiver.auth.users import Role
from receiver.core import DatabaseUnavailable
from receiver.web.auth import POLICIES
from receiver.web.console.session import POLICIES as CONSOLE_POLICIES
from receiver.web.denials import WINDOW_SECONDS, Denials
from tests.conftest import make_key
from tests.harness.factories import make_push, make_send
from tests.harness.server import ServeProcess
from tests.web.console.staff import NUMBER, PASSWORD, Page, create, keep, log_in, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """What is noted is the same on both; how it is kept is tested on both in `test_audit_chain`."""
    return sqlite_database_url


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """One whose targets may be on this machine: nothing outside of it is sent to."""
    return make_runtime(webhooks_allow=(ip_network("127.0.0.0/8"),))


DAY = "from=2026-11-23&to=2026-11-24"
# Endpoint: request → what it leaves in the audit, by a key with every scope. Every route stands here.
API: dict[str, dict[str, list[str]]] = {
    "push.push": {},  # the platform's; what is refused there is counted
    "ops.home": {"GET /": []},
    "ops.console": {"GET /console": []},
    "ops.healthz": {"GET /healthz": []},
    "ops.readyz": {"GET /readyz": []},
    "ops.metrics_page": {"GET /metrics": ["denied"]},  # the address: the tests allow none
    "docs.page": {"GET /api/v1/docs": []},
    "docs.page_with_slash": {"GET /api/v1/docs/": []},
    "docs.asset": {},
    "docs.errors": {"GET /api/v1/errors": []},
    "api-docs.openapi_json": {"GET /api/v1/openapi.json": []},
    "messages.Messages": {
        f"GET /api/v1/messages?mobile={NUMBER}": ["messages.look_up"],
        "GET /api/v1/messages": ["messages.read"],
        "POST /api/v1/messages": [],  # what its caller says itself
    },
    "messages.MessageVerified": {"POST /api/v1/messages/verified": []},
    "messages.Message": {"GET /api/v1/messages/1": ["message.read"]},
    "messages.MessageSearch": {"POST /api/v1/messages/search": ["messages.read"]},
    "receipts.Receipts": {
        f"GET /api/v1/receipts?mobile={NUMBER}": ["receipts.look_up"],
        "GET /api/v1/receipts": ["receipts.read"],
    },
    "receipts.Receipt": {"GET /api/v1/receipts/1": ["receipt.read"]},
    "replies.Replies": {"GET /api/v1/replies": ["replies.read"]},
    "replies.Reply": {"GET /api/v1/replies/1": ["reply.read"]},
    "events.Events": {"GET /api/v1/events": ["events.read"]},
    **{
        f"exports.{name.capitalize()}{ending.capitalize()}": {
            f"GET /api/v1/exports/{name}{ending and '.'}{ending}": [f"{name}.export"],
            f"HEAD /api/v1/exports/{name}{ending and '.'}{ending}": [],
        }
        for name in ("messages", "receipts", "replies")
        for ending in ("", "csv", "ndjson", "parquet", "xlsx")
    },
    "pushes.Pushes": {"GET /api/v1/pushes": ["pushes.read"]},
    "pushes.PushDetail": {"GET /api/v1/pushes/PUSH": ["push.read"]},
    "pushes.PushReplay": {"POST /api/v1/pushes/PUSH/replay": ["push.replay"]},
    "sending.VerifyCodes": {},  # a send is noted with who asked for it, in `attempts`
    "sending.Balance": {"GET /api/v1/balance": []},
    "reports.Busiest": {
        f"GET /api/v1/reports/busiest?{DAY}&by=mobile": ["busiest.read"],
        f"GET /api/v1/reports/busiest?{DAY}": [],
    },
    "reports.Billing": {f"GET /api/v1/reports/billing?{DAY}": []},
    "audit.Audit": {"GET /api/v1/audit": ["audit.read"]},
    "reports.Delivery": {f"GET /api/v1/reports/delivery?{DAY}": []},
    "webhooks.Webhooks": {"POST /api/v1/webhooks": ["webhook.create"], "GET /api/v1/webhooks": []},
    "webhooks.Pause": {"POST /api/v1/webhooks/shop/pause": ["webhook.pause"]},
    "webhooks.Resume": {"POST /api/v1/webhooks/shop/resume": ["webhook.resume"]},
    "webhooks.Rotate": {"POST /api/v1/webhooks/shop/rotate": ["webhook.rotate"]},
    "webhooks.Test": {"POST /api/v1/webhooks/shop/test": ["webhook.test"]},
    "webhooks.Deliveries": {"GET /api/v1/webhooks/shop/deliveries": []},  # ids alone
    "webhooks.Dead": {"GET /api/v1/webhooks/shop/dead": []},  # ids alone
    "webhooks.Replay": {"POST /api/v1/webhooks/shop/replay": ["webhook.replay"]},
    "webhooks.OneWebhook": {
        "GET /api/v1/webhooks/shop": [],
        "PATCH /api/v1/webhooks/shop": ["webhook.update"],
        "DELETE /api/v1/webhooks/shop": ["webhook.remove"],
    },
}
# The same for an administrator at the console; a form's fields behind the path.
CONSOLE: dict[str, dict[str, list[str]]] = {
    "console.static": {"GET /static/console.css": []},
    "console.oidc_begin": {},  # tests/web/console/test_oidc.py
    "console.oidc_done": {},
    "console.language": {"POST /language": []},
    "console.home": {"GET /": []},
    "console.banner": {"GET /banner": []},
    "console.account": {
        "GET /account": [],
        "POST /account present=wrong": ["login.failed"],
        f"POST /account present={PASSWORD}&new=another good one": ["user.password"],
    },
    "console.runbook": {"GET /runbook": []},
    "console.docs": {"GET /docs?q=push": []},
    "console.document": {"GET /docs/reference/settings": []},
    "console.document_image": {"GET /docs/images/status-en.png": []},
    "console.status": {"GET /status": []},  # its evidence has masked numbers
    "console.incidents": {"GET /incidents": []},
    "console.missing": {"GET /nowhere": []},
    "console.look_up": {f"POST /look-up wanted={NUMBER}": ["look_up"]},
    "console.look_up_row": {"POST /look-up/row message=1": ["look_up"]},
    "console.found": {"GET /look-up/TOKEN": []},  # only who looked it up has the address
    "console.found_answer": {"GET /look-up/TOKEN/answer": []},
    "console.revealed": {"GET /messages/1/reveal": []},
    "console.reveal": {"POST /messages/1/reveal reason=a caller asks": ["number.reveal"]},
    "console.note": {"POST /messages/1/notes kind=note&text=called back": ["note.create"]},
    "console.cases": {"GET /cases": ["notes.read"]},
    "console.messages": {"GET /messages": []},  # masked numbers, no contents
    "console.numbers": {
        f"POST /messages/numbers numbers={NUMBER}": ["messages.look_up"],
        f"POST /replies/numbers numbers={NUMBER},13900000000": ["replies.look_up", "replies.look_up"],
    },
    "console.message": {"GET /messages/1": ["message.read"]},
    "console.replies": {"GET /replies": ["replies.read"]},
    "console.opt_outs": {"GET /opt-outs": ["opt_outs.read"]},
    "console.opt_outs_export": {"POST /opt-outs/export reason=a block list": ["opt_outs.export"]},
    "console.reports": {"GET /reports": []},
    "console.report_csv": {"GET /reports/days.csv": []},
    "console.exports": {"GET /exports": []},
    "console.export": {"GET /exports/messages": ["messages.export"]},
    "console.pushes": {"GET /pushes": []},  # neither query nor body
    "console.tail": {"GET /tail": []},  # masked numbers, neither query nor body
    "console.push": {"GET /pushes/PUSH": ["push.read"]},
    "console.replay": {"POST /pushes/PUSH/replay": ["push.replay"]},
    "console.push_numbers": {f"POST /pushes/numbers numbers={NUMBER}": ["pushes.look_up"]},
    "console.replay_list": {"POST /pushes/replay": []},  # none is left; else as many of "push.replay"
    "console.quarantine_seen": {"POST /pushes/seen": [], "POST /pushes/seen sure=yes": ["quarantine.seen"]},
    "console.setup": {"GET /setup": ["push_url.read"]},
    "console.self_test": {"POST /setup/self-test": ["self_test"]},
    "console.test_message": {"GET /test-message": []},
    "console.send_test_message": {"POST /test-message mobile=1": []},  # test_live.py in tests/web/console
    "console.test_message_way": {"GET /test-message/1": []},  # masked number, no contents
    "console.users": {"GET /users": [], f"POST /users name=new&role=support&password={PASSWORD}": ["user.create"]},
    "console.user": {"POST /users/other action=disable&sure=yes": ["user.disable"]},
    "console.keys": {"GET /keys": [], "POST /keys name=new&scope=read": ["key.create"]},
    "console.revoke_key": {"POST /keys/revoke name=new&sure=yes": ["key.revoke"]},
    "console.audit": {"GET /audit": ["audit.read"], f"POST /audit mobile={NUMBER}": ["audit.read"]},
    "console.audit_export": {f"POST /audit/export mobile={NUMBER}&format=csv": ["audit.export"]},
    "console.access": {"GET /access": ["access.review"]},
    "console.advice": {"GET /advice": [], "POST /advice late=Call again.": ["advice.change"]},
    "console.webhooks": {
        "GET /webhooks": [],
        "POST /webhooks name=shop&url=http://127.0.0.1:9/hooks&format=webhooks": ["webhook.create"],
    },
    "console.webhook": {
        "GET /webhooks/shop": [],
        "POST /webhooks/shop url=http://127.0.0.1:9/new": ["webhook.update"],
        "POST /webhooks/shop action=replay&since=2026-01-01&sure=yes": ["webhook.replay"],
        "POST /webhooks/shop action=replay&since=2026-01-01&all=on&sure=yes": [
            "webhook.replay_begin",
            "webhook.replay",
        ],
    },
    "console.dead_letters": {"GET /webhooks/shop/dead": []},
    "console.change_target": {
        f"POST /webhooks/change name=shop&action={action}&sure=yes": [f"webhook.{action}"]
        for action in ("pause", "resume", "rotate", "test", "replay", "remove")
    },
    "console.second_factor": {"GET /second-factor": []},
    "console.log_in": {
        "POST /login name=other&password=wrong": ["login.failed"],
        f"POST /login name=support&password={PASSWORD}": ["login"],
    },
    "console.log_out": {"POST /logout": ["logout"]},
}


def actions(runtime: Runtime) -> list[str]:
    """Oldest first."""
    return [line["action"] for line in runtime.ask(lambda c: list_audit(c, 1000))][::-1]


def newest(runtime: Runtime) -> Any:
    return runtime.ask(lambda c: list_audit(c, 1))[0]


def fill(runtime: Runtime) -> str:
    """A message with its receipt and a reply; give the push's id."""
    push = make_push()
    record(runtime, make_send())
    keep(runtime, push, make_push(content="退订"))
    return str(push.id)


def test_every_route_of_the_api_audits_what_it_should(app: Flask, client: FlaskClient, runtime: Runtime) -> None:
    assert set(API) == set(POLICIES)
    push_id = fill(runtime)
    headers = {"Authorization": make_key(runtime, *Scope)}
    bodies: dict[str, Any] = {
        "/api/v1/messages": {"task_id": "77", "mobile": NUMBER},
        "/api/v1/messages/verified": {"task_id": "77", "mobile": NUMBER},
        "/api/v1/messages/search": {},
        "/api/v1/webhooks": {"name": "shop", "url": "http://127.0.0.1:9/hooks", "format": "webhooks"},
        "/api/v1/webhooks/shop/replay": {},
        "/api/v1/webhooks/shop": {"url": "http://127.0.0.1:9/new"},
    }
    for expected in API.values():
        for route, left in expected.items():
            method, _, path = route.replace("PUSH", push_id).partition(" ")
            before = len(actions(runtime))
            body = bodies.get(path) if method in ("POST", "PATCH") else None
            answer = client.open(path, method=method, headers=headers, json=body)
            assert answer.status_code < 400 or path == "/metrics", (route, answer.text)
            answer.get_data()
            assert actions(runtime)[before:] == left, route
    assert NUMBER not in str(runtime.ask(lambda c: list_audit(c, 1000)))


def test_every_page_of_the_console_audits_what_it_should(app: Flask, runtime: Runtime) -> None:
    assert set(CONSOLE) == set(CONSOLE_POLICIES)
    push_id, token = fill(runtime), ""
    admin = log_in(app, runtime, "admin")
    create(runtime, "other", "support")
    create(runtime, "support", "support")
    for endpoint, expected in CONSOLE.items():
        for route, left in expected.items():
            method, _, rest = route.replace("PUSH", push_id).replace("TOKEN", token).partition(" ")
            path, _, form = rest.partition(" ")
            before = len(actions(runtime))
            fields = dict(part.split("=", 1) for part in form.split("&") if part)
            answer = admin.get(path) if method == "GET" else admin.post(path, fields)
            answer.get_data()
            assert answer.status_code < 500, (route, answer.text)
            if endpoint == "console.look_up":
                token = answer.headers["Location"].rpartition("/")[2].partition("?")[0]
            assert actions(runtime)[before:] == left, (route, answer.status_code)
    assert NUMBER not in str(runtime.ask(lambda c: list_audit(c, 1000)))


def test_what_is_audited_cannot_be_read_while_that_is_impossible(
    client: FlaskClient, runtime: Runtime, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(runtime)

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(runtime.trail, "audited", away)
    for path in ("messages/1", f"messages?mobile={NUMBER}", "replies", "events", "exports/messages", "pushes"):
        answer = client.get(f"/api/v1/{path}", headers=bearer)
        assert answer.status_code == 503, path
        assert b"\xe9\x80\x80\xe8\xae\xa2" not in answer.data  # 退订


def test_a_page_that_says_it_looks_again_by_itself_is_noted_the_first_time(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    for _ in range(3):
        assert admin.get("/setup", headers={"HX-Request": "true"}).status_code == 200
    assert actions(runtime) == ["push_url.read"]


# --- Refusals -----------------------------------------------------------------------------------------


def test_refusals_of_the_api_are_noted_with_who_where_and_why(client: FlaskClient, runtime: Runtime) -> None:
    client.get("/api/v1/messages")
    assert newest(runtime)["actor"] == "nobody"
    client.get("/api/v1/replies", headers={"Authorization": "Bearer rcv_wrong"})
    client.get("/api/v1/pushes/1", headers={"Authorization": make_key(runtime, Scope.READ)})
    entry = newest(runtime)
    assert (entry["actor"].partition(":")[0], entry["action"]) == ("key", "denied")
    assert entry["detail"] == {
        "address": "127.0.0.1", "route": "GET /api/v1/pushes/<string:push_id>", "reason": "missing_scope",
    }  # fmt: skip
    assert actions(runtime) == ["denied"] * 3


def test_refusals_of_the_console_are_noted_with_who_where_and_why(app: Flask, runtime: Runtime) -> None:
    assert log_in(app, runtime, "support").get("/users").status_code == 403
    entry = newest(runtime)
    assert (entry["actor"], entry["action"]) == ("user:support", "denied")
    assert entry["detail"] == {"address": "127.0.0.1", "route": "GET /console/users", "reason": "role"}


def test_a_flood_of_refusals_leaves_one_entry_and_a_count(app: Flask, client: FlaskClient, runtime: Runtime) -> None:
    now = [0.0]
    app.extensions["receiver.denials"] = Denials(lambda: now[0])
    for _ in range(30):
        assert client.get("/api/v1/messages").status_code == 401
    assert actions(runtime) == ["denied"]
    now[0] = WINDOW_SECONDS
    client.get("/api/v1/messages")
    assert actions(runtime) == ["denied"] * 2
    assert newest(runtime)["detail"]["count"] == 30


def test_a_flood_from_everywhere_leaves_a_bounded_number_of_entries() -> None:
    now = [0.0]
    denials = Denials(lambda: now[0])
    told = [denials.count("nobody", f"10.0.{n // 250}.{n % 250}", "denied") for n in range(5000)]
    assert sum(count > 0 for count, _ in told) == 201
    now[0] = WINDOW_SECONDS
    counted, alone = denials.count("nobody", "10.9.9.9", "denied")
    assert (counted, alone) == (1, True)
    for n in range(198):
        denials.count("nobody", f"10.8.{n}.1", "denied")
    assert denials.count("nobody", "10.7.7.7", "denied") == (4800, False)
    assert len(denials._windows) <= 201


def test_a_refusal_is_answered_as_such_where_it_cannot_be_noted(
    client: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(runtime.trail, "audited", away)
    assert client.get("/api/v1/messages").status_code == 401


# --- Reading it ---------------------------------------------------------------------------------------


def test_entries_are_listed_by_who_what_when_and_number_page_by_page(client: FlaskClient, runtime: Runtime) -> None:
    for number in range(3):
        runtime.audit("user:li.wei", "look_up", mobile=NUMBER, page=number)
    runtime.audit("user:wu", "look_up", mobile="13800138000")
    runtime.audit("cli", "key.create", name="a")
    headers = {"Authorization": make_key(runtime, Scope.AUDIT)}

    def found(query: str) -> list[str]:
        items = client.get(f"/api/v1/audit?{query}", headers=headers).json["items"]
        return [f"{item['actor']} {item['action']}" for item in items if item["action"] != "audit.read"]

    assert found("actor=user:wu") == ["user:wu look_up"]
    assert found("action=key.create") == ["cli key.create"]
    assert found("mobile=138 0013 8000") == ["user:wu look_up"]
    assert found("since=2999-01-01T00:00:00Z") == []
    assert found("until=2000-01-01T00:00:00Z") == []
    assert len(found("since=2000-01-01T00:00:00Z")) == 5
    first = client.get("/api/v1/audit?actor=user:li.wei&limit=2", headers=headers).json
    assert [item["detail"]["page"] for item in first["items"]] == [2, 1]
    assert len(first["items"][0]["hash"]) == 64
    second = client.get(f"/api/v1/audit?actor=user:li.wei&cursor={first['next_cursor']}", headers=headers).json
    assert ([item["detail"]["page"] for item in second["items"]], second["next_cursor"]) == ([0], None)
    assert client.get(f"/api/v1/audit?cursor={first['next_cursor']}", headers=headers).status_code == 422


def test_a_key_that_is_bound_to_accounts_does_not_read_the_audit_of_all(client: FlaskClient, runtime: Runtime) -> None:
    bound = {"Authorization": make_key(runtime, Scope.AUDIT, accounts=("default",))}
    answer = client.get("/api/v1/audit", headers=bound)
    assert (answer.status_code, answer.json["code"]) == (403, "account_closed")


def test_the_page_finds_by_number_and_says_whether_the_chain_holds(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    runtime.audit("user:wu", "look_up", mobile=NUMBER)
    runtime.audit("user:li.wei", "look_up", mobile="13800138000")
    page = Page(admin.post("/audit", {"mobile": NUMBER}).text)
    assert ("user:wu" in page.text, "user:li.wei" in page.text) == (True, False)
    assert "are unaltered" in page.at("proof")
    assert admin.post("/audit", {"mobile": "x"}).status_code == 422
    text = admin.post("/audit/export", {"mobile": NUMBER, "format": "ndjson"}).text
    assert [json.loads(line)["actor"] for line in text.splitlines()] == ["user:wu", "user:admin", "user:admin"]
    runtime.checkpoints.add(Checkpoint(position=99, at=runtime.now(), hash=bytes(32)))
    assert "cut off behind entry" in admin.page("/audit").at("proof")


def test_the_command_lists_and_exports_entries_and_is_noted_itself(runtime: Runtime) -> None:
    runtime.audit("user:wu", "look_up", mobile=NUMBER)
    runtime.audit("=cmd", "test")
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    listed = process.run("audit", "list", "--mobile", NUMBER, "--json")
    assert [json.loads(line)["action"] for line in listed.stdout.splitlines()] == ["audit.read", "look_up"]
    rows = list(csv.DictReader(io.StringIO(process.run("audit", "export", "--format", "csv").stdout)))
    assert [row["action"] for row in rows] == ["look_up", "test", "audit.read", "audit.export"]
    assert rows[1]["actor"] == "'=cmd"
    wrong = process.run("audit", "list", "--since", "yesterday")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("receiver: --since:")


# --- The review -----------------------------------------------------------------------------------------


def test_the_review_marks_what_is_open_and_was_not_used_for_90_days(app: Flask, runtime: Runtime) -> None:
    now = runtime.now()
    long_ago = now - timedelta(days=91)
    made: dict[str, Any] = {"scopes": [Scope.READ], "accounts": None, "now": long_ago}

    def work(connection: Any) -> None:
        for name, expires_at in (("old", None), ("used", None), ("expired", long_ago), ("revoked", None)):
            changes.create_key(connection, name=name, expires_at=expires_at, **made)
        changes.revoke_key(connection, name="revoked", now=now)
        (used,) = [key.id for key in api_keys.list_keys(connection) if key.name == "used"]
        api_keys.note_used(connection, used, now - timedelta(days=89))
        changes.create_user(connection, name="=old", role=Role.SUPPORT, now=long_ago, accounts=["default"])

    runtime.database.write(work)
    found = runtime.ask(lambda c: list_access(c, now))
    assert {one.name for one in found if one.unused} == {"old", "=old"}
    page = log_in(app, runtime, "admin").page("/access")
    assert page.html.count(">unused<") == 2
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(process.run("access", "review", "--csv").stdout))}
    assert set(rows) == {"old", "used", "expired", "revoked", "'=old", "admin"}
    assert (rows["'=old"]["may"], rows["'=old"]["accounts"]) == ("support", "default")
    assert [name for name, row in rows.items() if row["unused for 90 days"]] == ["old", "'=old"]
