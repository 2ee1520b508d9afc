"""List messages and replies of the console by the time that it shows."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_NEVER = {"postgresql": "'1970-01-01 00:00:00+00'", "sqlite": "'1970-01-01 00:00:00.000000'"}


def upgrade() -> None:
    never = _NEVER[op.get_context().dialect.name].replace(":", "\\:")
    time = sa.text(f"coalesce(sent_at, recorded_at, reported_at, {never})")
    create_index("ix_messages_listed_at", "messages", [time, "id"])
    create_index("ix_replies_replied_at", "replies", ["replied_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_replies_replied_at", table_name="replies")
    op.drop_index("ix_messages_listed_at", table_name="messages")
