"""Why a session ended; recovery codes; who created keys and users."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_sessions", sa.Column("ended_because", sa.Text()))
    op.add_column("users", sa.Column("recovery_codes", sa.JSON()))
    op.add_column("users", sa.Column("created_by", sa.Text()))
    op.add_column("api_keys", sa.Column("created_by", sa.Text()))


def downgrade() -> None:
    op.drop_column("api_keys", "created_by")
    op.drop_column("users", "created_by")
    op.drop_column("users", "recovery_codes")
    op.drop_column("user_sessions", "ended_because")
