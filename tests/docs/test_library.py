"""The pages of the documentation: listed, read in a language, followed from link to link, and found by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.alerting.rules import Alarm
from receiver.core import NotFound
from receiver.docs import Kind, Library, library

ROOT = Path(__file__).parents[2]
FILES = {
    "README.md": """\
# receiver

[中文](deploy/docs/zh-CN/README.md)

Takes pushes. [Start](deploy/docs/how-to/tls.md)
""",
    "deploy/docs/index.md": """\
# Documentation

[b](how-to/webhooks.md) [a](how-to/tls.md#keys) [c](https://x.example/)
""",
    "deploy/docs/glossary.md": "# Glossary\n\n**Push.** One request of the platform. More.\n",
    "deploy/docs/how-to/tls.md": """\
# Serve TLS

[中文](../zh-CN/how-to/tls.md)

<!-- not run: needs
a certificate -->
Encrypt what the
platform sends. Then rest.

<!-- server: these settings -->
```ini
<!-- stays -->
```

## Keys

A `key` file.

## Keys

Again.
""",
    "deploy/docs/how-to/webhooks.md": "# Deliver\n\nSee [TLS](tls.md#keys) and ![a picture](../images/one.png).\n",
    "deploy/docs/how-to/settings.md": "# Change a setting\n",
    "deploy/docs/reference/settings.md": "# Settings\n",
    "deploy/docs/runbook/index.md": "# Runbook\n\nAt night.\n",
    "deploy/docs/runbook/database.md": """\
# Database

## Alarms

### DatabaseAway

Look at it.

#### Then

More.

### ReplicaBehind

Wait.
""",
    "deploy/docs/zh-CN/how-to/tls.md": """\
# 启用 TLS

[English](../../how-to/tls.md)

加密平台
发来的推送。
""",
    "deploy/docs/images/one.png": "png",
}


@pytest.fixture
def tree(tmp_path: Path) -> Library:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return Library(tmp_path)


def test_pages_are_listed_by_kind_in_the_order_of_the_index(tree: Library) -> None:
    assert [page.path for page in tree.list_pages("en")] == [
        "how-to/webhooks", "how-to/tls", "how-to/settings", "runbook/database", "runbook/index", "reference/settings",
        "README", "glossary",
    ]  # fmt: skip
    assert {page.kind for page in tree.list_pages("en")} == {Kind.HOW_TO, Kind.RUNBOOK, Kind.REFERENCE, Kind.PROJECT}


def test_a_page_has_its_title_and_first_sentence_without_what_is_for_tests(tree: Library) -> None:
    page = tree.read("how-to/tls", "en")
    assert (page.title, page.summary) == ("Serve TLS", "Encrypt what the platform sends.")
    assert page.markdown.startswith("# Serve TLS\n\nEncrypt what the\nplatform sends.")
    assert page.markdown.count("<!--") == 1  # the one inside code
    assert [section.anchor for section in page.sections] == ["serve-tls", "keys", "keys-1"]
    assert tree.read("glossary", "en").summary == "Push. One request of the platform."


def test_a_page_without_a_translation_is_read_in_english(tree: Library) -> None:
    chinese = {page.path: page for page in tree.list_pages("zh-CN")}
    assert chinese.keys() == {page.path for page in tree.list_pages("en")}
    assert [path for path, page in chinese.items() if page.language == "zh-CN"] == ["how-to/tls"]
    assert (chinese["how-to/tls"].title, chinese["how-to/tls"].summary) == ("启用 TLS", "加密平台发来的推送。")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("how-to/tls", "how-to/tls"),
        ("how-to/tls.md", "how-to/tls"),
        ("TLS", "how-to/tls"),
        ("glossary.md", "glossary"),
        ("runbook", "runbook/index"),
        ("runbook/", "runbook/index"),
        ("index", "index"),
        ("DatabaseAway", "runbook/database#databaseaway"),
        ("database_away", "runbook/database#databaseaway"),
        ("serve TLS", "how-to/tls"),
        ("启用 TLS", "how-to/tls"),
    ],
)
def test_a_page_is_named_by_its_path_its_end_its_title_or_an_alarm(tree: Library, given: str, place: str) -> None:
    assert str(tree.resolve(given)) == place


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("settings", "several pages are named settings: how-to/settings, reference/settings"),
        ("webhoks", "no page webhoks; did you mean how-to/webhooks?"),
        ("../../etc/passwd", "no page ../../etc/passwd"),
        ("zh-CN/how-to/tls", "did you mean how-to/tls"),
    ],
)
def test_a_name_that_is_no_page_is_answered_with_the_nearest(tree: Library, given: str, answer: str) -> None:
    with pytest.raises(NotFound) as caught:
        tree.resolve(given)
    assert answer in str(caught.value)


@pytest.mark.parametrize(
    ("page", "language", "link", "place"),
    [
        ("how-to/webhooks", "en", "tls.md#keys", "how-to/tls#keys"),
        ("how-to/webhooks", "en", "../images/one.png", "images/one.png"),
        ("how-to/tls", "zh-CN", "../runbook/database.md", "runbook/database"),
        ("how-to/tls", "zh-CN", "../../images/one.png", "images/one.png"),
        ("how-to/tls", "zh-CN", "#x", "how-to/tls#x"),
        ("README", "en", "deploy/docs/how-to/tls.md", "how-to/tls"),
        ("how-to/tls", "en", "../../../README.md", "README"),
        ("how-to/tls", "en", "../../../deploy/env.example", None),
        ("how-to/tls", "en", "../../../../../etc/passwd", None),
        ("how-to/tls", "en", "javascript:x", None),
        ("how-to/tls", "en", "https://example.com/how-to/tls.md", None),
        ("how-to/tls", "en", "/how-to/tls.md", None),
    ],
)
def test_links_are_followed_to_pages_and_images_alone(
    tree: Library, page: str, language: str, link: str, place: str | None
) -> None:
    found = tree.follow(tree.read(page, language), link)
    assert (found and str(found)) == place


def test_the_section_of_an_alarm_ends_at_the_next_one(tree: Library) -> None:
    place = tree.find_alarm("DatabaseAway")
    section = tree.read(place.path, "en").section_markdown(place.anchor)
    assert section == "### DatabaseAway\n\nLook at it.\n\n#### Then\n\nMore.\n"
    assert str(tree.find_alarm("OfALaterVersion")) == "runbook/index"


def test_a_folder_without_pages_has_none(tmp_path: Path) -> None:
    empty = Library(tmp_path)
    assert empty.list_pages("en") == []
    assert empty.find_alarm("DatabaseAway").path == "runbook/index"


# --- The pages that there are ---------------------------------------------------------------------------


def test_every_page_has_a_title_and_a_sentence() -> None:
    for language in ("en", "zh-CN"):
        for page in library().list_pages(language):
            assert page.sections, page.source
            assert page.sections[0].level == 1, page.source
            assert page.summary, page.source
            assert [section.level for section in page.sections].count(1) == 1, page.source


@pytest.mark.parametrize("alarm", Alarm)
def test_every_alarm_has_one_heading_in_the_runbook_of_each_language(alarm: Alarm) -> None:
    place = library().find_alarm(alarm.heading)
    assert place.anchor == alarm.heading.lower()
    for language in ("en", "zh-CN"):
        pages = [page for page in library().list_pages(language) if page.kind is Kind.RUNBOOK]
        having = [page.path for page in pages for section in page.sections if section.title == alarm.heading]
        assert having == [place.path], language


def test_every_image_is_shown_by_a_page_in_its_language() -> None:
    shown: dict[str, set[str]] = {}
    for language in ("en", "zh-CN"):
        for page in library().list_pages(language):
            if page.language != language:
                continue
            for token in page.tokens:
                for child in token.children or ():
                    place = library().follow(page, str(child.attrs.get("src", ""))) if child.type == "image" else None
                    if place is not None:
                        shown.setdefault(place.path, set()).add(language)
    files = {f"images/{file.name}" for file in (ROOT / "deploy/docs/images").iterdir()}
    assert files == shown.keys()
    pictures = {path: of for path, of in shown.items() if path.endswith(".png")}  # drawings are the same in both
    assert len(pictures) <= 12
    assert all(path.endswith(tuple(f"-{language}.png" for language in of)) for path, of in pictures.items())
