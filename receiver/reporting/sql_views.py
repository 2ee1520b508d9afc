"""Views for SQL readers, and roles of PostgreSQL that may read only them.

The views are a stable interface: a column keeps its name and meaning; the view `version` counts additions. Their
columns are the fields that API and files have, in the same order. PostgreSQL has them in the schema `reporting`, the
embedded database, which has no schemas, as `reporting_…`. Numbers are masked as without the scope `pii`. SQL cannot
decrypt: numbers of an encrypted database are `***`, contents and undocumented fields are empty.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from receiver.core import ReceiverError
from receiver.db.encryption import TOKEN_CHARS
from receiver.db.message_status import ViewClock
from receiver.db.sql import text_without_numbers, texts_in_view
from receiver.db.tables import messages, receipts, replies
from receiver.messages import row_sql
from receiver.messages.fields import Field, FieldType, fields_of
from receiver.messages.queries import MessageRow, ReceiptRow, ReplyRow, select_inbound_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = 2
_ABOUT = {
    "messages": "What was sent, one row for each (account, task_id, mobile); as of the present moment.",
    "receipts": "Delivery receipts: each that differs, once.",
    "replies": "Replies of phones: each that differs, once.",
    "version": "How often columns were added to these views.",
}
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_READER_SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "600s",
    "idle_in_transaction_session_timeout": "60s",
    "search_path": "reporting",
    "timezone": "UTC",
    # As for our own sessions: compiling takes longer than nearly every query, and pushes need the processors.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
READER_CONNECTIONS = 10  # what dlt and dbt open by their defaults, and as many again


def create_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that create the views, described where the database can store that."""
    if dialect == "postgresql":
        yield "CREATE SCHEMA IF NOT EXISTS reporting"
        yield f"COMMENT ON SCHEMA reporting IS {_quoted('Views for SQL readers, numbers masked.')}"
    yield f"CREATE VIEW {_name(dialect, 'version')} AS SELECT {VERSION} AS version"
    for name, query in _queries(dialect).items():
        compiled = query.compile(
            dialect=postgresql.dialect() if dialect == "postgresql" else sqlite.dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
        yield f"CREATE VIEW {_name(dialect, name)} AS {compiled}"
    if dialect == "postgresql":
        yield from _comments()


def drop_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that remove the views; the schema stays, with who may use it."""
    for name in _ABOUT:
        yield f"DROP VIEW IF EXISTS {_name(dialect, name)}"


def renew_statements(dialect: str, connection: sa.Connection | None) -> Iterator[str]:
    """Yield the statements that replace the views by today's, for a migration; who may read one still may.

    `connection` None: the statements are only written.
    """
    granted = connection.exec_driver_sql(_GRANTED).all() if connection and dialect == "postgresql" else []
    yield from drop_statements(dialect)
    yield from create_statements(dialect)
    for name, role in granted:
        yield f"GRANT SELECT ON reporting.{name} TO {role}"


_GRANTED = """
    SELECT relname, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_class CROSS JOIN aclexplode(relacl)
    WHERE relnamespace = to_regnamespace('reporting') AND relkind = 'v' AND privilege_type = 'SELECT'
    AND grantee <> relowner
"""
_ROWS: Mapping[str, Any] = {"messages": MessageRow, "receipts": ReceiptRow, "replies": ReplyRow}


def _name(dialect: str, view: str) -> str:
    return f"reporting.{view}" if dialect == "postgresql" else f"reporting_{view}"


def _queries(dialect: str) -> dict[str, sa.Select[Any]]:
    values = {
        # As it is stored, by which its index finds what has changed.
        "messages": {**row_sql.message_values(ViewClock), "updated_at": messages.c.updated_at},
        "receipts": row_sql.inbound_values(receipts),
        "replies": row_sql.inbound_values(replies),
    }
    sources: dict[str, sa.Select[Any]] = {
        "messages": sa.select(messages),
        "receipts": select_inbound_events(receipts),
        "replies": select_inbound_events(replies),
    }
    return {
        name: source.with_only_columns(
            *(_in_view(dialect, field, values[name][field.name]).label(field.name) for field in fields_of(_ROWS[name])),
            maintain_column_froms=True,
        )
        for name, source in sources.items()
    }


def _in_view(dialect: str, field: Field, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    if field.name == "mobile":
        encrypted = sa.func.length(value) == TOKEN_CHARS
        return sa.case((encrypted, sa.literal("***")), else_=row_sql.masked(value))
    return (_on_postgresql if dialect == "postgresql" else _on_sqlite)(field, value)


def _on_postgresql(field: Field, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a field in the database's own type."""
    if field.name == "content":
        return row_sql.masked_text(value)
    # Not as JSON: dlt's pandas backend makes Python's text of it, and cannot load that.
    return row_sql.texts(value) if field.type is FieldType.TEXTS else value


def _on_sqlite(field: Field, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a field as the API has it, by what any program's SQLite can do: it has no functions of ours."""
    if field.name == "content":
        return sa.literal_column(text_without_numbers(str(value)))
    match field.type:
        case FieldType.PLATFORM_TIME:
            return row_sql.iso_seconds(value)
        case FieldType.OUR_TIME:
            return row_sql.iso(value)
        case FieldType.UUID:
            return row_sql.uuid_text(value)
        case FieldType.TEXTS:
            return sa.literal_column(texts_in_view(str(value)))
    return value


def _comments() -> Iterator[str]:
    for name, about in _ABOUT.items():
        yield f"COMMENT ON VIEW reporting.{name} IS {_quoted(about)}"
    yield f"COMMENT ON COLUMN reporting.version.version IS {_quoted(_ABOUT['version'])}"
    for name, row in _ROWS.items():
        for field in fields_of(row):
            yield f"COMMENT ON COLUMN reporting.{name}.{field.name} IS {_quoted(field.description)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# --- Roles ----------------------------------------------------------------------------------------------


def make_reader(connection: sa.Connection, name: str, *, connections: int = READER_CONNECTIONS) -> str:
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
    limits = f"CONNECTION LIMIT {connections} NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT"
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
