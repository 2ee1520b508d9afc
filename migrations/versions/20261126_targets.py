"""Forward to systems of the user's own: targets, and what is to go to them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)
_ALIVE = sa.text("dead_at IS NULL")


def upgrade() -> None:
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
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("retry_at", _TIME),
        sa.Column("delivered", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("delivered_at", _TIME),
        sa.Column("failed_at", _TIME),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_targets")),
        sa.UniqueConstraint("name", name=op.f("uq_targets_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "forward_queue",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("push_id", sa.Uuid()),
        sa.Column("message_id", sa.BigInteger()),
        sa.Column("receipt_id", sa.BigInteger()),
        sa.Column("reply_id", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forward_queue")),
        sqlite_autoincrement=True,
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
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failing_since", _TIME),
        sa.Column("last_error", sa.Text()),
        sa.Column("dead_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sqlite_autoincrement=True,
    )
    for name, columns in (
        ("ix_deliveries_next_at", ["target_id", "next_at", "id"]),
        ("ix_deliveries_order_key", ["target_id", "order_key", "id"]),
    ):
        op.create_index(name, "deliveries", columns, unique=False, postgresql_where=_ALIVE, sqlite_where=_ALIVE)
    op.create_index("ix_deliveries_dead_at", "deliveries", ["target_id", "dead_at", "id"], unique=False)
    op.create_table(
        "timers",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timers")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_timers_key", "timers", ["message_id", "target_id", "event"], unique=True)
    op.create_index("ix_timers_due_at", "timers", ["due_at"], unique=False)


def downgrade() -> None:
    for table in ("timers", "deliveries", "forward_queue", "targets"):
        op.drop_table(table)
