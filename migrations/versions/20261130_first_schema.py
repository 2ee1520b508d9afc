"""The first schema: journal, messages, receipts, replies, and all that goes with them.

Its number follows those of the builds before the first release, whose databases are taken over (`db.takeover`). What a
database has beyond tables and indexes is in a file of SQL for each of the two, as it was when this was written.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
# With SQLite a trigger sets it: databases of the builds before have this default, and SQLite changes none.
_UNSTAMPED = {"postgresql": "1970-01-01 00:00:00+00", "sqlite": "2000-01-01 00:00:00.000000"}
_NEVER = {"postgresql": "1970-01-01 00:00:00+00", "sqlite": "1970-01-01 00:00:00.000000"}
_COLON = r"\:"  # else a parameter begins there


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:  # noqa: PLR0915
    dialect = op.get_context().dialect.name
    listed_at = f"coalesce(sent_at, recorded_at, reported_at, '{_NEVER[dialect]}')".replace(":", _COLON)
    op.create_table(
        "advice",
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("answer", "language", name="pk_advice"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("accounts", sa.JSON()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.Column("created_by", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_sha256", name="uq_api_keys_key_sha256"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("begun_at", _TIME, nullable=False),
        sa.Column("caller", sa.Text()),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("fingerprint", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
    )
    op.create_index(
        "uq_attempts_key",
        "attempts",
        ["caller", "idempotency_key"],
        unique=True,
        **_where("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "audit",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("hash", sa.LargeBinary()),
        sa.Column("mobile_hmac", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_action", "audit", ["action", "id"])
    op.create_index("ix_audit_actor", "audit", ["actor", "id"])
    op.create_index("ix_audit_mobile_hmac", "audit", ["mobile_hmac", "id"], **_where("mobile_hmac IS NOT NULL"))
    op.create_index("ix_audit_unchained", "audit", ["id"], **_where("position IS NULL"))
    op.create_index("uq_audit_position", "audit", ["position"], unique=True)
    op.create_table(
        "audit_chain",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.LargeBinary(), nullable=False),
        sa.Column("horizon_position", sa.BigInteger(), nullable=False),
        sa.Column("horizon_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_chain"),
    )
    op.create_table(
        "audit_followers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_followers"),
    )
    op.create_table(
        "balance_readings",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("answered_at", _TIME, nullable=False),
        sa.Column("remain_point", sa.BigInteger(), nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("account", "answered_at", "remain_point", name="pk_balance_readings"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("order_key", sa.BigInteger()),
        sa.Column("push_id", sa.Uuid()),
        sa.Column("receipt_id", sa.BigInteger()),
        sa.Column("reply_id", sa.BigInteger()),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("next_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since", _TIME),
        sa.Column("last_error", sa.Text()),
        sa.Column("dead_at", _TIME),
        sa.Column("last_status", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_dead_at", "deliveries", ["target_id", "dead_at", "id"])
    op.create_index("ix_deliveries_next_at", "deliveries", ["target_id", "next_at", "id"], **_where("dead_at IS NULL"))
    op.create_index(
        "ix_deliveries_order_key", "deliveries", ["target_id", "order_key", "id"], **_where("dead_at IS NULL")
    )
    op.create_table(
        "delivery_history",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("push_id", sa.Uuid()),
        sa.Column("receipt_id", sa.BigInteger()),
        sa.Column("reply_id", sa.BigInteger()),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=False),
        sa.Column("delivered_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_history"),
    )
    op.create_index("ix_delivery_history_target_id", "delivery_history", ["target_id", "id"])
    op.create_table(
        "delivery_hour_changes",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("unmatched", sa.Integer(), nullable=False),
        sa.Column("verified", sa.Integer(), server_default="0", nullable=False),
    )
    op.create_table(
        "delivery_hours",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("unmatched", sa.Integer(), nullable=False),
        sa.Column("verified", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("hour", "account", "template_id", name="pk_delivery_hours"),
    )
    op.create_table(
        "delivery_latencies",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "account", "template_id", "seconds", name="pk_delivery_latencies"),
    )
    op.create_table(
        "delivery_latency_changes",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
    )
    op.create_table(
        "delivery_zone",
        sa.Column("offset_seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("closed_before", sa.BigInteger(), server_default="-1000000000000", nullable=False),
        sa.PrimaryKeyConstraint("offset_seconds", name="pk_delivery_zone"),
    )
    op.create_table(
        "encryption",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_encryption"),
    )
    op.create_table(
        "forgotten_hours",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("unmatched", sa.Integer(), nullable=False),
        sa.Column("verified", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("hour", "account", "template_id", name="pk_forgotten_hours"),
    )
    op.create_table(
        "forgotten_latencies",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "account", "template_id", "seconds", name="pk_forgotten_latencies"),
    )
    op.create_table(
        "forward_queue",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("push_id", sa.Uuid()),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("receipt_id", sa.BigInteger()),
        sa.Column("reply_id", sa.BigInteger()),
        sa.Column("left_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_forward_queue"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "incident_tellings",
        sa.Column("incident_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("told_at", _TIME),
        sa.PrimaryKeyConstraint("incident_id", "target", "state", name="pk_incident_tellings"),
    )
    op.create_table(
        "incidents",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("alarm", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("said_at", _TIME),
        sa.Column("clear_at", _TIME),
        sa.Column("recovered_at", _TIME),
        sa.Column("node", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_incidents_recovered_at", "incidents", ["recovered_at"])
    op.create_index(
        "uq_incidents_open", "incidents", ["alarm", "subject"], unique=True, **_where("recovered_at IS NULL")
    )
    op.create_table(
        "login_failures",
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key_sha256", name="pk_login_failures"),
    )
    op.create_table(
        "look_ups",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_look_ups"),
    )
    op.create_index("ix_look_ups_created_at", "look_ups", ["created_at"])
    op.create_table(
        "messages",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text()),
        sa.Column("mobile", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("reported_at", _TIME),
        sa.Column("seen", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("recorded_at", _TIME),
        sa.Column("sent_at", _TIME),
        sa.Column("template_id", sa.Text()),
        sa.Column("reference", sa.Text()),
        sa.Column("success_counts", sa.Integer()),
        sa.Column("remain_point", sa.Integer()),
        sa.Column("send_state", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("verified_at", _TIME),
        sa.Column("updated_at", _TIME, server_default=_UNSTAMPED[dialect], nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_messages_counted_at",
        "messages",
        [sa.text("coalesce(sent_at, recorded_at)")],
        **_where("coalesce(sent_at, recorded_at) IS NOT NULL"),
    )
    op.create_index("ix_messages_listed_at", "messages", [sa.text(listed_at), "id"])
    op.create_index("ix_messages_mobile", "messages", ["mobile", "id"])
    op.create_index("ix_messages_mobile_end", "messages", [sa.text("substr(mobile, length(mobile) - 3)")])
    op.create_index("ix_messages_reference", "messages", ["reference", "id"], **_where("reference IS NOT NULL"))
    op.create_index("ix_messages_unmatched", "messages", ["id"], **_where("recorded_at IS NULL"))
    op.create_index("ix_messages_updated_at", "messages", ["updated_at", "id"])
    op.create_index("uq_messages_key", "messages", ["task_id", "mobile", "account"], unique=True)
    op.create_index(
        "uq_messages_refused",
        "messages",
        ["mobile", "reference", "sent_at", "account"],
        unique=True,
        **_where("task_id IS NULL"),
    )
    op.create_table(
        "notes",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notes_message_id", "notes", ["message_id", "id"])
    op.create_table(
        "notices",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("said_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_notices"),
    )
    op.create_table(
        "projection",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("stamped_at", _TIME, server_default=_UNSTAMPED[dialect], nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_projection"),
    )
    op.create_table(
        "push_secrets",
        sa.Column("secret_hmac", sa.LargeBinary(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("known_since", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME),
        sa.Column("pushes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("secret_hmac", name="pk_push_secrets"),
    )
    op.create_table(
        "pushes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text()),
        sa.Column("kind", sa.Text()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("flags", sa.JSON()),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("query", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text()),
        sa.Column("remote_addr", sa.Text(), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("replayed_at", _TIME),
        sa.Column("digest", sa.LargeBinary()),
        sa.Column("sequence", sa.BigInteger()),
        sa.Column("task_id", sa.Text()),
        sa.Column("mobile", sa.Text()),
        sa.Column("event_at", _TIME),
        sa.Column("vendor_status", sa.Text()),
        sa.Column("receipt_extra", sa.JSON()),
        sa.Column("reply_extra", sa.JSON()),
        sa.Column("content", sa.Text()),
        sa.Column("content_exact", sa.LargeBinary()),
        sa.Column("content_sha256", sa.LargeBinary()),
        sa.Column("content_sealed", sa.LargeBinary()),
        sa.Column("content_grams", sa.Text()),
        sa.Column("opt_out", sa.Boolean()),
        sa.Column("opt_out_review", sa.Boolean()),
        sa.PrimaryKeyConstraint("id", name="pk_pushes"),
    )
    op.create_index("ix_pushes_quarantined", "pushes", ["id"], **_where("outcome = 'quarantined'"))
    op.create_index("uq_pushes_sequence", "pushes", ["sequence"], unique=True)
    op.create_table(
        "receipts",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("masked_mobile", sa.Text(), server_default="", nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("push_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("extra", sa.JSON()),
        sa.Column("vendor_status", sa.Text(), nullable=False),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_receipts_received_at",
        "receipts",
        ["received_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    op.create_index(
        "uq_receipts_key", "receipts", ["message_id", "reported_at", "vendor_status", "masked_mobile"], unique=True
    )
    op.create_index(
        "uq_receipts_masked",
        "receipts",
        ["task_id", "account", "masked_mobile", "reported_at", "vendor_status"],
        unique=True,
        **_where("masked_mobile != ''"),
    )
    op.create_table(
        "replies",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("masked_mobile", sa.Text(), server_default="", nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("push_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("extra", sa.JSON()),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_exact", sa.LargeBinary()),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("replied_at", _TIME, nullable=False),
        sa.Column("opt_out", sa.Boolean(), nullable=False),
        sa.Column("opt_out_review", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("content_sealed", sa.LargeBinary()),
        sa.Column("content_grams", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_replies"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_replies_opt_out", "replies", ["id"], **_where("opt_out"))
    op.create_index("ix_replies_opt_out_review", "replies", ["id"], **_where("opt_out_review"))
    op.create_index(
        "ix_replies_received_at",
        "replies",
        ["received_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    op.create_index("ix_replies_replied_at", "replies", ["replied_at", "id"])
    op.create_index(
        "uq_replies_key", "replies", ["message_id", "replied_at", "content_sha256", "masked_mobile"], unique=True
    )
    op.create_index(
        "uq_replies_masked",
        "replies",
        ["task_id", "account", "masked_mobile", "replied_at", "content_sha256"],
        unique=True,
        **_where("masked_mobile != ''"),
    )
    op.create_index(
        "uq_replies_taskless",
        "replies",
        ["masked_mobile", "account", "replied_at", "content_sha256"],
        unique=True,
        **_where("masked_mobile != '' AND task_id IS NULL"),
    )
    op.create_table(
        "retention",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("horizon", _TIME, nullable=False),
        sa.Column("pruned_at", _TIME),
        sa.PrimaryKeyConstraint("kind", name="pk_retention"),
    )
    op.create_table(
        "rows_set_aside",
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("row_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("found_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "row_id", name="pk_rows_set_aside"),
    )
    op.create_table(
        "shared_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_shared_secrets"),
    )
    op.create_table(
        "status_ages",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_status_ages"),
    )
    op.create_table(
        "targets",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("accounts", sa.JSON()),
        sa.Column("pii", sa.Boolean(), nullable=False),
        sa.Column("not_delivered_after_seconds", sa.Integer()),
        sa.Column("timed", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.Text()),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("paused_at", _TIME),
        sa.Column("paused_because", sa.Text()),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", _TIME),
        sa.Column("delivered", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delivered_at", _TIME),
        sa.Column("failed_at", _TIME),
        sa.Column("last_error", sa.Text()),
        sa.Column("failing_since", _TIME),
        sa.Column("last_status", sa.Integer()),
        sa.Column("headers", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_targets"),
        sa.UniqueConstraint("name", name="uq_targets_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "timers",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_timers"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_timers_due_at", "timers", ["due_at"])
    op.create_index("uq_timers_key", "timers", ["message_id", "target_id", "event"], unique=True)
    op.create_table(
        "tombstones",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("mobile_hmac", sa.Text(), nullable=False),
        sa.Column("forgotten_at", _TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("cleaned_at", _TIME),
        sa.Column("wal_position", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("ended_because", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_user_sessions"),
        sa.UniqueConstraint("token_sha256", name="uq_user_sessions_token_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_user_sessions_user_id", "user_sessions", ["user_id"])
    op.create_table(
        "users",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text()),
        sa.Column("oidc_subject", sa.Text()),
        sa.Column("totp_secret", sa.Text()),
        sa.Column("totp_step", sa.BigInteger()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("accounts", sa.JSON()),
        sa.Column("last_used_at", _TIME),
        sa.Column("recovery_codes", sa.JSON()),
        sa.Column("created_by", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
        sa.UniqueConstraint("oidc_subject", name="uq_users_oidc_subject"),
        sqlite_autoincrement=True,
    )
    _insert_rows(dialect)
    for statement in Path(__file__).with_suffix(f".{dialect}.sql").read_text().split("\n\n"):
        if code := "\n".join(line for line in statement.splitlines() if not line.startswith("-- ")).strip():
            op.execute(sa.text(code.replace(":", _COLON)))


def _insert_rows(dialect: str) -> None:
    """Insert the rows that the tables of one row, or of a few, always have."""
    zeros = "00" * 32
    beginning = rf"'\x{zeros}'::bytea" if dialect == "postgresql" else f"x'{zeros}'"
    before_stamps = "2000-01-01 00:00:00" + ("+00" if dialect == "postgresql" else ".000000")
    for statement in (
        "INSERT INTO delivery_zone (offset_seconds) VALUES (28800)",  # Asia/Shanghai
        "INSERT INTO status_ages (name, seconds) VALUES ('late_after', 60), ('no_receipt_after', 259200)",
        f"INSERT INTO projection (name, position, stamped_at) VALUES ('messages', 0, '{before_stamps}')",  # noqa: S608
        (
            "INSERT INTO audit_chain (name, last_position, last_hash, horizon_position, horizon_hash)"  # noqa: S608
            f" VALUES ('audit', 0, {beginning}, 0, {beginning})"
        ),
    ):
        op.execute(sa.text(statement.replace(":", _COLON)))
