"""What is understood of the text that people paste into a look-up."""

from __future__ import annotations

import tomllib
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from receiver.support.lookup import NUMBERS_MAX, PASTED_MAX_CHARS, LookupQuery, ParsedLookup, parse_lookup
from tests import cases

NUMBER = "15080921090"
TABLE: dict[str, list[list[str]]] = tomllib.loads(
    (Path(cases.__file__).parent / "pasted.toml").read_text(encoding="utf-8")
)
ROWS = [(text, understood) for rows in TABLE.values() for text, *understood in rows]


def told(query: LookupQuery) -> str:
    """Return a meaning as the table spells it."""
    if query.mobile is not None:
        return f"mobile {query.mobile}"
    if query.last_digits is None:
        return f"text {query.text}"
    return f"end {query.last_digits} of {query.masked}" if query.masked else f"end {query.last_digits}"


@pytest.mark.parametrize(("text", "understood"), ROWS, ids=[repr(text) for text, _ in ROWS])
def test_table_of_pasted_texts(text: str, understood: list[str]) -> None:
    parsed = parse_lookup(text)
    if not understood:
        assert parsed is None
        return
    assert parsed is not None
    assert [*map(told, parsed.queries), *(f"{miss.fault} {miss.text}" for miss in parsed.near_misses)] == understood
    assert parsed.more == 0


def test_table_has_its_texts_once_each() -> None:
    assert len(ROWS) >= 120
    assert len({text for text, _ in ROWS}) == len(ROWS)
    for name in ("numbers_alone", "numbers_beside_digits"):
        assert all(understood[0] == f"mobile {NUMBER}" for _, *understood in TABLE[name]), name


numbers = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True)


@given(before=st.text(max_size=200), number=numbers, after=st.text(max_size=200))
@example(before="①", number=NUMBER, after="²")
@example(before="1,508,", number=NUMBER, after=",123")
@example(before="\u0663 ", number=NUMBER, after=" \u0663")
@example(before="150 8092 ", number="13900000000", after=" 1090")
def test_whole_number_is_found_in_any_text_whose_digits_do_not_adjoin_it(before: str, number: str, after: str) -> None:
    assume(not before[-1:].isdecimal() and not after[:1].isdecimal())
    parsed = parse_lookup(before + number + after)
    assert parsed is not None
    assert number in parsed.numbers


_DIGITS_BESIDE = st.sampled_from(
    [
        "23:08",
        "2026-11-29",
        "2026/11/29 9:14",
        "10分钟",
        "540",
        "3313746",
        "1.",
        "3)",
        "工单 20261129",
        "x2",
        "6次",
        "4821",
    ]
)
_APART = st.sampled_from([" ", "\t", "\n", "，", "、", " - ", " | ", "(", "\u3000"])


@given(number=numbers, beside=st.lists(_DIGITS_BESIDE, max_size=4), apart=_APART, at=st.integers(0, 4))
def test_whole_number_is_found_beside_other_digits(number: str, beside: list[str], apart: str, at: int) -> None:
    parsed = parse_lookup(apart.join([*beside[:at], number, *beside[at:]]))
    assert parsed is not None
    assert parsed.numbers == (number,)


_UNSEEN = ["", "", "", " ", "-", "\u00a0", "\u3000", "\u200b", "\u202a", "\u202c", "\ufeff", "\u2011", "–", "."]


@given(
    number=numbers,
    between=st.lists(st.sampled_from(_UNSEEN), min_size=11, max_size=11),
    before=st.sampled_from(["", "+86", "0086", "86 ", "(+86)", "手机号：", "Phone: +86 ", "\u202a", "请查 "]),
    after=st.sampled_from(["", "\u202c", " 谢谢", "，没收到", "\r\n"]),
    wide=st.booleans(),
)
def test_number_is_found_however_its_digits_are_set_apart(
    number: str, between: list[str], before: str, after: str, wide: bool
) -> None:
    digits = "".join(chr(ord(digit) + 0xFEE0) for digit in number) if wide else number
    apart = "".join(digit + gap for digit, gap in zip(digits, [*between[:10], ""], strict=True))
    parsed = parse_lookup(before + apart + after)
    assert parsed is not None
    assert parsed.numbers == (number,)


@given(st.lists(numbers, min_size=1, max_size=60, unique=True), st.sampled_from(["\n", " ", ",", "；", "\t540\n", ""]))
def test_column_of_numbers_is_found_whole_up_to_a_bound(column: list[str], apart: str) -> None:
    parsed = parse_lookup(apart.join(column))
    assert parsed is not None
    assert parsed.numbers == tuple(column[:NUMBERS_MAX])
    assert parsed.more == len(column) - len(parsed.numbers)


def test_endings_and_near_misses_have_the_same_bound() -> None:
    parsed = parse_lookup(", ".join([*(f"尾号{n:04}" for n in range(40)), *(f"150****{n:04}" for n in range(40))]))
    assert parsed is not None
    assert (len(parsed.queries), parsed.more) == (NUMBERS_MAX, 30)
    parsed = parse_lookup(" ".join(f"15080{n:05}" for n in range(80)))
    assert parsed is not None
    assert len(parsed.near_misses) == NUMBERS_MAX
    assert len(parsed.queries) < NUMBERS_MAX


@given(st.text())
def test_whatever_is_pasted_is_read_or_left(pasted: str) -> None:
    parsed = parse_lookup(pasted)
    assert parsed is None or parsed != ParsedLookup(queries=())
    assert parsed is None or LookupQuery() not in parsed.queries


def test_text_that_is_too_long_is_none() -> None:
    assert parse_lookup("a" * 255) == ParsedLookup(queries=(LookupQuery(text="a" * 255),))
    assert parse_lookup("a" * 256) is None
    assert parse_lookup(NUMBER.ljust(PASTED_MAX_CHARS)) is not None
    assert parse_lookup(NUMBER.ljust(PASTED_MAX_CHARS + 1)) is None


@pytest.mark.parametrize("unit", ["-", "1 ", "1*", "150 (", "last 4 ", "task''", "a-", "1,500", "86 ", "尾号 ", "…"])
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * PASTED_MAX_CHARS)[:PASTED_MAX_CHARS]
    began = perf_counter()
    parse_lookup(text)
    assert perf_counter() - began < 0.5  # backtracking would take seconds


def test_text_is_asked_for_in_each_usual_case() -> None:
    assert LookupQuery(text="oRd-17").spellings == ("oRd-17", "ORD-17", "ord-17", "Ord-17")
    assert LookupQuery(text="3313746").spellings == ("3313746",)
    assert LookupQuery(mobile=NUMBER).spellings == ()
