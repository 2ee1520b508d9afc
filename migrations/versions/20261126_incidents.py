"""Follow what is wrong: incidents, and who was told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)
_OPEN = sa.text("recovered_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", _ID, sa.Identity(), nullable=False),
        sa.Column("alarm", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("said_at", _TIME),
        sa.Column("clear_at", _TIME),
        sa.Column("recovered_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_incidents_open", "incidents", ["alarm", "subject"], unique=True, postgresql_where=_OPEN, sqlite_where=_OPEN
    )
    op.create_index("ix_incidents_recovered_at", "incidents", ["recovered_at"], unique=False)
    op.create_table(
        "incident_tellings",
        sa.Column("incident_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("told_at", _TIME),
        sa.PrimaryKeyConstraint("incident_id", "target", "state", name=op.f("pk_incident_tellings")),
    )


def downgrade() -> None:
    op.drop_table("incident_tellings")
    op.drop_table("incidents")
