"""What the staff pages say: answers, lists, reports, what is wrong, and strangers' text as text."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import time_machine

from receiver.app import create_app
from receiver.domain import first_id_of
from receiver.store import access, write
from receiver.store.balance import Reading, save_readings
from receiver.web.console.journal import hexdump
from tests.conftest import make_key
from tests.factories import NOON, make_push, make_send
from tests.server import ServeProcess
from tests.staff import PASSWORD, Page, Staff, log_in, one_database, plain_runtime
from tests.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask import Flask

    from receiver.domain import Push, SentMessage
    from receiver.runtime import Runtime

NUMBER = "15080921090"
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime whose own address nobody listens on, nor the platform's."""
    return make_runtime(bind=("127.0.0.1", 1), platform_url="http://127.0.0.1:1/smsApi")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Noon in Shanghai, until a test moves it."""
    with time_machine.travel(NOON, tick=False) as travelled:
        yield travelled


def keep(runtime: Runtime, *pushes: Push) -> None:
    write.save_pushes_in(runtime.database, pushes)


def at(moment: datetime, **changes: Any) -> Push:
    """A push of that moment, which says the same of its receivetime."""
    push = make_push(second=int((moment - NOON).total_seconds()), **changes)
    return replace(push, id=first_id_of(moment), received_at=moment)


def record(runtime: Runtime, *sends: SentMessage) -> None:
    runtime.database.write(lambda c: write.record_sent(c, sends, recorded_at=runtime.now()))


def audit(runtime: Runtime) -> list[tuple[str, str, Any]]:
    """Who, what, more; oldest first, without log-ins."""
    lines = runtime.ask(lambda c: access.list_audit(c, 100))[::-1]
    return [(line["actor"], line["action"], line["detail"]) for line in lines]


def sentences(page: Page) -> list[str]:
    return [page.at(name) for name in page.by_id if name == "answer" or re.fullmatch(r"answer-\d+", name)]


# --- Look-ups -------------------------------------------------------------------------------------------


def test_every_state_has_its_sentence(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    numbers = {name: f"150809210{index:02d}" for index, name in enumerate(
        ("delivered", "failed", "unknown", "conflicting", "waiting", "late", "no_receipt", "refused", "dumb",
         "sending", "perhaps", "unmatched", "unreadable")
    )}  # fmt: skip

    def send(name: str, sent_at: datetime, **changes: Any) -> SentMessage:
        return make_send(mobile=numbers[name], task_id=name, template_id=name, sent_at=sent_at, **changes)

    record(
        runtime,
        send("delivered", NOON - 10 * SECOND),
        send("failed", NOON - 10 * SECOND),
        send("unknown", NOON - 10 * SECOND),
        send("conflicting", NOON - 10 * SECOND),
        send("waiting", NOON - 8 * SECOND),
        send("late", NOON - 150 * SECOND),
        send("no_receipt", NOON - 73 * HOUR),
        send("unreadable", NOON - 90 * SECOND),
        make_send(mobile=numbers["refused"], task_id=None, sent_at=NOON - SECOND, error_message="余额不足"),
        make_send(mobile=numbers["dumb"], task_id=None, sent_at=NOON - SECOND, error_message=""),
    )
    runtime.recorder.begin(make_attempt(mobile=numbers["sending"], sent_at=NOON - 3 * SECOND), day_began=NOON - DAY)
    runtime.recorder.begin(make_attempt(mobile=numbers["perhaps"], sent_at=NOON - 61 * SECOND), day_began=NOON - DAY)
    bad = f"mobile={numbers['unreadable']}&taskid=unreadable&status=1&receivetime=soon"
    keep(
        runtime,
        at(NOON - 6 * SECOND, mobile=numbers["delivered"], task_id="delivered"),
        at(NOON - 5 * SECOND, mobile=numbers["failed"], task_id="failed", status="0"),
        at(NOON - 4 * SECOND, mobile=numbers["unknown"], task_id="unknown", status="7"),
        at(NOON - 3 * SECOND, mobile=numbers["conflicting"], task_id="conflicting", status="0"),
        at(NOON - 2 * SECOND, mobile=numbers["conflicting"], task_id="conflicting"),
        at(NOON - 1 * SECOND, mobile=numbers["unmatched"], task_id="unmatched"),
        at(NOON - 30 * SECOND, body=bad.encode()),
    )
    expected = {
        "delivered": "Delivered 11:59:54, 4 seconds after it was sent.",
        "failed": "Not delivered: the operator reported a failure 11:59:55.",
        "unknown": "Unclear: the platform reported 11:59:56 with a status that says neither yes nor no.",
        "conflicting": "Contradictory: the platform has reported both delivered and failed."
        " The last word, 11:59:58: Delivered.",
        "waiting": "Sent 8 seconds ago, no receipt yet.",
        "late": "Sent 2 minutes ago, no receipt yet.",
        "no_receipt": "Sent, no receipt for 73 hours: the operator never reported.",
        "refused": "Refused by the platform: 余额不足",
        "dumb": "Refused by the platform, without a reason.",
        "sending": "On its way to the platform for 3 seconds now.",
        "perhaps": "Perhaps sent, 61 seconds ago: the platform did not say whether it took it.",
        "unmatched": "Delivered 11:59:59; when it was sent is not recorded here.",
        "unreadable": "Sent 90 seconds ago. A report arrived 11:59:30 that we could not read.",
    }
    pages = {name: staff.look_up(number, "7d") for name, number in numbers.items()}
    assert {name: sentences(page) for name, page in pages.items()} == {name: [text] for name, text in expected.items()}
    # A page looks again exactly while what it says may change by itself.
    looks = {name for name, page in pages.items() if "hx-get" in page.by_id["answers"]}
    assert looks == {"waiting", "late", "no_receipt", "sending", "perhaps", "unreadable"}
    assert pages["waiting"].by_id["answers"]["hx-trigger"] == "every 2s"
    announced = {given["data-announce"] for _, given in pages["late"].tags if "data-announce" in given}
    assert announced == {expected["late"]}
    for name, page in pages.items():
        assert numbers[name] in page.text  # in full: it was asked for in full
        assert "What to do:" in page.text
    again = staff.get(str(pages["waiting"].by_id["answers"]["hx-get"]).removeprefix("/console"))
    assert sentences(Page(again.text)) == [expected["waiting"]]
    assert "<html" not in again.text
    chinese = staff.look_up(numbers["late"], headers={"Accept-Language": "zh-CN"})
    assert chinese.tags[0] == ("html", {"lang": "zh-CN"})


@one_database
def test_waiting_message_is_told_how_others_with_its_template_arrive(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    sent_at = NOON - 5 * MINUTE
    record(
        runtime,
        *(make_send(task_id=f"t{n}", mobile=f"139000000{n:02d}", template_id="a", sent_at=sent_at) for n in range(10)),
        *(make_send(task_id=f"u{n}", mobile=f"138000000{n:02d}", template_id="b", sent_at=sent_at) for n in range(5)),
        make_send(task_id="a", template_id="a", sent_at=NOON - 4 * SECOND),
        make_send(task_id="b", template_id="b", sent_at=NOON - 3 * SECOND),
    )
    keep(runtime, *(at(sent_at + 6 * SECOND, task_id=f"t{n}", mobile=f"139000000{n:02d}") for n in range(9)))
    none_of_them = "none of the 5 others with this template in the last 10 minutes arrived either."
    assert sentences(staff.look_up(NUMBER)) == [
        f"Sent 3 seconds ago, no receipt yet; {none_of_them}",
        "Sent 4 seconds ago, no receipt yet; 90% with this template arrived within 6 seconds in the last 10 minutes.",
    ]


def test_nothing_found_earlier_found_and_unreadable_are_told_apart(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    nothing = staff.look_up(NUMBER)
    assert sentences(nothing) == ["Nothing recorded under this number in 30 days."]
    assert "hx-get" in nothing.by_id["answers"]
    assert sentences(staff.look_up("order-17")) == ["Nothing recorded that fits this in 30 days."]
    keep(runtime, at(NOON - MINUTE, body=f"phone={NUMBER}".encode()))
    assert sentences(staff.look_up(NUMBER)) == [
        "A report that seems to be about this arrived 11:59:00, but we could not read it."
    ]
    record(
        runtime,
        make_send(task_id="t1", sent_at=NOON - 31 * DAY),
        make_send(task_id="t2", sent_at=NOON - 3 * HOUR),
        make_send(task_id="t3", sent_at=NOON - 2 * HOUR),
    )
    keep(runtime, at(NOON - 2 * HOUR + 5 * SECOND, task_id="t3"))
    earlier = staff.look_up(NUMBER)
    assert sentences(earlier) == ["Delivered 10:00:05, 5 seconds after it was sent."]
    assert "Nothing in the last 10 minutes. This is the newest before that." in earlier.text
    assert "Nothing in" not in staff.look_up(NUMBER, "24h").text
    assert len(sentences(staff.look_up(NUMBER, "24h"))) == 2
    for wanted, period in (("", "10m"), ("x" * 256, "10m"), ("\u200b", "10m"), (NUMBER, "1y")):
        answer = staff.post("/look-up", {"wanted": wanted, "period": period})
        assert answer.status_code == 422
        assert Page(answer.text).at("error")


def test_resends_stand_together_and_the_last_digits_show_no_number(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    record(
        runtime,
        *(make_send(task_id=f"t{n}", template_id="a", sent_at=NOON - n * MINUTE) for n in range(3)),
        make_send(task_id="other", mobile="13955551090", sent_at=NOON - 9 * MINUTE),
    )
    page = staff.look_up("尾号1090")
    assert len(sentences(page)) == 2
    assert sum(given.get("class") == "attempts" for _, given in page.tags) == 1
    assert "150****1090" in page.text
    assert "139****1090" in page.text
    assert "15080921090" not in page.html
    assert "13955551090" not in page.html
    assert "13955551090" not in staff.look_up("other").html
    assert len(sentences(staff.look_up("139****1090"))) == 1


def test_more_than_fit_on_a_page_are_told_of(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    sends = [make_send(task_id=f"t{n}", mobile=f"1390000{n:04d}"[:7] + "1090", template_id=f"{n}") for n in range(9)]
    record(runtime, *(replace(send, sent_at=NOON - MINUTE) for send in sends[:8]))
    page = staff.look_up("1090")
    assert (len(sentences(page)), "There are more than these." in page.text) == (8, False)
    record(runtime, replace(sends[8], sent_at=NOON - MINUTE))
    page = staff.look_up("1090")
    assert (len(sentences(page)), "There are more than these." in page.text) == (8, True)


@one_database
def test_look_up_is_anothers_and_past_a_day_nobodys(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff, other = log_in(app, runtime, "support"), log_in(app, runtime, "support", name="other")
    path = staff.post("/look-up", {"wanted": NUMBER}).headers["Location"].removeprefix("/console")
    assert NUMBER not in path
    assert (staff.get(path).status_code, other.get(path).status_code) == (200, 404)
    assert staff.get(path.replace("period=10m", "period=x")).status_code == 200
    clock.shift(DAY)
    assert log_in(app, runtime, "support").get(path).status_code == 404


# --- Numbers and the audit ------------------------------------------------------------------------------


def test_number_is_shown_in_full_only_to_whoever_looks_it_up_or_says_why(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    sent_at = runtime.now() - 5 * MINUTE
    record(runtime, make_send(sent_at=sent_at, template_id="540", reference="r-1"))
    extra = urlencode({"mobile": NUMBER, "taskid": "3313746", "content": "hi", "receivetime": "2026-11-23 12:00:00",
                       "dest": f"to {NUMBER}", NUMBER: "x"})  # fmt: skip
    keep(runtime, make_push(body=extra.encode(), content="hi"))
    paths = ("/messages", "/messages/1", "/replies", "/status", "/audit", "/pushes", "/reports", "/exports/messages",
             "/exports/replies", "/exports/messages?format=ndjson", "/reports/templates.csv", "/banner")  # fmt: skip
    for path in paths:
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert NUMBER not in answer.text, path
    message = admin.page("/messages/1")
    assert "150****1090" in message.text
    assert message.text.count("150****1090") == 3  # its own, in a field's value, in a field's name
    assert "150****1090" in admin.page("/status").at("evidence")
    for reason in ("", "  ", "ab", "x" * 256):
        refused = admin.post("/messages/1/reveal", {"reason": reason})
        assert refused.status_code == 422
        assert NUMBER not in refused.text
        assert Page(refused.text).at("error") == "Say why you need to see the number."
    assert not any(action == "number.reveal" for _, action, _ in audit(runtime))
    revealed = admin.post("/messages/1/reveal", {"reason": " a  caller asks "})
    assert NUMBER in Page(revealed.text).text
    assert audit(runtime)[-1] == ("user:admin", "number.reveal", {"message_id": "1", "reason": "a caller asks"})
    assert NUMBER not in admin.get("/messages/1").text
    assert NUMBER not in admin.look_up("r-1").html
    assert NUMBER in admin.look_up("+86 150 8092 1090").text


def test_whatever_is_done_is_noted_without_the_number(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    push = make_push()
    keep(runtime, push)
    admin.look_up(NUMBER)
    admin.get("/replies")
    admin.get(f"/pushes/{push.id}")
    admin.post(f"/pushes/{push.id}/replay")
    admin.post("/pushes/seen")
    admin.get("/setup")
    admin.get("/exports/messages").close()
    admin.post("/users", {"name": "new", "role": "support", "password": PASSWORD})
    admin.post("/users/new", {"action": "role_analyst"})
    admin.post("/users/new", {"action": "disable"})
    key = Page(admin.post("/keys", {"name": "k", "scope": ["read", "pushes"], "expires_days": "7"}).text).at("fresh")
    admin.post("/keys/revoke", {"name": "k"})
    admin.post("/advice", {"language": "en", "late": "Wait."})
    admin.post("/account", {"end": "1"})
    lines = audit(runtime)
    assert {actor for actor, _, _ in lines} == {"user:admin"}
    assert [action for _, action, _ in lines] == [
        "look_up", "replies.read", "push.read", "push.replay", "quarantine.seen", "push_url.read", "messages.export",
        "user.create", "user.role_analyst", "user.disable", "key.create", "key.revoke", "advice.change",
        "user.end_sessions",
    ]  # fmt: skip
    detail = {action: more for _, action, more in lines}
    assert re.fullmatch("[0-9a-f]{64}", detail["look_up"]["mobile_hmac"])
    assert detail["push.replay"] == {"push_id": str(push.id)}
    assert detail["user.create"] == {"name": "new", "role": "support"}
    assert detail["key.create"] == {"name": "k", "scopes": ["pushes", "read"]}
    assert detail["advice.change"] == {"language": "en"}
    told = json.dumps(lines)
    assert not any(secret in told for secret in (NUMBER, PASSWORD, key))


@one_database
def test_users_and_keys_that_cannot_be_made_are_told_and_not_made(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    good = {"name": "new", "role": "support", "password": PASSWORD}
    for change in ({"name": "li wei"}, {"name": ""}, {"name": "admin"}, {"role": "boss"}, {"password": "short"}):
        answer = admin.post("/users", good | change)
        assert (answer.status_code, bool(Page(answer.text).at("error"))) == (422, True)
        assert PASSWORD not in answer.text
    assert admin.post("/users/admin", {"action": "role_support"}).status_code == 303
    assert admin.logged_in  # nobody takes their own rights away
    assert admin.post("/users/nobody", {"action": "disable"}).status_code == 404
    key = {"name": "k", "scope": "read"}
    for change in ({"name": " "}, {"name": "x" * 65}, {"scope": "boss"}, {"expires_days": "0"},
                   {"expires_days": "９"}, {"expires_days": "9" * 5000}, {"expires_days": "-1"}):  # fmt: skip
        assert admin.post("/keys", key | change).status_code == 422
    assert runtime.ask(access.list_keys) == []
    for name in ("a/b", "..", "键 & <b>"):
        assert admin.post("/keys", {"name": name, "scope": "read"}).status_code == 200
        assert admin.post("/keys", {"name": name, "scope": "read"}).status_code == 422
        revoke = {given["value"] for tag, given in admin.page("/keys").tags if given.get("name") == "name"} - {""}
        assert revoke == {name}
        assert admin.post("/keys/revoke", {"name": name}).status_code == 303
    assert all(found.revoked_at for found in runtime.ask(access.list_keys))
    assert admin.post("/keys/revoke", {"name": "nobody"}).status_code == 404


@one_database
def test_teams_own_advice_is_told_in_its_language(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    assert admin.post("/advice", {"language": "en", "nothing": " Ask  <b>Li</b>. "}).status_code == 303
    assert admin.post("/advice", {"language": "en", "late": "x" * 501}).status_code == 422
    assert "Ask <b>Li</b>." in admin.look_up(NUMBER).text
    assert "Ask <b>Li</b>." not in admin.look_up(NUMBER, headers={"Accept-Language": "zh-CN"}).text
    admin.post("/advice", {"language": "en"})
    assert "digit by digit" in admin.look_up(NUMBER).text


# --- Text of strangers ----------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}",
    "{% raw %}{{ config }}",
    "%(name)s %s ${7*7}",
    "javascript:alert(1)",
    "]]><!-- -->",
    "&lt;b&gt;&#x3c;",
    "</textarea></pre></title>",
    "pay\u202egnp.exe",
    "a\u2066b\u2069",
    "zero\u200bwidth\u00ad",
    "=1+1",
)
BENIGN = tuple(f"text {number}" for number in range(len(HOSTILE)))


def hostile_rows(runtime: Runtime, texts: tuple[str, ...], number: str) -> tuple[list[int], list[Push]]:
    """A message with these texts wherever strangers can put one, a refused one for each; and its pushes."""
    sent_at = runtime.now() - MINUTE
    task_id = f"t{number}"
    pushes = []
    for index, text in enumerate(texts):
        fields = {"mobile": number, "taskid": task_id, "receivetime": f"2026-11-23 12:00:{index:02d}"}
        said = {"content": text} if index % 2 else {"status": text}
        more = {f"name{index}{text}": text}
        pushes.append(make_push(body=urlencode(fields | said | more).encode(), content="x" if index % 2 else None))
    pushes[-1] = replace(pushes[-1], content_type=texts[0], method="POST")
    sends = [make_send(mobile=number, task_id=task_id, template_id=texts[0], reference=texts[1], sent_at=sent_at)]
    for index, text in enumerate(texts):
        at_ = sent_at - (index + 1) * SECOND
        error = {"reference": text, "template_id": f"{text}{index}", "error_message": text}
        sends.append(make_send(mobile=number, task_id=None, sent_at=at_, **error))
    record(runtime, *sends)
    keep(runtime, *pushes)
    rows = runtime.ask(lambda c: c.exec_driver_sql(f"SELECT id FROM messages WHERE mobile = '{number}' ORDER BY id"))
    return [row[0] for row in rows], pushes


def test_text_of_strangers_changes_no_page(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    mild, mild_pushes = hostile_rows(runtime, BENIGN, "15080920001")
    wild, wild_pushes = hostile_rows(runtime, HOSTILE, "15080920002")
    assert all(push.error is None for push in (*mild_pushes, *wild_pushes))
    pairs = [
        *zip((f"/messages/{number}" for number in mild), (f"/messages/{number}" for number in wild), strict=True),
        *((f"/pushes/{a.id}", f"/pushes/{b.id}") for a, b in zip(mild_pushes, wild_pushes, strict=True)),
    ]
    seen = ""
    for calm, hostile in pairs:
        page = admin.page(hostile)
        assert page.shape == admin.page(calm).shape, hostile
        seen += page.text
        assert_harmless(page)
    calm_answer, hostile_answer = admin.look_up("15080920001"), admin.look_up("15080920002")
    assert hostile_answer.shape == calm_answer.shape
    assert_harmless(hostile_answer)
    for path in ("/messages", "/replies", "/pushes"):
        rows = admin.page(path).html.split("<tr id=")[1:]
        assert len({tuple(Page(row.partition("</tr>")[0]).shape) for row in rows}) <= 4  # by state, not by text
        assert_harmless(admin.page(path))
    for text in HOSTILE:
        for unseen in "\u202e\u2066\u2069\u200b\u00ad":
            text = text.replace(unseen, f"U+{ord(unseen):04X}")  # noqa: PLW2901
        assert text in seen, text


def assert_harmless(page: Page) -> None:
    assert not any(unseen in page.html for unseen in "\u202e\u2066\u2069\u200b\u00ad\0")
    assert "alert" not in "".join(
        f"{name}={given[name]}" for _, given in page.tags for name in given if name[:2] == "on"
    )
    assert not any(tag == "img" or str(given.get("href")).startswith("javascript") for tag, given in page.tags)


@one_database
def test_reasons_names_and_what_was_typed_are_text_too(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    keep(runtime, make_push())
    shapes = []
    for text in ("a reason", *HOSTILE[:2], "{{7*7}}\u202e"):
        admin.post("/messages/1/reveal", {"reason": text})
        page = admin.page("/audit")
        assert_harmless(page)
        typed = [
            admin.page("/messages", query_string={"task_id": text}),
            admin.page("/messages", query_string={"status": text}, status=422),
            admin.page("/reports", query_string={"template_id": text, "from": text}, status=422),
            admin.look_up(text),
            Page(admin.post("/users", {"name": text, "role": text}).text),
            Page(admin.post("/keys", {"name": text}).text),
            Page(admin.post("/advice", {"late": "x" * 501, "failed": text}).text),
            Page(Staff(app).post("/login", {"name": text, "password": text, "next": text}).text),
        ]
        shapes.append([each.shape for each in typed])
    assert all(found == shapes[0] for found in shapes)
    assert "{{7*7}}U+202E" in admin.page("/audit").text


def test_ten_thousand_characters_nul_and_emoji_are_shown(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    keep(runtime, make_push(content="长" * 10_000, second=1), make_push(content="a\0b👍\r\nc", second=2))
    text = staff.page("/replies").text
    assert "长" * 10_000 in text
    assert "a␀b👍" in text
    page = staff.page("/messages/1")
    assert page.at("answer") == "Only a reply speaks of this message; that it was sent is not recorded here."
    assert "a␀b👍" in page.text
    assert sentences(staff.look_up(NUMBER)) == ["Nothing recorded under this number in 30 days."]


@one_database
def test_no_cell_of_a_file_begins_a_formula(app: Flask, runtime: Runtime) -> None:
    analyst = log_in(app, runtime, "analyst")
    starts = ("=1+1", "+1", "-1", "@x", "\tx", "\rx")
    record(
        runtime,
        *(make_send(task_id=f"t{n}", template_id=text, reference=text, sent_at=runtime.now() - SECOND)
          for n, text in enumerate(starts)),
    )  # fmt: skip
    for path in ("/reports/templates.csv", "/exports/messages"):
        text = analyst.get(path).get_data().decode("utf-8-sig")
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert {f"'{text}" for text in starts} <= set(cells)


# --- What is wrong --------------------------------------------------------------------------------------


def banners(staff: Staff) -> list[str]:
    page = staff.page("/banner")
    return [given["data-level"] or "" for _, given in page.tags if given.get("class") == "banner"]


def test_banner_speaks_of_silence_quarantine_and_the_database(app: Flask, runtime: Runtime) -> None:
    admin, support = log_in(app, runtime, "admin"), log_in(app, runtime, "support")
    assert (banners(admin), banners(support)) == ([], [])
    now = runtime.now()
    keep(runtime, at(now - HOUR), at(now - HOUR - MINUTE, body=b"mobile=1"), at(now - HOUR - 2 * MINUTE, body=b"x=1"))
    record(runtime, *(make_send(task_id=f"t{n}", sent_at=now - 30 * MINUTE) for n in range(5)))
    page = admin.page("/banner")
    assert "The platform has gone silent: the last push came" in page.text
    assert "2 pushes could not be read and wait to be looked at." in page.text
    assert (banners(admin), banners(support)) == (["alarm", "warn"], ["alarm"])
    assert admin.post("/pushes/seen").headers["Location"] == "/console/pushes?outcome=quarantined"
    assert banners(admin) == ["alarm"]
    keep(runtime, make_push(body=b"mobile=2"))
    assert "1 push could not be read" in admin.page("/banner").text
    admin.get("/status")
    runtime._drainer.stop()  # it would find the database there
    runtime.link.mark_down("gone")
    assert banners(admin) == ["alarm"]
    assert "The database is away. Pushes are kept on disk" in admin.page("/banner").text


@one_database
def test_status_without_the_database_says_it_is_us_to_whoever_was_seen_before(app: Flask, runtime: Runtime) -> None:
    staff, stranger = log_in(app, runtime, "support"), log_in(app, runtime, "support")
    assert "Pushes come in and are kept." in staff.page("/status").at("verdict")
    gone = log_in(app, runtime, "support")
    assert gone.logged_in
    old = str(gone.token)
    gone.post("/logout")
    gone.token = old
    runtime._drainer.stop()
    runtime.link.mark_down("gone")
    page = staff.page("/status")
    assert page.at("verdict") == "Something here needs a hand; the platform is not the cause."
    assert "The database is away; pushes are kept on disk meanwhile." in page.text
    assert "not known without the database" in page.text
    assert "evidence" not in page.by_id
    for other in (stranger, gone):
        assert other.get("/status").status_code == 503
    for path in ("/messages", "/replies", "/messages/1", "/account"):
        answer = staff.get(path)
        assert answer.status_code == (200 if path == "/account" else 503)
    assert staff.post("/look-up", {"wanted": NUMBER}).status_code == 503


@one_database
def test_right_after_a_start_without_the_database_every_page_says_so(app: Flask, runtime: Runtime) -> None:
    runtime._drainer.stop()
    runtime.link.mark_down("gone")
    client = app.test_client()
    for path in ("/console/login", "/console/", "/console/status", "/console/nowhere"):
        answer = client.get(path)
        assert (answer.status_code, Page(answer.text).at("main")[:7]) == (503, "Not now")
    assert client.post("/console/login", data={}).status_code == 503
    assert client.get("/console/static/console.css").status_code == 200


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
    assert page.at("verdict") == "Neither do pushes reach us, nor do we reach the platform."
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
    assert "Balance (default)700 · for about 6.9 days Low" in staff.page("/status").text


@one_database
def test_a_strangers_push_is_nobodys_fault_while_none_is_missing(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    staff.client.post("/push/wrong-secret-of-some-length", data={"a": "1"})
    wrong = "Pushes are refused: the URL in the platform's console has a wrong secret."
    assert wrong in staff.page("/status").text  # on the first day, it is the platform's
    keep(runtime, at(runtime.now() - HOUR))
    record(runtime, make_send(sent_at=runtime.now() - HOUR))  # as at night: a send, and nothing that waits
    page = staff.page("/status")
    assert page.at("verdict") == "Pushes come in and are kept."
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
    assert "could not be read" in came
    assert secret not in admin.page("/audit").html
    assert admin.post("/setup/self-test").status_code == 303
    assert "did not get through" in admin.page("/setup").text


def test_self_test_lands_in_the_journal_and_in_no_report(tmp_path: Path) -> None:
    with ServeProcess(tmp_path, environment={"RECEIVER_CONSOLE_TOTP": "optional"}) as server:
        made = server.run("users", "create", "boss", "--role", "admin", stdin=f"{PASSWORD}\n")
        assert made.returncode == 0, made.stderr
        browser = _Browser(server)
        assert browser.post("/login", name="boss", password=PASSWORD)[0] == 303
        assert browser.post("/setup/self-test") == (303, "/console/setup")
        page = browser.get("/setup")
        assert re.search(r"The self-test was acknowledged in [\d,]+ ms and kept\.", page)
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


# --- Lists ----------------------------------------------------------------------------------------------


def rows_of(page: Page, letter: str) -> list[str]:
    return [name[1:] for name in page.by_id if re.fullmatch(f"{letter}[0-9a-f-]+", name)]


def test_lists_are_narrowed_and_paged_from_newest_to_oldest(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "analyst")
    now = runtime.now()
    sends = [make_send(task_id=f"t{n}", template_id=f"{n % 2}", sent_at=now - n * HOUR) for n in range(60)]
    record(runtime, *sends)
    keep(runtime, make_push(task_id="t0"), make_push(task_id="t1", status="0"), make_push(task_id="x", content="退订"))
    everyone = staff.page("/messages")
    first = rows_of(everyone, "m")
    (older,) = [given["href"] for _, given in everyone.tags if given.get("rel") == "next"]
    then = staff.page(str(older).removeprefix("/console"))
    both = [*first, *rows_of(then, "m")]
    assert len(first) == 50
    assert len(both) == 61
    assert both == sorted(set(both), key=int, reverse=True)
    assert "hx-get" in everyone.by_id["rows"]
    assert "hx-get" not in then.by_id["rows"]  # an older page stands still
    assert "← Newest" in then.text
    assert not any(given.get("rel") == "next" for _, given in then.tags)
    counts = {
        "status=delivered": 1, "status=failed": 1, "template_id=1": 30, "task_id=t7": 1, "matched=false": 1,
        "late=true": 50, f"sent_from={(now + 8 * HOUR - 90 * MINUTE):%Y-%m-%dT%H:%M}": 2, "status=refused": 0,
    }  # fmt: skip
    found = {query: len(rows_of(staff.page(f"/messages?{query}"), "m")) for query in counts}
    assert found == counts
    assert len(rows_of(staff.page("/replies?opt_out=true"), "r")) == 1
    assert len(rows_of(staff.page("/replies?q=退"), "r")) == 1
    assert len(rows_of(staff.page("/replies?q=x"), "r")) == 0
    cursor = re.search(r"cursor=([^&]+)", str(older))
    assert cursor is not None
    moved = staff.page(f"/messages?template_id=1&cursor={cursor[1]}", status=422)
    assert moved.at("cursor-error")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/messages?status=lost", "status"),
        ("/messages?late=maybe", "late"),
        ("/messages?conflicting=1", "conflicting"),
        ("/messages?sent_from=yesterday", "sent_from"),
        ("/messages?sent_to=2026-13-01T00:00", "sent_to"),
        ("/messages?task_id=" + "x" * 300, "task_id"),
        ("/messages?account=nobody", "account"),
        ("/messages?cursor=x", "cursor"),
        ("/replies?opt_out=x", "opt_out"),
        ("/replies?q=%00", "q"),
        ("/replies?received_to=x", "received_to"),
        ("/pushes?outcome=lost", "outcome"),
        ("/pushes?received_from=x", "received_from"),
        ("/exports/messages?format=doc", "format"),
        ("/exports/messages?nonsense=1", "nonsense"),
        ("/reports?from=soon", "from"),
        ("/reports?to=2026-02-30", "to"),
        ("/reports?from=2026-11-23&to=2026-11-22", "to"),
        ("/reports?from=2020-01-01&to=2026-11-22", "from"),
        ("/reports?from=0001-01-01", "from"),
        ("/reports?to=9999-12-31", "to"),
        ("/reports?account=nobody", "account"),
        ("/reports?template_id=%00", "template_id"),
        ("/reports/days.csv?from=soon", "from"),
    ],
)
def test_what_cannot_be_used_is_named(path: str, field: str, admin_of_plain: Staff) -> None:
    page = admin_of_plain.page(path, status=422)
    assert page.at(f"{field}-error")


@pytest.fixture(scope="module")
def admin_of_plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staff]:
    """An administrator, for what no database changes."""
    with plain_runtime(tmp_path_factory.mktemp("console")) as runtime:
        yield log_in(create_app(runtime), runtime, "admin")


@pytest.mark.parametrize("message_id", ["0", "999999999999999999", "9999999999999999999", "99999999999999999999"])
def test_there_is_no_message_under_an_id_that_nobody_gave(message_id: str, app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    assert staff.get(f"/messages/{message_id}").status_code == 404
    assert staff.post(f"/messages/{message_id}/reveal", {"reason": "because"}).status_code in (404, 405)


def test_journal_shows_each_byte_and_reads_again(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    admin = log_in(create_app(runtime), runtime, "admin")
    body = b"mobile=15080921090&taskid=1&status=1&receivetime=2026%2F11%2F23+12:00:00&x=\xff\x00"
    odd, good = make_push(body=body), make_push(task_id="2")
    keep(runtime, odd, good)
    assert rows_of(admin.page("/pushes"), "p") == [str(good.id), str(odd.id)]
    assert rows_of(admin.page("/pushes?outcome=quarantined"), "p") == [str(odd.id)]
    page = admin.page(f"/pushes/{odd.id}")
    assert "000000  6d 6f 62 69 6c 65 3d 31 35 30 38 30 39 32 31 30  mobile=150809210" in page.html
    assert "U+0000" in page.text
    assert admin.get("/pushes/nonsense").status_code == 404
    assert admin.post("/pushes/nonsense/replay").status_code == 404
    answer = admin.post(f"/pushes/{odd.id}/replay")
    assert answer.headers["Location"] == f"/console/pushes/{odd.id}"
    assert "It still cannot be read." in admin.page(f"/pushes/{odd.id}").text
    mended = make_runtime(time_formats=("%Y/%m/%d %H:%M:%S",))
    other = log_in(create_app(mended), mended, "admin")
    other.post(f"/pushes/{odd.id}/replay")
    assert "It could be read now" in other.page(f"/pushes/{odd.id}").text
    assert rows_of(admin.page("/pushes?outcome=quarantined"), "p") == []
    assert len(rows_of(admin.page("/messages"), "m")) == 2


def test_hexdump_is_by_sixteen() -> None:
    assert hexdump(b"") == ""
    assert hexdump(bytes(range(0x3F, 0x50)) + b"\xff") == (
        "000000  3f 40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e  ?@ABCDEFGHIJKLMN\n"
        "000010  4f ff                                            O."
    )


# --- Reports --------------------------------------------------------------------------------------------


def table_of(page: Page, name: str) -> list[list[str]]:
    html = page.html.partition(f'<table id="table-{name}">')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in html.split("<tr>")[1:]]


def test_figures_are_those_of_the_api_and_each_file_is_its_table(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "analyst")
    record(
        runtime,
        *(make_send(task_id=f"t{n}", template_id="a", sent_at=NOON - 2 * HOUR) for n in range(4)),
        *(make_send(task_id=f"u{n}", template_id=None, sent_at=NOON - DAY) for n in range(3)),
        *(make_send(task_id=f"v{n}", template_id="a", sent_at=NOON - 8 * DAY) for n in range(2)),
        make_send(task_id=None, sent_at=NOON - HOUR, error_message="余额不足"),
    )
    keep(
        runtime,
        *(at(NOON - 2 * HOUR + 5 * SECOND, task_id=f"t{n}") for n in range(3)),
        at(NOON - DAY + 9 * SECOND, task_id="u0", status="0"),
        at(NOON - 8 * DAY + 9 * SECOND, task_id="v0"),
        at(NOON - HOUR, task_id="u1", content="退订"),
    )
    span = "from=2026-11-22&to=2026-11-23"
    page = staff.page(f"/reports?{span}")
    tiles = re.findall(r'tile-value">([^<]*)<', page.html)
    bearer = {"Authorization": make_key(runtime)}
    asked = {"from": "2026-11-22T00:00:00+08:00", "to": "2026-11-24T00:00:00+08:00", "group_by": "day"}
    api = staff.client.get("/api/v1/reports/delivery", query_string=asked, headers=bearer).json
    total = api["total"]
    assert tiles == [str(total["sent"]), str(total["delivered"]), "42.9%", str(total["failed"]),
                     str(total["no_receipt"]), f"{total['latency_p50_seconds']} seconds"]  # fmt: skip
    assert (total["sent"], total["delivered"], total["delivery_rate"]) == (7, 3, pytest.approx(3 / 7))
    assert table_of(page, "days") == [
        ["2026-11-22", "0", "1", "0", "2", "3", "0", "0"],
        ["2026-11-23", "3", "0", "0", "1", "4", "1", "0"],
    ]
    assert table_of(page, "replies") == [["2026-11-22", "0", "0"], ["2026-11-23", "1", "1"]]
    of_a = staff.page(f"/reports?{span}&template_id=a")
    assert re.findall(r'tile-value">([^<]*)<', of_a.html)[:2] == ["4", "3"]
    compared = staff.page("/reports?from=2026-11-17&to=2026-11-23&compare=1")
    assert "before: 2" in compared.text
    assert "before: 50%" in compared.text
    assert table_of(compared, "rates")[-1] == ["2026-11-23", "75%", "–"]
    assert table_of(compared, "rates")[5] == ["2026-11-22", "0%", "50%"]
    files = [str(given["href"]) for _, given in compared.tags if ".csv" in str(given.get("href"))]
    assert len(files) == 7
    for file in files:
        answer = staff.client.get(file)
        assert (answer.status_code, answer.mimetype) == (200, "text/csv")
        name = str(re.search(r"/(\w+)\.csv", file)[1])
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}_2026-11-17_2026-11-23.csv"'
        heading, *rows = csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig")))
        table = table_of(compared, name)
        assert len(heading) == len(rows[0]) if rows else True
        if name != "balances":
            assert [row[0] or "none given" for row in rows] == [re.sub("<.*?>", "", row[0]) for row in table]
        if name in ("days", "replies", "minutes"):  # the others have units in the table
            assert rows == table
