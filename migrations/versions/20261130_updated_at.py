"""Keep when a message last changed.

Rows that are there have one stamp, below all that will be given: the column's first default, which writes no row. New
rows, and those that a program of the version before changes, are stamped by this version.
"""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index
from receiver.messages.stamps import create_statements, drop_statements
from receiver.reporting import rollup

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TABLES = (("messages", "updated_at"), ("projection", "stamped_at"))
_BEFORE_STAMPS, _UNSTAMPED = "2000-01-01 00:00:00", "1970-01-01 00:00:00"
_WATCHED = (
    *("account", "task_id", "template_id", "reference", "sent_at", "recorded_at"),
    *("status", "reported_at", "seen", "send_state", "error_message", "verified_at"),
)


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    postgresql = dialect == "postgresql"
    for table, name in _TABLES:
        first = f"{_BEFORE_STAMPS}+00" if postgresql else f"{_BEFORE_STAMPS}.000000"
        column = sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=first)
        op.add_column(table, column, if_not_exists=postgresql or None)
        if postgresql:  # with SQLite, which changes no default, a trigger does it
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT '{_UNSTAMPED}+00'")
    for statement in create_statements(dialect, _WATCHED):
        op.execute(sa.text(statement.replace(":", "\\:")))
    if postgresql:  # so that a stamp costs the report nothing
        for statement in rollup.replace_statements(dialect):
            op.execute(sa.text(statement.replace(":", "\\:")))
    create_index("ix_messages_updated_at", "messages", ["updated_at", "id"])


def downgrade() -> None:
    dialect = op.get_context().dialect.name
    for statement in drop_statements(dialect):
        op.execute(statement)
    if dialect == "postgresql":
        op.execute("DROP FUNCTION messages_unstamp()")
    op.drop_index("ix_messages_updated_at", table_name="messages")
    for table, name in _TABLES:
        op.drop_column(table, name)
