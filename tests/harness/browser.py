"""A real browser for tests of pages: each page is watched for what no page of ours may do."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
DESKTOP, PHONE, TABLET, WIDE = 1280, 360, 768, 1440
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", event => console.error(
    `securitypolicyviolation: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""

expect.set_options(timeout=30_000)  # the machine may be busy


class Guard:
    """What the pages of one context did wrong."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self._host = urlsplit(origin).netloc
        self._allowed: list[str] = []
        self._problems: list[str] = []
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("request", self._on_request)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._problems.append(f"page error: {error.error}"))

    def allow(self, words: str) -> None:
        """Let pass what has these words in it: the browser reports a wanted 404 as an error, for one."""
        self._allowed.append(words)

    def problems(self) -> list[str]:
        """Everything wrong so far that is not allowed."""
        return [problem for problem in self._problems if not any(words in problem for words in self._allowed)]

    def _on_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.netloc != self._host:
            self._problems.append(f"foreign request: {request.url}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._problems.append(f"console error: {message.text} {message.location}")


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium without a window. Raises FileNotFoundError where there is none.

    The one that has no windows at all comes first: a context of it takes a fifth of the processor time.
    """
    path = os.environ.get("RECEIVER_TEST_CHROMIUM")
    path = path or shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if not path:
        raise FileNotFoundError("no Chromium: install it, or name it in RECEIVER_TEST_CHROMIUM")
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        try:
            started = launch(playwright)
        except FileNotFoundError as none:
            pytest.skip(str(none))
        yield started
        started.close()


@pytest.fixture
def open_context(browser: Browser) -> Iterator[Callable[..., tuple[BrowserContext, Guard]]]:
    """Make a watched context for an origin; at the test's end nothing may have gone wrong in any."""
    made: list[tuple[BrowserContext, Guard]] = []

    def make(origin: str, *, width: int = DESKTOP, dark: bool = False, **options: Any) -> tuple[BrowserContext, Guard]:
        context = browser.new_context(
            base_url=origin,
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",  # a colour on its way to another has a contrast of its own
            **options,
        )
        guard = Guard(context, origin)
        made.append((context, guard))
        return made[-1]

    yield make
    problems = []
    for context, guard in made:
        context.close()
        problems += guard.problems()
    assert problems == [], "\n".join(problems)


@pytest.fixture
def open_page(open_context: Callable[..., tuple[BrowserContext, Guard]]) -> Callable[..., Page]:
    """Open a path of an origin in a context of its own."""

    def make(origin: str, path: str = "/", **options: Any) -> Page:
        context, _ = open_context(origin, **options)
        page = context.new_page()
        page.goto(path)
        return page

    return make


def open_menu(page: Page, of: str) -> None:
    """Open the menu of the bar that holds this."""
    page.locator(f".bar details.menu:has({of}) > summary").click()


def assert_accessible(page: Page, within: str | None = None) -> None:
    """Hold the page, or a part of it, against WCAG 2.2 AA with axe; print what is only advised."""
    options = {
        "resultTypes": ["violations"],
        "runOnly": {"type": "tag", "values": [*WCAG, "best-practice"]},
        "rules": {"target-size": {"enabled": True}},  # off by default
    }
    violations = Axe().run(page, context=within, options=options).response["violations"]
    wrong = [told for each in violations if set(each["tags"]) & set(WCAG) for told in _tell(each)]
    for told in (told for each in violations if not set(each["tags"]) & set(WCAG) for told in _tell(each)):
        print("advised:", told)
    assert wrong == [], f"{page.url}:\n" + "\n".join(wrong)


def assert_fits(page: Page) -> None:
    """Hold the page to its width: only a box of its own may scroll sideways."""
    wide: int = page.evaluate("document.documentElement.scrollWidth")
    shown: int = page.evaluate("document.documentElement.clientWidth")
    assert wide <= shown, f"{page.url} is {wide} px wide in a window of {shown} px"


# Numbers, ids and times stand on one line; a cell holds its content, and lies on no other.
_LAYOUT = """
() => {
    const problems = [], shown = element => element.checkVisibility() && element.getClientRects().length;
    const said = element => `${element.tagName} ${element.className} "${element.textContent.trim().slice(0, 40)}"`;
    const content = element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return range.getBoundingClientRect();
    };
    const spills = element => getComputedStyle(element).overflowX === "visible" && (
        element.scrollWidth > element.clientWidth + 1 || !element.matches(".text") && content(element).width
        && content(element).left < element.getBoundingClientRect().left - 1);
    const lines = element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        let [count, bottom] = [0, -1];
        for (const rect of [...range.getClientRects()].filter(each => each.width > 1).sort((a, b) => a.top - b.top)) {
            if (rect.top >= bottom - 2) count += 1;
            bottom = Math.max(bottom, rect.bottom);
        }
        return count;
    };
    for (const element of document.querySelectorAll(
            "main time, td.num, td.mono, th.mono, td .mono, .badge, #rows th[scope=row], .bar summary, .bar nav a")) {
        if (!shown(element) || element.closest(".text, details:not([open]) > :not(summary)")) continue;
        if (lines(element) > 1) problems.push(`wraps: ${said(element)}`);
    }
    for (const row of document.querySelectorAll("tr")) {
        const boxes = [...row.cells].filter(shown).map(cell => [cell, cell.getBoundingClientRect()]);
        for (const [cell, box] of boxes) {
            if (spills(cell)) problems.push(`spills: ${said(cell)}`);
            for (const [other, its] of boxes) {
                const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
                const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
                if (cell !== other && wide > 1 && high > 1) problems.push(`overlaps: ${said(cell)} and ${said(other)}`);
            }
        }
    }
    for (const element of document.querySelectorAll("main > *, .card, .answer, .facts dd, .bar, .banner p")) {
        if (shown(element) && spills(element)) problems.push(`spills: ${said(element)}`);
    }
    return [...new Set(problems)].slice(0, 20);
}
"""


def assert_laid_out(page: Page) -> None:
    """Hold the page to its layout: no number, id or time wraps, no cell spills over or lies on another."""
    problems: list[str] = page.evaluate(_LAYOUT)
    assert problems == [], f"{page.url}:\n" + "\n".join(problems)


def _tell(violation: dict[str, Any]) -> list[str]:
    return [
        f"{violation['id']} ({violation['impact']}): {' '.join(map(str, node['target']))}: "
        + "; ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])
        for node in violation["nodes"]
    ]
