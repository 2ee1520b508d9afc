"""Moves an embedded database into PostgreSQL while its server acknowledges pushes into the spool, then switches over.

The source's write lock is held from the first row to the switch, so the rows stand still and the intake, which waits
only 0.4 s, spools. All rows go to the target in one transaction. So a copy that dies leaves the source in use and the
target empty, or filled by that copy alone, whose rows the next run replaces. Rows are copied, not projected again: ids
and cursors stay, and the journal may be pruned.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from receiver.audit import log
from receiver.core import ReceiverError
from receiver.db import migrate, version
from receiver.db.encryption import EncryptedText, EncryptionState, being_changed, find_encryption, guard_statements
from receiver.db.engine import Database, lift_statement_timeout
from receiver.db.handover import copied_rows, find_mark, is_copy_unfinished, mark, remove_mark
from receiver.db.tables import metadata, receipts, replies
from receiver.messages import projection
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ROWS_AT_ONCE = 5000
_LOCK_TIMEOUT = "10s"
# The rows of an empty database, by table.
_THERE_FROM_THE_BEGINNING = {"delivery_zone": 1, "audit_chain": 1, "projection": 1, "status_ages": 2}
_NUL, _NUL_SHOWN = "\0", "\u2400"  # PostgreSQL's text type has no NUL

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """What was moved."""

    rows: Mapping[str, int]  # by table
    nul_texts: int  # texts whose NUL was replaced by its symbol


def place_of(url: str) -> str:
    """Return host, port and name of a PostgreSQL database, without user and password."""
    # Imported here, so that the embedded database needs no PostgreSQL driver.
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    parts = conninfo_to_dict(url.replace("+psycopg", "", 1))
    return f"{parts.get('host') or 'this machine'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def moved_before(source: Database, target: Database, place: str) -> bool:
    """Return whether the database was moved to this target already; if so, open the target for servers.

    Raises ReceiverError if it was moved elsewhere.
    """
    with source.reading() as connection:
        message = find_mark(connection)
    if message is None:
        return False
    if f" {place};" not in message:
        raise ReceiverError(message)
    target.write(lambda connection: copied_rows.drop(connection, checkfirst=True))
    return True


def prepare(source: Database, target: Database) -> None:
    """Give the target the source's schema. Raises ReceiverError if they cannot have the same."""
    version.require_schema(source)
    with source.reading() as connection:
        if reason := being_changed(find_encryption(connection).state):
            raise ReceiverError(reason)
    with target.reading() as connection:
        unfinished = is_copy_unfinished(connection)
    if not unfinished:
        migrate.upgrade(target)
    found = version.current_revision(source)
    if found != version.current_revision(target):
        raise ReceiverError(f"the target's schema is not {found}, that of the embedded database; use an empty database")


def move(
    source: Database,
    target: Database,
    place: str,
    verify: Callable[[], None],
    on_progress: Callable[[int], None] = lambda _: None,
) -> Moved:
    """Lock the source, copy it to a prepared target, verify the target and switch over.

    `verify` raises if the target is inconsistent; then nothing is switched and the source stays in use. `on_progress`
    receives the number of rows copied or compared since the last call. Raises ReceiverError.
    """

    def work(connection: sa.Connection) -> Moved:
        projection.catch_up(connection)
        copied = target.write(lambda there: _copy(connection, there, on_progress))
        verify()
        with target.reading() as there:
            _require_rows(there, copied.rows)
        mark(connection, place)
        return copied

    moved = source.write(work)
    moved_before(source, target, place)
    return moved


def undo(source: Database) -> bool:
    """Make a moved embedded database writable again. Return False if it was not moved."""

    def work(connection: sa.Connection) -> bool:
        moved = find_mark(connection) is not None
        remove_mark(connection)
        return moved

    return source.write(work)


def _copy(source: sa.Connection, target: sa.Connection, on_progress: Callable[[int], None]) -> Moved:
    """Replace all rows of the target, in its transaction.

    Raises ReceiverError if it has rows that are not of an earlier copy.
    """
    lift_statement_timeout(target)
    tables = metadata.sorted_tables
    names = ", ".join(table.name for table in tables)
    _lock(target, names)
    _require_rows(target, _rows_expected(target))
    _drop_triggers(target)
    target.exec_driver_sql(f"TRUNCATE {names}")
    nul_texts = 0
    rows: dict[str, int] = {}
    for table in tables:
        columns = _Columns(table)
        rows[table.name] = _copy_table(source, target, columns, on_progress)
        nul_texts += columns.nul_texts
    _complete(target, dict(tuple(row) for row in source.exec_driver_sql("SELECT * FROM sqlite_sequence")))
    copied_rows.create(target, checkfirst=True)
    target.execute(sa.delete(copied_rows))
    target.execute(sa.insert(copied_rows), [{"table_name": name, "rows": count} for name, count in rows.items()])
    return Moved(rows=rows, nul_texts=nul_texts)


def _lock(target: sa.Connection, names: str) -> None:
    """Lock tables against all others. Pushes are spooled meanwhile: so it waits for no forgotten transaction."""
    target.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    try:
        target.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != migrate.NO_LOCK_STATE:
            raise
        raise ReceiverError(
            "another transaction uses the tables in PostgreSQL: end it (pg_stat_activity has it), and run this again. "
            "Nothing was moved"
        ) from None


