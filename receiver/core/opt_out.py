"""Replies that ask to opt out. Pure, standard library only."""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = ("T", "TD", "N", "R", "0000", "退订", "拒收", "取消", "STOP", "UNSUBSCRIBE")
# Replies for a person to review. Slips of the words of two characters are listed: by one character, these have too many
# neighbours (取件 is one of 取消).
OPT_OUT_PHRASES = (
    "退丁", "退定", "退顶", "退钉", "退叮", "退汀", "退盯", "退町", "退訂", "推订", "推定", "推丁", "腿订", "褪订",
    "拒受", "拒首", "拒手", "巨收", "据收", "拒接", "取销", "取肖", "取宵", "娶消", "QX", "停", "别发", "别再发",
    "别给我发", "别再给我发", "别老发", "不要发", "不要再发", "不要给我发", "不要再给我发", "勿发", "勿再发", "勿扰",
    "停发", "停止发", "不接收", "不再接收", "不要接收", "不想收", "別發", "別再發", "不要發", "不要再發", "投诉",
    "举报", "投訴", "舉報", "12321", "工信部", "拉黑", "黑名单", "骚扰", "垃圾短信", "没申请", "没有申请", "未申请",
    "没注册", "没有注册", "未注册", "没订", "opt out", "remove me", "spam",
)  # fmt: skip
_HARMLESS = re.compile("(?:分|特|级|个|区|性|类|告)别")  # ends in 别, so that 分别发货 would hold 别发
_ONE_OFF_MIN_CHARS = 4  # shorter words have too many neighbours at one letter
_ASCII_WORD = re.compile(r"[a-z0-9]+")


class OptOut(Enum):
    """Whether a reply asks to opt out."""

    NO = "no"
    REVIEW = "review"  # close enough for a person to review
    YES = "yes"


class OptOutWords:
    """The words by which people opt out, and the phrases for which a person reviews a reply.

    A whole reply that is one of the words opts out, whatever its width, case and punctuation. A reply that contains a
    word or a phrase, or is one letter off a longer word, may do so. Raises ValueError for one without letter or digit.
    """

    def __init__(self, words: Iterable[str], phrases: Iterable[str] = OPT_OUT_PHRASES) -> None:
        self.words, self.phrases = tuple(words), tuple(phrases)
        self._folded = frozenset(_letters(_fold(word)) for word in self.words)
        self._alone = frozenset(_letters(_fold(phrase)) for phrase in self.phrases)
        if "" in self._folded | self._alone:
            raise ValueError("an opt-out word needs a letter or digit")
        # No review for words of one letter: T and N are in every other English sentence.
        self._parts = tuple(word for word in self._folded if len(word) > 1)
        self._long = tuple(word for word in self._folded if len(word) >= _ONE_OFF_MIN_CHARS)
        self._held = _any_of(phrase for phrase in self._alone if len(phrase) > 1 and not phrase.isascii())
        self._held_apart = _any_of(_fold(phrase) for phrase in self.phrases if len(phrase) > 1 and phrase.isascii())

    def judge(self, content: str) -> OptOut:
        """Return whether a reply asks to opt out."""
        folded = _fold(content)
        letters = _letters(folded)
        if letters in self._folded:
            return OptOut.YES
        separate = set(_ASCII_WORD.findall(folded))
        if any(word in separate if word.isascii() else word in letters for word in self._parts):
            return OptOut.REVIEW
        if any(_one_off(letters, word) for word in self._long):
            return OptOut.REVIEW
        pieces = folded.split()
        if letters in self._alone or self._held_apart.search(" ".join(pieces)):
            return OptOut.REVIEW
        return OptOut.REVIEW if self._held.search(_HARMLESS.sub(" ", "".join(pieces))) else OptOut.NO


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _letters(folded: str) -> str:
    return "".join(filter(str.isalnum, folded))


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that finds any of these, those of ASCII as words of their own; it finds nothing for none."""
    each = (rf"(?<![a-z0-9]){re.escape(one)}(?![a-z0-9])" if one.isascii() else re.escape(one) for one in phrases)
    return re.compile("|".join(each) or "(?!)")


def _one_off(text: str, word: str) -> bool:
    """Return whether one letter is wrong, missing or extra."""
    if abs(len(text) - len(word)) > 1 or text == word:
        return False
    same = 0
    while same < min(len(text), len(word)) and text[same] == word[same]:
        same += 1
    rest, rest_of_word = text[same:], word[same:]
    return rest[1:] == rest_of_word[1:] or rest[1:] == rest_of_word or rest == rest_of_word[1:]


OPT_OUT_WORDS = OptOutWords(_WORDS)
