"""`docs`: the documentation at the terminal, where no browser is at hand."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from receiver.cli import cli
from receiver.core import NotFound
from receiver.docs import library


def run(*words: str, **environment: str) -> Result:
    given = dict.fromkeys(("LC_ALL", "LC_MESSAGES", "LANG")) | environment
    return CliRunner().invoke(cli, ["docs", *words], env=given)


def test_pages_are_listed_by_kind_without_settings_or_a_database() -> None:
    done = run(RECEIVER_PUSH_TOKENS="no tokens", RECEIVER_DATA_DIR="/nowhere")
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        page.path for page in library().list_pages("en")
    ]
    assert lines[lines.index("Reference pages") + 1].startswith("  reference/")


@pytest.mark.parametrize(
    ("environment", "words", "title"),
    [
        ({}, [], "# Settings"),
        ({"LANG": "zh_CN.UTF-8"}, [], "# 配置项"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, [], "# Settings"),
        ({"LANG": "zh_CN.UTF-8"}, ["--language", "en"], "# Settings"),
    ],
)
def test_page_is_printed_as_markdown_in_the_language_of_the_terminal(
    environment: dict[str, str], words: list[str], title: str
) -> None:
    lines = run("reference/settings", *words, **environment).stdout.splitlines()
    assert lines[:2] == [title, ""]
    assert "](../" not in lines[2]  # the link to the other language
    assert any(line.startswith("| `RECEIVER_BIND` |") for line in lines)


def test_alarm_prints_its_section_alone() -> None:
    lines = run("BackupOld").stdout.splitlines()
    assert lines[0] == "### BackupOld"
    assert not any(line.startswith(("# ", "## ", "### ")) for line in lines[1:])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (
            "setings.md",
            "no page setings.md; did you mean reference/settings? (to search: `receiver docs --search setings.md`)",
        ),
        ("disk", "no page disk (to search: `receiver docs --search disk`)"),
        ("no such thing", "no page no such thing (to search: `receiver docs --search 'no such thing'`)"),
    ],
)
def test_unknown_page_is_answered_with_the_nearest_and_the_search(name: str, answer: str) -> None:
    done = run(name)
    assert isinstance(done.exception, NotFound)
    assert str(done.exception) == answer


def test_search_names_pages_and_sections() -> None:
    lines = run("--search", "RECEIVER_PUBLIC_URL browsers").stdout.splitlines()
    assert "reference/settings: Settings, Addresses" in lines
    assert isinstance(run("--search", "nonsense").exception, NotFound)
    assert run("settings", "--search", "x").exit_code == 2
