"""Search of the documentation: what people type finds the page that they mean, in the same order each time."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from receiver.docs import Document, parse_document, search


def _page(path: str, text: str) -> Document:
    return parse_document(text, path=path, language="en", source=PurePosixPath(f"deploy/docs/{path}.md"))


PAGES = [
    _page("explanation/events", "# Events\n\nA webhook sends events.\n"),
    _page("how-to/webhooks", "# Deliver events by webhook\n\nAdd an endpoint.\n\n## Rotate its secret\n\nRun it.\n"),
    _page(
        "how-to/rotate-secrets",
        "# Rotate a secret\n\nFor a push secret.\n\n## The database's password\n\nSet a *new* `PASSWORD` for it.\n",
    ),
    _page("zh/rotation", "# 轮换密钥\n\n推送密钥、API 密钥与数据库密码。\n\n## 数据库密码\n\n先建第二个角色。\n"),
    _page("zh/events", "# 转发事件\n\n用转发目标接收推送。\n"),
]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("webhook", ["how-to/webhooks", "explanation/events"]),  # in a title, before in the text
        ("Webhooks", ["how-to/webhooks", "explanation/events"]),
        ("rotate secret", ["how-to/rotate-secrets", "how-to/webhooks"]),
        ("secret webhook", ["how-to/webhooks"]),  # the only one with both
        ("database's password nonsense", ["how-to/rotate-secrets"]),
        ("轮换密钥", ["zh/rotation"]),
        ("怎么轮换推送密钥", ["zh/rotation"]),
        ("推送", ["zh/rotation", "zh/events"]),
        ("API 密钥", ["zh/rotation"]),
        ("nonsense", []),
        ("", []),
        ("*?[(", []),
    ],
)
def test_words_find_their_pages(query: str, paths: list[str]) -> None:
    assert [hit.page.path for hit in search(PAGES, query)] == paths


def test_a_hit_names_the_section_that_fits_best_with_its_text() -> None:
    (hit,) = search(PAGES, "database password")
    assert (hit.section.anchor, hit.excerpt) == ("the-databases-password", "Set a new PASSWORD for it.")
    (chinese,) = search(PAGES, "数据库密码")
    assert chinese.section.title == "数据库密码"


def test_a_long_text_is_cut_around_the_first_word() -> None:
    page = _page("how-to/long", f"# Long\n\n{'before ' * 60}needle {'after ' * 60}\n")
    (hit,) = search([page], "needle")
    assert hit.excerpt.startswith("…before")
    assert hit.excerpt.endswith("…")
    assert "needle after" in hit.excerpt
    assert len(hit.excerpt) <= 162
