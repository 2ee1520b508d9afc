"""Which replies ask for no more. Pure, standard library only."""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class OptOut(Enum):
    """Return whether a reply asks to be left alone."""

    NO = "no"
    REVIEW = "review"  # near enough for a person to look
    YES = "yes"


_ONE_OFF_MIN_CHARS = 4  # of shorter words, too many others are one letter off


class OptOutWords:
    """What people write who want no more. A whole reply that is one of them says so, whatever its width, case and
    punctuation; one that has such a word in it, or is one letter off, may mean it. Raises ValueError for a word
    without a letter or digit.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._folded = frozenset(_letters(word) for word in self.words)
        if "" in self._folded:
            raise ValueError("a word for opting out needs a letter or digit")
        # Of one letter, none is worth a look: T and N are in every other English sentence.
        self._parts = tuple(word for word in self._folded if len(word) > 1)

    def judge(self, content: str) -> OptOut:
        """Say what a reply asks for."""
        folded = unicodedata.normalize("NFKC", content).casefold()
        letters = _letters(folded)
        if letters in self._folded:
            return OptOut.YES
        separate = set(_ASCII_WORD.findall(folded))
        if any(word in separate if word.isascii() else word in letters for word in self._parts):
            return OptOut.REVIEW
        if any(len(word) >= _ONE_OFF_MIN_CHARS and _one_off(letters, word) for word in self._parts):
            return OptOut.REVIEW
        return OptOut.NO


_ASCII_WORD = re.compile(r"[a-z0-9]+")


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _one_off(text: str, word: str) -> bool:
    """Return whether one letter is wrong, missing, or too many."""
    if abs(len(text) - len(word)) > 1 or text == word:
        return False
    same = 0
    while same < min(len(text), len(word)) and text[same] == word[same]:
        same += 1
    rest, rest_of_word = text[same:], word[same:]
    return rest[1:] == rest_of_word[1:] or rest[1:] == rest_of_word or rest == rest_of_word[1:]


OPT_OUT_WORDS = OptOutWords(("T", "TD", "N", "R", "0000", "退订", "拒收", "取消", "STOP", "UNSUBSCRIBE"))
