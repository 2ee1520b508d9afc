"""The list of numbers that have opted out: each once, with its first and last time; and as a file to take away."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import openpyxl
import pytest

from receiver.app import create_app
from receiver.auth import changes
from receiver.messages.queries import opt_outs
from tests.conftest import OTHER_SECRET, SECRET
from tests.db.test_encryption import OLD, encrypt
from tests.harness.factories import NOON, make_send
from tests.web.console.staff import (
    DAY,
    HOUR,
    MINUTE,
    NUMBER,
    Page,
    Staff,
    at,
    audit,
    create,
    keep,
    log_in,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

OTHER, THIRD, FOURTH = "13800138000", "13900139000", "18612345678"
CHINESE: dict[str, Any] = {"headers": {"Accept-Language": "zh-CN"}}
Line = tuple[str, str, str, int, str]


@pytest.fixture(params=["plain", "encrypted"])
def filled(
    request: pytest.FixtureRequest, make_runtime: Callable[..., Runtime], clock: time_machine.Traveller
) -> Runtime:
    """Opt-outs of every kind under two accounts."""
    runtime = make_runtime(push_tokens=(("default", SECRET), ("zeta", OTHER_SECRET)))
    if request.param == "encrypted":
        runtime = make_runtime(encryption_keys=(OLD,), push_tokens=runtime.settings.push_tokens)
        encrypt(runtime.settings, OLD)
        runtime = make_runtime(encryption_keys=(OLD,), push_tokens=runtime.settings.push_tokens)
    record(
        runtime,
        make_send(task_id="1", template_id="540", sent_at=NOON - DAY),
        make_send(task_id="2", template_id="541", sent_at=NOON - HOUR),
        make_send(task_id="3", mobile=OTHER, template_id="540", sent_at=NOON - HOUR),
        make_send(task_id="4", mobile=THIRD, account="zeta", template_id="600", sent_at=NOON - HOUR),
    )
    keep(
        runtime,
        at(NOON - DAY, task_id="1", content="TD"),
        at(NOON - HOUR, task_id="2", content="退订"),
        at(NOON - HOUR + MINUTE, task_id="2", content="thanks"),
        at(NOON - HOUR, task_id="3", mobile=OTHER, content="请不要再退订我"),
        at(NOON - HOUR, task_id="4", mobile=THIRD, account="zeta", content="T"),
        at(NOON - 2 * MINUTE, task_id="2", content="我要退订了谢谢"),  # certain already
    )
    taskless = f"mobile={FOURTH}&content=TD&receivetime=2026-11-23+11%3A50%3A00".encode()
    again = f"mobile={FOURTH}&content=TD&receivetime=2026-11-23+11%3A55%3A00".encode()
    keep(runtime, at(NOON - 10 * MINUTE, body=taskless), at(NOON - 5 * MINUTE, body=again))
    return runtime


SURE = [
    ("186****5678", "2026-11-23 11:55:00", "2026-11-23 11:50:00", 2, "TD"),
    ("139****9000", "2026-11-23 11:00:00", "2026-11-23 11:00:00", 1, "T"),
    ("150****1090", "2026-11-23 11:00:00", "2026-11-22 12:00:00", 2, "退订"),
]


def masked(line: Line) -> Line:
    return (line[0][:3] + "****" + line[0][-4:], *line[1:])


def in_file(answer: TestResponse) -> list[Line]:
    assert answer.status_code == 200
    sheet = openpyxl.load_workbook(io.BytesIO(answer.data)).active
    assert sheet is not None
    _, *rows = sheet.iter_rows(values_only=True)
    return [(str(row[0]), f"{row[1]}", f"{row[2]}", int(str(row[3])), str(row[4])) for row in rows]


def numbers_of(page: Page) -> list[str]:
    ids = [name for name in page.by_id if name.startswith("o") and name[1:].isdigit()]
    return [page.at(name).split()[0] for name in ids]


def export(staff: Staff, query: str = "", **fields: str) -> TestResponse:
    return staff.post(f"/opt-outs/export{query}", {"reason": "block list of the shop", **fields})


def test_each_number_stands_once_with_its_first_and_last_time(filled: Runtime) -> None:
    staff = log_in(create_app(filled), filled, "analyst")
    page = staff.page("/opt-outs")
    assert numbers_of(page) == [line[0] for line in SURE]
    assert "2" in page.text
    file = in_file(export(staff))
    assert [masked(line) for line in file] == SURE
    assert {line[0] for line in file} == {FOURTH, THIRD, NUMBER}
    assert NUMBER not in page.html


def test_possible_ones_are_apart_and_without_those_that_are_certain(filled: Runtime) -> None:
    staff = log_in(create_app(filled), filled, "analyst")
    assert numbers_of(staff.page("/opt-outs?opt_out_review=true")) == ["138****8000"]
    assert [line[0] for line in in_file(export(staff, "?opt_out_review=true"))] == [OTHER]


def test_list_is_paged_by_number(filled: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opt_outs, "_PART_NUMBERS", 1)
    staff = log_in(create_app(filled), filled, "analyst")
    assert [masked(line) for line in in_file(export(staff))] == SURE
    numbers = [f"1370000{number:04}" for number in range(55)]
    record(filled, *(make_send(task_id=mobile, mobile=mobile, sent_at=NOON) for mobile in numbers))
    keep(filled, *(at(NOON + HOUR, task_id=mobile, mobile=mobile, content="TD") for mobile in numbers))
    first = staff.page("/opt-outs")
    (older,) = [str(given["href"]) for _, given in first.tags if given.get("rel") == "next"]
    found = [*numbers_of(first), *numbers_of(staff.page(older.removeprefix("/console")))]
    assert (len(numbers_of(first)), len(found), len(set(found))) == (50, 58, 58)


def test_full_numbers_leave_with_a_reason_that_is_audited(filled: Runtime) -> None:
    app = create_app(filled)
    support, analyst = log_in(app, filled, "support"), log_in(app, filled, "analyst")
    assert export(support).status_code == 403
    assert "opt-outs/export" not in support.page("/opt-outs").html
    for reason in ("", "  a  ", "x" * 300):
        refused = analyst.post("/opt-outs/export", {"reason": reason})
        assert (refused.status_code, "Enter a reason" in refused.text) == (422, True)
    in_file(export(analyst))
    analyst.post("/opt-outs/export?account=default&q=x", {"reason": f"{NUMBER} asked for it"})
    lines = [entry for entry in audit(filled) if entry[1] == "opt_outs.export"]
    said = {"format": "xlsx", "in_full": True}
    assert lines == [
        ("user:analyst", "opt_outs.export", said | {"reason": "block list of the shop"}),
        (
            "user:analyst",
            "opt_outs.export",
            said | {"filter": {"account": "default"}, "reason": "150****1090 asked for it"},
        ),
    ]
    assert "Opt-out list · XLSX" in analyst.page("/exports").text


def test_csv_says_the_same_in_the_language_of_the_page(filled: Runtime) -> None:
    staff = log_in(create_app(filled), filled, "analyst")
    answer = staff.post("/opt-outs/export", {"reason": "停发名单", "format": "csv"}, **CHINESE)
    assert unquote(answer.headers["Content-Disposition"]) == (
        "attachment; filename=\"opt-outs-2026-11-23.csv\"; filename*=UTF-8''退订名单-2026-11-23.csv"
    )
    heading, *rows = csv.reader(io.StringIO(answer.data.decode("utf-8-sig")))
    assert heading == ["手机号", "最近退订时间", "首次退订时间", "退订次数", "回复内容", "模板", "平台账号"]
    assert [masked((row[0], row[1], row[2], int(row[3]), row[4])) for row in rows] == SURE
    assert [row[5:] for row in rows] == [["", "default"], ["600", "zeta"], ["541", "default"]]


def test_bound_user_has_only_the_opt_outs_of_their_accounts(filled: Runtime) -> None:
    create(filled, "bound", "analyst")
    filled.database.write(lambda c: changes.change_user(c, "bound", now=filled.now(), accounts=["zeta"]))
    staff = log_in(create_app(filled), filled, "analyst", name="bound")
    assert numbers_of(staff.page("/opt-outs")) == ["139****9000"]
    assert [line[0] for line in in_file(export(staff))] == [THIRD]


@pytest.mark.parametrize("filled", ["plain"], indirect=True)
def test_damaged_reply_hides_no_other(filled: Runtime) -> None:
    staff = log_in(create_app(filled), filled, "analyst")

    def spoil(which: str, change: str) -> None:
        one = f"(SELECT {which}(id) FROM replies WHERE opt_out)"
        filled.database.write(lambda c: c.exec_driver_sql(f"UPDATE replies SET {change} WHERE id = {one}"))

    if filled.settings.embedded:
        spoil("max", "content = x'fffe'")
    else:
        spoil("max", "replied_at = 'infinity'")
    assert numbers_of(staff.page("/opt-outs")) == [line[0] for line in SURE[1:]]
    assert [masked(line) for line in in_file(export(staff))] == SURE[1:]
