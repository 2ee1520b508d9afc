"""Values of the domain: pushes, receipts, replies, messages and their states.

Pure; imports the standard library and `opt_out` only. The database has expressions for the same rules; tests compare
them with this module.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
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
TEXT_MAX_CHARS = 255  # of a text that a caller gives
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # PostgreSQL rejects NUL; the others have no use


class Kind(StrEnum):
    """The kind of a push."""

    RECEIPT = "receipt"
    REPLY = "reply"


class Outcome(StrEnum):
    """The outcome of a push; the value of `X-Push-Outcome`. The reference shows the texts below the values."""

    ACCEPTED = "accepted"
    """Parsed and committed to the database."""
    QUARANTINED = "quarantined"
    """Cannot be parsed; stored as it came, to be replayed."""
    SPOOLED = "spooled"
    """The database was unavailable; stored on the local disk until it is back. Never in the journal."""


class DeliveryStatus(IntEnum):
    """The status by the receipts. Ordered: in the same second the higher one decides."""

    PENDING = 0
    UNKNOWN = 1
    """Any other value of the platform."""
    FAILED = 2
    """`0`: the message did not arrive."""
    DELIVERED = 3
    """`1`: the message arrived."""


class MessageStatus(StrEnum):
    """The status that readers see: from the receipts, the outcome of the send, and the message's age."""

    PENDING = "pending"
    """No receipt yet."""
    DELIVERED = "delivered"
    """The deciding receipt reports it as delivered."""
    FAILED = "failed"
    """The deciding receipt reports it as failed."""
    UNKNOWN = "unknown"
    """The deciding receipt has a status that the platform does not document."""
    NO_RECEIPT = "no_receipt"
    """No receipt for longer than `RECEIVER_NO_RECEIPT_AFTER_HOURS`. A receipt that arrives later still decides."""
    REFUSED = "refused"
    """Not sent. `error_message` has the platform's reason, or `not sent: …` or `local limit: …` without a request."""
    SENDING = "sending"
    """The request to the platform is under way."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """Possibly sent: the platform's answer is missing or unreadable, or the process ended before it came."""


# The platform's status values; any other is UNKNOWN, never an error.
VENDOR_STATUSES: Mapping[str, DeliveryStatus] = {
    "1": DeliveryStatus.DELIVERED,
    "0": DeliveryStatus.FAILED,
}


def delivery_status(vendor_status: str) -> DeliveryStatus:
    """Return the meaning of the platform's `status`."""
    return VENDOR_STATUSES.get(vendor_status, DeliveryStatus.UNKNOWN)


