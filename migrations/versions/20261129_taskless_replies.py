"""Make replies without a task id unique, and find them by number."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NAME = "uq_replies_taskless"


def upgrade() -> None:
    where = sa.text("masked_mobile != '' AND task_id IS NULL")
    create_index(
        _NAME,
        "replies",
        ["masked_mobile", "account", "replied_at", "content_sha256"],
        unique=True,
        postgresql_where=where,
        sqlite_where=where,
    )


def downgrade() -> None:
    op.execute("DELETE FROM replies WHERE masked_mobile != '' AND task_id IS NULL")
    op.drop_index(_NAME, table_name="replies")
