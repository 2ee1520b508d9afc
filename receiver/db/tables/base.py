"""Column types shared by all tables, and their metadata."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeDecorator

from receiver.core import read_time, require_aware, write_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """Accepts aware times only and returns them in UTC; SQLite would drop the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        own = _SqliteTime() if dialect.name == "sqlite" else sa.DateTime(timezone=True)  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(own)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else require_aware(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)


class _SqliteTime(sqlite.DATETIME):
    """Text, written and read by the one pair of functions that knows how."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:
        return lambda value: None if value is None else write_time(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:
        return lambda value: None if value is None else read_time(value)


# SQLite makes row ids only for INTEGER; AUTOINCREMENT, so that no id is reused.
RowId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# Not JSONB: unknown fields of a push may hold NUL, which JSONB refuses.
Json = sa.JSON(none_as_null=True)

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def table(name: str, *items: Any) -> sa.Table:
    """Return a table of the schema. SQLite never gives an id twice, even after its row is deleted."""
    return sa.Table(name, metadata, *items, sqlite_autoincrement=True)


def index(
    name: str,
    *columns: sa.ColumnElement[Any],
    unique: bool = False,
    where: sa.ColumnElement[bool] | None = None,
    on_postgresql: Mapping[str, Any] | None = None,
) -> None:
    """Add an index; `where`: over these rows only. `on_postgresql`: its options of that database alone."""
    made = sa.Index(name, *columns, unique=unique)
    options = dict(on_postgresql or {})
    if where is not None:
        made.dialect_kwargs["sqlite_where"] = options["where"] = where
    _incomplete.append((made, options))


_incomplete: list[tuple[sa.Index, Mapping[str, Any]]] = []  # they lack their options for PostgreSQL


def complete_for_postgresql() -> None:
    """Give the indexes their options for PostgreSQL.

    These load its dialect, which takes as long as all tables do. So a process calls this once it opens such a database.
    """
    while _incomplete:
        made, options = _incomplete.pop()
        for option, value in options.items():
            made.dialect_kwargs[f"postgresql_{option}"] = value
