"""The journal: why pushes could not be parsed, as a filter with counts, and many parsed again at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from receiver.app import create_app
from tests.harness.factories import make_push
from tests.web.console.staff import Page, audit, keep, log_in, one_database
from tests.web.console.test_lists import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from receiver.runtime import Runtime

OTHER_TIME = b"mobile=15080921090&taskid=%d&status=1&receivetime=2026%%2F11%%2F23+12:00:00"
NO_NUMBER = b"taskid=1&status=1&receivetime=2026-11-23+12:00:00"


def test_reasons_are_filters_with_counts(app: Flask, runtime: Runtime) -> None:
    keep(runtime, *(make_push(body=OTHER_TIME % number) for number in range(3)), make_push(body=NO_NUMBER), make_push())
    admin = log_in(app, runtime, "admin")
    page = admin.page("/pushes?outcome=quarantined&range=7d")
    links = {str(given["href"]) for _, given in page.tags if "error=" in str(given.get("href"))}
    assert len(links) == 2
    assert "receivetime: not of the form yyyy-MM-dd HH:mm:ss (3)" in page.text
    assert "mobile: missing (1)" in page.text
    (missing,) = (link for link in links if "mobile" in link)
    assert "range=7d" in missing
    assert len(rows_of(admin.page(missing.removeprefix("/console")), "p")) == 1
    assert "error=" not in admin.page("/pushes").html


@one_database
def test_push_in_another_form_is_told_apart(app: Flask, runtime: Runtime) -> None:
    body = json.dumps({"mobile": "15080921090", "taskid": "1"}).encode()
    keep(runtime, made := make_push(body=body), make_push(body=b" <html>"))
    admin = log_in(app, runtime, "admin")
    page = admin.page("/pushes?outcome=quarantined")
    assert "This is JSON. The platform sends a form." in page.text
    assert "This is XML or HTML. The platform sends a form." in page.text
    own = admin.page(f"/pushes/{made.id}").text
    assert "This is JSON. The platform sends a form." in own
    assert "missing" in own


def test_list_is_parsed_again_after_a_question(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(time_formats=("%Y/%m/%d %H:%M:%S",))
    admin = log_in(create_app(runtime), runtime, "admin")
    keep(runtime, *(make_push(body=OTHER_TIME % number) for number in range(3)), make_push(body=NO_NUMBER))
    filters = {"outcome": "quarantined", "range": "7d"}
    asked = admin.post("/pushes/replay", filters)
    assert "Parse 4 pushes again?" in asked.text
    assert len(rows_of(admin.page("/pushes?outcome=quarantined"), "p")) == 4
    done = admin.post("/pushes/replay", {**filters, "sure": "yes"})
    assert done.headers["Location"] == "/console/pushes?outcome=quarantined&range=7d"
    page = admin.page("/pushes?outcome=quarantined")
    assert "Parsed: 3. Still not parsed: 1." in page.text
    assert len(rows_of(page, "p")) == 1
    assert len([action for _, action, _ in audit(runtime) if action == "push.replay"]) == 4
    assert (
        admin.post("/pushes/replay", {"range": "soon"}).headers["Location"].endswith("range=soon&outcome=quarantined")
    )


def test_pushes_are_found_by_number_and_by_task(app: Flask, runtime: Runtime) -> None:
    receipt, reply = make_push(task_id="t1", second=1), make_push(task_id="t1", content="退订", second=2)
    other = make_push(task_id="t2", mobile="13900000001", second=3)
    alone = make_push(task_id="", mobile="13900000002", content="hi", second=4)
    keep(runtime, receipt, reply, other, alone, make_push(body=NO_NUMBER))
    admin = log_in(app, runtime, "admin")
    assert rows_of(admin.page("/pushes?task_id=t1"), "p") == [str(reply.id), str(receipt.id)]
    assert rows_of(admin.page("/pushes?task_id=none"), "p") == []

    def found(numbers: str) -> list[str]:
        address = admin.post("/pushes/numbers", {"numbers": numbers}).headers["Location"]
        return rows_of(admin.page(address.removeprefix("/console")), "p")

    assert found("15080921090") == [str(reply.id), str(receipt.id)]
    assert found("13900000001, 13900000002") == [str(alone.id), str(other.id)]
    assert found("13800000000") == []
    wrong = Page(admin.post("/pushes/numbers", {"numbers": "abc"}).text)
    assert wrong.at("numbers-error") == "Not phone numbers: abc"
    assert rows_of(wrong, "p") == []
