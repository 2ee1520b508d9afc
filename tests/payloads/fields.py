"""A form's fields: their names, spaces, repetition, absence, and what is kept of the unknown ones."""

from tests.payloads.case import ALL_MISSING, MOBILE, TIME, Case, quarantined, receipt, receipt_form, reply, reply_form

TWICE = "given twice with two values"

_NAMES = (
    receipt("names_in_upper_case", b"MOBILE=%b&TASKID={name}&STATUS=1&RECEIVETIME=%b" % (MOBILE, TIME)),
    reply(
        "names_in_camel_case", b"Mobile=%b&taskId={name}&Content=hi&receiveTime=%b" % (MOBILE, TIME), {"content": "hi"}
    ),
    receipt("fields_in_another_order", b"receivetime=%b&status=1&taskid={name}&mobile=%b" % (TIME, MOBILE)),
    receipt(
        "spaces_around_names",
        b"+mobile+=%b&%%20taskid={name}&status%%E3%%80%%80=1&%%C2%%A0receivetime=%b" % (MOBILE, TIME),
    ),
    receipt(
        "line_ends_and_tabs_around_names",
        b"%%0Amobile%%0D%%0A=%b&%%09taskid%%09={name}&%%0Bstatus=1&%%E2%%80%%A8receivetime=%b" % (MOBILE, TIME),
    ),
    reply(
        "line_ends_and_tabs_around_values_but_those_of_content",
        b"mobile=%%0A%b%%0D%%0A&taskid=%%09{name}%%09&content=%%0Ahi%%09&receivetime=%%09%b%%0A" % (MOBILE, TIME),
        {"content": "\nhi\t"},
    ),
    receipt("names_percent_encoded", b"%%6Dobile=%b&task%%69d={name}&status=1&receivetime=%b" % (MOBILE, TIME)),
    receipt("empty_pieces_skipped", b"&&" + receipt_form() + b"&&"),
    receipt(
        "line_breaks_around_pieces_dropped",
        b"\r\nmobile=%b\r\n&taskid={name}\n&\r\nstatus=1&receivetime=%b\r\n" % (MOBILE, TIME),
    ),
    quarantined(
        "semicolons_do_not_separate",
        b"mobile=%b;taskid={name};status=1;receivetime=%b" % (MOBILE, TIME),
        "mobile: not a phone number; taskid: missing; status: missing; receivetime: missing",
    ),
)

_SPACES = (
    reply("plus_is_a_space", reply_form(content=b"a+b"), {"content": "a b"}),
    reply("percent_20_is_a_space", reply_form(content=b"a%20b"), {"content": "a b"}),
    reply("raw_space_is_a_space", reply_form(content=b"a b", receivetime=b"2019-07-23 17:00:00"), {"content": "a b"}),
    reply("percent_2b_is_a_plus", reply_form(content=b"1%2B1"), {"content": "1+1"}),
    reply("content_not_trimmed", reply_form(content=b"++a+%E3%80%80"), {"content": "  a \u3000"}),
    reply("content_of_spaces_alone", reply_form(content=b"+++"), {"content": "   "}),
    receipt(
        "values_trimmed",
        receipt_form(
            mobile=b"+15080920001+",
            taskid=b"%20{name}%E3%80%80",
            status=b"%C2%A01+",
            receivetime=b"%20" + TIME + b"%20",
        ),
    ),
    receipt("space_inside_a_task_id_kept", receipt_form(taskid=b"a+b"), {"task_id": "a b"}),
    reply("line_break_inside_content_kept", reply_form(content=b"a%0D%0Ab%09c"), {"content": "a\r\nb\tc"}),
    reply(
        "raw_line_break_after_content_kept",
        b"mobile=%b&taskid={name}&receivetime=%b&\r\ncontent=hi\r\n" % (MOBILE, TIME),
        {"content": "hi\r\n"},
    ),
)

