"""The first page: how today goes, and one's own look-ups."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

from receiver.app import create_app
from receiver.auth import changes
from tests.harness.factories import NOON, make_send
from tests.web.console.staff import DAY, HOUR, MINUTE, SECOND, at, create, keep, log_in, one_database, record

if TYPE_CHECKING:
    from collections.abc import Callable

    import time_machine
    from flask import Flask

    from receiver.runtime import Runtime


def recent_of(html: str) -> list[tuple[str, str]]:
    """Addresses and texts of the recent look-ups."""
    found = re.findall(r'<li><a href="(/console/look-up/[^"]+)"><bdi class="said">(.*?)</bdi>', html, re.DOTALL)
    return [(address, unescape(text)) for address, text in found]


def test_home_says_how_today_goes(app: Flask, runtime: Runtime, clock: time_machine.Traveller) -> None:
    staff = log_in(app, runtime, "support")
    assert staff.page("/").at("today") == "Nothing sent today · no push yet · Status"
    record(
        runtime,
        *(make_send(task_id=f"t{n}", sent_at=NOON - HOUR) for n in range(3)),
        make_send(task_id="yesterday", sent_at=NOON - DAY),
        make_send(task_id=None, reference="r", error_message="余额不足", sent_at=NOON - MINUTE),
    )
    keep(runtime, at(NOON - 50 * MINUTE, task_id="t0"), at(NOON - 12 * SECOND, task_id="t1", status="0"))
    assert staff.page("/").at("today") == (
        "Today: 3 sent, 1 delivered, 1 failed, 1 refused · last push 12 seconds ago · Status"
    )
    chinese = staff.page("/", headers={"Accept-Language": "zh-CN"}).at("today")
    assert chinese.startswith("今日已发送 3 条，送达 1 条，失败 1 条，平台拒绝 1 条 · ")


def test_today_of_a_bound_user_is_that_of_their_accounts(
    make_runtime: Callable[..., Runtime], clock: time_machine.Traveller
) -> None:
    runtime = make_runtime(push_tokens=(("default", "a" * 22), ("zeta", "b" * 22)))
    record(runtime, *(make_send(task_id=f"t{n}", account="zeta", sent_at=NOON - HOUR) for n in range(2)))
    create(runtime, "bound", "support")
    runtime.database.write(lambda c: changes.change_user(c, "bound", now=runtime.now(), accounts=["default"]))
    app = create_app(runtime)
    assert log_in(app, runtime, "support", name="bound").page("/").at("today").startswith("Nothing sent today")
    assert log_in(app, runtime, "support").page("/").at("today").startswith("Today: 2 sent")


def test_home_lists_ones_own_newest_look_ups_as_they_were_typed(
    app: Flask, runtime: Runtime, clock: time_machine.Traveller
) -> None:
    staff, other = log_in(app, runtime, "support"), log_in(app, runtime, "support", name="other")
    assert "Your look-ups" not in staff.page("/").text
    other.look_up("13900000000")
    for number in range(6):
        staff.look_up(f"1508092109{number}")
        clock.shift(1)
    staff.look_up("<b>150 8092 1091</b>")
    clock.shift(1)
    staff.look_up("15080921095")
    html = staff.get("/").text
    assert [text for _, text in recent_of(html)] == [
        "15080921095", "<b>150 8092 1091</b>", "15080921094", "15080921093", "15080921092",
    ]  # fmt: skip
    assert "13900000000" not in html
    assert all(re.fullmatch(r"/console/look-up/[\w-]{20,}", address) for address, _ in recent_of(html))
    for address, text in recent_of(html):
        assert text[:11] in unescape(staff.client.get(address).text)
        assert other.client.get(address).status_code == 404
    clock.shift(DAY + SECOND)
    assert recent_of(log_in(app, runtime, "support").get("/").text) == []


@one_database
def test_home_is_there_without_the_database(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    assert staff.get("/").status_code == 200
    runtime._drainer.stop()
    runtime.availability.mark_down("gone")
    page = staff.page("/")
    assert "today" not in page.by_id
    assert "wanted" in page.html
