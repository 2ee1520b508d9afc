"""The drop-in door: the platform's answers byte for byte, and a record of every send that passes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.harness.platforms import APP_ID, APP_KEY, CODE, GOOD_ANSWER, MOBILE, scripted, stand_in
from tests.harness.platforms import http as http_answer
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.platform.test_client import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORM = {"appId": APP_ID, "appKey": APP_KEY, "phone": MOBILE, "templateId": "540", "variables": CODE}
SEND, BALANCE = "/smsApi/verifyCode", "/smsApi/verifyCode/getBalance"


class Door:
    """A server with its door open."""

    def __init__(self, process: ServeProcess, port: int) -> None:
        self.process = process
        self.port = port

    def messages(self, *, settled: bool = True) -> list[Any]:
        """Every message, newest first; once the result of each is recorded, which its sender does not wait for."""
        deadline = time.monotonic() + 60
        while True:
            found = self.process.request("GET", "/api/v1/messages", headers=self.process.key)
            items: list[Any] = found.json["items"]
            if not settled or time.monotonic() > deadline or all(item["status"] != "sending" for item in items):
                return items
            time.sleep(0.02)


@contextmanager
def open_door(tmp_path: Path, platform_port: int, database_url: str = "", **settings: str) -> Iterator[Door]:
    port = free_port()
    environment = {
        "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{port}",
        "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
        **settings,
    }
    process = ServeProcess(tmp_path, database_url, environment=environment)
    if database_url:
        process.upgrade()
    with process:
        process.key = process.make_key("read", "pii", "messages:write")
        yield Door(process, port)


def ask(
    port: int, path: str, body: str = "", headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        method, path, body.encode(), {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
    )
    answer = connection.getresponse()
    found = answer.status, answer.getheader("Content-Type"), answer.read()
    connection.close()
    return found


def told_in_the_platforms_fields(answer: tuple[int, str | None, bytes]) -> dict[str, Any]:
    """Read a failure of the door's own as the page's sample does, and as one who reads problems."""
    status, content_type, body = answer
    told: dict[str, Any] = json.loads(body)
    assert content_type == "application/json;charset=UTF-8"  # as of the platform's own answers
    named = ("returnStatus", "message", "remainPoint", "taskId", "successCounts")
    assert [told[name] for name in named] == ["0", told["detail"], None, None, None]
    assert (told["status"], bool(told["code"])) == (status, True)
    return told


def ask_raw(port: int, head: bytes, body: bytes = b"") -> bytes:
    """Ask with the bytes of a head, its length added, and give the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sender:
        sender.sendall(b"%b\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        sender.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sender.recv(65536), b""))


@pytest.mark.thorough
def test_answers_equal_the_platforms_byte_for_byte_in_every_documented_case(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({}, [(SEND, urlencode(FORM)), (BALANCE, urlencode(FORM)), (f"{SEND}?{urlencode(FORM)}", "")]),
        ({}, [(f"{BALANCE}?appId={APP_ID}&appKey={APP_KEY}", ""), (BALANCE, ""), (SEND, "phone=%")]),
    ]
    for rules, changes in REFUSED.values():
        fields = urlencode(FORM | {name: value for name, value in changes.items() if name != "repeat"})
        cases.append((rules, [(SEND, fields)] * (2 if "repeat" in changes else 1) + [(BALANCE, fields)]))
    told = set()
    for number, (rules, requests) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        with stand_in(**rules) as direct, stand_in(**rules) as behind, open_door(place, behind.port) as door:
            for path, body in requests:
                answer = ask(direct.port, path, body)
                assert ask(door.port, path, body) == answer, (path, rules)
                told.add(answer[2])
    assert len(told) >= len(REFUSED) + 2


def test_what_passes_is_recorded_with_its_fate_and_without_its_code(tmp_path: Path, database_url: str) -> None:
    with (
        stand_in(one_a_minute=True) as platform,
        open_door(tmp_path, platform.port, database_url if "postgresql" in database_url else "") as door,
    ):
        assert ask(door.port, SEND, urlencode(FORM))[0] == 200
        assert ask(door.port, SEND, urlencode(FORM))[0] == 200
        refused, sent = door.messages()
        named = ("task_id", "mobile", "template_id", "status", "error_message", "matched")
        assert [sent[name] for name in named] == ["3313746", MOBILE, "540", "pending", None, True]
        assert [refused[name] for name in named] == [
            None, MOBILE, "540", "refused", "相同手机号码一分钟之内只可发送一次", True,
        ]  # fmt: skip
        receipt = f"mobile={MOBILE}&taskid=3313746&status=1&receivetime=2026-11-23+12%3A00%3A00"
        assert door.process.push(receipt.encode()).status == 200
        assert door.messages()[1]["status"] == "delivered"


def test_answer_that_is_none_reaches_the_sender_as_it_is(tmp_path: Path) -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(http_answer(b"<h1>\xff</h1>", status="503 Busy", headers="Content-Type: text/html\r\n"))

    with scripted(behave) as (port, _), open_door(tmp_path, port) as door:
        assert ask(door.port, SEND, urlencode(FORM)) == (503, "text/html", b"<h1>\xff</h1>")
        (message,) = door.messages()
        assert message["status"] == "outcome_unknown"


def test_request_goes_on_as_it_came(tmp_path: Path) -> None:
    with (
        scripted(lambda connection: connection.sendall(http_answer(GOOD_ANSWER))) as (port, requests),
        open_door(tmp_path, port) as door,
    ):
        body = urlencode(FORM).replace("variables", "Variables") + "&odd=%GG&\x01"
        headers = {"ContentType": "x; y", "User-Agent": "Jakarta Commons-HttpClient/3.1", "Accept-Encoding": "gzip"}
        ask(door.port, f"{SEND}?a=%E6&b", body, headers)
    head, _, sent = requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /smsApi/verifyCode?a=%E6&b HTTP/1.1"
    assert sent == body.encode()
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert (fields["contenttype"], fields["user-agent"]) == ("x; y", "Jakarta Commons-HttpClient/3.1")
    assert fields["accept-encoding"] == "identity"  # so that the answer can be read on its way
    assert fields["host"] == f"127.0.0.1:{port}"


def test_header_values_go_on_as_the_bytes_they_were(tmp_path: Path) -> None:
    agent, name = "短信客户端/1.0".encode(), "订单系统".encode("gbk")
    with (
        scripted(lambda connection: connection.sendall(http_answer(GOOD_ANSWER))) as (port, requests),
        open_door(tmp_path, port) as door,
    ):
        head = b"POST %b HTTP/1.1\r\nUser-Agent: %b\r\nX-System: %b" % (SEND.encode(), agent, name)
        assert ask_raw(door.port, head, urlencode(FORM).encode()).endswith(GOOD_ANSWER)
        assert [message["status"] for message in door.messages()] == ["pending"]
    (request,) = requests
    lines = {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in request.split(b"\r\n")}
    assert (lines[b"user-agent"], lines[b"x-system"]) == (agent, name)


def test_any_other_path_of_the_platform_is_passed_on_and_back_byte_for_byte_and_unrecorded(tmp_path: Path) -> None:
    answer = b"\x00\xff" + "好".encode("gbk")
    headers = "Content-Type: text/xml;charset=GBK\r\nContent-Encoding: none\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    asked = [
        (b"POST", b"/smsApi/group?a=%E6&b='+%20", urlencode(FORM).encode()),
        (b"GET", b"/smsApi/custom/report?phone=15608911090", b""),
        (b"PUT", b"//mmsApi/send", b"\x00\x01" * 100_000),
        (b"DELETE", b"/voiceApi", b"x"),
        (b"POST", b"/smsApi/verifyCode/other%2Fpath;v=1", b'[{"phone": "15608911090"}]'),
    ]
    with (
        scripted(lambda connection: connection.sendall(http_answer(answer, status="203 x", headers=headers))) as (
            port,
            requests,
        ),
        open_door(tmp_path, port) as door,
    ):
        for method, target, body in asked:
            came = ask_raw(door.port, b"%b %b HTTP/1.1\r\nContent-Type: x/y" % (method, target), body)
            head, _, data = came.partition(b"\r\n\r\n")
            assert (head.split()[1], data) == (b"203", answer), target
            for line in headers.encode().split(b"\r\n"):
                assert line in [*head.split(b"\r\n"), b""]
        assert door.messages() == []
    for (method, target, body), request in zip(asked, requests, strict=True):
        head, _, sent = request.partition(b"\r\n\r\n")
        assert head.partition(b"\r\n")[0] == b"%b %b HTTP/1.1" % (method, target.replace(b"//", b"/"))
        assert (b"Content-Type: x/y" in head, sent) == (True, body)


