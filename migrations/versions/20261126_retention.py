"""Prune and forget: from when on rows are whole, what stays counted of those that are gone, forgotten numbers."""

import sqlalchemy as sa
from alembic import op

# The triggers are the program's own: a later change of them replaces these.
from receiver.reporting.rollup import create_statements, drop_statements, replace_statements

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)
_COUNTS = ("sent", "refused", "open", "delivered", "failed", "unknown", "waiting", "unmatched")


def upgrade() -> None:
    op.add_column(
        "delivery_zone",
        sa.Column("closed_before", sa.BigInteger(), nullable=False, server_default="-1000000000000"),
    )
    op.create_table(
        "forgotten_hours",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        *(sa.Column(count, sa.Integer(), nullable=False) for count in _COUNTS),
        sa.Column("verified", sa.Integer(), nullable=False, server_default="0"),
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
        "retention",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("horizon", _TIME, nullable=False),
        sa.Column("pruned_at", _TIME),
        sa.PrimaryKeyConstraint("kind", name="pk_retention"),
    )
    op.create_table(
        "tombstones",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("mobile_hmac", sa.Text(), nullable=False),
        sa.Column("forgotten_at", _TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("cleaned_at", _TIME),
        sa.Column("wal_position", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
        sqlite_autoincrement=True,
    )
    for statement in replace_statements(op.get_context().dialect.name):
        _execute(statement)


def downgrade() -> None:
    dialect = op.get_context().dialect.name
    for statement in (*drop_statements(dialect), *create_statements(dialect, closes=False)):
        _execute(statement)
    for table in ("tombstones", "retention", "forgotten_latencies", "forgotten_hours"):
        op.drop_table(table)
    op.drop_column("delivery_zone", "closed_before")


def _execute(statement: str) -> None:
    op.execute(sa.text(statement.replace(":", "\\:")))
