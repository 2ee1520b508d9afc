"""Chain the audit's entries; say which accounts a user may see, and when keys and users were last used."""

import json

import sqlalchemy as sa
from alembic import context, op

from receiver.audit import BEGINNING, CHAIN, create_statements, drop_statements, link_up
from receiver.db.migration_ops import create_index
from receiver.db.tables import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_BATCH = 5000
_UNCHAINED, _NUMBERED = sa.text("position IS NULL"), sa.text("mobile_hmac IS NOT NULL")
# As this migration finds it; the program's own may have grown.
audit = sa.table(
    "audit",
    sa.column("id", sa.BigInteger),
    sa.column("at", UtcDateTime()),
    sa.column("actor", sa.Text),
    sa.column("action", sa.Text),
    sa.column("detail", sa.JSON),
    sa.column("position", sa.BigInteger),
    sa.column("hash", sa.LargeBinary),
)


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    for name, kind in (("position", sa.BigInteger()), ("hash", sa.LargeBinary()), ("mobile_hmac", sa.Text())):
        op.add_column("audit", sa.Column(name, kind), if_not_exists=True if postgresql else None)
    create_index("uq_audit_position", "audit", ["position"], unique=True)
    create_index("ix_audit_unchained", "audit", ["id"], postgresql_where=_UNCHAINED, sqlite_where=_UNCHAINED)
    create_index("ix_audit_actor", "audit", ["actor", "id"])
    create_index("ix_audit_action", "audit", ["action", "id"])
    create_index(
        "ix_audit_mobile_hmac", "audit", ["mobile_hmac", "id"], postgresql_where=_NUMBERED, sqlite_where=_NUMBERED
    )
    if not context.is_offline_mode():
        _chain()
    op.create_table(
        "audit_chain",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.LargeBinary(), nullable=False),
        sa.Column("horizon_position", sa.BigInteger(), nullable=False),
        sa.Column("horizon_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_chain")),
    )
    zeros = r"'\x" + BEGINNING.hex() + "'::bytea" if postgresql else f"x'{BEGINNING.hex()}'"
    newest = "FROM audit WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1"
    op.execute(
        "INSERT INTO audit_chain (name, last_position, last_hash, horizon_position, horizon_hash)"
        f" SELECT '{CHAIN}', coalesce((SELECT position {newest}), 0), coalesce((SELECT hash {newest}), {zeros}),"
        f" 0, {zeros}"
    )
    op.create_table(
        "audit_followers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_followers")),
    )
    for statement in create_statements(op.get_context().dialect.name):
        op.execute(statement)
    op.add_column("users", sa.Column("accounts", sa.JSON()))
    for table in ("api_keys", "users"):
        op.add_column(table, sa.Column("last_used_at", sa.DateTime(timezone=True)))


def _chain() -> None:
    """Take every entry into the chain, in batches; on PostgreSQL each is a transaction, which may be repeated.

    What the version before writes from here on, the first writer of this one takes in.
    """
    migration = op.get_context()
    position, before = 0, BEGINNING
    newest = sa.select(audit.c.position, audit.c.hash).where(audit.c.position.isnot(None))
    if found := op.get_bind().execute(newest.order_by(audit.c.position.desc()).limit(1)).one_or_none():
        position, before = found.position, bytes(found.hash)
    waiting = sa.select(audit).where(audit.c.position.is_(None)).order_by(audit.c.id).limit(_BATCH)
    while entries := list(op.get_bind().execute(waiting).mappings()):
        linked = list(link_up(entries, position, before))
        if migration.dialect.name == "postgresql":
            rows = [row | {"new_hash": row["new_hash"].hex()} for row in linked]
            with migration.autocommit_block():
                op.get_bind().execute(_TAKE_IN, {"rows": json.dumps(rows)})
        else:
            op.get_bind().execute(_TAKE_IN_ONE, linked)
        position, before = linked[-1]["new_position"], linked[-1]["new_hash"]


_TAKE_IN = sa.text(
    "UPDATE audit SET position = new_position, hash = decode(new_hash, 'hex'), mobile_hmac = new_mobile_hmac"
    " FROM json_to_recordset(CAST(:rows AS json))"
    " AS linked(entry_id bigint, new_position bigint, new_hash text, new_mobile_hmac text)"
    " WHERE id = entry_id"
)
_TAKE_IN_ONE = sa.text(
    "UPDATE audit SET position = :new_position, hash = :new_hash, mobile_hmac = :new_mobile_hmac WHERE id = :entry_id"
)


def downgrade() -> None:
    for statement in drop_statements(op.get_context().dialect.name):
        op.execute(statement)
    for table in ("api_keys", "users"):
        op.drop_column(table, "last_used_at")
    op.drop_column("users", "accounts")
    op.drop_table("audit_followers")
    op.drop_table("audit_chain")
    for name in (
        "ix_audit_mobile_hmac",
        "ix_audit_action",
        "ix_audit_actor",
        "ix_audit_unchained",
        "uq_audit_position",
    ):
        op.drop_index(name, table_name="audit")
    for name in ("mobile_hmac", "hash", "position"):
        op.drop_column("audit", name)
