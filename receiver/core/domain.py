"""The words of this project as values: pushes, receipts, replies, messages, and how they add up.

Pure, standard library and `opt_out` only. Everything here is decided the same wherever it runs, so the database's own
expressions are tested against this module.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from receiver.core.opt_out import OptOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TASK_ID_MAX_CHARS = 64


class Kind(StrEnum):
    """What a push reports."""

    RECEIPT = "receipt"
    REPLY = "reply"


class Outcome(StrEnum):
    """What became of a push; the value of `X-Push-Outcome`."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    SPOOLED = "spooled"


class DeliveryStatus(IntEnum):
    """What the receipts say. Ordered: in the same second, the higher one decides."""

    PENDING = 0
    UNKNOWN = 1
    FAILED = 2
    DELIVERED = 3


class MessageStatus(StrEnum):
    """What a reader is told: the receipts, the send's own fate, and the time that has passed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NO_RECEIPT = "no_receipt"
    REFUSED = "refused"
    SENDING = "sending"
    OUTCOME_UNKNOWN = "outcome_unknown"


# How the platform's own words are read; what is not here is UNKNOWN, never an error.
VENDOR_STATUSES: Mapping[str, DeliveryStatus] = {
    "1": DeliveryStatus.DELIVERED,
    "0": DeliveryStatus.FAILED,
}


def delivery_status(vendor_status: str) -> DeliveryStatus:
    """Say what the platform's `status` means."""
    return VENDOR_STATUSES.get(vendor_status, DeliveryStatus.UNKNOWN)


def require_aware(moment: datetime) -> datetime:
    """Pass an aware time on as UTC. Raises ValueError for a naive one: nobody could say when it was."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return moment.astimezone(UTC)


def whole_milliseconds(moment: datetime) -> datetime:
    """Cut a time to the precision that we store and show."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso_seconds(moment: datetime) -> str:
    """Write a UTC time of the platform's: whole seconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def iso_milliseconds(moment: datetime) -> str:
    """Write a UTC time of ours or the sender's: milliseconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


# --- Telephone numbers ------------------------------------------------------------------------------


# --- Replies ----------------------------------------------------------------------------------------


