"""Notes on a message and the handled mark: who writes and reads them, where they show, what the audit has of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.messages import recording
from tests.harness.factories import NOON, make_send
from tests.web.console.staff import MINUTE, NUMBER, Page, at, audit, keep, log_in, one_database, record

if TYPE_CHECKING:
    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime

WORDS = "rief zurück: <b>offen</b> \u202e 已回电"


def test_a_note_and_a_mark_show_on_the_message_its_answer_and_the_lists(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    record(runtime, make_send(template_id="540", sent_at=NOON - MINUTE))
    keep(runtime, at(NOON, content="hello"))
    sue, ann = log_in(app, runtime, "support", name="sue"), log_in(app, runtime, "analyst", name="ann")
    saved = sue.post("/messages/1/notes", {"kind": "note", "text": f" {WORDS}\r\nzweite Zeile "})
    assert (saved.status_code, saved.location) == (303, "/console/messages/1")
    found = sue.look_up(NUMBER)
    back = found.html.partition('name="next" value="')[2].partition('"')[0]
    saved = sue.post("/messages/1/notes", {"kind": "handled", "next": back})
    assert saved.location == back
    assert back.startswith("/console/look-up/")
    assert sue.post("/messages/1/notes", {"kind": "handled", "next": "https://evil.example"}).location == "/console/"
    assert audit(runtime)[-1] == ("user:sue", "case.handle", {"message_id": "1", "note_id": 2})  # once
    assert audit(runtime)[0] == ("user:sue", "note.create", {"message_id": "1", "note_id": 1})
    for page in (sue.look_up(NUMBER), sue.page("/messages/1"), ann.page("/messages/1")):
        noted = page.at("notes-1")
        assert "sue: rief zurück: <b>offen</b> U+202E 已回电 zweite Zeile" in noted
        assert "sue marked the case as handled" in noted
        assert ("Save note" in noted) is ("note-form-1-open" in page.by_id)
    assert "note-form-1-open" not in ann.page("/messages/1").by_id
    assert ann.post("/messages/1/notes", {"kind": "note", "text": "x"}).status_code == 403
    for path in ("/messages", "/replies"):
        assert "Handled 1 note" in ann.page(path).text
    sue.post("/messages/1/notes", {"kind": "reopened", "text": "they called again"})
    assert [action for _, action, _ in audit(runtime)][-2:] == ["note.create", "case.reopen"]
    assert "Handled" not in ann.page("/messages").text
    assert "2 notes" in ann.page("/messages").text
    assert not any(word in str(audit(runtime)) for word in ("offen", "called again"))


@one_database
def test_a_note_that_says_nothing_or_too_much_is_refused(app: Flask, runtime: Runtime) -> None:
    record(runtime, make_send())
    staff = log_in(app, runtime, "support")
    for fields in ({"kind": "note", "text": " \n"}, {"kind": "note", "text": "x" * 1001}, {"kind": "other"}, {}):
        assert staff.post("/messages/1/notes", fields).status_code == 422
    assert staff.post("/messages/2/notes", {"kind": "handled"}).status_code == 404
    assert "Save note" in staff.page("/messages/1").at("notes-1")
    assert "No notes yet." in staff.page("/cases").text


def test_cases_are_found_by_their_notes_and_marks(app: Flask, runtime: Runtime) -> None:
    sends = [make_send(task_id=f"t{number}", mobile=f"1390013800{number}") for number in range(3)]
    ids = [
        found.message_id
        for found in runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=runtime.now()))
    ]
    staff = log_in(app, runtime, "support")
    for number in ids:
        staff.post(f"/messages/{number}/notes", {"kind": "note", "text": f"回电 {number}号"})
    staff.post(f"/messages/{ids[0]}/notes", {"kind": "handled"})

    def listed(**query: str) -> list[str]:
        page = staff.page("/cases", query_string=query)
        assert not any(send.mobile in page.html for send in sends)
        links = (str(given["href"]) for tag, given in page.tags if tag == "a" and given.get("href"))
        return [link.rpartition("/")[2] for link in links if link.startswith("/console/messages/")]

    mine = [str(number) for number in ids]
    assert listed() == [mine[0], mine[2], mine[1]]
    assert listed(handled="true") == listed(q=f"{mine[0]}号") == [mine[0]]
    assert listed(handled="false") == listed(handled="false", q="回电") == [mine[2], mine[1]]
    assert listed(q="nobody") == []
    assert [detail for _, action, detail in audit(runtime) if action == "notes.read"][-2:] == [{"q": True}] * 2
    for wrong in ({"handled": "maybe"}, {"q": "x" * 300}, {"cursor": "x"}, {"account": "other"}):
        assert staff.get("/cases", query_string=wrong).status_code == 422


@one_database
def test_a_long_list_of_cases_has_pages(app: Flask, runtime: Runtime) -> None:
    record(runtime, *(make_send(task_id=f"t{number}") for number in range(60)))
    staff = log_in(app, runtime, "support")
    for number in range(1, 61):
        staff.post(f"/messages/{number}/notes", {"kind": "note", "text": "很长的备注" * 10})
    first = staff.page("/cases")
    assert len(first.html.encode()) < 60_000
    assert first.html.count("<tr id=") == 50
    older = next(str(given["href"]) for _, given in first.tags if given.get("rel") == "next")
    second = Page(staff.client.get(older).text)
    assert second.html.count("<tr id=") == 10
    assert 'rel="next"' not in second.html
