"""Views for jobs that read by SQL."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.reporting.sql_views import create_statements, drop_statements

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for statement in create_statements():
            op.execute(sa.text(statement.replace(":", "\\:")))


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for statement in drop_statements():
            op.execute(statement)
