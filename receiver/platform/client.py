"""Calls of the platform: send a verification code, read the balance, pass on another sender's request.

Source: the platform's page, sections 1 (发送接口) and 3 (余额查询接口), its traps included: `"1 "`, nulls,
numbers as strings, a reason that stands in `message` alone.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from receiver.core import CONTROL, TASK_ID_MAX_CHARS, ReceiverError
from receiver.net.egress import open_client
from receiver.net.egress_policy import (
    CONNECT_SECONDS,
    EgressError,
    EgressNotSent,
    EgressTimeout,
    EgressUnsendable,
    TargetUrl,
    parse_operator_url,
)
from receiver.observability import tracing
from receiver.translations import N_

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from receiver.net.egress_client import EgressClient

SMS_API = "/smsApi"  # as RECEIVER_PLATFORM_URL ends; the platform's other products are its siblings
SEND_PATH = "/verifyCode"
BALANCE_PATH = "/verifyCode/getBalance"
ANSWER_MAX_BYTES = 1024 * 1024  # the platform's own accept 200
_FORM = ((b"Content-Type", b"application/x-www-form-urlencoded;charset=utf-8"),)
# Unless the sender has others. No other encoding: answers are passed on unchanged, and small.
_OWN_HEADERS = ((b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"receiver"))
_CONNECT_TRIES = 2
_PAUSE_SECONDS = 0.2
_ANSWER_SECONDS = 20.0
_CONNECTIONS = 64

_CODE = re.compile(r"\d{2,8}", re.ASCII)
_TEMPLATE_ID = re.compile(r"\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
_WORDS_MAX_CHARS = 255
# Response headers not passed on: hop-by-hop ones, and those that our own server sets.
_NOT_PASSED_BACK = frozenset(
    {
        b"alt-svc", b"connection", b"content-length", b"date", b"keep-alive", b"proxy-authenticate",
        b"proxy-connection", b"server", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """One account's way into the platform."""

    account: str
    app_id: str
    app_key: str

    def __repr__(self) -> str:
        """Name the account alone."""
        return f"Credentials({self.account!r})"


@dataclass(frozen=True, kw_only=True, slots=True)
class RawAnswer:
    """An HTTP answer, byte for byte. A header's value is its bytes as Latin-1, as WSGI has it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()  # but those of its connection and of its length
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformAnswer:
    """The platform's answer."""

    accepted: bool
    message: str  # its own message
    task_id: str | None
    remain_point: int | None  # messages left on the account
    success_counts: int | None


class PlatformUnreachable(ReceiverError):
    """No connection was made: nothing was asked for, and it can be asked for again."""


class Unsendable(PlatformUnreachable):
    """A request that cannot be sent at all: nothing was requested, and a retry is useless."""


