"""What a look-up is answered, to whom numbers are shown, and what is noted of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from receiver.auth import api_keys, changes
from receiver.db.tables import tombstones
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.sending.test_sending import make_attempt
from tests.web.console.staff import (
    DAY,
    HOUR,
    MINUTE,
    NUMBER,
    PASSWORD,
    SECOND,
    Page,
    at,
    audit,
    keep,
    log_in,
    one_database,
    record,
    sentences,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    import time_machine
    from flask import Flask

    from receiver.core import SentMessage
    from receiver.runtime import Runtime

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
        "unknown": "Unclear: the platform's receipt of 11:59:56 has a status that means neither delivered nor failed.",
        "conflicting": "Conflicting: the platform reported both delivered and failed."
        " The latest receipt, 11:59:58: Delivered.",
        "waiting": "Sent 8 seconds ago, no receipt yet.",
        "late": "Sent 2 minutes ago, no receipt yet.",
        "no_receipt": "Sent 73 hours ago: the operator sent no receipt.",
        "refused": "Refused by the platform: 余额不足",
        "dumb": "Refused by the platform, without a reason.",
        "sending": "Being submitted to the platform for 3 seconds.",
        "perhaps": "Possibly sent 61 seconds ago: the platform did not confirm the request.",
        "unmatched": "Delivered 11:59:59. The send time is not recorded.",
        "unreadable": "Sent 90 seconds ago. A receipt arrived 11:59:30 that could not be parsed.",
    }
    pages = {name: staff.look_up(number, "7d") for name, number in numbers.items()}
    assert {name: sentences(page) for name, page in pages.items()} == {name: [text] for name, text in expected.items()}
    # A page looks again exactly while what it says may change by itself.
    looks = {name for name, page in pages.items() if "hx-get" in page.by_id["answers"]}
    assert looks == {"waiting", "late", "no_receipt", "sending", "perhaps", "unreadable"}
    assert pages["waiting"].by_id["answers"]["hx-trigger"] == "every 2s"
    announced = {given["data-announce"] for _, given in pages["late"].tags if "data-announce" in given}
    assert announced == {expected["late"]}
    states = {
        name: [given["data-state"] for _, given in page.tags if given.get("class") == "answer"]
        for name, page in pages.items()
    }
    assert states["delivered"] == ["delivered"]
    assert states["conflicting"] == ["unknown"]  # and not delivered
    for name, page in pages.items():
        assert numbers[name] in page.text  # in full: it was asked for in full
        assert "What to do:" in page.text
    again = staff.get(str(pages["waiting"].by_id["answers"]["hx-get"]).removeprefix("/console"))
    assert sentences(Page(again.text)) == [expected["waiting"]]
    assert "<html" not in again.text
    chinese = staff.look_up(numbers["late"], headers={"Accept-Language": "zh-CN"})
    assert chinese.tags[0] == ("html", {"lang": "zh-CN"})


@one_database
@pytest.mark.parametrize(
    ("ahead", "says"),
    [
        (5 * SECOND, "Sent just now, no receipt yet."),
        (
            7 * MINUTE,
            (
                "No receipt yet. By the sender's clock it was sent 12:07:00, which is 7 minutes ahead of this server's"
                " clock."
            ),
        ),
    ],
)
def test_send_that_is_dated_ahead_of_our_clock_is_told_as_such(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, ahead: timedelta, says: str
) -> None:
    record(runtime, make_send(sent_at=NOON + ahead))
    page = log_in(app, runtime, "support").look_up(NUMBER)
    assert sentences(page) == [says]


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
    none_of_them = "In the last 10 minutes, none of the 5 messages with this template arrived."
    assert sentences(staff.look_up(NUMBER)) == [
        f"Sent 3 seconds ago, no receipt yet. {none_of_them}",
        (
            "Sent 4 seconds ago, no receipt yet. Of the 10 messages with this template in the last 10 minutes, 9 were"
            " delivered, most of them within 6 seconds."
        ),
    ]


def test_nothing_found_earlier_found_and_unreadable_are_told_apart(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    nothing = staff.look_up(NUMBER)
    assert sentences(nothing) == ["No record of this number."]
    assert "hx-get" in nothing.by_id["answers"]
    assert sentences(staff.look_up("order-17")) == ["No matching record."]
    keep(runtime, at(NOON - MINUTE, body=f"phone={NUMBER}".encode()))
    assert sentences(staff.look_up(NUMBER)) == [
        "A push that may be about this arrived 11:59:00, but could not be parsed."
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
    assert "Nothing in the last 10 minutes. This is the latest message before that." in earlier.text
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


def test_groups_beyond_the_first_four_are_lines(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    sends = [make_send(task_id=f"t{n}", mobile=f"1390000{n:04d}"[:7] + "1090", template_id=f"{n}") for n in range(5)]
    record(runtime, *(replace(send, sent_at=NOON - MINUTE) for send in sends[:4]))
    page = staff.look_up("1090")
    assert (len(sentences(page)), "Further messages" in page.text) == (4, False)
    record(runtime, replace(sends[4], sent_at=NOON - MINUTE))
    page = staff.look_up("1090")
    assert (len(sentences(page)), "Further messages" in page.text) == (4, True)
    assert page.text.partition("Further messages")[2].count("139****1090") == 1


def links(page: Page) -> set[str]:
    return {str(given["href"]) for tag, given in page.tags if tag == "a" and "/messages/" in str(given.get("href"))}


def test_every_message_of_a_number_can_be_reached(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    sends = [make_send(task_id=f"t{n}", template_id=f"{n}", sent_at=NOON - 31 * DAY + n * MINUTE) for n in range(260)]
    record(runtime, *sends)
    page = staff.look_up(NUMBER, "all")
    seen: set[str] = set()
    pages = 0
    while True:
        pages += 1
        seen |= links(page)
        assert "Enter more of the number" not in page.text  # it is whole
        following = [given["href"] for tag, given in page.tags if tag == "a" and given.get("rel") == "next"]
        assert ("more messages to this number than fit here" in page.text) is bool(following)
        if not following:
            break
        page = staff.page(str(following[0]).removeprefix("/console"))
    assert (len(seen), pages) == (260, 13)
    by_end = staff.look_up("1090", "all")
    assert "Enter more of the number" in by_end.text


# --- The answer of several attempts ---------------------------------------------------------------------

TOO_SOON = "相同手机号码一分钟之内只可发送一次"


def refused(task: int, sent_at: datetime, template_id: str | None = "a") -> SentMessage:
    return make_send(
        task_id=None, reference=f"r{task}", template_id=template_id, sent_at=sent_at, error_message=TOO_SOON
    )


def test_code_that_arrived_is_the_answer_and_not_the_refusal_after_it(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    record(
        runtime,
        make_send(task_id="t1", template_id="a", sent_at=NOON - 30 * SECOND),
        refused(2, NOON - 22 * SECOND),
    )
    keep(runtime, at(NOON - 26 * SECOND, task_id="t1"))
    page = staff.look_up(NUMBER)
    (sentence,) = sentences(page)
    assert sentence == (
        "Delivered 11:59:34, 4 seconds after it was sent."
        f" Requested again 8 seconds later: refused by the platform ({TOO_SOON})."
    )
    assert "Requested 2 times, sent 1 time:" in page.text
    assert "Nothing was sent" not in page.text
    states = [given["data-state"] for tag, given in page.tags if given.get("class") == "badge"]
    assert sorted(map(str, states)) == ["delivered", "refused"]
    assert page.by_id["answer-1"]
    chinese = staff.look_up(NUMBER, headers={"Accept-Language": "zh-CN"})
    assert "8秒后又请求了一次：平台拒绝" in chinese.text
    record(runtime, refused(3, NOON - 10 * SECOND))
    (sentence,) = sentences(staff.look_up(NUMBER))
    assert "Requested 2 more times after that, the last one 20 seconds later: refused" in sentence


def test_code_of_long_before_is_not_the_answer_to_a_new_request(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    record(
        runtime,
        make_send(task_id="t1", template_id="a", sent_at=NOON - 9 * MINUTE),
        make_send(task_id="t2", template_id="a", sent_at=NOON - 5 * SECOND),
    )
    keep(runtime, at(NOON - 9 * MINUTE + SECOND, task_id="t1"))
    page = staff.look_up(NUMBER)
    assert sentences(page) == ["Sent 5 seconds ago, no receipt yet."]
    assert "Sent 2 times:" in page.text


def test_case_is_whole_whatever_the_period(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    times = (NOON - 19 * MINUTE, NOON - 10 * MINUTE, NOON - 2 * MINUTE)
    record(runtime, *(make_send(task_id=f"t{n}", template_id="a", sent_at=sent) for n, sent in enumerate(times)))
    keep(runtime, at(times[0] + SECOND, task_id="t0", status="0"))
    for moved in range(3):
        page = staff.look_up(NUMBER)
        assert "Sent 3 times:" in page.text, moved
        assert (
            page.text.count("19 minutes ago") + page.text.count("22 minutes ago") + page.text.count("25 minutes ago")
        ), moved
        clock.shift(3 * MINUTE)


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@one_database
def test_advice_goes_by_the_age_of_the_message(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, language: str
) -> None:
    staff = log_in(app, runtime, "support")
    old, new = {
        "en": ("Let them request a new code: they can do so at once.", "If it still does not arrive"),
        "zh-CN": ("可以马上重新获取", "仍未收到"),
    }[language]
    record(runtime, make_send(task_id="t1", sent_at=NOON - 90 * SECOND))
    for shift, wanted, other in ((0, new, old), (150, old, new)):
        clock.shift(shift)
        text = staff.look_up(NUMBER, headers={"Accept-Language": language}).text
        assert (wanted in text, other in text) == (True, False)


# --- What is known, and what is not ---------------------------------------------------------------------

NEVER_SENT = "the message was never sent"


def test_never_sent_is_said_of_one_whole_number_of_which_nothing_is_known(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    record(runtime, make_send(mobile="13900000000", sent_at=NOON - MINUTE))
    page = staff.look_up(NUMBER)
    assert NEVER_SENT in page.text
    assert "Number looked up: 150 8092 1090" in page.text
    assert "没有发出" in staff.look_up(NUMBER, headers={"Accept-Language": "zh-CN"}).text
    for pasted in ("1090", "150****1090", "t-77", f"{NUMBER} 15911110000", f"{NUMBER} 1591111000", "1508092109"):
        assert NEVER_SENT not in staff.look_up(pasted).text, pasted
    bound = users_of_account(runtime, app)
    assert NEVER_SENT not in bound.look_up(NUMBER).text  # another account may have sent it


def users_of_account(runtime: Runtime, app: Flask) -> Any:
    bound = log_in(app, runtime, "support", name="bound")
    runtime.database.write(lambda c: changes.change_user(c, "bound", now=runtime.now(), accounts=["default"]))
    return bound


def test_of_an_erased_number_it_is_open_what_was_sent(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    row = {"mobile_hmac": runtime.mobile_hmac(NUMBER), "forgotten_at": NOON, "actor": "cli", "counts": {}}
    runtime.database.write(lambda c: c.execute(sa.insert(tombstones), row))
    assert NEVER_SENT not in staff.look_up(NUMBER).text
    assert NEVER_SENT in staff.look_up("13900000000").text


def test_where_sends_are_not_recorded_nothing_was_never_sent(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    keep(runtime, at(NOON - MINUTE, mobile="13900000000"))
    assert NEVER_SENT not in log_in(app, runtime, "support").look_up(NUMBER).text


def test_older_than_the_period_is_shown_and_never_denied(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    times = (NOON - 100 * DAY, NOON - 40 * DAY, NOON - 3 * HOUR)
    record(runtime, *(make_send(task_id=f"t{n}", sent_at=sent) for n, sent in enumerate(times[:2])))
    for pasted in (NUMBER, "1090", "150****1090", "t1"):
        page = staff.look_up(pasted, "30d")
        assert "Nothing in the last 30 days. This is the latest message before that." in page.text, pasted
        assert "Sent 40 days ago: the operator sent no receipt." in sentences(page), pasted
    record(runtime, make_send(task_id="t2", sent_at=times[2]))
    page = staff.look_up(NUMBER, "24h")
    assert len(sentences(page)) == 1
    (everything,) = [given["href"] for tag, given in page.tags if tag == "a" and "period=all" in str(given.get("href"))]
    assert len(sentences(staff.page(str(everything).removeprefix("/console")))) == 3


@pytest.mark.parametrize("pasted", ["13700137000", "7000", "137****7000"])
@pytest.mark.parametrize("task_id", ["9", None])
def test_who_only_replied_is_found(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, pasted: str, task_id: str | None
) -> None:
    staff = log_in(app, runtime, "support")
    record(runtime, make_send(mobile="13900000000", sent_at=NOON - MINUTE))
    keep(runtime, at(NOON - 40 * DAY, mobile="13700137000", task_id=task_id, content="退订"))
    page = staff.look_up(pasted)
    assert "退订" in page.text
    assert "Only a reply" in page.text
    assert NEVER_SENT not in page.text
    assert ("A reply from this number was received." in page.text) is (pasted == "13700137000")


@pytest.mark.parametrize(
    ("content", "word"),
    [("退订", "Opt-out"), ("退丁", "Possible opt-out"), ("别发了", "Possible opt-out"), ("谢谢", "")],
)
def test_reply_that_may_be_an_opt_out_is_marked_so(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, content: str, word: str
) -> None:
    staff = log_in(app, runtime, "support")
    record(runtime, make_send(task_id="t1", sent_at=NOON - MINUTE))
    keep(runtime, at(NOON - 30 * SECOND, task_id="t1", content=content))
    text = staff.look_up(NUMBER).text
    assert f"Reply {word} {content}".replace("  ", " ") in text
    assert ("· Opt-out" in text, "· Possible opt-out" in text) == (word == "Opt-out", word == "Possible opt-out")


def test_receipt_of_a_masked_number_that_fits_no_message_is_named_as_possible(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    record(runtime, make_send(mobile="13900000000", sent_at=NOON - MINUTE))
    keep(runtime, at(NOON - MINUTE, mobile="186****7777", task_id="t9", status="0"))
    for pasted in ("18612347777", "186****7777", "7777", "t9"):
        page = staff.look_up(pasted)
        assert "Receipts that may be about this" in page.text, pasted
        assert "Receipt: Failed" in page.text
        assert NEVER_SENT not in page.text
    assert "Receipts that may be about this" not in staff.look_up("18612347778").text


@pytest.mark.parametrize(
    ("pasted", "says"),
    [
        ("1508092109", "1508092109 has only 10 digits. A mobile number has 11."),
        ("150809210901", "150809210901 has 12 digits. A mobile number has 11."),
        ("15O80921090", "15O80921090 has a letter in it"),
        ("1.50809E+10", "1.50809E+10 was rounded by a spreadsheet"),
    ],
)
def test_near_miss_is_named_and_is_no_part_of_another_number(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller, pasted: str, says: str
) -> None:
    staff = log_in(app, runtime, "support")
    keep(runtime, at(NOON - MINUTE, body=f"phone={NUMBER}".encode()))
    page = staff.look_up(pasted)
    assert says in page.text
    assert NEVER_SENT not in page.text
    assert "could not be parsed" not in page.text  # that push is about another number
    assert not sentences(page)


def test_several_numbers_are_all_answered(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    record(runtime, make_send(task_id="t1", sent_at=NOON - 10 * SECOND), refused(2, NOON - 5 * SECOND, None))
    keep(runtime, at(NOON - 6 * SECOND, task_id="t1"))
    page = staff.look_up(f"{NUMBER}\r\n15911110000")
    for text in (
        "Number looked up: 150 8092 1090",
        "Delivered 11:59:54",
        "Number looked up: 159 1111 0000",
        "No record of this number.",
    ):
        assert text in page.text
    whole = [str(given["href"]) for tag, given in page.tags if tag == "a" and "only=" in str(given.get("href"))]
    assert len(whole) == 2
    first = staff.page(whole[0].removeprefix("/console"))
    assert "Timeline" in first.text
    assert "All numbers of this look-up" in first.text
    lines = [detail for _, action, detail in audit(runtime) if action == "look_up"]
    assert len({detail["mobile_hmac"] for detail in lines}) == 2


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
    assert message.text.count("150****1090") == 4  # its own, twice; in a field's value, in a field's name
    assert "150****1090" in admin.page("/status").at("evidence")
    for reason in ("", "  ", "ab", "x" * 256):
        refused = admin.post("/messages/1/reveal", {"reason": reason})
        assert refused.status_code == 422
        assert NUMBER not in refused.text
        assert Page(refused.text).at("error") == "Enter a reason for viewing the full number."
    assert not any(action == "number.reveal" for _, action, _ in audit(runtime))
    revealed = admin.post("/messages/1/reveal", {"reason": " a  caller asks "})
    assert (revealed.status_code, revealed.location) == (303, "/console/messages/1")
    assert audit(runtime)[-1] == ("user:admin", "number.reveal", {"message_id": "1", "reason": "a caller asks"})
    assert NUMBER in admin.page("/messages/1").text
    assert audit(runtime)[-1][1] == "message.read"
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
    admin.surely("/pushes/seen")
    admin.get("/setup")
    admin.get("/exports/messages").close()
    admin.post("/users", {"name": "new", "role": "support", "password": PASSWORD})
    admin.post("/users/new", {"action": "role_analyst"})
    admin.surely("/users/new", {"action": "disable"})
    key = Page(admin.post("/keys", {"name": "k", "scope": ["read", "pushes"], "expires_days": "7"}).text).at("fresh")
    admin.surely("/keys/revoke", {"name": "k"})
    admin.post("/advice", {"language": "en", "late": "Wait."})
    admin.post("/account", {"end": "1"})
    lines = audit(runtime)
    assert {actor for actor, _, _ in lines} == {"user:admin"}
    assert [action for _, action, _ in lines] == [
        "look_up", "replies.read", "push.read", "push.replay", "quarantine.seen", "push_url.read", "messages.export",
        "user.create", "user.role", "user.disable", "key.create", "key.revoke", "advice.change",
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
    assert runtime.ask(api_keys.list_keys) == []
    for name in ("a/b", "..", "键 & <b>"):
        assert admin.post("/keys", {"name": name, "scope": "read"}).status_code == 200
        assert admin.post("/keys", {"name": name, "scope": "read"}).status_code == 422
        revoke = {given["value"] for tag, given in admin.page("/keys").tags if given.get("name") == "name"} - {""}
        assert revoke == {name}
        assert admin.surely("/keys/revoke", {"name": name}).status_code == 303
    assert all(found.revoked_at for found in runtime.ask(api_keys.list_keys))
    assert admin.post("/keys/revoke", {"name": "nobody"}).status_code == 404


@one_database
def test_key_that_was_never_used_does_not_read_as_one_that_never_ends(app: Flask, runtime: Runtime) -> None:
    make_key(runtime, api_keys.Scope.READ)
    page = log_in(app, runtime, "admin").page("/access", headers={"Accept-Language": "zh-CN"})
    assert page.html.index("从未使用") < page.html.index("永不过期")


@one_database
def test_teams_own_advice_is_told_in_its_language(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")
    assert admin.post("/advice", {"language": "en", "nothing": " Ask  <b>Li</b>. "}).status_code == 303
    assert admin.post("/advice", {"language": "en", "late": "x" * 501}).status_code == 422
    assert "Ask <b>Li</b>." in admin.look_up(NUMBER).text
    assert "Ask <b>Li</b>." not in admin.look_up(NUMBER, headers={"Accept-Language": "zh-CN"}).text
    admin.post("/advice", {"language": "en"})
    assert "digit by digit" in admin.look_up(NUMBER).text
