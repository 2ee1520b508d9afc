"""Accounts are apart: a push under one changes nothing of another's, a key that is bound to one sees no other's."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import openpyxl
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.core import Unreadable
from receiver.db.tables import messages, receipts, replies
from receiver.intake.replay import replay_push
from receiver.messages import recording
from receiver.messages.export_files import MEDIA_TYPES, FileFormat
from receiver.web.auth import policy_for
from receiver.webhooks.changes import create_endpoint
from receiver.webhooks.endpoints import NewEndpoint, PayloadFormat
from tests.conftest import OTHER_SECRET, SECRET, make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

TOKENS = (("default", SECRET), ("other", OTHER_SECRET))
NUMBER = "15080921090"
CHANGE = {"mobile": NUMBER, "taskid": "3313746", "status": "0", "receivetime": "2026-11-23 12:00:09"}


@pytest.fixture
def services(make_runtime: Callable[..., Runtime]) -> Runtime:
    return make_runtime(push_tokens=TOKENS)


def of_account(runtime: Runtime, account: str) -> list[Any]:
    """Every row that is this account's, or hangs on one that is."""

    def ask(connection: sa.Connection) -> list[Any]:
        own = list(connection.execute(sa.select(messages).where(messages.c.account == account)))
        ids = [row.id for row in own]
        for table in (receipts, replies):
            belongs = sa.or_(table.c.account == account, table.c.message_id.in_(ids))
            own += list(connection.execute(sa.select(table).where(belongs).order_by(table.c.id)))
        return own

    return runtime.ask(ask)


@pytest.mark.parametrize("way", ["plain", "reply", "masked", "replay", "spool"])
def test_push_under_one_account_changes_nothing_of_anothers(way: str, services: Runtime) -> None:
    send = make_send(mobile=NUMBER)
    services.database.write(lambda c: recording.record_sent(c, [send], recorded_at=services.now()))
    save_pushes(services.database, [make_push(), make_push(content="words", status=None, second=1)])
    before = of_account(services, "default")
    assert len(before) == 3
    fields = dict(CHANGE)
    if way == "masked":
        fields["mobile"] = "1508092****"
    if way == "reply":
        fields = {name: value for name, value in fields.items() if name != "status"} | {"content": "TD"}
    push = make_push(account="other", body=urlencode(fields).encode())
    if way == "spool":
        services.spool.append([push])
        services.spool.close()
        services.drain(services.spool.directory)
    elif way == "replay":
        unread = replace(push, reading=Unreadable(error="status: not read by an older version"))
        save_pushes(services.database, [unread])
        services.database.write(lambda c: replay_push(c, push))
    else:
        client = create_app(services).test_client()
        answer = client.post(f"/push/{OTHER_SECRET}", data=push.body)
        assert answer.headers["X-Push-Outcome"] == "accepted"
    assert of_account(services, "other") != []
    assert of_account(services, "default") == before


# --- What a bound key sees --------------------------------------------------------------------------------

MARKS = ("task-theirs", "hooks-theirs", "template-theirs", "words-theirs", "139****0001", "13900000001", "13900")


@dataclass(frozen=True)
class Case:
    """A request for what is another account's."""

    path: str
    body: Any = None
    shows: bool = True  # whether a key for all accounts is shown it; else it is what a key may do that is asked


