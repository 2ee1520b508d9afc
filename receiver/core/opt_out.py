"""Replies that ask to opt out. Pure, standard library only."""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class OptOut(Enum):
    """Whether a reply asks to opt out."""

    NO = "no"
    REVIEW = "review"  # close enough for a person to review
    YES = "yes"


_ONE_OFF_MIN_CHARS = 4  # shorter words have too many neighbours at one letter


class OptOutWords:
    """The words by which people opt out.

    A whole reply that is one of them opts out, whatever its width, case and punctuation. A reply that contains one, or
    is one letter off, may do so. Raises ValueError for a word without a letter or digit.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._folded = frozenset(_letters(word) for word in self.words)
        if "" in self._folded:
            raise ValueError("an opt-out word needs a letter or digit")
        # No review for words of one letter: T and N are in every other English sentence.
        self._parts = tuple(word for word in self._folded if len(word) > 1)

    def judge(self, content: str) -> OptOut:
        """Return whether a reply asks to opt out."""
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
    """Return whether one letter is wrong, missing or extra."""
    if abs(len(text) - len(word)) > 1 or text == word:
        return False
    same = 0
    while same < min(len(text), len(word)) and text[same] == word[same]:
        same += 1
    rest, rest_of_word = text[same:], word[same:]
    return rest[1:] == rest_of_word[1:] or rest[1:] == rest_of_word or rest == rest_of_word[1:]


OPT_OUT_WORDS = OptOutWords(("T", "TD", "N", "R", "0000", "退订", "拒收", "取消", "STOP", "UNSUBSCRIBE"))
