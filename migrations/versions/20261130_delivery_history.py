"""Keep what webhook endpoints accepted last, and since when one fails."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_history")),
    )
    op.create_index("ix_delivery_history_target_id", "delivery_history", ["target_id", "id"])
    op.add_column("targets", sa.Column("failing_since", _TIME))
    op.add_column("targets", sa.Column("last_status", sa.Integer()))
    op.add_column("deliveries", sa.Column("last_status", sa.Integer()))
    op.execute("UPDATE targets SET failing_since = failed_at WHERE delivered_at IS NULL OR failed_at > delivered_at")


def downgrade() -> None:
    op.drop_column("deliveries", "last_status")
    op.drop_column("targets", "last_status")
    op.drop_column("targets", "failing_since")
    op.drop_table("delivery_history")
