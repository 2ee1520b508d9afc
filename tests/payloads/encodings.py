"""How a form's bytes become text: as declared, else UTF-8, else GB18030; a broken character costs itself alone."""

from tests.payloads.case import ALL_MISSING, FORM, Case, Headers, quarantined, receipt, receipt_form, reply, reply_form

GB = ("gb18030",)
DAMAGED = ("damaged",)
BOTH = ("gb18030", "damaged")
NEITHER = "neither UTF-8 nor GB18030"


def _labelled(content_type: str) -> Headers:
    return (("Content-Type", content_type),)


_UTF8 = (
    reply("utf8_percent_encoded"),
    reply("utf8_percent_encoded_in_lower_case_hex", reply_form(content=b"%e6%94%b6%e5%88%b0")),
    reply("utf8_raw_bytes", reply_form(content="收到".encode())),
    reply("utf8_one_character_half_raw_half_escaped", reply_form(content=b"\xe6%94\xb6%E5\x88%B0")),
    reply("emoji_percent_encoded", reply_form(content=b"ok%F0%9F%98%80"), {"content": "ok😀"}),
    reply(
        "emoji_raw_with_joiners_and_skin_tone",
        reply_form(content="👩🏽‍💻👨‍👩‍👧".encode()),
        {"content": "👩🏽\u200d💻👨\u200d👩\u200d👧"},
    ),
    reply("right_to_left_text", reply_form(content="مرحبا שלום".encode()), {"content": "مرحبا שלום"}),
    reply(
        "bidirectional_override_kept",
        reply_form(content=b"abc%E2%80%AEdef%E2%80%AC"),
        {"content": "abc\u202edef\u202c"},
    ),
    reply(
        "scripts_mixed_in_one_text",
        reply_form(content="收到 ok שלום नमस्ते 👍".encode().replace(b" ", b"+")),
        {"content": "收到 ok שלום नमस्ते 👍"},
    ),
    reply("decomposed_accent_not_composed", reply_form(content=b"e%CC%81"), {"content": "e\u0301"}),
    reply("noncharacter_kept", reply_form(content=b"%EF%BF%BE%F4%8F%BF%BF"), {"content": "\ufffe\U0010ffff"}),
    reply("replacement_character_kept", reply_form(content=b"%EF%BF%BD"), {"content": "\ufffd"}),
    receipt("byte_order_mark_before_the_form", b"\xef\xbb\xbf" + receipt_form()),
    reply("byte_order_mark_in_content_kept", reply_form(content=b"%EF%BB%BFhi"), {"content": "\ufeffhi"}),
    receipt("task_id_non_ascii", receipt_form(taskid=b"%E4%BB%BB%E5%8A%A1-7"), {"task_id": "任务-7"}),
    receipt("unknown_field_with_a_non_ascii_name", receipt_form(more=b"&%E5%A4%87=x"), {"extra": {"备": "x"}}),
)

_GB18030 = (
    reply("gb18030_percent_encoded", reply_form(content=b"%CA%D5%B5%BD"), flags=GB),
    reply("gb18030_raw_bytes", reply_form(content=b"\xca\xd5\xb5\xbd"), flags=GB),
    reply(
        "gb18030_trail_byte_left_as_a_letter",  # as PHP's urlencode leaves it
        reply_form(content=b"%81A"),
        {"content": "丄"},
        flags=GB,
    ),
    reply(
        "gb18030_four_byte_emoji_percent_encoded",
        reply_form(content=b"%949%FC6"),
        {"content": "😀"},
        flags=GB,
    ),
    reply("gb18030_four_byte_emoji_raw", reply_form(content=b"\x94\x39\xfc\x36"), {"content": "😀"}, flags=GB),
    reply(
        "gb18030_right_to_left_text",
        reply_form(content="مرحبا".encode("gb18030")),
        {"content": "مرحبا"},
        flags=GB,
    ),
    reply("gb18030_the_word_unicom", reply_form(content=b"%C1%AA%CD%A8"), {"content": "联通"}, flags=GB),
    reply("gb18030_bytes_that_are_also_utf8_read_as_utf8", reply_form(content=b"%C4%A3"), {"content": "\u0123"}),
    receipt("gb18030_task_id", receipt_form(taskid=b"%C8%CE%CE%F1-8"), {"task_id": "任务-8"}, flags=GB),
    receipt(
        "gb18030_ideographic_space_trimmed",
        receipt_form(taskid=b"%A1%A1gb-trim%A1%A1", more=b"&note=%B2%E2%CA%D4"),
        {"task_id": "gb-trim", "extra": {"note": "测试"}},
        flags=GB,
    ),
    receipt(
        "gb18030_status",
        receipt_form(status=b"%B2%E2%CA%D4"),
        {"vendor_status": "测试", "status": "unknown"},
        flags=GB,
    ),
    receipt(
        "gb18030_unknown_field",
        receipt_form(more=b"&note=%B2%E2%CA%D4"),
        {"extra": {"note": "测试"}},
        flags=GB,
    ),
    receipt(
        "gb18030_field_name_whose_trail_byte_is_an_upper_case_letter",
        receipt_form(more=b"&\x81\x41=x"),
        {"extra": {"丄": "x"}},
        flags=GB,
    ),
    reply(
        "gb18030_nul_kept",
        reply_form(content=b"%CA%D5%00%B5%BD"),
        {"content": "收\x00到", "content_shown": "收\u2400到"},
        flags=GB,
    ),
    reply("modified_utf8_nul_read_as_gb18030", reply_form(content=b"%C0%80"), {"content": "纮"}, flags=GB),
    reply(
        "one_gb18030_field_makes_all_fields_gb18030",
        reply_form(more=b"&note=%B2%E2%CA%D4"),
        {"content": "鏀跺埌", "extra": {"note": "测试"}},
        flags=GB,
    ),
    reply(
        "utf8_content_that_is_no_gb18030_stays_beside_a_gb18030_field",
        reply_form(content=b"%E6%94%B6", more=b"&note=%B2%E2%CA%D4"),
        {"content": "收", "extra": {"note": "测试"}},
        flags=GB,
    ),
)

