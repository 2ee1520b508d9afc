"""Filters of the console's lists: spans by name, numbers under an opaque address, hits, and what is wrong in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.db.tables import look_ups
from receiver.support.number_list import parse_numbers
from receiver.web.lists.spans import SPANS
from tests.harness.factories import make_push, make_send
from tests.web.console.staff import (
    DAY,
    HOUR,
    MINUTE,
    NUMBER,
    SECOND,
    Page,
    Staff,
    audit,
    keep,
    log_in,
    one_database,
    record,
)
from tests.web.console.test_lists import rows_of

if TYPE_CHECKING:
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

OTHER, UNKNOWN = "13900000001", "13800000000"


def by_numbers(staff: Staff, numbers: str, path: str = "/messages/numbers") -> Page:
    answer = staff.post(path, {"numbers": numbers})
    assert answer.status_code == 303
    return staff.page(answer.headers["Location"].removeprefix("/console"))


def tasks_of(page: Page) -> list[str]:
    return re.findall(r'class="said">(t\d+)<', page.html)


def test_lists_are_in_the_order_of_the_times_that_they_show(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    record(runtime, make_send(task_id="t2", sent_at=now - MINUTE), make_send(task_id="t1", sent_at=now))
    record(runtime, *(make_send(task_id=f"t{n}", sent_at=now - n * HOUR) for n in (4, 3)))  # imported afterwards
    page = staff.page("/messages")
    assert tasks_of(page) == ["t1", "t2", "t3", "t4"]
    assert "4 entries" in page.at("rows")


def test_span_by_name_means_the_same_on_another_day(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    ages = {"t1": 5 * MINUTE, "t2": 30 * MINUTE, "t3": 2 * HOUR, "t4": DAY, "t5": 3 * DAY, "t6": 9 * DAY}
    record(runtime, *(make_send(task_id=task, sent_at=now - age) for task, age in ages.items()))
    found = {name: tasks_of(staff.page(f"/messages?range={name}")) for name in SPANS}
    assert found == {
        "10m": ["t1"],
        "1h": ["t1", "t2"],
        "today": ["t1", "t2", "t3"],
        "yesterday": ["t4"],
        "7d": ["t1", "t2", "t3", "t4", "t5"],
    }
    clock.shift(DAY)
    staff = log_in(app, runtime, "support")
    assert tasks_of(staff.page("/messages?range=yesterday")) == ["t1", "t2", "t3"]
    assert tasks_of(staff.page("/messages?range=today")) == []


@one_database
def test_span_keeps_the_other_filters_and_gives_way_to_times(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    record(runtime, *(make_send(task_id=f"t{n}", template_id=f"{n % 2}", sent_at=now - n * HOUR) for n in range(3)))
    page = staff.page("/messages?template_id=0&sent_from=2026-01-01T00:00&range=1h")
    assert tasks_of(page) == ["t0", "t2"]
    links = {given["href"] for _, given in page.tags if "range=" in str(given.get("href"))}
    assert {f"/console/messages?range={name}&template_id=0" for name in SPANS} <= links
    narrowed = staff.page("/messages?range=1h")
    assert ("input", {"type": "hidden", "name": "range", "value": "1h"}) in narrowed.tags
    (current,) = [given for _, given in narrowed.tags if given.get("aria-current") == "true"]
    assert current["href"] == "/console/messages?range=1h"
    assert staff.page("/messages?range=soon", status=422).at("range-error")


@one_database
def test_span_is_that_of_the_first_page(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    record(runtime, *(make_send(task_id=f"t{n}", sent_at=now - 9 * MINUTE - n * SECOND / 2) for n in range(60)))
    first = staff.page("/messages?range=10m")
    (older,) = [str(given["href"]) for _, given in first.tags if given.get("rel") == "next"]
    clock.shift(5 * MINUTE)
    assert len(tasks_of(first)) == 50
    assert len(tasks_of(staff.page(older.removeprefix("/console")))) == 10


@one_database
def test_more_hits_than_are_counted_are_so_many_at_least(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)"
    insert = f"INSERT INTO messages (account, task_id, mobile) {numbers} SELECT 'default', 't' || i, '1' FROM n"
    runtime.database.write(lambda connection: connection.exec_driver_sql(insert))
    assert "At least 10,000 entries" in staff.page("/messages").at("rows")


def test_numbers_narrow_a_list_and_stand_in_no_address(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    record(runtime, make_send(task_id="t1", mobile=NUMBER, sent_at=now - MINUTE))
    record(runtime, make_send(task_id="t2", mobile=OTHER, sent_at=now), make_send(task_id="t3", mobile="13700000000"))
    keep(
        runtime,
        make_push(task_id="t1", mobile=NUMBER, content="hello"),
        make_push(task_id="t3", content="bye", mobile="13700000000"),
    )
    answer = staff.post(
        "/messages/numbers?range=7d", {"numbers": f"{NUMBER}\r\n\r\n +86 {OTHER} \r\n{NUMBER},{UNKNOWN}"}
    )
    address = answer.headers["Location"]
    assert re.fullmatch(r"/console/messages\?range=7d&numbers=[\w-]{22}", address)
    page = staff.page(address.removeprefix("/console"))
    assert tasks_of(page) == ["t2", "t1"]
    assert NUMBER in page.at("rows")  # as it was typed
    assert "Nothing found for 1 number 13800000000" in page.text
    assert "2 entries" in page.at("rows")
    assert tasks_of(staff.page(f"{address.removeprefix('/console')}&status=failed")) == []
    replies = by_numbers(staff, NUMBER, "/replies/numbers")
    assert len(rows_of(replies, "r")) == 1
    assert "hello" in replies.text
    assert [entry[1:] for entry in audit(runtime) if "look_up" in entry[1]] == [
        *(("messages.look_up", {"mobile_hmac": runtime.mobile_hmac(number)}) for number in (NUMBER, OTHER, UNKNOWN)),
        ("replies.look_up", {"mobile_hmac": runtime.mobile_hmac(NUMBER)}),
    ]
    many = [f"150{index:08d}" for index in range(51)]
    staff.post("/messages/numbers", {"numbers": "\n".join(many)})
    hashes = [runtime.mobile_hmac(number) for number in many]
    assert audit(runtime)[-1][1:] == ("messages.look_up", {"numbers": 51, "mobile_hmacs": hashes})
    everything = "".join(str(given) for _, given in page.tags)
    assert NUMBER not in everything


def test_list_of_numbers_is_for_the_user_who_typed_it(app: Flask, runtime: Runtime) -> None:
    staff, other = log_in(app, runtime, "support"), log_in(app, runtime, "admin")
    record(runtime, make_send(task_id="t1", mobile=NUMBER))
    address = staff.post("/messages/numbers", {"numbers": NUMBER}).headers["Location"].removeprefix("/console")
    assert tasks_of(staff.page(address)) == ["t1"]
    page = other.page(address, status=422)
    assert "belongs to another user" in page.at("numbers-error")
    assert tasks_of(page) == []
    assert staff.page("/messages?numbers=none", status=422).at("numbers-error")


@one_database
@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ("", "Enter at least one number."),
        (" \r\n ,", "Enter at least one number."),
        (f"{NUMBER}\r\nabc\r\n12", "Not phone numbers: abc, 12"),
        ("150****1090", "Not phone numbers: 150****1090"),
        ("\r\n".join("abcdefg"), "Not phone numbers: a, b, c, d, e, and 2 more."),
        ("\r\n".join(str(13900000000 + n) for n in range(501)), "At most 500 numbers. These are 501."),
    ],
)
def test_list_of_numbers_that_cannot_be_used_is_named_and_stays_in_its_field(
    typed: str, fault: str, app: Flask, runtime: Runtime
) -> None:
    staff = log_in(app, runtime, "support")
    answer = staff.post("/messages/numbers?status=failed", {"numbers": typed})
    page = Page(answer.text)
    assert answer.status_code == 422
    assert page.at("numbers-error") == fault
    if typed.strip(" \r\n,"):
        assert " ".join(typed.split()) in page.text
    assert runtime.ask(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(look_ups))) == 0


def test_export_of_a_list_has_its_span_its_numbers_and_its_order(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    now = runtime.now()
    ages = {"t1": 2 * HOUR, "t2": 2 * MINUTE, "t3": 3 * MINUTE, "t4": MINUTE, "t5": 9 * MINUTE}
    numbers = {"t3": OTHER, "t4": UNKNOWN}
    record(
        runtime,
        *(make_send(task_id=t, mobile=numbers.get(t, NUMBER), sent_at=now - age) for t, age in ages.items()),
    )
    answer = staff.post("/messages/numbers?range=1h", {"numbers": f"{NUMBER},{OTHER}"})
    page = staff.page(answer.headers["Location"].removeprefix("/console"))
    (link,) = {str(given["href"]) for _, given in page.tags if "format=csv" in str(given.get("href"))}
    lines = staff.client.get(link).get_data(as_text=True).splitlines()
    assert [task for line in lines for task in re.findall(r"\bt\d\b", line)] == tasks_of(page) == ["t2", "t3", "t5"]
    assert NUMBER in "".join(lines)  # as it was typed
    assert staff.get("/exports/messages?format=csv&numbers=none").status_code == 404
    assert staff.get("/exports/messages?format=csv&range=soon").status_code == 422


def test_five_hundred_numbers_are_found_in_any_order(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    numbers = [str(13900000000 + n) for n in range(500)]
    now = runtime.now()
    record(
        runtime, *(make_send(task_id=f"t{n}", mobile=numbers[n], sent_at=now - n * SECOND) for n in range(0, 500, 5))
    )
    page = by_numbers(staff, "\n".join(reversed(numbers)))
    assert tasks_of(page) == [f"t{n}" for n in range(0, 250, 5)]
    assert "100 entries" in page.at("rows")
    assert "Nothing found for 400 numbers" in page.text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("15080921090", ["15080921090"]),
        ("15080921090\n13900000001", ["15080921090", "13900000001"]),
        (
            "15080921090，13900000001；13900000002\t13900000003",
            ["15080921090", "13900000001", "13900000002", "13900000003"],
        ),
        ("+86 150-8092-1090\r\n\r\n086 15080921090", ["15080921090"]),
        ("１５０８０９２１０９０", ["15080921090"]),
    ],
)
def test_column_of_numbers_is_read(text: str, numbers: list[str]) -> None:
    found = parse_numbers(text)
    assert (found.numbers, found.wrong) == (numbers, [])


@one_database
def test_faults_of_choices_stand_at_their_fields_and_nothing_is_said_to_be_empty(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    page = staff.page("/messages?status=lost&late=maybe", status=422)
    (status,) = [given for tag, given in page.tags if tag == "select" and given.get("name") == "status"]
    assert status["aria-describedby"] == "status-error"
    assert page.at("status-error") == "Not a valid choice."
    span = staff.page("/messages?sent_from=2026-11-23T10:00&sent_to=2026-11-22T10:00", status=422)
    assert span.at("sent_to-error") == "The end is before the beginning."
    assert "Nothing was searched" in span.at("rows")
    assert "No entries" not in span.text


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("/messages", False),
        ("/messages?status=failed&range=today", False),  # links above the fields say it
        ("/messages?template_id=541", True),
        ("/replies?q=x", True),
        ("/pushes?received_from=never", True),
    ],
)
def test_fields_are_open_on_phones_where_they_say_more(app: Flask, runtime: Runtime, path: str, opened: bool) -> None:
    html = log_in(app, runtime, "admin").client.get(f"/console{path}").text
    assert ('<details class="folded" open>' in html, '<details class="folded">' in html) == (opened, not opened)
