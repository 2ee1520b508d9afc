"""Payloads of webhooks: the platform's original request, or a signed event.

Sources: Standard Webhooks (github.com/standard-webhooks, spec, 1.0.0); `data` has the shapes of the API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from receiver import __version__
from receiver.core import iso_milliseconds, iso_seconds, mask_mobile
from receiver.webhooks.deliveries import PUSH_EVENT, DeliveryClaim, QueuedDelivery, message_of
from receiver.webhooks.endpoints import SECRET_PREFIX, Endpoint, EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from receiver.messages.queries import MessageRow, ReceiptRow, ReplyRow
    from receiver.net.egress import TargetUrl

TEST_EVENT = "receiver.test"
_AGENT = f"receiver/{__version__}"
_NUMBER_INSIDE = re.compile(r"(?<![0-9])(?:86|0086)?1[0-9]{10}(?![0-9])")
_HIDDEN = "***"
_IDS = frozenset({"id", "message_id", "push_id"})
_PLATFORM_TIMES = frozenset({"reported_at", "replied_at"})  # in whole seconds
_OUR_TIMES = frozenset({"received_at", "last_seen_at", "sent_at", "recorded_at"})
_NOT_SHOWN = frozenset({"verified_at"})  # not part of the API's message


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request to an endpoint."""

    method: str
    line: bytes  # path and query
    headers: Mapping[str, str]
    body: bytes


def render(claim: DeliveryClaim, delivery: QueuedDelivery, place: TargetUrl, *, at: datetime) -> Request | None:
    """Return the request of a delivery. None: its subject is no longer stored."""
    if delivery.event == PUSH_EVENT:
        push = claim.pushes.get(delivery.push_id) if delivery.push_id else None
        if push is None:
            return None
        headers = {"User-Agent": _AGENT, "X-Push-Id": str(push.id)}
        if push.content_type is not None:
            headers["Content-Type"] = push.content_type
        return Request(method=push.method, line=place.line(push.query), headers=headers, body=push.body)
    data = _data(claim, delivery)
    if data is None:
        return None
    body = {"type": delivery.event, "timestamp": iso_milliseconds(delivery.created_at), "data": data}
    return _signed(claim.target, place, f"msg_{delivery.event_id.hex}", body, at)


def render_test(target: Endpoint, place: TargetUrl, *, test_id: str, at: datetime) -> Request:
    """Return a test request."""
    if not target.signing_secrets:
        headers = {"User-Agent": _AGENT, "X-Push-Id": test_id, "X-Receiver-Test": "1"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return Request(method="POST", line=place.line(), headers=headers, body=b"test=1")
    body = {"type": TEST_EVENT, "timestamp": iso_milliseconds(at), "data": {"target": target.name}}
    return _signed(target, place, f"msg_{test_id}", body, at)


def _signed(target: Endpoint, place: TargetUrl, event_id: str, body: Mapping[str, Any], at: datetime) -> Request:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    timestamp = str(int(at.timestamp()))
    headers = {
        "User-Agent": _AGENT,
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(target.signing_secrets, event_id, timestamp, text),
    }
    return Request(method="POST", line=place.line(), headers=headers, body=text)


def sign(secrets: Sequence[str], event_id: str, timestamp: str, body: bytes) -> str:
    """Return the signatures of a request, one per secret."""
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    keys = [base64.b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in secrets]
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _data(claim: DeliveryClaim, delivery: QueuedDelivery) -> dict[str, Any] | None:
    row: MessageRow | ReceiptRow | ReplyRow | None
    if delivery.event == EventType.RECEIPT_RECEIVED:
        row = claim.receipts.get(delivery.receipt_id or 0)
    elif delivery.event == EventType.REPLY_RECEIVED:
        row = claim.replies.get(delivery.reply_id or 0)
    else:
        row = claim.messages.get(message_of(delivery, claim.receipts) or 0)
    return None if row is None else data_of(row, in_full=claim.target.pii)


def data_of(row: MessageRow | ReceiptRow | ReplyRow, *, in_full: bool) -> dict[str, Any]:
    """Return a row as the API shows it; unless `in_full`, numbers are masked and contents hidden."""
    data = {name: _plain(name, value) for name, value in asdict(row).items() if name not in _NOT_SHOWN}
    if in_full:
        return data
    data["mobile"] = mask_mobile(data["mobile"])
    if "extra" in data:
        data["extra"] = {_without_numbers(name): _without_numbers(text) for name, text in data["extra"].items()}
    if "content" in data:
        data["content"] = _HIDDEN
    return data


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _IDS:
        return str(value)
    if name in _PLATFORM_TIMES:
        return iso_seconds(value)
    if name in _OUR_TIMES:
        return iso_milliseconds(value)
    return value


def _without_numbers(text: str) -> str:
    return _NUMBER_INSIDE.sub(lambda match: mask_mobile(match[0]), text)
