"""Pages that go on by themselves, in a real browser, with a stand-in for the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.web.console.test_browser import USERS, Site, assert_not_reloaded, log_in, mark, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server without any push."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("module_postgres_database_url")
    with serve(tmp_path_factory.mktemp("live"), url, USERS, RECEIVER_CONSOLE_TOTP="optional") as made:
        made.key = made.serve.make_key("read", "messages:write")
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