_MISLABELLED = (
    reply(
        "labelled_utf8_but_gb18030",
        reply_form(content=b"%CA%D5%B5%BD"),
        headers=FORM,
        flags=GB,
    ),
    reply(
        "labelled_gbk_and_utf8_that_no_gbk_is",
        reply_form(content=b"%E6%94%B6"),
        {"content": "收"},
        headers=_labelled("application/x-www-form-urlencoded;charset=gbk"),
    ),
    reply("labelled_latin_1_but_utf8", headers=_labelled("application/x-www-form-urlencoded;charset=ISO-8859-1")),
    reply("labelled_utf_16_but_utf8", headers=_labelled("application/x-www-form-urlencoded;charset=utf-16")),
    reply("labelled_with_a_charset_that_is_none", headers=_labelled('application/x-www-form-urlencoded;charset="nope')),
)

# Declared, and everything decodes by it: so it is, whatever else the bytes could be.
_DECLARED = (
    reply(
        "declared_gbk_is_gbk",
        reply_form(content=b"\xca\xd5\xb5\xbd"),
        headers=_labelled("application/x-www-form-urlencoded; charset=GBK"),
    ),
    *(
        reply(
            f"declared_{label}_though_also_utf8_{number}",
            reply_form(content=text.encode("gb18030")),
            {"content": text},
            headers=_labelled(f"application/x-www-form-urlencoded;charset={charset}"),
        )
        for number, text in enumerate(("谢谢", "要", "停"))
        for label, charset in (("gbk", "gbk"), ("gb2312", '"GB2312"'), ("gb18030", "gb18030 ; a=b"))
    ),
    reply(
        "declared_gbk_in_the_query",
        b"",
        {"content": "谢谢"},
        query=reply_form(content=b"%D0%BB%D0%BB"),
        headers=_labelled("application/x-www-form-urlencoded;charset=GBK"),
    ),
    reply(
        "declared_big5",
        reply_form(content="退訂".encode("big5")),
        {"content": "退訂"},
        headers=_labelled("application/x-www-form-urlencoded;charset=Big5"),
    ),
    reply(
        "declared_utf_16_with_a_mark",
        "mobile=15080920001&taskid=declared_utf_16_with_a_mark&content=收到😀&receivetime=2019-07-23 17:00:00".encode(
            "utf-16"
        ),
        {"content": "收到😀"},
        headers=_labelled("application/x-www-form-urlencoded;charset=UTF-16"),
    ),
    reply(
        "declared_utf_16_without_a_mark",
        "mobile=15080920001&taskid=declared_utf_16_without_a_mark&content=收&receivetime=2019-07-23 17:00:00".encode(
            "utf-16-be"
        ),
        {"content": "收"},
        headers=_labelled("text/plain;charset=UTF-16"),
    ),
    reply(
        "declared_gbk_and_cut",
        reply_form(content=b"%D0%BB%D0%BB%D0"),
        {"content": "谢谢\ufffd"},
        headers=_labelled("application/x-www-form-urlencoded;charset=GBK"),
        flags=DAMAGED,
    ),
    quarantined(
        "declared_utf_7_is_not_read",
        b"+AG0-obile=1",
        ALL_MISSING,
        headers=_labelled("application/x-www-form-urlencoded;charset=utf-7"),
    ),
)

