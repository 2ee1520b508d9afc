"""Sends notifications to DingTalk, WeCom and Feishu robots, or to any URL.

All three robots answer 200 even for a refusal; the body has the error. Robot URLs are secrets: no error quotes them.
Sources: open.dingtalk.com, custom robot (自定义机器人, 加签); developer.work.weixin.qq.com, path 91770 (群机器人);
open.feishu.cn, custom bot (自定义机器人, 签名校验).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

from receiver.core import ReceiverError
from receiver.net.egress import fetch
from receiver.net.egress_policy import EgressError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

_PATIENCE_SECONDS = 10.0
_WORDS_MAX_CHARS = 200
_TEXT_MAX_BYTES = 2000  # WeCom takes 2,048
_SECRET_MIN_CHARS = 8  # a shorter text may be an ordinary word
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class NotificationError(ReceiverError):
    """A target did not accept a notification; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notifier:
    """A target of notifications."""

    kind: str  # of config.ALARM_KINDS
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)  # signs the requests; empty: unsigned

    @property
    def id(self) -> str:
        """Its id in the database; it does not reveal the URL."""
        return hashlib.sha256(f"{self.kind}:{self.url}".encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Its display name."""
        return f"{self.kind} at {urlsplit(self.url).hostname}"

    def __str__(self) -> str:
        """Return the display name, so that no log shows the URL."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """A notification: text for people, fields for programs."""

    text: str
    fields: Mapping[str, Any]


def post(target: Notifier, message: Notification, *, tls: ssl.SSLContext | None = None) -> str:
    """Send a notification within ten seconds and return the text of the answer. Raises NotificationError."""
    of_kind = _KINDS[target.kind]
    url, body = of_kind.request(target, message, int(time.time()))
    status, answer = _exchange("POST", url, json.dumps(body, ensure_ascii=False).encode(), tls)
    try:
        if not 200 <= status < 300:
            raise NotificationError(f"{target.name}: answered with HTTP status {status}")
        return _without_secrets(of_kind.read(answer), target) or f"HTTP {status}"
    except _RefusedError as refused:
        raise NotificationError(f"{target.name}: refused: {_without_secrets(str(refused), target)}") from None


def beat(url: str) -> None:
    """Request the heartbeat URL within ten seconds. Raises NotificationError."""
    status, _ = _exchange("GET", url, b"", None)
    if not 200 <= status < 300:
        raise NotificationError(f"{urlsplit(url).hostname}: answered with HTTP status {status}")


def _exchange(method: str, url: str, body: bytes, tls: ssl.SSLContext | None) -> tuple[int, bytes]:
    name, headers = urlsplit(url).hostname, {"Content-Type": "application/json", "User-Agent": "receiver"}
    try:
        answer = fetch(method, url, headers, body, seconds=_PATIENCE_SECONDS, tls=tls)
    except EgressError as error:
        raise NotificationError(f"{name}: cannot be reached: {error}") from None
    if not answer.whole:
        raise NotificationError(f"{name}: its answer does not end")
    return answer.status, answer.body


def _without_secrets(words: str, target: Notifier) -> str:
    """Return a target's text without the target's own secrets, which it may repeat."""
    parts = urlsplit(target.url)
    secrets = [target.url, target.secret, parts.query, parts.path, *(value for _, value in parse_qsl(parts.query))]
    secrets.append(parts.path.rpartition("/")[2])
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_MIN_CHARS:
            words = words.replace(secret, "***")
    return _UNPRINTABLE.sub(" ", words)[:_WORDS_MAX_CHARS]


# --- Request and answer of each kind ---------------------------------------------------------------------


class _RefusedError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Kind:
    request: Callable[[Notifier, Notification, int], tuple[str, Mapping[str, Any]]]  # URL and body, at that Unix time
    read: Callable[[bytes], str]  # the answer's words; raises _RefusedError


def _dingtalk(target: Notifier, message: Notification, now: int) -> tuple[str, Mapping[str, Any]]:
    url = target.url
    if target.secret:
        timestamp = f"{now * 1000}"
        sign = _hmac(target.secret, f"{timestamp}\n{target.secret}")
        url += f"{'&' if '?' in url else '?'}timestamp={timestamp}&sign={quote_plus(sign)}"
    return url, {"msgtype": "text", "text": {"content": _bounded(message.text)}}


def _wecom(target: Notifier, message: Notification, _now: int) -> tuple[str, Mapping[str, Any]]:
    return target.url, {"msgtype": "text", "text": {"content": _bounded(message.text)}}


def _feishu(target: Notifier, message: Notification, now: int) -> tuple[str, Mapping[str, Any]]:
    body: dict[str, Any] = {"msg_type": "text", "content": {"text": _bounded(message.text)}}
    if target.secret:
        # The signed text is empty: timestamp and secret are the key.
        body |= {"timestamp": f"{now}", "sign": _hmac(f"{now}\n{target.secret}", "")}
    return target.url, body


def _any(target: Notifier, message: Notification, _now: int) -> tuple[str, Mapping[str, Any]]:
    return target.url, {**message.fields, "text": message.text}


def _hmac(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def _bounded(text: str) -> str:
    return text.encode()[:_TEXT_MAX_BYTES].decode(errors="ignore")


def _read_code(code: str, words: str) -> Callable[[bytes], str]:
    """Return a reader of JSON answers in which `code` 0 means success."""

    def read(answer: bytes) -> str:
        try:
            fields = json.loads(answer)
            number, said = fields[code], str(fields.get(words) or "")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _RefusedError(f"an answer without {code}; is this the robot's address?") from None
        if number != 0:
            raise _RefusedError(f"{code} {number}, {said}")
        return said

    return read


def _read_nothing(_answer: bytes) -> str:
    return ""


_KINDS: Mapping[str, _Kind] = {
    "dingtalk": _Kind(_dingtalk, _read_code("errcode", "errmsg")),
    "wecom": _Kind(_wecom, _read_code("errcode", "errmsg")),
    "feishu": _Kind(_feishu, _read_code("code", "msg")),
    "url": _Kind(_any, _read_nothing),
}