MULTIPART = "".join(
    f'--xYx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in FORM.items()
)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=xYx", f"{MULTIPART}--xYx--\r\n"),
        ("application/json", json.dumps(FORM | {"phone": int(MOBILE)})),
    ],
)
def test_body_that_is_no_form_goes_on_as_it_is_and_is_recorded_where_it_can_be_read(
    tmp_path: Path, content_type: str, body: str
) -> None:
    with (
        scripted(lambda connection: connection.sendall(http_answer(GOOD_ANSWER))) as (port, requests),
        open_door(tmp_path, port) as door,
    ):
        assert ask(door.port, SEND, body, {"Content-Type": content_type})[2] == GOOD_ANSWER
        (message,) = door.messages()
        assert (message["mobile"], message["template_id"], message["task_id"]) == (MOBILE, "540", "3313746")
        assert ask(door.port, SEND, body[:-4], {"Content-Type": content_type})[2] == GOOD_ANSWER  # cut, whatever it is
    assert [request.partition(b"\r\n\r\n")[2] for request in requests] == [body.encode(), body[:-4].encode()]
    assert f"Content-Type: {content_type}\r\n".encode() in requests[0]


def test_raw_bytes_of_a_query_go_on_as_what_they_stand_for(tmp_path: Path) -> None:
    with (
        scripted(lambda connection: connection.sendall(http_answer(GOOD_ANSWER))) as (port, requests),
        open_door(tmp_path, port) as door,
        socket.create_connection(("127.0.0.1", door.port), timeout=60) as sender,
    ):
        target = SEND.encode() + b"?a=\xc4\xe3&b=%20+c"
        sender.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % target)
        assert sender.recv(100).startswith(b"HTTP/1.1 200 ")
    assert requests[0].startswith(b"POST /smsApi/verifyCode?a=%C4%E3&b=%20+c HTTP/1.1\r\n")


