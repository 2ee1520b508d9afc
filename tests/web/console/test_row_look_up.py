"""A look-up from a row of a list: for the whole number, which the page never has, and audited like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.factories import NOON, make_push, make_send
from tests.web.console.staff import HOUR, MINUTE, NUMBER, Page, at, audit, keep, log_in, one_database, record

if TYPE_CHECKING:
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime
    from tests.web.console.staff import Staff

ABROAD = "85261234567"


def buttons(page: Page, kind: str) -> list[str]:
    return [str(given["value"]) for tag, given in page.tags if tag == "button" and given.get("name") == kind]


def follow(staff: Staff, kind: str, row_id: str) -> Page:
    answer = staff.post("/look-up/row", {kind: row_id})
    assert answer.status_code == 303
    assert NUMBER not in answer.location
    return Page(staff.client.get(answer.location).text)


def test_a_row_leads_to_the_whole_case_of_its_number(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    record(
        runtime,
        make_send(task_id="t1", template_id="1", sent_at=NOON - MINUTE),
        make_send(task_id="t2", template_id="2", sent_at=NOON - 30 * HOUR),
        make_send(task_id="t3", template_id="3", mobile="15055551090", sent_at=NOON),
    )
    reply = at(NOON, task_id="t1", content="hello")
    keep(runtime, reply)
    admin = log_in(app, runtime, "admin")
    rows = (
        ("/messages", "message", ["3", "1", "2"]),
        ("/replies", "reply", ["1"]),
        ("/pushes", "push", [str(reply.id)]),
        ("/messages/1", "message", ["1"]),
    )
    for path, kind, ids in rows:
        page = admin.page(path)
        assert sorted(buttons(page, kind)) == sorted(ids)
        assert page.by_id["row"]["action"] == "/console/look-up/row"
        found = follow(admin, kind, ids[-1])
        assert NUMBER not in found.html
        assert "8092" not in found.text  # nor with spaces
        assert "150****1090" in found.text
        assert {"notes-1", "notes-2"} <= found.by_id.keys()
        assert "notes-3" not in found.by_id  # masked it looks the same
        field = found.html.partition('name="wanted"')[2].partition("</textarea>")[0]
        assert field.endswith(">150****1090")
    assert [action for _, action, _ in audit(runtime)].count("look_up") == 4
    hashes = {detail["mobile_hmac"] for _, action, detail in audit(runtime) if action == "look_up"}
    admin.look_up(NUMBER)
    assert hashes == {audit(runtime)[-1][2]["mobile_hmac"]}
    home = admin.page("/")
    assert "150****1090" in home.text
    admin.post("/messages/1/reveal", {"reason": "a caller asks"})
    assert NUMBER in follow(admin, "reply", "1").html


@one_database
def test_rows_offer_it_to_who_may_look_up_and_within_their_accounts(app: Flask, runtime: Runtime) -> None:
    push = make_push()
    keep(runtime, push, make_push(content="hi"), make_push(body=b"mobile=1"))
    ann, sue = log_in(app, runtime, "analyst"), log_in(app, runtime, "support")
    assert buttons(ann.page("/messages"), "message") == []
    assert "row" not in ann.page("/messages").by_id
    assert ann.post("/look-up/row", {"message": "1"}).status_code == 403
    assert sue.post("/look-up/row", {"push": str(push.id)}).status_code == 404  # they have no journal
    assert len(buttons(log_in(app, runtime, "admin").page("/pushes"), "push")) == 2
    for fields in ({}, {"message": "2"}, {"message": "x"}, {"reply": "9" * 30}, {"reply": "-1"}, {"other": "1"}):
        assert sue.post("/look-up/row", fields).status_code == 404


@pytest.mark.parametrize("mobile", ["1508092****", "150****1090"])
@one_database
def test_a_number_that_the_platform_masked_is_not_looked_up(app: Flask, runtime: Runtime, mobile: str) -> None:
    keep(runtime, make_push(content="hi", mobile=mobile))
    answer = log_in(app, runtime, "support").post("/look-up/row", {"reply": "1"})
    assert answer.status_code == 422
    assert "The platform sent no whole number here to look up" in Page(answer.text).text


@one_database
def test_a_number_from_abroad_is_looked_up_too(app: Flask, runtime: Runtime) -> None:
    record(runtime, make_send(mobile=ABROAD, sent_at=runtime.now()))
    found = follow(log_in(app, runtime, "support"), "message", "1")
    assert ABROAD not in found.html
    assert "notes-1" in found.by_id


def test_the_number_of_a_row_stays_masked_in_lists_and_files_too(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    record(runtime, make_send(task_id="t1", sent_at=NOON - MINUTE), make_send(task_id="t2", mobile="15055551090"))
    keep(runtime, at(NOON, task_id="t1", content="hello"))
    admin = log_in(app, runtime, "admin")
    token = admin.post("/look-up/row", {"message": "1"}).location.partition("/look-up/")[2].partition("?")[0]
    typed = admin.post("/messages/numbers", {"numbers": NUMBER}).location.partition("numbers=")[2]
    for name in ("messages", "replies"):
        for more in ("", "&range=10m", "&range=yesterday"):  # what it does not find either
            page = admin.page(f"/{name}?numbers={token}{more}")
            assert NUMBER not in page.html, (name, more)
            assert "By number: 1 number" in page.text
            assert NUMBER in admin.page(f"/{name}?numbers={typed}{more}").html
        kept = [row for row in admin.get(f"/exports/{name}?numbers={token}").text.splitlines() if "150****1090" in row]
        assert len(kept) == 1, name
        assert NUMBER not in admin.get(f"/exports/{name}?numbers={token}").text
    assert NUMBER in admin.get(f"/exports/messages?numbers={typed}").text
    assert NUMBER not in admin.page(f"/pushes?numbers={token}").html


@one_database
def test_titles_of_lists_say_how_they_are_narrowed(app: Flask, runtime: Runtime) -> None:
    admin = log_in(app, runtime, "admin")

    def title(path: str) -> str:
        return admin.page(path).html.partition("<title>")[2].partition("</title>")[0]

    assert title("/messages") == "Messages · receiver"
    assert title("/messages?status=failed") == "Failed · Messages · receiver"
    assert title("/messages?status=failed&template_id=540") == "Failed · 540 · Messages · receiver"
    assert title("/messages?template_id=<b>") == "&lt;b&gt; · Messages · receiver"
    assert title(f"/replies?q=call {NUMBER}") == "call 150****1090 · Replies · receiver"
    assert title("/messages?status=failed&range=today") == "Failed · Today · Messages · receiver"
    assert title("/replies?opt_out=true") == "Opt-outs · Replies · receiver"
    assert title("/pushes?outcome=quarantined") == "Quarantined · Journal · receiver"
    assert title("/cases?handled=false") == "Open · Cases · receiver"