class PlatformProtocolError(ReceiverError):
    """The request may have arrived, but the answer is unusable. `timed_out`: there was no answer in time."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


# --- Why the platform refuses ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlatformRefusal:
    """The meaning of a refusal for the caller."""

    code: str  # stable
    waiting_helps: bool
    advice: str


# The platform's messages (状态码定义, both tables) and their meaning. Only the message identifies a refusal.
REFUSALS: Mapping[str, PlatformRefusal] = {
    "账号或密码错误": PlatformRefusal(
        "platform_credentials", False, N_("check appId and appKey in RECEIVER_PLATFORM_CREDENTIALS")
    ),
    "缺少参数": PlatformRefusal("platform_missing_parameter", False, N_("send number, template id and code")),
    "参数错误": PlatformRefusal("platform_bad_parameter", False, N_("check number, template id and code")),
    "模板不存在或者未通过": PlatformRefusal(
        "template_unusable", False, N_("use a template that the platform has approved, or await its approval")
    ),
    "模板id格式不正确": PlatformRefusal(
        "template_id_malformed", False, N_("copy the template id from the platform's console")
    ),
    "您的账户已被锁定,请联系您的专属客服": PlatformRefusal(
        "account_locked", False, N_("call the platform: 400-68-10658")
    ),
    "余额不足": PlatformRefusal("no_balance", False, N_("top up the account")),
    "手机号码格式不正确": PlatformRefusal("number_malformed", False, N_("check the number")),
    "该号码今日发送次数已达上限": PlatformRefusal(
        "number_daily_limit", True, N_("wait until tomorrow for this number")
    ),
    "相同手机号码一分钟之内只可发送一次": PlatformRefusal(
        "number_minute_limit", True, N_("wait a minute for this number")
    ),
    "当日发送量已超出最大发送限制": PlatformRefusal(
        "daily_volume", True, N_("wait until tomorrow, or ask the platform for more")
    ),
    "IP受限": PlatformRefusal("address_not_allowed", False, N_("add this server's address to the platform's list")),
    "未知原因,请联系客服": PlatformRefusal("platform_unknown_reason", False, N_("call the platform: 400-68-10658")),
}
_OTHER_REFUSAL = PlatformRefusal("platform_refused", False, N_("see the platform's message"))
OVER_LOCAL_LIMIT = PlatformRefusal("local_limit", True, N_("wait, or change the named setting"))
EVERY_REFUSAL = (*REFUSALS.values(), _OTHER_REFUSAL, OVER_LOCAL_LIMIT)


def explain(words: str) -> PlatformRefusal:
    """Return the meaning of a refusal with this message."""
    return REFUSALS.get(words.replace("\uff0c", ",").strip().rstrip("\u3002."), _OTHER_REFUSAL)


# --- What goes out ----------------------------------------------------------------------------------------


def check_send(*, mobile: str | None, template_id: str, code: str) -> dict[str, str]:
    """Return what is wrong with a request to send, by field, never a value; empty: nothing.

    `mobile`: as `parse_mainland_mobile` returns it.
    """
    faults: dict[str, str] = {}
    if mobile is None:
        faults["mobile"] = "not one mainland number: 11 digits that begin with 1"
    if not _TEMPLATE_ID.fullmatch(template_id):
        faults["template_id"] = "not a template id: digits, as the platform's console shows it"
    if not _CODE.fullmatch(code):
        faults["code"] = "not 2 to 8 digits"
    return faults


def send_form(credentials: Credentials, *, mobile: str, template_id: str, code: str) -> bytes:
    """Return the body of a send request."""
    return urlencode(
        {
            "appId": credentials.app_id,
            "appKey": credentials.app_key,
            "phone": mobile,
            "templateId": template_id,
            "variables": code,
        }
    ).encode()


class PlatformClient:
    """Calls the platform over reused connections. Safe for many threads.

    Connects at first use, so it may be created before a fork. Logs nothing: bodies hold credentials and codes.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._tls = tls
        self._answer_seconds = answer_seconds
        self._making = threading.Lock()
        self._client: EgressClient | None = None

    def read_balance(self, credentials: Credentials) -> PlatformAnswer:
        """Ask how many messages are left. Raises PlatformUnreachable or PlatformProtocolError."""
        # In the body, not in the query as the page's example has it: a key in a URL ends up in logs on its way.
        form = urlencode({"appId": credentials.app_id, "appKey": credentials.app_key}).encode()
        return read_answer(self.post(BALANCE_PATH, form))

    def post(self, path: str, body: bytes) -> RawAnswer:
        """Post our own form to an interface and return its answer, whatever it is.

        Raises PlatformUnreachable if nothing was sent, PlatformProtocolError if the request may have arrived.
        """
        return self._ask(f"{SMS_API}{path}", body, name=path)

    def pass_on(
        self, target: str, body: bytes, *, method: str, headers: Sequence[tuple[bytes, bytes]], name: str
    ) -> RawAnswer:
        """Send another sender's request and return its answer; `name`: in a trace, instead of its target.

        `target` is one of the platform's own host, `/smsApi/...` or a sibling, exactly as sent: ASCII. Raises
        Unsendable, PlatformUnreachable or PlatformProtocolError.
        """
        return self._ask(target, body, method=method, headers=headers, name=name)

    def _ask(
        self,
        target: str,
        body: bytes,
        *,
        name: str,
        method: str = "POST",
        headers: Sequence[tuple[bytes, bytes]] = _FORM,
    ) -> RawAnswer:
        with tracing.span(f"platform {name}", kind="CLIENT") as span:
            answer = self._exchange(target, body, method=method, headers=headers)
            tracing.note(span, {"http.request.method": method, "http.response.status_code": answer.status})
            return answer

    def _exchange(self, target: str, body: bytes, *, method: str, headers: Sequence[tuple[bytes, bytes]]) -> RawAnswer:
        """Make a request. Tries again only where no connection was made."""
        deadline = time.monotonic() + self._answer_seconds
        try:
            place = parse_operator_url(self._url)
        except ValueError:
            raise PlatformUnreachable("RECEIVER_PLATFORM_URL cannot be used") from None
        given = {name.lower() for name, _ in headers}
        sent = [*(pair for pair in _OWN_HEADERS if pair[0].lower() not in given), *headers]
        for tries_left in reversed(range(_CONNECT_TRIES)):
            try:
                line = _line_of(place, target).encode("ascii")  # unchanged: the platform decides what it means
                answer = self._client_of(place).send(
                    method, line, sent, body, seconds=deadline - time.monotonic(), answer_max_bytes=ANSWER_MAX_BYTES
                )
            except (EgressUnsendable, UnicodeEncodeError):
                raise Unsendable("the request cannot be passed on: its head is no HTTP") from None
            except EgressNotSent as error:
                if not tries_left or time.monotonic() + CONNECT_SECONDS > deadline:
                    raise PlatformUnreachable(f"the platform cannot be reached ({error})") from None
                time.sleep(_PAUSE_SECONDS)
            except EgressTimeout:
                raise PlatformProtocolError("the platform did not answer in time", timed_out=True) from None
            except EgressError as error:
                raise PlatformProtocolError(f"the platform's answer broke off ({error})") from None
            else:
                if not answer.whole:
                    raise PlatformProtocolError(f"the platform's answer is over {ANSWER_MAX_BYTES} bytes")
                return RawAnswer(status=answer.status, headers=_passed_back(answer.headers), body=answer.body)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close every connection."""
        with self._making:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _client_of(self, place: TargetUrl) -> EgressClient:
        with self._making:
            if self._client is None:
                self._client = open_client(place, connections=_CONNECTIONS, tls=self._tls, proxies=True)
            return self._client


def _line_of(place: TargetUrl, target: str) -> str:
    """Return a target of the platform's own host as it is behind RECEIVER_PLATFORM_URL."""
    base = place.path.decode().rstrip("/")
    if re.match(rf"{SMS_API}(?:[/?]|\Z)", target):
        return base + target.removeprefix(SMS_API)
    return base.removesuffix(SMS_API) + target


