"""The documentation in the console: whole in both languages, searched, and what alarms lead to."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from receiver.alerting.rules import Alarm
from receiver.app import create_app
from receiver.docs import library, parse_document
from receiver.web.console.docs import render_document
from tests.web.console.staff import Staff, log_in, one_database

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_HEADERS = {"en": {"Accept-Language": "en"}, "zh-CN": {"Accept-Language": "zh-CN"}}


@pytest.fixture
def staff(runtime: Runtime) -> Staff:
    return log_in(create_app(runtime), runtime, "support")


@one_database
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_every_page_opens_and_its_links_lead_to_a_page_and_a_heading(staff: Staff, language: str) -> None:
    pages = {page.path: staff.page(f"/docs/{page.path}", headers=_HEADERS[language]) for page in
             library().list_pages(language)}  # fmt: skip
    assert pages
    for path, page in pages.items():
        assert library().read(path, language).title in page.text
        for tag, given in page.tags:
            assert "style" not in given, (path, tag)
            link = given.get({"a": "href", "img": "src"}.get(tag, "-"))
            parts = urlsplit(unquote(urljoin(f"/console/docs/{path}", link or "")))
            target = parts.path.removeprefix("/console/docs/")
            if target == parts.path or parts.scheme:
                continue
            if tag == "img":
                assert given.get("alt"), (path, link)
                assert library().find_image(target), (path, link)
            elif target != "index":
                assert target in pages, (path, link)
                assert not parts.fragment or parts.fragment in pages[target].by_id, (path, link)


@one_database
@pytest.mark.parametrize(
    ("language", "title", "kind"), [("en", "Settings", "Reference pages"), ("zh-CN", "配置项", "参考手册")]
)
def test_index_has_every_page_below_its_kind(staff: Staff, language: str, title: str, kind: str) -> None:
    page = staff.page("/docs", headers=_HEADERS[language])
    links = {str(given["href"]) for tag, given in page.tags if tag == "a"}
    assert {f"/console/docs/{each.path}" for each in library().list_pages(language)} <= links
    assert f"<h2>{kind}</h2>" in page.html
    assert f">{title}</a>" in page.html


@one_database
def test_search_leads_to_the_section_that_has_the_words(staff: Staff) -> None:
    page = staff.page("/docs?q=RECEIVER_PUBLIC_URL+platform+browsers", headers=_HEADERS["en"])
    assert 'href="/console/docs/reference/settings#addresses"' in page.html
    assert 'value="RECEIVER_PUBLIC_URL platform browsers"' in page.html
    chinese = staff.page("/docs?q=权限范围", headers=_HEADERS["zh-CN"])
    assert 'href="/console/docs/reference/scopes"' in chinese.html
    assert "No page has these words." in staff.page("/docs?q=<b>nonsense", headers=_HEADERS["en"]).text
    assert "/console/docs/reference/settings" in staff.page("/docs?q=++", headers=_HEADERS["en"]).html


@one_database
def test_a_page_has_one_address_to_which_its_other_names_lead(staff: Staff) -> None:
    for name, address in (
        ("/docs/reference/settings.md", "/console/docs/reference/settings"),
        ("/docs/runbook", "/console/docs/runbook/index"),
        ("/runbook", "/console/docs/runbook/index"),
        ("/docs/DatabaseAway", f"/console/docs/{library().find_alarm('DatabaseAway')}"),
    ):
        answer = staff.get(name)
        assert (answer.status_code, answer.location) == (302, address), name
    assert staff.get("/docs/nowhere").status_code == 404
    assert staff.get("/docs/..%2f..%2fpyproject.toml").status_code == 404
    assert staff.get("/docs/images/nowhere.png").status_code == 404


@one_database
def test_image_is_served_as_one(staff: Staff) -> None:
    answer = staff.get("/docs/images/status-en.png")
    assert (answer.status_code, answer.content_type, answer.data[1:4]) == (200, "image/png", b"PNG")


@one_database
def test_drawing_has_its_styles_and_nothing_that_runs(staff: Staff) -> None:
    answer = staff.get("/docs/images/push.svg")
    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"


@one_database
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_every_alarm_has_its_heading_where_its_link_leads(staff: Staff, language: str) -> None:
    for alarm in Alarm:
        place = library().find_alarm(alarm.heading)
        page = staff.page(f"/docs/{place.path}", headers=_HEADERS[language])
        assert page.at(place.anchor) == alarm.heading


@one_database
def test_warning_and_open_alarm_lead_to_their_headings(runtime: Runtime) -> None:
    runtime.availability.mark_up()
    staff = log_in(create_app(runtime), runtime, "support")
    assert staff.logged_in
    runtime.availability.mark_down("connection refused")
    page = staff.page("/status")
    address = re.escape(f'href="/console/docs/{library().find_alarm("DatabaseAway").path}#databaseaway"')
    assert len(re.findall(address, page.html)) == 2  # in the banner, and beside the reason


def test_document_has_no_more_than_markdown_says() -> None:
    text = (
        "# A <b>title</b>\n\n[中文](../zh-CN/how-to/page.md)\n\n<!-- not run: a secret -->\n<script>x</script>\n\n"
        "## Fällt es *aus*, `x y`?\n\n[js](javascript:x) [file](../../prometheus/alerts.yml) [there](#there) "
        "[web](https://example.com/) [page](../reference/settings.md#storage) ![gone](../images/gone.png)\n\n"
        "| a | b |\n|---|--:|\n| 1 | 2 |\n"
    )
    page = parse_document(text, path="how-to/page", language="en", source=PurePosixPath("deploy/docs/how-to/page.md"))
    for _ in range(2):  # the page itself is not changed
        body = render_document(page)
        assert "<script>" not in body
        assert "not run" not in body
        assert "中文" not in body
        assert "&lt;b&gt;" in body
        assert 'id="fällt-es-aus-x-y"' in body
        assert re.findall(r'href="([^"]*)"', body) == [
            "#there", "https://example.com/", "../reference/settings#storage",
        ]  # fmt: skip
        assert "file" in body
        assert "alerts.yml" not in body
        assert "<img" not in body
        assert 'style="' not in body
        assert '<td class="num">2</td>' in body
        assert '<div class="scroll" tabindex="0"><table>' in body
