"""What was typed outlives the end of a session, in a real browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from receiver.auth.users import IDLE_MAX
from receiver.db.tables import user_sessions
from tests.harness.browser import open_menu
from tests.web.console.test_browser import PASSWORD, POLLED, assert_not_reloaded, log_in, mark, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.web.console.test_browser import OpenContext, OpenPage, Site

pytestmark = pytest.mark.thorough

ADVICE = "Ask them to wait.\nThen let them request a new code."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a user of support and an administrator."""
    users = {"sue": "support", "ada": "admin"}
    with serve(tmp_path_factory.mktemp("site"), "", users, RECEIVER_CONSOLE_TOTP="optional") as made:
        yield made


def end_sessions(site: Site, name: str, role: str) -> None:
    """End all sessions of a user, as an administrator on the server."""
    done = site.serve.run("users", "role", name, "--role", role)
    assert done.returncode == 0, done.stderr


def kept(page: Page) -> str:
    """What the tab keeps of what was typed."""
    found: str | None = page.evaluate("sessionStorage.getItem('receiver drafts')")
    return found or ""


def test_a_look_up_after_the_end_is_there_again_after_the_log_in(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/", locale="zh-CN")
    log_in(page, "sue")
    page.locator("[name=wanted]").fill("150 8092 1090")
    end_sessions(site, "sue", "support")
    page.locator("[name=wanted]").press("Enter")
    expect(page.locator("main [role=status]")).to_have_text("管理员已结束您的登录，请重新登录。")
    log_in(page, "sue")
    page.wait_for_url(f"{site.origin}/console/")
    expect(page.locator("[name=wanted]")).to_have_value("150 8092 1090")
    expect(page.locator("main form .hint").first).to_have_text("已恢复之前填写的内容，请检查后重新提交。")
    assert kept(page) == ""
    page.locator("[name=wanted]").press("Enter")
    expect(page.locator("#answers")).to_be_visible()
    assert kept(page) == ""


def test_a_long_text_survives_the_log_out_of_another_tab(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin, locale="en")
    guard.allow("401")
    page, other = context.new_page(), context.new_page()
    page.goto("/console/advice?language=en")
    log_in(page, "ada")
    page.locator("[name=late]").fill(ADVICE)
    other.goto("/console/account")
    open_menu(other, "[action$=logout]")
    other.locator("form[action$=logout] button").click()
    expect(other.locator("main [role=status]")).to_have_text("You have logged out.")
    expect(page.locator("[name=password]")).to_be_visible(timeout=POLLED)  # it asked again by itself
    log_in(page, "ada")
    page.wait_for_url("**/console/advice?language=en")
    expect(page.locator("[name=late]")).to_have_value(ADVICE)
    page.locator("main form button").click()
    expect(page.locator(".banner p").first).to_have_text("Advice saved.")
    assert kept(page) == ""


def test_a_form_that_is_too_old_leads_back_to_itself_with_what_was_typed(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin, locale="en")
    guard.allow("400")
    page, other = context.new_page(), context.new_page()
    page.goto("/console/users")
    log_in(page, "ada")
    other.goto("/console/account")
    open_menu(other, "[action$=logout]")
    other.locator("form[action$=logout] button").click()
    log_in(other, "ada")
    page.locator("input[name=name]").fill("li.wei")
    page.locator("[name=role]").select_option("analyst")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[name=password]").press("Enter")
    expect(page.locator("main pre").first).to_have_text("li.wei")
    assert PASSWORD not in kept(page)
    page.locator("main a").click()
    expect(page.locator("input[name=name]")).to_have_value("li.wei")
    expect(page.locator("[name=role]")).to_have_value("analyst")
    expect(page.locator("[name=password]")).to_have_value("")


def test_nothing_typed_is_given_to_another_user_or_kept_after_a_log_out(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/", locale="en")
    log_in(page, "sue")
    page.locator("[name=wanted]").fill("15080921090")
    open_menu(page, "[action$=logout]")
    page.locator("form[action$=logout] button").click()
    expect(page.locator("[name=password]")).to_be_visible()
    assert kept(page) == ""
    log_in(page, "sue")
    page.locator("[name=wanted]").fill("15080921090")
    end_sessions(site, "sue", "support")
    page.locator("[name=wanted]").press("Enter")
    expect(page.locator("[name=password]")).to_be_visible()
    assert "15080921090" in kept(page)
    log_in(page, "ada")
    expect(page.locator("[name=wanted]")).to_have_value("")
    assert kept(page) == ""


def test_without_scripts_a_form_leads_back_to_its_page(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/advice?language=zh-CN", locale="en", java_script_enabled=False)
    log_in(page, "ada")
    page.locator("[name=late]").fill(ADVICE)
    end_sessions(site, "ada", "admin")
    page.locator("main form button").click()
    expect(page.locator("main [role=status]")).to_contain_text("An administrator has ended your session.")
    log_in(page, "ada")
    page.wait_for_url("**/console/advice?language=zh-CN")


def test_a_status_page_stays_on_the_wall_while_others_lead_to_the_log_in(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin, locale="en")
    guard.allow("401")
    wall, other = context.new_page(), context.new_page()
    wall.goto("/console/status")
    log_in(wall, "sue")
    wall.wait_for_url("**/console/status")
    other.goto("/console/messages")
    mark(wall)
    engine = sa.create_engine(f"sqlite:///{site.serve.data_dir / 'receiver.db'}")
    with engine.begin() as connection:
        unused = datetime.now(UTC) - IDLE_MAX - timedelta(minutes=1)
        connection.execute(sa.update(user_sessions).values(last_seen_at=unused))
    engine.dispose()
    other.wait_for_url("**/console/login?next=/console/messages", timeout=POLLED)
    expect(other.locator("main [role=status]")).to_have_text("Your session has expired. Please log in again.")
    expect(wall.locator("#now .hint").first).to_contain_text("View only", timeout=POLLED)
    assert_not_reloaded(wall)
    wall.locator("#now .hint a").first.click()
    log_in(wall, "sue")
    wall.wait_for_url("**/console/status")
    expect(wall.locator("#now")).not_to_contain_text("View only")
