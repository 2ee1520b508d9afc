"""Those who are told: what each kind is sent, by what it is signed, and which answers are failures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from werkzeug import Request, Response

from receiver.alerting import notifiers
from receiver.alerting.notifiers import Notification, NotificationError, Notifier, post
from tests.harness.http import serve_http
from tests.harness.platforms import scripted

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

TOKEN = "token-of-a-robot-0123456789"
SIGNING_SECRET = "SECsigning-secret-0123456789"
MESSAGE = Notification(text="[receiver] ALARM: 平台没有推送", fields={"name": "platform_silent", "state": "firing"})
OK = {"dingtalk": {"errcode": 0, "errmsg": "ok"}, "wecom": {"errcode": 0, "errmsg": "ok"},
      "feishu": {"code": 0, "msg": "success", "data": {}}, "url": {}}  # fmt: skip


class Robot:
    """A server that is told; answers what it is asked to, and keeps what came."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []  # one for each request; after the last: 200, and good
        self.paths: list[str] = []
        self.bodies: list[Any] = []
        self.headers: dict[str, str] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/robot/send?access_token={TOKEN}"

    def answer(self, *answers: tuple[int, Any]) -> None:
        self.answers = [(status, json.dumps(body).encode()) for status, body in answers]

    def take(self, request: Request) -> Response:
        self.paths.append(request.environ["REQUEST_URI"])
        self.headers = dict(request.headers)
        if request.data:
            self.bodies.append(request.get_json())
        good = b'{"errcode": 0, "errmsg": "ok", "code": 0, "msg": "success"}'
        status, answer = self.answers.pop(0) if self.answers else (200, good)
        return Response(answer, status, {"Location": self.url} if status // 100 == 3 else {})


@contextmanager
def robot(tls: ssl.SSLContext | None = None) -> Iterator[Robot]:
    """A robot on a free port of this machine."""
    of_tests = Robot()
    with serve_http(of_tests.take, tls) as of_tests.port:
        yield of_tests


@pytest.fixture
def told() -> Iterator[Robot]:
    with robot() as of_tests:
        yield of_tests


def signed(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def test_dingtalk_is_signed_in_its_address(told: Robot) -> None:
    assert post(Notifier(kind="dingtalk", url=told.url, secret=SIGNING_SECRET), MESSAGE) == "ok"
    asked = {name: values[0] for name, values in parse_qs(urlsplit(told.paths[0]).query).items()}
    assert asked["access_token"] == TOKEN
    assert abs(int(asked["timestamp"]) - time.time() * 1000) < 60_000  # milliseconds
    assert asked["sign"] == signed(SIGNING_SECRET, f"{asked['timestamp']}\n{SIGNING_SECRET}")
    assert told.bodies == [{"msgtype": "text", "text": {"content": MESSAGE.text}}]
    assert told.headers["Content-Type"] == "application/json"


def test_dingtalk_sign_is_encoded_for_a_url(monkeypatch: pytest.MonkeyPatch, told: Robot) -> None:
    # At that second the signature has both characters that a query may not have as they are.
    monkeypatch.setattr(time, "time", lambda: 1_764_000_002.5)
    post(Notifier(kind="dingtalk", url=told.url, secret=SIGNING_SECRET), MESSAGE)
    sign = signed(SIGNING_SECRET, f"1764000002000\n{SIGNING_SECRET}")
    assert f"sign={sign.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}" in told.paths[0]


def test_feishu_is_signed_in_its_body(told: Robot) -> None:
    assert post(Notifier(kind="feishu", url=told.url, secret=SIGNING_SECRET), MESSAGE) == "success"
    (body,) = told.bodies
    assert abs(int(body["timestamp"]) - time.time()) < 60  # seconds
    assert body["sign"] == signed(f"{body['timestamp']}\n{SIGNING_SECRET}", "")
    assert (body["msg_type"], body["content"]) == ("text", {"text": MESSAGE.text})


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("dingtalk", {"msgtype": "text", "text": {"content": MESSAGE.text}}),
        ("wecom", {"msgtype": "text", "text": {"content": MESSAGE.text}}),
        ("feishu", {"msg_type": "text", "content": {"text": MESSAGE.text}}),
        ("url", {"name": "platform_silent", "state": "firing", "text": MESSAGE.text}),
    ],
)
def test_each_kind_has_its_form(told: Robot, kind: str, body: dict[str, Any]) -> None:
    told.answer((200, OK[kind]))
    post(Notifier(kind=kind, url=told.url), MESSAGE)
    assert told.bodies == [body]
    assert told.paths == [f"/robot/send?access_token={TOKEN}"]


def test_long_text_is_cut_to_what_wecom_takes(told: Robot) -> None:
    post(Notifier(kind="wecom", url=told.url), Notification(text="证" * 1000, fields={}))
    assert told.bodies[0]["text"]["content"] == "证" * 666


@pytest.mark.parametrize(
    ("kind", "status", "answer", "fault"),
    [
        ("dingtalk", 200, {"errcode": 310000, "errmsg": "sign not match"}, "refused: errcode 310000, sign not match"),
        ("wecom", 200, {"errcode": 93000, "errmsg": f"invalid webhook url {TOKEN}"},
         "refused: errcode 93000, invalid webhook url \\*\\*\\*$"),
        ("feishu", 200, {"code": 19021, "msg": "sign match fail"}, "refused: code 19021, sign match fail"),
        ("dingtalk", 200, {}, "an answer without errcode; is this the robot's address"),
        ("feishu", 200, ["code"], "an answer without code"),
        ("wecom", 502, {"errcode": 0}, "answered with HTTP status 502"),
        ("url", 500, {}, "answered with HTTP status 500"),
        ("url", 307, {}, "answered with HTTP status 307"),
    ],
)  # fmt: skip
def test_refusal_is_a_failure_whatever_its_status(told: Robot, kind: str, status: int, answer: Any, fault: str) -> None:
    told.answer((status, answer))
    with pytest.raises(NotificationError, match=fault) as raised:
        post(Notifier(kind=kind, url=told.url, secret=SIGNING_SECRET), MESSAGE)
    assert len(told.bodies) == 1  # nor is a redirect followed
    assert TOKEN not in str(raised.value)
    assert SIGNING_SECRET not in str(raised.value)


def test_target_that_is_away_is_named_without_its_address() -> None:
    with robot() as gone:
        pass
    target = Notifier(kind="wecom", url=gone.url)
    with pytest.raises(NotificationError, match=r"^127\.0\.0\.1: cannot be reached: it takes no connection$") as raised:
        post(target, MESSAGE)
    assert raised.value.__cause__ is None
    assert TOKEN not in f"{target!r} {target} {target.id}"


def test_target_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifiers, "_PATIENCE_SECONDS", 0.3)
    with (
        scripted(_say_nothing) as (port, _),
        pytest.raises(NotificationError, match="no answer within"),
    ):
        post(Notifier(kind="url", url=f"http://127.0.0.1:{port}/hook"), MESSAGE)


def _say_nothing(connection: socket.socket) -> None:
    connection.recv(1)  # until the other side closes


def test_certificate_is_verified() -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    with robot(serving) as told:
        target = Notifier(kind="url", url=told.url.replace("http://", "https://"))
        assert post(target, MESSAGE, tls=trusting) == "HTTP 200"
        with pytest.raises(NotificationError, match="its certificate is not valid"):
            post(target, MESSAGE)
    assert len(told.bodies) == 1
