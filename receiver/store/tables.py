"""The tables, their constraints and indexes. Each index stands beside the query that needs it.

Rows of one message, its receipts and its replies are written in one transaction, so there are no foreign keys
between them: on PostgreSQL each would cost a look-up per row, on the path that every push takes. The journal has
a shorter life than what was read from it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeDecorator

from receiver.domain import require_aware
from receiver.store.sealed import ContentDigest, Mobile, MobileEnd, SealedBytes, SealedJson, SealedText
from receiver.times import read_time, write_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """Takes aware times only and gives them back in UTC; SQLite would drop the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        own = _SqliteTime() if dialect.name == "sqlite" else sa.DateTime(timezone=True)  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(own)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else require_aware(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)


class _SqliteTime(sqlite.DATETIME):
    """Text, written and read by the one pair of functions that knows how."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:
        return lambda value: None if value is None else write_time(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:
        return lambda value: None if value is None else read_time(value)


# SQLite makes row ids only for INTEGER; AUTOINCREMENT, so that an id is never given twice.
RowId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# Not JSONB: unknown fields of a push may hold NUL, which JSONB refuses.
Json = sa.JSON(none_as_null=True)

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _table(name: str, *items: Any) -> sa.Table:
    return sa.Table(name, metadata, *items, sqlite_autoincrement=True)


# The journal: every acknowledged push, byte for byte. The source of all that follows.
pushes = _table(
    "pushes",
    sa.Column("id", sa.Uuid, primary_key=True),  # UUIDv7, made before durability: the idempotency key
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text),  # what its URL asked for; null: the combined one
    sa.Column("kind", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("flags", Json),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("query", SealedBytes("pushes.query"), nullable=False),
    sa.Column("body", SealedBytes("pushes.body"), nullable=False),
    sa.Column("content_type", sa.Text),
    sa.Column("remote_addr", sa.Text, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("replayed_at", UtcDateTime),  # first read by a replay, which changes no `copies`
    # What was read, as a digest (`domain.reading_digest`): it stands, whatever later rules would read. Null: nothing
    # was, or the row is older than this column.
    sa.Column("reading_digest", SealedBytes("pushes.reading_digest")),
)
# GET /pushes?outcome=quarantined: few among very many.
sa.Index(
    "ix_pushes_quarantined",
    pushes.c.id,
    postgresql_where=pushes.c.outcome == "quarantined",
    sqlite_where=pushes.c.outcome == "quarantined",
)

# One row per (account, task_id, mobile), made by whichever comes first: the record of the send or its first push.
messages = _table(
    "messages",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text),  # null: the platform gave none (refused)
    sa.Column("mobile", Mobile, nullable=False),
    # The fold of its receipts, see domain.MessageState.
    sa.Column("status", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("reported_at", UtcDateTime),
    sa.Column("seen", sa.SmallInteger, nullable=False, server_default="0"),
    # What the sender said; recorded_at null: nobody has recorded it (unmatched).
    sa.Column("recorded_at", UtcDateTime),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("template_id", sa.Text),
    sa.Column("reference", sa.Text),
    sa.Column("success_counts", sa.Integer),
    sa.Column("remain_point", sa.Integer),
    sa.Column("send_state", sa.Text),  # null: the platform took it; else a MessageStatus that no receipt can give
    sa.Column("error_message", sa.Text),
    sa.Column("verified_at", UtcDateTime),  # when its code was first used, as the sender says
)
# The identity, and look-ups by task id: hence that order.
sa.Index("uq_messages_key", messages.c.task_id, messages.c.mobile, messages.c.account, unique=True)
# A refused send has no task id to be told apart by.
REFUSED_KEY_WHERE = messages.c.task_id.is_(None)
sa.Index(
    "uq_messages_refused",
    messages.c.mobile,
    messages.c.reference,
    messages.c.sent_at,
    messages.c.account,
    unique=True,
    postgresql_where=REFUSED_KEY_WHERE,
    sqlite_where=REFUSED_KEY_WHERE,
)
sa.Index("ix_messages_mobile", messages.c.mobile, messages.c.id)  # look-ups by number, newest first
sa.Index(
    "ix_messages_reference",
    messages.c.reference,
    messages.c.id,
    postgresql_where=messages.c.reference.isnot(None),
    sqlite_where=messages.c.reference.isnot(None),
)  # look-ups by the sender's own id
# Look-ups by the last digits of a number. Ten thousand values, so that PostgreSQL keeps each once, and lists of rows.
LAST_DIGITS = 4
MOBILE_END: sa.ColumnElement[str] = sa.func.substr(
    messages.c.mobile, sa.func.length(messages.c.mobile) - sa.literal_column(str(LAST_DIGITS - 1)), type_=MobileEnd
)
sa.Index("ix_messages_mobile_end", MOBILE_END)
# Lists by time of sending, and what adds up over it. Rows that only pushes have made are not in it.
AGE_FROM = sa.func.coalesce(messages.c.sent_at, messages.c.recorded_at, type_=messages.c.sent_at.type)
sa.Index(
    "ix_messages_age_from",
    AGE_FROM,
    postgresql_where=messages.c.recorded_at.isnot(None),
    sqlite_where=messages.c.recorded_at.isnot(None),
)
# The list of unmatched messages: few among very many, or all of them where nobody records.
sa.Index(
    "ix_messages_unmatched",
    messages.c.id,
    postgresql_where=messages.c.recorded_at.is_(None),
    sqlite_where=messages.c.recorded_at.is_(None),
)

# What the delivery report adds up, kept by triggers on `messages` in the same transaction (`rollup`). An hour is one of
# the reports' zone, counted from 1970. On PostgreSQL, changes wait in tables of their own to be added up.
_COUNTS = ("sent", "refused", "open", "delivered", "failed", "unknown", "waiting", "unmatched", "verified")
_DEFAULTS = {"verified": "0"}  # younger than the rows of others


def _hour_columns(*, key: bool) -> list[sa.Column[Any]]:
    return [
        sa.Column("hour", sa.Integer, primary_key=key, autoincrement=False, nullable=False),
        sa.Column("account", sa.Text, primary_key=key, nullable=False),
        sa.Column("template_id", sa.Text, primary_key=key, nullable=False),  # empty: none was given
        *(sa.Column(name, sa.Integer, nullable=False, server_default=_DEFAULTS.get(name)) for name in _COUNTS),
    ]


def _latency_columns(*, key: bool) -> list[sa.Column[Any]]:
    return [
        sa.Column("day", sa.Integer, primary_key=key, autoincrement=False, nullable=False),
        sa.Column("account", sa.Text, primary_key=key, nullable=False),
        sa.Column("template_id", sa.Text, primary_key=key, nullable=False),
        sa.Column("seconds", sa.Integer, primary_key=key, autoincrement=False, nullable=False),
        sa.Column("messages", sa.Integer, nullable=False),  # delivered after so many whole seconds
    ]


delivery_hours = _table("delivery_hours", *_hour_columns(key=True))
delivery_hour_changes = sa.Table("delivery_hour_changes", metadata, *_hour_columns(key=False))
delivery_latencies = _table("delivery_latencies", *_latency_columns(key=True))
delivery_latency_changes = sa.Table("delivery_latency_changes", metadata, *_latency_columns(key=False))
# The zone of those hours and days, as seconds east of UTC, and since when they are still counted in: one row.
delivery_zone = _table(
    "delivery_zone",
    sa.Column("offset_seconds", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("closed_before", sa.BigInteger, nullable=False, server_default="-1000000000000"),  # seconds from 1970
)
# What messages count that are gone, of forgotten numbers or by a prune with a wrong clock: kept in those as well.
forgotten_hours = _table("forgotten_hours", *_hour_columns(key=True))
forgotten_latencies = _table("forgotten_latencies", *_latency_columns(key=True))

# From when on each kind of row is whole: what is older is pruned, or being pruned.
retention = _table(
    "retention",
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("horizon", UtcDateTime, nullable=False),
    sa.Column("pruned_at", UtcDateTime),  # when everything before was last seen to be gone; null: not yet
)
# Rows that cannot be read, or whose times cannot be right: readers leave them out (`set_aside`).
rows_set_aside = _table(
    "rows_set_aside",
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("row_id", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("found_at", UtcDateTime, nullable=False),
)
# Numbers that were forgotten, as keyed hashes, and how much went with each.
tombstones = _table(
    "tombstones",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("mobile_hmac", sa.Text, nullable=False),
    sa.Column("forgotten_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("counts", Json, nullable=False),  # rows by table
    sa.Column("cleaned_at", UtcDateTime),  # when the database's files were cleaned of it; null: not yet
    sa.Column("wal_position", sa.Text),  # PostgreSQL: up to where its log may hold it
)

# Requests to send that went through here, each noted before it went out. A table of its own, so that messages,
# most of which were sent elsewhere, carry none of it.
attempts = _table(
    "attempts",
    sa.Column("id", sa.Uuid, primary_key=True),  # UUIDv7
    sa.Column("message_id", sa.BigInteger),
    sa.Column("begun_at", UtcDateTime, nullable=False),
    # Who asked, under which Idempotency-Key, and for what (a keyed hash). Null: no such key was given.
    sa.Column("caller", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("fingerprint", sa.LargeBinary),
)
sa.Index(
    "uq_attempts_key",
    attempts.c.caller,
    attempts.c.idempotency_key,
    unique=True,
    postgresql_where=attempts.c.idempotency_key.isnot(None),
    sqlite_where=attempts.c.idempotency_key.isnot(None),
)  # a repeated Idempotency-Key

# How many messages an account had left, as the platform said it. One reading is one row, however often recorded.
balance_readings = _table(
    "balance_readings",
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("answered_at", UtcDateTime, primary_key=True),
    sa.Column("remain_point", sa.BigInteger, primary_key=True),
    sa.Column("asked_at", UtcDateTime, nullable=False),
)

# What was last said, so that several processes say it once.
notices = _table(
    "notices",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("said_at", UtcDateTime, nullable=False),
)

# What is, or was, wrong for a time, as `receiver job alarms` follows it.
incidents = _table(
    "incidents",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),  # which of several: an account; empty: there is one
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("said_at", UtcDateTime),  # null: not seen twice yet
    sa.Column("clear_at", UtcDateTime),  # from when on it was not seen any more
    sa.Column("recovered_at", UtcDateTime),
)
sa.Index(
    "uq_incidents_open",
    incidents.c.alarm,
    incidents.c.subject,
    unique=True,
    postgresql_where=incidents.c.recovered_at.is_(None),
    sqlite_where=incidents.c.recovered_at.is_(None),
)
sa.Index("ix_incidents_recovered_at", incidents.c.recovered_at)  # those that are open, or were a day ago
# Who was told: one row for each incident, target and state.
incident_tellings = sa.Table(
    "incident_tellings",
    metadata,
    sa.Column("incident_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, primary_key=True),  # a hash of its address, which is secret
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("claimed_at", UtcDateTime, nullable=False),  # by the process that tells it
    sa.Column("told_at", UtcDateTime),  # null: that has not been told, or not yet
)


def _sightings(name: str) -> list[sa.Column[Any]]:
    """What receipts and replies share: where they belong and how often they were seen.

    A full number's account, task id and number stand in its message. A masked number has no message of its
    own: it keeps the three here, and `message_id` is what they match at present. Nor has a reply without a task id,
    masked or not: it keeps account and number here, and `message_id` stays null.
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
        sa.Column("extra", SealedJson(f"{name}.extra")),
    ]


