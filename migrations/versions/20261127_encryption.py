"""Make room for sealed contents, for what they are found by, and for how far the encryption is."""

import sqlalchemy as sa
from alembic import op

# The program's own, as with the delivery report.
from receiver.db.migration_ops import create_index
from receiver.messages.search import GRAMS, GRAMS_WHERE, drop_encrypted_statements, encrypted_statements

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    postgresql = dialect == "postgresql"  # where the index ends a transaction: what is before it may be repeated
    for column in (sa.Column("content_sealed", sa.LargeBinary()), sa.Column("content_grams", sa.Text())):
        op.add_column("replies", column, if_not_exists=True if postgresql else None)
    if postgresql:
        create_index(
            "ix_replies_grams",
            "replies",
            [sa.text(GRAMS)],
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
            postgresql_where=sa.text(GRAMS_WHERE),
        )
    for statement in encrypted_statements(dialect):
        op.execute(sa.text(statement.replace(":", "\\:")))
    op.create_table(
        "encryption",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_encryption")),
    )


def downgrade() -> None:
    op.drop_table("encryption")
    for statement in drop_encrypted_statements(op.get_context().dialect.name):
        op.execute(statement)
    for name in ("content_grams", "content_sealed"):
        op.drop_column("replies", name)