_SIGNS = (
    reply("equals_sign_in_content", reply_form(content=b"a=b=c"), {"content": "a=b=c"}),
    reply("escaped_ampersand_in_content", reply_form(content=b"a%26status%3D1"), {"content": "a&status=1"}),
    reply(
        "raw_ampersand_in_content_starts_an_unknown_field",
        reply_form(content=b"Q&A"),
        {"content": "Q", "extra": {"a": ""}},
    ),
    reply(
        "content_that_looks_like_sql_or_html",
        reply_form(content=b"%27);DROP+TABLE+replies;--<script>"),
        {"content": "');DROP TABLE replies;--<script>"},
    ),
    reply("content_empty", reply_form(content=b""), {"content": ""}),
    reply(
        "content_without_an_equals_sign",
        b"mobile=%b&taskid={name}&content&receivetime=%b" % (MOBILE, TIME),
        {"content": ""},
    ),
    reply(
        "content_with_nul",
        reply_form(content=b"a%00b%00"),
        {"content": "a\x00b\x00", "content_shown": "a\u2400b\u2400"},
    ),
    reply("content_with_a_raw_nul", reply_form(content=b"\x00"), {"content": "\x00", "content_shown": "\u2400"}),
    reply("content_with_other_controls", reply_form(content=b"%01%1B%7F%C2%85"), {"content": "\x01\x1b\x7f\x85"}),
    reply("content_very_long", reply_form(content=b"%E6%94%B6" * 5000), {"content": "收" * 5000}),
)

_REPEATED = (
    receipt("task_id_twice_the_same", receipt_form(more=b"&taskid={name}")),
    receipt("every_field_twice_the_same", receipt_form(more=b"&" + receipt_form())),
    receipt("task_id_twice_the_same_once_trimmed", receipt_form(more=b"&TASKID=+{name}+")),
    quarantined("task_id_twice_with_two_values", receipt_form(more=b"&taskid=other"), f"taskid: {TWICE}"),
    quarantined(
        "mobile_twice_in_two_spellings_of_the_name", receipt_form(more=b"&MOBILE=15080920002"), f"mobile: {TWICE}"
    ),
    quarantined("task_id_twice_once_empty", receipt_form(more=b"&taskid="), f"taskid: {TWICE}"),
    quarantined("status_twice_with_two_values", receipt_form(more=b"&status=0"), f"status: {TWICE}"),
    quarantined("content_twice_with_two_values", reply_form(content=b"a", more=b"&content=b"), f"content: {TWICE}"),
    quarantined(
        "content_twice_differing_in_a_space", reply_form(content=b"a", more=b"&content=a+"), f"content: {TWICE}"
    ),
    quarantined(
        "every_field_twice_with_two_values",
        receipt_form(more=b"&mobile=1&taskid=2&status=3&receivetime=4&x=5&x=6"),
        f"mobile: {TWICE}; taskid: {TWICE}; status: {TWICE}; receivetime: {TWICE}; extra: {TWICE}",
    ),
    receipt("unknown_field_twice_the_same", receipt_form(more=b"&Note=a&note=a"), {"extra": {"note": "a"}}),
    quarantined("unknown_field_twice_with_two_values", receipt_form(more=b"&Note=a&note=b"), f"extra: {TWICE}"),
)

_MISSING = (
    quarantined("mobile_missing", b"taskid={name}&status=1&receivetime=" + TIME, "mobile: missing"),
    quarantined("task_id_missing", b"mobile=%b&status=1&receivetime=%b" % (MOBILE, TIME), "taskid: missing"),
    reply(
        "task_id_missing_from_a_reply",
        b"mobile=%b&content={name}&receivetime=%b" % (MOBILE, TIME),
        {"task_id": None, "message_id": None, "content": "task_id_missing_from_a_reply"},
    ),
    reply(
        "task_id_of_spaces_alone_in_a_reply",
        reply_form(taskid=b"+%20%E3%80%80", content=b"{name}"),
        {"task_id": None, "message_id": None, "content": "task_id_of_spaces_alone_in_a_reply"},
    ),
    quarantined("time_missing", b"mobile=%b&taskid={name}&content=hi" % MOBILE, "receivetime: missing"),
    quarantined("all_but_an_unknown_field_missing", b"note={name}", ALL_MISSING),
    quarantined("mobile_empty", receipt_form(mobile=b""), "mobile: empty"),
    quarantined("task_id_of_spaces_alone", receipt_form(taskid=b"+%20%E3%80%80"), "taskid: empty"),
    quarantined("time_empty", reply_form(receivetime=b""), "receivetime: empty"),
    quarantined(
        "every_field_empty",
        receipt_form(mobile=b"", taskid=b"", status=b"", receivetime=b""),
        "mobile: empty; taskid: empty; status: empty; receivetime: empty",
    ),
    quarantined(
        "one_fault_of_each_sort_in_the_order_of_the_fields",
        b"x=1&x=2&receivetime=2019-02-30+00:00:00&status=%FF&taskid=a%00&mobile=abc",
        "mobile: not a phone number; taskid: control character; status: neither UTF-8 nor GB18030; "
        f"receivetime: not on the calendar; extra: {TWICE}",
    ),
)