receipts = _table(
    "receipts",
    *_sightings("receipts"),
    sa.Column("vendor_status", sa.Text, nullable=False),
    sa.Column("reported_at", UtcDateTime, nullable=False),
)
replies = _table(
    "replies",
    *_sightings("replies"),
    sa.Column("content", sa.Text, nullable=False),  # NUL as its picture, which text columns take; empty where sealed
    sa.Column("content_exact", sa.LargeBinary),  # UTF-8, where `content` is not what was written
    sa.Column("content_sha256", ContentDigest, nullable=False),
    sa.Column("replied_at", UtcDateTime, nullable=False),
    sa.Column("opt_out", sa.Boolean(create_constraint=False), nullable=False),
    # Not quite a word for it, but near enough for somebody to look.
    sa.Column("opt_out_review", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    # Where the database is encrypted: exactly what was written, as UTF-8, and the hashes that it is found by.
    sa.Column("content_sealed", SealedBytes("replies.content")),
    sa.Column("content_grams", sa.Text),
)
# GET /replies?opt_out=true and ?opt_out_review=true: few among many. `search` adds the index of what replies say.
for _flag in (replies.c.opt_out, replies.c.opt_out_review):
    sa.Index(f"ix_replies_{_flag.name}", replies.c.id, postgresql_where=_flag, sqlite_where=_flag)
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
    """The columns that make a row of a masked number one of its kind; led by what finds a task's."""
    return (table.c.task_id, table.c.account, table.c.masked_mobile, *IDENTITY[table.name])


def masked_key_where(table: sa.Table) -> sa.ColumnElement[bool]:
    """Which rows keep account, task id and number themselves; the masked key holds for them."""
    return table.c.masked_mobile != sa.literal_column("''")


def masked_of_task_where(table: sa.Table) -> sa.ColumnElement[bool]:
    """Which rows are of a masked number and of a task: those that may belong to a message."""
    return sa.and_(masked_key_where(table), table.c.task_id.isnot(None))


# The columns that make a reply without a task id one of its kind; led by what finds a number's.
TASKLESS_KEY = (replies.c.masked_mobile, replies.c.account, *IDENTITY["replies"])
TASKLESS_WHERE = sa.and_(masked_key_where(replies), replies.c.task_id.is_(None))
sa.Index(
    "uq_replies_taskless", *TASKLESS_KEY, unique=True, postgresql_where=TASKLESS_WHERE, sqlite_where=TASKLESS_WHERE
)


for _sighted in (receipts, replies):
    # Lists of a time of receiving, which goes nearly with the ids: PostgreSQL needs no more than each block's range.
    # Blocks that are not yet summed up are read whole: hence at once, and not when a vacuum comes by.
    sa.Index(
        f"ix_{_sighted.name}_received_at",
        _sighted.c.received_at,
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    sa.Index(f"uq_{_sighted.name}_key", *full_key(_sighted), unique=True)
    sa.Index(
        f"uq_{_sighted.name}_masked",
        *masked_key(_sighted),
        unique=True,
        postgresql_where=masked_key_where(_sighted),
        sqlite_where=masked_key_where(_sighted),
    )

# --- Own systems that hear of everything (`deliveries`) ---

# Where to, and how it goes there.
targets = _table(
    "targets",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("events", Json, nullable=False),  # of Event; of raw: none
    sa.Column("accounts", Json),  # null: every account
    sa.Column("pii", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("not_delivered_after_seconds", sa.Integer),
    sa.Column("timed", sa.Boolean(create_constraint=False), nullable=False),  # wants what time alone brings about
    sa.Column("secret", sa.Text),  # that posts are signed with
    sa.Column("old_secret", sa.Text),  # beside it for a while, after a rotation
    sa.Column("old_secret_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("paused_at", UtcDateTime),
    sa.Column("paused_because", sa.Text),
    # How it has gone of late. `retry_at`: nothing is sent before; shared by all nodes.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # one after the other
    sa.Column("retry_at", UtcDateTime),
    sa.Column("delivered", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("failed_at", UtcDateTime),
    sa.Column("last_error", sa.Text),
)
# What the transactions that change rows leave for the fan-out to look at: only while there is a target.
forward_queue = _table(
    "forward_queue",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # of forward_queue.Change
    sa.Column("push_id", sa.Uuid),
    sa.Column("message_id", sa.BigInteger),
    # What a push has brought, where that is known already; a plain push's is looked up by its message.
    sa.Column("receipt_id", sa.BigInteger),
    sa.Column("reply_id", sa.BigInteger),
    sa.Column("left_at", UtcDateTime),  # since when no delivery of it can be made; tried again each hour
)
# What is to go out, one row for each target. References only: what is sent is read when it is.
deliveries = _table(
    "deliveries",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("target_id", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),  # what the receiver of it knows it by, however often it is sent
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("order_key", sa.BigInteger),  # one after the other where they have the same; null: before or after any
    sa.Column("push_id", sa.Uuid),
    sa.Column("receipt_id", sa.BigInteger),
    sa.Column("reply_id", sa.BigInteger),
    sa.Column("message_id", sa.BigInteger),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("next_at", UtcDateTime, nullable=False),  # not before; whoever sends it sets it to when others may
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failing_since", UtcDateTime),
    sa.Column("last_error", sa.Text),
    sa.Column("dead_at", UtcDateTime),  # given up
)
_ALIVE = deliveries.c.dead_at.is_(None)
sa.Index(
    "ix_deliveries_next_at",
    deliveries.c.target_id,
    deliveries.c.next_at,
    deliveries.c.id,
    postgresql_where=_ALIVE,
    sqlite_where=_ALIVE,
)  # what is due
sa.Index(
    "ix_deliveries_order_key",
    deliveries.c.target_id,
    deliveries.c.order_key,
    deliveries.c.id,
    postgresql_where=_ALIVE,
    sqlite_where=_ALIVE,
)  # whether another comes first
sa.Index("ix_deliveries_dead_at", deliveries.c.target_id, deliveries.c.dead_at, deliveries.c.id)  # counts, the dead
# What may become an event by time alone.
timers = _table(
    "timers",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("target_id", sa.BigInteger, nullable=False),
    sa.Column("message_id", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
)
sa.Index("uq_timers_key", timers.c.message_id, timers.c.target_id, timers.c.event, unique=True)
sa.Index("ix_timers_due_at", timers.c.due_at)

api_keys = _table(
    "api_keys",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("key_sha256", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("accounts", Json),  # null: every account
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
)

# When each push secret was last used, here or on another node. Never the secret: a keyed digest of it.
push_secrets = sa.Table(
    "push_secrets",
    metadata,
    sa.Column("secret_hmac", sa.LargeBinary, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("known_since", UtcDateTime, nullable=False),  # from when on its uses are counted
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("pushes", sa.BigInteger, nullable=False),
)

# Staff: who may log in to the console.
users = _table(
    "users",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text),  # argon2id; null: comes by another way
    sa.Column("oidc_subject", sa.Text, unique=True),
    sa.Column("totp_secret", sa.Text),
    sa.Column("totp_step", sa.BigInteger),  # of the last code that was used: none is taken twice
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("accounts", Json),  # null: every account
    sa.Column("last_used_at", UtcDateTime),
)
user_sessions = _table(
    "user_sessions",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("token_sha256", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("confirmed", sa.Boolean(create_constraint=False), nullable=False),  # false: the second factor is missing
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
)
sa.Index("ix_user_sessions_user_id", user_sessions.c.user_id)  # to end all of one user's
# Failed log-ins, counted by name, by address and by both; hashed, since a password may be typed for a name.
login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("key_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
)
# What somebody looked up, under the address that leads to it: so that no number stands in a URL.
look_ups = sa.Table(
    "look_ups",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("text", SealedText("look_ups.text"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
sa.Index("ix_look_ups_created_at", look_ups.c.created_at)  # to drop the old ones
# What the team tells its support staff to do, where it is not what comes with the program.
advice = sa.Table(
    "advice",
    metadata,
    sa.Column("answer", sa.Text, primary_key=True),
    sa.Column("language", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)

# Who looked at what, and who changed what. Numbers stand here as keyed hashes only. Each entry is a link of a chain
# (`store.audit`); the two are null until it is, which the version before leaves to this one.
audit = _table(
    "audit",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("detail", Json),
    sa.Column("position", sa.BigInteger),  # 1, 2, 3 …: ids have gaps, which would hide one that is gone
    sa.Column("hash", sa.LargeBinary),  # of the one before and of this
    sa.Column("mobile_hmac", sa.Text),  # the one in `detail`, to find it by: no index may look into JSON that has NUL
)
sa.Index("uq_audit_position", audit.c.position, unique=True)
sa.Index(
    "ix_audit_unchained",
    audit.c.id,
    postgresql_where=audit.c.position.is_(None),
    sqlite_where=audit.c.position.is_(None),
)
sa.Index("ix_audit_actor", audit.c.actor, audit.c.id)
sa.Index("ix_audit_action", audit.c.action, audit.c.id)
sa.Index(
    "ix_audit_mobile_hmac",
    audit.c.mobile_hmac,
    audit.c.id,
    postgresql_where=audit.c.mobile_hmac.isnot(None),
    sqlite_where=audit.c.mobile_hmac.isnot(None),
)
# One row: where the chain ends, and up to where pruning has taken entries away. Its lock is a writer's turn.
audit_chain = sa.Table(
    "audit_chain",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_position", sa.BigInteger, nullable=False),
    sa.Column("last_hash", sa.LargeBinary, nullable=False),
    sa.Column("horizon_position", sa.BigInteger, nullable=False),
    sa.Column("horizon_hash", sa.LargeBinary, nullable=False),
)
# Up to where the audit was sent on, by what it is sent to.
audit_followers = sa.Table(
    "audit_followers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

# Keys that every node must share: that of the cursors, that of the audit's hashes.
shared_secrets = _table(
    "shared_secrets",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

# How far the encryption of this database is (`sealed`): one row, or none while it is plain.
encryption = sa.Table(
    "encryption",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),  # what tokens are made from, itself sealed
)
