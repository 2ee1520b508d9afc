"""Output as a page shows it: `…` stands for anything, and long lines may be folded."""

from __future__ import annotations

import re

_ANY = "…"
_WORDS = re.compile(r"(\s+|…)")
_OPENS, _CLOSES = ("{", "[", ",", ":"), ("}", "]")


def is_shown(expected: str, actual: str) -> bool:
    """Return whether the output is what the page shows.

    `…` stands for anything within a line, and alone on a line for any lines. Space may be as much as it likes; beside
    punctuation of JSON there may be none.
    """
    return re.fullmatch(_pattern(expected), actual.replace("\r\n", "\n").strip()) is not None


def _pattern(expected: str) -> str:
    pattern = ""
    before = _ANY  # as if: nothing has to stand between the beginning and the first line
    for line in expected.strip("\n").splitlines():
        shown = line.strip()
        if not shown:
            continue
        if _ANY in (shown, before):
            pattern += r"\s*"
        else:
            pattern += _space(before, shown)
        pattern += r"[\s\S]*?" if shown == _ANY else _line(shown)
        before = shown
    return rf"\s*{pattern}\s*"


def _line(shown: str) -> str:
    words = [word for word in _WORDS.split(shown) if word]
    pattern = ""
    for place, word in enumerate(words):
        if word == _ANY:
            pattern += r".*?"
        elif word.isspace():
            pattern += _space(words[place - 1], words[place + 1])
        else:
            pattern += re.escape(word)
    return pattern


def _space(before: str, after: str) -> str:
    return r"\s*" if before.endswith(_OPENS) or after.startswith(_CLOSES) else r"\s+"
