"""Every staff page in one table, on fixed data at a fixed moment: to be looked at, and to be held to rules."""

from __future__ import annotations

import random
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from playwright.sync_api import expect
from werkzeug.serving import WSGIRequestHandler, make_server

from receiver import runtime as runtime_module
from receiver.alerting.rules import Alarm
from receiver.app import create_app
from receiver.audit import create_statements, drop_statements, write_audit
from receiver.auth import changes, users
from receiver.auth.api_keys import Scope
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.core import Disk, Push, SendAttempt, SentMessage, first_id_of
from receiver.db import migrate, once
from receiver.db.tables import api_keys, audit, audit_chain, deliveries, incidents, login_failures, messages
from receiver.intake.admission import Probe, Refusal
from receiver.messages import balance, notes
from receiver.messages.balance import Reading
from receiver.messages.notes import NoteKind
from receiver.messages.recording import record_sent
from receiver.net.probe import Certificate
from receiver.sending import attempts
from receiver.web.console.session import TOKEN
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import endpoints
from receiver.webhooks.endpoints import EventType, NewEndpoint, PayloadFormat
from tests.conftest import make_settings
from tests.harness.factories import READER, make_send
from tests.harness.journal import save_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask
    from playwright.sync_api import BrowserContext, Page, Response

    from receiver.runtime import Runtime

NOW = datetime(2026, 11, 23, 7, 42, 10, tzinfo=UTC)  # 15:42:10 in Shanghai
PASSWORD = "correct horse battery"
_TOTP_KEY = "JBSWY3DPEHPK3PXP"
_DISK = Disk(total_bytes=64_000_000_000, free_bytes=41_400_000_000)
# Each once a day or so, in turn.
_REPLIES = ("谢谢", "退订", "收到，几点送到？", "TD \u202eevil <b>x</b>", "请不要再退订我", "好的，谢谢")


# --- The sites ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One site: the application on its data, and where it answers."""

    app: Flask
    runtime: Runtime
    origin: str

    def enter(self, context: BrowserContext, user: str | None, *, half: bool = False) -> None:
        """Give a browser the session of a user: nobody logs in a hundred times. What was noted of the last is gone."""
        context.clear_cookies()
        self.runtime.database.write(_forget)
        if user is None:
            return
        database = self.runtime.database
        known = self.runtime.ask(lambda connection: users.get_user(connection, user))
        database.write(lambda connection: users.end_sessions_of(connection, known.id, now=NOW - timedelta(seconds=1)))
        token = database.write(
            lambda connection: users.begin_session(
                connection, known.id, confirmed=not half, address="127.0.0.1", now=NOW, lasts=timedelta(hours=12)
            )
        )
        self.app.secret_key = self.runtime.shared_secret("console")
        signer = self.app.session_interface.get_signing_serializer(self.app)  # type: ignore[attr-defined]
        value = signer.dumps({TOKEN: token})
        context.add_cookies([{"name": "receiver_console", "value": value, "domain": "127.0.0.1", "path": "/console"}])


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Say nothing: the log is looked through for what it may not have."""


@contextmanager
def serve_samples() -> Iterator[dict[str, Sample]]:
    """Serve each site.

    `usual`; `silent` (the platform pushes no more); `empty` (nothing has come yet); `hostile` (the longest and oddest
    that can be kept, in full pages).
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(runtime_module.Runtime, "now", lambda _: NOW))
        stack.enter_context(patch("receiver.web.console.status.can_connect", lambda _: True))
        stack.enter_context(patch("receiver.alerting.run.find_certificate", lambda _: Certificate(days_left=61.0)))
        stack.enter_context(patch("receiver.alerting.run.find_disk", lambda _: _DISK))
        stack.enter_context(patch("receiver.web.console.login._new_secret", lambda: _TOTP_KEY * 2))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = {}
        for name, fill in (("usual", _fill), ("silent", _fall_silent), ("empty", None), ("hostile", _fill_hostile)):
            made[name] = stack.enter_context(_serve(directory / name, fill))
        yield made


