"""The platform's two interfaces, with its checks, limits and messages.

Source: the platform's page, sections 1 and 3.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from receiver.core import whole_milliseconds
from receiver.simulator.traffic import ZONE, SimulatedMessage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from email.message import Message
    from io import BufferedIOBase

_SEND, _BALANCE = "/smsApi/verifyCode", "/smsApi/verifyCode/getBalance"
_JSON = "application/json;charset=UTF-8"
# The only content type whose body a servlet container parses as a form, with any charset.
_FORM = "application/x-www-form-urlencoded"
_BODY_MAX_BYTES = 64 * 1024
_LINE_MAX_BYTES = 4096
_TRAILERS_MAX = 100
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_NUMBER = re.compile(r"1\d{10}", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
_CODE = re.compile(r"\d{2,8}", re.ASCII)
_MINUTE = timedelta(minutes=1)

# The platform's error messages.
CREDENTIALS = "账号或密码错误"
MISSING = "缺少参数"
PARAMETER = "参数错误"
NO_TEMPLATE = "模板不存在或者未通过"
TEMPLATE_FORM = "模板id格式不正确"
LOCKED = "您的账户已被锁定,请联系您的专属客服"
NO_BALANCE = "余额不足"
NUMBER_FORM = "手机号码格式不正确"
NUMBER_DAY = "该号码今日发送次数已达上限"
NUMBER_MINUTE = "相同手机号码一分钟之内只可发送一次"
VOLUME = "当日发送量已超出最大发送限制"
UNKNOWN = "未知原因,请联系客服"
ADDRESS = "IP受限"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The simulator's checks; None and 0 switch one off."""

    credentials: Mapping[str, str] | None = None  # appId: appKey
    templates: frozenset[str] | None = None
    addresses: frozenset[str] | None = None
    locked: frozenset[str] = frozenset()  # appIds
    one_a_minute: bool = False  # per number
    per_number_per_day: int = 0
    per_day: int = 0
    balance: int = 100_000
    unknown_every: int = 0  # every n-th send fails for an unknown reason


@dataclass(slots=True)
class Platform:
    """The platform's state and rules. Safe for many threads."""

    rules: Rules
    first_task_id: int
    on_sent: Callable[[SimulatedMessage], None] = lambda _message: None  # called before the send is answered
    on_refused: Callable[[str, str], None] = lambda _mobile, _words: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    balance: int = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sends: int = 0
    _attempts: int = 0
    _last: dict[str, datetime] = field(default_factory=dict)
    _of_day: Counter[tuple[str, str]] = field(default_factory=Counter)  # (day, number or "")

    def __post_init__(self) -> None:
        self.balance = self.rules.balance

    def send(self, fields: Mapping[str, str], address: str) -> dict[str, str | None]:
        """Return the platform's answer to a send."""
        with self._lock:
            now = self.now()
            words = self._refusal(fields, address) or self._over_limit(fields["phone"], now)
            if words is None:
                message = self._accept(fields, now)
                left = str(self.balance)
        if words is not None:
            self.on_refused(fields.get("phone", ""), words)
            return _refused(words)
        self.on_sent(message)
        return {
            "returnStatus": "1 ",
            "message": "成功",
            "remainPoint": left,
            "taskId": message.task_id,
            "successCounts": "1",
        }

    def read_balance(self, fields: Mapping[str, str], address: str) -> dict[str, str | None]:
        """Return the platform's answer to a balance query."""
        with self._lock:
            words = self._account_refusal(fields, address)
            left = str(self.balance)
        if words is not None:
            return _refused(words)
        return {"returnStatus": "1 ", "message": "成功", "remainPoint": left, "taskId": None, "successCounts": None}

    def _account_refusal(self, fields: Mapping[str, str], address: str) -> str | None:
        known = self.rules.credentials
        if self.rules.addresses is not None and address not in self.rules.addresses:
            return ADDRESS
        if not fields.get("appId") or not fields.get("appKey"):
            return MISSING
        if known is not None and known.get(fields["appId"]) != fields["appKey"]:
            return CREDENTIALS
        return LOCKED if fields["appId"] in self.rules.locked else None

    def _refusal(self, fields: Mapping[str, str], address: str) -> str | None:
        if words := self._account_refusal(fields, address):
            return words
        if not fields.get("phone") or not fields.get("templateId") or not fields.get("variables"):
            return MISSING
        self._attempts += 1
        checks = (
            (bool(_NUMBER.fullmatch(fields["phone"])), NUMBER_FORM),
            (bool(_DIGITS.fullmatch(fields["templateId"])), TEMPLATE_FORM),
            (self.rules.templates is None or fields["templateId"] in self.rules.templates, NO_TEMPLATE),
            (bool(_CODE.fullmatch(fields["variables"])), PARAMETER),
            (self.balance > 0, NO_BALANCE),
            (not self.rules.unknown_every or self._attempts % self.rules.unknown_every != 0, UNKNOWN),
        )
        return next((words for good, words in checks if not good), None)

    def _over_limit(self, mobile: str, now: datetime) -> str | None:
        day = f"{now.astimezone(ZONE):%Y-%m-%d}"
        rules = self.rules
        if rules.one_a_minute and now - self._last.get(mobile, now - 2 * _MINUTE) < _MINUTE:
            return NUMBER_MINUTE
        if rules.per_number_per_day and self._of_day[day, mobile] >= rules.per_number_per_day:
            return NUMBER_DAY
        if rules.per_day and self._of_day[day, ""] >= rules.per_day:
            return VOLUME
        return None

    def _accept(self, fields: Mapping[str, str], now: datetime) -> SimulatedMessage:
        mobile = fields["phone"]
        day = f"{now.astimezone(ZONE):%Y-%m-%d}"
        self._last[mobile] = now
        self._of_day[day, mobile] += 1
        self._of_day[day, ""] += 1
        self.balance -= 1
        task_id = str(self.first_task_id + self._sends)
        self._sends += 1
        return SimulatedMessage(
            task_id=task_id, mobile=mobile, template_id=fields["templateId"], sent_at=whole_milliseconds(now)
        )


