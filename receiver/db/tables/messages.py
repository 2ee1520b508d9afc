"""The journal, messages, receipts, replies, and attempts to send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from receiver.db.encryption import ContentDigest, EncryptedBytes, EncryptedJson, EncryptedText, Mobile, MobileEnd
from receiver.db.sql import function
from receiver.db.tables.base import Json, RowId, UtcDateTime, index, table

# The journal: every acknowledged push, byte for byte, and what was read in it. The source of all that follows.
pushes = table(
    "pushes",
    sa.Column("id", sa.Uuid, primary_key=True),  # UUIDv7, made before durability: the idempotency key
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text),  # kind by the URL; null: the combined URL
    sa.Column("kind", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("flags", Json),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("query", EncryptedBytes("pushes.query"), nullable=False),
    sa.Column("body", EncryptedBytes("pushes.body"), nullable=False),
    sa.Column("content_type", sa.Text),
    sa.Column("remote_addr", sa.Text, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("replayed_at", UtcDateTime),  # first read by a replay, which changes no `copies`
    # What was read, as a digest (`domain.reading_digest`): it stands, whatever later rules would read. Null: nothing
    # was, or the row is older than this column.
    sa.Column("digest", EncryptedBytes("pushes.reading_digest")),
    # The order in which pushes were appended. On PostgreSQL by a sequence of its own. Null: by an older version, which
    # projected each at once.
    sa.Column("sequence", sa.BigInteger),
    # What was read, as the projection copies it; see `receipts` and `replies`, for which values are encrypted.
    sa.Column("task_id", sa.Text),
    sa.Column("mobile", Mobile),  # full or masked; null: nothing was read
    sa.Column("event_at", UtcDateTime),  # `reported_at` or `replied_at`
    sa.Column("vendor_status", sa.Text),  # of a receipt; null: a reply
    sa.Column("receipt_extra", EncryptedJson("receipts.extra")),
    sa.Column("reply_extra", EncryptedJson("replies.extra")),
    sa.Column("content", sa.Text),
    sa.Column("content_exact", sa.LargeBinary),
    sa.Column("content_sha256", ContentDigest),
    sa.Column("content_sealed", EncryptedBytes("replies.content")),
    sa.Column("content_grams", sa.Text),
    sa.Column("opt_out", sa.Boolean(create_constraint=False)),
    sa.Column("opt_out_review", sa.Boolean(create_constraint=False)),
)
sa.Index("uq_pushes_sequence", pushes.c.sequence, unique=True)  # what the projection has not read yet
# GET /pushes?outcome=quarantined: few among very many.
index(
    "ix_pushes_quarantined",
    pushes.c.id,
    where=pushes.c.outcome == "quarantined",
)

# Stands for the time of a change that the projection has not stamped yet (`messages.stamps`).
UNSTAMPED = datetime(1970, 1, 1, tzinfo=UTC)

# One row per (account, task_id, mobile), created by the record of the send or by its first push.
messages = table(
    "messages",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text),  # null: the platform assigned none (refused)
    sa.Column("mobile", Mobile, nullable=False),
    # The fold of its receipts, see domain.MessageState.
    sa.Column("status", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("reported_at", UtcDateTime),
    sa.Column("seen", sa.SmallInteger, nullable=False, server_default="0"),
    # As the sender reported; recorded_at null: the send is not recorded (unmatched).
    sa.Column("recorded_at", UtcDateTime),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("template_id", sa.Text),
    sa.Column("reference", sa.Text),
    sa.Column("success_counts", sa.Integer),
    sa.Column("remain_point", sa.Integer),
    sa.Column("send_state", sa.Text),  # null: the platform accepted it; else a MessageStatus that no receipt can set
    sa.Column("error_message", sa.Text),
    sa.Column("verified_at", UtcDateTime),  # when its code was first used, as the sender reported
    # When it last changed, or got a receipt or reply: stamps are committed in their order.
    sa.Column("updated_at", UtcDateTime, nullable=False, server_default="1970-01-01 00:00:00+00"),
)
sa.Index("ix_messages_updated_at", messages.c.updated_at, messages.c.id)  # what has changed since, and is unstamped
# The identity, and look-ups by task id: hence that order.
sa.Index("uq_messages_key", messages.c.task_id, messages.c.mobile, messages.c.account, unique=True)
# A refused send has no task id to identify it.
REFUSED_KEY_WHERE = messages.c.task_id.is_(None)
index(
    "uq_messages_refused",
    messages.c.mobile,
    messages.c.reference,
    messages.c.sent_at,
    messages.c.account,
    unique=True,
    where=REFUSED_KEY_WHERE,
)
sa.Index("ix_messages_mobile", messages.c.mobile, messages.c.id)  # look-ups by number, newest first
index(
    "ix_messages_reference",
    messages.c.reference,
    messages.c.id,
    where=messages.c.reference.isnot(None),
)  # look-ups by the sender's own id
# Look-ups by the last digits of a number. Ten thousand values, so that PostgreSQL keeps each once, and lists of rows.
LAST_DIGITS = 4
MOBILE_END: sa.ColumnElement[str] = sa.func.substr(
    messages.c.mobile, sa.func.length(messages.c.mobile) - sa.literal_column(str(LAST_DIGITS - 1)), type_=MobileEnd
)
sa.Index("ix_messages_mobile_end", MOBILE_END)
# Lists by time of sending, and what adds up over it. Rows that only pushes have made are not in it. Its condition
# follows from any comparison with the time, so that readers of views need no other.
AGE_FROM = sa.func.coalesce(messages.c.sent_at, messages.c.recorded_at, type_=messages.c.sent_at.type)
index(
    "ix_messages_counted_at",
    AGE_FROM,
    where=AGE_FROM.isnot(None),
)
# What the console's lists go by: when a message was sent, as far as is known. One that only a reply refers to has no
# time and stands last, at `UNSTAMPED`, since a place in a list is a comparison, which no null has.


def _listed_at(dialect: str, *times: str) -> str:
    never = "'1970-01-01 00:00:00+00'" if dialect == "postgresql" else "'1970-01-01 00:00:00.000000'"
    return f"coalesce({', '.join(times)}, {never})"


LISTED_AT: sa.ColumnElement[datetime] = function(messages.c.sent_at.type, _listed_at)(
    messages.c.sent_at, messages.c.recorded_at, messages.c.reported_at
)
sa.Index("ix_messages_listed_at", LISTED_AT, messages.c.id)
# The list of unmatched messages: few among very many, or all if sends are not recorded.
index(
    "ix_messages_unmatched",
    messages.c.id,
    where=messages.c.recorded_at.is_(None),
)

# Requests to send that went through here, each noted before it went out. A table of its own, so that messages,
# most of which were sent elsewhere, carry none of it.
attempts = table(
    "attempts",
    sa.Column("id", sa.Uuid, primary_key=True),  # UUIDv7
    sa.Column("message_id", sa.BigInteger),
    sa.Column("begun_at", UtcDateTime, nullable=False),
    # Who asked, under which Idempotency-Key, and for what (a keyed hash). Null: no such key was given.
    sa.Column("caller", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("fingerprint", sa.LargeBinary),
)
index(
    "uq_attempts_key",
    attempts.c.caller,
    attempts.c.idempotency_key,
    unique=True,
    where=attempts.c.idempotency_key.isnot(None),
)  # a repeated Idempotency-Key


def _inbound_event_columns(name: str) -> list[sa.Column[Any]]:
    """Return the columns that receipts and replies share: their message, and how often they arrived.

    A full number's account, task id and number are in its message. A masked number has no message of its own: it has
    the three here, and `message_id` is its current match. A reply without a task id, masked or not, has none either: it
    has account and number here, and `message_id` stays null.
    """
    return [
        sa.Column("id", RowId, sa.Identity(), primary_key=True),
        sa.Column("message_id", sa.BigInteger),
        sa.Column("masked_mobile", Mobile, nullable=False, server_default=""),  # full only where `task_id` is null
        sa.Column("account", sa.Text),
        sa.Column("task_id", sa.Text),
        sa.Column("push_id", sa.Uuid, nullable=False),  # the first that brought it
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("last_seen_at", UtcDateTime, nullable=False),
        sa.Column("copies", sa.Integer, nullable=False),
        sa.Column("extra", EncryptedJson(f"{name}.extra")),
    ]


receipts = table(
    "receipts",
    *_inbound_event_columns("receipts"),
    sa.Column("vendor_status", sa.Text, nullable=False),
    sa.Column("reported_at", UtcDateTime, nullable=False),
)
replies = table(
    "replies",
    *_inbound_event_columns("replies"),
    sa.Column(
        "content", sa.Text, nullable=False
    ),  # NUL as its picture, since text columns reject NUL; empty if encrypted
    sa.Column("content_exact", sa.LargeBinary),  # UTF-8, if it differs from `content`
    sa.Column("content_sha256", ContentDigest, nullable=False),
    sa.Column("replied_at", UtcDateTime, nullable=False),
    sa.Column("opt_out", sa.Boolean(create_constraint=False), nullable=False),
    # Not quite an opt-out word, but close enough for a person to review.
    sa.Column("opt_out_review", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    # If the database is encrypted: the exact content as UTF-8, and its search hashes.
    sa.Column("content_sealed", EncryptedBytes("replies.content")),
    sa.Column("content_grams", sa.Text),
)
sa.Index("ix_replies_replied_at", replies.c.replied_at, replies.c.id)  # the console's list, in the order that it shows
# GET /replies?opt_out=true and ?opt_out_review=true: few among many. `search` adds the index of what replies say.
for _flag in (replies.c.opt_out, replies.c.opt_out_review):
    index(f"ix_replies_{_flag.name}", replies.c.id, where=_flag)
# What tells two receipts, or two replies, of one message apart. The time is part of both keys, so that the
# tables can be partitioned by it.
IDENTITY: dict[str, tuple[sa.Column[Any], ...]] = {
    "receipts": (receipts.c.reported_at, receipts.c.vendor_status),
    "replies": (replies.c.replied_at, replies.c.content_sha256),
}


def full_key(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    """The columns that make a row of a full number one of its kind; also how a message finds its rows."""
    return (table.c.message_id, *IDENTITY[table.name], table.c.masked_mobile)


def masked_key(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    """Return the columns that identify a row of a masked number; the first ones find those of a task."""
    return (table.c.task_id, table.c.account, table.c.masked_mobile, *IDENTITY[table.name])


def masked_key_where(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition on rows that store account, task id and number themselves; the masked key covers these."""
    return table.c.masked_mobile != sa.literal_column("''")


