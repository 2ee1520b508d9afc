"""The ten tasks of a support agent, in a browser and in Chinese: none takes more than two clicks from the first page.

What is clicked and read is found by the words that people see.
"""

from __future__ import annotations

import io
import re
import socket
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Literal

import openpyxl
import pytest
from playwright.sync_api import expect

from tests.harness.factories import make_send
from tests.web.console.staff import at, create, keep, plain_runtime, record
from tests.web.console.test_browser import ZONE, Site, log_in, serve, tab_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Locator, StorageState

    from receiver.core import Push, SentMessage
    from tests.harness.browser import Guard

    OpenContext = Callable[..., tuple[BrowserContext, Guard]]
    MakeAgent = Callable[..., "Agent"]

CLICKS_MAX = 2
USERS = {"sue": "support", "lin": "support", "ann": "analyst"}
MINUTE = 60
TOO_SOON = "相同手机号码一分钟之内只可发送一次"
OPT_OUTS = {
    "13800001110": ("退订", re.compile("回复 退订$")),
    "13800001111": ("退丁", re.compile("回复 疑似退订$")),
    "13800001112": ("别发了", re.compile("回复 疑似退订$")),
}
WAITING = [f"1350000000{digit}" for digit in range(5)]
# A click of a person, on whatever page of the tab. Presses of Enter are none, though browsers make clicks of some.
_COUNT_CLICKS = """
addEventListener("click", event => {
    if (event.isTrusted && event.detail) sessionStorage.setItem("clicks", 1 + Number(sessionStorage.getItem("clicks")));
}, true);
"""


class Sent:
    """Sends of so many seconds ago, and what the platform pushed about them."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)  # a push tells whole seconds
        self.sends: list[SentMessage] = []
        self.pushes: list[Push] = []

    def send(self, mobile: str, task_id: str, *, ago: float, status: str | None = None, **more: str) -> None:
        """Add a send, and its receipt of five seconds later."""
        sent_at = self.now - timedelta(seconds=ago)
        self.sends.append(make_send(mobile=mobile, task_id=task_id, sent_at=sent_at, template_id="540", **more))
        if status is not None:
            self.pushes.append(at(sent_at + timedelta(seconds=5), mobile=mobile, task_id=task_id, status=status))

    def refuse(self, mobile: str, reference: str, *, ago: float) -> None:
        """Add a send that the platform refused."""
        sent_at = self.now - timedelta(seconds=ago)
        self.sends.append(
            make_send(mobile=mobile, task_id=None, reference=reference, sent_at=sent_at, error_message=TOO_SOON)
        )

    def reply(self, mobile: str, task_id: str, content: str, *, ago: float) -> None:
        """Add a reply."""
        self.pushes.append(at(self.now - timedelta(seconds=ago), mobile=mobile, task_id=task_id, content=content))


def _today_and_yesterday() -> Sent:
    sent = Sent()
    noon = datetime.combine(_today() - timedelta(days=1), time(12), ZONE)
    yesterday = (sent.now - noon).total_seconds()
    sent.send("15911110000", "y-failed", ago=yesterday, status="0")
    sent.send("15911110000", "y-delivered", ago=yesterday, status="1")

    sent.send("13911112222", "t-before", ago=20 * MINUTE, status="0")
    sent.send("15080921090", "T7001", ago=6 * MINUTE, status="1", reference="order-7001")
    sent.reply("15080921090", "T7001", "谢谢👨‍👩‍👧，已收到", ago=5 * MINUTE)
    sent.send("15911110000", "T7002", ago=4.5 * MINUTE, status="0")
    sent.send("15922220000", "T7003", ago=4 * MINUTE, status="0")
    sent.send("13700000001", "T7004", ago=4 * MINUTE, status="1")
    sent.refuse("13700000001", "order-7004", ago=4 * MINUTE - 8)
    sent.refuse("13700000002", "order-7005", ago=4 * MINUTE)
    for mobile, (said, _) in OPT_OUTS.items():
        sent.send(mobile, f"T{mobile}", ago=30 * MINUTE, status="1")
        sent.reply(mobile, f"T{mobile}", said, ago=3 * MINUTE)
    sent.pushes.append(at(sent.now - timedelta(seconds=2 * MINUTE), mobile="186****7777", task_id="elsewhere"))
    # Since the last push five numbers wait: the platform is silent.
    for mobile in WAITING:
        sent.send(mobile, f"T{mobile}", ago=1.8 * MINUTE)
    return sent


def _today() -> date:
    return datetime.now(ZONE).date()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with messages of today and yesterday; the platform can be reached, and has been silent for 2 minutes."""
    directory: Path = tmp_path_factory.mktemp("site")
    with plain_runtime(directory) as runtime:
        for name, role in USERS.items():
            create(runtime, name, role)
        sent = _today_and_yesterday()
        record(runtime, *sent.sends)
        keep(runtime, *sent.pushes)
    with socket.create_server(("127.0.0.1", 0)) as platform:
        settings = {
            "RECEIVER_CONSOLE_TOTP": "optional",
            "RECEIVER_ALARM_SILENT_MINUTES": "1",
            "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform.getsockname()[1]}/smsApi",
        }
        with serve(directory, "", {}, **settings) as made:
            yield made


