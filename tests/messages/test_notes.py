"""Notes on messages and the mark of their cases: the newest mark decides, and each page reads a bounded number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import NotFound
from receiver.db.tables import messages
from receiver.messages import notes
from receiver.messages.notes import CaseMark, NoteKind
from receiver.messages.recording import record_sent
from tests.harness.factories import NOON, make_send
from tests.harness.notes import write_note

if TYPE_CHECKING:
    from receiver.runtime import Runtime

NOTE, HANDLED, REOPENED = NoteKind


def fill(runtime: Runtime, *tasks: str, account: str = "default") -> list[int]:
    sends = [make_send(task_id=task, account=account) for task in tasks]
    found = runtime.database.write(lambda c: record_sent(c, sends, recorded_at=NOON))
    return [result.message_id for result in found]


def add(runtime: Runtime, message_id: int, *said: str | NoteKind) -> None:
    for each in said:
        kind, text = (each, "") if isinstance(each, NoteKind) else (NOTE, each)
        write_note(runtime, message_id, text, kind)


def listed(runtime: Runtime, **wanted: Any) -> list[tuple[int, str, bool]]:
    page = runtime.ask(lambda c: notes.list_cases(c, **{"limit": 50} | wanted))
    return [(case.entry.message_id, case.entry.text, case.handled) for case in page.cases]


def test_the_newest_mark_decides_and_a_note_changes_none(runtime: Runtime) -> None:
    first, second, third = fill(runtime, "a", "b", "c")
    add(runtime, first, "called back", HANDLED, "not yet", REOPENED, "again", HANDLED, "done")
    add(runtime, second, "waits", HANDLED, REOPENED)
    marks = runtime.ask(lambda c: notes.find_marks(c, [first, second, third]))
    assert marks == {first: CaseMark(handled=True, notes=4), second: CaseMark(handled=False, notes=1)}
    entries = runtime.ask(lambda c: notes.list_notes(c, [first]))
    assert [entry.text or entry.kind for entry in entries] == [
        "called back", "handled", "not yet", "reopened", "again", "handled", "done",
    ]  # fmt: skip
    assert [notes.is_handled(entries[:end]) for end in range(8)] == [False, False, True, True, False, False, True, True]
    assert listed(runtime) == [(second, "", False), (first, "done", True)]
    assert listed(runtime, handled=True) == [(first, "done", True)]
    assert listed(runtime, handled=False) == [(second, "", False)]


def test_a_search_shows_each_note_that_has_the_text(runtime: Runtime) -> None:
    first, second = fill(runtime, "a", "b")
    add(runtime, first, "已回电 100%", "Called BACK", HANDLED)
    add(runtime, second, "called back")
    assert listed(runtime, text="CALLED b") == [(second, "called back", False), (first, "Called BACK", True)]
    assert listed(runtime, text="called", handled=True) == [(first, "Called BACK", True)]
    assert listed(runtime, text="回电") == listed(runtime, text="100%") == [(first, "已回电 100%", True)]
    assert listed(runtime, text="_") == listed(runtime, text="handled") == []


def test_pages_go_on_however_few_of_the_read_entries_fit(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "SCANNED_MAX", 3)
    ids = fill(runtime, *map(str, range(8)))
    for message_id in ids:
        add(runtime, message_id, f"note {message_id}")
    add(runtime, ids[0], HANDLED)
    for wanted, limit in (({}, 2), ({"text": "note"}, 1), ({"handled": True}, 5), ({"text": f"note {ids[1]}"}, 5)):
        whole: Any = {"limit": limit, **wanted}
        every, before, pages = [], None, 0
        while pages == 0 or before is not None:
            page = runtime.ask(lambda c, before=before, whole=whole: notes.list_cases(c, before=before, **whole))  # type: ignore[misc]
            every += [case.entry.message_id for case in page.cases]
            before, pages = page.before, pages + 1
            assert len(page.cases) <= limit
        expected = {
            "text": ids[1:2] if wanted.get("text") != "note" else ids[::-1],
            "handled": ids[:1],
        }.get(next(iter(wanted), ""), [ids[0], *ids[:0:-1]])
        assert every == expected
        assert pages >= 3


def test_cases_of_other_accounts_are_not_listed(runtime: Runtime) -> None:
    own, other = fill(runtime, "a")[0], fill(runtime, "b", account="other")[0]
    add(runtime, own, "ours")
    add(runtime, other, "theirs")
    assert listed(runtime, accounts=("default",)) == [(own, "ours", False)]
    assert listed(runtime, accounts=()) == []


def test_there_is_no_note_on_a_message_that_is_gone_and_they_move_with_it(runtime: Runtime) -> None:
    first, second = fill(runtime, "a", "b")
    add(runtime, first, "early")
    runtime.database.write(lambda c: notes.move_notes(c, old=first, new=second))
    assert listed(runtime) == [(second, "early", False)]
    runtime.database.write(lambda c: c.execute(sa.delete(messages).where(messages.c.id == first)))
    with pytest.raises(NotFound):
        add(runtime, first, "late")
    assert listed(runtime) == [(second, "early", False)]
