"""Rows that queries return, and their filters: plain values, one class for each kind of row.

What is annotated with a `Field` is shown outside. Annotations are evaluated here, so that `fields_of` can read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from receiver.core import (
    UNREAD,
    DeliveryStatus,
    Kind,
    MessageStatus,
    Push,
    delivery_status,
    latency_seconds,
)
from receiver.messages.fields import Field, FieldType

MESSAGE_STATUSES = [status.value for status in MessageStatus]
RECEIPT_STATUSES = [
    status.name.lower() for status in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.UNKNOWN)
]

# Fields that rows share.
_Id = Annotated[int, Field(FieldType.ID, "In the order in which the receiver first saw them.")]
_MessageId = Annotated[int | None, Field(FieldType.ID, "The message that it belongs to. Null: none is known.")]
_Account = Annotated[str, Field(FieldType.WORD, "The account of the platform.", repeats=True)]
_TaskId = "The platform's id of the send."
_Mobile = Annotated[
    str, Field(FieldType.WORD, "The phone number, masked where the full one may not be read: `150****1090`.")
]
_Copies = Annotated[int, Field(FieldType.COUNT, "How many times it was pushed.")]
_ABOUT_PRUNED = "Those that are pruned no longer count, without a new `updated_at`."
_Extra = Annotated[
    Mapping[str, str], Field(FieldType.TEXTS, "Fields that the platform does not document.", repeats=True)
]
_PushId = Annotated[UUID, Field(FieldType.UUID, "The push that first contained it.")]
_ReceivedAt = Annotated[datetime, Field(FieldType.OUR_TIME, "When the receiver first got it.")]
_LastSeenAt = Annotated[datetime, Field(FieldType.OUR_TIME, "When the receiver last got it.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageRow:
    """A message as readers know it."""

    id: _Id
    account: _Account
    task_id: Annotated[
        str | None, Field(FieldType.TEXT, f"{_TaskId} Null: the platform refused it.", written_by_people=True)
    ]
    mobile: _Mobile
    template_id: Annotated[
        str | None, Field(FieldType.TEXT, "The template that was sent.", written_by_people=True, repeats=True)
    ]
    reference: Annotated[str | None, Field(FieldType.TEXT, "The sender's own id.", written_by_people=True)]
    sent_at: Annotated[datetime | None, Field(FieldType.OUR_TIME, "When it was sent, as the sender reported.")]
    recorded_at: Annotated[
        datetime | None, Field(FieldType.OUR_TIME, "When the send was recorded here. Null: unmatched.")
    ]
    counted_at: Annotated[
        datetime | None,
        Field(
            FieldType.OUR_TIME,
            "The time that filters and reports go by: `sent_at`, else `recorded_at`. In SQL, the column to filter by:"
            " on PostgreSQL it has an index.",
        ),
    ]
    status: Annotated[
        MessageStatus,
        Field(
            FieldType.WORD,
            "What its receipts say at present; `no_receipt`: pending for over RECEIVER_NO_RECEIPT_AFTER_HOURS.",
            choices=MESSAGE_STATUSES,
            repeats=True,
        ),
    ]
    late: Annotated[bool, Field(FieldType.BOOLEAN, "Pending for over RECEIVER_LATE_AFTER_SECONDS.")]
    reported_at: Annotated[
        datetime | None, Field(FieldType.PLATFORM_TIME, "The platform's time of the receipt that decides.")
    ]
    latency_seconds: Annotated[
        float | None, Field(FieldType.NUMBER, "From `sent_at` to `reported_at`, in seconds, never below 0.")
    ]
    matched: Annotated[bool, Field(FieldType.BOOLEAN, "The send is recorded here.")]
    conflicting: Annotated[bool, Field(FieldType.BOOLEAN, "Both delivered and failed were reported.")]
    error_message: Annotated[
        str | None,
        Field(FieldType.TEXT, "Why the platform refused the send.", written_by_people=True, repeats=True),
    ]
    receipt_count: Annotated[int, Field(FieldType.COUNT, f"How many different receipts it has. {_ABOUT_PRUNED}")]
    reply_count: Annotated[int, Field(FieldType.COUNT, f"How many different replies it has. {_ABOUT_PRUNED}")]
    verified_at: Annotated[
        datetime | None, Field(FieldType.OUR_TIME, "When its code was first used, as the sender reported.")
    ]
    updated_at: Annotated[
        datetime,
        Field(
            FieldType.OUR_TIME,
            "When it last changed, or got a receipt or reply; for a moment after that, an earlier time; 2000 for what"
            " has not changed since before there was such a time. Whoever reads with `updated_from`, from 1970-01-01"
            " at first and then from the highest one, misses no change. In SQL, 1970 for that moment; on"
            " PostgreSQL it has an index.",
        ),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptRow:
    """A receipt as readers know it."""

    id: _Id
    message_id: _MessageId
    account: _Account
    task_id: Annotated[str, Field(FieldType.TEXT, _TaskId, written_by_people=True)]
    mobile: _Mobile
    status: Annotated[
        str,
        Field(FieldType.WORD, "What `vendor_status` means.", choices=RECEIPT_STATUSES, repeats=True),
    ]
    vendor_status: Annotated[
        str,
        Field(FieldType.TEXT, "The platform's value: 1 delivered, 0 failed.", written_by_people=True, repeats=True),
    ]
    reported_at: Annotated[datetime, Field(FieldType.PLATFORM_TIME, "The platform's time of the report.")]
    received_at: _ReceivedAt
    last_seen_at: _LastSeenAt
    copies: _Copies
    extra: _Extra
    push_id: _PushId


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyRow:
    """A reply as readers know it."""

    id: _Id
    message_id: _MessageId
    account: _Account
    task_id: Annotated[
        str | None,
        Field(
            FieldType.TEXT,
            "Null if the platform sent none; then there is no message either.",
            written_by_people=True,
        ),
    ]
    mobile: _Mobile
    content: Annotated[str, Field(FieldType.TEXT, "The text as received; NUL is shown as ␀.", written_by_people=True)]
    opt_out: Annotated[bool, Field(FieldType.BOOLEAN, "The reply equals one of `RECEIVER_OPT_OUT_WORDS`.")]
    opt_out_review: Annotated[
        bool,
        Field(
            FieldType.BOOLEAN,
            "The reply contains one of these words or of `RECEIVER_OPT_OUT_PHRASES`, or is similar to one.",
        ),
    ]
    replied_at: Annotated[datetime, Field(FieldType.PLATFORM_TIME, "The platform's time of the reply.")]
    received_at: _ReceivedAt
    last_seen_at: _LastSeenAt
    copies: _Copies
    extra: _Extra
    push_id: _PushId


@dataclass(frozen=True, slots=True)
class TailRow:
    """A push, and what was read in it, for who watches them come."""

    id: UUID
    account: str
    kind: str | None
    outcome: str
    error: str | None
    received_at: datetime
    task_id: str | None
    mobile: str | None
    vendor_status: str | None  # None: no receipt
    event_at: datetime | None  # the platform's time
    opt_out: bool | None
    sent_at: datetime | None  # of its message; None: not recorded

    @property
    def status(self) -> str | None:
        """The state that the receipt reports; None: it is none."""
        return None if self.vendor_status is None else delivery_status(self.vendor_status).name.lower()

    @property
    def after_seconds(self) -> float | None:
        """The seconds from the send to the platform's time; None: a time is not known."""
        return latency_seconds(self.sent_at, self.event_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptOutRow:
    """A number that has opted out, or may have."""

    id: Annotated[int, Field(FieldType.ID, "Of the newest reply that says so.")]
    message_id: int | None  # that the newest reply belongs to
    account: Annotated[str, Field(FieldType.WORD, "The account of the newest reply.")]
    mobile: Annotated[str, Field(FieldType.WORD, "The phone number.")]
    first_at: Annotated[datetime, Field(FieldType.PLATFORM_TIME, "When it was said first.")]
    last_at: Annotated[datetime, Field(FieldType.PLATFORM_TIME, "When it was said last.")]
    times: Annotated[int, Field(FieldType.COUNT, "How many replies say so.")]
    content: Annotated[str, Field(FieldType.TEXT, "The newest reply.", written_by_people=True)]
    template_id: Annotated[
        str | None, Field(FieldType.TEXT, "The template that it answers, if known.", written_by_people=True)
    ]


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
    mobiles: tuple[str, ...] | None = None  # the console's: any of these
    task_id: str | None = None
    status: str | None = None
    late: bool | None = None
    template_id: str | None = None
    reference: str | None = None
    sent_from: datetime | None = None
    sent_to: datetime | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    matched: bool | None = None
    conflicting: bool | None = None
    q: str | None = None
    opt_out: bool | None = None
    opt_out_review: bool | None = None
    outcome: str | None = None
    error: str | None = None  # the console's: why a push could not be parsed
    after_id: int | None = None  # exports: rows above it
    to_id: int | None = None  # and up to it
    stamped_upto: datetime | None = None  # where changes are asked for: those that were there when the reading began

    @property
    def of_changes(self) -> bool:
        """Return whether it asks for what has changed at some time."""
        return self.updated_from is not None or self.updated_to is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Where a page begins: below the key `before`, newest first; behind it, a stamp and an id, where changes are asked
    for. At most `limit` rows.
    """

    limit: int
    before: Any = None
    filter: Filter = field(default_factory=Filter)
