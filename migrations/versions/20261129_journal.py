"""Keep in the journal what was read, and up to where it is projected.

`reading_digest` is renamed so that a program of the version before, which would also write the receipts of its pushes,
cannot append: it spools them for this version.
"""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("sequence", sa.BigInteger()),
    ("task_id", sa.Text()),
    ("mobile", sa.Text()),
    ("event_at", sa.DateTime(timezone=True)),
    ("vendor_status", sa.Text()),
    ("receipt_extra", sa.JSON()),
    ("reply_extra", sa.JSON()),
    ("content", sa.Text()),
    ("content_exact", sa.LargeBinary()),
    ("content_sha256", sa.LargeBinary()),
    ("content_sealed", sa.LargeBinary()),
    ("content_grams", sa.Text()),
    ("opt_out", sa.Boolean()),
    ("opt_out_review", sa.Boolean()),
)


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    for name, type_ in _COLUMNS:
        op.add_column("pushes", sa.Column(name, type_), if_not_exists=postgresql or None)
    create_index("uq_pushes_sequence", "pushes", ["sequence"], unique=True)
    if postgresql:
        op.execute("CREATE SEQUENCE pushes_sequence OWNED BY pushes.sequence")
        op.execute("ALTER TABLE pushes ALTER COLUMN sequence SET DEFAULT nextval('pushes_sequence')")
    op.create_table(
        "projection",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_projection")),
    )
    op.execute("INSERT INTO projection (name, position) VALUES ('messages', 0)")
    op.execute("-- squawk-ignore renaming-column\nALTER TABLE pushes RENAME COLUMN reading_digest TO digest")
    op.execute("UPDATE incidents SET alarm = 'projection_behind' WHERE alarm = 'events_held_back'")


def downgrade() -> None:
    op.execute("UPDATE incidents SET alarm = 'events_held_back' WHERE alarm = 'projection_behind'")
    op.alter_column("pushes", "digest", new_column_name="reading_digest")
    op.drop_table("projection")
    op.drop_index("uq_pushes_sequence", table_name="pushes")
    for name, _ in _COLUMNS:
        op.drop_column("pushes", name)
