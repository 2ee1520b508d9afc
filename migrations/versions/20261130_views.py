"""Views for SQL readers with the columns of API and files, on both databases, and an index that they can use."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index
from receiver.reporting.sql_views import drop_statements, renew_statements

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_TIME = "coalesce(sent_at, recorded_at)"


def upgrade() -> None:
    # The condition of the index before, `recorded_at IS NOT NULL`, does not follow from a comparison with the time.
    where = sa.text(f"{_TIME} IS NOT NULL")
    create_index("ix_messages_counted_at", "messages", [sa.text(_TIME)], postgresql_where=where, sqlite_where=where)
    # The lock is short, and tried again where it is not got at once (`migrate.upgrade`).
    op.execute("-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX ix_messages_age_from")
    op.create_table(
        "status_ages",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_status_ages")),
    )
    op.execute("INSERT INTO status_ages (name, seconds) VALUES ('late_after', 60), ('no_receipt_after', 259200)")
    context = op.get_context()
    dialect = context.dialect.name
    for statement in renew_statements(dialect, None if context.as_sql else op.get_bind()):
        op.execute(sa.text(statement.replace(":", "\\:")))
    if dialect == "postgresql":
        op.execute("DROP FUNCTION IF EXISTS reporting.mask(text)")  # of the views before


def downgrade() -> None:
    """Return to the schema without views: those of version 1, which 0007 once made, are lost."""
    where = sa.text("recorded_at IS NOT NULL")
    create_index("ix_messages_age_from", "messages", [sa.text(_TIME)], postgresql_where=where, sqlite_where=where)
    for statement in drop_statements(op.get_context().dialect.name):
        op.execute(statement)
    op.execute("DROP TABLE IF EXISTS status_ages")
    op.drop_index("ix_messages_counted_at", table_name="messages", if_exists=True)
