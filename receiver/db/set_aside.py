"""Rows that cannot be read, or whose times cannot be right: left out, counted, and named by id in an alarm.

One damaged row must not end a list, a stream or a report. So all readers use `read_rows`. Rows that it leaves out are
recorded in a table of their own, for `Alarm.ROWS_SET_ASIDE` and `doctor`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from receiver.db.encryption import CiphertextDamaged
from receiver.db.engine import Database, insert
from receiver.db.tables import messages, pushes, rows_set_aside
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID


_log = get_logger(__name__)
T = TypeVar("T")

_WAITING_MAX = 1000
_BAD_MAX = 100  # rows of one page
# Errors of one row: a value of the wrong kind, or one that cannot be decrypted. Not errors of the database or its
# connection, and not a missing key.
ROW_FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, CiphertextDamaged, sa.exc.DataError)
# Times that Python has, in every zone.
_FIRST_TIME, _LAST_TIME = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_NO_TEXT = "could not decode to utf-8"  # prefix of SQLite's error for invalid text


class SetAsideReason(StrEnum):
    """Why a row is left out."""

    UNREADABLE = "unreadable"
    IMPLAUSIBLE = "implausible_time"  # stored before times had bounds
    NO_DELIVERY = "no_delivery"  # no webhook delivery could be made of it


def is_readable_time(time: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a time can be read, for queries that return times without their rows."""
    return time.between(_FIRST_TIME, _LAST_TIME)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """One row that is left out."""

    table: str
    row_id: str
    reason: SetAsideReason


