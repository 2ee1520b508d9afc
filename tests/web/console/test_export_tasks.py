"""What an agent takes away, in a browser and in Chinese, with the clicks counted: none over two."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import openpyxl
import pytest
from playwright.sync_api import expect

from tests.web.console.test_browser import ZONE, Site, log_in, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

    from tests.harness.browser import Guard

    OpenContext = Callable[..., tuple[BrowserContext, Guard]]

pytestmark = pytest.mark.thorough

USERS = {"sue": "support", "ann": "analyst"}
DAY = 86_400.0


class Clicks:
    """Clicks of somebody at the pages."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.count = 0

    def on(self, where: Locator) -> None:
        self.count += 1
        where.click()

    def to_file(self, where: Locator) -> tuple[str, list[tuple[object, ...]]]:
        """Click on what leads to a workbook; return its name and its rows."""
        with self.page.expect_download() as waited:
            self.on(where)
        content = io.BytesIO(waited.value.path().read_bytes())
        sheet = openpyxl.load_workbook(content, read_only=True).active
        assert sheet is not None
        return waited.value.suggested_filename, list(sheet.iter_rows(values_only=True))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with failures of yesterday and of today, and with replies."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("module_postgres_database_url")
    with serve(tmp_path_factory.mktemp("site"), url, USERS, RECEIVER_CONSOLE_TOTP="optional") as made:
        made.key = made.serve.make_key("read", "messages:write")
        for task, ago, status in (("y-failed", DAY, "0"), ("y-delivered", DAY, "1"), ("t-failed", 1.0, "0")):
            made.record("13800138000", task, ago=ago, template_id="540")
            made.push("13800138000", task, ago=ago - 1, status=status)
        made.push("13800138000", "y-delivered", ago=5, content="TD")
        made.push("13800138000", "y-delivered", ago=4, content="谢谢")
        yield made


@pytest.fixture(params=["sue", "ann"])
def someone(request: pytest.FixtureRequest, site: Site, open_context: OpenContext) -> Clicks:
    """Somebody at the first page after the log-in."""
    context, _ = open_context(site.origin, locale="zh-CN", accept_downloads=True)
    page = context.new_page()
    page.goto("/console/")
    log_in(page, request.param)
    return Clicks(page)


def test_failures_of_yesterday_are_a_workbook_after_two_clicks(someone: Clicks) -> None:
    page = someone.page
    someone.on(page.get_by_role("link", name="昨天发送失败"))
    expect(page.locator("tbody th a")).to_have_count(1)
    name, rows = someone.to_file(page.get_by_role("link", name="XLSX"))
    yesterday = (datetime.now(ZONE) - timedelta(days=1)).date()
    assert someone.count == 2
    assert name == f"短信-发送失败-{yesterday}.xlsx"
    headings, failed = rows
    assert headings[:3] == ("发送时间", "手机号", "状态")
    assert failed[1:3] == ("138****8000", "发送失败")
    assert "y-failed" in failed


def test_opt_out_is_found_after_one_click(someone: Clicks) -> None:
    page = someone.page
    someone.on(page.get_by_role("link", name="退订名单").first)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("138****8000")
    expect(page.locator("tbody tr")).to_contain_text("TD")
    assert someone.count == 1


def test_opt_outs_leave_with_a_reason_and_one_click_more(site: Site, open_context: OpenContext) -> None:
    context, _ = open_context(site.origin, locale="zh-CN", accept_downloads=True)
    clicks = Clicks(context.new_page())
    clicks.page.goto("/console/")
    log_in(clicks.page, "ann")
    clicks.on(clicks.page.get_by_role("link", name="退订名单").first)
    clicks.page.get_by_label("导出完整号码的原因").fill("同步停发名单")
    name, rows = clicks.to_file(clicks.page.get_by_role("button", name="导出 XLSX"))
    assert clicks.count == 2
    assert name.startswith("退订名单-")
    assert [row[0] for row in rows] == ["手机号", "13800138000"]