@pytest.fixture(scope="module")
def sessions(site: Site, browser: Browser) -> Mapping[str, StorageState]:
    """What each user's browser holds after the log-in."""
    made = {}
    for name in USERS:
        context = browser.new_context(base_url=site.origin, locale="zh-CN")
        page = context.new_page()
        page.goto("/console/")
        log_in(page, name)
        made[name] = context.storage_state()
        context.close()
    return made


class Agent:
    """Somebody at a page after the log-in, in Chinese; their clicks are counted by the browser."""

    def __init__(self, context: BrowserContext, path: str) -> None:
        context.add_init_script(_COUNT_CLICKS)
        self.page = context.new_page()
        self.page.goto(path)

    @property
    def clicks(self) -> int:
        return int(self.page.evaluate("Number(sessionStorage.getItem('clicks'))"))

    @property
    def copied(self) -> str:
        """The text in the clipboard."""
        text: str = self.page.evaluate("navigator.clipboard.readText()")
        return text

    @property
    def answer(self) -> Locator:
        """All that the page answers."""
        return self.page.locator("#answers")

    def paste(self, text: str) -> None:
        """Paste into the field that has the focus, and press Enter."""
        self.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        self.page.keyboard.press("Control+V")
        self.page.keyboard.press("Enter")
        self.page.wait_for_url("**/console/look-up/*")
        expect(self.answer).to_be_visible()

    def paste_anew(self, text: str) -> None:
        """Do so on the first page."""
        self.page.goto("/console/")
        self.paste(text)

    def click(self, words: str, role: Literal["link", "button"] = "link") -> None:
        """Click on the first that has these words: the menu and the page may both lead there."""
        self.page.get_by_role(role, name=words, exact=True).first.click()

    def to_file(self, act: Callable[[], None]) -> tuple[str, list[tuple[object, ...]]]:
        """Do what leads to a workbook; return its name and rows."""
        with self.page.expect_download() as waited:
            act()
        sheet = openpyxl.load_workbook(io.BytesIO(waited.value.path().read_bytes()), read_only=True).active
        assert sheet is not None
        return waited.value.suggested_filename, list(sheet.iter_rows(values_only=True))

    def rows(self) -> list[str]:
        """The rows of the page's one list, each as one line."""
        return [re.sub(r"\s+", " ", text) for text in self.page.locator("tbody tr").all_inner_texts()]


@pytest.fixture
def make_agent(site: Site, sessions: Mapping[str, StorageState], open_context: OpenContext) -> MakeAgent:
    def make(name: str, path: str = "/console/", *, problem: str | None = None) -> Agent:
        context, guard = open_context(
            site.origin,
            locale="zh-CN",
            permissions=["clipboard-read", "clipboard-write"],
            storage_state=sessions[name],
        )
        if problem:
            guard.allow(problem)
        return Agent(context, path)

    return make


@pytest.fixture
def agent(make_agent: MakeAgent) -> Iterator[Agent]:
    """A support agent; at the end of the test they have clicked twice at most."""
    made = make_agent("sue")
    yield made
    assert made.clicks <= CLICKS_MAX


def test_1_did_they_get_it(agent: Agent) -> None:
    agent.paste("15080921090")
    expect(agent.answer).to_contain_text("查询的号码： 150 8092 1090")
    expect(agent.answer.get_by_text("已送达", exact=True)).to_be_visible()
    expect(agent.answer).to_contain_text(re.compile(r"已于 \d\d:\d\d:\d\d 送达，用时5秒。"))
    expect(agent.answer).to_contain_text("处理建议： 短信已到达对方手机。")
    assert "15080921090" not in agent.page.url
    assert agent.clicks == 0


