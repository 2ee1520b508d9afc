"""Journal, messages, receipts, replies, keys, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("accounts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_sha256", name="uq_api_keys_key_sha256"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("mobile", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("template_id", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("success_counts", sa.Integer(), nullable=True),
        sa.Column("remain_point", sa.Integer(), nullable=True),
        sa.Column("send_state", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_mobile", "messages", ["mobile", "id"], unique=False)
    op.create_index(
        "ix_messages_reference",
        "messages",
        ["reference", "id"],
        unique=False,
        postgresql_where=sa.text("reference IS NOT NULL"),
        sqlite_where=sa.text("reference IS NOT NULL"),
    )
    op.create_index("uq_messages_key", "messages", ["task_id", "mobile", "account"], unique=True)
    op.create_index(
        "uq_messages_refused",
        "messages",
        ["mobile", "reference", "sent_at", "account"],
        unique=True,
        postgresql_where=sa.text("task_id IS NULL"),
        sqlite_where=sa.text("task_id IS NULL"),
    )
    op.create_table(
        "pushes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("flags", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("query", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("remote_addr", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pushes"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_pushes_quarantined",
        "pushes",
        ["id"],
        unique=False,
        postgresql_where=sa.text("outcome = 'quarantined'"),
        sqlite_where=sa.text("outcome = 'quarantined'"),
    )
    op.create_table(
        "receipts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("masked_mobile", sa.Text(), server_default="", nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("push_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("extra", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("vendor_status", sa.Text(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_receipts_key",
        "receipts",
        ["message_id", "reported_at", "vendor_status", "masked_mobile"],
        unique=True,
    )
    op.create_index(
        "uq_receipts_masked",
        "receipts",
        ["task_id", "account", "masked_mobile", "reported_at", "vendor_status"],
        unique=True,
        postgresql_where=sa.text("masked_mobile != ''"),
        sqlite_where=sa.text("masked_mobile != ''"),
    )
    op.create_table(
        "replies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("masked_mobile", sa.Text(), server_default="", nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("push_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("extra", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_exact", sa.LargeBinary(), nullable=True),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("replied_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opt_out", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replies"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_replies_key",
        "replies",
        ["message_id", "replied_at", "content_sha256", "masked_mobile"],
        unique=True,
    )
    op.create_index(
        "uq_replies_masked",
        "replies",
        ["task_id", "account", "masked_mobile", "replied_at", "content_sha256"],
        unique=True,
        postgresql_where=sa.text("masked_mobile != ''"),
        sqlite_where=sa.text("masked_mobile != ''"),
    )
    op.create_table(
        "shared_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_shared_secrets"),
        sqlite_autoincrement=True,
    )