def _rows_expected(target: sa.Connection) -> Mapping[str, int]:
    """Return the rows by table of an empty database, or of one that an earlier copy has filled."""
    if not is_copy_unfinished(target):
        return _THERE_FROM_THE_BEGINNING
    return {row.table_name: row.rows for row in target.execute(sa.select(copied_rows))}


def _require_rows(target: sa.Connection, expected: Mapping[str, int]) -> None:
    lift_statement_timeout(target)
    for table in metadata.sorted_tables:
        found = target.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        if found != expected.get(table.name, 0):
            raise ReceiverError(
                f"{table.name} has {found} rows in PostgreSQL, and not {expected.get(table.name, 0)}; use an empty"
                " database that nothing else writes to. Nothing was moved"
            )


def _copy_table(
    source: sa.Connection, target: sa.Connection, columns: _Columns, on_progress: Callable[[int], None]
) -> int:
    """Copy a table by COPY, read it back and compare; return its number of rows."""
    written, found = _Digest(), _Digest()
    driver: Any = target.connection.driver_connection
    raw = source.exec_driver_sql(f"SELECT {columns.names} FROM {columns.table.name}")  # noqa: S608
    with driver.cursor() as cursor, cursor.copy(f"COPY {columns.table.name} ({columns.names}) FROM STDIN") as copy:
        for part in raw.partitions(_ROWS_AT_ONCE):
            rows = columns.typed(part)
            written.add(rows)
            for row in columns.bound(rows):
                copy.write_row(row)
            on_progress(len(rows))
    stored = target.execute(sa.select(columns.table), execution_options={"stream_results": True})
    for part in stored.partitions(_ROWS_AT_ONCE):
        found.add(part)
        on_progress(len(part))
    if found != written:
        raise ReceiverError(f"{columns.table.name}: PostgreSQL returns different values. Nothing was moved")
    return written.rows


@dataclass(slots=True)
class _Digest:
    """The number of rows and the sum of their hashes, the same in any order."""

    rows: int = 0
    total: int = 0

    def add(self, rows: Sequence[Any]) -> None:
        self.rows += len(rows)
        for row in rows:
            digest = hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16).digest()
            self.total = (self.total + int.from_bytes(digest)) % (1 << 128)


class _Columns:
    """A table's columns, and the conversion of values from SQLite to PostgreSQL."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self.nul_texts = 0
        columns = list(table.columns)
        texts = (sa.Text, EncryptedText)
        self._texts = [place for place, column in enumerate(columns) if isinstance(column.type, texts)]
        self.names = ", ".join(column.name for column in columns)
        of_sqlite, of_postgresql = sqlite.dialect(), postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
        self._results = [column.type.dialect_impl(of_sqlite).result_processor(of_sqlite, None) for column in columns]
        self._binds = [column.type.dialect_impl(of_postgresql).bind_processor(of_postgresql) for column in columns]

    def typed(self, raw: Sequence[Any]) -> list[Row]:
        """Return SQLite's rows with the values that SQLAlchemy would return, without NUL in texts."""
        rows = _converted(raw, self._results)
        held = sum(_NUL in row[place] for row in rows for place in self._texts if row[place])
        if held:
            self.nul_texts += held
            rows = [tuple(_without_nul(value) for value in row) for row in rows]
        return rows

    def bound(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with the values that PostgreSQL's driver takes."""
        return _converted(rows, self._binds)


def _converted(rows: Sequence[Any], processors: Sequence[Any]) -> list[Row]:
    """Return rows with converted values, column by column; most columns need none."""
    columns = list(zip(*rows, strict=True))
    for place, process in enumerate(processors):
        if process is not None and columns:
            columns[place] = tuple(map(process, columns[place]))
    return list(zip(*columns, strict=True))


def _without_nul(value: Any) -> Any:
    return value.replace(_NUL, _NUL_SHOWN) if type(value) is str else value


def _drop_triggers(connection: sa.Connection) -> None:
    """Drop triggers and guards: they would count copied rows again, and refuse to rewrite audit entries."""
    statements = (
        *rollup.drop_statements("postgresql"),
        *log.drop_statements("postgresql"),
        *guard_statements("postgresql", EncryptionState.PLAIN),
    )
    for statement in statements:
        connection.exec_driver_sql(statement)


def _complete(connection: sa.Connection, sequences: Mapping[str, int]) -> None:
    """Make the target ready for a server: set sequences, create triggers and guards, analyze."""
    for name, last in sequences.items():
        if name in metadata.tables and last:
            sequence = sa.func.pg_get_serial_sequence(name, "id")
            connection.execute(sa.select(sa.func.setval(sequence, last)))
    newest = "SELECT greatest(max(position), (SELECT max(sequence) FROM pushes), 1) FROM projection"
    connection.exec_driver_sql(f"SELECT setval('pushes_sequence', ({newest}))")
    statements = (
        *rollup.create_statements("postgresql"),
        *log.create_statements("postgresql"),
        *guard_statements("postgresql", find_encryption(connection).state),
    )
    for statement in statements:
        connection.exec_driver_sql(statement)
    for table in (receipts, replies):
        connection.execute(sa.select(sa.func.brin_summarize_new_values(f"ix_{table.name}_received_at")))
    connection.exec_driver_sql("ANALYZE")
