"""Views for SQL readers, and roles that may read only them. PostgreSQL only.

The views are a stable interface: a column keeps its name and meaning; `reporting.version` counts additions. Numbers are
masked as without the scope `pii`. Nothing depends on the present moment: a message without a receipt is `pending`, for
however long. SQL cannot decrypt: numbers of an encrypted database are `***`, and contents are empty.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import VENDOR_STATUSES, MessageStatus, ReceiverError
from receiver.db.encryption import TOKEN_CHARS
from receiver.db.message_status import BARE, as_text, seen_both, status_of
from receiver.db.sql import masked_mobile

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_READER_SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "600s",
    "idle_in_transaction_session_timeout": "60s",
    "search_path": "reporting",
    "timezone": "UTC",
}
_READER_CONNECTIONS = 3


def create_statements() -> Iterator[str]:
    """Yield the statements that create or replace the schema and its views."""
    yield "CREATE SCHEMA IF NOT EXISTS reporting"
    yield mask_statement()
    yield f"CREATE OR REPLACE VIEW reporting.version AS SELECT {VERSION} AS version"
    yield f"""CREATE OR REPLACE VIEW reporting.messages AS SELECT
        id, account, task_id, reporting.mask(mobile) AS mobile, template_id, reference, sent_at, recorded_at,
        {as_text(status_of(None, BARE))} AS status,
        reported_at, CASE WHEN sent_at < reported_at THEN reported_at - sent_at
            WHEN sent_at >= reported_at THEN interval '0' END AS latency, recorded_at IS NOT NULL AS matched,
        {as_text(seen_both(BARE))} AS conflicting, error_message, verified_at
    FROM messages"""  # noqa: S608
    known = " ".join(f"WHEN '{said}' THEN '{status.name.lower()}'" for said, status in VENDOR_STATUSES.items())
    unknown = MessageStatus.UNKNOWN.value
    said = f"CASE s.vendor_status {known} ELSE '{unknown}' END AS status, s.vendor_status, s.reported_at"
    for table, own in (
        ("receipts", said),
        ("replies", "s.content, s.opt_out, s.opt_out_review, s.replied_at"),
    ):
        yield f"""CREATE OR REPLACE VIEW reporting.{table} AS SELECT
            s.id, s.message_id, coalesce(s.account, m.account) AS account, coalesce(s.task_id, m.task_id) AS task_id,
            reporting.mask(coalesce(nullif(s.masked_mobile, ''), m.mobile)) AS mobile, {own},
            s.received_at, s.last_seen_at, s.copies, s.push_id
        FROM {table} AS s LEFT JOIN messages AS m ON m.id = s.message_id"""  # noqa: S608


def mask_statement() -> str:
    """Return the statement that creates the function by which the views mask numbers; a token shows nothing."""
    return f"""CREATE OR REPLACE FUNCTION reporting.mask(mobile text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT CASE
        WHEN length(mobile) = {TOKEN_CHARS} THEN '***' ELSE {masked_mobile("postgresql", "mobile")} END $$"""


def drop_statements() -> Iterator[str]:
    """Yield the statements that remove the schema and its views."""
    for view in ("replies", "receipts", "messages", "version"):
        yield f"DROP VIEW IF EXISTS reporting.{view}"
    yield "DROP FUNCTION IF EXISTS reporting.mask"
    yield "DROP SCHEMA IF EXISTS reporting"


def make_reader(connection: sa.Connection, name: str) -> str:
    """Create a role that may read only the views, or renew its password; return the password, this once.

    Raises ReceiverError for an invalid name, for a role that was not created here, and on SQLite.
    """
    if connection.dialect.name != "postgresql":
        raise ReceiverError("the embedded database has no roles; export, or use PostgreSQL")
    if not _ROLE.fullmatch(name):
        raise ReceiverError("a role's name is lower-case letters, digits and _, at most 63")
    mark = "reads receiver's reporting views"
    described = sa.text("SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = :name")
    found = connection.scalar(described, {"name": name})
    if found not in (None, mark):
        raise ReceiverError(f"the role {name} exists and was not created by receiver; choose another name")
    password = secrets.token_urlsafe(24)
    verb = "CREATE" if found is None else "ALTER"
    # As its digest, since the server's log may hold the statement.
    pgconn: Any = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
    digest = pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    limits = f"CONNECTION LIMIT {_READER_CONNECTIONS} NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT"
    # DDL takes no parameters; neither the name nor the digest has a quote in it.
    statements = [
        f"{verb} ROLE {name} LOGIN PASSWORD '{digest}' {limits}",
        *(f"ALTER ROLE {name} SET {setting} = '{value}'" for setting, value in _READER_SETTINGS.items()),
        f"COMMENT ON ROLE {name} IS $${mark}$$",
        f"GRANT USAGE ON SCHEMA reporting TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {name}",
    ]
    for statement in statements:
        connection.exec_driver_sql(statement)
    return password