def require_aware(moment: datetime) -> datetime:
    """Return an aware time in UTC. Raises ValueError for a naive one, which is ambiguous."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return moment.astimezone(UTC)


def whole_milliseconds(moment: datetime) -> datetime:
    """Return a time cut to milliseconds, the precision that we store and show."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso_seconds(moment: datetime) -> str:
    """Return a UTC time of the platform as ISO 8601, in whole seconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def iso_milliseconds(moment: datetime) -> str:
    """Return a UTC time of ours or the sender's as ISO 8601, with milliseconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


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
        """Return the meaning of the vendor's status."""
        return delivery_status(self.vendor_status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One mobile-originated message (MO)."""

    mobile: str
    task_id: str | None  # None: the platform sent none; the reply belongs to no message
    content: str  # exactly as written, NUL included
    replied_at: datetime  # UTC, whole seconds
    opt_out: OptOut = OptOut.NO
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def content_sha256(self) -> bytes:
        """Return the content's digest, which replaces it in the key: index entries have a size limit."""
        return hashlib.sha256(self.content.encode()).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A push that could not be parsed, and why."""

    error: str  # every fault as `field: reason`, joined by `; `; never a value


UNREAD = Unreadable(error="not read yet")


def reading_digest(account: str, reading: Receipt | Reply) -> bytes:
    """Return the digest of a push's reading: the same for every copy of one receipt or reply."""
    if isinstance(reading, Receipt):
        kind, at, said = Kind.RECEIPT, reading.reported_at, reading.vendor_status
    else:
        kind, at, said = Kind.REPLY, reading.replied_at, reading.content_sha256.hex()
    return key_digest((kind, account, reading.task_id or "", reading.mobile, at.isoformat(), said))


def key_digest(key: tuple[str, ...]) -> bytes:
    """Return the digest of kind, account, task id (may be empty), number, time, and status or content's SHA-256."""
    return hashlib.blake2b("\0".join(key).encode(), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """One request of the platform, byte for byte.

    Its id identifies it in commits, retries and replays.
    """

    id: uuid.UUID  # UUIDv7
    account: str
    endpoint: Kind | None  # kind by the URL; None: the combined URL
    method: str
    query: bytes  # without `?`; never holds the secret, which is in the path
    body: bytes
    content_type: str | None
    remote_addr: str
    received_at: datetime  # UTC
    reading: Receipt | Reply | Unreadable
    flags: tuple[str, ...] = ()  # corrections that parsing needed, e.g. `gb18030`

    @property
    def outcome(self) -> Outcome:
        """Return whether the push was accepted or quarantined."""
        return Outcome.QUARANTINED if isinstance(self.reading, Unreadable) else Outcome.ACCEPTED

    @property
    def error(self) -> str | None:
        """Return why the push could not be parsed; None: it was parsed."""
        return self.reading.error if isinstance(self.reading, Unreadable) else None

    @property
    def reading_digest(self) -> bytes | None:
        """Return the digest of what was parsed; None: nothing was."""
        return None if isinstance(self.reading, Unreadable) else reading_digest(self.account, self.reading)

    @property
    def kind(self) -> Kind | None:
        """Return the kind that was parsed, else the kind by the URL."""
        match self.reading:
            case Receipt():
                return Kind.RECEIPT
            case Reply():
                return Kind.REPLY
            case Unreadable():
                return self.endpoint


_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)  # else two processes would draw the same


def new_id() -> uuid.UUID:
    """Return a new UUIDv7: 48 bits of milliseconds, 12 bits of their fraction, 62 random bits.

    Source: RFC 9562, sections 5.7 and 6.2 (method 3).
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    # Unique, not secret. The constructor would check what is right by construction.
    random_bits = _random.getrandbits(62)
    made = object.__new__(uuid.UUID)
    object.__setattr__(made, "int", milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits)
    object.__setattr__(made, "is_safe", uuid.SafeUUID.unknown)
    return made


def first_id_of(moment: datetime) -> uuid.UUID:
    """Return the lowest UUIDv7 of a moment."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62)


# --- The state of a message -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageState:
    """The state of a message by its receipts: the same for any order and any number of copies."""

    status: DeliveryStatus = DeliveryStatus.PENDING
    reported_at: datetime | None = None
    seen: int = 0  # one bit (1 << status) for each status that any receipt had

    @classmethod
    def of(cls, receipt: Receipt) -> MessageState:
        """The state of a message with this one receipt."""
        return cls(status=receipt.status, reported_at=receipt.reported_at, seen=1 << receipt.status)

    def merge(self, other: MessageState) -> MessageState:
        """Return the state with another set of receipts added: associative, commutative, idempotent."""
        latest = max(self, other, key=_decisiveness)
        return MessageState(status=latest.status, reported_at=latest.reported_at, seen=self.seen | other.seen)

    @property
    def conflicting(self) -> bool:
        """Return whether the platform reported both delivered and failed."""
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
    """Return the seconds from send to report, never below 0; None while either is unknown."""
    if sent_at is None or reported_at is None:
        return None
    return max(0.0, (reported_at - sent_at) / timedelta(seconds=1))


# --- What was sent ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SentMessage:
    """The record of one send, as the sender reports it. None: not given."""

    account: str
    mobile: str  # full, digits
    task_id: str | None  # None only for a refused send: the platform assigned none
    template_id: str | None = None
    reference: str | None = None  # the sender's own id
    sent_at: datetime | None = None  # UTC, whole milliseconds
    success_counts: int | None = None
    remain_point: int | None = None
    error_message: str | None = None  # why the platform refused; set: this send was refused

    @property
    def refused(self) -> bool:
        """Return whether the platform refused the send."""
        return self.task_id is None

    @property
    def key(self) -> tuple[str, ...]:
        """Return the identity of the send, in the order in which rows are locked."""
        if self.task_id is not None:
            return (self.task_id, self.mobile, self.account)
        sent_at = self.sent_at.isoformat() if self.sent_at else ""
        return ("", self.mobile, self.account, self.reference or "", sent_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class SendAttempt:
    """A request to send, recorded before it goes out. Never holds the code."""

    id: uuid.UUID  # UUIDv7; identifies the result until there is a task id
    account: str
    mobile: str  # full, digits
    template_id: str | None
    reference: str | None
    sent_at: datetime  # UTC, whole milliseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class SendResult:
    """The result of an attempt.

    `state` None: the platform accepted it. REFUSED: it was refused, or never reached the platform. OUTCOME_UNKNOWN: the
    request may have arrived.
    """

    state: MessageStatus | None
    answered_at: datetime  # UTC
    task_id: str | None = None  # given exactly where it was taken
    success_counts: int | None = None
    remain_point: int | None = None
    error_message: str | None = None  # the platform's message, or ours if it sent none


CLOCKS_APART = timedelta(minutes=5)  # of nodes, at most


def still_lasts(since: datetime, span: timedelta, now: datetime) -> bool:
    """Return whether a span that began then still lasts.

    A start in the future came from a clock that was ahead; such a span does not last.
    """
    return -CLOCKS_APART <= now - since < span


class OwnRefusal(StrEnum):
    """Why a refused send never reached the platform: the code in front of its stored message."""

    NOT_SENT = "not sent"
    LOCAL_LIMIT = "local limit"

    def write(self, words: str) -> str:
        """Return the message to store."""
        return f"{self}: {words}"


def read_refusal(message: str) -> tuple[OwnRefusal | None, str]:
    """Return the code and the words of a refused send's message; without a code they are the platform's."""
    code, colon, words = message.partition(": ")
    for own in OwnRefusal:
        if colon and own == code:
            return own, words
    return None, message


# An attempt without a result for longer was cut off: its process died between the request and the record.
SENDING_MAX = timedelta(seconds=60)


# Fields that a later record of the same send may fill in but not change.
RECORDED_FIELDS = (
    "template_id",
    "reference",
    "sent_at",
    "success_counts",
    "remain_point",
    "error_message",
)
