"""What is wrong at present: banner, status, setup."""

from __future__ import annotations

import errno
import re
import shutil
import socket
from datetime import UTC, datetime
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from receiver.alerting import run
from receiver.alerting.follow import Incident
from receiver.alerting.incidents import SharedIncidents
from receiver.alerting.node_state import NodeIncidents
from receiver.alerting.rules import Alarm, Finding
from receiver.app import create_app
from receiver.docs import library
from receiver.messages.balance import Reading, save_readings
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.server import ServeProcess
from tests.web.console.staff import (
    DAY,
    HOUR,
    MINUTE,
    NUMBER,
    PASSWORD,
    SECOND,
    Page,
    Staff,
    at,
    keep,
    log_in,
    one_database,
    record,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime


def banners(staff: Staff) -> list[str]:
    page = staff.page("/banner")
    return [given["data-level"] or "" for _, given in page.tags if given.get("class") == "banner"]


def test_banner_speaks_of_silence_quarantine_and_the_database(app: Flask, runtime: Runtime) -> None:
    admin, support = log_in(app, runtime, "admin"), log_in(app, runtime, "support")
    assert (banners(admin), banners(support)) == ([], [])
    now = runtime.now()
    keep(runtime, at(now - HOUR), at(now - HOUR - MINUTE, body=b"mobile=1"), at(now - HOUR - 2 * MINUTE, body=b"x=1"))
    record(runtime, *(make_send(task_id="t", mobile=f"1508092109{n}", sent_at=now - 30 * MINUTE) for n in range(5)))
    page = admin.page("/banner")
    assert "The platform has stopped pushing: the last push came" in page.text
    assert "2 pushes could not be parsed and need a review." in page.text
    assert (banners(admin), banners(support)) == (["alarm", "warn"], ["alarm"])
    assert admin.surely("/pushes/seen").headers["Location"] == "/console/pushes?outcome=quarantined"
    assert banners(admin) == ["alarm"]
    keep(runtime, make_push(body=b"mobile=2"))
    assert "1 push could not be parsed" in admin.page("/banner").text
    admin.get("/status")
    runtime._drainer.stop()  # it would find the database there
    runtime.availability.mark_down("gone")
    assert banners(admin) == ["alarm"]
    assert "The database is unavailable. Pushes are saved on disk" in admin.page("/banner").text


@one_database
def test_status_without_the_database_says_it_is_us_to_whoever_was_seen_before(
    app: Flask, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff, stranger = log_in(app, runtime, "support"), log_in(app, runtime, "support")
    keep(runtime, at(runtime.now() - SECOND))
    assert "Pushes arrive and are saved." in staff.page("/status").at("verdict")
    gone = log_in(app, runtime, "support")
    assert gone.logged_in
    old = str(gone.token)
    gone.post("/logout")
    gone.token = old
    runtime._drainer.stop()
    runtime.availability.mark_down("gone")
    page = staff.page("/status")
    assert page.at("verdict") == "This system needs attention. The platform is not the cause."
    assert "The database is unavailable: gone. Pushes go to the spool" in page.text
    assert "At the present rate" not in page.text  # nothing waits
    monkeypatch.setattr(run, "seconds_left", lambda *_, **__: 7.5 * 3600)
    assert "At the present rate the spool is full in 7.5 hours." in (text := staff.page("/status").text)
    assert re.search(r"full about .*\d\d:\d\d:\d\d at the present rate", text)
    assert "unknown while the database is unavailable" in page.text
    assert "evidence" not in page.by_id
    for other in (stranger, gone):
        assert other.get("/status").status_code == 503
    for path in ("/messages", "/replies", "/messages/1", "/account"):
        answer = staff.get(path)
        assert answer.status_code == (200 if path == "/account" else 503)
    assert staff.post("/look-up", {"wanted": NUMBER}).status_code == 503


@one_database
def test_status_is_shown_where_the_disk_cannot_be_asked(
    app: Flask, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = log_in(app, runtime, "admin")
    assert "<dt>Disk</dt>" in admin.get("/status").text

    def fails(_directory: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    shown = admin.get("/status")
    assert shown.status_code == 200
    assert "<dt>Disk</dt>" not in shown.text


def test_right_after_a_start_without_the_database_every_page_says_so(app: Flask, runtime: Runtime) -> None:
    runtime._drainer.stop()
    runtime.availability.mark_down("gone")
    client = app.test_client()
    for path in ("/console/login", "/console/", "/console/status", "/console/nowhere"):
        answer = client.get(path)
        assert (answer.status_code, Page(answer.text).at("main")[:23]) == (503, "Temporarily unavailable")
    assert client.post("/console/login", data={}).status_code == 503
    assert client.get("/console/static/console.css").status_code == 200


def test_status_of_a_server_that_never_had_a_push_does_not_say_that_all_is_well(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "admin")
    page = staff.page("/status")
    assert page.at("verdict") == "No push has been received yet: finish the setup."
    none_due = "No message of the last 24 hours is due for a receipt."
    assert page._texts["evidence"][0].splitlines()[1:] == ["No push has been received yet.", none_due]
    assert "since pushes arrive" not in page.text
    assert 'href="/console/setup"' in page.html.partition('id="verdict"')[2].partition("</section>")[0]
    keep(runtime, at(runtime.now() - SECOND))
    page = staff.page("/status")
    assert page.at("verdict") == "Pushes arrive and are saved."
    assert "not checked, since pushes arrive" in page.text
    record(runtime, make_send(task_id="t1", sent_at=runtime.now() - SECOND))  # too young
    assert page._texts["evidence"][0].splitlines()[2:] == [none_due]
    record(runtime, make_send(task_id="t2", sent_at=runtime.now() - HOUR))
    keep(runtime, at(runtime.now() - SECOND, task_id="t2"))
    lines = staff.page("/status")._texts["evidence"][0].splitlines()
    assert lines[2:] == ["Every message of the last 24 hours that is due has a receipt."]


def test_status_has_what_the_hotline_asks_for(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "analyst")
    keep(runtime, at(NOON - HOUR, task_id="t9", mobile="13900000000"))
    record(
        runtime,
        make_send(task_id="t1", sent_at=NOON - 30 * MINUTE),
        make_send(task_id="t2", sent_at=NOON - 10 * SECOND),
        *(make_send(task_id=f"u{n}", mobile=f"1390000000{n}", sent_at=NOON - 31 * MINUTE) for n in range(4)),
    )
    page = staff.page("/status")
    lines = [line.strip() for line in page._texts["evidence"][0].splitlines()]
    assert lines == [
        "Times: China Standard Time (UTC+08:00)",
        "Last push received: 2026-11-23 11:00:00",
        "Messages without a receipt (task id, number, sent):",
        "t1  150****1090  2026-11-23 11:30:00",
        *(f"u{n}  139****000{n}  2026-11-23 11:29:00" for n in (3, 2, 1, 0)),
    ]
    # The platform's address refuses connections here.
    assert page.at("verdict") == "No pushes arrive, and the platform cannot be reached from here."
    minutes = [given["data-value"] for _, given in page.tags if "data-value" in given]
    assert len(minutes) == 4 * 60


def test_balance_is_told_with_the_days_that_it_lasts(
    make_runtime: Callable[..., Runtime], clock: time_machine.Traveller
) -> None:
    runtime = make_runtime(balance_low=(("default", 800),))
    readings = [
        Reading(account="default", asked_at=moment, answered_at=moment, remain_point=left)
        for moment, left in ((NOON - 3 * DAY, 1000), (NOON - HOUR, 700))
    ]
    runtime.database.write(lambda connection: save_readings(connection, readings))
    staff = log_in(create_app(runtime), runtime, "analyst")
    ((account, left, as_of, used, days, warned),) = table_of(staff.page("/reports"), "balances")
    assert (account, left, used, days, warned) == ("default", "700", "101.4", "6.9", "800")
    assert "11:00:00" in as_of
    assert "Balance (default)700 · lasts about 6.9 days Low" in staff.page("/status").text


@one_database
def test_a_strangers_push_is_nobodys_fault_while_none_is_missing(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    staff.client.post("/push/wrong-secret-of-some-length", data={"a": "1"})
    wrong = "Pushes are refused: the URL in the platform's console has a wrong secret."
    assert wrong in staff.page("/status").text  # on the first day, it is the platform's
    keep(runtime, at(runtime.now() - HOUR))
    record(runtime, make_send(sent_at=runtime.now() - HOUR))  # as at night: a send, and nothing that waits
    page = staff.page("/status")
    assert page.at("verdict") == "Pushes arrive and are saved."
    assert wrong not in page.text


@one_database
def test_setup_shows_the_urls_and_what_has_come(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    secret = runtime.settings.push_tokens[0][1]
    page = admin.page("/setup")
    assert [page.at(f"url-1-{n}").partition("/push/")[2] for n in (1, 2, 3)] == [
        secret, f"{secret}/receipt", f"{secret}/reply",
    ]  # fmt: skip
    assert "none since the start" in page.at("came")
    admin.client.get(f"/push/{secret}")
    admin.client.post("/push/wrong-secret-of-some-length", data={"a": "1"})
    admin.client.post(f"/push/{secret}", data=b"a=1")
    came = admin.page("/setup").at("came")
    assert "GET · 127.0.0.1" in came
    assert "wrong secret" in came
    assert "not parsed" in came
    assert secret not in admin.page("/audit").html
    assert admin.post("/setup/self-test").status_code == 303
    assert "cannot connect to this server" in admin.page("/setup").text


def test_self_test_lands_in_the_journal_and_in_no_report(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, environment={"RECEIVER_CONSOLE_TOTP": "optional"}) as server:
        made = server.run("users", "create", "boss", "--role", "admin", stdin=f"{PASSWORD}\n")
        assert made.returncode == 0, made.stderr
        browser = _Browser(server)
        assert browser.post("/login", name="boss", password=PASSWORD)[0] == 303
        assert browser.post("/setup/self-test") == (303, "/console/setup")
        page = browser.get("/setup")
        assert re.search(r"Self-test passed: the push was acknowledged in [\d,]+ ms and saved\.", page)
        assert re.search(r"Last push</dt><dd>\s*none yet", page)  # which speaks of the platform
        key = server.make_key("pushes", "reports", "read")
        (push,) = server.request("GET", "/api/v1/pushes", headers=key).json["items"]
        assert (push["outcome"], push["kind"]) == ("accepted", "receipt")
        assert server.request("GET", "/api/v1/messages", headers=key).json["items"] == []
        today = datetime.now(UTC).date()
        report = f"/api/v1/reports/delivery?from={today - DAY}&to={today + 2 * DAY}"
        total = server.request("GET", report, headers=key).json["total"]
        assert (total["sent"], total["unmatched"]) == (0, 0)


class _Browser:
    """Somebody at a real server, by cookie."""

    def __init__(self, server: ServeProcess) -> None:
        self.server = server
        self.cookie = ""

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        answer = self.server.request(method, f"/console{path}", body, headers)
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

    def get(self, path: str) -> str:
        """Open a page."""
        text: str = self._ask("GET", path).body.decode()
        return text

    def post(self, path: str, **fields: str) -> tuple[int, str | None]:
        """Send a form; status and where it leads."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/login"))
        assert found is not None
        answer = self._ask("POST", path, urlencode({"csrf_token": found[1], **fields}).encode())
        return answer.status, answer.headers.get("Location")


def test_status_lists_the_alarms_of_all_nodes_and_of_this_one(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    assert "Open alarms" not in staff.page("/status").text
    begun = runtime.now() - HOUR
    of_all = {Alarm.BALANCE_LOW: [Finding(alarm=Alarm.BALANCE_LOW, subject="shop", evidence={"left": 1, "low": 2})]}
    of_node = {Alarm.SPOOL_GROWING: [Finding(alarm=Alarm.SPOOL_GROWING)]}
    for minute in range(2):
        SharedIncidents(runtime.database).follow(of_all, begun + minute * MINUTE)
        NodeIncidents(runtime.settings.data_dir).follow(of_node, begun + minute * MINUTE)
    text = staff.page("/status").text
    assert "Open alarms" in text
    assert "balance is low: shop" in text
    assert "the spool is growing" in text
    assert "余额不足：shop" in staff.page("/status", headers={"Accept-Language": "zh-CN"}).text


def test_history_lists_the_incidents_of_ninety_days(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    page = staff.page("/incidents")
    assert "Days with incidents: 0 of 90" in page.html
    assert "No incidents." in page.text
    shared = SharedIncidents(runtime.database)
    for day in range(55):
        found = [Finding(alarm=Alarm.BALANCE_LOW, subject="shop", evidence={"left": 1, "low": 2})] if day % 9 else []
        for minute in range(2):
            shared.follow({Alarm.BALANCE_LOW: found}, NOON - (80 - day) * DAY + minute * MINUTE)
    down = Finding(alarm=Alarm.SERVER_DOWN, evidence={"fault": "no answer"})
    ended = Incident(
        alarm=down.alarm, subject="", since=NOON - HOUR, evidence=down.evidence, seen_at=NOON - HOUR,
        said_at=NOON - HOUR + MINUTE, recovered_at=NOON - 51 * MINUTE,
    )  # fmt: skip
    shared.keep_ended("node-b", [ended])
    shared.keep_ended("node-b", [ended])
    for minute in range(2):
        NodeIncidents(runtime.settings.data_dir).follow(
            {Alarm.SPOOL_GROWING: [Finding(alarm=Alarm.SPOOL_GROWING)]}, NOON - 4 * MINUTE + minute * MINUTE
        )
    page = staff.page("/incidents")
    first, second, *others = rows_of(page, "incidents")
    assert [first[1], first[2], first[4]] == ["Ongoing", "4 minutes", socket.gethostname()]
    assert first[3].startswith("The spool is growing: ? bytes are spooled")  # as an older version may have kept it
    assert second == [
        "11:00:00", "11:09:00", "9 minutes",
        "The server accepts no pushes: no answer. The platform's pushes may be lost. Runbook: ServerDown", "node-b",
    ]  # fmt: skip
    assert f'href="/console/docs/{library().find_alarm("ServerDown")}"' in page.html
    low = "Balance is low: shop: The account shop has 1 messages left, fewer than 2. Runbook: BalanceLow"
    assert [row[2:] for row in others[:2]] == [["8 days", low, "all nodes"]] * 2
    assert len(others) == 6
    assert "Days with incidents: 55 of 90" in page.html
    assert table_of(page, "days")[0][1:] == ["2", "Critical"]
    assert staff.page("/incidents?cursor=x", status=422).by_id["error"]["role"] == "alert"


def rows_of(page: Page, name: str) -> list[list[str]]:
    plain = Page(page.html.replace('<table class="rows" ', "<table "))
    return [[" ".join(unescape(re.sub(r"<[^>]+>", "", cell)).split()) for cell in row] for row in table_of(plain, name)]
