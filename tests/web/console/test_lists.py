"""Lists, the journal and reports: as the API has them, and in the address bar."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.messages import queries
from receiver.web.console.journal import hexdump
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.web.console.staff import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Page,
    Staff,
    at,
    keep,
    log_in,
    plain_runtime,
    record,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import time_machine
    from flask import Flask

    from receiver.messages.queries import MessageRow
    from receiver.runtime import Runtime

# --- Lists ----------------------------------------------------------------------------------------------


def rows_of(page: Page, letter: str) -> list[str]:
    return [name[1:] for name in page.by_id if re.fullmatch(f"{letter}[0-9a-f-]+", name)]


def by_time(runtime: Runtime) -> list[MessageRow]:
    """All messages as their list shows them: the last sent first; those without a time last."""
    page, clock = queries.Page(limit=1000), runtime.clock()
    rows = runtime.ask(lambda connection: queries.list_messages(connection, page, clock))
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(rows, key=lambda row: (row.counted_at or row.reported_at or never, row.id), reverse=True)


def test_lists_are_narrowed_and_paged_from_newest_to_oldest(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "analyst")
    now = runtime.now()
    sends = [make_send(task_id=f"t{n}", template_id=f"{n % 2}", sent_at=now - n * HOUR) for n in range(60)]
    record(runtime, *sends)
    keep(runtime, make_push(task_id="t0"), make_push(task_id="t1", status="0"), make_push(task_id="x", content="退订"))
    everyone = staff.page("/messages")
    first = rows_of(everyone, "m")
    (older,) = [given["href"] for _, given in everyone.tags if given.get("rel") == "next"]
    then = staff.page(str(older).removeprefix("/console"))
    both = [*first, *rows_of(then, "m")]
    assert len(first) == 50
    assert len(both) == 61
    assert both == [str(row.id) for row in by_time(runtime)]
    assert "hx-get" in everyone.by_id["rows"]
    assert "hx-get" not in then.by_id["rows"]  # an older page stands still
    assert "← Newest" in then.text
    assert not any(given.get("rel") == "next" for _, given in then.tags)
    counts = {
        "status=delivered": 1, "status=failed": 1, "template_id=1": 30, "task_id=t7": 1, "matched=false": 1,
        "late=true": 50, f"sent_from={(now + 8 * HOUR - 90 * MINUTE):%Y-%m-%dT%H:%M}": 2, "status=refused": 0,
    }  # fmt: skip
    found = {query: len(rows_of(staff.page(f"/messages?{query}"), "m")) for query in counts}
    assert found == counts
    assert len(rows_of(staff.page("/replies?opt_out=true"), "r")) == 1
    assert len(rows_of(staff.page("/replies?q=退"), "r")) == 1
    assert len(rows_of(staff.page("/replies?q=x"), "r")) == 0
    cursor = re.search(r"cursor=([^&]+)", str(older))
    assert cursor is not None
    moved = staff.page(f"/messages?template_id=1&cursor={cursor[1]}", status=422)
    assert moved.at("cursor-error")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/messages?status=lost", "status"),
        ("/messages?late=maybe", "late"),
        ("/messages?conflicting=1", "conflicting"),
        ("/messages?sent_from=yesterday", "sent_from"),
        ("/messages?sent_to=2026-13-01T00:00", "sent_to"),
        ("/messages?task_id=" + "x" * 300, "task_id"),
        ("/messages?account=nobody", "account"),
        ("/messages?cursor=x", "cursor"),
        ("/replies?opt_out=x", "opt_out"),
        ("/replies?q=%00", "q"),
        ("/replies?received_to=x", "received_to"),
        ("/pushes?outcome=lost", "outcome"),
        ("/pushes?received_from=x", "received_from"),
        ("/exports/messages?format=doc", "format"),
        ("/exports/messages?nonsense=1", "nonsense"),
        ("/reports?from=soon", "from"),
        ("/reports?to=2026-02-30", "to"),
        ("/reports?from=2026-11-23&to=2026-11-22", "to"),
        ("/reports?from=2020-01-01&to=2026-11-22", "from"),
        ("/reports?from=0001-01-01", "from"),
        ("/reports?to=9999-12-31", "to"),
        ("/reports?account=nobody", "account"),
        ("/reports?template_id=%00", "template_id"),
        ("/reports?range=tomorrow", "range"),
        ("/reports/days.csv?from=soon", "from"),
    ],
)
def test_what_cannot_be_used_is_named(path: str, field: str, admin_of_plain: Staff) -> None:
    page = admin_of_plain.page(path, status=422)
    assert page.at(f"{field}-error")


@pytest.fixture(scope="module")
def admin_of_plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staff]:
    """An administrator, for what no database changes."""
    with plain_runtime(tmp_path_factory.mktemp("console")) as runtime:
        yield log_in(create_app(runtime), runtime, "admin")


@pytest.mark.parametrize("message_id", ["0", "999999999999999999", "9999999999999999999", "99999999999999999999"])
def test_there_is_no_message_under_an_id_that_nobody_gave(message_id: str, app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    assert staff.get(f"/messages/{message_id}").status_code == 404
    assert staff.post(f"/messages/{message_id}/reveal", {"reason": "because"}).status_code in (404, 405)


def test_journal_shows_each_byte_and_reads_again(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    admin = log_in(create_app(runtime), runtime, "admin")
    body = b"mobile=15080921090&taskid=1&status=1&receivetime=2026%2F11%2F23+12:00:00&x=\xff\x00"
    odd, good = make_push(body=body), make_push(task_id="2")
    keep(runtime, odd, good)
    assert rows_of(admin.page("/pushes"), "p") == [str(good.id), str(odd.id)]
    assert rows_of(admin.page("/pushes?outcome=quarantined"), "p") == [str(odd.id)]
    page = admin.page(f"/pushes/{odd.id}")
    assert "000000  6d 6f 62 69 6c 65 3d 31 35 30 38 30 39 32 31 30  mobile=150809210" in page.html
    assert "U+0000" in page.text
    assert admin.get("/pushes/nonsense").status_code == 404
    assert admin.post("/pushes/nonsense/replay").status_code == 404
    answer = admin.post(f"/pushes/{odd.id}/replay")
    assert answer.headers["Location"] == f"/console/pushes/{odd.id}"
    assert "The push still cannot be parsed." in admin.page(f"/pushes/{odd.id}").text
    mended = make_runtime(time_formats=("%Y/%m/%d %H:%M:%S",))
    other = log_in(create_app(mended), mended, "admin")
    other.post(f"/pushes/{odd.id}/replay")
    assert "Parsed. The message was updated." in other.page(f"/pushes/{odd.id}").text
    assert rows_of(admin.page("/pushes?outcome=quarantined"), "p") == []
    assert len(rows_of(admin.page("/messages"), "m")) == 2


def test_hexdump_is_by_sixteen() -> None:
    assert hexdump(b"") == ""
    assert hexdump(bytes(range(0x3F, 0x50)) + b"\xff") == (
        "000000  3f 40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e  ?@ABCDEFGHIJKLMN\n"
        "000010  4f ff                                            O."
    )


# --- Reports --------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_api_and_each_file_is_its_table(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff = log_in(app, runtime, "analyst")
    record(
        runtime,
        *(make_send(task_id=f"t{n}", template_id="a", sent_at=NOON - 2 * HOUR) for n in range(4)),
        *(make_send(task_id=f"u{n}", template_id=None, sent_at=NOON - DAY) for n in range(3)),
        *(make_send(task_id=f"v{n}", template_id="a", sent_at=NOON - 8 * DAY) for n in range(2)),
        make_send(task_id=None, sent_at=NOON - HOUR, error_message="余额不足"),
    )
    keep(
        runtime,
        *(at(NOON - 2 * HOUR + 5 * SECOND, task_id=f"t{n}") for n in range(3)),
        at(NOON - DAY + 9 * SECOND, task_id="u0", status="0"),
        at(NOON - 8 * DAY + 9 * SECOND, task_id="v0"),
        at(NOON - HOUR, task_id="u1", content="退订"),
    )
    span = "from=2026-11-22&to=2026-11-23"
    page = staff.page(f"/reports?{span}")
    tiles = re.findall(r'tile-value">([^<]*)<', page.html)
    bearer = {"Authorization": make_key(runtime)}
    asked = {"from": "2026-11-22T00:00:00+08:00", "to": "2026-11-24T00:00:00+08:00", "group_by": "day"}
    api = staff.client.get("/api/v1/reports/delivery", query_string=asked, headers=bearer).json
    total = api["total"]
    assert tiles == [str(total["sent"]), str(total["delivered"]), "42.9%", str(total["failed"]),
                     str(total["no_receipt"]), f"{total['latency_p50_seconds']} seconds"]  # fmt: skip
    assert (total["sent"], total["delivered"], total["delivery_rate"]) == (7, 3, pytest.approx(3 / 7))
    assert table_of(page, "days") == [
        ["2026-11-22", "0", "1", "0", "2", "3", "0", "0"],
        ["2026-11-23", "3", "0", "0", "1", "4", "1", "0"],
    ]
    assert table_of(page, "replies") == [["2026-11-22", "0", "0"], ["2026-11-23", "1", "1"]]
    by_hour = staff.client.get("/api/v1/reports/delivery", query_string=asked | {"group_by": "hour"}, headers=bearer)
    hours = {row[0].replace(" ", "T"): row[5:7] for row in table_of(page, "hours")}
    assert len(hours) == 48
    assert {hour: figures for hour, figures in hours.items() if figures != ["0", "0"]} == {
        item["hour"]: [str(item["sent"]), str(item["refused"])] for item in by_hour.json["items"]
    }
    assert [row[0] for row in table_of(page, "refusals")] == ['<bdi class="said">余额不足</bdi>']
    # Values for a script stand in the columns that it draws alone: they are a tenth of the page.
    with_values = {
        name: page.html.partition(f'<table id="table-{name}">')[2].partition("</table>")[0]
        for name in ("days", "replies", "refusals", "templates")
    }
    assert {name for name, table in with_values.items() if "data-value" in table} == {"days", "replies"}
    for name, first, last in (("today", 23, 23), ("yesterday", 22, 22), ("7d", 17, 23)):
        days = [row[0] for row in table_of(staff.page(f"/reports?range={name}"), "days")]
        assert (days[0], days[-1]) == (f"2026-11-{first}", f"2026-11-{last}")
    of_a = staff.page(f"/reports?{span}&template_id=a")
    assert re.findall(r'tile-value">([^<]*)<', of_a.html)[:2] == ["4", "3"]
    compared = staff.page("/reports?from=2026-11-17&to=2026-11-23&compare=1")
    assert "Previous period: 2" in compared.text
    assert "Previous period: 50%" in compared.text
    assert table_of(compared, "rates")[-1] == ["2026-11-23", "75%", "–"]
    assert table_of(compared, "rates")[5] == ["2026-11-22", "0%", "50%"]
    files = [str(given["href"]) for _, given in compared.tags if ".csv" in str(given.get("href"))]
    assert len(files) == 11
    for file in files:
        answer = staff.client.get(file)
        assert (answer.status_code, answer.mimetype) == (200, "text/csv")
        name = str(re.search(r"/(\w+)\.csv", file)[1])
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}_2026-11-17_2026-11-23.csv"'
        heading, *rows = csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig")))
        table = table_of(compared, name)
        assert len(heading) == len(rows[0]) if rows else True
        if name != "balances":
            assert [row[0] or "not specified" for row in rows] == [re.sub("<.*?>", "", row[0]) for row in table]
        if name in ("days", "replies", "minutes"):  # the others have units in the table
            assert rows == table


# --- Empty lists ----------------------------------------------------------------------------------------


def test_empty_list_says_why_and_what_next(app: Flask, runtime: Runtime) -> None:
    admin, support = (log_in(app, runtime, role) for role in ("admin", "support"))
    fresh = admin.page("/messages")
    assert "No messages yet." in fresh.text
    assert 'href="/console/setup">Set up the platform' in fresh.html
    assert "Set up the platform" not in support.page("/messages").text
    assert "No pushes yet." in admin.page("/pushes").text
    assert "No replies yet." in support.page("/replies").text
    record(runtime, make_send(task_id="t1"))
    for path in ("/messages?status=failed", "/replies?q=x", "/pushes?outcome=quarantined"):
        narrowed = admin.page(path)
        assert "Nothing matches these filters." in narrowed.text, path
        assert f'<a href="/console{path.partition("?")[0]}">Clear the filters</a>' in narrowed.html
        assert "yet" not in narrowed.at("rows"), path


def test_wrong_choice_is_named_beside_its_field(app: Flask, runtime: Runtime) -> None:
    page = log_in(app, runtime, "support").page("/messages?status=gone&late=perhaps", status=422)
    assert page.by_id.keys() >= {"status-error", "late-error"}
    assert "status:" not in page.text
    assert ("select", ("aria-describedby", "aria-invalid", "name")) in page.shape