_TASK_IDS = (
    receipt("task_id_of_64_characters", receipt_form(taskid=b"t" * 64), {"task_id": "t" * 64}),
    receipt("task_id_of_64_chinese_characters", receipt_form(taskid="批".encode() * 64), {"task_id": "批" * 64}),
    receipt("task_id_of_64_emoji", receipt_form(taskid=b"%F0%9F%98%80" * 64), {"task_id": "😀" * 64}),
    receipt(
        "task_id_of_64_characters_after_trimming", receipt_form(taskid=b"+" + b"u" * 64 + b"+"), {"task_id": "u" * 64}
    ),
    quarantined("task_id_of_65_characters", receipt_form(taskid=b"t" * 65), "taskid: over 64 characters"),
    quarantined(
        "task_id_of_65_chinese_characters", receipt_form(taskid="批".encode() * 65), "taskid: over 64 characters"
    ),
    receipt("task_id_of_19_digits", receipt_form(taskid=b"9223372036854775808"), {"task_id": "9223372036854775808"}),
    receipt("task_id_of_7_digits", receipt_form(taskid=b"3637825"), {"task_id": "3637825"}),
    receipt("task_id_with_leading_zeros", receipt_form(taskid=b"0003637825"), {"task_id": "0003637825"}),
    receipt(
        "task_id_of_32_letters_and_digits",
        receipt_form(taskid=b"9f86D081884c7d659A2feaa0c55ad015"),
        {"task_id": "9f86D081884c7d659A2feaa0c55ad015"},
    ),
    receipt("task_id_with_a_zero_width_space", receipt_form(taskid=b"a%E2%80%8Bb"), {"task_id": "a\u200bb"}),
    quarantined("task_id_with_nul", receipt_form(taskid=b"1%002"), "taskid: control character"),
    receipt("task_id_with_a_line_break_at_its_end", receipt_form(taskid=b"{name}%0D%0A")),
    receipt("task_id_between_tabs", receipt_form(taskid=b"%09{name}\t")),
    quarantined("task_id_with_a_line_break_inside", receipt_form(taskid=b"12%0A3"), "taskid: control character"),
    quarantined("task_id_with_a_raw_tab", receipt_form(taskid=b"1\t2"), "taskid: control character"),
    quarantined("task_id_with_delete", receipt_form(taskid=b"12%7F"), "taskid: control character"),
    quarantined("task_id_with_a_c1_control", receipt_form(taskid=b"12%C2%85"), "taskid: control character"),
)

_UNKNOWN = (
    receipt(
        "unknown_fields_kept",
        receipt_form(more=b"&Operator=CMCC&+Price+=+0.05+&a%3Db=c%26d"),
        {"extra": {"operator": "CMCC", "price": "0.05", "a=b": "c&d"}},
    ),
    receipt("unknown_field_empty", receipt_form(more=b"&note="), {"extra": {"note": ""}}),
    receipt("unknown_field_without_an_equals_sign", receipt_form(more=b"&flag"), {"extra": {"flag": ""}}),
    reply("unknown_fields_of_a_reply_kept", reply_form(more=b"&extno=10658"), {"extra": {"extno": "10658"}}),
    receipt(
        "unknown_field_with_controls_and_emoji",
        receipt_form(more=b"&note=a%09%F0%9F%98%80b"),
        {"extra": {"note": "a\t😀b"}},
    ),
    receipt(
        "unknown_fields_by_the_hundred",
        receipt_form(more=b"".join(b"&f%d=%d" % (n, n) for n in range(300))),
        {
            "extra": {f"f{n}": str(n) for n in range(300)},
        },
    ),
)

CASES: tuple[Case, ...] = (*_NAMES, *_SPACES, *_SIGNS, *_REPEATED, *_MISSING, *_TASK_IDS, *_UNKNOWN)