def _passed_back(headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name.lower() not in _NOT_PASSED_BACK
    )


# --- What comes back --------------------------------------------------------------------------------------


def read_answer(raw: RawAnswer) -> PlatformAnswer:
    """Return the answer as the platform's page defines it.

    Raises PlatformProtocolError, which says what is wrong and quotes none of it.
    """
    if raw.status != 200:
        raise PlatformProtocolError(f"the platform answered with HTTP status {raw.status}")
    try:
        fields = json.loads(raw.body)
    except (ValueError, RecursionError):
        raise PlatformProtocolError("the platform's answer is not JSON") from None
    if not isinstance(fields, dict):
        raise PlatformProtocolError("the platform's answer is not a JSON object")
    status = _text(fields, "returnStatus")
    if status not in ("0", "1"):
        raise PlatformProtocolError("the platform's answer has no returnStatus of 0 or 1")
    task_id = _text(fields, "taskId") or None
    if task_id is not None and (len(task_id) > TASK_ID_MAX_CHARS or CONTROL.search(task_id)):
        raise PlatformProtocolError("the platform's answer has a taskId that cannot be one")
    return PlatformAnswer(
        accepted=status == "1",
        message=CONTROL.sub(" ", _text(fields, "message"))[:_WORDS_MAX_CHARS],
        task_id=task_id,
        remain_point=_whole_number(fields, "remainPoint"),
        success_counts=_whole_number(fields, "successCounts"),
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


def _whole_number(fields: Mapping[str, Any], name: str) -> int | None:
    text = _text(fields, name)
    return int(text) if _NUMBER.fullmatch(text) else None
