"""The stand-in answers as the platform's page shows, repeats itself by its seed, and its ledger finds what is lost."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import trustme

from receiver.core import OPT_OUT_WORDS, Kind, OptOut, PushFlag
from receiver.simulator import Ledger, PushFaults
from receiver.simulator.check import ReceiverApi, compare
from receiver.simulator.traffic import SimulatedMessage, generate_messages, is_early, plan
from tests.harness.factories import NOON, READER
from tests.harness.platforms import APP_ID, APP_KEY, CODE, MOBILE, stand_in
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.simulator import Simulator

# The page's samples as they are printed there (正常响应示例, 异常响应示例 of sections 1 and 3), comments and all.
SEND_ACCEPTED = """{
  "returnStatus": "1 ",		//状态码
  "message": "成功",			//状态提示信息
  "remainPoint": "241",   //本次发送后,账户剩余条数
  "taskId": "3313746",		//下发批次ID(唯一)
  "successCounts": "1"		//成功条数
}"""
SEND_REFUSED = """{
  "returnStatus": "0",     //状态码
  "message": "参数错误",   //状态提示信息
  "remainPoint": null,   	//本次发送后,账户剩余条数
  "taskId": null,		     	//下发批次ID(唯一)
  "successCounts": null	 	//成功条数
}"""
BALANCE_READ = """{
  "returnStatus": "1 ",		//状态码
  "message": "成功",			//状态提示信息
  "remainPoint": "241",   //账户剩余条数
  "taskId": null,
  "successCounts": null
}"""
SEND, BALANCE = "/smsApi/verifyCode", "/smsApi/verifyCode/getBalance"
AS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GOOD = {"appId": APP_ID, "appKey": APP_KEY, "phone": MOBILE, "templateId": "540", "variables": CODE}


def as_bytes(sample: str) -> bytes:
    """The sample without its comments and the space around its parts."""
    bare = re.sub(r"//[^\n]*", "", sample)
    return re.sub(r"\s*([{}:,\n])\s*", r"\1", bare).replace("\n", "").encode()


def ask(platform: Simulator, path: str, body: str = "", headers: dict[str, str] = AS_FORM) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60)
    connection.request("POST", path, body.encode(), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_answers_are_the_pages_samples_byte_for_byte() -> None:
    with stand_in() as platform:
        assert ask(platform, SEND, urlencode(GOOD)) == (200, as_bytes(SEND_ACCEPTED))
        assert ask(platform, BALANCE, urlencode(GOOD)) == (200, as_bytes(BALANCE_READ))
        assert ask(platform, SEND, urlencode(GOOD | {"variables": "x"})) == (200, as_bytes(SEND_REFUSED))


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        (f"{SEND}?{urlencode(GOOD)}", "", "text/plain"),  # as the balance sample asks
        (SEND, urlencode(GOOD), "application/x-www-form-urlencoded"),  # as commons-httpclient sends the send sample
        (f"{SEND}?appId={APP_ID}", urlencode(GOOD), "Application/X-WWW-Form-Urlencoded ; charset=GBK"),
    ],
)
def test_parameters_are_taken_from_query_and_form(path: str, body: str, content_type: str) -> None:
    with stand_in() as platform:
        status, answer = ask(platform, path, body, {"Content-Type": content_type})
    assert (status, json.loads(answer)["taskId"]) == (200, "3313746")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ContentType": "application/x-www-form-urlencoded;charset=utf-8"},
        {"Content-Type": "text/plain;charset=UTF-8"},
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
)
def test_form_under_another_content_type_has_no_parameters(headers: dict[str, str]) -> None:
    with stand_in() as platform:
        status, answer = ask(platform, SEND, urlencode(GOOD), headers)
    assert (status, json.loads(answer)["message"]) == (200, "缺少参数")


CHUNKED = (
    b"POST /smsApi/verifyCode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


def test_chunks_are_read_to_their_end_and_the_connection_goes_on() -> None:
    form = urlencode(GOOD).encode()
    body = b"0A;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (form[:10], len(form) - 10, form[10:])
    with stand_in() as platform, socket.create_connection(("127.0.0.1", platform.port), timeout=60) as sender:
        sender.sendall((CHUNKED + body) * 3)
        sender.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: sender.recv(65536), b""))
        assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b'"returnStatus":"1 "') == 3
        assert platform.ledger.summary()["sent"] == 3


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (CHUNKED + b"x\r\n", b"HTTP/1.1 400 Bad Request"),
        (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (CHUNKED + b"fffff\r\n", b"HTTP/1.1 400 Bad Request"),
        (CHUNKED.replace(b"Chunked", b"gzip"), b"HTTP/1.1 400 Bad Request"),
        (CHUNKED.replace(b"Host: x", b"Content-Length: 5"), b"HTTP/1.1 400 Bad Request"),
        *((CHUNKED + cut, b"") for cut in (b"", b"5", b"5\r\nab", b"5\r\nabcde\r\n", b"0\r\n", b"0\r\na: b\r\n")),
    ],
)
def test_chunks_that_are_none_are_refused_and_those_that_break_off_are_not_answered(sent: bytes, answer: bytes) -> None:
    with stand_in() as platform, socket.create_connection(("127.0.0.1", platform.port), timeout=60) as sender:
        sender.sendall(sent)
        sender.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: sender.recv(65536), b"")).partition(b"\r\n")[0] == answer
        assert (platform.ledger.sent, platform.ledger.refused) == ({}, {})


def test_connection_that_says_nothing_keeps_nobody_from_a_handshake() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    with stand_in(tls=server) as platform, ExitStack() as stack:
        connections = []
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", platform.port)))  # and says nothing
            connections.append(http.client.HTTPSConnection("127.0.0.1", platform.port, timeout=20, context=client))
        for number in range(2):  # on the same connections, kept side by side
            for connection in connections:
                connection.request("POST", SEND, urlencode(GOOD), AS_FORM)
                assert json.loads(connection.getresponse().read())["returnStatus"] == "1 ", number
        for connection in connections:
            connection.close()


def test_limits_hold_per_number_and_end_with_the_minute() -> None:
    with stand_in(one_a_minute=True) as platform:
        moment = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
        platform.platform.now = lambda: moment
        words = []
        for seconds, phone in ((0, MOBILE), (59, MOBILE), (59, "15608911091"), (60, MOBILE)):
            moment = datetime(2026, 11, 23, 4, 0, tzinfo=UTC) + timedelta(seconds=seconds)
            words.append(json.loads(ask(platform, SEND, urlencode(GOOD | {"phone": phone}))[1])["message"])
    assert words == ["成功", "相同手机号码一分钟之内只可发送一次", "成功", "成功"]


def test_other_paths_and_methods_are_refused() -> None:
    with stand_in() as platform:
        assert ask(platform, "/smsApi/other")[0] == 404
        assert ask(platform, SEND, "x" * 70_000)[0] == 400


# --- What it pushes -------------------------------------------------------------------------------------

MESSAGE = SimulatedMessage(
    task_id="3313746", mobile=MOBILE, template_id="540", sent_at=datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
)
EVERYTHING = PushFaults(
    failures=0.3, lost=0.2, flips=0.3, replies=0.5, duplicates=0.5, early=0.3, masked=0.3, gb18030=0.5, in_query=0.3,
    slow=0.01, reorder=True, max_delay=timedelta(days=3), hurry=True,
)  # fmt: skip


def test_same_seed_gives_the_same_pushes_and_another_seed_others() -> None:
    messages = generate_messages(200, 30, 7, datetime(2026, 11, 23, tzinfo=UTC))
    assert messages == generate_messages(200, 30, 7, datetime(2026, 11, 23, tzinfo=UTC))
    first = [plan(message, 7, EVERYTHING) for message in messages]
    assert first == [plan(message, 7, EVERYTHING) for message in messages]
    assert first != [plan(message, 8, EVERYTHING) for message in messages]
    assert any(is_early(message, 7, EVERYTHING) for message in messages)


def test_every_push_says_to_the_reader_what_the_ledger_says_of_it() -> None:
    messages = generate_messages(400, 30, 7, datetime(2026, 11, 23, tzinfo=UTC))
    flags = set()
    for message in messages:
        for push in plan(message, 7, EVERYTHING):
            reading, found = READER.read(body=push.form, query=b"", endpoint=None)
            flags |= set(found)
            said = reading.vendor_status if push.kind is Kind.RECEIPT else reading.content
            at = reading.reported_at if push.kind is Kind.RECEIPT else reading.replied_at
            assert (reading.mobile, reading.task_id, said, at) == (push.mobile, push.task_id, push.said, push.at)
    assert flags == {PushFlag.GB18030}


def test_without_flags_each_message_has_one_receipt_soon() -> None:
    (push,) = plan(MESSAGE, 1, PushFaults(failures=0, replies=0))
    assert (push.kind, push.said, push.in_query, push.slow) == (Kind.RECEIPT, "1", False, False)
    assert timedelta(0) <= push.at - MESSAGE.sent_at <= timedelta(seconds=60)


def test_replies_are_opt_outs_possible_ones_and_others() -> None:
    planned = (
        push for message in generate_messages(200, 1, 7, NOON) for push in plan(message, 7, PushFaults(replies=1))
    )
    judged = Counter(OPT_OUT_WORDS.judge(push.said) for push in planned if push.kind is Kind.REPLY)
    assert set(judged) == set(OptOut)
    assert judged[OptOut.REVIEW] > 20  # so that the demo's view of them is not empty


# --- The ledger -----------------------------------------------------------------------------------------


def test_check_finds_what_is_missing_extra_and_different(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        key = process.make_key("read", "messages:write", "pii")
        api = ReceiverApi(f"http://127.0.0.1:{process.port}", key["Authorization"].partition(" ")[2])
        messages = generate_messages(20, 1, 7, datetime.now(UTC))
        api.record(messages)
        how = PushFaults(failures=0.3, replies=0.5, duplicates=0.3, masked=0.2, hurry=True)
        with stand_in(f"http://127.0.0.1:{process.port}{process.target}", how=how) as platform:
            platform.add_messages(messages)
        ledger = platform.ledger
        ledger.save(tmp_path / "run.json")
        ledger = Ledger.load(tmp_path / "run.json")
        found = compare(ledger, api)
        assert found.ok, found.as_dict()
        assert found.counts["messages"] == 20
        assert found.counts["receipts"] == sum(1 for key in ledger.pushed if key[0] == "receipt")

        never_kept = ("receipt", messages[0].task_id, MOBILE, "1", "2026-11-23T04:00:00+00:00")
        ledger.pushed[never_kept] = ledger.acked[never_kept] = 1
        never_pushed = next(key for key in ledger.pushed if key != never_kept)
        del ledger.pushed[never_pushed], ledger.acked[never_pushed]
        ledger.sent["0"] = (MOBILE, "540")
        ledger.sent[messages[1].task_id] = (messages[1].mobile, "another")
        found = compare(ledger, api)
        named = {text.partition(" at ")[0] for text in found.missing}
        assert named == {f"receipt of task {messages[0].task_id}", "message of task 0"}
        (extra,) = found.extra
        assert extra.endswith("never pushed")
        assert f"message of task {messages[1].task_id}: not recorded as it was sent" in found.differing


def test_bursts_rate_and_new_connections_push_everything(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        url = f"http://127.0.0.1:{process.port}{process.target}"
        arguments = ("--seed", "3", "--make-up", "40", "--once", "--hurry", "--burst", "10", "--rate", "400")
        begun = time.monotonic()
        run = process.run(
            "simulate", "--bind", "127.0.0.1:0", "--receipt-url", f"{url}/receipt", "--reply-url", f"{url}/reply",
            "--new-connections", "--slow", "0.1", "--replies", "1", *arguments,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        done = json.loads(run.stdout)
    assert done == {"seed": 3, "sent": 40, "refused": 0, "pushed": 80, "acked": 80}
    assert time.monotonic() - begun >= 80 / 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--receipt-url", "http://127.0.0.1:1/push/x"), "--receipt-url and --reply-url go together"),
        (("--push-url", "ftp://x"), "starts with http"),
        (("--credentials", "x"), "--credentials"),
        (("--bind", "nowhere"), "--bind"),
        (("--check", __file__), "not a ledger"),
    ],
)
def test_wrong_options_are_named_in_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    run = ServeProcess(tmp_path).run("simulate", *arguments)
    assert run.returncode == 1
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert says in run.stderr


def test_request_that_breaks_off_is_neither_answered_nor_noted() -> None:
    body = urlencode({"appId": APP_ID, "appKey": APP_KEY, "phone": MOBILE, "templateId": "540", "variables": CODE})
    head = f"POST /smsApi/verifyCode HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with stand_in() as platform:
        for sent in ("", body[:20], body[:-1]):
            with socket.create_connection(("127.0.0.1", platform.port), timeout=60) as connection:
                connection.sendall((head + sent).encode())
                connection.shutdown(socket.SHUT_WR)  # as a sender's end does that is killed
                assert connection.recv(1000) == b""
        assert (platform.ledger.sent, platform.ledger.refused) == ({}, {})