def test_unreached_platform_is_502_and_recorded(tmp_path: Path) -> None:
    with open_door(tmp_path, free_port()) as door:
        answer = ask(door.port, SEND, urlencode(FORM))
        assert answer[0] == 502
        assert "nothing was sent" in told_in_the_platforms_fields(answer)["message"]
        (message,) = door.messages()
        assert (message["status"], message["error_message"].partition(":")[0]) == ("refused", "not sent")


def test_door_and_front_answer_on_their_own_listeners_alone(tmp_path: Path) -> None:
    with stand_in() as platform, open_door(tmp_path, platform.port) as door:
        receipt = f"mobile={MOBILE}&taskid=1&status=1&receivetime=2026-11-23+12%3A00%3A00"
        for path in (
            "/", "/healthz", "/api/v1/messages", door.process.target, "/smsApi/../x", "/smsApi/%2e%2E/x",
            "/smsApi/..;/x", "/smsApi/..%5Cx", "/smsapi/verifyCode", "/x/smsApi/verifyCode",
        ):  # fmt: skip
            answer = ask(door.port, path, receipt)
            assert (answer[0], told_in_the_platforms_fields(answer)["code"]) == (404, "not_found"), path
        assert ask(door.process.port, SEND, urlencode(FORM))[0] == 404
        assert door.messages() == []
        assert platform.ledger.summary()["sent"] == 0


def test_door_keeps_working_while_the_database_is_away(tmp_path: Path, postgres_database_url: str) -> None:
    with stand_in() as platform:
        with open_door(tmp_path, platform.port, postgres_database_url) as door:
            key = door.process.key
        process = door.process
        process.database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
        with process:
            for number in range(5):
                fields = urlencode(FORM | {"phone": f"1560891109{number}"})
                status, _, body = ask(door.port, SEND, fields)
                assert (status, b'"returnStatus":"1 "' in body) == (200, True)
        process.database_url = postgres_database_url
        with process:
            process.key = key
            deadline = time.monotonic() + 30
            while len([m for m in door.messages() if m["task_id"]]) < 5:
                assert time.monotonic() < deadline, door.messages()
                time.sleep(0.1)
        assert platform.ledger.summary()["sent"] == 5


@pytest.mark.parametrize(("app_id", "account"), [(APP_ID, "default"), ("other-id", "other"), ("somebody", "default")])
def test_account_is_that_of_the_senders_own_credentials(tmp_path: Path, app_id: str, account: str) -> None:
    with (
        stand_in() as platform,
        open_door(
            tmp_path,
            platform.port,
            RECEIVER_PLATFORM_CREDENTIALS=f"default:{APP_ID}:{APP_KEY},other:other-id:key",
        ) as door,
    ):
        ask(door.port, SEND, urlencode(FORM | {"appId": app_id}))
        assert [message["account"] for message in door.messages()] == [account]


def test_hostile_requests_leave_the_door_open(tmp_path: Path) -> None:
    with stand_in() as platform, open_door(tmp_path, platform.port) as door, ExitStack() as stack:
        for raw in (b"", b"POST", b"\x16\x03\x01", b"POST /smsApi/verifyCode HTTP/1.1\r\nContent-Length: 100\r\n\r\nx"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", door.port)))
            connection.sendall(raw)
        answer = ask(door.port, SEND, "x" * 100_000)
        assert (answer[0], told_in_the_platforms_fields(answer)["code"]) == (413, "too_large")
        assert ask(door.port, SEND, "&".join(f"f{n}=1" for n in range(5000)))[0] == 200
        assert ask(door.port, SEND, urlencode(FORM) + "&phone=%FF%FE")[0] == 200
        assert ask(door.port, SEND, urlencode(FORM))[0] == 200


def test_send_under_way_when_the_process_is_killed_has_a_row_that_says_so(tmp_path: Path, database_url: str) -> None:
    asked = threading.Event()

    def never_answer(connection: socket.socket) -> None:
        asked.set()
        connection.recv(1)  # until the other side is gone

    with (
        scripted(never_answer) as (port, _),
        open_door(tmp_path, port, database_url if "postgresql" in database_url else "") as door,
        socket.create_connection(("127.0.0.1", door.port)) as sender,
    ):
        body = urlencode(FORM).encode()
        sender.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (SEND.encode(), len(body), body)
        )
        assert asked.wait(60)
        master, worker = door.process.await_worker()
        door.process.kill(master)
        os.kill(worker, signal.SIGKILL)
        door.process.await_gone([worker])
        door.process.start()
        (message,) = door.messages(settled=False)
        assert (message["status"], message["mobile"], message["task_id"]) == ("sending", MOBILE, None)
