"""Pages of the documentation in the console: whole in both languages, and what alarms lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.alerting.rules import Alarm
from receiver.app import create_app
from receiver.web.console import docs
from tests.web.console.staff import log_in, one_database

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime


@one_database
@pytest.mark.parametrize(("language", "title"), [("en", "Runbook"), ("zh-CN", "运维手册")])
def test_runbook_has_a_heading_for_each_alarm_in_the_language_of_the_page(
    runtime: Runtime, language: str, title: str
) -> None:
    page = log_in(create_app(runtime), runtime, "support").page("/runbook", headers={"Accept-Language": language})
    assert f">{title}</h1>" in page.html
    for alarm in Alarm:
        assert page.at(alarm.replace("_", "")) == alarm.heading
        assert f'<a href="#{alarm.replace("_", "")}">' in page.html
    assert "<table>" in page.html
    assert "systemctl status receiver" in page.text


@one_database
def test_warning_and_open_alarm_lead_to_their_headings(runtime: Runtime) -> None:
    runtime.availability.mark_up()
    staff = log_in(create_app(runtime), runtime, "support")
    assert staff.logged_in
    runtime.availability.mark_down("connection refused")
    page = staff.page("/status")
    assert page.html.count('href="/console/runbook#databaseaway"') == 2  # in the banner, and beside the reason


def test_document_has_no_more_than_markdown_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(
        "# A <b>title</b>\n\n[中文](page.zh-CN.md)\n\n<script>x</script>\n\n## Fällt es *aus*, `x y`?\n\n"
        "[js](javascript:x) [file](other.md) [there](#there) [web](https://example.com/)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(docs, "_FILES", tmp_path)
    document = docs.read_document.__wrapped__("page.md")
    assert "<script>" not in document.body
    assert "中文" not in document.body
    assert "&lt;b&gt;" in document.body
    assert [(section.level, section.anchor) for section in document.sections] == [(2, "fällt-es-aus-x-y")]
    assert document.body.count("<a ") == 2
    assert 'href="#there"' in document.body
    assert "file" in document.body
    assert "other.md" not in document.body