# --- A push and what it says ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One delivery receipt (DLR)."""

    mobile: str  # digits, or digits and `*`
    task_id: str
    vendor_status: str  # as the platform sent it
    reported_at: datetime  # UTC, whole seconds
    extra: Mapping[str, str] = field(default_factory=dict)  # fields that the platform's page does not name

    @property
    def status(self) -> DeliveryStatus:
        """What the vendor's status means."""
        return delivery_status(self.vendor_status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One mobile-originated message (MO)."""

    mobile: str
    task_id: str | None  # None: the platform gave none; it belongs to no message
    content: str  # exactly as written, NUL included
    replied_at: datetime  # UTC, whole seconds
    opt_out: OptOut = OptOut.NO
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def content_sha256(self) -> bytes:
        """The content's digest, which stands for it in the key (an index entry has a size limit)."""
        return hashlib.sha256(self.content.encode()).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A push that says nothing we understand, and why."""

    error: str  # every fault as `field: reason`, joined by `; `; never a value


UNREAD = Unreadable(error="not read yet")


def reading_digest(account: str, reading: Receipt | Reply) -> bytes:
    """Return what stands for what a push of an account said: the same for every copy of one receipt or reply."""
    if isinstance(reading, Receipt):
        kind, at, said = Kind.RECEIPT, reading.reported_at, reading.vendor_status
    else:
        kind, at, said = Kind.REPLY, reading.replied_at, reading.content_sha256.hex()
    return key_digest((kind, account, reading.task_id or "", reading.mobile, at.isoformat(), said))


def key_digest(key: tuple[str, ...]) -> bytes:
    """Return the digest of kind, account, task id (empty: none), number, time, and status or content's SHA-256."""
    return hashlib.blake2b("\0".join(key).encode(), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """One request of the platform, byte for byte, under the id that commit, retry and replay know it by."""

    id: uuid.UUID  # UUIDv7
    account: str
    endpoint: Kind | None  # what the URL asked for; None: the combined one
    method: str
    query: bytes  # without `?`; never holds the secret, which is in the path
    body: bytes
    content_type: str | None
    remote_addr: str
    received_at: datetime  # UTC
    reading: Receipt | Reply | Unreadable
    flags: tuple[str, ...] = ()  # how the reading had to be helped, e.g. `gb18030`

    @property
    def outcome(self) -> Outcome:
        """Return whether it could be read."""
        return Outcome.QUARANTINED if isinstance(self.reading, Unreadable) else Outcome.ACCEPTED

    @property
    def error(self) -> str | None:
        """Why it could not be read."""
        return self.reading.error if isinstance(self.reading, Unreadable) else None

    @property
    def reading_digest(self) -> bytes | None:
        """What stands for what was read, None where nothing was."""
        return None if isinstance(self.reading, Unreadable) else reading_digest(self.account, self.reading)

    @property
    def kind(self) -> Kind | None:
        """What it turned out to be, else what its URL asked for."""
        match self.reading:
            case Receipt():
                return Kind.RECEIPT
            case Reply():
                return Kind.REPLY
            case Unreadable():
                return self.endpoint


def new_id() -> uuid.UUID:
    """Make a UUIDv7: 48 bits of milliseconds, 12 bits of their fraction, 62 random bits.

    Source: RFC 9562, sections 5.7 and 6.2 (method 3).
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random_bits = int.from_bytes(os.urandom(8)) >> 2
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits)


def first_id_of(moment: datetime) -> uuid.UUID:
    """Return the lowest UUIDv7 of a moment."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62)


# --- The state of a message -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageState:
    """What a set of receipts says of its message. The same for any order and any number of copies."""

    status: DeliveryStatus = DeliveryStatus.PENDING
    reported_at: datetime | None = None
    seen: int = 0  # one bit (1 << status) for each status that any receipt had

    @classmethod
    def of(cls, receipt: Receipt) -> MessageState:
        """The state of a message with this one receipt."""
        return cls(status=receipt.status, reported_at=receipt.reported_at, seen=1 << receipt.status)

    def merge(self, other: MessageState) -> MessageState:
        """Add what another set of receipts says: associative, commutative, idempotent."""
        latest = max(self, other, key=_decisiveness)
        return MessageState(status=latest.status, reported_at=latest.reported_at, seen=self.seen | other.seen)

    @property
    def conflicting(self) -> bool:
        """Return whether the platform has said both delivered and failed."""
        both = 1 << DeliveryStatus.DELIVERED | 1 << DeliveryStatus.FAILED
        return self.seen & both == both


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _decisiveness(state: MessageState) -> tuple[datetime, DeliveryStatus]:
    return state.reported_at or _LONG_AGO, state.status


def fold(receipts: Iterable[Receipt]) -> MessageState:
    """Reduce receipts to the state of their message."""
    state = MessageState()
    for receipt in receipts:
        state = state.merge(MessageState.of(receipt))
    return state


def latency_seconds(sent_at: datetime | None, reported_at: datetime | None) -> float | None:
    """Return the time from send to report in seconds, never below 0; None while either is unknown."""
    if sent_at is None or reported_at is None:
        return None
    return max(0.0, (reported_at - sent_at) / timedelta(seconds=1))


# --- What was sent ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SentMessage:
    """The record of one send, as the sender reports it. None: not said."""

    account: str
    mobile: str  # full, digits
    task_id: str | None  # None only for a refused send, which the platform gave none
    template_id: str | None = None
    reference: str | None = None  # the sender's own id
    sent_at: datetime | None = None  # UTC, whole milliseconds
    success_counts: int | None = None
    remain_point: int | None = None
    error_message: str | None = None  # why the platform refused; set: this send was refused

    @property
    def refused(self) -> bool:
        """Return whether the platform would not take it."""
        return self.task_id is None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this send from every other, in the order in which rows are locked."""
        if self.task_id is not None:
            return (self.task_id, self.mobile, self.account)
        sent_at = self.sent_at.isoformat() if self.sent_at else ""
        return ("", self.mobile, self.account, self.reference or "", sent_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class SendAttempt:
    """A request to send, as it is noted before it goes out. The code is no part of it."""

    id: uuid.UUID  # UUIDv7: what its result is told by, while there is no task id
    account: str
    mobile: str  # full, digits
    template_id: str | None
    reference: str | None
    sent_at: datetime  # UTC, whole milliseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class SendResult:
    """What became of an attempt.

    `state`: None, the platform took it; REFUSED, it would not, or was never reached; OUTCOME_UNKNOWN, the request
    may have arrived.
    """

    state: MessageStatus | None
    answered_at: datetime  # UTC
    task_id: str | None = None  # given exactly where it was taken
    success_counts: int | None = None
    remain_point: int | None = None
    error_message: str | None = None  # the platform's words, or ours where it said none


CLOCKS_APART = timedelta(minutes=5)  # of nodes, at most


def still_lasts(since: datetime, span: timedelta, now: datetime) -> bool:
    """Return whether a span that began then goes on.

    Begun in the future: by a clock that was ahead, and it counts as none.
    """
    return -CLOCKS_APART <= now - since < span


LOCAL_LIMIT = "local limit: "  # begins the words of a refusal of our own

# An attempt without a result for longer was cut off: its process died between the request and the record.
SENDING_MAX = timedelta(seconds=60)


# What a later record of the same send may add, and may not change.
RECORDED_FIELDS = (
    "template_id",
    "reference",
    "sent_at",
    "success_counts",
    "remain_point",
    "error_message",
)
