"""What the delivery report adds up, kept by triggers; indexes by time of sending and of unmatched messages."""

import sqlalchemy as sa
from alembic import op

from receiver.db.migration_ops import create_index

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNTS = ("sent", "refused", "open", "delivered", "failed", "unknown", "waiting", "unmatched")
_OFFSET_SECONDS = 8 * 3600  # Asia/Shanghai; `receiver db rollup` sets another


def upgrade() -> None:
    for name, column, matched in (
        ("ix_messages_age_from", sa.text("coalesce(sent_at, recorded_at)"), "IS NOT NULL"),
        ("ix_messages_unmatched", "id", "IS NULL"),
    ):
        where = sa.text(f"recorded_at {matched}")
        create_index(name, "messages", [column], postgresql_where=where, sqlite_where=where)
    for name, key in (("delivery_hours", True), ("delivery_hour_changes", False)):
        op.create_table(
            name,
            sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
            sa.Column("account", sa.Text(), nullable=False),
            sa.Column("template_id", sa.Text(), nullable=False),
            *(sa.Column(count, sa.Integer(), nullable=False) for count in _COUNTS),
            *([sa.PrimaryKeyConstraint("hour", "account", "template_id", name=f"pk_{name}")] if key else []),
        )
    for name, key in (("delivery_latencies", True), ("delivery_latency_changes", False)):
        op.create_table(
            name,
            sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
            sa.Column("account", sa.Text(), nullable=False),
            sa.Column("template_id", sa.Text(), nullable=False),
            sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
            sa.Column("messages", sa.Integer(), nullable=False),
            *([sa.PrimaryKeyConstraint("day", "account", "template_id", "seconds", name=f"pk_{name}")] if key else []),
        )
    op.create_table(
        "delivery_zone",
        sa.Column("offset_seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("offset_seconds", name="pk_delivery_zone"),
    )
    op.execute(f"INSERT INTO delivery_zone (offset_seconds) VALUES ({_OFFSET_SECONDS})")  # noqa: S608
    # What keeps them added up follows with the last of their columns, in 0006.


def downgrade() -> None:
    op.drop_index("ix_messages_unmatched", table_name="messages")
    op.drop_index("ix_messages_age_from", table_name="messages")
    for table in ("zone", "latency_changes", "latencies", "hour_changes", "hours"):
        op.drop_table(f"delivery_{table}")