_DAMAGED = (
    *(
        reply(name, reply_form(content=content), {"content": text}, flags=BOTH if "gbk" in name else DAMAGED)
        for name, content, text in (
            ("damaged_utf8_cut_in_its_only_character", b"%E6%94", "\ufffd"),
            ("damaged_utf8_cut_in_its_second_character", b"%E6%94%B6%E5%88", "收\ufffd"),
            ("damaged_utf8_cut_after_one_byte", b"%E6%94%B6%E5", "收\ufffd"),
            ("damaged_utf8_cut_in_an_emoji", b"ok%F0%9F%98", "ok\ufffd"),
            ("damaged_utf8_after_a_letter", b"T%E8%AE", "T\ufffd"),
            ("damaged_utf8_cut_in_the_middle", b"%E6%94%B6%E5%88%E5%A5%BD", "收\ufffd好"),
            ("damaged_utf8_begun_in_a_character", b"%94%B6%E5%88%B0%E4%BA%86", "\ufffd到了"),
            ("damaged_emoji_in_two_halves", b"%ED%A0%BD%ED%B8%80", "😀"),
            ("damaged_text_and_an_emoji_in_two_halves", "收到".encode() + b"\xed\xa0\xbd\xed\xb8\x80", "收到😀"),
            ("damaged_text_and_half_an_emoji", "收到".encode() + b"\xed\xa0\xbd!", "收到\ufffd!"),
            ("damaged_half_an_emoji_alone", b"%ED%A0%80", "\ufffd"),
            ("damaged_gbk_cut", b"%CA%D5%B5%BD%C1", "收到\ufffd"),
            ("damaged_gbk_cut_in_its_second_character", b"%CA%D5%B5", "收\ufffd"),
            ("damaged_gbk_in_the_middle", b"%CA%D5%B5,%B5%BD", "收\ufffd,到"),
            ("damaged_byte_alone", b"%FF", "\ufffd"),
            ("damaged_bytes_behind_text", b"hi\xff\xfe", "hi\ufffd\ufffd"),
            ("damaged_latin_1", b"caf%E9", "caf\ufffd"),
            ("damaged_replacement_character_beside_a_cut_one", b"%EF%BF%BD%E6", "\ufffd\ufffd"),
        )
    ),
    reply(
        "damaged_by_a_length_that_counts_characters",
        b"mobile=15080920001&taskid={name}&receivetime=2019-07-23 17:00:00&content=\xe6\x94",
        {"content": "\ufffd"},
        flags=DAMAGED,
    ),
    reply(
        "damaged_unknown_field_is_kept_as_far_as_it_is_whole",
        reply_form(content=b"%CA%D5%B5%BD", more=b"&note=%FF&other=%E6%94%B6%FF"),
        {"extra": {"note": "\ufffd", "other": "收\ufffd"}},
        flags=BOTH,
    ),
    receipt(
        "damaged_content_of_a_receipt_is_an_unknown_field",
        receipt_form(more=b"&content=%FF&note=%B2%E2%CA%D4"),
        {"extra": {"content": "\ufffd", "note": "测试"}},
        flags=BOTH,
    ),
)

_NEITHER = (
    quarantined("task_id_neither_encoding", receipt_form(taskid=b"12%FF"), f"taskid: {NEITHER}"),
    quarantined("status_neither_encoding", receipt_form(status=b"%80"), f"status: {NEITHER}"),
    quarantined(
        "every_field_neither_encoding",
        receipt_form(mobile=b"%FF", taskid=b"%FF", status=b"%FF", receivetime=b"%FF"),
        f"mobile: {NEITHER}; taskid: {NEITHER}; status: {NEITHER}; receivetime: {NEITHER}",
    ),
    quarantined(
        "utf_16_body",
        "mobile=15080920001&taskid=utf16&status=1&receivetime=2019-07-23+17:00:00".encode("utf-16"),
        ALL_MISSING,
    ),
)

_ESCAPES = (
    reply("percent_sign_alone", reply_form(content=b"100%"), {"content": "100%"}),
    reply("percent_sign_before_no_hex", reply_form(content=b"%ZZok"), {"content": "%ZZok"}),
    reply("percent_sign_before_one_hex_digit", reply_form(content=b"ok%4"), {"content": "ok%4"}),
    reply("percent_sign_before_half_an_escape", reply_form(content=b"%4G%"), {"content": "%4G%"}),
    reply("percent_sign_before_a_whole_escape", reply_form(content=b"%%41"), {"content": "%A"}),
    reply("percent_u_escape_stays", reply_form(content=b"%u6536"), {"content": "%u6536"}),
    reply("escaped_twice_is_unescaped_once", reply_form(content=b"%25E6%2594%25B6"), {"content": "%E6%94%B6"}),
    reply("broken_escape_with_a_sign_or_space", reply_form(content=b"%-1%+1% 1"), {"content": "%-1% 1% 1"}),
    receipt("broken_escape_in_a_task_id", receipt_form(taskid=b"50%-off"), {"task_id": "50%-off"}),
    reply("html_entities_stay", reply_form(content=b"%26%2325910%3B"), {"content": "&#25910;"}),
)

CASES: tuple[Case, ...] = (*_UTF8, *_GB18030, *_MISLABELLED, *_DECLARED, *_DAMAGED, *_NEITHER, *_ESCAPES)
