"""The staff pages as people use them: a real browser, a real server, both databases."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pyotp
import pytest
from playwright.sync_api import TimeoutError as Timeout
from playwright.sync_api import expect

from tests.harness.browser import open_menu
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Locator, Page

    from tests.harness.browser import Guard

    OpenPage = Callable[..., Page]
    OpenContext = Callable[..., tuple[BrowserContext, Guard]]

pytestmark = pytest.mark.thorough

ZONE = ZoneInfo("Asia/Shanghai")
PASSWORD = "correct horse battery"
USERS = {"sue": "support", "ann": "analyst", "ada": "admin"}
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \u202eabc"
LOCALES = pytest.mark.parametrize("locale", ["en", "zh-CN"])
POLLED = 12_000  # milliseconds: what a page looks at again by itself shows it by then


@dataclass
class Site:
    """A server that runs, and the ways by which its data come."""

    serve: ServeProcess
    key: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.serve.port}"

    def make_user(self, name: str, role: str) -> None:
        """Make a user, as on the server's own terminal."""
        made = self.serve.run("users", "create", name, "--role", role, stdin=f"{PASSWORD}\n")
        assert made.returncode == 0, made.stderr

    def record(self, mobile: str, task_id: str | None, *, ago: float = 0, **more: str) -> None:
        """Record a send of so many seconds ago."""
        sent_at = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="milliseconds")
        send = {"mobile": mobile, "sent_at": sent_at, **({"task_id": task_id} if task_id else {}), **more}
        body = json.dumps(send).encode()
        headers = {**self.key, "Content-Type": "application/json"}
        answer = self.serve.request("POST", "/api/v1/messages", body, headers)
        assert answer.status in (200, 201), answer.body

    def push(self, mobile: str, task_id: str, *, ago: float = 0, **own: str) -> None:
        """Push a receipt (`status`) or a reply (`content`)."""
        moment = datetime.now(ZONE) - timedelta(seconds=ago)
        fields = {"mobile": mobile, "taskid": task_id, "receivetime": f"{moment:%Y-%m-%d %H:%M:%S}", **own}
        answer = self.serve.push(urlencode(fields).encode())
        assert answer.status == 200, answer.body


@contextmanager
def serve(data_dir: Path, database_url: str, users: Mapping[str, str], **environment: str) -> Iterator[Site]:
    """Run a server with these users and a key for everything."""
    process = ServeProcess(data_dir, database_url, environment=environment)
    if database_url.startswith("postgresql"):
        process.upgrade()
    with process:
        site = Site(process)
        with ThreadPoolExecutor() as pool:
            list(pool.map(site.make_user, users, users.values()))
        yield site


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for the tests of this module, with a few messages of today."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("module_postgres_database_url")
    with serve(tmp_path_factory.mktemp("site"), url, USERS, RECEIVER_CONSOLE_TOTP="optional") as made:
        made.key = made.serve.make_key("read", "messages:write")
        for number, status in enumerate("1110"):
            made.record(f"1380013800{number}", f"5100{number}", ago=60, template_id="540")
            made.push(f"1380013800{number}", f"5100{number}", ago=50, status=status)
        yield made


def log_in(page: Page, name: str) -> None:
    """Log in by the form that the page shows."""
    page.locator("input[name=name]").fill(name)
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[name=password]").press("Enter")
    expect(page.locator("[autocomplete=current-password]")).to_have_count(0)


def look_up(page: Page, wanted: str, period: str | None = None) -> None:
    """Look something up from any page of those who may."""
    page.goto("/console/")
    page.locator("[name=wanted]").fill(wanted)
    if period:
        page.locator("[name=period]").select_option(period)
    page.locator("[name=wanted]").press("Enter")
    expect(page.locator("#answers")).to_be_visible()


def tab_to(page: Page, wanted: Locator, *, at_most: int = 40) -> None:
    """Press Tab until this has the focus, which has to be seen wherever it goes."""
    expect(wanted).to_be_visible()  # a page that still loads takes the focus away
    for _ in range(at_most):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        outline = focused.evaluate("element => getComputedStyle(element).outline")
        assert outline.endswith("solid 2px"), focused.evaluate("element => element.outerHTML")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"the keyboard does not reach {wanted}")