def _refused(words: str) -> dict[str, str | None]:
    return {"returnStatus": "0", "message": words, "remainPoint": None, "taskId": None, "successCounts": None}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a closed connection: senders that die are part of the simulation."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def make_server(platform: Platform, bind: tuple[str, int], tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    """Return a listening server, for `serve_forever`. Raises OSError if the address is not available."""
    server = _Server(bind, _handler(platform))
    if tls is not None:
        # The handshake happens in the connection's own thread, so that a silent client blocks no other.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


class _BadBodyError(Exception):
    """A body without a clear end, or a too large one."""


def _read_body(headers: Message, stream: BufferedIOBase) -> bytes | None:
    """Return a request's body, by its length or in chunks; None if it ends early. Raises _BadBodyError."""
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if coding.strip().lower() != "chunked" or "Content-Length" in headers:
            raise _BadBodyError("unknown transfer coding")
        return _read_chunks(stream)
    length = headers.get("Content-Length", "0")
    if not _DIGITS.fullmatch(length) or int(length) > _BODY_MAX_BYTES:
        raise _BadBodyError("invalid length")
    body = stream.read(int(length))
    return body if len(body) == int(length) else None


def _read_chunks(stream: BufferedIOBase) -> bytes | None:
    body = b""
    while True:
        line = stream.readline(_LINE_MAX_BYTES)
        size = line.partition(b";")[0].strip()
        if not line.endswith(b"\n"):
            return None
        if not _CHUNK_SIZE.fullmatch(size):
            raise _BadBodyError("invalid chunk")
        if len(body) + int(size, 16) > _BODY_MAX_BYTES:
            raise _BadBodyError("the body is too large")
        if int(size, 16) == 0:
            return body if _skip_trailers(stream) else None
        data = stream.read(int(size, 16) + 2)
        if len(data) < int(size, 16) + 2:
            return None
        if not data.endswith(b"\r\n"):
            raise _BadBodyError("invalid chunk")
        body += data[:-2]


def _skip_trailers(stream: BufferedIOBase) -> bool:
    """Read the trailers after the last chunk. Return whether they are complete."""
    for _ in range(_TRAILERS_MAX):
        line = stream.readline(_LINE_MAX_BYTES)
        if not line.strip():
            return bool(line)
    return False


def _handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            try:
                body = _read_body(self.headers, self.rfile)
            except _BadBodyError as error:
                self._answer(400, {"error": str(error)}, closes=True)
                return
            if body is None:  # the sender closed the connection: there is no request
                self.close_connection = True
                return
            fields = parse_qsl(parts.query)
            if self.headers.get_content_type() == _FORM:
                fields += parse_qsl(body.decode("utf-8", errors="replace"))
            answers = {_SEND: platform.send, _BALANCE: platform.read_balance}
            answer = answers.get(parts.path.rstrip("/"))
            if answer is None:
                self._answer(404, {"error": "no such interface"})
            else:
                self._answer(200, answer(dict(fields), self.client_address[0]))

        def do_GET(self) -> None:
            self._answer(405, {"error": "use POST"}, closes=True)  # its body, if any, is not read

        def _answer(self, status: int, body: dict[str, Any], *, closes: bool = False) -> None:
            data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Type", _JSON)
            self.send_header("Content-Length", str(len(data)))
            if closes:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing: a request line may contain credentials and a code."""

    return Handler
