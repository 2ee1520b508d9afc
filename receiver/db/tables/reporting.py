"""Pre-aggregated figures of reports."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from receiver.db.tables.base import UtcDateTime, metadata, table

# Counts of the delivery report, maintained by triggers on `messages` in the same transaction (`rollup`). An hour is one
# of the reports' zone, counted from 1970. On PostgreSQL, changes are appended to tables of their own and added up
# later.
_COUNTS = ("sent", "refused", "open", "delivered", "failed", "unknown", "waiting", "unmatched", "verified")
_DEFAULTS = {"verified": "0"}  # added later than the other columns


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


delivery_hours = table("delivery_hours", *_hour_columns(key=True))
delivery_hour_changes = sa.Table("delivery_hour_changes", metadata, *_hour_columns(key=False))
delivery_latencies = table("delivery_latencies", *_latency_columns(key=True))
delivery_latency_changes = sa.Table("delivery_latency_changes", metadata, *_latency_columns(key=False))
# The zone of those hours and days, as seconds east of UTC, and since when they are still counted in: one row.
delivery_zone = table(
    "delivery_zone",
    sa.Column("offset_seconds", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("closed_before", sa.BigInteger, nullable=False, server_default="-1000000000000"),  # seconds from 1970
)
# From which age on a message is late, and has no receipt: settings that the views for SQL readers need.
status_ages = table(
    "status_ages",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seconds", sa.BigInteger, nullable=False),
)
# Counts of deleted messages, of erased numbers or pruned with a wrong clock; included in the tables above.
forgotten_hours = table("forgotten_hours", *_hour_columns(key=True))
forgotten_latencies = table("forgotten_latencies", *_latency_columns(key=True))

# How many messages an account had left, as the platform reported. One reading is one row, however often recorded.
balance_readings = table(
    "balance_readings",
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("answered_at", UtcDateTime, primary_key=True),
    sa.Column("remain_point", sa.BigInteger, primary_key=True),
    sa.Column("asked_at", UtcDateTime, nullable=False),
)
