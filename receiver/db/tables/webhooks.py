"""Webhook endpoints, their outbox and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa

from receiver.db.tables.base import Json, RowId, UtcDateTime, index, table

# Webhook endpoints and their settings.
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
    sa.Column(
        "timed", sa.Boolean(create_constraint=False), nullable=False
    ),  # subscribes to events that time alone brings about
    sa.Column("secret", sa.Text),  # signs requests
    sa.Column("old_secret", sa.Text),  # signs too for a while after a rotation
    sa.Column("old_secret_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("paused_at", UtcDateTime),
    sa.Column("paused_because", sa.Text),
    # Recent results. `retry_at`: nothing is sent before; shared by all nodes.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # in a row
    sa.Column("retry_at", UtcDateTime),
    sa.Column("delivered", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("failed_at", UtcDateTime),
    sa.Column("last_error", sa.Text),
    sa.Column("failing_since", UtcDateTime),  # null: the last attempt was accepted
    sa.Column("last_status", sa.Integer),  # of the last answer; null: there was none
    sa.Column("headers", Json),  # further ones of each request, by name; the values are secrets
)
# Changes for the fan-out, added by the transactions that change rows: only while there is an endpoint.
forward_queue = table(
    "forward_queue",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # of forward_queue.Change
    sa.Column("push_id", sa.Uuid),
    sa.Column("message_id", sa.BigInteger),
    # The row that a push created, if known; a plain push's is looked up by its message.
    sa.Column("receipt_id", sa.BigInteger),
    sa.Column("reply_id", sa.BigInteger),
    sa.Column("left_at", UtcDateTime),  # since when creating its delivery fails; tried again each hour
)
# Pending deliveries, one row for each endpoint. References only: the content is read when it is sent.
deliveries = table(
    "deliveries",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("target_id", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),  # the same in every attempt
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("order_key", sa.BigInteger),  # equal keys are sent in order; null: in any order
    sa.Column("push_id", sa.Uuid),
    sa.Column("receipt_id", sa.BigInteger),
    sa.Column("reply_id", sa.BigInteger),
    sa.Column("message_id", sa.BigInteger),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("next_at", UtcDateTime, nullable=False),  # not before; a sender sets it to when others may take over
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failing_since", UtcDateTime),
    sa.Column("last_error", sa.Text),
    sa.Column("last_status", sa.Integer),
    sa.Column("dead_at", UtcDateTime),  # given up
)
# The newest deliveries that were accepted, a bounded number for each endpoint, to be looked at.
delivery_history = table(
    "delivery_history",
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),  # of the delivery
    sa.Column("target_id", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("push_id", sa.Uuid),
    sa.Column("receipt_id", sa.BigInteger),
    sa.Column("reply_id", sa.BigInteger),
    sa.Column("message_id", sa.BigInteger),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_status", sa.Integer, nullable=False),
    sa.Column("delivered_at", UtcDateTime, nullable=False),
)
sa.Index("ix_delivery_history_target_id", delivery_history.c.target_id, delivery_history.c.id)
_ALIVE = deliveries.c.dead_at.is_(None)
index(
    "ix_deliveries_next_at",
    deliveries.c.target_id,
    deliveries.c.next_at,
    deliveries.c.id,
    where=_ALIVE,
)  # what is due
index(
    "ix_deliveries_order_key",
    deliveries.c.target_id,
    deliveries.c.order_key,
    deliveries.c.id,
    where=_ALIVE,
)  # whether another comes first
sa.Index("ix_deliveries_dead_at", deliveries.c.target_id, deliveries.c.dead_at, deliveries.c.id)  # counts, the dead