def test_2_by_the_last_four_digits(agent: Agent) -> None:
    for pasted in ("1090", "尾号1090", "后四位1090", "末四位：1090", "*1090", "150****1090"):
        agent.paste_anew(pasted)
        expect(agent.answer.get_by_text("已送达", exact=True), pasted).to_be_visible()
        expect(agent.answer, pasted).to_contain_text("150****1090 · 模板 540 · 任务ID T7001")
    assert agent.clicks == 0


def test_3_what_did_they_reply(agent: Agent) -> None:
    agent.paste("15080921090")
    reply = agent.answer.get_by_role("listitem").filter(has_text="回复")
    expect(reply.get_by_text("谢谢👨‍👩‍👧，已收到", exact=True)).to_be_visible()
    assert agent.clicks == 0


def test_4_who_else_failed_in_the_last_ten_minutes(agent: Agent) -> None:
    agent.click("近10分钟发送失败")
    expect(agent.page.get_by_text("共 2 条", exact=True)).to_be_visible()
    newer, older = agent.rows()
    assert re.search(r"\d分钟前 .*159\*{4}0000 .*发送失败 540 T7003", newer)
    assert re.search(r"159\*{4}0000 .*发送失败 540 T7002", older)
    assert agent.clicks == 1


def test_5_hand_over_by_link(agent: Agent, make_agent: MakeAgent, site: Site) -> None:
    agent.paste("15080921090")
    agent.click("复制链接", "button")
    expect(agent.page.get_by_role("status")).to_have_text("已复制")
    link = agent.copied
    assert link.startswith(f"{site.origin}/console/messages/")
    assert agent.clicks == 1

    colleague = make_agent("lin", link).page
    expect(colleague).to_have_url(link)
    expect(colleague).to_have_title("已送达 · *1090 · receiver")
    expect(colleague.get_by_text("150****1090", exact=True).first).to_be_visible()
    expect(colleague.get_by_text("谢谢👨‍👩‍👧，已收到", exact=True)).to_be_visible()


def test_5_hand_over_by_the_text_of_the_case(agent: Agent) -> None:
    agent.paste("13700000001")
    agent.click("复制摘要", "button")
    expect(agent.page.get_by_role("status")).to_have_text("已复制")
    state, sentence, number, *_ = agent.copied.split("\n")
    assert (state, number) == ("状态：已送达", "手机号：137****0001")
    assert f"{_today():%Y年%-m月%-d日}" in sentence
    assert agent.clicks == 1


def test_5_the_address_of_a_look_up_names_the_right_link(agent: Agent, make_agent: MakeAgent) -> None:
    agent.paste("15080921090")
    colleague = make_agent("lin", agent.page.url, problem="404 (NOT FOUND)").page
    expect(colleague.get_by_text("请同事点击查询结果旁的“复制链接”")).to_be_visible()


@pytest.mark.parametrize("name", ["sue", "ann"])
def test_6_export_the_failures_of_yesterday(make_agent: MakeAgent, name: str) -> None:
    agent = make_agent(name)
    agent.click("昨天发送失败")
    expect(agent.page.get_by_text("共 1 条", exact=True)).to_be_visible()
    file, (headings, failed) = agent.to_file(lambda: agent.click("XLSX"))
    yesterday = _today() - timedelta(days=1)
    assert file == f"短信-发送失败-{yesterday}.xlsx"
    assert headings[:3] == ("发送时间", "手机号", "状态")
    assert all(re.search("[一-鿿]", str(heading)) for heading in headings), headings
    assert failed[1:3] == ("159****0000", "发送失败")
    assert "y-failed" in failed
    assert agent.clicks == 2


def test_7_refused_though_an_earlier_one_arrived(agent: Agent) -> None:
    agent.paste("13700000001")
    expect(agent.answer.get_by_text("已送达", exact=True).first).to_be_visible()
    expect(agent.answer).to_contain_text(
        re.compile(rf"已于 \d\d:\d\d:\d\d 送达，用时5秒。\s*8秒后又请求了一次：平台拒绝（{TOO_SOON}）。")
    )
    expect(agent.answer).to_contain_text("共请求 2 次，其中发出 1 次：")
    expect(agent.answer).not_to_contain_text("未发出")
    assert agent.clicks == 0


def test_7_refused_and_nothing_arrived(agent: Agent) -> None:
    agent.paste("13700000002")
    expect(agent.answer.get_by_text("平台拒绝", exact=True).first).to_be_visible()
    expect(agent.answer).to_contain_text(TOO_SOON)
    expect(agent.answer).to_contain_text("短信未发出")
    assert agent.clicks == 0


