"""Receipt or reply: told apart by address or fields; and what the status says."""

from tests.payloads.case import ALL_MISSING, MOBILE, TIME, Case, quarantined, receipt, receipt_form, reply, reply_form

MASKED_SAMPLE: dict[str, object] = {"mobile": "1508092****", "task_id": "123", "masked": True}
BOTH = receipt_form(more=b"&content=hi")


def _status(name: str, given: bytes, vendor_status: str, status: str = "unknown") -> Case:
    return receipt(name, receipt_form(status=given), {"vendor_status": vendor_status, "status": status})


_SAMPLES = (
    receipt(
        "sample_receipt_of_the_platforms_page",
        b"mobile=1508092****&taskid=123&status=1&receivetime=2019-07-23+17%3A00%3A00",
        MASKED_SAMPLE,
    ),
    reply(
        "sample_reply_of_the_platforms_page",
        b"mobile=1508092****&taskid=123&content=%E6%94%B6%E5%88%B0&receivetime=2019-07-23+17%3A00%3A00",
        MASKED_SAMPLE,
    ),
)

_ADDRESSES = (
    receipt("receipt_at_its_own_address", path="/receipt"),
    receipt("receipt_at_its_own_address_with_a_slash", path="/receipt/"),
    receipt("receipt_at_the_combined_address_with_a_slash", path="/"),
    reply("reply_at_its_own_address", path="/reply"),
    reply("reply_at_its_own_address_with_a_slash", path="/reply/"),
    reply("reply_at_the_combined_address_with_a_slash", path="/"),
    reply("reply_at_its_own_address_with_empty_content", reply_form(content=b""), {"content": ""}, path="/reply"),
    receipt("receipt_at_its_own_address_keeps_content_as_extra", BOTH, {"extra": {"content": "hi"}}, path="/receipt"),
    reply(
        "reply_at_its_own_address_keeps_status_as_extra",
        BOTH,
        {"content": "hi", "extra": {"status": "1"}},
        path="/reply",
    ),
    receipt(
        "receipt_at_its_own_address_trims_content_as_any_extra",
        receipt_form(more=b"&content=+hi+"),
        {"extra": {"content": "hi"}},
        path="/receipt",
    ),
    quarantined(
        "reply_at_its_own_address_with_two_statuses",
        reply_form(more=b"&status=1&status=0"),
        "extra: given twice with two values",
        path="/reply",
    ),
    quarantined("reply_at_the_receipts_address", reply_form(), "status: missing", path="/receipt"),
    quarantined("receipt_at_the_replies_address", receipt_form(), "content: missing", path="/reply"),
    quarantined(
        "receipt_with_an_empty_status_at_its_address", receipt_form(status=b""), "status: empty", path="/receipt"
    ),
    quarantined(
        "empty_status_and_content_at_the_receipts_address",
        reply_form(more=b"&status=+"),
        "status: empty",
        path="/receipt",
    ),
    quarantined(
        "nothing_at_the_receipts_address",
        b"",
        ALL_MISSING,
        path="/receipt",
    ),
    quarantined(
        "nothing_at_the_replies_address",
        b"",
        "mobile: missing; content: missing; receivetime: missing",
        path="/reply",
    ),
)

PATH = ("path",)


def _post(name: str, target: bytes, body: bytes = receipt_form()) -> bytes:
    body = body.replace(b"{name}", name.encode())
    head = b"POST %b HTTP/1.1\r\nHost: receiver.test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % (target, len(body)) + body


