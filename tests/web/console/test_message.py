"""The page of a message: its number in full, to whom and how long."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from tests.harness.factories import NOON, make_push, make_send
from tests.web.console.staff import (
    HOUR,
    MINUTE,
    NUMBER,
    SECOND,
    Page,
    at,
    audit,
    keep,
    log_in,
    one_database,
    record,
)

if TYPE_CHECKING:
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

REASON = {"reason": "a caller asks"}


@one_database
def test_a_revealed_number_is_seen_for_ten_minutes_by_that_session_alone(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    keep(runtime, make_push(), make_push(task_id="other"))
    mine, other = log_in(app, runtime, "support"), log_in(app, runtime, "support", name="other")
    answer = mine.post("/messages/1/reveal", REASON)
    assert NUMBER not in str(answer.headers)
    assert mine.get("/messages/1/reveal").location == "/console/messages/1"
    for staff, path, seen in ((mine, "1", True), (mine, "1", True), (mine, "2", False), (other, "1", False)):
        assert (NUMBER in staff.get(f"/messages/{path}").text) is seen
    assert other.get("/messages/1/reveal").location == "/console/messages/1"
    assert [detail for _, action, detail in audit(runtime) if action == "number.reveal"] == [
        {"message_id": "1", "reason": REASON["reason"]}
    ]
    mine.post("/messages/1/reveal", {"reason": f"called from {NUMBER}"})
    assert audit(runtime)[-1][2]["reason"] == "called from 150****1090"  # the audit has no number in full
    own, of_other = mine.token, other.token
    assert own is not None
    assert of_other is not None
    mine.token = of_other
    assert NUMBER not in mine.get("/messages/1").text  # the reason in this cookie was another user's
    mine.token = own
    clock.shift(10 * MINUTE - SECOND)
    assert NUMBER in mine.get("/messages/1").text
    clock.shift(2 * SECOND)
    assert NUMBER not in mine.get("/messages/1").text


@one_database
def test_twenty_revealed_numbers_are_remembered_and_the_cookie_stays_small(app: Flask, runtime: Runtime) -> None:
    record(runtime, *(make_send(task_id=f"t{number}") for number in range(30)))
    staff = log_in(app, runtime, "support")
    for number in range(1, 31):
        staff.post(f"/messages/{number}/reveal", REASON)
    seen = [number for number in range(1, 31) if NUMBER in staff.get(f"/messages/{number}").text]
    assert seen == list(range(11, 31))
    cookie = staff.client.get_cookie("receiver_console", path="/console")
    assert cookie is not None
    assert len(cookie.value) < 1000


def titles(*pages: Page) -> list[str]:
    return [page.html.partition("<title>")[2].partition("</title>")[0] for page in pages]


@one_database
def test_a_case_is_copied_as_text_with_dates_and_without_the_number(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    record(
        runtime,
        make_send(task_id="t1", template_id="540", reference="r\n1", sent_at=NOON - 2 * MINUTE),
        make_send(task_id="t2", template_id="540", reference=f"<b> {NUMBER}", sent_at=NOON - MINUTE),
    )
    keep(runtime, at(NOON - 50 * SECOND, task_id="t2", status="1"), at(NOON, task_id="t2", content="State: Failed"))
    staff = log_in(app, runtime, "support")
    expected = """State: Delivered
Delivered Nov 23, 2026 11:59:10, 10 seconds after it was sent.
Number: 150****1090
Task id: t2
Reference: <b> 150****1090
Template: 540
Sent: Nov 23, 2026 11:58:00 · Pending · t1
Sent: Nov 23, 2026 11:59:00 · Delivered · t2
Receipt: Delivered · Nov 23, 2026 11:59:10 · status 1
Reply: Nov 23, 2026 12:00:00
What to do: """
    found = staff.look_up(NUMBER)
    text = html.unescape(found.html.partition('id="case-text-2" tabindex="0">')[2].partition("</pre>")[0])
    begin, advice, end = text.partition("What to do: ")
    assert (begin + advice, end.splitlines()[1:]) == (
        expected,
        [
            "As of: Nov 23, 2026 12:00:00 · China Standard Time (UTC+08:00)",
            "http://localhost/console/messages/2",
        ],
    )
    assert found.by_id["link-2"]["href"] == "/console/messages/2"
    assert [given["data-copy"] for _, given in found.tags if "data-copy" in given] == ["#link-2", "#case-text-2"]
    page = staff.page("/messages/1", headers={"Accept-Language": "zh-CN", "X-Forwarded-Proto": "https"})
    assert "状态：等待回执\n" in page.html
    assert "\n业务编号：r 1\n" in page.html
    assert titles(found, page) == ["Delivered · *1090 · receiver", "等待回执 · *1090 · receiver"]
    assert found.by_id["answers"]["data-title"] == "Delivered · *1090"


@one_database
def test_every_time_on_a_message_has_its_date_and_elsewhere_on_paper(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    record(runtime, make_send(sent_at=NOON - MINUTE))
    keep(runtime, at(NOON - 50 * SECOND))
    staff = log_in(app, runtime, "support")
    texts = re.findall(r"<time[^>]*>([^<]*)</time>", staff.page("/messages/1").html)
    assert len(texts) > 4
    assert all(text.startswith("Nov 23, 2026 1") for text in texts)
    listed = re.findall(r"<time[^>]*>[^<]*</time>", staff.page("/messages").html)
    assert listed[0] == ('<time datetime="2026-11-23T03:59:00.000+00:00" data-day="Nov 23, 2026">11:59:00</time>')


def test_a_message_leads_to_those_before_and_after_it_to_the_number(app: Flask, runtime: Runtime) -> None:
    ages = {"t1": 5, "t2": 1, "t3": 3}  # t3 was recorded last, and sent in between
    record(runtime, *(make_send(task_id=task, sent_at=runtime.now() - age * HOUR) for task, age in ages.items()))
    record(runtime, make_send(mobile="13800138000", sent_at=runtime.now()))
    staff = log_in(app, runtime, "support")

    def around(message_id: int) -> dict[str, str]:
        tags = staff.page(f"/messages/{message_id}").tags
        links = [given for _, given in tags if given.get("rel") in ("prev", "next")]
        return {str(link["rel"]): str(link["href"]).rpartition("/")[2] for link in links}

    assert [around(number) for number in range(1, 5)] == [{"next": "3"}, {"prev": "3"}, {"prev": "1", "next": "2"}, {}]


@one_database
def test_the_address_of_anothers_look_up_says_what_to_ask_for(app: Flask, runtime: Runtime) -> None:
    staff, other = log_in(app, runtime, "support"), log_in(app, runtime, "support", name="other")
    path = staff.post("/look-up", {"wanted": NUMBER}).headers["Location"].removeprefix("/console")
    assert "ask your colleague for the link of the message" in other.page(path, status=404).text
