"""Keep with each push what was read of it, as a digest."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pushes", sa.Column("reading_digest", sa.LargeBinary()))


def downgrade() -> None:
    op.drop_column("pushes", "reading_digest")
