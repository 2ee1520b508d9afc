"""How a push travels: content types, JSON and multipart by mistake, GET, chunks, lying lengths, sizes."""

import json

from tests.payloads.case import (
    ALL_MISSING,
    FORM,
    MOBILE,
    PART,
    TIME,
    Case,
    Headers,
    parts,
    quarantined,
    receipt,
    receipt_form,
    receipt_row,
    reply,
    reply_form,
)

LIMIT = 64 * 1024  # bytes of body and query together
BOUNDARY = b"----WebKitFormBoundary7MA4YWxkTrZu0gW"
MULTIPART: Headers = (("Content-Type", f"multipart/form-data; boundary={BOUNDARY.decode()}"),)
JSON: Headers = (("Content-Type", "application/json"),)


def _typed(content_type: str) -> Headers:
    return (("Content-Type", content_type),)


def _http(
    head: bytes,
    body: bytes = b"",
    *fields: bytes,
    length: int | None = None,  # None: the true one
    name: str = "",
) -> bytes:
    """A whole request: its first line, Host, `fields`, an honest or lying Content-Length, its body."""
    body = body.replace(b"{name}", name.encode())
    said = len(body) if length is None else length
    lines = (
        head,
        b"Host: receiver.test",
        b"Content-Type: %b" % FORM[0][1].encode(),
        *fields,
        b"Content-Length: %d" % said,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _bare(head: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A whole request with no header but Host and those given."""
    return b"\r\n".join((head, b"Host: receiver.test", *fields)) + b"\r\n\r\n" + body


def _chunk(name: bytes, *, line: bytes = b"%x", end: bytes = b"0\r\n\r\n") -> bytes:
    """A receipt's form in one chunk, and the last one."""
    form = receipt_form(taskid=name)
    return line % len(form) + b"\r\n%b\r\n" % form + end


def _refused(name: str, raw: bytes, http_status: int = 400) -> Case:
    return Case(name=name, raw=raw, http_status=http_status)


def _nothing(name: str, raw: bytes) -> Case:
    return quarantined(name, b"", ALL_MISSING, raw=raw)


def _padded(form: bytes, size: int, name: str) -> bytes:
    """The form, filled up to `size` bytes by an unknown field."""
    form = form.replace(b"{name}", name.encode()) + b"&pad="
    return form + b"p" * (size - len(form))


def _too_large(name: str, body: bytes, query: bytes = b"", *, chunked: bool = False) -> Case:
    return Case(name=name, body=body, query=query, chunked=chunked, http_status=413)


POST = b"POST {target} HTTP/1.1"
CLOSE = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"
_QUERY = receipt_form()
_SENT = receipt_form(taskid=b"1")  # of those that are refused

_CONTENT_TYPES = (
    receipt("content_type_none", headers=()),
    reply("content_type_none_with_chinese", headers=()),
    receipt("content_type_with_no_hyphen_in_its_name", headers=(("ContentType", FORM[0][1]),)),
    receipt("content_type_text_plain", headers=_typed("text/plain")),
    receipt("content_type_text_plain_latin_1", headers=_typed("text/plain;charset=ISO-8859-1")),
    receipt("content_type_json_but_a_form", headers=JSON),
    receipt("content_type_multipart_but_a_form", headers=MULTIPART),
    receipt("content_type_multipart_without_boundary", headers=_typed("multipart/form-data")),
    receipt("content_type_octet_stream", headers=_typed("application/octet-stream")),
    receipt("content_type_form_in_upper_case", headers=_typed("APPLICATION/X-WWW-FORM-URLENCODED")),
    receipt("content_type_that_is_none", headers=_typed("nonsense;;=")),
)


def _json(taskid: str = "{name}", /, **changes: object) -> bytes:
    """A receipt or reply as JSON; what is given as `...` is left out."""
    values = {"mobile": "15080920001", "taskid": taskid, "receivetime": "2019-07-23 17:00:00", **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...}).encode()


def _parts(*more: tuple[bytes, bytes], heads: tuple[bytes, ...] = (PART,)) -> bytes:
    values = ((b"mobile", MOBILE), (b"taskid", b"{name}"), (b"receivetime", b"2019-07-23 17:00:00"))
    return parts(BOUNDARY, heads, *values, *more)


CONTENT, STATUS = (b"content", "收到".encode()), (b"status", b"1")
DAMAGED = ("damaged",)

_MULTIPART = (
    receipt("multipart_receipt", _parts(STATUS), headers=MULTIPART),
    reply("multipart_reply", _parts(CONTENT), headers=MULTIPART),
    reply("multipart_at_the_replies_address", _parts(CONTENT), path="/reply"),
    reply(
        "multipart_with_names_without_quotes",  # .NET's
        _parts(CONTENT, heads=(b"Content-Disposition: form-data; name=%(name)b",)),
        headers=MULTIPART,
    ),
    reply(
        "multipart_with_names_in_another_case_and_a_file_name",
        _parts(CONTENT, heads=(b'Content-Disposition: FORM-DATA; filename="name=x"; Name="%(name)b"',)),
        headers=MULTIPART,
    ),
    reply(
        "multipart_with_a_charset_and_an_encoding_in_each_part",  # commons-httpclient's
        _parts(
            CONTENT, heads=(PART, b"Content-Type: text/plain; charset=US-ASCII", b"Content-Transfer-Encoding: 8bit")
        ),
        headers=MULTIPART,
    ),
    reply(
        "multipart_that_declares_gbk_in_its_parts",
        _parts((b"content", "谢谢".encode("gbk")), heads=(PART, b"Content-Type: text/plain; charset=GBK")),
        {"content": "谢谢"},
        headers=MULTIPART,
    ),
    reply(
        "multipart_in_gbk_without_a_charset",
        _parts((b"content", "收到".encode("gbk"))),
        headers=MULTIPART,
        flags=("gb18030",),
    ),
    reply(
        "multipart_with_signs_of_a_form_in_a_value",
        _parts((b"content", b"a&mobile=1+%41")),
        {"content": "a&mobile=1+%41"},
        headers=MULTIPART,
    ),
    reply(
        "multipart_with_line_ends_in_a_value",
        _parts((b"content", b"\r\na\n\nb\r\n--x\r\n")),
        {"content": "\r\na\n\nb\r\n--x\r\n"},
        headers=MULTIPART,
    ),
    reply("multipart_with_an_empty_value", _parts((b"content", b"")), {"content": ""}),
    receipt("multipart_labelled_a_form", _parts(STATUS)),
    receipt("multipart_without_content_type", _parts(STATUS), headers=()),
    receipt(
        "multipart_whose_boundary_is_not_the_declared_one",
        _parts(STATUS),
        headers=_typed("multipart/form-data; boundary=other"),
    ),
    receipt("multipart_chunked", _parts(STATUS), headers=MULTIPART, chunked=True),
    receipt("multipart_with_bare_line_feeds", _parts(STATUS).replace(b"\r\n", b"\n"), headers=MULTIPART),
    reply(
        "multipart_cut_in_its_last_part",
        _parts(CONTENT).partition("到".encode())[0] + b"\xe5\x88",
        {"content": "收\ufffd"},
        headers=MULTIPART,
        flags=DAMAGED,
    ),
    receipt(
        "multipart_with_an_unknown_part", _parts(STATUS, (b"Note", b" x ")), {"extra": {"note": "x"}}, headers=MULTIPART
    ),
    quarantined(
        "multipart_with_one_field_in_two_values",
        _parts(STATUS, (b"status", b"0")),
        "status: given twice with two values",
        headers=MULTIPART,
    ),
    quarantined("multipart_without_names", b"--x\r\n\r\nmobile\r\n--x--", ALL_MISSING),
)

_JSON = (
    receipt("json_receipt", _json(status="1"), headers=JSON),
    reply("json_reply", _json(content="收到"), headers=JSON),
    reply(
        "json_in_raw_utf8",
        '{"mobile":"15080920001","taskid":"{name}","content":"收到","receivetime":"2019-07-23 17:00:00"}'.encode(),
        headers=JSON,
    ),
    receipt(
        "json_with_numbers_and_booleans",
        b'{"mobile":15080920001,"taskId":9007199254740993,"status":1,"receiveTime":"2019-07-23 17:00:00",'
        b'"price":0.050,"big":1e400,"final":true,"test":false}',
        {"task_id": "9007199254740993", "extra": {"price": "0.050", "big": "1e400", "final": "true", "test": "false"}},
        headers=JSON,
    ),
    reply("json_null_is_not_given", _json(status=None, content="收到", note=None), headers=JSON),
    receipt("json_labelled_a_form", _json(status="1")),
    receipt("json_without_content_type", b"\r\n " + _json(status="1") + b"\n", headers=()),
    receipt("json_behind_a_byte_order_mark", b"\xef\xbb\xbf" + _json(status="1")),
    reply("json_with_signs_of_a_form", _json(content="a&taskid=9+%41"), {"content": "a&taskid=9+%41"}),
    reply("json_with_a_raw_line_end", _json(content="a|b").replace(b"|", b"\n"), {"content": "a\nb"}),
    reply("json_with_an_escaped_emoji", _json(content="ok😀"), {"content": "ok😀"}),
    reply(
        "json_with_half_an_escaped_emoji",
        _json(content="ok|").replace(b"|", b"\\ud83d"),
        {"content": "ok\ufffd"},
        headers=JSON,
        flags=DAMAGED,
    ),
    reply("json_with_nul", _json(content="a\0b"), {"content": "a\0b"}, headers=JSON),
    reply(
        "json_in_gbk",
        '{"mobile":"15080920001","taskid":"{name}","content":"收到","receivetime":"2019-07-23 17:00:00"}'.encode("gbk"),
        headers=JSON,
        flags=("gb18030",),
    ),
    reply(
        "json_that_declares_gbk",
        '{"mobile":"15080920001","taskid":"{name}","content":"谢谢","receivetime":"2019-07-23 17:00:00"}'.encode("gbk"),
        {"content": "谢谢"},
        headers=_typed("application/json;charset=GBK"),
    ),
    receipt("json_empty_beside_a_query", b"{}", query=_QUERY, headers=JSON),
    quarantined(
        "json_with_half_a_task_id",
        _json("12|", status="1").replace(b"|", b"\\udc00"),
        "taskid: neither UTF-8 nor GB18030",
        headers=JSON,
    ),
    quarantined(
        "json_with_a_field_in_two_values",
        b'{"mobile":"15080920001","taskid":"1","status":"1","STATUS":"0","receivetime":"2019-07-23 17:00:00"}',
        "status: given twice with two values",
        headers=JSON,
    ),
    quarantined("json_nothing_but_nulls", b'{"mobile":null,"taskid":null}', ALL_MISSING, headers=JSON),
    quarantined("json_list", b"[" + _json("1", status="1") + b"]", ALL_MISSING, headers=JSON),
    quarantined("json_that_is_not_flat", _json("1", status="1", data={"a": 1}), ALL_MISSING, headers=JSON),
    quarantined("json_with_a_list", _json("1", status="1", data=[1]), ALL_MISSING, headers=JSON),
    quarantined("json_that_is_broken", _json("1", status="1")[:-1], ALL_MISSING, headers=JSON),
    quarantined("json_nested_to_exhaustion", b'{"a":' + b"[" * 60_000, ALL_MISSING, headers=JSON),
    quarantined(
        "json_reply_at_the_receipts_address", _json("1", content="hi"), "status: missing", path="/receipt", headers=JSON
    ),
)

_NO_FORM = (
    quarantined("xml_by_mistake", b'<?xml version="1.0"?><mobile>1</mobile>', ALL_MISSING, headers=_typed("text/xml")),
    quarantined("binary_by_mistake", bytes(range(256)).replace(b"&", b""), ALL_MISSING, headers=()),
)

_QUERIES = (
    receipt("get_with_a_query", method="GET", body=b"", query=_QUERY, headers=()),
    reply(
        "get_with_a_query_at_the_replies_address", method="GET", path="/reply", body=b"", query=reply_form(), headers=()
    ),
    reply(
        "get_with_a_gb18030_query",
        method="GET",
        body=b"",
        query=reply_form(content=b"%CA%D5%B5%BD"),
        headers=(),
        flags=("gb18030",),
    ),
    receipt("head_with_a_query", method="HEAD", body=b"", query=_QUERY, headers=()),
    quarantined("get_with_a_query_of_nonsense", b"", ALL_MISSING, method="GET", query=b"probe=1", headers=()),
    Case(name="get_bare", method="GET", headers=()),
    Case(name="get_bare_with_a_slash", method="GET", path="/", headers=()),
    Case(name="get_bare_at_the_receipts_address", method="GET", path="/receipt", headers=()),
    Case(name="get_with_an_empty_query", method="GET", path="?", headers=()),
    Case(name="head_bare", method="HEAD", headers=()),
    Case(name="head_bare_at_the_replies_address", method="HEAD", path="/reply", headers=()),
    receipt("post_with_its_data_in_the_query", body=b"", query=_QUERY),
    receipt("post_chunked_with_its_data_in_the_query", body=b"", query=_QUERY, chunked=True),
    receipt("post_with_body_and_query_reads_the_body_alone", query=b"taskid=other&note=x&status=0"),
    quarantined(
        "post_with_half_a_body_reads_no_query",
        b"mobile=" + MOBILE,
        "taskid: missing; status: missing; receivetime: missing",
        query=b"taskid=1&status=1&receivetime=" + TIME,
    ),
    receipt("post_with_line_ends_alone_and_a_query", b"\r\n", query=_QUERY),
    quarantined("post_with_nothing", b"", ALL_MISSING),
    quarantined("post_chunked_with_nothing", b"", ALL_MISSING, chunked=True),
)

_CHUNKS = (
    receipt("chunked_receipt", chunked=True),
    reply("chunked_reply", chunked=True),
    reply("chunked_reply_in_raw_gb18030", reply_form(content=b"\xca\xd5\xb5\xbd"), chunked=True, flags=("gb18030",)),
    receipt("chunked_without_content_type", headers=(), chunked=True),
    reply(
        "chunks_of_one_byte",
        raw=_bare(
            POST,
            CHUNKED,
            CLOSE,
            body=b"".join(
                b"1\r\n%c\r\n" % byte for byte in reply_form(taskid=b"chunks_of_one_byte", content="收到".encode())
            )
            + b"0\r\n\r\n",
        ),
    ),
    receipt(
        "chunks_with_extensions_and_trailers",
        raw=_bare(
            POST,
            CHUNKED,
            CLOSE,
            body=_chunk(b"chunks_with_extensions_and_trailers", line=b"%X;a=b", end=b"0;last\r\nX-Sum: 1\r\n\r\n"),
        ),
    ),
    _refused("chunks_without_the_last_one", _bare(POST, CHUNKED, CLOSE, body=b"F\r\nmobile=15080920\r\n")),
    _refused("chunk_cut_short", _bare(POST, CHUNKED, CLOSE, body=b"FF\r\nmobile=15080920001")),
    _refused("chunk_with_a_size_that_is_none", _bare(POST, CHUNKED, CLOSE, body=b"zz\r\nmobile=1\r\n0\r\n\r\n")),
)

_RAW = (
    receipt("http_1_0", raw=_http(b"POST {target} HTTP/1.0", receipt_form(), name="http_1_0")),
    receipt(
        "http_1_0_without_host",
        raw=b"POST {target} HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
        % (len(receipt_form(taskid=b"http_1_0_without_host")), receipt_form(taskid=b"http_1_0_without_host")),
    ),
    receipt("http_1_0_get_with_a_query", raw=b"GET {target}?%b HTTP/1.0\r\n\r\n" % receipt_form()),
    receipt(
        "expect_100_continue",
        raw=_http(POST, receipt_form(), b"Expect: 100-continue", CLOSE, name="expect_100_continue"),
    ),
    receipt(
        "expect_100_continue_and_chunked",
        raw=_bare(POST, b"Expect: 100-continue", CHUNKED, CLOSE, body=_chunk(b"expect_100_continue_and_chunked")),
    ),
    receipt(
        "pipelined_before_a_bare_get",
        raw=_http(POST, receipt_form(), name="pipelined_before_a_bare_get") + _bare(b"GET {target} HTTP/1.1", CLOSE),
    ),
    receipt(
        "header_names_in_lower_case",
        raw=b"POST {target} HTTP/1.1\r\nhost: receiver.test\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
        % (len(receipt_form(taskid=b"header_names_in_lower_case")), receipt_form(taskid=b"header_names_in_lower_case")),
    ),
    receipt(
        "absolute_address_in_the_request_line",
        raw=_http(
            b"POST http://receiver.test{target} HTTP/1.1",
            receipt_form(),
            CLOSE,
            name="absolute_address_in_the_request_line",
        ),
    ),
    reply(
        "get_with_raw_utf8_in_its_query",
        raw=_bare(b"GET {target}?" + reply_form(content="收到".encode()) + b" HTTP/1.1", CLOSE),
    ),
    receipt(
        "length_that_ends_before_the_bytes_do",
        raw=_http(
            POST,
            receipt_form(more=b"&note=not read"),
            CLOSE,
            length=len(receipt_form(taskid=b"length_that_ends_before_the_bytes_do")),
            name="length_that_ends_before_the_bytes_do",
        ),
    ),
    quarantined(
        "length_that_cuts_a_field",
        b"",
        "mobile: not a phone number; taskid: missing; status: missing; receivetime: missing",
        raw=_http(POST, receipt_form(), CLOSE, length=len(b"mobile=150"), name="length_that_cuts_a_field"),
    ),
)

_LENGTHS = (
    _refused("length_one_more_than_the_body", _http(POST, _SENT, CLOSE, length=len(_SENT) + 1)),
    _refused("length_far_more_than_the_body", _http(POST, _SENT, CLOSE, length=LIMIT)),
    _refused("length_without_any_body", _http(POST, b"", CLOSE, length=10)),
    _refused(
        "length_more_than_the_body_though_a_query_is_there",
        _http(b"POST {target}?" + _SENT + b" HTTP/1.1", b"m", CLOSE, length=9),
    ),
    _refused("length_more_than_the_body_in_http_1_0", _http(b"POST {target} HTTP/1.0", _SENT, length=len(_SENT) + 7)),
    # RFC 9112, 6.3: neither length nor chunks is an empty body.
    receipt("length_missing_with_a_query", raw=_bare(b"POST {target}?" + _QUERY + b" HTTP/1.1", CLOSE)),
    receipt("length_missing_with_a_query_by_put", raw=_bare(b"PUT {target}?" + _QUERY + b" HTTP/1.1", CLOSE)),
    receipt("length_missing_in_http_1_0_with_a_query", raw=b"POST {target}?" + _QUERY + b" HTTP/1.0\r\n\r\n"),
    reply(
        "length_missing_before_another_push",
        raw=_bare(b"POST {target}/reply?" + reply_form() + b" HTTP/1.1") + _bare(b"GET {target} HTTP/1.1", CLOSE),
    ),
    _nothing("length_missing_with_no_body", _bare(POST, CLOSE)),
    _nothing("length_missing_with_a_body_that_is_none", _bare(POST, CLOSE, body=_SENT)),
    _refused("length_missing_with_too_long_a_query", _bare(b"POST {target}?" + b"q" * (LIMIT + 1) + b" HTTP/1.1"), 413),
    receipt(
        "transfer_encoding_identity",
        raw=_http(POST, receipt_form(), b"Transfer-Encoding: identity", CLOSE, name="transfer_encoding_identity"),
    ),
    receipt(
        "transfer_encoding_identity_by_put",
        raw=_http(
            b"PUT {target} HTTP/1.1",
            receipt_form(),
            b"transfer-encoding:  IDENTITY ",
            CLOSE,
            name="transfer_encoding_identity_by_put",
        ),
    ),
    receipt(
        "transfer_encoding_identity_then_chunked",
        raw=_bare(
            POST,
            b"Transfer-Encoding: identity, chunked",
            CLOSE,
            body=_chunk(b"transfer_encoding_identity_then_chunked"),
        ),
    ),
    _refused("transfer_encoding_identity_without_a_length", _bare(POST, b"Transfer-Encoding: identity", CLOSE)),
    _refused(
        "transfer_encoding_identity_and_chunked_apart", _http(POST, _SENT, b"Transfer-Encoding: identity", CHUNKED)
    ),
    _refused("transfer_encoding_chunked_and_a_length", _http(POST, _SENT, CHUNKED, CLOSE)),
    _refused("length_that_is_no_number", _bare(POST, b"Content-Length: abc", CLOSE, body=_SENT)),
    _refused("length_below_zero", _bare(POST, b"Content-Length: -1", CLOSE, body=_SENT)),
    _refused("length_given_twice_differing", _http(POST, _SENT, b"Content-Length: 3", CLOSE)),
    _refused("wrong_secret", _http(b"POST /push/AAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1", _SENT, CLOSE), 404),
    _refused(
        "wrong_secret_before_a_missing_length", _bare(b"POST /push/AAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1", CLOSE), 404
    ),
    _refused(
        "wrong_secret_before_a_size",
        _http(b"POST /push/AAAAAAAAAAAAAAAAAAAAAAAA/receipt HTTP/1.1", b"p" * (LIMIT + 1), CLOSE),
        404,
    ),
    _refused("wrong_secret_of_a_bare_get", _bare(b"GET /push/AAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1", CLOSE), 404),
)


def _exactly(name: str, size: int, *, query: bytes = b"", chunked: bool = False) -> Case:
    body = _padded(receipt_form(), size, name)
    extra = {"pad": "p" * (size - len(_padded(receipt_form(), 0, name)))}
    return Case(
        name=name,
        body=body,
        query=query,
        chunked=chunked,
        outcome="accepted",
        receipt=receipt_row(name, {"extra": extra}),
    )


_NAME = "content_of_nearly_64_kib"
_ROOM = LIMIT - len(reply_form(taskid=_NAME.encode(), content=b""))

_SIZES = (
    _exactly("body_of_exactly_64_kib", LIMIT),
    _exactly("body_of_exactly_64_kib_chunked", LIMIT, chunked=True),
    _exactly("body_and_query_of_exactly_64_kib", LIMIT - 500, query=b"q=" + b"q" * 498),
    reply(_NAME, reply_form(content=b"c" * _ROOM), {"content": "c" * _ROOM}),
    quarantined("nonsense_of_exactly_64_kib", b"n" * LIMIT, ALL_MISSING),
    _too_large("body_of_a_byte_over_64_kib", _padded(receipt_form(), LIMIT + 1, "over")),
    _too_large("body_of_a_byte_over_64_kib_chunked", _padded(receipt_form(), LIMIT + 1, "over"), chunked=True),
    _too_large("body_of_200_kib", _padded(receipt_form(), 200 * 1024, "over")),
    _too_large("body_of_900_kib_chunked", _padded(receipt_form(), 900 * 1024, "over"), chunked=True),
    _too_large(
        "body_and_query_of_a_byte_over_64_kib", _padded(receipt_form(), LIMIT - 499, "over"), b"q=" + b"q" * 498
    ),
    _too_large("full_body_and_a_short_query", _padded(receipt_form(), LIMIT, "over"), b"q"),
)

CASES: tuple[Case, ...] = (
    *_CONTENT_TYPES,
    *_MULTIPART,
    *_JSON,
    *_NO_FORM,
    *_QUERIES,
    *_CHUNKS,
    *_RAW,
    *_LENGTHS,
    *_SIZES,
)
