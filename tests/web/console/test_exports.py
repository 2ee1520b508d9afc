"""Lists taken away as files: what is shown, in its order and in the page's language, by whoever reads it."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import openpyxl
import pytest

from receiver.app import create_app
from receiver.messages import export_files
from tests.db.test_encryption import OLD, encrypt
from tests.harness.factories import NOON, make_push, make_send
from tests.web.console.staff import (
    HOUR,
    MINUTE,
    NUMBER,
    SECOND,
    Staff,
    at,
    audit,
    keep,
    log_in,
    one_database,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from flask import Flask
    from openpyxl.worksheet.worksheet import Worksheet
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

CHINESE: dict[str, Any] = {"headers": {"Accept-Language": "zh-CN"}}


def sheet_of(answer: TestResponse) -> Worksheet:
    assert answer.status_code == 200
    sheet = openpyxl.load_workbook(io.BytesIO(answer.data)).active
    assert sheet is not None
    return sheet


def rows_of(answer: TestResponse) -> list[dict[str, Any]]:
    """The rows of a workbook, by the headings of its columns."""
    headings, *rows = sheet_of(answer).iter_rows(values_only=True)
    return [dict(zip(map(str, headings), row, strict=True)) for row in rows]


def links(staff: Staff, path: str, **more: Any) -> dict[str, str]:
    """Where the export of a list leads, by format."""
    page = staff.page(path, **more)
    found = [str(given["href"]) for tag, given in page.tags if tag == "a" and "/exports/" in str(given.get("href"))]
    return {link.partition("format=")[2].partition("&")[0]: link.removeprefix("/console") for link in found}


def send_three(runtime: Runtime) -> None:
    record(
        runtime,
        make_send(task_id="0091", template_id="540", sent_at=NOON - HOUR),
        make_send(task_id="0092", template_id="540", sent_at=NOON - 2 * HOUR, mobile="13800138000"),
        make_send(task_id="0093", template_id="541", sent_at=NOON - 3 * HOUR),
    )
    keep(
        runtime,
        at(NOON - HOUR + 4 * SECOND, task_id="0091", status="0"),
        at(NOON - 2 * HOUR + 4 * SECOND, task_id="0092", mobile="13800138000", status="0"),
        at(NOON - 3 * HOUR + 4 * SECOND, task_id="0093"),
    )


@pytest.mark.parametrize("role", ["support", "analyst", "admin"])
def test_list_as_it_is_shown_is_one_click_away_for_whoever_reads_it(
    role: str, app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    send_three(runtime)
    staff = log_in(app, runtime, role)
    page = staff.page("/messages?status=failed&template_id=540")
    shown = [name[1:] for name in page.by_id if name.startswith("m") and name[1:].isdigit()]
    answer = staff.get(links(staff, "/messages?status=failed&template_id=540", **CHINESE)["xlsx"], **CHINESE)
    rows = rows_of(answer)
    assert [row["编号"] for row in rows] == shown
    assert {"150****1090", "138****8000"} == {row["手机号"] for row in rows}
    assert {row["状态"] for row in rows} == {"发送失败"}
    (row,) = [row for row in rows if row["任务ID"] == "0091"]
    assert f"{row['发送时间']:%Y-%m-%d %H:%M:%S}" == "2026-11-23 11:00:00"  # of the platform's zone
    assert (row["用时（秒）"], row["有发送记录"], row["回执矛盾"]) == (4, "是", "否")
    assert [entry for entry in audit(runtime) if entry[1].endswith(".export")] == [
        (
            f"user:{role}",
            "messages.export",
            {"format": "xlsx", "in_full": False, "filter": {"status": "failed", "template_id": "540"}},
        )
    ]


def test_sheet_is_for_reading_and_csv_says_the_same(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    send_three(runtime)
    keep(runtime, at(NOON - MINUTE, task_id="0091", content="=退订 15080921090"))
    staff = log_in(app, runtime, "support")
    for path, heading in (("/messages", "Task id"), ("/replies", "Text")):
        files = links(staff, path)
        sheet = sheet_of(staff.get(files["xlsx"]))
        assert sheet.freeze_panes == "A2"
        widths = {str(cell.value): sheet.column_dimensions[cell.column_letter].width for cell in sheet[1]}
        assert widths["Number"] < widths.get("Text", 99)
        rows = rows_of(staff.get(files["xlsx"]))
        lines = list(csv.DictReader(io.StringIO(staff.get(files["csv"]).data.decode("utf-8-sig"))))
        assert list(lines[0]) == list(rows[0])
        assert [line[heading].removeprefix("'") for line in lines] == [row[heading] for row in rows]
        assert staff.get(files["csv"]).data.startswith(b"\xef\xbb\xbf")
        assert NUMBER not in str(rows) + str(lines)
        assert all(isinstance(row["Id"], str) and isinstance(row["Number"], str) for row in rows)
    assert lines[0]["Replied"] == "2026-11-23 11:59:00"
    assert lines[0]["Text"] == "'=退订 150****1090"  # no formula where it would be run
    assert rows[0]["Text"] == "=退订 150****1090"


@one_database
def test_file_is_named_by_filter_and_day_and_never_by_a_number(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "analyst")
    day = "sent_from=2026-11-22&sent_to=2026-11-23"
    expected = {
        f"messages?status=failed&{day}": ("messages-failed-2026-11-22", "短信-发送失败-2026-11-22"),
        f"messages?late=true&template_id=540&{day}": ("messages-late-540-2026-11-22", "短信-超时未达-540-2026-11-22"),
        "messages?status=no_receipt&sent_from=2026-11-20": (
            "messages-no-receipt-2026-11-20_2026-11-23",
            "短信-超时无回执-2026-11-20_2026-11-23",
        ),
        f"messages?task_id={NUMBER}&template_id={NUMBER}": ("messages-2026-11-23", "短信-2026-11-23"),
        f"replies?opt_out=true&q={NUMBER}": ("replies-opt-outs-2026-11-23", "上行回复-退订-2026-11-23"),
        "receipts?format=parquet": ("receipts-2026-11-23", "回执-2026-11-23"),
    }
    for asked, (plain, worded) in expected.items():
        ending = "parquet" if "parquet" in asked else "csv"
        english = staff.client.head(f"/console/exports/{asked}").headers["Content-Disposition"]
        assert english == f'attachment; filename="{plain}.{ending}"'
        chinese = staff.client.head(f"/console/exports/{asked}", **CHINESE).headers["Content-Disposition"]
        assert unquote(chinese) == f"{english}; filename*=UTF-8''{worded}.{ending}"


@one_database
def test_file_for_programs_is_that_of_the_api(app: Flask, runtime: Runtime, bearer: dict[str, str]) -> None:
    send_three(runtime)
    staff = log_in(app, runtime, "analyst")
    for form in ("csv&neutral=false", "ndjson"):
        ours = staff.get(f"/exports/receipts?format={form}", **CHINESE).text
        theirs = staff.client.get(f"/api/v1/exports/receipts?format={form}", headers=bearer).text
        assert ours == theirs.replace(NUMBER, "150****1090").replace("13800138000", "138****8000")


def test_support_has_as_many_rows_as_a_list_is_sorted_for_and_the_others_all(
    app: Flask, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "LISTED_ROWS", 2)
    send_three(runtime)
    support, analyst = log_in(app, runtime, "support"), log_in(app, runtime, "analyst")
    for form in ("xlsx", "csv", "ndjson", "parquet"):
        refused = support.get(f"/exports/messages?format={form}")
        assert (refused.status_code, "More than" in refused.text) == (422, True), form
    assert len(rows_of(support.get("/exports/messages?format=xlsx&status=failed"))) == 2
    rows = rows_of(analyst.get("/exports/messages?format=xlsx"))
    assert [row["Task id"] for row in rows] == ["0091", "0092", "0093"]  # too many to sort: in the order of their ids


def test_support_has_the_lists_that_are_pages_and_no_other(app: Flask, runtime: Runtime) -> None:
    support = log_in(app, runtime, "support")
    assert support.get("/exports/receipts").status_code == 404
    assert "of-receipts" not in support.page("/exports").by_id
    assert "of-receipts" in log_in(app, runtime, "analyst").page("/exports").by_id


def test_spans_of_time_and_typed_numbers_narrow_a_file_as_they_narrow_the_list(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    send_three(runtime)
    record(runtime, make_send(task_id="0094", mobile="13900139000", sent_at=NOON - 30 * HOUR))
    support = log_in(app, runtime, "support")
    files = links(support, "/messages?range=yesterday")
    answer = support.get(files["xlsx"], **CHINESE)
    assert [row["任务ID"] for row in rows_of(answer)] == ["0094"]
    assert "messages-2026-11-22.xlsx" in answer.headers["Content-Disposition"]
    today = rows_of(support.get(links(support, "/messages?range=today")["xlsx"]))
    assert [row["Task id"] for row in today] == ["0091", "0092", "0093"]
    led = support.post("/messages/numbers", {"numbers": f"13900139000\n{NUMBER}"}).headers["Location"]
    path = links(support, led.removeprefix("/console"))["xlsx"]
    assert NUMBER not in path
    of_numbers = rows_of(support.get(path))
    assert [row["Number"] for row in of_numbers] == [NUMBER, NUMBER, "13900139000"]  # as they were typed
    assert "13900139000" not in str(audit(runtime))
    stranger = log_in(app, runtime, "support", name="other").get(path)
    assert stranger.status_code == 404
    replies = links(support, led.removeprefix("/console").replace("messages", "replies"))["xlsx"]
    keep(runtime, at(NOON, task_id="0091", content="call 13800138000"))
    (reply,) = rows_of(support.get(replies))
    assert (reply["Number"], reply["Text"]) == ("150****1090", "call 138****8000")
    for wrong in ("range=soon", "numbers=nonsense", "numbers=a%00b"):
        assert support.get(f"/exports/messages?{wrong}").status_code in (404, 422)


def test_page_of_exports_has_the_filters_of_the_lists_and_what_one_has_taken(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    send_three(runtime)
    ann = log_in(app, runtime, "analyst")
    assert ann.page("/exports").at("past").startswith("My exports")
    query = "format=xlsx&status=failed&sent_from=2026-11-22T00:00&sent_to=2026-11-23T00:00&template_id="
    ann.get(f"/exports/messages?{query}&reference={NUMBER}").close()
    ann.get("/exports/replies?opt_out=true&q=退").close()
    clock.shift(timedelta(days=3))
    page = log_in(app, runtime, "analyst").page("/exports", **CHINESE)
    past = [" ".join(line.split()) for line in page.html.partition('<ul class="past">')[2].split("<li>")[1:]]
    assert len(past) == 2
    assert '上行回复 · CSV · <bdi class="said">内容包含 …</bdi> · <bdi class="said">退订</bdi>' in past[0]
    for words in ("短信", "XLSX", "发送失败", "2026-11-22 00:00", "2026-11-23 00:00"):
        assert words in past[1]
    assert NUMBER not in page.html
    assert NUMBER not in str(audit(runtime))
    entries = log_in(app, runtime, "admin").page("/audit", **CHINESE).text
    for words in ("筛选条件", "业务编号 …", "· 发送时间起 2026-11-22 00:00 · 止（不含） 2026-11-23 00:00"):
        assert words in entries
    fields = {str(given.get("name")) for tag, given in page.tags if tag in ("input", "select")}
    assert {"status", "template_id", "opt_out", "opt_out_review", "sent_from", "received_to", "format"} <= fields
    clock.shift(timedelta(days=28))
    assert "暂无" in log_in(app, runtime, "analyst").page("/exports", **CHINESE).text


def test_encrypted_replies_are_in_the_order_of_the_list_too(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    encrypt(runtime.settings, OLD)
    encrypted = make_runtime(encryption_keys=(OLD,))
    staff = log_in(create_app(encrypted), encrypted, "support")
    record(encrypted, make_send())
    keep(encrypted, *(make_push(content=text, second=second) for second, text in enumerate(("TD", "thanks", "TD!"))))
    rows = rows_of(staff.get(links(staff, "/replies?q=td")["xlsx"]))
    assert [(row["Text"], row["Number"]) for row in rows] == [("TD!", "150****1090"), ("TD", "150****1090")]
