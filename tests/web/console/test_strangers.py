"""Strangers' text is shown as text, and no cell of a file begins a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.harness.factories import make_push, make_send
from tests.web.console.staff import MINUTE, NUMBER, SECOND, Page, Staff, keep, log_in, one_database, record, sentences

if TYPE_CHECKING:
    from flask import Flask

    from receiver.core import Push
    from receiver.runtime import Runtime

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
    query = f"SELECT id FROM messages WHERE mobile = '{number}' ORDER BY sent_at DESC"
    rows = runtime.ask(lambda c: c.exec_driver_sql(query).all())
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
    assert {given["src"] for tag, given in page.tags if tag == "img"} <= {"/console/static/icon.svg"}
    assert not any(str(given.get("href")).startswith("javascript") for _, given in page.tags)


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
    assert page.at("answer") == "Only a reply refers to this message. There is no record of the send."
    assert "a␀b👍" in page.text
    assert sentences(staff.look_up(NUMBER)) == [
        "A reply from this number was received. No message to it is recorded here."
    ]


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
