"""The files that pages are made with: those of others unchanged, and ours working in a real browser."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import TimeoutError as Timeout
from playwright.sync_api import expect
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from tests.harness.browser import DESKTOP, PHONE, assert_accessible, assert_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext, Page

    from tests.harness.browser import Guard

WEB = Path(__file__).parents[2] / "receiver" / "web"
STATIC = WEB / "console" / "static"
VENDORED = [
    pytest.param(listed.parent / name, digest, id=name)
    for listed in (WEB / "static" / "swagger" / "VENDORED", STATIC / "vendor" / "VENDORED")
    for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", listed.read_text(), re.MULTILINE)
]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HTMX_CONFIG = {
    "history": False,
    "includeIndicatorCSS": False,
    "noSwap": [204, 304, "4xx", "5xx"],
    "morphIgnore": ["data-htmx-powered", "open"],
    "morphSkip": ".plot",
    "extensions": "none",
}
STATES = ["pending", "delivered", "failed", "unknown", "no_receipt", "refused", "sending", "outcome_unknown"]
POLLS_AT_MOST = 4
FAULTY = """<!doctype html><link rel="icon" href="data:,"><title></title><p style="color: red">Styled here</p>
<script>throw new Error("run here")</script><img src="http://192.0.2.1/pixel.png"><input>"""


@pytest.mark.parametrize(("path", "digest"), VENDORED)
def test_a_vendored_file_is_what_its_list_says(path: Path, digest: str) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


@pytest.fixture
def site() -> Iterator[str]:
    """A server of our files and a page with one of everything, behind the console's own policy."""
    polls = itertools.count(1)

    @Request.application
    def application(request: Request) -> Response:
        if request.path == "/":
            response = Response(_page(), mimetype="text/html")
        elif request.path == "/live":
            response = Response(_live(min(next(polls), POLLS_AT_MOST)), mimetype="text/html")
        elif request.path == "/expired":
            response = Response("<p>log in</p>", status=401, headers={"HX-Redirect": "/faulty"}, mimetype="text/html")
        elif request.path == "/faulty":
            response = Response(FAULTY, mimetype="text/html")
        elif request.path == "/broken":
            response = Response("<p>broken</p>", status=500, mimetype="text/html")
        else:
            path = STATIC / request.path.removeprefix("/static/")
            kind = {".js": "text/javascript", ".css": "text/css"}[path.suffix]
            response = Response(path.read_bytes(), mimetype=kind)
        response.headers["Content-Security-Policy"] = CSP
        return response

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _live(round_: int) -> str:
    """What is polled: it changes every time, and asks for no more after the last."""
    polling = 'hx-get="/live" hx-trigger="every 300ms" hx-swap="outerMorph"' if round_ < POLLS_AT_MOST else ""
    rows = "".join(
        f'<tr><th scope="row" data-value="{day}">05-{day + 1:02d}</th>'
        f'<td class="num" data-value="{900 + 37 * day % 211 + round_}">{900 + 37 * day % 211 + round_}</td>'
        f'<td class="num" data-value="{(day * 7) % 60}">{(day * 7) % 60}</td>'
        + ('<td class="num"></td>' if day == 3 else f'<td class="num" data-value="{2 + day % 5}">{2 + day % 5}</td>')
        + f'<td data-value="{day}">x</td></tr>'
        for day in range(14)
    )
    return f"""
<section id="live" class="card" {polling}>
  <h2>Delivery by day</h2>
  <p id="round" data-announce="Round {round_}">Round {round_}</p>
  <div class="columns">
  <figure class="chart" id="bars" data-chart="bars" data-stacked data-table="#by-day">
    <figcaption>Receipts by day</figcaption>
    <div class="plot" role="img" aria-label="Receipts by day; the data is in the table below"></div>
  </figure>
  <figure class="chart" id="lines" data-chart="lines" data-table="#by-day" data-unit=" s">
    <figcaption>Delay by day</figcaption>
    <div class="plot" role="img" aria-label="Delay by day; the data is in the table below"></div>
  </figure>
  </div>
  <details id="numbers"><summary>Data</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="Receipts by day">
      <table id="by-day"><thead><tr><th scope="col">Day</th>
        <th scope="col" class="num" data-colour="ok">Delivered</th>
        <th scope="col" class="num" data-colour="bad">Failed</th>
        <th scope="col" class="num" data-colour="unsure">Unknown</th>
        <th scope="col" data-plot="no">Note</th></tr></thead>
        <tbody>{rows}</tbody></table>
    </div>
  </details>
  <label for="note">A note</label> <input id="note" name="note">
</section>"""


