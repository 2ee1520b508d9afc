"""Somebody bound to one of two accounts sees nothing of the other, on any page, part or file."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.audit import list_audit
from receiver.auth import api_keys, changes, service, users
from receiver.auth.api_keys import SCOPE_TEXTS, Scope
from receiver.auth.users import Role
from receiver.db import tables
from receiver.db.tables import incidents, messages
from receiver.messages.balance import Reading, save_readings
from receiver.messages.notes import NoteKind, add_note
from receiver.web.console.session import OF_ALL_ACCOUNTS, POLICIES
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks.endpoints import NewEndpoint, PayloadFormat
from tests.conftest import OTHER_SECRET, SECRET, make_key
from tests.harness.factories import make_push, make_send
from tests.harness.server import ServeProcess
from tests.web.console.staff import PASSWORD, Page, Staff, create, keep, log_in, one_database, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime

pytestmark = one_database

NUMBER, UNREADABLE = "13800138777", "13800138999"
# Whatever tells of the other account: its name, numbers as they are shown, words, secret.
MARKS = ("zeta", "8777", "8999", "13800138", OTHER_SECRET, "may be about this")
# Endpoint: requests, and whether somebody who is bound to no account sees a mark of the other account there, so that a
# page that has come to show none proves nothing. Every page stands here.
NOTHING: dict[str, bool] = {}
CASES: dict[str, dict[str, bool]] = {
    **dict.fromkeys(
        (
            "console.static", "console.log_in", "console.oidc_begin", "console.oidc_done", "console.language",
            "console.second_factor", "console.log_out", "console.account", "console.missing", "console.runbook",
            "console.docs", "console.document", "console.document_image",
        ),
        NOTHING,
    ),
    "console.home": {"GET /": False},
    "console.banner": {"GET /banner": False},  # what it counts: below
    "console.status": {"GET /status": True},
    "console.incidents": {"GET /incidents": True},
    "console.look_up": {f"POST /look-up wanted={NUMBER}": False},
    "console.look_up_row": {"POST /look-up/row message=MESSAGE": False, "POST /look-up/row push=PUSH": False},
    "console.found": {
        f"FIND {NUMBER}": True, "FIND 8777": True, "FIND zetatask": True, "FIND zetaref": True,
        f"FIND {UNREADABLE}": True,
    },
    "console.found_answer": {f"FIND/answer {NUMBER}": True},
    "console.revealed": {"GET /messages/MESSAGE/reveal": False},
    "console.reveal": {"POST /messages/MESSAGE/reveal reason=a caller asks": True},
    "console.note": {"POST /messages/MESSAGE/notes kind=handled": False},
    "console.cases": {"GET /cases": True, "GET /cases?q=zetanote": True, "GET /cases?account=zeta": True},
    "console.messages": {
        "GET /messages": True, "GET /messages?account=zeta": True, "GET /messages?task_id=zetatask": True,
    },
    "console.message": {"GET /messages/MESSAGE": True},
    "console.numbers": {
        f"POST /messages/numbers numbers={NUMBER}": False, f"POST /replies/numbers numbers={NUMBER}": False,
    },
    "console.replies": {"GET /replies": True, "GET /replies?q=zetawords": True, "GET /replies?account=zeta": True},
    "console.opt_outs": {"GET /opt-outs": False, "GET /opt-outs?opt_out_review=true": False},
    "console.opt_outs_export": {"POST /opt-outs/export reason=a block list&format=csv": False},
    "console.reports": {"GET /reports": True, "GET /reports?account=zeta": False},
    "console.report_csv": {
        "GET /reports/templates.csv": True, "GET /reports/balances.csv": True,
        "GET /reports/days.csv?account=zeta": False, "GET /reports/replies.csv": False,
        "GET /reports/minutes.csv": False,
    },
    "console.exports": {"GET /exports": True},  # the accounts to choose from
    "console.export": {
        "GET /exports/messages": True, "GET /exports/receipts": True, "GET /exports/replies?format=ndjson": True,
        "GET /exports/messages?account=zeta": True,
    },
    "console.pushes": {"GET /pushes": True, "GET /pushes?outcome=quarantined": True, "GET /pushes?account=zeta": True},
    "console.tail": {"GET /tail": True},
    "console.push": {"GET /pushes/PUSH": True},
    "console.push_numbers": {f"POST /pushes/numbers numbers={NUMBER}": False},
    "console.replay_list": {"POST /pushes/replay": False},
    "console.replay": {"POST /pushes/PUSH/replay": False},
    "console.quarantine_seen": {"POST /pushes/seen": False},
    "console.setup": {"GET /setup": True},
    "console.self_test": {"POST /setup/self-test account=zeta": False},
    "console.test_message": {"GET /test-message": False},
    "console.send_test_message": {"POST /test-message account=zeta": False},
    "console.test_message_way": {"GET /test-message/MESSAGE": True},
    "console.users": {"GET /users": True},
    "console.user": {"POST /users/zeta.user action=disable": False},
    "console.keys": {"GET /keys": True},
    "console.revoke_key": {"POST /keys/revoke name=zeta-key": False},
    "console.audit": {"GET /audit": True},
    "console.audit_export": {"POST /audit/export format=csv": False},
    "console.access": {"GET /access": True},
    "console.advice": {"GET /advice": False},
    "console.webhooks": {"GET /webhooks": True},
    "console.change_target": {"POST /webhooks/change name=zeta-target&action=pause": False},
    "console.webhook": {"GET /webhooks/zeta-target": False, "POST /webhooks/zeta-target url=http://127.0.0.1:9": False},
    "console.dead_letters": {"GET /webhooks/zeta-target/dead": False},
}  # fmt: skip


@pytest.fixture
def both(make_runtime: Callable[..., Runtime]) -> Runtime:
    """Two accounts with something of everything in each."""
    runtime = make_runtime(push_tokens=(("default", SECRET), ("zeta", OTHER_SECRET)))
    now = runtime.now()
    sent_at = now - timedelta(minutes=5)
    record(
        runtime,
        make_send(sent_at=sent_at, template_id="540"),
        make_send(
            account="zeta",
            mobile=NUMBER,
            task_id="zetatask",
            template_id="zetatemplate",
            reference="zetaref",
            sent_at=sent_at,
        ),
        make_send(
            account="zeta", mobile="13800138778", task_id="zetaopen", template_id="zetatemplate", sent_at=sent_at
        ),
    )
    keep(
        runtime,
        make_push(),
        make_push(content="ours"),
        make_push(account="zeta", mobile=NUMBER, task_id="zetatask"),
        make_push(account="zeta", mobile=NUMBER, task_id="zetatask", content="zetawords"),
        make_push(account="zeta", body=f"mobile={UNREADABLE}&taskid=zetabad".encode()),
    )
    readings = [Reading(account=name, asked_at=now, answered_at=now, remain_point=1000) for name in ("default", "zeta")]
    incident = {"alarm": "balance_low", "subject": "zeta", "since": now, "seen_at": now, "said_at": now, "evidence": {}}

    def work(connection: sa.Connection) -> None:
        save_readings(connection, readings)
        of_zeta = connection.scalar(sa.select(messages.c.id).where(messages.c.task_id == "zetatask"))
        assert of_zeta is not None
        add_note(connection, of_zeta, NoteKind.NOTE, user_name="zeta.user", text="zetanote", now=now)
        connection.execute(sa.insert(incidents).values(incident))
        for name, accounts in (("zeta-key", ["zeta"]), ("every-zeta-key", None), ("own-key", ["default"])):
            changes.create_key(connection, name=name, scopes=[Scope.READ], accounts=accounts, now=now, expires_at=None)
        changes.create_user(connection, name="zeta.user", role=Role.SUPPORT, now=now, accounts=["zeta"])
        url = "https://127.0.0.1:9/hooks"
        new = NewEndpoint(name="zeta-target", url=url, format=PayloadFormat.WEBHOOKS, accounts=("zeta",))
        endpoint_changes.create_endpoint(connection, new, now=now)

    runtime.database.write(work)
    runtime.audit("user:zeta.user", "test")
    return runtime


def bound_admin(runtime: Runtime, name: str = "bound") -> Staff:
    create(runtime, name, "admin")
    runtime.database.write(lambda c: changes.change_user(c, name, now=runtime.now(), accounts=["default"]))
    return log_in(create_app(runtime), runtime, "admin", name=name)


def ids_of_the_other(runtime: Runtime) -> dict[str, str]:
    message, push = tables.messages.c, tables.pushes.c
    queries = {
        "MESSAGE": sa.select(message.id).where(message.task_id == "zetatask"),
        "PUSH": sa.select(push.id).where(push.account == "zeta").limit(1),
    }
    return {name: str(runtime.ask(lambda c, q=query: c.scalar(q))) for name, query in queries.items()}  # type: ignore[misc]


def answer_of(staff: Staff, route: str) -> Any:
    method, _, rest = route.partition(" ")
    if method.startswith("FIND"):
        led = staff.post("/look-up", {"wanted": rest}).headers["Location"]
        return staff.client.get(led.replace("?", f"{method.removeprefix('FIND')}?"))
    path, _, form = rest.partition(" ")
    if method == "GET":
        return staff.get(path)
    return staff.post(path, dict(part.split("=", 1) for part in form.split("&")) if form else {})


def marks_in(runtime: Runtime, text: str, route: str) -> set[str]:
    """What of the other account is in an answer; not what was typed, which stands in its field again."""
    push = tables.pushes.c
    pushes = runtime.ask(lambda c: c.scalars(sa.select(push.id).where(push.account == "zeta")).all())
    return {mark for mark in (*MARKS, *map(str, pushes)) if mark in text and mark not in route}


def test_every_page_shows_the_bound_nothing_of_another_account_and_the_others_all(both: Runtime) -> None:
    assert set(CASES) == set(POLICIES)
    bound, unbound = bound_admin(both), log_in(create_app(both), both, "admin")
    ids = ids_of_the_other(both)
    for cases in CASES.values():
        for case, shown_to_others in cases.items():
            route = case
            for name, value in ids.items():
                route = route.replace(name, value)
            answer = answer_of(bound, route)
            text = answer.get_data(as_text=True)
            assert answer.status_code < 500, case
            assert marks_in(both, text, route) == set(), case
            if not route.startswith("POST"):  # what changes something is for below
                seen = marks_in(both, answer_of(unbound, route).get_data(as_text=True), route)
                assert bool(seen) is shown_to_others, case


def test_what_would_change_another_account_is_refused_and_noted(both: Runtime) -> None:
    bound, ids = bound_admin(both), ids_of_the_other(both)
    for path, fields in (
        (f"/messages/{ids['MESSAGE']}/reveal", {"reason": "a caller asks"}),
        (f"/pushes/{ids['PUSH']}/replay", {}),
        ("/users/zeta.user", {"action": "disable"}),
        ("/users/zeta.user", {"action": "accounts", "account": "default"}),
        ("/keys/revoke", {"name": "zeta-key"}),
        ("/keys/revoke", {"name": "every-zeta-key"}),
    ):
        assert bound.post(path, fields).status_code == 404, path
    before = {line["id"] for line in both.ask(lambda c: list_audit(c, 100))}
    for endpoint in OF_ALL_ACCOUNTS:
        for case in CASES[endpoint]:
            assert answer_of(bound, case).status_code == 403, case
    noted = [line for line in both.ask(lambda c: list_audit(c, 100)) if line["id"] not in before]
    assert {(line["action"], line["detail"]["reason"]) for line in noted} == {("denied", "account")}
    keys = {key.name: key.revoked_at for key in both.ask(api_keys.list_keys)}
    assert not any(keys.values())
    assert both.ask(lambda c: users.get_user(c, "zeta.user")).disabled_at is None


def test_what_the_bound_make_is_bound_as_they_are(both: Runtime) -> None:
    bound = bound_admin(both)
    for account in ("", "zeta"):
        name = f"made{account}"
        fields = {"name": name, "account": account}
        assert bound.post("/keys", fields | {"scope": "read"}).status_code == 200
        assert bound.post("/users", fields | {"role": "admin", "password": PASSWORD}).status_code == 303
        assert both.ask(lambda c, n=name: users.get_user(c, n)).accounts == ("default",)  # type: ignore[misc]
        assert bound.post(f"/users/{name}", {"action": "accounts", "account": account}).status_code == 303
        assert both.ask(lambda c, n=name: users.get_user(c, n)).accounts == ("default",)  # type: ignore[misc]
    made = {key.name: key.accounts for key in both.ask(api_keys.list_keys) if key.name.startswith("made")}
    assert made == {"made": ("default",), "madezeta": ("default",)}


def test_figures_of_the_bound_count_their_own_account_alone(both: Runtime) -> None:
    bound = bound_admin(both)

    def sum_of(staff: Staff, name: str, column: int) -> int:
        rows = list(csv.reader(io.StringIO(staff.get(f"/reports/{name}.csv").text.lstrip("\ufeff"))))
        return sum(int(row[column] or 0) for row in rows[1:])

    unbound = log_in(create_app(both), both, "admin")
    assert [sum_of(staff, "templates", 1) for staff in (unbound, bound)] == [3, 1]
    assert [sum_of(staff, "replies", 1) for staff in (unbound, bound)] == [2, 1]
    assert [sum_of(staff, "minutes", 1) for staff in (unbound, bound)] == [5, 0]
    assert "1 push" in unbound.page("/banner").text
    assert "push" not in bound.page("/banner").text


def test_binding_ends_sessions(both: Runtime) -> None:
    staff = log_in(create_app(both), both, "support")
    unbound = log_in(create_app(both), both, "admin")
    assert unbound.post("/users/support", {"action": "accounts", "account": "zeta"}).status_code == 303
    assert not staff.logged_in
    assert both.ask(lambda c: users.get_user(c, "support")).accounts == ("zeta",)


def test_the_command_line_binds_users_to_configured_accounts(both: Runtime) -> None:
    tokens = {"RECEIVER_PUSH_TOKENS": f"default:{SECRET},zeta:{OTHER_SECRET}"}
    process = ServeProcess(both.settings.data_dir, both.settings.database_url, environment=tokens)
    wrong = process.run("users", "accounts", "zeta.user", "--account", "nowhere")
    assert (wrong.returncode, wrong.stderr) == (1, "receiver: --account: nowhere: no such account is configured\n")
    assert process.run("users", "accounts", "zeta.user", "--account", "default").returncode == 0
    assert both.ask(lambda c: users.get_user(c, "zeta.user")).accounts == ("default",)


def test_last_use_of_keys_and_users_is_noted_once_a_minute(both: Runtime) -> None:
    client, headers = create_app(both).test_client(), {"Authorization": make_key(both, Scope.READ)}
    staff = bound_admin(both)
    assert both.ask(lambda c: users.get_user(c, "bound")).last_used_at is not None

    def used() -> Any:
        return max(
            key.last_used_at or both.now().min.replace(tzinfo=both.now().tzinfo) for key in both.ask(api_keys.list_keys)
        )

    client.get("/api/v1/messages", headers=headers).close()
    first = used()
    assert both.now() - first < timedelta(minutes=5)
    client.get("/api/v1/messages", headers=headers).close()
    assert used() == first
    assert staff.logged_in


def test_what_an_application_remembers_of_keys_is_of_its_own_database(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    headers = {"Authorization": make_key(runtime, Scope.READ)}
    for _database in range(2):  # the second is the first with its key not yet used: the id is the same
        runtime.database.write(lambda c: c.execute(sa.update(tables.api_keys).values(last_used_at=None)))
        create_app(runtime).test_client().get("/api/v1/messages", headers=headers).close()
        (key,) = runtime.ask(api_keys.list_keys)
        assert key.last_used_at is not None


def test_keys_and_users_show_who_made_them_when_they_were_used_and_what_scopes_mean(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime()
    app = create_app(runtime)
    admin = log_in(app, runtime, "admin")
    made = Page(admin.post("/keys", {"name": "crm", "scope": "read"}).text)
    admin.post("/users", {"name": "sue", "role": "support", "password": PASSWORD})
    service.create_key(runtime.trail, "cli", name="shell", scopes=[Scope.READ])
    page = admin.page("/keys")
    assert "by admin" in page.text
    assert "by the command line" in page.text
    assert page.text.partition("New key")[0].count("never") == 4  # neither has been used, neither expires
    app.test_client().get("/api/v1/messages", headers={"Authorization": f"Bearer {made.at('fresh')}"}).close()
    assert admin.page("/keys").text.partition("New key")[0].count("never") == 3
    assert all(text in page.text for text in SCOPE_TEXTS.values())
    assert set(SCOPE_TEXTS) == set(Scope)
    users_page = admin.page("/users").text
    assert "by admin" in users_page
    assert "never" in users_page  # sue
    again = admin.post("/keys", {"name": " ", "scope": "pushes"})
    assert again.status_code == 422
    checked = [given["value"] for tag, given in Page(again.text).tags if tag == "input" and "checked" in given]
    assert checked == ["pushes"]
