"""The pure rules: numbers, masks, opt-outs, ids."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.core import (
    OPT_OUT_WORDS,
    OptOut,
    OptOutWords,
    OwnRefusal,
    fits,
    has_odd_length,
    latency_seconds,
    mask_inside,
    mask_mobile,
    match_masked,
    new_id,
    parse_mainland_mobile,
    parse_mobile,
    read_refusal,
    require_aware,
    shown_content,
)


@pytest.mark.parametrize(
    ("written", "mobile"),
    [
        ("15080921090", "15080921090"),
        ("+8615080921090", "15080921090"),
        ("8615080921090", "15080921090"),
        ("008615080921090", "15080921090"),
        (" 150 8092-1090 ", "15080921090"),
        ("86150****1090", "150****1090"),
        ("156xxxx1090", "156****1090"),
        ("+85291234567", "85291234567"),
        ("01012345678", "01012345678"),
        ("8612345678", "8612345678"),
        ("10658", "10658"),
        ("1065", None),
        ("1508092109O", None),
        ("１５０８０９２１０９０", "15080921090"),
        ("١٥٠٨٠٩٢١٠٩٠", None),
        ("(150) 8092.1090", "15080921090"),
        ("15080921090.0", "15080921090"),
        ("015080921090", "15080921090"),
        ("15080921090\x00", None),
        ("***********", None),
        ("12*********", None),
        ("123**", "123**"),
        ("123456789012345", "123456789012345"),
        ("1234567890123456", None),
        ("++8615080921090", None),
        ("", None),
    ],
)
def test_number_is_reduced_to_its_digits(written: str, mobile: str | None) -> None:
    assert parse_mobile(written) == mobile


@given(st.text(alphabet="0123456789", min_size=5, max_size=15).filter(lambda text: not text.startswith("00")))
def test_parsing_a_parsed_number_changes_nothing(digits: str) -> None:
    once = parse_mobile(digits)
    if once is not None and not once.startswith("00"):
        assert parse_mobile(once) == once


@pytest.mark.parametrize(
    ("mobile", "shown"),
    [
        ("15080921090", "150****1090"),
        ("1508092****", "150********"),
        ("150****1090", "150********"),
        ("85291234567", "852****4567"),
        ("1234567890", "123***7890"),
        ("123456789", "12*****89"),
        ("10658", "1***8"),
    ],
)
def test_number_is_masked(mobile: str, shown: str) -> None:
    assert mask_mobile(mobile) == shown


@pytest.mark.parametrize(
    ("written", "mainland", "odd"),
    [
        ("+86 150 8092 1090", "15080921090", False),
        ("+1 650 555 0100", None, False),  # without its country code like one of the mainland
        ("1508092109", None, True),
        ("075582345678", None, True),
        ("1508092****", None, False),
        ("no number", None, False),
    ],
)
def test_number_of_the_mainland_and_one_of_an_odd_length(written: str, mainland: str | None, odd: bool) -> None:
    assert parse_mainland_mobile(written) == mainland
    assert has_odd_length(written) is odd


@pytest.mark.parametrize("words", ["one in 60 seconds", "local limit: in words", ""])
def test_code_of_our_own_refusal_is_read_back(words: str) -> None:
    for code in OwnRefusal:
        assert read_refusal(code.write(words)) == (code, words)


@pytest.mark.parametrize("message", ["余额不足", "not sent", "not sent yet: wait", "REFUSED: not sent: x", ""])
def test_refusal_in_the_platforms_words_has_no_code(message: str) -> None:
    assert read_refusal(message) == (None, message)


def test_nul_in_a_content_is_shown_as_its_picture() -> None:
    assert shown_content("a\0b") == "a\u2400b"


@given(st.text(alphabet="0123456789", min_size=5, max_size=15))
def test_mask_keeps_the_length_and_hides_at_least_three_digits(mobile: str) -> None:
    shown = mask_mobile(mobile)
    assert len(shown) == len(mobile)
    assert shown.count("*") >= 3


def test_masked_number_fits_numbers_of_its_length_and_digits() -> None:
    assert fits("1508092****", "15080921090")
    assert not fits("1508092****", "15080911090")
    assert not fits("1508092****", "1508092109")
    assert match_masked("150****1090", [(1, "15080921090"), (2, "15080921091")]) == 1
    assert match_masked("150********", [(1, "15080921090"), (2, "15080921091")]) is None


@pytest.mark.parametrize("content", ["TD", "td", "ＴＤ", "t d", " 退订。", "【退订】", "Stop!", "T", "００００"])
def test_opt_out_is_known_in_any_width_case_and_punctuation(content: str) -> None:
    assert OPT_OUT_WORDS.judge(content) is OptOut.YES


@pytest.mark.parametrize(
    "content",
    [
        "please stop it", "回TD", "我要退订吗", "退 订 谢谢", "unsubscribed", "unsubcribe", "STPO stop", "stopp",
        "退丁", "退定。", "推订", "退訂", "拒受", "取销", "我要退 丁", "停", "停！", "QX", "退订T", "TD退订", "退订回T",
        "别发", "别再给我发短信了！！再发就投诉到12321", "您好,请勿再发", "請不要再發", "打12321举报你们", "１２３２１",
        "已拉黑", "骚扰短信", "这是什么?没申请过", "我没有注册过", "好的，别发错地址",
        "Please opt  out", "this is SPAM!",
    ],
)  # fmt: skip
def test_what_is_nearly_an_opt_out_is_for_a_person_to_see(content: str) -> None:
    assert OPT_OUT_WORDS.judge(content) is OptOut.REVIEW


@pytest.mark.parametrize(
    "content",
    [
        "", "收到", "tdd", "TD1", "t or n", "退款", "unstoppable", "20000 yuan", "R2D2", "？",
        "取件码", "取件码8123", "取餐", "退货", "退票", "拒绝", "收货了", "订单到了吗", "分别发货", "特别，发票",
        "区别发我", "停车场几号", "不停地下雨", "别的发我", "发货时别忘了", "明天发", "optional outing", "spammer2",
        "112321", "我已注册", "qxx", "4821",
    ],
)  # fmt: skip
def test_what_is_no_opt_out(content: str) -> None:
    assert OPT_OUT_WORDS.judge(content) is OptOut.NO


def test_words_for_opting_out_are_given_and_need_a_letter() -> None:
    words = OptOutWords(["Ａbmelden", "不要"])
    assert words.judge("abmelden!") is OptOut.YES
    assert words.judge("abmeldn") is OptOut.REVIEW
    assert words.judge("TD") is OptOut.NO
    with pytest.raises(ValueError, match="needs a letter"):
        OptOutWords(["TD", "!!"])


def test_phrases_for_review_are_given_beside_the_words() -> None:
    words = OptOutWords(["TD"], ["别烦我", "No More", "x", "够"])
    for content in ("别 烦我了", "NO MORE!", "Ｘ", "够。"):
        assert words.judge(content) is OptOut.REVIEW, content
    for content in ("投诉", "no moreover", "x ray", "足够", "特，别，烦我"):
        assert words.judge(content) is OptOut.NO, content
    assert OptOutWords(["TD"], []).judge("投诉") is OptOut.NO
    assert OptOutWords(["投诉"]).judge("投诉") is OptOut.YES
    with pytest.raises(ValueError, match="needs a letter"):
        OptOutWords(["TD"], ["!!"])


def test_push_ids_are_uuid7_and_in_order_of_time() -> None:
    made = []
    for _ in range(200):
        made.append(new_id())
        time.sleep(0.00001)
    assert {push_id.version for push_id in made} == {7}
    assert made == sorted(made)
    assert abs((made[0].int >> 80) / 1000 - time.time()) < 60


def test_latency_is_never_negative_and_unknown_without_a_send() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert latency_seconds(now, now + timedelta(seconds=4)) == 4
    assert latency_seconds(now, now - timedelta(seconds=4)) == 0
    assert latency_seconds(None, now) is None
    assert latency_seconds(now, None) is None


def test_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        require_aware(datetime(2026, 11, 23))  # noqa: DTZ001


def test_forked_processes_draw_other_ids() -> None:
    """Two workers of one server must not give the same id to two pushes."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_id().bytes[8:])
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 8) != new_id().bytes[8:]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("我的号码是13900000099", "我的号码是139****0099"),
        ("13900000099或者13800138000。", "139****0099或者138****8000。"),
        ("8613900000099", "86139****0099"),
        ("+86 139-0000-0099", "+86 139****0099"),
        ("0086-139 0000 0099", "0086-139****0099"),
        ("１３９００００００９９", "１３９****００９９"),
        ("tel:139 - 0000 - 0099 转 8", "tel:139****0099 转 8"),
        ("tel13900000099", "tel139****0099"),
        ("139****0099", "139****0099"),
        ("订单 2026113013900000099", "订单 2026113013900000099"),
        ("2026-11-30 10:11:12", "2026-11-30 10:11:12"),
        ("0193a13b-c123-7123-8123-f2345678901f", "0193a13b-c123-7123-8123-f2345678901f"),
        ("192.168.10.100", "192.168.10.100"),
    ],
)
def test_numbers_inside_a_text_are_masked_as_people_write_them(text: str, shown: str) -> None:
    assert mask_inside(text) == shown
