"""Pushes byte for byte as HTTP clients put them on the wire, which other tables do not have yet."""

from tests.payloads.case import FORM, MOBILE, PART, TIME, Case, Headers, parts, receipt, receipt_form, reply, reply_form

_TEXT = "收 到+&*~ 退订😀"
_ESCAPED = b"%E6%94%B6+%E5%88%B0%2B%26*%7E+%E9%80%80%E8%AE%A2%F0%9F%98%80"
_AS_SPACES = _ESCAPED.replace(b"+", b"%20").replace(b"%7E", b"~")
_OFFER = (("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"))


def _said(name: str, content: bytes = _ESCAPED, *headers: tuple[str, str]) -> Case:
    """A reply of all that clients write differently, under these headers beside a form's."""
    return reply(name, reply_form(content=content), {"content": _TEXT}, headers=(*FORM, *headers))


_FORMS = (
    _said("wire_java_net_http", _ESCAPED, ("Connection", "Upgrade, HTTP2-Settings"), *_OFFER),
    _said("wire_curl_http2", _ESCAPED, ("Connection", "Upgrade, HTTP2-Settings"), _OFFER[0]),
    _said("wire_spring_with_every_charset_of_its_jvm", _ESCAPED, ("Accept-Charset", ", ".join(["x-gb18030"] * 177))),
    _said("wire_okhttp_and_superagent", _AS_SPACES),
    _said("wire_mono_webclient", _ESCAPED.lower()),
    _said("wire_lwp", _ESCAPED, ("TE", "deflate,gzip;q=0.3"), ("Connection", "TE")),
    _said("wire_erlang", _ESCAPED, ("te", "")),
    _said("wire_agent_in_utf8", _ESCAPED, ("User-Agent", "短信客户端/1.0".encode().decode("latin-1"))),
    _said("wire_agent_in_gbk", _ESCAPED, ("User-Agent", "短信客户端/1.0".encode("gbk").decode("latin-1"))),
    _said("wire_go_repeatable", _ESCAPED, ("Idempotency-Key", "x2")),
    reply(
        "wire_go_sorts_its_fields",
        b"content=%b&mobile=%b&receivetime=%b&taskid={name}" % (_ESCAPED, MOBILE, TIME),
        {"content": _TEXT},
    ),
    reply(
        "wire_httpclient_5_without_charset",
        reply_form(content=_ESCAPED),
        {"content": _TEXT},
        headers=(("Content-Type", "application/x-www-form-urlencoded; charset=ISO-8859-1"),),
    ),
    reply(
        "wire_fetch_of_a_string",
        reply_form(content="收到".encode()),
        headers=(("content-type", "text/plain;charset=UTF-8"), ("connection", "keep-alive")),
    ),
    reply("wire_requests_of_a_generator", reply_form(content=_ESCAPED), {"content": _TEXT}, headers=(), chunked=True),
    reply(
        "wire_php_curl_of_a_stream",
        reply_form(content=_ESCAPED),
        {"content": _TEXT},
        headers=(*FORM, ("Expect", "100-continue")),
        chunked=True,
    ),
    receipt("wire_okhttp_query", b"", query=receipt_form(), headers=(("Content-Type", "text/plain; charset=utf-8"),)),
    receipt("wire_jetty_query", b"", query=receipt_form(), headers=()),
    receipt("wire_aiohttp_leaves_colons_bare", receipt_form(receivetime=b"2019-07-23+17:00:00")),
    receipt("wire_json_under_a_forms_name", b'{"mobile":"15080920001","taskid":"{name}","status":"1",'
            b'"receivetime":"2019-07-23 17:00:00"}', headers=FORM),
    reply("wire_empty_task_id_of_a_reply", reply_form(taskid=b"", content=b"{name}"),
          {"task_id": None, "content": "wire_empty_task_id_of_a_reply"}),
)  # fmt: skip


def _multipart(name: str, boundary: str, *heads: bytes) -> Case:
    """A reply as multipart, under that boundary and with these lines before each value."""
    body = parts(
        boundary.encode(),
        heads,
        (b"mobile", MOBILE),
        (b"taskid", name.encode()),
        (b"content", _TEXT.encode()),
        (b"receivetime", b"2019-07-23 17:00:00"),
    )
    headers: Headers = (("Content-Type", f"multipart/form-data; boundary={boundary}"),)
    return reply(name, body, {"content": _TEXT}, headers=headers)


_MULTIPARTS = (
    _multipart("wire_multipart_php_curl", "------------------------d74496d66958873e", PART),
    _multipart("wire_multipart_urllib3_and_requests", "0f3ea4d1c8c9e9ec3f1b2c6d5a4b7e80", PART),
    _multipart("wire_multipart_undici", "----formdata-undici-046183947213", PART),
    _multipart(
        "wire_multipart_aiohttp",
        "b1c3a6e7f1d84c0f9b6c",
        b"Content-Type: text/plain; charset=utf-8",
        PART,
    ),
    _multipart("wire_multipart_okhttp", "9e2b6c9f-5a0b-4b52-8a3a-5a4f6d2f6f6a", PART, b"Content-Length: %(length)d"),
    _multipart("wire_multipart_guzzle", "2b8f1c0a9d", PART, b"Content-Length: %(length)d"),
    _multipart("wire_multipart_lwp", "xYzZY", PART),
    _multipart("wire_multipart_net_http", "y7Q2xkz0bQJc1oF3pNw8Zg", PART),
    _multipart(
        "wire_multipart_dotnet",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Disposition: form-data; name=%(name)b",
    ),
    _multipart(
        "wire_multipart_commons_httpclient",
        "oKVtO7bVuCU5pqVsC8Tv1lI5eTjk",
        PART,
        b"Content-Type: text/plain; charset=US-ASCII",
        b"Content-Transfer-Encoding: 8bit",
    ),
    _multipart(
        "wire_multipart_spring",
        "XbKhqJ0w8cI7yL5mNn3pRr",
        PART,
        b"Content-Type: text/plain;charset=UTF-8",
        b"Content-Length: %(length)d",
    ),
    receipt(
        "wire_multipart_spring_with_a_number",  # its Integer is written as JSON, which changes the whole form
        parts(b"Sp", (PART, b"Content-Type: text/plain;charset=UTF-8"), (b"mobile", MOBILE), (b"taskid", b"{name}"),
               (b"receivetime", b"2019-07-23 17:00:00")).removesuffix(b"--Sp--\r\n")
        + parts(b"Sp", (PART, b"Content-Type: application/json"), (b"status", b"1")),
        headers=(("Content-Type", "multipart/form-data;boundary=Sp"),),
    ),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_FORMS, *_MULTIPARTS)
