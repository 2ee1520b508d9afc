"""The tables, their constraints and indexes. Each index stands beside the query that needs it.

Rows of one message, its receipts and its replies are written in one transaction, so there are no foreign keys between
them: on PostgreSQL each would cost a look-up per row, in every push. Journal rows are deleted earlier than the rows
parsed from them.
"""

from __future__ import annotations

from receiver.db.tables.audit import audit, audit_chain, audit_followers
from receiver.db.tables.auth import advice, api_keys, login_failures, look_ups, push_secrets, user_sessions, users
from receiver.db.tables.base import Json, RowId, UtcDateTime, metadata
from receiver.db.tables.messages import (
    AGE_FROM,
    IDENTITY,
    LAST_DIGITS,
    LISTED_AT,
    MOBILE_END,
    REFUSED_KEY_WHERE,
    TASKLESS_KEY,
    TASKLESS_WHERE,
    UNSTAMPED,
    attempts,
    full_key,
    masked_key,
    masked_key_where,
    masked_of_task_where,
    messages,
    pushes,
    receipts,
    replies,
)
from receiver.db.tables.operations import (
    encryption,
    incident_tellings,
    incidents,
    notices,
    projection,
    retention,
    rows_set_aside,
    shared_secrets,
    timers,
    tombstones,
)
from receiver.db.tables.reporting import (
    balance_readings,
    delivery_hour_changes,
    delivery_hours,
    delivery_latencies,
    delivery_latency_changes,
    delivery_zone,
    forgotten_hours,
    forgotten_latencies,
    status_ages,
)
from receiver.db.tables.webhooks import deliveries, delivery_history, forward_queue, targets

__all__ = [
    "AGE_FROM",
    "IDENTITY",
    "LAST_DIGITS",
    "LISTED_AT",
    "MOBILE_END",
    "REFUSED_KEY_WHERE",
    "TASKLESS_KEY",
    "TASKLESS_WHERE",
    "UNSTAMPED",
    "Json",
    "RowId",
    "UtcDateTime",
    "advice",
    "api_keys",
    "attempts",
    "audit",
    "audit_chain",
    "audit_followers",
    "balance_readings",
    "deliveries",
    "delivery_history",
    "delivery_hour_changes",
    "delivery_hours",
    "delivery_latencies",
    "delivery_latency_changes",
    "delivery_zone",
    "encryption",
    "forgotten_hours",
    "forgotten_latencies",
    "forward_queue",
    "full_key",
    "incident_tellings",
    "incidents",
    "login_failures",
    "look_ups",
    "masked_key",
    "masked_key_where",
    "masked_of_task_where",
    "messages",
    "metadata",
    "notices",
    "projection",
    "push_secrets",
    "pushes",
    "receipts",
    "replies",
    "retention",
    "rows_set_aside",
    "shared_secrets",
    "status_ages",
    "targets",
    "timers",
    "tombstones",
    "user_sessions",
    "users",
]