def _page() -> str:
    config = escape(json.dumps(HTMX_CONFIG))
    badges = " ".join(f'<span class="badge" data-state="{state}">{state}</span>' for state in STATES)
    rows = "".join(
        f'<tr><th scope="row" data-label="Message"><a href="#m{i}">2044{i:04d}77120</a></th>'
        f'<td data-label="Number" class="mono">1508092109{i}</td>'
        f'<td data-label="State"><span class="badge" data-state="{state}">{state}</span></td>'
        f'<td data-label="Sent"><time>2025-05-0{i + 1} 09:31:0{i}</time></td>'
        f'<td data-label="Report" class="mono">{"DELIVRD" if state == "delivered" else "UNDELIV"}</td>'
        f'<td data-label="Delay" class="num">{i * 3 + 1}.4 s</td></tr>'
        for i, state in enumerate(STATES)
    )
    banners = "".join(
        f'<div class="banner" data-level="{level}"><p><strong>{word}:</strong> {said}</p></div>'
        for level, word, said in (
            ("alarm", "Alarm", "No receipts have arrived for 42 minutes. <a href='#health'>What to do</a>"),
            ("warn", "Warning", "The balance lasts about two days at today’s rate."),
            ("info", "Note", "You see the account “default” only."),
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sample</title>
<meta name="color-scheme" content="light dark">
<meta name="htmx-config" content="{config}">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/vendor/pico.min.css">
<link rel="stylesheet" href="/static/vendor/uPlot.min.css">
<link rel="stylesheet" href="/static/console.css">
<script src="/static/vendor/htmx.min.js" defer></script>
<script src="/static/vendor/uPlot.iife.min.js" defer></script>
<script src="/static/console.js" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="bar">
  <a class="brand" href="/">SMS receiver</a>
  <nav aria-label="Main"><ul>
    <li><a href="/" aria-current="page">Lookup</a></li><li><a href="#m">Messages</a></li>
    <li><a href="#r">Replies</a></li><li><a href="#p">Reports</a></li><li><a href="#h">Health</a></li>
    <li><a href="#s">Staff</a></li></ul></nav>
  <div class="bar-end"><a href="?lang=zh" lang="zh" hreflang="zh">中文</a> <span>wang.li</span>
    <form method="post" action="/"><button class="small quiet">Log out</button></form></div>
</header>
{banners}
<main id="main" tabindex="-1">
<h1>Message 2044000177120</h1>
<section class="answer" data-state="failed" aria-labelledby="answer">
  <p class="answer-state">Failed</p>
  <p class="answer-text" id="answer">The phone was switched off or out of reach, so the message was not delivered.</p>
  <p class="answer-note">The carrier said so on <time>2025-05-08 09:31:07</time>, 3.4 s after it was sent.</p>
  <p class="advice"><strong>What to do:</strong> ask the customer to check the signal, then send again.</p>
</section>
<div class="columns">
<section class="card"><h2>Facts</h2>
  <dl class="facts">
    <dt>Number</dt><dd><span class="mono" id="mobile">15080921090</span>
      <button type="button" class="small" data-copy="#mobile" data-copied="Number copied"
        data-failed="Could not copy. The number is selected: press Ctrl+C.">Copy</button></dd>
    <dt>Signature</dt><dd>【测试签名】 您的验证码是 4821，请勿告诉他人。</dd>
    <dt>Carrier’s word</dt><dd><code>MK:0001</code></dd>
    <dt>State</dt><dd>{badges}</dd></dl></section>
<section class="card"><h2>Timeline</h2>
  <ol class="timeline">
    <li data-state="sending"><p><time>09:31:03</time> Handed to the platform</p></li>
    <li data-state="pending"><p><time>09:31:04</time> Taken by the platform <small>task 2044</small></p></li>
    <li data-state="failed"><p><time>09:31:07</time> The carrier reported <code>MK:0001</code></p></li></ol></section>
</div>
<form class="filters" method="get" action="/">
  <label>Number <input name="mobile" inputmode="numeric" placeholder="150…"></label>
  <label>State <select name="state"><option>any</option><option>delivered</option></select></label>
  <label>From <input type="date" name="since"></label>
  <label>Until <input type="date" name="until"></label>
  <div class="buttons"><button>Search</button> <a href="/">Clear</a></div>
</form>
<div class="scroll" tabindex="0" role="region" aria-label="Messages"><table class="rows">
  <thead><tr><th scope="col">Message</th><th scope="col">Number</th><th scope="col">State</th><th scope="col">Sent</th>
  <th scope="col">Report</th><th scope="col" class="num">Delay</th></tr></thead><tbody>{rows}</tbody></table></div>
<nav class="pages" aria-label="Pages"><a href="#newer" rel="prev">← Newer</a>
  <a href="#older" rel="next">Older →</a></nav>
{_live(0)}
<p id="broken" hx-get="/broken" hx-trigger="click" hx-swap="innerMorph">Intact</p>
<p id="expired" hx-get="/expired" hx-trigger="click" hx-swap="innerMorph">Logged in</p>
</main>
<p class="visually-hidden" id="announce" role="status" aria-live="polite"></p>
</body></html>"""


def _until(page: Page, condition: str) -> None:
    """Wait for a condition in JavaScript; the browser's own waiting would eval, which the policy forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_one_of_everything_is_accessible_and_fits(
    site: str, open_page: Callable[..., Page], width: int, dark: bool
) -> None:
    page = open_page(site, width=width, dark=dark)
    expect(page.locator("#round")).to_have_text(f"Round {POLLS_AT_MOST}")
    expect(page.locator(".plot canvas")).to_have_count(2)
    page.locator("#numbers summary").click()

    assert_accessible(page)
    assert_fits(page)


def test_without_scripts_the_table_stands_for_the_chart(site: str, open_page: Callable[..., Page]) -> None:
    page = open_page(site, java_script_enabled=False)

    expect(page.locator("#bars")).to_be_hidden()
    expect(page.locator("[data-copy]")).to_be_hidden()
    page.locator("#numbers summary").click()
    expect(page.locator("#by-day")).to_be_visible()


def test_a_chart_is_drawn_from_its_table(site: str, open_page: Callable[..., Page]) -> None:
    page = open_page(site)

    legend = page.locator("#bars .u-legend")
    expect(legend).to_contain_text("Delivered")
    expect(legend).to_contain_text("Failed")
    expect(legend).not_to_contain_text("Note")
    ink = """plot => {
        const {width, height} = plot;
        const dots = plot.getContext("2d").getImageData(0, 0, width, height).data;
        const found = new Set();
        for (let i = 0; i < dots.length; i += 4) if (dots[i + 3] === 255) found.add(`${dots.slice(i, i + 3)}`);
        return [...found];
    }"""
    light = page.locator("#bars canvas").evaluate(ink)
    assert "20,108,58" in light  # --ok
    assert "176,36,27" in light  # --bad
    expect(page.locator("#round")).to_have_text(f"Round {POLLS_AT_MOST}")  # from here on the theme alone redraws
    page.evaluate("window.before = document.querySelector('#bars canvas')")
    page.emulate_media(color_scheme="dark")
    _until(page, "document.querySelector('#bars canvas') !== window.before")
    assert "99,209,145" in page.locator("#bars canvas").evaluate(ink)  # --ok of the dark theme


def test_a_chart_takes_the_width_it_is_given(site: str, open_page: Callable[..., Page]) -> None:
    page = open_page(site)
    page.set_viewport_size({"width": PHONE, "height": 800})

    _until(page, "document.querySelector('#lines .uplot').clientWidth < 340")
    # Its legend takes another moment on a busy machine.
    _until(page, "(box => box.scrollWidth <= box.clientWidth)(document.querySelector('#lines .plot'))")


@pytest.mark.parametrize("secure", [True, False], ids=["clipboard", "plain http"])
def test_a_copy_button_copies_and_says_so(site: str, open_page: Callable[..., Page], secure: bool) -> None:
    page = open_page(site, permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#announce")).to_have_text(f"Round {POLLS_AT_MOST}")  # or a poll's word may follow the button's
    reading = page.evaluate_handle("navigator.clipboard")
    if not secure:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    page.get_by_role("button", name="Copy").focus()
    page.keyboard.press("Enter")

    expect(page.locator("#announce")).to_have_text("Number copied")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    assert reading.evaluate("clipboard => clipboard.readText()") == "15080921090"


def test_polling_keeps_what_the_reader_has_open_and_stops_when_told(site: str, open_page: Callable[..., Page]) -> None:
    page = open_page(site)
    page.locator("#numbers summary").click()
    page.locator("#note").press_sequentially("as I was saying")
    page.evaluate("window.canvas = document.querySelector('#bars canvas')")

    expect(page.locator("#round")).to_have_text(f"Round {POLLS_AT_MOST}")
    assert page.locator("#numbers").evaluate("details => details.open")
    expect(page.locator("#note")).to_have_value("as I was saying")
    expect(page.locator("#note")).to_be_focused()
    expect(page.locator("#bars canvas")).to_have_count(1)
    expect(page.locator("#announce")).to_have_text(f"Round {POLLS_AT_MOST}")
    assert page.locator("#live").get_attribute("hx-trigger") is None
    with pytest.raises(Timeout), page.expect_request("**/live", timeout=1_200):
        pass


def test_an_error_page_takes_no_part_of_the_page_over(
    site: str, open_context: Callable[..., tuple[BrowserContext, Guard]]
) -> None:
    context, guard = open_context(site)
    guard.allow("500 (INTERNAL SERVER ERROR)")
    page = context.new_page()
    page.goto("/")
    with page.expect_response("**/broken"):
        page.locator("#broken").click()

    expect(page.locator("#broken")).to_have_text("Intact")


def test_a_poll_after_the_session_ended_leads_to_where_it_is_told(
    site: str, open_context: Callable[..., tuple[BrowserContext, Guard]]
) -> None:
    context, guard = open_context(site)
    guard.allow("")
    page = context.new_page()
    page.goto("/")
    page.locator("#expired").click()

    page.wait_for_url("**/faulty")


def test_a_faulty_page_is_found_out(site: str, open_context: Callable[..., tuple[BrowserContext, Guard]]) -> None:
    context, guard = open_context(site)
    page = context.new_page()
    page.goto("/faulty")
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('late') })")

    problems = "\n".join(guard.problems())
    for fault in (
        ": style-src-attr inline",
        ": script-src-elem inline",
        ": img-src http://192.0.2.1",
        "page error: late",
    ):
        assert fault in problems
    with pytest.raises(AssertionError, match=r"image-alt[^$]*label"):
        assert_accessible(page)
    with page.expect_request("http://192.0.2.1/"):
        page.evaluate("void setTimeout(() => location.href = 'http://192.0.2.1/')")
    assert "foreign request: http://192.0.2.1/" in guard.problems()
    for allowed in ("securitypolicyviolation", "violates the following", "page error", "192.0.2.1"):
        guard.allow(allowed)