SPAN = "from=2026-11-01&to=2026-12-01"
CASES: Mapping[str, Case] = {
    "GET messages.Messages": Case("/messages"),
    "POST messages.Messages": Case(
        "/messages", {"task_id": "new", "mobile": "13900000001", "account": "other"}, shows=False
    ),
    "GET messages.Message": Case("/messages/{message}"),
    "POST messages.MessageSearch": Case("/messages/search", {"task_id": "task-theirs"}),
    "POST messages.MessageVerified": Case(
        "/messages/verified", {"task_id": "task-theirs", "mobile": "13900000001", "account": "other"}, shows=False
    ),
    "GET receipts.Receipts": Case("/receipts"),
    "GET receipts.Receipt": Case("/receipts/{receipt}"),
    "GET replies.Replies": Case("/replies"),
    "GET replies.Reply": Case("/replies/{reply}"),
    "GET events.Events": Case("/events"),
    **{
        f"GET exports.{name.capitalize()}": Case(f"/exports/{name}?format=ndjson")
        for name in ("messages", "receipts", "replies")
    },
    **{
        f"GET exports.{name.capitalize()}{form.capitalize()}": Case(f"/exports/{name}.{form}")
        for name in ("messages", "receipts", "replies")
        for form in FileFormat
    },
    "GET pushes.Pushes": Case("/pushes?limit=1000", shows=False),
    "GET pushes.PushDetail": Case("/pushes/{push}", shows=False),
    "POST pushes.PushReplay": Case("/pushes/{push}/replay", shows=False),
    "POST sending.VerifyCodes": Case(
        "/verify-codes", {"mobile": "13900000001", "template_id": "1", "code": "1234", "account": "other"}, shows=False
    ),
    "GET sending.Balance": Case("/balance?account=other", shows=False),
    "GET reports.Billing": Case(f"/reports/billing?{SPAN}&account=other", shows=False),
    "GET reports.Delivery": Case(f"/reports/delivery?{SPAN}&group_by=template_id"),
    "GET webhooks.Webhooks": Case("/webhooks"),
    "POST webhooks.Webhooks": Case(
        "/webhooks",
        {"name": "new", "url": "https://127.0.0.1:9/hooks", "format": "webhooks", "accounts": ["other"]},
        shows=False,
    ),
    "GET webhooks.OneWebhook": Case("/webhooks/theirs"),
    "PATCH webhooks.OneWebhook": Case("/webhooks/theirs", {"url": "https://127.0.0.1:9/mine"}, shows=False),
    "GET webhooks.Deliveries": Case("/webhooks/theirs/deliveries", shows=False),
    "POST webhooks.Pause": Case("/webhooks/theirs/pause", shows=False),
    "POST webhooks.Resume": Case("/webhooks/theirs/resume", shows=False),
    "POST webhooks.Rotate": Case("/webhooks/theirs/rotate", shows=False),
    "POST webhooks.Test": Case("/webhooks/theirs/test", shows=False),
    "GET webhooks.Dead": Case("/webhooks/theirs/dead", shows=False),
    "POST webhooks.Replay": Case("/webhooks/theirs/replay", {}, shows=False),
    "DELETE webhooks.OneWebhook": Case("/webhooks/theirs", shows=False),
    "GET audit.Audit": Case("/audit", shows=False),
    "GET reports.Busiest": Case("/reports/busiest?from=2026-11-23&to=2026-11-24&by=mobile&min_sent=2"),
}


def test_every_call_has_a_case(services: Runtime) -> None:
    """So that a new one fails until somebody has said what a bound key may see of it."""
    app = create_app(services)
    calls = {
        f"{method} {rule.endpoint}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if isinstance(policy_for(rule.endpoint, method), Scope)
    }
    assert calls == set(CASES)


def text_of(answer: TestResponse) -> str:
    """Return what an answer says, whatever its format."""
    if answer.mimetype == MEDIA_TYPES[FileFormat.PARQUET]:
        return str(pq.read_table(io.BytesIO(answer.data)).to_pylist())
    if answer.mimetype == MEDIA_TYPES[FileFormat.XLSX]:
        return str(list(openpyxl.load_workbook(io.BytesIO(answer.data)).active.values))
    return answer.get_data(as_text=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_key_bound_to_an_account_sees_nothing_of_another(name: str, services: Runtime) -> None:
    common: dict[str, Any] = {"account": "other", "mobile": "13900000001", "sent_at": NOON}
    sends = [make_send(**common, task_id=task, template_id="template-theirs") for task in ("task-theirs", "second")]
    services.database.write(lambda c: recording.record_sent(c, sends, recorded_at=services.now()))
    theirs: dict[str, Any] = {"account": "other", "mobile": "13900000001", "task_id": "task-theirs"}
    pushes = [make_push(**theirs), make_push(**theirs, status=None, content="words-theirs", second=1), make_push()]
    save_pushes(services.database, pushes)
    target = NewEndpoint(
        name="theirs", url="https://127.0.0.1:9/hooks-theirs", format=PayloadFormat.WEBHOOKS, accounts=("other",)
    )
    services.database.write(lambda c: create_endpoint(c, target, now=services.now()))
    own = sa.select(messages.c.id).where(messages.c.task_id == "task-theirs")
    (message,) = services.ask(lambda c: c.execute(own).all())
    client = create_app(services).test_client()
    case, (method, _) = CASES[name], name.split()
    path = "/api/v1" + case.path.format(message=message.id, push=pushes[0].id, receipt=1, reply=1)
    answers = {}
    for accounts in (("default",), None):  # in that order: what is done is not there any more
        bearer = {"Authorization": make_key(services, *Scope, accounts=accounts)}
        answers[accounts] = client.open(path, method=method, json=case.body, headers=bearer)
    everybody, bound = answers[None], answers["default",]
    seen = text_of(everybody)
    assert everybody.status_code not in (401, 403, 404, 429), seen
    if case.shows:
        assert any(mark in seen for mark in MARKS), seen
    text = text_of(bound)
    assert not any(mark in text for mark in (*MARKS, str(pushes[0].id), str(pushes[1].id))), text
    if not case.shows and name != "GET pushes.Pushes":
        assert bound.status_code in (403, 404), text