def masked_of_task_where(table: sa.Table) -> sa.ColumnElement[bool]:
    """Which rows are of a masked number and of a task: those that may belong to a message."""
    return sa.and_(masked_key_where(table), table.c.task_id.isnot(None))


# The columns that identify a reply without a task id; the first ones find those of a number.
TASKLESS_KEY = (replies.c.masked_mobile, replies.c.account, *IDENTITY["replies"])
TASKLESS_WHERE = sa.and_(masked_key_where(replies), replies.c.task_id.is_(None))
index("uq_replies_taskless", *TASKLESS_KEY, unique=True, where=TASKLESS_WHERE)


for _table in (receipts, replies):
    # Lists of a time of receiving, which goes nearly with the ids: PostgreSQL needs no more than each block's range.
    # Blocks that are not yet summed up are read whole: hence at once, and not when a vacuum comes by.
    index(
        f"ix_{_table.name}_received_at",
        _table.c.received_at,
        on_postgresql={"using": "brin", "with": {"autosummarize": "on"}},
    )
    sa.Index(f"uq_{_table.name}_key", *full_key(_table), unique=True)
    index(
        f"uq_{_table.name}_masked",
        *masked_key(_table),
        unique=True,
        where=masked_key_where(_table),
    )

# What the staff noted on a message, and who marked its case as handled or took that back: rows are only added.
notes = table(
    "notes",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("message_id", sa.BigInteger, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("user_name", sa.Text, nullable=False),
    sa.Column("text", EncryptedText("notes.text"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
sa.Index("ix_notes_message_id", notes.c.message_id, notes.c.id)  # the entries of a message, and its newest mark
