"""What comes by itself: the tail of pushes, and a test message's way."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from receiver.app import create_app
from receiver.auth import changes
from receiver.db.encryption.ciphers import Keyring
from receiver.db.engine import Database
from receiver.maintenance.rekey import encrypt
from tests.conftest import ENCRYPTION_KEYS
from tests.harness.factories import NOON, make_send
from tests.harness.platforms import SETTING, scripted, stand_in
from tests.web.console.staff import NUMBER, SECOND, Page, at, audit, create, keep, log_in, one_database, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import time_machine
    from flask import Flask

    from receiver.config import Settings
    from receiver.core import Push
    from receiver.runtime import Runtime
    from receiver.simulator import Simulator
    from tests.web.console.staff import Staff

POLL = {"HX-Request": "true"}


def rows_of(html: str) -> list[list[str]]:
    html = html.partition('<tbody id="tail-rows">')[2] or html
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in html.split("<tr id=")[1:]]
    return [[" ".join(unescape(re.sub(r"<[^>]+>", "", cell)).split()) for cell in row] for row in rows]


def ids_of(html: str) -> list[UUID]:
    return [UUID(found) for found in re.findall(r'<tr id="p([^"]+)"', html)]


@pytest.mark.parametrize("keys", [(), (("one", bytes(range(32))),)], ids=["plain", "encrypted"])
def test_tail_shows_the_newest_pushes_with_masked_numbers_and_no_content(
    make_runtime: Callable[..., Runtime], settings: Settings, clock: time_machine.Traveller, keys: Any
) -> None:
    if keys and not ENCRYPTION_KEYS:
        database = Database(settings.database_url)
        encrypt(database, Keyring(keys))
        database.close()
    runtime = make_runtime(encryption_keys=ENCRYPTION_KEYS or keys)
    admin = log_in(create_app(runtime), runtime, "admin")
    assert "No push yet." in admin.page("/tail").text
    record(runtime, make_send(task_id="t1", sent_at=NOON - 8 * SECOND))
    pushes = [
        at(NOON - 4 * SECOND, task_id="t1"),
        at(NOON - 3 * SECOND, task_id="t1", content="退订"),
        at(NOON - 2 * SECOND, task_id="t2", status="REJECTED"),
        at(NOON - SECOND, body=b"mobile=1&taskid=1&status=1&receivetime=x"),
    ]
    keep(runtime, *pushes)
    page = admin.page("/tail")
    masked = "150****1090"
    assert rows_of(page.html) == [
        [
            "11:59:59",
            "–",
            "Not parsed mobile: not a phone number; receivetime: not of the form yyyy-MM-dd HH:mm:ss",
            "–",
            "–",
            "–",
        ],
        ["11:59:58", "Receipt", "Unclear REJECTED", masked, "t2", "–"],
        ["11:59:57", "Reply Opt-out", "–", masked, "t1", "5 seconds"],
        ["11:59:56", "Receipt", "Delivered", masked, "t1", "4 seconds"],
    ]
    assert ids_of(page.html) == [push.id for push in reversed(pushes)]
    assert NUMBER not in page.html
    assert "退订" not in page.html
    assert admin.get(f"/pushes/{pushes[0].id}").status_code == 200
    assert f'href="/console/pushes/{pushes[0].id}"' in page.html


def test_tail_asks_only_for_what_is_newer_and_misses_nothing_that_commits_late(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    admin = log_in(app, runtime, "admin")
    old, newest, late = (at(NOON - n * SECOND, task_id=f"t{n}") for n in (30, 5, 7))
    keep(runtime, old, newest)
    keep(runtime, late)  # its id is lower, and it was not there before
    assert ids_of(admin.get(f"/tail?after={newest.id}", headers=POLL).text) == [newest.id, late.id]
    clock.shift(6)
    quiet = admin.get(f"/tail?after={newest.id}", headers=POLL)
    assert (quiet.status_code, quiet.text) == (204, "")
    keep(runtime, *(at(NOON, task_id=f"n{n}") for n in range(60)))
    answer = admin.get(f"/tail?after={newest.id}", headers=POLL).text
    assert len(ids_of(answer)) == 50
    assert old.id not in ids_of(answer)
    assert "<html" not in answer
    assert len(answer) < 60_000
    for path in ("/tail?after=nonsense", "/tail"):
        assert len(ids_of(admin.get(path, headers=POLL).text)) == 50
    assert "<html" in admin.get(f"/tail?after={newest.id}").text  # by hand: the page


def test_tail_of_a_bound_user_is_of_their_accounts(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(push_tokens=(("default", "a" * 22), ("zeta", "b" * 22)))
    keep(runtime, *(push_of(account, n) for n, account in enumerate(["default", "zeta", "zeta", "default"])))
    create(runtime, "bound", "admin")
    runtime.database.write(lambda c: changes.change_user(c, "bound", now=runtime.now(), accounts=["zeta"]))
    app = create_app(runtime)
    bound = log_in(app, runtime, "admin", name="bound")
    assert [row[4] for row in rows_of(bound.page("/tail").html)] == ["t2", "t1"]
    everybody = rows_of(log_in(app, runtime, "admin").page("/tail").html)
    assert [row[4:6] for row in everybody] == [["t3", "default"], ["t2", "zeta"], ["t1", "zeta"], ["t0", "default"]]


def push_of(account: str, number: int) -> Push:
    return at(NOON + number * SECOND, account=account, task_id=f"t{number}")


# --- A test message -----------------------------------------------------------------------------------------


@pytest.fixture
def platform() -> Iterator[Simulator]:
    with stand_in() as platform:
        yield platform


@pytest.fixture
def sending(make_runtime: Callable[..., Runtime], platform: Simulator) -> Runtime:
    """A runtime that sends through a stand-in."""
    return make_runtime(
        platform_url=f"http://127.0.0.1:{platform.port}/smsApi", platform_credentials=SETTING, bind=("127.0.0.1", 1)
    )


def form_of(staff: Staff, **changes: str) -> dict[str, str]:
    key = re.search(r'name="key" value="([^"]+)"', staff.get("/test-message").text)
    assert key is not None
    return {"key": key[1], "mobile": "150 8092 1090", "template_id": "540", "code": "739164", "sure": "1"} | changes


def test_test_message_is_sent_once_and_shows_its_way(sending: Runtime, platform: Simulator) -> None:
    admin = log_in(create_app(sending), sending, "admin")
    form = form_of(admin)
    answers = [admin.post("/test-message", form) for _ in range(2)]  # as by a double click
    (place,) = {answer.headers["Location"] for answer in answers}
    assert [answer.status_code for answer in answers] == [303, 303]
    assert re.fullmatch(r"/console/test-message/\d+", place)
    assert platform.ledger.summary()["sent"] == 1
    page = admin.page(place.removeprefix("/console"))
    assert page.by_id["way"]["hx-trigger"] == "every 2s"
    assert "Accepted · task 3313746 Waiting for the receipt · for 0 seconds" in page.at("way")
    assert "150****1090" in page.text
    assert NUMBER not in page.html
    keep(sending, at(sending.now() + SECOND))  # the task that the stand-in gives first
    page = admin.page(place.removeprefix("/console"))
    assert "Receipt pushed" in page.at("way")
    assert page.at("way").endswith("Delivered")
    assert "hx-trigger" not in page.by_id["way"]
    noted = [detail for _, action, detail in audit(sending) if action == "test_message.send"]
    assert [(detail["account"], detail["template_id"]) for detail in noted] == [("default", "540")] * 2
    assert not {NUMBER, form["code"]} & set(re.findall(r"\d+", str(audit(sending))))
    changed = admin.post("/test-message", form | {"code": "1111"})
    assert (changed.status_code, platform.ledger.summary()["sent"]) == (422, 1)
    assert "This form was sent before with other values." in changed.text
    assert log_in(admin.app, sending, "support").get(place.removeprefix("/console")).status_code == 403


def test_test_message_that_fails_says_what_and_what_to_do(make_runtime: Callable[..., Runtime]) -> None:
    def way(port: int, **headers: str) -> str:
        url = f"http://127.0.0.1:{port}/smsApi"
        runtime = make_runtime(platform_url=url, platform_credentials=SETTING, bind=("127.0.0.1", 1))
        staff = log_in(create_app(runtime), runtime, "admin")
        place = staff.post("/test-message", form_of(staff)).headers["Location"]
        return staff.page(place.removeprefix("/console"), headers=headers).at("way")

    with stand_in(balance=0) as poor:
        assert "Refused by the platform: 余额不足 What to do: top up the account" in way(poor.port)
        assert "平台拒绝：余额不足 处理建议： 请为该账号充值" in way(poor.port, **{"Accept-Language": "zh-CN"})
    told = way(1)
    assert "Not sent: " in told
    assert "check that this server reaches RECEIVER_PLATFORM_URL; nothing was sent" in told
    with scripted(lambda connection: connection.close()) as (port, _):
        told = way(port)
    assert "Not confirmed" in told
    assert "look at the phone" in told


def test_faulty_form_of_a_test_message_sends_nothing(sending: Runtime, platform: Simulator) -> None:
    admin = log_in(create_app(sending), sending, "admin")
    for wrong, name in (
        ({"mobile": "123"}, "mobile"), ({"template_id": "x"}, "template_id"), ({"code": "1"}, "code"),
        ({"account": "nobody"}, ""), ({"sure": ""}, ""), ({"key": ""}, ""),
    ):  # fmt: skip
        form = {field: text for field, text in form_of(admin, **wrong).items() if text}
        answer = admin.post("/test-message", form)
        assert answer.status_code == 422, wrong
        if name:
            assert Page(answer.text).by_id[f"{name}-error"]["role"] == "alert"
    assert platform.ledger.summary()["sent"] == 0
    assert [action for _, action, _ in audit(sending)] == []


@one_database
def test_without_credentials_the_page_says_what_is_missing(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    assert "RECEIVER_PLATFORM_CREDENTIALS has no account" in admin.page("/test-message").text
    assert admin.post("/test-message", {"mobile": NUMBER}).status_code == 422