def test_8_is_the_platform_down(agent: Agent, site: Site) -> None:
    page = agent.page
    expect(page.get_by_role("region", name="提醒")).to_contain_text("平台已停止推送：最近一次推送在")
    agent.click("运行状态")
    verdict = page.get_by_role("region", name="本系统正常，但没有收到推送。请联系平台客服，并提供下方信息。")
    expect(verdict).to_contain_text("平台异常")
    expect(verdict).to_contain_text("至少五个号码等待回执已超过")
    expect(page.get_by_text("提供给平台客服")).to_be_visible()
    expect(page.get_by_text("T13500000000  135****0000")).to_be_visible()
    for mobile in WAITING:
        site.push(mobile, f"T{mobile}", status="1")
    expect(page.get_by_role("region", name="推送正常接收并保存。")).to_contain_text("一切正常")
    assert agent.clicks == 1


def test_9_opt_outs_by_number(agent: Agent) -> None:
    for mobile, (said, word) in OPT_OUTS.items():
        agent.paste_anew(mobile)
        reply = agent.answer.get_by_role("listitem").filter(has_text="回复")
        expect(reply.get_by_role("paragraph").filter(has_text=word), said).to_be_visible()
        expect(reply.get_by_role("blockquote"), said).to_have_text(said)
    assert agent.clicks == 0


def test_9_opt_outs_by_list(agent: Agent) -> None:
    agent.click("退订名单")
    expect(agent.page.get_by_role("heading", name="退订名单")).to_be_visible()
    (opted_out,) = agent.rows()
    assert re.match(r"138\*{4}1110 .*退订", opted_out)
    agent.click("疑似退订")
    expect(agent.page.locator("tbody tr")).to_have_count(2)
    newest, other = agent.rows()
    assert re.match(r"138\*{4}1112 .*别发了", newest)
    assert re.match(r"138\*{4}1111 .*退丁", other)
    assert agent.clicks == 2


def test_9_opt_outs_leave_with_a_reason(make_agent: MakeAgent) -> None:
    agent = make_agent("ann")
    agent.click("退订名单")
    reason = agent.page.get_by_label("导出完整号码的原因")
    tab_to(agent.page, reason)
    agent.page.keyboard.insert_text("同步停发名单")
    file, rows = agent.to_file(lambda: agent.page.keyboard.press("Enter"))
    assert file.startswith("退订名单-")
    assert [row[0] for row in rows] == ["手机号", "13800001110"]
    assert agent.clicks == 1


ONE = (
    "15080921090 23:08",
    "2026-11-29 15080921090",
    "15080921090\t2026-11-29",
    "客户15080921090 12点",
    "+86 150-8092-1090",
    "１５０８０９２１０９０",
    "批次ID：T7001",
    "task #t7001",
    "order-7001",
)
SEVERAL = ("15080921090 15911110000", "15080921090\n15911110000", "15080921090,15911110000", "15080921090、15911110000")
NOTHING = {
    "1508092109": "1508092109 只有 10 位，手机号应为 11 位。",
    "109": "按任务ID和业务编号查询： 109",
    "abc": "仅凭现有信息，无法判断短信是否发出。",
    "186****7777": "的回执可能与此有关。",
}


def test_10_one_number_beside_other_things(agent: Agent) -> None:
    for pasted in ONE:
        agent.paste_anew(pasted)
        expect(agent.answer.get_by_text("已送达", exact=True), pasted).to_be_visible()
        expect(agent.answer, pasted).to_contain_text("任务ID T7001")
    assert agent.clicks == 0


def test_10_several_numbers_are_all_answered(agent: Agent) -> None:
    for pasted in SEVERAL:
        agent.paste_anew(pasted)
        expect(agent.answer, pasted).to_contain_text("150 8092 1090")
        expect(agent.answer.get_by_text("已送达", exact=True), pasted).to_be_visible()
        expect(agent.answer, pasted).to_contain_text("159 1111 0000")
        expect(agent.answer.get_by_text("发送失败", exact=True), pasted).to_be_visible()
    assert agent.clicks == 0


def test_10_what_is_no_whole_number_is_never_said_to_be_unsent(agent: Agent) -> None:
    for pasted, said in NOTHING.items():
        agent.paste_anew(pasted)
        expect(agent.answer, pasted).to_contain_text(said)
        expect(agent.answer, pasted).not_to_contain_text("短信没有发出")
    assert agent.clicks == 0
