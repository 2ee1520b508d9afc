"""Texts of strangers: what has no shape is named, except where it joins emoji or the letters of a word."""

from __future__ import annotations

import pytest

from receiver.web.console.filters import short, visible

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    "text",
    [
        FAMILY,
        f"好的{FAMILY}谢谢",
        "\U0001f469\U0001f3fd\u200d\U0001f4bb",  # a woman with a tone of skin, at a computer
        "\U0001f3f3\ufe0f\u200d\U0001f308",  # a flag of two pictures, the first with a selector
        "\u2764\ufe0f\u200d\U0001f525",
        "\U0001f9d1\u200d\u2695\ufe0f",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        "\U0001f1e8\U0001f1f3",  # a flag of two letters
        "\u06cc\u200c\u06a9",  # Persian
        "\u0915\u094d\u200d\u0937",  # Hindi
        "\u0d28\u0d4d\u200d",  # Malayalam, at the end of a word
    ],
)
def test_joiner_of_emoji_or_letters_passes(text: str) -> None:
    assert visible(text) == f'<bdi class="said">{text}</bdi>'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a\u200db", "U+200D"),
        ("退\u200d订", "U+200D"),
        ("\u200d\U0001f467", "U+200D"),
        ("\U0001f467\u200d", "U+200D"),
        ("\U0001f467\u200d\u200d\U0001f467", "U+200D"),
        ("\U0001f467\u200c\U0001f467", "U+200C"),
        ("x\U000e0067\U000e0062", "U+E0067"),
        ("\U0001f3f4\U000e0068\U000e0069\U000e007f", "U+E0068"),  # tags that are no flag may hide a text
        ("TD\u202e", "U+202E"),
    ],
)
def test_any_other_is_named(text: str, named: str) -> None:
    assert f">{named}</span>" in visible(text)


def test_long_id_is_cut_in_its_middle_and_whole_in_its_title() -> None:
    assert short("3313746") == visible("3313746")
    long = "a1b2c3d4" * 8
    assert short(long) == f'<span title="{long}"><bdi class="said">a1b2c3d4a1b2…a1b2c3d4</bdi></span>'
    assert "U+202E" in short("\u202e" + "x" * 30)
    assert "\u202e" not in short("x" * 15 + "\u202e" + "x" * 30)
