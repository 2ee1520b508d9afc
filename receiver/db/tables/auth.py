"""API keys, push secrets, users, sessions, look-ups, advice."""

from __future__ import annotations

import sqlalchemy as sa

from receiver.db.encryption import EncryptedText
from receiver.db.tables.base import Json, RowId, UtcDateTime, metadata, table

api_keys = table(
    "api_keys",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("key_sha256", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("accounts", Json),  # null: every account
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("created_by", sa.Text),
)

# When each push secret was last used, here or on another node. Never the secret: a keyed digest of it.
push_secrets = sa.Table(
    "push_secrets",
    metadata,
    sa.Column("secret_hmac", sa.LargeBinary, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("known_since", UtcDateTime, nullable=False),  # from when on its uses are counted
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("pushes", sa.BigInteger, nullable=False),
)

# Staff: who may log in to the console.
users = table(
    "users",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text),  # argon2id; null: logs in by single sign-on
    sa.Column("oidc_subject", sa.Text, unique=True),
    sa.Column("totp_secret", sa.Text),
    sa.Column("totp_step", sa.BigInteger),  # time step of the last code used: no code works twice
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("accounts", Json),  # null: every account
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("recovery_codes", Json),  # digests of those that are left
    sa.Column("created_by", sa.Text),
)
user_sessions = table(
    "user_sessions",
    sa.Column("id", RowId, sa.Identity(), primary_key=True),
    sa.Column("token_sha256", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("confirmed", sa.Boolean(create_constraint=False), nullable=False),  # false: the second factor is missing
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("ended_because", sa.Text),  # an Ending; null: it ended before that was kept
)
sa.Index("ix_user_sessions_user_id", user_sessions.c.user_id)  # to end all of one user's
# Failed log-ins, counted by name, by address and by both; hashed, since a password may be typed for a name.
login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("key_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
)
# Look-ups by users, each under a random address: so that no URL holds a number.
look_ups = sa.Table(
    "look_ups",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("text", EncryptedText("look_ups.text"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
sa.Index("ix_look_ups_created_at", look_ups.c.created_at)  # to drop the old ones
# The team's own advice for support staff, if it replaces the built-in one.
advice = sa.Table(
    "advice",
    metadata,
    sa.Column("answer", sa.Text, primary_key=True),
    sa.Column("language", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)
