"""Know when each push secret was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "push_secrets",
        sa.Column("secret_hmac", sa.LargeBinary(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("known_since", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME),
        sa.Column("pushes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("secret_hmac", name=op.f("pk_push_secrets")),
    )


def downgrade() -> None:
    op.drop_table("push_secrets")
