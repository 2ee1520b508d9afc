"""Rows that queries return, and their filters: plain values, one class for each kind of row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver.core import (
    UNREAD,
    Kind,
    MessageStatus,
    Push,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The moment that a query speaks of, and what counts as late at that moment."""

    now: datetime
    late_after: timedelta
    no_receipt_after: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageRow:
    """A message as readers know it."""

    id: int
    account: str
    task_id: str | None
    mobile: str
    template_id: str | None
    reference: str | None
    sent_at: datetime | None
    recorded_at: datetime | None
    status: MessageStatus
    late: bool
    reported_at: datetime | None
    latency_seconds: float | None
    matched: bool
    conflicting: bool
    error_message: str | None
    receipt_count: int
    reply_count: int
    verified_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptRow:
    """A receipt as readers know it."""

    id: int
    message_id: int | None
    account: str
    task_id: str
    mobile: str
    status: str
    vendor_status: str
    reported_at: datetime
    received_at: datetime
    last_seen_at: datetime
    copies: int
    extra: Mapping[str, str]
    push_id: UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyRow:
    """A reply as readers know it."""

    id: int
    message_id: int | None
    account: str
    task_id: str | None
    mobile: str
    content: str  # NUL shown as ␀
    opt_out: bool
    opt_out_review: bool
    replied_at: datetime
    received_at: datetime
    last_seen_at: datetime
    copies: int
    extra: Mapping[str, str]
    push_id: UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class PushRow:
    """A push in the journal."""

    id: UUID
    account: str
    endpoint: str | None
    kind: str | None
    outcome: str
    error: str | None
    flags: Sequence[str]
    method: str
    query: bytes
    body: bytes
    received_at: datetime
    remote_addr: str
    content_type: str | None

    def as_push(self) -> Push:
        """The push as it came, unread."""
        return Push(
            id=self.id,
            account=self.account,
            endpoint=Kind(self.endpoint) if self.endpoint else None,
            method=self.method,
            query=self.query,
            body=self.body,
            content_type=self.content_type,
            remote_addr=self.remote_addr,
            received_at=self.received_at,
            reading=UNREAD,
            flags=tuple(self.flags),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """The filter of a page. None: not filtered by that field; a list ignores fields that do not apply to it."""

    accounts: tuple[str, ...] | None = None
    mobile: str | None = None
    task_id: str | None = None
    status: str | None = None
    late: bool | None = None
    template_id: str | None = None
    reference: str | None = None
    sent_from: datetime | None = None
    sent_to: datetime | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    matched: bool | None = None
    conflicting: bool | None = None
    q: str | None = None
    opt_out: bool | None = None
    opt_out_review: bool | None = None
    outcome: str | None = None
    after_id: int | None = None  # exports: rows above it
    to_id: int | None = None  # and up to it


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Where a page begins: below `before` (newest first), at most `limit` rows."""

    limit: int
    before: Any = None
    filter: Filter = field(default_factory=Filter)
