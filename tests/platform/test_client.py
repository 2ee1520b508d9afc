"""The client speaks to the platform as its page says, and believes no answer that it cannot read."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme

from receiver.core import parse_mainland_mobile
from receiver.platform.client import (
    REFUSALS,
    SEND_PATH,
    PlatformAnswer,
    PlatformClient,
    PlatformProtocolError,
    PlatformUnreachable,
    RawAnswer,
    Unsendable,
    check_send,
    explain,
    read_answer,
    send_form,
)
from receiver.simulator import server
from tests.harness.platforms import APP_ID, APP_KEY, CODE, CREDENTIALS, GOOD_ANSWER, MOBILE, http, scripted, stand_in

FORM = send_form(CREDENTIALS, mobile=MOBILE, template_id="540", code=CODE)


def send(port: int, *, seconds: float = 2, tls: ssl.SSLContext | None = None, scheme: str = "http") -> PlatformAnswer:
    client = PlatformClient(f"{scheme}://127.0.0.1:{port}/smsApi", answer_seconds=seconds, tls=tls)
    try:
        return read_answer(client.post(SEND_PATH, FORM))
    finally:
        client.close()


def answering(data: bytes) -> Any:
    return scripted(lambda connection: connection.sendall(data))


# --- As the page says -----------------------------------------------------------------------------------


def test_send_is_a_form_with_the_pages_five_parameters() -> None:
    with answering(http(GOOD_ANSWER)) as (port, requests):
        assert send(port) == PlatformAnswer(
            accepted=True, message="成功", task_id="3313746", remain_point=241, success_counts=1
        )
    head, _, body = requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /smsApi/verifyCode HTTP/1.1"
    assert "content-type: application/x-www-form-urlencoded;charset=utf-8" in [line.lower() for line in lines]
    assert parse_qs(body.decode()) == {
        "appId": [APP_ID], "appKey": [APP_KEY], "phone": [MOBILE], "templateId": ["540"], "variables": [CODE],
    }  # fmt: skip


def test_sends_and_reads_the_balance_at_the_stand_in() -> None:
    with stand_in(credentials={APP_ID: APP_KEY}) as platform:
        assert send(platform.port).task_id == "3313746"
        client = PlatformClient(f"http://127.0.0.1:{platform.port}/smsApi")
        balance = client.read_balance(CREDENTIALS)
        client.close()
    assert (balance.accepted, balance.remain_point, balance.task_id, balance.success_counts) == (True, 241, None, None)


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/smsApi/group", [(b"X-Odd", b"a\nb")]), ("/smsApi/a b", []), ("/smsApi/\u00e9", []), ("/smsApi/x", [("X", 1)])],
)
def test_request_that_cannot_be_put_on_the_wire_is_told_as_not_sent(target: str, headers: Any) -> None:
    with answering(http(GOOD_ANSWER)) as (port, requests):
        client = PlatformClient(f"http://127.0.0.1:{port}/smsApi")
        with pytest.raises(Unsendable):
            client.pass_on(target, FORM, method="POST", headers=headers, name="other")
        assert read_answer(client.post(SEND_PATH, FORM)).accepted  # and the next is not the worse for it
        client.close()
    assert [request.partition(b" HTTP/")[0] for request in requests if request] == [b"POST /smsApi/verifyCode"]


@pytest.mark.parametrize(
    ("base", "target", "asked"),
    [
        ("/smsApi", "/smsApi/group?a=1", "/smsApi/group?a=1"),
        ("/smsApi", "/mmsApi/x", "/mmsApi/x"),
        ("/gateway/smsApi", "/voiceApi/x", "/gateway/voiceApi/x"),
        ("/elsewhere", "/smsApi/verifyCode", "/elsewhere/verifyCode"),
        ("/elsewhere", "/smsApi?a", "/elsewhere?a"),
        ("/smsApi", "/smsApiOld/x", "/smsApiOld/x"),
        ("", "/mmsApi/x", "/mmsApi/x"),
    ],
)
def test_path_of_another_product_is_beside_the_one_that_is_set(base: str, target: str, asked: str) -> None:
    with answering(http(GOOD_ANSWER)) as (port, requests):
        client = PlatformClient(f"http://127.0.0.1:{port}{base}")
        client.pass_on(target, b"", method="POST", headers=[], name="other")
        client.close()
    assert requests[0].split(b" ")[1].decode() == asked


# What the stand-in is to be asked, and how it is to be set up, for each of the page's refusals.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "账号或密码错误": ({"credentials": {"other": "key"}}, {}),
    "缺少参数": ({}, {"templateId": ""}),
    "参数错误": ({}, {"variables": "12ab"}),
    "模板不存在或者未通过": ({"templates": frozenset({"7"})}, {}),
    "模板id格式不正确": ({}, {"templateId": "5x"}),
    server.LOCKED: ({"locked": frozenset({APP_ID})}, {}),
    "余额不足": ({"balance": 0}, {}),
    "手机号码格式不正确": ({}, {"phone": "123"}),
    "该号码今日发送次数已达上限": ({"per_number_per_day": 1}, {"repeat": "1"}),
    "相同手机号码一分钟之内只可发送一次": ({"one_a_minute": True}, {"repeat": "1"}),
    "当日发送量已超出最大发送限制": ({"per_day": 1}, {"repeat": "1"}),
    "IP受限": ({"addresses": frozenset({"10.0.0.1"})}, {}),
    server.UNKNOWN: ({"unknown_every": 1}, {}),
}


def form_with(changes: dict[str, str]) -> bytes:
    fields = {"appId": APP_ID, "appKey": APP_KEY, "phone": MOBILE, "templateId": "540", "variables": CODE} | changes
    fields.pop("repeat", None)
    return "&".join(f"{name}={value}" for name, value in fields.items()).encode()


@pytest.mark.parametrize("words", REFUSED)
def test_every_documented_refusal_is_known_by_its_words(words: str) -> None:
    rules, changes = REFUSED[words]
    with stand_in(**rules) as platform:
        client = PlatformClient(f"http://127.0.0.1:{platform.port}/smsApi")
        for _ in range(2 if "repeat" in changes else 1):
            answer = read_answer(client.post(SEND_PATH, form_with(changes)))
        client.close()
    assert (answer.accepted, answer.message, answer.task_id, answer.remain_point) == (False, words, None, None)
    meaning = explain(answer.message)
    assert meaning is REFUSALS[words]
    assert meaning.advice


def test_refusals_have_codes_of_their_own_and_unknown_words_stay_as_they_are() -> None:
    assert set(REFUSED) == set(REFUSALS)
    assert len({refusal.code for refusal in REFUSALS.values()}) == len(REFUSALS)
    assert explain("天气不好").code == "platform_refused"
    assert explain("您的账户已被锁定\uff0c请联系您的专属客服").code == "account_locked"
    waiting = {refusal.code for refusal in REFUSALS.values() if refusal.waiting_helps}
    assert waiting == {"number_daily_limit", "number_minute_limit", "daily_volume"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, set()),
        ({"mobile": "1508092109"}, {"mobile"}),
        ({"mobile": "15080921090,15080921091"}, {"mobile"}),
        ({"mobile": "1508092\uff11090"}, set()),
        ({"mobile": "+1 (650) 555.0100"}, {"mobile"}),
        ({"mobile": "+86 (150) 8092.1090"}, set()),
        ({"mobile": "1508092****"}, {"mobile"}),
        ({"mobile": "+1 650 555 0100"}, {"mobile"}),
        ({"mobile": "001 650 555 0100"}, {"mobile"}),
        ({"mobile": "+86 150-8092-1090"}, set()),
        ({"mobile": "008615080921090"}, set()),
        ({"code": "1"}, {"code"}),
        ({"code": "123456789"}, {"code"}),
        ({"code": "\uff11\uff12\uff13"}, {"code"}),
        ({"template_id": ""}, {"template_id"}),
        ({"mobile": "", "template_id": "x", "code": ""}, {"mobile", "template_id", "code"}),
    ],
)
def test_input_is_checked_before_anything_is_sent(fields: dict[str, str], wrong: set[str]) -> None:
    given = {"mobile": MOBILE, "template_id": "540", "code": CODE} | fields
    faults = check_send(
        mobile=parse_mainland_mobile(given["mobile"]), template_id=given["template_id"], code=given["code"]
    )
    assert set(faults) == wrong
    assert not any(value and value in str(faults) for value in fields.values() if len(value) > 2)


# --- Hostile answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"<html>502</html>"), "not JSON"),
        (http(GOOD_ANSWER[:40]), "not JSON"),
        (http(GOOD_ANSWER, length=len(GOOD_ANSWER) + 9), "broke off"),
        (http(b"[1]"), "not a JSON object"),
        (http(b'{"returnStatus": ["1"], "taskId": "1"}'), "returnStatus"),
        (http(b'{"returnStatus": true, "taskId": "1"}'), "returnStatus"),
        (http(b"{}"), "returnStatus"),
        (http(b'{"returnStatus": "2"}'), "returnStatus"),
        (http(b'{"returnStatus": "1", "taskId": "' + b"9" * 65 + b'"}'), "taskId"),
        (http(b'{"returnStatus": "1", "taskId": "3\\u00003"}'), "taskId"),
        (http(b"[" * 100_000), "not JSON"),
        (http(b"\xff\xfe"), "not JSON"),
        (http(b"", status="301 Moved", headers="Location: http://127.0.0.1:1/\r\n"), "301"),
        (http(b"oh", status="500 Oh"), "500"),
        (b"nonsense\r\n\r\n", "broke off"),
        (b"", "broke off"),
    ],
)
def test_answer_that_says_nothing_leaves_the_outcome_unknown(answer: bytes, says: str) -> None:
    with answering(answer) as (port, requests), pytest.raises(PlatformProtocolError, match=says) as raised:
        send(port)
    assert len(requests) == 1  # never again: it may have arrived
    assert not raised.value.timed_out
    assert CODE not in str(raised.value)


def test_numbers_and_nulls_of_other_types_are_taken_for_what_they_say() -> None:
    odd = b'{"returnStatus": 1, "message": null, "remainPoint": 7, "taskId": 42, "successCounts": "many"}'
    answer = read_answer(RawAnswer(status=200, body=odd))
    assert answer == PlatformAnswer(accepted=True, message="", task_id="42", remain_point=7, success_counts=None)


def test_redirect_is_not_followed() -> None:
    with answering(http(GOOD_ANSWER)) as (elsewhere, followed):
        moved = http(b"", status="307 Moved", headers=f"Location: http://127.0.0.1:{elsewhere}/\r\n")
        with answering(moved) as (port, _), pytest.raises(PlatformProtocolError):
            send(port)
    assert followed == []


def test_silence_is_left_in_time() -> None:
    done = threading.Event()

    def say_nothing(_connection: socket.socket) -> None:
        done.wait(60)

    with scripted(say_nothing) as (port, requests):
        begun = time.monotonic()
        with pytest.raises(PlatformProtocolError) as raised:
            send(port, seconds=0.5)
        took = time.monotonic() - begun
        done.set()
    assert raised.value.timed_out
    assert took < 20
    assert len(requests) == 1


def test_endless_answer_is_left_at_its_bound() -> None:
    sent = 0

    def pour(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {100 << 20}\r\n\r\n".encode())
        for _ in range(100):
            connection.sendall(bytes(1 << 20))
            sent += 1

    with scripted(pour) as (port, _), pytest.raises(PlatformProtocolError, match="over 1048576 bytes"):
        send(port)
    assert sent < 50


def test_answer_that_trickles_is_left_at_the_deadline() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(50):
            connection.sendall(b" ")
            time.sleep(0.1)

    with scripted(trickle) as (port, _), pytest.raises(PlatformProtocolError) as raised:
        send(port, seconds=0.5)
    assert raised.value.timed_out


# --- Connections ----------------------------------------------------------------------------------------


def test_connection_never_made_is_tried_again_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    # Of that module alone: threads that earlier tests have left sleep too.
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append)
    monkeypatch.setattr("receiver.platform.client.time", clock)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(PlatformUnreachable, match="cannot be reached"):
        send(port, seconds=20)
    assert len(pauses) == 1


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_certificate_is_verified(authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with stand_in(tls=server_tls(authority, "127.0.0.1")) as platform:
        assert send(platform.port, tls=trusting, scheme="https").accepted
        with pytest.raises(PlatformUnreachable, match="certificate"):
            send(platform.port, scheme="https")  # an authority that nobody knows
    with stand_in(tls=server_tls(authority, "elsewhere.example")) as platform:
        with pytest.raises(PlatformUnreachable, match="certificate"):
            send(platform.port, tls=trusting, scheme="https")
        assert platform.ledger.summary()["sent"] == 0