class _Noted:
    """Rows that this process left out and has not recorded in the database yet. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        self._waiting: dict[tuple[str, str], SetAsideReason] = {}

    def add(self, table: str, row_id: str, reason: SetAsideReason, error: str) -> None:
        with self._lock:
            if (table, row_id) in self._known or len(self._waiting) >= _WAITING_MAX:
                return
            self._known.add((table, row_id))
            self._waiting[table, row_id] = reason
            if len(self._known) > 10 * _WAITING_MAX:
                self._known.clear()
        _log.error("row set aside", table=table, row_id=row_id, reason=reason, error=error)

    def take(self) -> dict[tuple[str, str], SetAsideReason]:
        with self._lock:
            taken, self._waiting = self._waiting, {}
            return taken

    def give_back(self, taken: dict[tuple[str, str], SetAsideReason]) -> None:
        with self._lock:
            self._waiting = taken | self._waiting


_noted = _Noted()


def note(table: str, row_id: object, error: BaseException, reason: SetAsideReason = SetAsideReason.UNREADABLE) -> None:
    """Note a row that was left out, without any value of it."""
    _noted.add(table, str(row_id), reason, type(error).__name__)


def note_left(message_id: int | None, push_id: UUID | None, error: BaseException) -> None:
    """Record that a push, or a message, is not sent to webhooks."""
    if push_id is not None:
        note(pushes.name, push_id, error, SetAsideReason.NO_DELIVERY)
    elif message_id is not None:
        note(messages.name, message_id, error, SetAsideReason.NO_DELIVERY)


def require_texts(*values: object) -> None:
    """Raise TypeError where bytes stand in place of a text, which SQLite lets them."""
    for value in values:
        if value.__class__ is bytes:
            raise TypeError("bytes where text should be")


def read_rows(
    connection: sa.Connection,
    query: sa.Select[Any],
    table: sa.FromClause,
    convert: Callable[[Any], T] = lambda row: row,
    *,
    name: str | None = None,
    without: Callable[[Sequence[Any]], sa.Select[Any]] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[T]:
    """Return the rows of a query over `table`, converted; unreadable rows are left out and recorded.

    `without` returns the query without the rows of some ids, for queries where a condition on the whole would not do:
    the page is full all the same. `name`: of the table, if `table` is a query over it. `tell` receives the number left
    out. Rows are read one by one only if one is bad, so good rows cost nothing extra.
    """
    row_id: sa.ColumnElement[Any] = table.c.id
    if connection.dialect.name == "sqlite" and isinstance(table.c.id.type, sa.Uuid):
        row_id = sa.type_coerce(table.c.id, sa.String)  # which it may fail to be
    bad: list[Any] = []
    asked = query
    while True:
        try:
            # All rows are fetched before one is converted: an interrupted query keeps its old state of the file open,
            # on a connection that returns to the pool.
            return [convert(row) for row in connection.execute(asked).all()]
        except (*ROW_FAULTS, sa.exc.OperationalError) as error:
            _require_fault_of_row(error)
            found = _find_bad(connection, asked, row_id, convert)
            if not found or len(bad) + len(found) > _BAD_MAX:
                raise  # so many are no damage: the program is wrong, or a key is
            for one, fault in found.items():
                note(name or table.description, one, fault)
                tell(f"{name or table.description} {one}: {type(fault).__name__}")
            bad += found
            asked = without(bad) if without else query.where(row_id.not_in(bad))


def _require_fault_of_row(error: Exception) -> None:
    """Raise an error again that is the database's, and not one row's."""
    if isinstance(error, sa.exc.OperationalError) and _NO_TEXT not in str(error).lower():
        raise error


def _find_bad(
    connection: sa.Connection, query: sa.Select[Any], row_id: sa.ColumnElement[Any], convert: Callable[[Any], Any]
) -> dict[Any, Exception]:
    bad: dict[Any, Exception] = {}
    for one in connection.scalars(query.with_only_columns(row_id, maintain_column_froms=True)).all():
        try:
            row = connection.execute(query.order_by(None).limit(None).where(row_id == one)).first()
            if row is not None:
                convert(row)
        except (*ROW_FAULTS, sa.exc.OperationalError) as error:
            _require_fault_of_row(error)
            bad[one] = error
    return bad


def read_row(
    connection: sa.Connection, query: sa.Select[Any], table: sa.Table, convert: Callable[[Any], T] = lambda row: row
) -> T | None:
    """Return the one row of a query, converted; None: there is none, or it was left out."""
    found = read_rows(connection, query, table, convert)
    return found[0] if found else None


def save_noted(database: Database, now: datetime, *, patience_seconds: float | None = None) -> None:
    """Record the rows that this process has left out.

    Raises DatabaseUnavailable or DatabaseMisconfigured; they stay pending then.
    """
    taken = _noted.take()
    if not taken:
        return
    rows = [
        {"table_name": table, "row_id": row_id, "reason": reason, "found_at": now}
        for (table, row_id), reason in taken.items()
    ]
    try:
        database.write(
            lambda connection: connection.execute(
                insert(connection.dialect.name, rows_set_aside).on_conflict_do_nothing(), rows
            ),
            patience_seconds=patience_seconds,
        )
    except Exception:
        _noted.give_back(taken)
        raise


def is_in_feeds(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition that feeds include a row of a table: its time may be right."""
    noted = rows_set_aside.c
    return sa.not_(
        sa.exists().where(
            noted.table_name == table.name,
            noted.row_id == sa.cast(table.c.id, sa.Text),
            noted.reason == SetAsideReason.IMPLAUSIBLE,
        )
    )


def count_noted(connection: sa.Connection) -> dict[str, int]:
    """Return how many rows were left out, by table."""
    noted = rows_set_aside.c
    rows = connection.execute(sa.select(noted.table_name, sa.func.count()).group_by(noted.table_name))
    return dict(map(tuple, rows))


def list_noted(connection: sa.Connection, table_name: str, limit: int) -> Sequence[SetAside]:
    """Return the rows of a table that were left out, oldest first. Some may be gone by now, or readable again."""
    noted = rows_set_aside.c
    query = sa.select(rows_set_aside).where(noted.table_name == table_name)
    query = query.order_by(noted.found_at, noted.row_id).limit(limit)
    return [
        SetAside(table=row.table_name, row_id=row.row_id, reason=SetAsideReason(row.reason))
        for row in connection.execute(query)
    ]


def drop_noted(connection: sa.Connection, found: Sequence[SetAside]) -> None:
    """Remove entries of rows that are gone, or readable again."""
    for one in found:
        key = (rows_set_aside.c.table_name == one.table, rows_set_aside.c.row_id == one.row_id)
        connection.execute(sa.delete(rows_set_aside).where(*key))
