"""Headers of webhook endpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("targets", sa.Column("headers", sa.JSON()))


def downgrade() -> None:
    op.drop_column("targets", "headers")
