"""Note when a code was used, and add it up with the rest of the delivery report."""

import sqlalchemy as sa
from alembic import context, op

# The triggers are the program's own: a later change of them drops these and makes them anew.
from receiver.reporting.rollup import create_statements, drop_statements, rebuild_statements

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("verified_at", sa.DateTime(timezone=True)))
    for table in ("delivery_hours", "delivery_hour_changes"):
        op.add_column(table, sa.Column("verified", sa.Integer(), nullable=False, server_default="0"))
    dialect = op.get_context().dialect.name
    for statement in (*drop_statements(dialect), *create_statements(dialect, closes=False)):
        _execute(statement)
    # Nothing was verified before: what is added up already stays right.
    if context.is_offline_mode() or not op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT 1 FROM delivery_hours)")):
        for statement in rebuild_statements(dialect):
            _execute(statement)


def downgrade() -> None:
    for statement in drop_statements(op.get_context().dialect.name):
        op.execute(statement)
    for table in ("delivery_hour_changes", "delivery_hours"):
        op.drop_column(table, "verified")
    op.drop_column("messages", "verified_at")


def _execute(statement: str) -> None:
    op.execute(sa.text(statement.replace(":", "\\:")))
