"""Payloads of webhooks: the platform's original request, or a signed event.

Sources: Standard Webhooks (github.com/standard-webhooks, spec, 1.0.0); `data` has the shapes of the API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from receiver import __version__
from receiver.core import iso_milliseconds
from receiver.messages.fields import as_json, without_numbers
from receiver.messages.queries import MessageRow
from receiver.net.egress import encode_headers
from receiver.webhooks.deliveries import PUSH_EVENT, DeliveryClaim, QueuedDelivery, message_of
from receiver.webhooks.endpoints import SECRET_PREFIX, Endpoint, EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from receiver.messages.queries import ReceiptRow, ReplyRow
    from receiver.net.egress_client import EgressClient, EgressResponse
    from receiver.net.egress_policy import TargetUrl

EXCHANGE_SECONDS = 15.0
TEST_EVENT = "receiver.test"
_AGENT = f"receiver/{__version__}"
_HIDDEN = "***"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request to an endpoint."""

    method: str
    line: bytes  # path and query
    headers: Mapping[str, str]
    body: bytes

    def send(self, client: EgressClient) -> EgressResponse:
        """Send it within EXCHANGE_SECONDS and return the answer. Raises EgressError or EgressForbidden."""
        headers = encode_headers(self.headers)
        return client.send(self.method, self.line, headers, self.body, seconds=EXCHANGE_SECONDS)


def render(claim: DeliveryClaim, delivery: QueuedDelivery, place: TargetUrl, *, at: datetime) -> Request | None:
    """Return the request of a delivery. None: its subject is no longer stored."""
    if delivery.event == PUSH_EVENT:
        push = claim.pushes.get(delivery.push_id) if delivery.push_id else None
        if push is None:
            return None
        headers = {"User-Agent": _AGENT, "X-Push-Id": str(push.id)}
        if push.content_type is not None:
            headers["Content-Type"] = push.content_type
        line = place.line(push.query)
        return Request(method=push.method, line=line, headers={**claim.target.headers, **headers}, body=push.body)
    row = _row(claim, delivery)
    if row is None:
        return None
    # A delivery that was made again is younger than what it is about.
    happened_at = delivery.created_at if isinstance(row, MessageRow) else row.received_at
    data = data_of(row, in_full=claim.target.pii)
    body = {"type": delivery.event, "timestamp": iso_milliseconds(happened_at), "data": data}
    return _signed(claim.target, place, f"msg_{delivery.event_id.hex}", body, at)


def render_test(target: Endpoint, place: TargetUrl, *, test_id: str, at: datetime) -> Request:
    """Return a test request."""
    if not target.signing_secrets:
        headers = {"User-Agent": _AGENT, "X-Push-Id": test_id, "X-Receiver-Test": "1"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return Request(method="POST", line=place.line(), headers={**target.headers, **headers}, body=b"test=1")
    body = {"type": TEST_EVENT, "timestamp": iso_milliseconds(at), "data": {"webhook": target.name}}
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
    return Request(method="POST", line=place.line(), headers={**target.headers, **headers}, body=text)


def sign(secrets: Sequence[str], event_id: str, timestamp: str, body: bytes) -> str:
    """Return the signatures of a request, one per secret."""
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    keys = [base64.b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in secrets]
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _row(claim: DeliveryClaim, delivery: QueuedDelivery) -> MessageRow | ReceiptRow | ReplyRow | None:
    if delivery.event == EventType.RECEIPT_RECEIVED:
        return claim.receipts.get(delivery.receipt_id or 0)
    if delivery.event == EventType.REPLY_RECEIVED:
        return claim.replies.get(delivery.reply_id or 0)
    return claim.messages.get(message_of(delivery, claim.receipts) or 0)


def data_of(row: MessageRow | ReceiptRow | ReplyRow, *, in_full: bool) -> dict[str, Any]:
    """Return a row as the API shows it; unless `in_full`, numbers are masked and contents hidden."""
    if in_full:
        return as_json(row)
    data = as_json(without_numbers(row))
    if "content" in data:
        data["content"] = _HIDDEN
    return data
