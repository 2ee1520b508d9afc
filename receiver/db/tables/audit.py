"""The audit log and its followers."""

from __future__ import annotations

import sqlalchemy as sa

from receiver.db.tables.base import Json, RowId, UtcDateTime, index, metadata, table

# Who read what, and who changed what. Numbers stand here as keyed hashes only. Each entry is a link of a chain
# (`audit.log`); one without a position was not written by this program.
audit = table(
    "audit",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("detail", Json),
    sa.Column("position", sa.BigInteger),  # 1, 2, 3 …: ids have gaps, which would hide one that is gone
    sa.Column("hash", sa.LargeBinary),  # of the one before and of this
    sa.Column("mobile_hmac", sa.Text),  # the one in `detail`, to find it by: no index may look into JSON that has NUL
)
sa.Index("uq_audit_position", audit.c.position, unique=True)
index(
    "ix_audit_unchained",
    audit.c.id,
    where=audit.c.position.is_(None),
)
sa.Index("ix_audit_actor", audit.c.actor, audit.c.id)
sa.Index("ix_audit_action", audit.c.action, audit.c.id)
index(
    "ix_audit_mobile_hmac",
    audit.c.mobile_hmac,
    audit.c.id,
    where=audit.c.mobile_hmac.isnot(None),
)
# One row: where the chain ends, and up to where pruning has taken entries away. Its lock is a writer's turn.
audit_chain = sa.Table(
    "audit_chain",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_position", sa.BigInteger, nullable=False),
    sa.Column("last_hash", sa.LargeBinary, nullable=False),
    sa.Column("horizon_position", sa.BigInteger, nullable=False),
    sa.Column("horizon_hash", sa.LargeBinary, nullable=False),
)
# Up to where the audit was sent on, by what it is sent to.
audit_followers = sa.Table(
    "audit_followers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)