@contextmanager
def _serve(directory: Path, fill: Callable[[sa.Connection], None] | None) -> Iterator[Sample]:
    directory.mkdir()
    settings = make_settings(
        f"sqlite:///{directory / 'receiver.db'}",
        directory,
        public_url="https://sms.example.com",
        push_tokens=(("default", "fJ4wqkQx0m2rV8sTzN6yBdLh1cGpUe5a"),),
        platform_credentials=(("default", "app", "key"),) if fill is _fill else (),
    )
    runtime = runtime_module.Runtime(settings)
    migrate.upgrade(runtime.database)
    runtime.availability.mark_up()
    runtime.database.write(_make_users)
    if fill is not None:
        runtime.database.write(fill)
        runtime.admission.last_probe = Probe(at=NOW - timedelta(hours=30), address="203.0.113.7", method="GET")
        runtime.admission.refusals.append(
            Refusal(at=NOW - timedelta(hours=29), address="198.51.100.9", reason="secret")
        )
    app = create_app(runtime)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Sample(app, runtime, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        runtime.stop()


def _make_users(connection: sa.Connection) -> None:
    made_at = NOW - timedelta(days=41)
    password_hash = hash_password(PASSWORD, name="nobody")
    for name, role in (("wang.li", Role.ADMIN), ("chen.yu", Role.ANALYST), ("liu.fang", Role.SUPPORT)):
        changes.create_user(connection, name=name, role=role, now=made_at, password_hash=password_hash)
    changes.create_user(connection, name="zhao.min", role=Role.ADMIN, now=made_at, password_hash=password_hash)
    changes.create_user(connection, name="sun.hao", role=Role.SUPPORT, now=made_at, password_hash=password_hash)
    changes.change_user(connection, "wang.li", now=made_at, totp_secret=_TOTP_KEY, totp_step=None)
    changes.change_user(connection, "sun.hao", now=NOW - timedelta(days=3), disabled_at=NOW - timedelta(days=3))


def _fill(connection: sa.Connection) -> None:
    """A week like others, and one message in each state at the end of it."""
    chance = random.Random(10658)
    sends, pushes = [], []
    for number in range(420):
        age = 45 + (chance.random() ** 2 * 6.5 * 86400 if number % 3 else chance.random() * 3600)
        sent_at = (NOW - timedelta(seconds=age)).replace(microsecond=0)
        mobile, task = f"13{number % 10}0013{8000 + number % 97}", str(3313000 + number)
        sends.append(make_send(task_id=task, mobile=mobile, sent_at=sent_at, template_id=str(540 + number % 4)))
        luck, took = chance.random(), timedelta(seconds=2 + int(chance.paretovariate(1.4)))
        if luck < 0.97:
            pushes.append(_push(sent_at + took, mobile, task, status="0" if luck > 0.94 else "1"))
        if number % 60 == 0 and age > 600:
            said = _REPLIES[number // 60 % len(_REPLIES)]
            pushes.append(_push(sent_at + timedelta(seconds=70), mobile, task, content=said))
    for number, (age, status) in enumerate(_STATES, 1):
        sent_at, mobile, task = NOW - timedelta(seconds=age), f"1508092100{number}", f"442010{number}"
        sends.append(
            make_send(task_id=task, mobile=mobile, sent_at=sent_at, template_id="541", reference=f"login-{number}")
        )
        pushes += [_push(sent_at + timedelta(seconds=4), mobile, task, status=each) for each in status]
    pushes.append(_push(NOW - timedelta(seconds=12), "15080921001", "4420101", content=_REPLIES[1]))
    body = b"mobile=15080921007&taskid=4420107&status=1&receivetime=2026-11-23T07%3A41%3A01Z"
    pushes.append(_push(NOW - timedelta(seconds=69), body=body))
    pushes.append(_push(NOW - timedelta(seconds=65), "15080921011", "7700123", status="1"))  # nobody has recorded it
    for number, age in enumerate((250, 140, 30)):
        sent_at, task = NOW - timedelta(seconds=age), f"442020{number}"
        sends.append(make_send(task_id=task, mobile="15080921008", sent_at=sent_at, template_id="542"))
    pushes.append(_push(NOW - timedelta(seconds=190), "15080921008", "4420200", status="0"))
    refused_at = NOW - timedelta(seconds=75)
    words = "同一号码一分钟内限发一条"
    sends.append(
        make_send(task_id=None, mobile="15080921006", reference="login-6", sent_at=refused_at, error_message=words)
    )
    _keep(connection, sends, pushes)
    _begin_to_send(connection)
    _make_notes(connection)
    once.note(connection, once.QUARANTINE_SEEN, now=NOW)
    readings = [(NOW - timedelta(days=days), 4_310 + 61 * days) for days in range(8)]
    balance.save_readings(
        connection,
        [Reading(account="default", asked_at=at, answered_at=at, remain_point=left) for at, left in readings],
    )
    made_at = NOW - timedelta(days=40)
    for name, scopes, expires_at in (
        ("shop-backend", [Scope.MESSAGES_WRITE, Scope.READ], None),
        ("grafana", [Scope.REPORTS], NOW + timedelta(days=50)),
        ("old-import", [Scope.MESSAGES_WRITE], None),
    ):
        changes.create_key(connection, name=name, scopes=scopes, accounts=None, now=made_at, expires_at=expires_at)
    changes.revoke_key(connection, name="old-import", now=NOW - timedelta(days=2))
    _make_targets(connection)
    _note_incidents(connection)
    for minutes, actor, action, detail in (
        (90, "cli", "user.create", {"name": "liu.fang", "role": "support"}),
        (70, "user:liu.fang", "login", {"address": "10.0.0.21"}),
        (12, "user:liu.fang", "look_up", {"mobile_hmac": "6f0c2a9be1d3" * 5 + "07a4"}),
        (11, "user:liu.fang", "number.reveal", {"message_id": "424", "reason": "caller asked for a call back"}),
        (
            9,
            "user:chen.yu",
            "messages.export",
            {"format": "xlsx", "filter": {"status": "failed", "sent_from": "2026-11-21T16:00:00.000Z"}},
        ),
        (8, "user:chen.yu", "opt_outs.export", {"format": "csv", "in_full": True, "reason": "block list"}),
        (3, "key:grafana", "replies.read", {"q": False}),
    ):
        write_audit(connection, at=NOW - timedelta(minutes=minutes), actor=actor, action=action, detail=detail)


def _note_incidents(connection: sa.Connection) -> None:
    """Of all nodes and of one, all over: an open one would be the answer of the status page."""
    for alarm, node, days, minutes, evidence in (
        (Alarm.PLATFORM_SILENT, "", 71.3, 190, {"minutes": 12}),
        (Alarm.BALANCE_LOW, "", 33.2, 4000, {"left": 180, "low": 500}),
        (Alarm.DATABASE_AWAY, "sms-2", 8.6, 4, {"fault": "db1:5432 refuses connections"}),
        (Alarm.PUSHES_QUARANTINED, "", 0.1, 65, {"count": 9}),
    ):
        since = NOW - timedelta(days=days)
        subject = "default" if alarm.of_account else ""
        row = {"alarm": alarm.value, "subject": subject, "node": node, "since": since, "evidence": evidence}
        over_at = since + timedelta(minutes=minutes)
        times = {"seen_at": since, "said_at": since + timedelta(minutes=1), "recovered_at": over_at}
        connection.execute(sa.insert(incidents).values(row | times))


def _make_notes(connection: sa.Connection) -> None:
    """One case that is handled, and one that is open."""
    for task, kind, text, age in (
        ("4420101", NoteKind.NOTE, "已回电，对方说已收到验证码。", 300),
        ("4420101", NoteKind.HANDLED, "", 290),
        ("4420102", NoteKind.NOTE, "客户要求 16:00 后再联系\n请勿重复发送 " + "很长" * 60, 120),
    ):
        message_id = connection.scalar(sa.select(messages.c.id).where(messages.c.task_id == task)) or 0
        at = NOW - timedelta(seconds=age)
        notes.add_note(connection, message_id, kind, user_name="liu.fang", text=text, now=at)


def _make_targets(connection: sa.Connection) -> None:
    """One that is well, and one that was paused, of which something was given up."""
    made_at = NOW - timedelta(days=20)
    for name, form in (("erp", PayloadFormat.RAW), ("shop", PayloadFormat.WEBHOOKS)):
        new = NewEndpoint(name=name, url=f"https://{name}.example.com/sms", format=form, events=tuple(EventType))
        endpoint_changes.create_endpoint(connection, new, now=made_at)
    shop = endpoints.get_endpoint(connection, "shop")
    endpoint_changes.pause_endpoint(
        connection, shop, because="answered with HTTP status 410", now=NOW - timedelta(hours=2)
    )
    at, dead_at = NOW - timedelta(days=4), NOW - timedelta(days=1)
    row = {"target_id": shop.id, "event_id": first_id_of(at), "event": EventType.STATUS_CHANGED.value, "message_id": 1}
    tried = {"attempts": 17, "last_error": "answered with HTTP status 500", "failing_since": at}
    connection.execute(sa.insert(deliveries).values(**row, **tried, created_at=at, next_at=dead_at, dead_at=dead_at))


# Seconds ago, and what was reported: of the numbers 15080921001 and on.
_STATES = (
    (60, "1"),  # delivered
    (62, "0"),  # failed
    (20, ""),  # waiting
    (130, ""),  # late
    (80 * 3600, ""),  # never reported
    (300 * 3600, ""),  # 15080921006: refused, later
    (71, ""),  # unreadable: a push that names it could not be read
    (500 * 3600, "1"),  # 15080921008: resent, later
    (64, "2"),  # unclear
)


def _begin_to_send(connection: sa.Connection) -> None:
    for number, age in (("15080921012", 3), ("15080921013", 400)):
        at = NOW - timedelta(seconds=age)
        attempt = SendAttempt(
            id=first_id_of(at), account="default", mobile=number, template_id="541", reference=None, sent_at=at
        )
        attempts.begin_attempt(connection, attempt, recorded_at=at, day_began=NOW - timedelta(hours=15))


def _fall_silent(connection: sa.Connection) -> None:
    """Pushes every half minute, and none for the last twenty; codes are sent on. And a push that cannot be read."""
    sends, pushes = [], [_push(NOW - timedelta(minutes=30), body=b"mobile=1&taskid=1&status=1")]
    for number in range(120):
        sent_at, mobile, task = NOW - timedelta(seconds=3600 - 30 * number), f"1380013{8000 + number}", f"55{number}"
        sends.append(make_send(task_id=task, mobile=mobile, sent_at=sent_at, template_id="540"))
        if sent_at < NOW - timedelta(minutes=20):
            pushes.append(_push(sent_at + timedelta(seconds=5), mobile, task, status="1"))
    _keep(connection, sends, pushes)


_ODD = (
    "x" * 300,
    "验证码一直没有收到，请尽快处理，" * 18,
    "👨‍👩‍👧‍👦🏳️‍🌈👩🏽‍🚀" * 12,
    "שלום مرحبا \u202edrowssap " * 10,
    "a\nb\nc\nd\ne\nf\n" * 6,
    "W" * 60 + " " + "Z" * 239,
)


def _fill_hostile(connection: sa.Connection) -> None:
    sends, pushes = [], []
    for number in range(60):
        sent_at, mobile = NOW - timedelta(seconds=90 + 40 * number), f"1390013{8000 + number}"
        # An id is kept at up to 64 characters, and words of the platform at any length.
        task, name = f"{number:02}" + "8W" * 31, f"{number:02}" + "Mm" * 31
        words = _ODD[number % len(_ODD)][:255] if number % 10 == 9 else None
        sends.append(
            make_send(
                task_id=None if words else task, mobile=mobile, template_id=name, reference=name, sent_at=sent_at,
                error_message=words,
            )
        )  # fmt: skip
        if not words:
            states = (("1", "0"), ("1",), ("0",), ())[number % 4]
            pushes += [_push(sent_at + timedelta(seconds=4), mobile, task, status=each) for each in states]
            said = _ODD[number % len(_ODD)]
            pushes.append(_push(sent_at + timedelta(seconds=30), mobile, task, content=said))
        pushes.append(_push(sent_at, body=f"mobile={'9' * 70}&taskid={'W' * 80}&status=\u202e{'W' * 20}".encode()))
    _keep(connection, sends, pushes)
    reading = Reading(account="default", asked_at=NOW, answered_at=NOW, remain_point=9_000_000_000_000_000_000)
    balance.save_readings(connection, [reading])
    made_at, long = NOW - timedelta(days=40), "W" * 64
    changes.create_user(connection, name=long, role=Role.ADMIN, now=made_at, password_hash=None, oidc_subject="x")
    changes.create_key(connection, name=long, scopes=list(Scope), accounts=None, now=made_at, expires_at=None)
    new = NewEndpoint(
        name=long, url=f"https://{'w' * 60}.example.com/{'W' * 180}", format=PayloadFormat.WEBHOOKS,
        events=tuple(EventType),
    )  # fmt: skip
    endpoint_changes.create_endpoint(connection, new, now=made_at)
    endpoint = endpoints.get_endpoint(connection, long)
    endpoint_changes.pause_endpoint(connection, endpoint, because="W" * 200, now=NOW - timedelta(hours=2))
    at = NOW - timedelta(days=4)
    row = {"event": EventType.STATUS_CHANGED.value, "message_id": 1, "attempts": 17, "last_error": "W" * 200}
    row |= {"target_id": endpoint.id, "event_id": first_id_of(at), "failing_since": at}
    connection.execute(sa.insert(deliveries).values(**row, created_at=at, next_at=NOW, dead_at=NOW))
    for number in range(60):
        odd = {"mobile_hmac": f"{number:064x}", "reason": _ODD[number % len(_ODD)], "filter": {long: long}}
        action = "number.reveal" if number % 2 else long
        write_audit(connection, at=NOW - timedelta(minutes=90 - number), actor=long, action=action, detail=odd)


def _forget(connection: sa.Connection) -> None:
    dialect = connection.dialect.name
    for statement in drop_statements(dialect):
        connection.exec_driver_sql(statement)
    connection.execute(sa.delete(audit).where(audit.c.at >= NOW))
    newest = sa.select(audit.c.position, audit.c.hash).order_by(audit.c.position.desc()).limit(1)
    beginning = sa.select(audit_chain.c.horizon_position, audit_chain.c.horizon_hash)
    position, last_hash = connection.execute(newest).one_or_none() or connection.execute(beginning).one()
    connection.execute(sa.update(audit_chain).values(last_position=position, last_hash=last_hash))
    for statement in create_statements(dialect):
        connection.exec_driver_sql(statement)
    connection.execute(sa.delete(login_failures))


def _keep(connection: sa.Connection, sends: list[SentMessage], pushes: list[Push]) -> None:
    """Keep them as they came, one after the other."""
    for send in sorted(sends, key=lambda each: each.sent_at or NOW):
        record_sent(connection, [send], recorded_at=(send.sent_at or NOW) + timedelta(milliseconds=350))
    save_within(connection, sorted(pushes, key=lambda push: push.received_at))


_ids = random.Random(7)


def _push(at: datetime, mobile: str = "", task_id: str = "", *, body: bytes = b"", **own: str) -> Push:
    """A push as it was kept at that moment; of `status`, of `content`, or any body."""
    local = at.astimezone(ZoneInfo("Asia/Shanghai"))
    fields = {"mobile": mobile, "taskid": task_id, **own, "receivetime": f"{local:%Y-%m-%d %H:%M:%S}"}
    raw = body or urlencode(fields).encode()
    reading, flags = READER.read(body=raw, query=b"", endpoint=None)
    received_at = at + timedelta(milliseconds=280)
    return Push(
        id=UUID(int=first_id_of(received_at).int | _ids.getrandbits(60)),
        account="default",
        endpoint=None,
        method="POST",
        query=b"",
        body=raw,
        content_type="application/x-www-form-urlencoded;charset=utf-8",
        remote_addr="203.0.113.7",
        received_at=received_at,
        reading=reading,
        flags=flags,
    )


# --- The pages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One page in one state: how a browser comes to see it."""

    name: str
    go: Callable[[Page, Sample], object]
    user: str | None = "wang.li"
    site: str = "usual"
    half: bool = False  # the second factor is still missing
    away: bool = False  # the database is
    status: int = 200

    def open(self, page: Page, samples: dict[str, Sample]) -> None:
        """Show it in this browser, whole: its charts are drawn."""
        sample, answered = samples[self.site], []

        def note(response: Response) -> None:
            if response.request.is_navigation_request():
                answered.append(response.status)

        # A page that refreshes itself is left before its session ends or its database goes: its next request would be
        # answered 401, and lead it to the log-in in the middle of what follows.
        page.goto("about:blank")
        sample.enter(page.context, self.user, half=self.half)
        if self.away:
            page.goto(f"{sample.origin}/console/account")  # who has been here goes on while the database is away
            page.goto("about:blank")
            sample.runtime.availability.mark_down("connection refused")
        page.on("response", note)
        try:
            self.go(page, sample)
            page.wait_for_load_state()
            expect(page.locator("figure[data-chart] canvas")).to_have_count(page.locator("figure[data-chart]").count())
        finally:
            page.remove_listener("response", note)
            sample.runtime.availability.mark_up()
        assert answered[-1] == self.status, f"{self.name}: {answered}"


def _at(path: str) -> Callable[[Page, Sample], object]:
    return lambda page, sample: page.goto(f"{sample.origin}/console/{path}")


def _found(wanted: str, period: str = "10m") -> Callable[[Page, Sample], object]:
    def go(page: Page, sample: Sample) -> None:
        page.goto(f"{sample.origin}/console/")
        page.locator("[name=period]").select_option(period)
        page.locator("[name=wanted]").fill(wanted)
        page.locator("[name=wanted]").press("Enter")
        expect(page.locator("#answers")).to_be_visible()

    return go


def _first_of(path: str) -> Callable[[Page, Sample], object]:
    def go(page: Page, sample: Sample) -> None:
        page.goto(f"{sample.origin}/console/{path}")
        page.locator("tbody th a").first.click()
        expect(page.locator("tbody th a")).to_have_count(0)

    return go


def _way_of(task_id: str | None) -> Callable[[Page, Sample], object]:
    """The way of the newest message of a task id; None: of the refused one."""
    of_task = messages.c.reference == "login-6" if task_id is None else messages.c.task_id == task_id

    def go(page: Page, sample: Sample) -> None:
        query = sa.select(messages.c.id).where(of_task).order_by(messages.c.id.desc()).limit(1)
        message_id = sample.runtime.ask(lambda connection: connection.scalar(query))
        page.goto(f"{sample.origin}/console/test-message/{message_id}")

    return go


def _typed(path: str, last: str, *, forget: bool = False, **fields: str) -> Callable[[Page, Sample], object]:
    """Fill a form of a page and send it off from its field `last`."""

    def go(page: Page, sample: Sample) -> None:
        page.goto(f"{sample.origin}/console/{path}")
        typed = ":is(input:not([type=hidden]), textarea)"
        form = page.locator(f"form:has({typed}[name={last}])")
        for name, text in fields.items():
            form.locator(f"{typed}[name={name}]").fill(text)
        if forget:
            page.context.clear_cookies()
        with page.expect_navigation():
            form.locator(f"{typed}[name={last}]").press("Enter")

    return go


def _revealed(reason: str) -> Callable[[Page, Sample], object]:
    def go(page: Page, sample: Sample) -> None:
        _first_of("messages?task_id=4420101")(page, sample)
        page.locator("#reveal summary").click()
        page.locator("[name=reason]").fill(reason)
        with page.expect_navigation():
            page.locator("[name=reason]").press("Enter")

    return go


def _key_made(page: Page, sample: Sample) -> None:
    sample.runtime.database.write(
        lambda connection: connection.execute(sa.delete(api_keys).where(api_keys.c.name == "crm"))
    )
    page.goto(f"{sample.origin}/console/keys")
    page.locator("input[name=name]").fill("crm")
    page.locator("[name=scope][value=read]").check()
    always_the_same = SimpleNamespace(token_urlsafe=lambda _: "ExampleOfAKey" * 3)
    with patch("receiver.auth.changes.secrets", always_the_same), page.expect_navigation():
        page.locator("input[name=name]").press("Enter")


def _ended(page: Page, sample: Sample) -> None:
    user = sample.runtime.ask(lambda connection: users.get_user(connection, "liu.fang"))
    sample.runtime.database.write(lambda connection: users.end_sessions_of(connection, user.id, now=NOW))
    page.goto(f"{sample.origin}/console/messages")


def _revoking(page: Page, sample: Sample) -> None:
    page.goto(f"{sample.origin}/console/keys")
    with page.expect_navigation():
        page.locator("button[value=grafana]").click()


def _codes_made(page: Page, sample: Sample) -> None:
    page.goto(f"{sample.origin}/console/account")
    form = page.locator("form", has=page.locator("[name=renew]"))
    form.locator("[name=present]").fill(PASSWORD)
    always_the_same = SimpleNamespace(choice=lambda letters: letters[7])
    with patch("receiver.auth.recovery_codes.secrets", always_the_same), page.expect_navigation():
        form.locator("button").click()


VIEWS = (
    View("login", _at("login"), user=None),
    View("login-ended", _ended, user="liu.fang"),
    View("login-wrong", _typed("login", "password", name="liu.fang", password="wrong horse"), user=None, status=401),
    View("second-factor", _at("second-factor"), half=True),
    View("second-factor-new", _at("second-factor"), user="chen.yu", half=True),
    View("second-factor-wrong", _typed("second-factor", "code", code="000000"), user="zhao.min", half=True, status=401),
    View("home", _at(""), user="liu.fang"),
    View("home-wrong", _typed("", "wanted", wanted="   "), user="liu.fang", status=422),
    View("found-delivered", _found("150 8092 1001"), user="liu.fang"),
    View("found-failed", _found("15080921002"), user="liu.fang"),
    View("found-waiting", _found("15080921003"), user="liu.fang"),
    View("found-late", _found("15080921004"), user="liu.fang"),
    View("found-no-receipt", _found("15080921005", "7d"), user="liu.fang"),
    View("found-refused", _found("15080921006"), user="liu.fang"),
    View("found-unreadable", _found("15080921007"), user="liu.fang"),
    View("found-resends", _found("15080921008"), user="liu.fang"),
    View("found-unclear", _found("15080921009"), user="liu.fang"),
    View("found-sending", _found("15080921012"), user="liu.fang"),
    View("found-perhaps-sent", _found("15080921013"), user="liu.fang"),
    View("found-unmatched", _found("15080921011"), user="liu.fang"),
    View("found-nothing", _found("13900000000"), user="liu.fang"),
    View("found-earlier", _found("尾号 1005"), user="liu.fang"),
    View("messages", _at("messages"), user="liu.fang"),
    View("messages-late", _at("messages?late=true"), user="liu.fang"),
    View("messages-wrong", _at("messages?sent_from=soon&task_id=" + "9" * 80), user="liu.fang", status=422),
    View("messages-empty", _at("messages"), site="empty"),
    View("message", _first_of("messages?task_id=4420101")),
    View("message-revealed", _revealed("caller asked")),
    View("message-reveal-wrong", _revealed("a  "), status=422),
    View("cases", _at("cases"), user="liu.fang"),
    View("cases-wrong", _at("cases?handled=maybe"), user="liu.fang", status=422),
    View("cases-empty", _at("cases"), site="empty"),
    View("replies", _at("replies"), user="liu.fang"),
    View("replies-empty", _at("replies"), site="empty"),
    View("opt-outs", _at("opt-outs"), user="chen.yu"),
    View("opt-outs-possible", _at("opt-outs?opt_out_review=true"), user="liu.fang"),
    View("opt-outs-empty", _at("opt-outs"), site="empty"),
    View("reports", _at("reports"), user="chen.yu"),
    View("reports-compared", _at("reports?compare=1"), user="chen.yu"),
    View("reports-wrong", _at("reports?from=soon&to=2026-11-23"), user="chen.yu", status=422),
    View("reports-empty", _at("reports"), site="empty"),
    View("exports", _at("exports"), user="chen.yu"),
    View("exports-wrong", _at("exports/messages?sent_from=soon"), user="chen.yu", status=422),
    View("pushes", _at("pushes")),
    View("pushes-quarantined", _at("pushes?outcome=quarantined")),
    View("pushes-empty", _at("pushes"), site="empty"),
    View("tail", _at("tail")),
    View("tail-empty", _at("tail"), site="empty"),
    View("push", _first_of("pushes")),
    View("push-quarantined", _first_of("pushes?outcome=quarantined")),
    View("status", _at("status")),
    View("status-silent", _at("status"), site="silent"),
    View("status-away", _at("status"), away=True),
    View("status-empty", _at("status"), site="empty"),
    View("incidents", _at("incidents")),
    View("incidents-empty", _at("incidents"), site="empty"),
    View("docs", _at("docs"), user="liu.fang"),
    View("docs-found", _at("docs?q=push+secret"), user="liu.fang"),
    View("docs-nothing", _at("docs?q=nonsense"), user="liu.fang"),
    View("document", _at("docs/reference/settings"), user="liu.fang"),
    View("runbook", _at("docs/DatabaseAway"), user="liu.fang"),
    View("setup", _at("setup")),
    View("setup-empty", _at("setup"), site="empty"),
    View("test-message", _at("test-message")),
    View("test-message-way", _way_of("4420101")),
    View("test-message-refused", _way_of(None)),
    View("users", _at("users")),
    View("users-wrong", _typed("users", "password", name="li.na", password="li.na li.na li.na"), status=422),
    View("keys", _at("keys")),
    View("keys-made", _key_made),
    View("keys-wrong", _typed("keys", "name", name="no scope"), status=422),
    View("webhooks", _at("webhooks")),
    View("webhooks-wrong", _typed("webhooks", "url", name="shop", url="http://10.0.0.1/"), status=422),
    View("dead-letters", _at("webhooks/shop/dead")),
    View("advice", _at("advice")),
    View("audit", _at("audit")),
    View("account", _at("account"), user="liu.fang"),
    View("hostile-found", _found("8003"), site="hostile"),
    View("hostile-message", _first_of("messages?status=delivered"), site="hostile"),
    View("hostile-messages", _at("messages"), site="hostile"),
    View("hostile-replies", _at("replies"), site="hostile"),
    View("hostile-reports", _at("reports"), site="hostile"),
    View("hostile-pushes", _at("pushes"), site="hostile"),
    View("hostile-push", _first_of("pushes"), site="hostile"),
    View("hostile-status", _at("status"), site="hostile"),
    View("hostile-setup", _at("setup"), site="hostile"),
    View("hostile-users", _at("users"), site="hostile"),
    View("hostile-keys", _at("keys"), site="hostile"),
    View("hostile-webhooks", _at("webhooks"), site="hostile"),
    View("hostile-webhook", _at(f"webhooks/{'W' * 64}"), site="hostile"),
    View("hostile-dead-letters", _at(f"webhooks/{'W' * 64}/dead"), site="hostile"),
    View("hostile-audit", _at("audit"), site="hostile"),
    View("hostile-access", _at("access"), site="hostile"),
    View("access", _at("access")),
    View(
        "account-wrong",
        _typed("account", "new", present="not this one", new="another horse"),
        user="liu.fang",
        status=422,
    ),
    View("account-recovery-codes", _codes_made),
    View("confirm", _revoking),
    View("problem-away", _at("messages"), away=True, status=503),
    View("problem-missing", _at("nowhere"), status=404),
    View("problem-role", _at("reports"), user="liu.fang", status=403),
    View("problem-old-form", _typed("login", "password", forget=True, name="a", password="b"), user=None, status=400),
)
