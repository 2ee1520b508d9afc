"""Pages that go on by themselves, in a real browser, with a stand-in for the platform."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from receiver.simulator import PushFaults, PushTarget, Rules, Simulator
from tests.harness.platforms import APP_ID, APP_KEY
from tests.harness.ports import free_port
from tests.web.console.test_browser import USERS, Site, assert_not_reloaded, log_in, look_up, mark, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server without any push, which sends through the stand-in."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("module_postgres_database_url")
    platform_port = free_port()
    environment = {
        "RECEIVER_CONSOLE_TOTP": "optional",
        "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
        "RECEIVER_PLATFORM_CREDENTIALS": f"default:{APP_ID}:{APP_KEY}",
    }
    with serve(tmp_path_factory.mktemp("live"), url, USERS, **environment) as made:
        made.key = made.serve.make_key("read", "messages:write")
        push_url = f"{made.origin}{made.serve.target}"
        how, target = PushFaults(failures=0, replies=0), PushTarget(receipt_url=push_url, reply_url=push_url)
        with Simulator(bind=("127.0.0.1", platform_port), rules=Rules(), how=how, target=target, seed=1):
            yield made


def test_tail_shows_pushes_as_they_come_and_stands_still_while_it_is_read(
    site: Site, open_page: Callable[..., Page]
) -> None:
    page = open_page(site.origin, "/console/tail", locale="zh-CN")
    log_in(page, "ada")
    rows, state = page.locator("#tail-rows tr"), page.locator("#tail-state")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("尚未收到推送")
    mark(page)
    site.record("15080921001", "71001", ago=6)
    site.push("15080921001", "71001", status="1")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("150****1001")
    expect(rows.first.locator(".badge")).to_have_attribute("data-state", "delivered")

    table = page.locator("#table-tail")
    table.hover()
    site.push("15080921002", "71002", status="0")
    site.push("15080921003", "71003", content="TD")
    expect(state).to_have_text("已暂停，新增 2 条")
    expect(rows).to_have_count(1)
    page.mouse.move(0, 0)
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("150****1003")
    expect(state).to_contain_text("显示最新 50 条")

    rows.first.locator("a").focus()
    site.push("15080921004", "71004", status="1")
    expect(state).to_have_text("已暂停，新增 1 条")
    page.locator("#tail-hold").focus()
    expect(rows).to_have_count(4)

    page.keyboard.press("Enter")
    expect(page.locator("#tail-hold")).to_have_attribute("aria-pressed", "true")
    for number in range(60):
        site.push("15080921005", f"72{number:03}", status="1")
    expect(state).to_have_text("已暂停，新增 50+ 条")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("72059")
    assert len(set(rows.evaluate_all("rows => rows.map(row => row.id)"))) == 50
    assert_not_reloaded(page)
    rows.first.locator("a").click()
    expect(page.locator("main")).to_contain_text("72059")


def test_tail_without_scripts_is_a_list_with_a_link_to_refresh(site: Site, open_page: Callable[..., Page]) -> None:
    page = open_page(site.origin, "/console/tail", locale="en", java_script_enabled=False)
    log_in(page, "ada")
    expect(page.locator("#tail-hold")).to_be_hidden()
    site.push("15080921009", "73001", status="1")
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("#tail-rows tr").first).to_contain_text("73001")


def test_setup_ticks_each_step_and_a_test_message_goes_its_way(site: Site, open_page: Callable[..., Page]) -> None:
    page = open_page(site.origin, "/console/setup", locale="zh-CN")
    log_in(page, "ada")
    mark(page)
    expect(page.locator("#done-self-test")).to_have_attribute("data-state", "pending")
    other = page.context.new_page()
    other.goto("/console/setup")
    other.get_by_role("button", name="开始自检").click()
    expect(other.locator("[role=status].banner")).to_contain_text("自检成功")
    expect(page.locator("#done-self-test")).to_have_attribute("data-state", "delivered")  # by itself
    assert_not_reloaded(page)

    page.get_by_role("link", name="发送测试短信").click()
    page.locator("[name=mobile]").fill("138 0013 8000")
    page.locator("[name=template_id]").fill("540")
    page.locator("[name=code]").fill("246813")
    page.locator("[name=sure]").check()
    page.get_by_role("button", name="发送", exact=True).click()
    page.wait_for_url(re.compile(r"/console/test-message/\d+$"))
    way = page.locator("#way")
    expect(way).to_contain_text("平台已受理")
    expect(way).to_contain_text("等待回执")
    mark(page)
    expect(way).to_contain_text("已收到回执推送")
    expect(page.locator("#way-state .badge")).to_have_attribute("data-state", "delivered")
    expect(page.locator("#announce")).to_have_text("已送达")
    assert_not_reloaded(page)
    assert "13800138000" not in page.content()
    other.reload()
    for step in ("push", "message"):
        expect(other.locator(f"#done-{step}")).to_have_attribute("data-state", "delivered")


def test_home_leads_back_to_ones_look_ups_and_a_slash_to_the_field(site: Site, open_page: Callable[..., Page]) -> None:
    page = open_page(site.origin, "/console/", locale="zh-CN")
    log_in(page, "sue")
    look_up(page, "138 0013 8999")
    page.goto("/console/")
    field = page.locator("[name=wanted]")
    expect(page.locator("#today")).to_contain_text("最近一次推送")
    page.locator("h1").click()
    expect(field).not_to_be_focused()
    page.keyboard.press("/")
    expect(field).to_be_focused()
    page.keyboard.type("a/b")
    expect(field).to_have_value("a/b")
    page.get_by_role("link", name="138 0013 8999").click()
    expect(page.locator("#answers")).to_be_visible()
    assert "8999" not in page.url
