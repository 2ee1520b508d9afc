"""Index what replies say and when sightings came; flag replies that may ask for no more."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report: a later change of them drops these and makes them anew.
from receiver.db.migration_ops import create_index
from receiver.messages.search import create_statements, drop_statements

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_FLAGS = ("opt_out", "opt_out_review")


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    postgresql = dialect == "postgresql"  # where each index ends a transaction: what is before it may be repeated
    op.add_column(
        "replies",
        sa.Column("opt_out_review", sa.Boolean(), nullable=False, server_default=sa.false()),
        if_not_exists=True if postgresql else None,
    )
    for statement in create_statements(dialect):
        op.execute(sa.text(statement.replace(":", "\\:")))
    if postgresql:
        # Without a list of what is still to be put in: emptying it would make one push wait for many.
        grams = sa.text("text_grams(lower(content))")
        create_index(
            "ix_replies_text", "replies", [grams], postgresql_using="gin", postgresql_with={"fastupdate": "off"}
        )
    for flag in _FLAGS:
        where = sa.text(flag)
        create_index(f"ix_replies_{flag}", "replies", ["id"], postgresql_where=where, sqlite_where=where)
    for table in ("receipts", "replies"):
        create_index(
            f"ix_{table}_received_at",
            table,
            ["received_at"],
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        )


def downgrade() -> None:
    for statement in drop_statements(op.get_context().dialect.name):
        op.execute(statement)
    for table in ("receipts", "replies"):
        op.drop_index(f"ix_{table}_received_at", table_name=table)
    for flag in _FLAGS:
        op.drop_index(f"ix_replies_{flag}", table_name="replies")
    op.drop_column("replies", "opt_out_review")
