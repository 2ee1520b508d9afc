"""PostgreSQL databases whose schema is up to date, one for each test; one that a test has left is emptied and given on.

Emptying takes a fraction of what making and dropping takes: a database is some 400 files.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

# In these catalogues any change of the schema, its triggers, its rights or its statistics leaves a newer row or
# fewer rows.
_CATALOGUES = (
    "pg_attrdef", "pg_attribute", "pg_class", "pg_collation", "pg_constraint", "pg_default_acl", "pg_description",
    "pg_enum", "pg_event_trigger", "pg_extension", "pg_index", "pg_inherits", "pg_largeobject_metadata",
    "pg_namespace", "pg_policy", "pg_proc", "pg_publication", "pg_rewrite", "pg_sequence", "pg_statistic",
    "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
_SCHEMA = " UNION ALL ".join(f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name}" for name in _CATALOGUES)
_SETTINGS = """
SELECT datacl::text, (SELECT string_agg(each::text, ' ') FROM pg_db_role_setting each WHERE setdatabase = base.oid)
FROM pg_database base WHERE datname = current_database()
"""
_TABLES = """
SELECT oid::regclass::text, pg_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND oid >= 16384 AND pg_relation_size(oid) > 0
"""
_SEQUENCES = "SELECT seqrelid::regclass::text, pg_sequence_last_value(seqrelid), seqstart FROM pg_sequence"
_LARGE_BYTES = 2 << 20  # of all tables: what is deleted stays in their files, and a test may have left a lot


class Databases:
    """Databases like one whose schema is up to date, on the server of this maintenance database.

    A test never sees the name of an earlier one: what an earlier test has left running does not find its database.
    One whose schema, rights, settings or statistics a test has changed is dropped.
    """

    def __init__(self, maintenance: str, template: str) -> None:
        self._maintenance = psycopg.connect(maintenance, autocommit=True)
        self._place = maintenance.rpartition("/")[0]
        self._template = template
        self._idle: list[str] = []
        with psycopg.connect(f"{self._place}/{template}") as connection:
            self._shape = _read_shape(connection)
            self._rows = {table: _read_rows(connection, table) for table, _ in connection.execute(_TABLES)}
            self._sequences = _read_sequences(connection)
            # Emptying goes past triggers that refuse it.
            asked = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
            self._may_empty = asked == (True,)

    def close(self) -> None:
        """Drop those that no test has."""
        for name in self._idle:
            self._drop(name)
        self._maintenance.close()

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Give the URL of one, for SQLAlchemy, that no other test has meanwhile."""
        name = f"test_{uuid.uuid4().hex}"
        if self._idle:
            self._end_sessions(self._idle[-1])  # which renaming looks for but ten times a second
            self._run("ALTER DATABASE {} RENAME TO {}", self._idle[-1], name)
            self._idle.pop()
        else:
            self._run("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        yield f"{self._place}/{name}".replace("postgresql://", "postgresql+psycopg://")
        if self._may_empty and self._empty(name):
            self._idle.append(name)
        else:
            self._drop(name)

    def _empty(self, name: str) -> bool:
        """Make it as the template is; False if only its data could be."""
        self._end_sessions(name)
        with psycopg.connect(f"{self._place}/{name}") as connection:
            if _read_shape(connection) != self._shape:
                return False
            tables: dict[str, int] = dict(connection.execute(_TABLES).fetchall())
            if sum(tables.values()) > _LARGE_BYTES:
                return False
            connection.execute("SET session_replication_role = replica")
            wrong = [
                table
                for table in tables | self._rows
                if table not in self._rows or _read_rows(connection, table) != self._rows[table]
            ]
            if wrong:
                connection.execute("; ".join(f"DELETE FROM {table}" for table in wrong))
            for table in wrong:
                for row in self._rows.get(table, ()):
                    connection.execute(f"INSERT INTO {table} SELECT (%s::{table}).*", [row])
            for sequence, state in _read_sequences(connection).items():
                if state != self._sequences[sequence]:
                    connection.execute("SELECT setval(%s, %s, %s)", [sequence, *self._sequences[sequence]])
        return True

    def _end_sessions(self, name: str) -> None:
        self._maintenance.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name]
        )

    def _drop(self, name: str) -> None:
        self._run("DROP DATABASE {} WITH (FORCE)", name)

    def _run(self, statement: str, *names: str) -> None:
        self._maintenance.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _read_shape(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Read what differs once anything but data differs."""
    return connection.execute(_SCHEMA).fetchall() + connection.execute(_SETTINGS).fetchall()


def _read_rows(connection: psycopg.Connection, table: str) -> list[str]:
    return sorted(row for (row,) in connection.execute(f"SELECT each::text FROM {table} each"))


def _read_sequences(connection: psycopg.Connection) -> dict[str, tuple[int, bool]]:
    """Read what each sequence gives next, as setval() takes it."""
    return {
        name: (start if last is None else last, last is not None)
        for name, last, start in connection.execute(_SEQUENCES)
    }