# Any path behind the right secret is taken: who mistyped it would not hear of it.
_PATHS = (
    receipt("path_with_an_empty_segment_before_the_kind", path="//receipt"),
    receipt("path_with_empty_segments_alone", path="//"),
    receipt("path_of_receipt_in_another_case", path="/Receipt"),
    reply("path_of_reply_in_capitals_and_slashes", path="//REPLY//"),
    quarantined("path_of_reply_in_another_case_wants_a_content", receipt_form(), "content: missing", path="/Reply"),
    receipt("path_of_receipts_in_the_plural", path="/receipts", flags=PATH),
    reply("path_of_replies_in_the_plural", path="/replies", flags=PATH),
    receipt("path_of_a_report", path="/report", flags=PATH),
    reply("path_of_an_mo", path="/mo", flags=PATH),
    receipt("path_of_a_page", path="/index.php", flags=PATH),
    receipt("path_of_many_segments", path="/a//b/../c;d=1/", flags=PATH),
    receipt("path_that_ends_in_a_kind", path="/sms/receipt", flags=PATH),
    receipt("path_with_escapes", path="/%E5%9B%9E%E6%89%A7%2F%FF%3F", flags=PATH),
    receipt("path_with_an_escaped_slash_before_the_kind", path="%2Freceipt"),
    receipt("path_with_its_data_in_the_query", b"", path="/cb", query=receipt_form(), flags=PATH),
    reply("path_and_gb18030_at_once", reply_form(content=b"%CA%D5%B5%BD"), path="/cb", flags=("gb18030", "path")),
    quarantined("path_of_another_name_and_nothing_readable", b"note={name}", ALL_MISSING, path="/receipts"),
    Case(name="get_bare_at_another_path", method="GET", path="/verify", headers=()),
    *(
        receipt(name, raw=_post(name, target), flags=flags)
        for name, target, flags in (
            ("path_with_an_empty_segment_before_the_secret", b"/push//{secret}", ()),
            ("path_with_empty_segments_everywhere", b"/push///{secret}//receipt/", ()),
            ("path_with_an_empty_segment_before_all", b"//push/{secret}", ()),
            ("path_with_a_capital", b"/Push/{secret}", PATH),
            ("path_in_capitals", b"//PUSH//{secret}/RECEIPT", PATH),
            ("path_with_an_escaped_capital", b"/%50ush/{secret}", PATH),
        )
    ),
    Case(name="get_bare_with_a_capital", raw=b"GET /Push/{secret} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    *(
        Case(name=name, raw=_post(name, target), http_status=404)
        for name, target in (
            ("path_with_a_wrong_secret_and_a_right_one_behind", b"/push/receipt/{secret}"),
            ("path_without_a_secret", b"/push//"),
            ("path_without_anything", b"/push"),
            ("path_whose_query_has_the_secret", b"/push?token={secret}"),
            ("path_whose_query_has_the_secret_behind_a_slash", b"/Push/?token={secret}"),
            ("path_of_another_word", b"/pushes/{secret}"),
            ("path_with_a_wrong_secret_and_more", b"/push/AAAAAAAAAAAAAAAAAAAAAAAA/receipts/%41"),
        )
    ),
)

_COMBINED = (
    receipt("status_and_content_make_a_receipt", BOTH, {"extra": {"content": "hi"}}),
    receipt("status_and_empty_content_make_a_receipt", receipt_form(more=b"&content="), {"extra": {"content": ""}}),
    reply("empty_status_and_content_make_a_reply", reply_form(content=b"hi", more=b"&status="), {"content": "hi"}),
    reply("blank_status_and_content_make_a_reply", reply_form(content=b"hi", more=b"&STATUS=+%20"), {"content": "hi"}),
    reply("empty_status_and_empty_content_make_a_reply", reply_form(content=b"", more=b"&status="), {"content": ""}),
    quarantined(
        "neither_status_nor_content", b"mobile=%b&taskid={name}&receivetime=%b" % (MOBILE, TIME), "status: missing"
    ),
    quarantined("empty_status_and_no_content", receipt_form(status=b""), "status: empty"),
    quarantined("blank_status_and_no_content", receipt_form(status=b"+"), "status: empty"),
    quarantined(
        "receipt_with_two_contents",
        receipt_form(more=b"&content=a&content=b"),
        "extra: given twice with two values",
    ),
    quarantined(
        "status_once_empty_once_not_with_content",
        receipt_form(more=b"&status=&content=hi"),
        "status: given twice with two values",
    ),
)

_STATUSES = (
    _status("status_1", b"1", "1", "delivered"),
    _status("status_0", b"0", "0", "failed"),
    _status("status_1_with_a_trailing_space", b"1+", "1", "delivered"),
    _status("status_0_between_spaces", b"%200%20", "0", "failed"),
    _status("status_2", b"2", "2"),
    _status("status_minus_1", b"-1", "-1"),
    _status("status_01", b"01", "01"),
    _status("status_1_point_0", b"1.0", "1.0"),
    _status("status_in_words", b"DELIVRD", "DELIVRD"),
    _status("status_true", b"true", "true"),
    _status("status_null", b"null", "null"),
    _status("status_in_a_full_width_digit", "１".encode(), "１"),
    _status("status_in_chinese", "发送成功".encode(), "发送成功"),
    _status("status_of_64_characters", b"s" * 64, "s" * 64),
    quarantined("status_of_65_characters", receipt_form(status=b"s" * 65), "status: over 64 characters"),
    quarantined("status_with_nul", receipt_form(status=b"1%00"), "status: control character"),
    _status("status_before_an_escaped_line_break", b"1%0A", "1", "delivered"),
    _status("status_behind_a_tab", b"%090", "0", "failed"),
    quarantined("status_with_a_line_break_inside", receipt_form(status=b"1%0A1"), "status: control character"),
)

CASES: tuple[Case, ...] = (*_SAMPLES, *_ADDRESSES, *_PATHS, *_COMBINED, *_STATUSES)
