"""Webhook endpoints, their outbox and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa

from receiver.db.tables.base import Json, RowId, UtcDateTime, table

# Where to, and how it goes there.
targets = table(
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
forward_queue = table(
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
deliveries = table(
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
