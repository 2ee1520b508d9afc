"""Keep when a message last changed.

Rows that are there have one stamp, the time of this migration: the column's first default, which costs PostgreSQL no
row. New rows, and those that a program of the version before changes, are stamped by this version.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.core import whole_milliseconds
from receiver.db.migration_ops import create_index
from receiver.messages.stamps import create_statements, drop_statements

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TABLES = (("messages", "updated_at"), ("projection", "stamped_at"))
_UNSTAMPED = "1970-01-01 00:00:00"


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    postgresql = dialect == "postgresql"
    now = whole_milliseconds(datetime.now(UTC)).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    for table, name in _TABLES:
        first = f"{now}+00" if postgresql else f"{_UNSTAMPED}.000000"
        column = sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=first)
        op.add_column(table, column, if_not_exists=postgresql or None)
        if postgresql:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT '{_UNSTAMPED}+00'")
        else:  # which changes no default
            op.execute(sa.text(f"UPDATE {table} SET {name} = :now").bindparams(now=now))  # noqa: S608
    for statement in create_statements(dialect):
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