def mark(page: Page) -> None:
    """Leave something in the page that a reload would take away."""
    page.evaluate("window.marked = true")


def assert_not_reloaded(page: Page) -> None:
    """Hold the page to be the one that was marked."""
    assert page.evaluate("window.marked") is True


# --- Look-ups -----------------------------------------------------------------------------------------


@LOCALES
def test_support_looks_up_by_keyboard_and_the_answer_comes_by_itself(
    site: Site, open_page: OpenPage, locale: str
) -> None:
    mobile, task = ("15080921001", "61001") if locale == "en" else ("15080921002", "61002")
    site.record(mobile, task, template_id="541")
    site.push(mobile, task, content="ok")
    page = open_page(site.origin, "/console/messages", locale=locale)
    expect(page.locator("input[name=name]")).to_be_focused()
    page.keyboard.type("sue")
    tab_to(page, page.locator("[name=password]"))
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.origin}/console/messages")
    expect(page.locator("html")).to_have_attribute("lang", locale)

    skip = page.locator(".skip")
    tab_to(page, skip, at_most=1)
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.goto("/console/messages")
    tab_to(page, page.locator("nav a[href='/console/']"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/")

    expect(page.locator("[name=wanted]")).to_be_focused()
    page.keyboard.type(f" +86 {mobile[:3]} {mobile[3:7]}-{mobile[7:]}")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/look-up/*")
    assert mobile not in page.url
    answer = page.locator("#answers .answer")
    expect(answer).to_have_attribute("data-state", "pending")
    expect(answer.locator(".answer-note").first).to_contain_text(mobile)
    expect(answer.locator(".advice")).to_be_visible()
    if locale == "en":
        expect(answer.locator(".answer-text")).to_contain_text("ago, no receipt yet")
    raw = answer.locator("details details summary")
    tab_to(page, raw)
    page.keyboard.press("Enter")
    expect(answer.locator("details details dl")).to_be_visible()
    mark(page)

    site.push(mobile, task, status="1")
    expect(answer).to_have_attribute("data-state", "delivered")
    assert_not_reloaded(page)
    details = answer.locator("details[id^=reply-]")
    assert details.evaluate("details => details.open")
    expect(details.locator("summary")).to_be_focused()
    if locale == "en":
        expect(page.locator("#announce")).to_contain_text("Delivered")
    with pytest.raises(Timeout), page.expect_request("**/answer*", timeout=2_500):
        pass


def test_look_up_by_task_reference_last_digits_and_a_wrong_number(site: Site, open_page: OpenPage) -> None:
    site.record("15080922001", "62001", reference="order-62001", ago=3 * 3600)
    site.push("15080922001", "62001", ago=3 * 3600 - 9, status="0")
    page = open_page(site.origin, "/console/")
    log_in(page, "sue")
    answer = page.locator("#answers .answer")

    for wanted in ("62001", "order-62001", "2001"):
        look_up(page, wanted, "24h")
        expect(answer).to_have_count(1)
        expect(answer).to_have_attribute("data-state", "failed")
        expect(answer.locator(".answer-text")).to_contain_text("Not delivered")
        expect(answer.locator(".answer-note").first).to_contain_text("150****2001")
        expect(page.locator("#answers .banner")).to_have_count(0)
        expect(page.locator("[name=period]")).to_have_value("24h")
    look_up(page, "2001")
    expect(page.locator("#answers .banner")).to_contain_text("Nothing in the last 10 minutes")
    expect(answer).to_have_attribute("data-state", "failed")
    look_up(page, "13900000000")
    expect(answer.locator(".answer-state")).to_have_text("Nothing found")
    expect(answer.locator(".advice")).to_contain_text("digit by digit")


def test_pasted_lines_stay_apart_and_enter_sends_them(site: Site, open_page: OpenPage) -> None:
    site.record("15080922501", "62501", ago=30)
    page = open_page(site.origin, "/console/")
    log_in(page, "sue")
    page.goto("/console/")
    field = page.locator("[name=wanted]")
    field.focus()
    page.keyboard.insert_text("15080922501\n13900000000")
    field.press("Enter")
    answers = page.locator("#answers .answer")
    expect(answers).to_have_count(2)
    expect(answers.first).to_contain_text("150 8092 2501")
    expect(answers.last.locator(".answer-state")).to_have_text("Nothing found")
    answers.first.get_by_role("link").click()
    expect(page.locator("#answers .timeline")).to_be_visible()


def test_resends_are_one_answer(site: Site, open_page: OpenPage) -> None:
    for number, ago in enumerate((240, 130, 20)):
        site.record("15080923001", f"6300{number}", ago=ago, template_id="541")
    site.push("15080923001", "63000", ago=200, status="0")
    page = open_page(site.origin, "/console/")
    log_in(page, "sue")
    look_up(page, "15080923001")

    expect(page.locator("#answers .answer")).to_have_count(1)
    expect(page.locator(".attempts li")).to_have_count(3)
    expect(page.locator(".attempts .badge").last).to_have_attribute("data-state", "failed")
    page.locator(".attempts a").last.click()
    expect(page.locator("#task")).to_have_text("63000")


def test_nothing_typed_is_answered_beside_the_field(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin)
    guard.allow("422 (UNPROCESSABLE ENTITY)")
    page = context.new_page()
    page.goto("/console/")
    log_in(page, "sue")
    page.locator("[name=wanted]").fill("   ")
    page.locator("[name=wanted]").press("Enter")

    expect(page.get_by_role("alert")).to_contain_text("Enter a phone number")
    expect(page.locator("[name=wanted]")).to_have_attribute("aria-invalid", "true")


@LOCALES
def test_a_number_is_revealed_to_who_says_why(site: Site, open_page: OpenPage, locale: str) -> None:
    page = open_page(site.origin, "/console/messages?task_id=51000", locale=locale)
    log_in(page, "sue")
    page.locator("tbody th a").click()
    facts = page.locator(".facts").first
    expect(facts).to_contain_text("138****8000")
    page.locator("#reveal summary").click()
    page.locator("[name=reason]").fill(f"caller asked ({locale})")
    page.locator("#reveal button").click()

    expect(facts).to_contain_text("13800138000")
    expect(page.locator("#reveal")).to_have_count(0)
    other = open_page(site.origin, "/console/audit", locale=locale)
    log_in(other, "ada")
    revealed = other.locator("tbody tr:has([title='number.reveal'])").first
    expect(revealed).to_contain_text("user:sue")
    expect(revealed).to_contain_text(f"caller asked ({locale})")


def test_a_case_is_handed_to_a_colleague_by_its_link_and_as_text(site: Site, open_page: OpenPage) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = open_page(site.origin, "/console/", locale="zh-CN", permissions=permissions)
    log_in(page, "sue")
    look_up(page, "13800138000")
    expect(page).to_have_title("已送达 · *8000 · receiver")
    page.get_by_role("button", name="复制摘要").click()
    expect(page.locator("#announce")).to_have_text("已复制")
    text = page.evaluate("navigator.clipboard.readText()")
    today = f"{datetime.now(ZONE):%Y年%-m月%-d日} "
    assert "\n手机号：138****8000\n" in text
    assert "\n任务ID：51000\n" in text
    assert text.count(today) >= 3
    page.get_by_role("button", name="复制链接").click()
    expect(page.locator("[data-done]")).to_have_count(2)
    link = page.evaluate("navigator.clipboard.readText()")
    assert text.endswith(f"\n{link}")

    colleague = open_page(site.origin, link.removeprefix(site.origin), locale="en")
    log_in(colleague, "ann")
    expect(colleague).to_have_url(link)
    expect(colleague).to_have_title("Delivered · *8000 · receiver")
    expect(colleague.locator(".facts").first).to_contain_text("138****8000")


def test_a_note_that_is_being_written_stays_while_the_answer_refreshes(site: Site, open_page: OpenPage) -> None:
    site.record("15080922901", "62901", template_id="541")
    page = open_page(site.origin, "/console/", locale="zh-CN")
    log_in(page, "sue")
    look_up(page, "15080922901")
    form = page.locator(".note-form")
    form.locator("textarea").fill("已回电，等对方")
    for _ in range(2):
        with page.expect_response("**/answer*"):
            pass
    site.push("15080922901", "62901", status="1")
    expect(page.locator("#answers .answer")).to_have_attribute("data-state", "delivered")
    expect(page).to_have_title("已送达 · *2901 · receiver")
    expect(form.locator("textarea")).to_have_value("已回电，等对方")
    form.get_by_role("button", name="标为已处理").click()
    page.wait_for_url("**/console/look-up/*")
    expect(page.locator(".notes li")).to_have_count(2)
    expect(page.locator(".notes")).to_contain_text("sue：已回电，等对方")
    expect(page.locator(".case > p .badge")).to_have_text("已处理")

    page.goto("/console/messages?task_id=62901")
    row = page.locator("tbody tr")
    expect(row).to_contain_text("1条备注")
    row.get_by_role("button", name="查询").click()
    page.wait_for_url("**/console/look-up/*")
    expect(page.locator(".notes")).to_contain_text("标为已处理")
    expect(page.locator("[name=wanted]")).to_have_value("150****2901")
    assert "15080922901" not in page.content()


# --- Lists --------------------------------------------------------------------------------------------


@LOCALES
def test_filters_stay_in_the_address(site: Site, open_page: OpenPage, locale: str) -> None:
    page = open_page(site.origin, "/console/messages", locale=locale)
    log_in(page, "sue")
    page.locator("[name=status]").select_option("failed")
    page.locator("[name=template_id]").fill("540")
    page.locator("form.filters button").click()

    def assert_narrowed() -> None:
        assert "status=failed" in page.url
        expect(page.locator("[name=status]")).to_have_value("failed")
        expect(page.locator("[name=template_id]")).to_have_value("540")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody .badge")).to_have_attribute("data-state", "failed")

    page.wait_for_url("**status=failed**")
    assert_narrowed()
    page.reload()
    assert_narrowed()
    page.locator("tbody th a").click()
    page.wait_for_url("**/console/messages/*")
    page.go_back()
    assert_narrowed()
    page.locator(".views a").nth(3).click()
    expect(page.locator(".views [aria-current=page]")).to_have_count(1)
    expect(page.locator("[name=template_id]")).to_have_value("")


def test_a_wrong_filter_is_named_beside_its_field(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin)
    guard.allow("422 (UNPROCESSABLE ENTITY)")
    page = context.new_page()
    page.goto("/console/messages?sent_from=soon")
    log_in(page, "sue")

    expect(page.locator("[name=sent_from]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#sent_from-error")).to_be_visible()


def test_replies_are_searched_and_a_hostile_one_is_text(site: Site, open_page: OpenPage) -> None:
    site.record("15080924001", "64001", template_id="542")
    site.push("15080924001", "64001", content=HOSTILE)
    site.push("15080924001", "64001", content="TD")
    page = open_page(site.origin, "/console/replies")
    log_in(page, "sue")
    page.locator("[name=q]").fill("hacked")
    page.locator("[name=q]").press("Enter")

    page.wait_for_url("**q=hacked**")
    expect(page.locator("tbody tr")).to_have_count(1)
    said = page.locator("tbody .said").first
    expect(said).to_contain_text("<script>window.hacked = 1</script>")
    expect(said.locator(".unseen")).to_have_text("U+202E")
    expect(said.locator(".unseen")).to_have_attribute("title", "RIGHT-TO-LEFT OVERRIDE")
    assert said.locator("img, script").count() == 0
    look_up(page, "15080924001")
    expect(page.locator("#answers .reply").first).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None
    page.goto("/console/replies")
    page.get_by_role("link", name="Opt-outs", exact=True).click()
    page.wait_for_url("**opt_out=true**")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody .said").first).to_have_text("TD")


def test_what_is_pushed_comes_into_the_open_lists(site: Site, open_page: OpenPage) -> None:
    messages = open_page(site.origin, "/console/messages?task_id=65001")
    log_in(messages, "sue")
    replies = messages.context.new_page()
    replies.goto("/console/replies?task_id=65001")
    for page in (messages, replies):
        expect(page.locator("tbody")).to_contain_text("Nothing matches these filters.")
        mark(page)
    messages.locator("[name=template_id]").fill("half typed")
    site.push("15080925001", "65001", status="1")
    site.push("15080925001", "65001", content="thank you")

    expect(messages.locator("tbody .badge")).to_have_attribute("data-state", "delivered", timeout=POLLED)
    expect(replies.locator("tbody .said").first).to_have_text("thank you", timeout=POLLED)
    for page in (messages, replies):
        assert_not_reloaded(page)
    expect(messages.locator("[name=template_id]")).to_have_value("half typed")


# --- What is wrong ------------------------------------------------------------------------------------


def test_an_unreadable_push_is_told_looked_at_and_read_again(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/status")
    log_in(page, "ada")
    expect(page.locator("#banner .banner")).to_have_count(0)
    mark(page)
    site.serve.push(b"mobile=1&taskid=66001&status=1")
    banner = page.locator("#banner .banner")
    expect(banner).to_contain_text("1 push could not be parsed", timeout=POLLED)
    assert_not_reloaded(page)

    banner.get_by_role("link", name="View").click()
    page.locator("tbody th a").first.click()
    expect(page.locator("main")).to_contain_text("mobile: not a phone number")
    page.get_by_text("Bytes", exact=True).click()
    expect(page.locator("#hex-body pre")).to_contain_text("000000  6d 6f 62 69 6c 65 3d 31 26")
    page.get_by_role("button", name="Re-parse").click()
    expect(page.locator("[role=status].banner")).to_contain_text("still cannot be parsed")
    page.goto("/console/pushes?outcome=quarantined")
    page.get_by_role("button", name="Mark as reviewed").click()
    page.get_by_role("button", name="Mark all as reviewed").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#banner .banner")).to_have_count(0)


def test_status_gives_evidence_to_copy(site: Site, open_page: OpenPage) -> None:
    site.record("15080927001", "67001", ago=600)
    page = open_page(site.origin, "/console/status", permissions=["clipboard-read", "clipboard-write"])
    log_in(page, "sue")
    expect(page.locator(".plot canvas")).to_have_count(1)
    page.get_by_role("button", name="Copy").click()

    expect(page.locator("#announce")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "67001  150****7001" in copied
    assert "15080927001" not in copied


# --- Reports and files --------------------------------------------------------------------------------


def test_an_analyst_reads_reports_and_takes_files(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/")
    log_in(page, "ann")
    page.wait_for_url("**/console/reports")
    charts = page.locator("figure[data-chart]")
    expect(page.locator("figure[data-chart] canvas")).to_have_count(charts.count())
    assert charts.count() >= 5
    page.locator("#numbers-days summary").click()
    today = f"{datetime.now(ZONE):%Y-%m-%d}"
    expect(page.locator("#table-days tbody tr").last).to_contain_text(today)
    with page.expect_download() as started:
        page.locator("#days").get_by_role("link", name="Download as CSV").click()
    assert started.value.suggested_filename.startswith("days_")
    lines = started.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("Day,Delivered,Failed")
    assert lines[-1].startswith(f"{today},")

    page.locator("[name=compare]").check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**compare=1**")
    expect(page.locator("#rates .u-legend")).to_contain_text("Previous period")
    expect(page.locator(".tile").first).to_contain_text("Previous period: 0")

    open_menu(page, "[href$=exports]")
    page.get_by_role("link", name="Exports").click()
    messages = page.locator(".card", has_text="Messages")
    messages.locator("[name=format]").select_option("csv")
    with page.expect_download() as started:
        messages.get_by_role("button").click()
    text = started.value.path().read_text(encoding="utf-8-sig")
    assert "138****8000" in text
    assert "13800138000" not in text


# --- Administration -----------------------------------------------------------------------------------


def test_an_administrator_makes_a_user_who_logs_in(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/users")
    log_in(page, "ada")
    page.locator("input[name=name]").fill("new.one")
    page.locator("[name=role]").select_option("analyst")
    page.locator("[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Create user").click()

    expect(page.locator(".banner[role=status]")).to_contain_text("new.one can log in now.")
    expect(page.locator("tbody tr", has_text="new.one")).to_contain_text("Analyst")
    other = open_page(site.origin, "/console/")
    log_in(other, "new.one")
    other.wait_for_url("**/console/reports")


def test_a_key_is_copied_used_and_revoked(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/keys", permissions=["clipboard-read", "clipboard-write"])
    log_in(page, "ada")
    page.locator("input[name=name]").fill("dashboard")
    page.locator("[name=scope][value=read]").check()
    page.get_by_role("button", name="Create key").click()
    page.locator("[data-copy='#fresh']").click()
    expect(page.locator("#announce")).to_have_text("Copied")
    bearer = {"Authorization": f"Bearer {page.evaluate('navigator.clipboard.readText()')}"}
    assert site.serve.request("GET", "/api/v1/messages", headers=bearer).status == 200

    page.goto("/console/keys")
    expect(page.locator("#fresh")).to_have_count(0)
    page.get_by_role("button", name="Revoke dashboard").click()
    expect(page.locator("h1")).to_have_text("Revoke the key dashboard?")
    assert site.serve.request("GET", "/api/v1/messages", headers=bearer).status == 200
    page.get_by_role("button", name="Revoke key dashboard").click()
    expect(page.locator("tbody tr", has_text="dashboard")).to_contain_text("revoked")
    assert site.serve.request("GET", "/api/v1/messages", headers=bearer).status == 401


def test_the_teams_own_advice_reaches_support(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/advice?language=en")
    log_in(page, "ada")
    page.locator("[name=refused]").fill("Ask Bo on floor 3.")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("[name=refused]")).to_have_value("Ask Bo on floor 3.")
    site.record("15080928001", None, reference="order-68001", return_status="0", message="number is on a list")
    other = open_page(site.origin, "/console/")
    log_in(other, "sue")
    look_up(other, "15080928001")

    answer = other.locator("#answers .answer")
    expect(answer).to_have_attribute("data-state", "refused")
    expect(answer.locator(".answer-text")).to_contain_text("number is on a list")
    expect(answer.locator(".advice")).to_contain_text("Ask Bo on floor 3.")


def test_setup_gives_the_url_to_copy_and_tests_itself(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/setup", permissions=["clipboard-read", "clipboard-write"])
    log_in(page, "ada")
    page.locator("[data-copy='#url-1-1']").click()
    expect(page.locator("#announce")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == site.origin + site.serve.target
    page.get_by_role("button", name="Run self-test").click()

    expect(page.locator(".banner[role=status]")).to_contain_text("acknowledged in")


# --- Getting in and out -------------------------------------------------------------------------------


def test_an_administrator_sets_a_second_factor_up_and_is_asked_for_it(
    tmp_path: Path, database_url: str, open_page: OpenPage
) -> None:
    with serve(tmp_path, "" if "sqlite" in database_url else database_url, {"ada": "admin"}) as site:
        page = open_page(site.origin, "/console/users")
        log_in(page, "ada")
        page.wait_for_url("**/console/second-factor**")
        expect(page.locator(".qr-box svg")).to_be_visible()
        totp = pyotp.TOTP(page.locator("#key").inner_text())
        page.goto("/console/users")  # nothing is shown half-way
        page.wait_for_url("**/console/second-factor**")
        page.goto("/console/second-factor?next=/console/users")
        page.locator("[name=code]").fill(totp.now())
        page.locator("[name=code]").press("Enter")
        first, *rest = page.locator("#codes").inner_text().split()
        assert len(rest) == 9
        page.get_by_role("button", name="I have saved them").click()
        page.wait_for_url(f"{site.origin}/console/users")
        expect(page.locator("tbody tr")).to_contain_text("set up")

        open_menu(page, "[action$=logout]")
        page.get_by_role("button", name="Log out").click()
        log_in(page, "ada")
        expect(page.locator("[name=code]")).to_be_focused()
        expect(page.locator(".qr-box")).to_have_count(0)
        page.locator("[name=code]").fill(totp.at(int(time.time()) + 30))  # each code is good once
        page.locator("[name=code]").press("Enter")
        page.wait_for_url("**/console/")
        expect(page.locator("[name=wanted]")).to_be_focused()

        open_menu(page, "[action$=logout]")
        page.get_by_role("button", name="Log out").click()
        log_in(page, "ada")
        page.locator("#recovery summary").click()
        page.locator("[name=recovery_code]").fill(first.upper().replace("-", " "))
        page.locator("[name=recovery_code]").press("Enter")
        expect(page.locator(".banner[role=status]")).to_contain_text("A recovery code was used. Left: 9.")
        page.close()  # it asks for its banner again and again, and its server ends before it


def test_a_wrong_password_is_told(site: Site, open_context: OpenContext) -> None:
    context, guard = open_context(site.origin)
    guard.allow("401 (UNAUTHORIZED)")
    page = context.new_page()
    page.goto("/console/")
    page.locator("input[name=name]").fill("sue")
    page.locator("[name=password]").fill("wrong horse battery")
    page.locator("[name=password]").press("Enter")

    expect(page.get_by_role("alert")).to_contain_text("Incorrect username")
    expect(page.locator("[name=password]")).to_be_focused()
    log_in(page, "sue")


def test_the_language_is_the_browsers_until_another_is_chosen(site: Site, open_page: OpenPage) -> None:
    site.record("15080929001", "69001", ago=3 * 86400)
    page = open_page(site.origin, "/console/messages?task_id=69001", locale="zh-CN")
    html, button = page.locator("html"), page.locator("[name=language]")
    expect(html).to_have_attribute("lang", "zh-CN")
    expect(button).to_have_text("English")
    log_in(page, "sue")
    expect(html).to_have_attribute("lang", "zh-CN")
    expect(page.locator("tbody time").first).to_contain_text("月")

    open_menu(page, "[name=language]")
    button.click()
    expect(html).to_have_attribute("lang", "en")
    assert page.url.endswith("/console/messages?task_id=69001")
    expect(button).to_have_text("中文")
    expect(button).to_have_attribute("lang", "zh-CN")
    expect(page.locator("tbody time").first).not_to_contain_text("月")
    page.goto("/console/replies")
    expect(html).to_have_attribute("lang", "en")
    open_menu(page, "[action$=logout]")
    page.locator("form[action$=logout] button").click()
    expect(page.locator("[name=password]")).to_be_visible()
    expect(html).to_have_attribute("lang", "en")
    log_in(page, "sue")
    expect(html).to_have_attribute("lang", "en")
    open_menu(page, "[name=language]")
    button.click()
    expect(html).to_have_attribute("lang", "zh-CN")


def test_pages_work_without_scripts(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/", java_script_enabled=False)
    log_in(page, "ada")
    page.goto("/console/")
    page.locator("[name=wanted]").fill("13800138000")
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("#answers .answer")).to_have_attribute("data-state", "delivered")
    page.locator("#answers details details summary").first.click()
    expect(page.locator("#answers details details dl").first).to_be_visible()
    page.get_by_role("link", name="Messages", exact=True).click()
    page.locator("[name=status]").select_option("failed")
    page.locator("form.filters button").click()
    expect(page.locator("tbody .badge").first).to_have_attribute("data-state", "failed")
    open_menu(page, "[href$=reports]")
    page.get_by_role("link", name="Reports").click()
    expect(page.locator("figure[data-chart]").first).to_be_hidden()
    page.locator("#numbers-days summary").click()
    expect(page.locator("#table-days")).to_be_visible()
    open_menu(page, "[href$=setup]")
    page.get_by_role("link", name="Setup").click()
    expect(page.locator("#url-1-1")).to_be_visible()
    expect(page.locator("[data-copy]").first).to_be_hidden()
    page.get_by_role("button", name="Run self-test").click()
    expect(page.locator(".banner[role=status]")).to_contain_text("acknowledged in")
    open_menu(page, "[name=language]")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_after_logging_out_nothing_is_shown(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.origin, "/console/messages")
    log_in(page, "sue")
    open_menu(page, "[action$=logout]")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/console/login")
    page.go_back()
    expect(page.locator("[name=password]")).to_be_visible()
    page.goto("/console/messages")
    page.wait_for_url("**/console/login?next=**")


def test_an_open_page_leads_to_the_log_in_once_the_user_is_kept_out(site: Site, open_context: OpenContext) -> None:
    site.make_user("eve", "support")
    context, guard = open_context(site.origin)
    guard.allow("401 (UNAUTHORIZED)")
    page = context.new_page()
    page.goto("/console/messages")
    log_in(page, "eve")
    expect(page.locator("#rows")).to_be_visible()
    assert site.serve.run("users", "disable", "eve").returncode == 0

    page.wait_for_url("**/console/login?next=/console/messages", timeout=POLLED)
    expect(page.locator("[name=password]")).to_be_visible()
