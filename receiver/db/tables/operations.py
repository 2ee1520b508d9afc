"""Retention, erasure, alarms, and state shared by processes."""

from __future__ import annotations

import sqlalchemy as sa

from receiver.db.tables.base import Json, RowId, UtcDateTime, index, metadata, table

# From when on each kind of row is complete: older ones are pruned, or being pruned.
retention = table(
    "retention",
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("horizon", UtcDateTime, nullable=False),
    sa.Column("pruned_at", UtcDateTime),  # when all older rows were last verified as gone; null: not yet
)
# One row: up to which `pushes.sequence` the journal is projected, and the last stamp that was given to messages. Its
# lock is the projector's turn.
projection = sa.Table(
    "projection",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("stamped_at", UtcDateTime, nullable=False, server_default="1970-01-01 00:00:00+00"),
)
# Rows that cannot be read, or whose times cannot be right: readers leave them out (`set_aside`).
rows_set_aside = table(
    "rows_set_aside",
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("row_id", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("found_at", UtcDateTime, nullable=False),
)
# Erased numbers, as keyed hashes, and how many rows were erased with each.
tombstones = table(
    "tombstones",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("mobile_hmac", sa.Text, nullable=False),
    sa.Column("forgotten_at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("counts", Json, nullable=False),  # rows by table
    sa.Column("cleaned_at", UtcDateTime),  # when the database's files were cleaned of it; null: not yet
    sa.Column("wal_position", sa.Text),  # PostgreSQL: up to where its log may hold it
)

# The last time of each notice, so that several processes give it once.
notices = table(
    "notices",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("said_at", UtcDateTime, nullable=False),
)

# Open and recovered incidents, tracked by `receiver run alarms`; those of one node only when they are over.
incidents = table(
    "incidents",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),  # which of several: an account; empty: there is one
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("said_at", UtcDateTime),  # null: not seen twice yet
    sa.Column("clear_at", UtcDateTime),  # from when on it was not seen any more
    sa.Column("recovered_at", UtcDateTime),
    sa.Column("node", sa.Text, nullable=False, server_default=""),  # the one that it concerned; empty: all
)
index(
    "uq_incidents_open",
    incidents.c.alarm,
    incidents.c.subject,
    unique=True,
    where=incidents.c.recovered_at.is_(None),
)
sa.Index("ix_incidents_recovered_at", incidents.c.recovered_at)  # those that are open, or were a day ago
# Notifications sent: one row for each incident, target and state.
incident_tellings = sa.Table(
    "incident_tellings",
    metadata,
    sa.Column("incident_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, primary_key=True),  # a hash of its address, which is secret
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("claimed_at", UtcDateTime, nullable=False),  # by the notifying process
    sa.Column("told_at", UtcDateTime),  # null: not sent, or not yet
)
# Events that become due by time alone.
timers = table(
    "timers",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("target_id", sa.BigInteger, nullable=False),
    sa.Column("message_id", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
)
sa.Index("uq_timers_key", timers.c.message_id, timers.c.target_id, timers.c.event, unique=True)
sa.Index("ix_timers_due_at", timers.c.due_at)

# Keys that every node must share: that of the cursors, that of the audit's hashes.
shared_secrets = table(
    "shared_secrets",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

# The state of this database's encryption (`db.encryption`): one row, or none while it is plain.
encryption = sa.Table(
    "encryption",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),  # root key of the tokens, itself encrypted
)
