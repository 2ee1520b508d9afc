"""Copies an embedded database into PostgreSQL while its server keeps writing, then switches over.

Tables with a single id are copied in chunks of ids; each transaction also stores a digest of the chunk's source rows. A
later pass reads only the source and copies the chunks that differ: new, changed or deleted rows. So the copy can be
killed and restarted, and needs no changes in writers. The last pass holds the source's write lock; pushes go to the
spool meanwhile, since the intake waits only 0.4 s.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from receiver.audit import log
from receiver.core import ReceiverError
from receiver.db import migrate, version
from receiver.db.encryption import EncryptedText, being_changed, find_encryption, guard_statements
from receiver.db.engine import Database, RowRejected
from receiver.db.handover import find_mark, ledger, mark, remove_mark
from receiver.db.tables import metadata, receipts, replies
from receiver.messages import projection
from receiver.reporting import rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_CHUNK_ROWS = 5000
_PASSES_MAX = 6  # passes without the lock; then it is taken in any case
_FEW_ROWS = 20_000  # with fewer rows in a pass, the next may be the last
_THERE_FROM_THE_BEGINNING = frozenset({"delivery_zone", "audit_chain", "projection"})  # one row each, copied whole
_NUL, _NUL_SHOWN = "\0", "\u2400"  # PostgreSQL's text type has no NUL

Row = tuple[Any, ...]
Key = int | str  # as in SQLite: a number, or the 32 digits of a UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Ids greater than `after`, up to and including `until`. None: unbounded."""

    after: Key | None
    until: Key | None


def place_of(url: str) -> str:
    """Return host, port and name of a PostgreSQL database, without user and password."""
    # Imported here, so that the embedded database needs no PostgreSQL driver.
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    parts = conninfo_to_dict(url.replace("+psycopg", "", 1))
    return f"{parts.get('host') or 'this machine'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


class Copy:
    """The copy of one embedded database into PostgreSQL; it continues an interrupted copy."""

    def __init__(
        self, source: Database, target: Database, place: str, on_progress: Callable[[int], None] = lambda _: None
    ) -> None:
        self.place = place  # host, port and name of the target
        self._source = source
        self._target = target
        self._on_progress = on_progress  # receives the number of rows copied or compared since the last call
        self._locked: sa.Connection | None = None
        self.nul_texts = 0  # texts whose NUL was replaced by its symbol
        # Tables copied in chunks; the others are small and copied completely at the end.
        self._chunked = [_Chunked(table) for table in metadata.sorted_tables if _Chunked.fits(table)]
        self._whole = [_Columns(table) for table in metadata.sorted_tables if not _Chunked.fits(table)]

    def moved_before(self) -> bool:
        """Return whether the database was moved to this target already; if so, remove the remaining ledger.

        Raises ReceiverError if it was moved elsewhere.
        """
        with self._source.reading() as connection:
            message = find_mark(connection)
        if message is None:
            return False
        if f" {self.place};" not in message:
            raise ReceiverError(message)
        self._target.write(lambda connection: ledger.drop(connection, checkfirst=True))
        return True

    def prepare(self) -> None:
        """Prepare the target. Raises ReceiverError if it has rows that are not from this copy."""
        version.require_schema(self._source)
        with self._source.reading() as connection:
            if reason := being_changed(find_encryption(connection).state):
                raise ReceiverError(reason)
        with self._target.reading() as connection:
            under_way = sa.inspect(connection).has_table(ledger.name)
        if not under_way:
            migrate.upgrade(self._target)
            self._target.write(self._claim)
        self._target.write(_without_triggers)
        found = version.current_revision(self._source)
        if found != version.current_revision(self._target):
            raise ReceiverError(
                f"the target's schema is not {found}, that of the embedded database; use an empty database"
            )

    def catch_up(self) -> None:
        """Copy while others write, until few rows are left."""
        for passes in count(1):
            copied = sum(self._pass(table) for table in self._chunked)
            if passes > 1 and (copied < _FEW_ROWS or passes >= _PASSES_MAX):
                return

    def finish(self, verify: Callable[[], None]) -> dict[str, int]:
        """Lock the source, copy the rest, verify the target and switch over; return the rows by table.

        `verify` raises if the target is inconsistent; then nothing is switched and the source stays in use. Raises
        ReceiverError.
        """

        def work(connection: sa.Connection) -> dict[str, int]:
            self._locked = connection
            try:
                projection.catch_up(connection)
                for chunked in self._chunked:
                    self._pass(chunked)
                for whole in self._whole:
                    self._write_whole(whole)
                sequences = dict(tuple(row) for row in connection.exec_driver_sql("SELECT * FROM sqlite_sequence"))
                self._target.write(lambda target: _complete(target, sequences))
                rows = self._compare_counts(connection)
                verify()
                mark(connection, self.place)
                return rows
            finally:
                self._locked = None

        rows = self._source.write(work)
        self.moved_before()
        return rows

    def _claim(self, connection: sa.Connection) -> None:
        for table in metadata.sorted_tables:
            if (
                table.name not in _THERE_FROM_THE_BEGINNING
                and connection.execute(sa.select(table).limit(1)).first() is not None
            ):
                raise ReceiverError(f"the target already has rows in {table.name}; use an empty database")
        ledger.create(connection)

    # --- A pass over a table ------------------------------------------------------------------------------

    def _pass(self, table: _Chunked) -> int:
        """Copy the rows that differ between source and target; return the number of rows copied."""
        end = self._newest(table)
        ranges, digests = self._copied(table)
        changed = [part for part, digest in zip(ranges, digests, strict=True) if self._digest(table, part) != digest]
        # Delete all changed ranges first: a row may have the unique values of another that is gone now.
        self._target.write(lambda connection: _empty(connection, table, changed))
        copied = 0
        try:
            for part in changed:
                copied += self._fill(table, part)
            after = ranges[-1].until if ranges else None
            while end is not None and (rows := self._read(table, Range(after=after, until=end), _CHUNK_ROWS)):
                last = table.key_of(rows[-1])
                self._write(table, Range(after=after, until=last), rows)
                after, copied = last, copied + len(rows)
        except RowRejected:
            # Two rows read at different moments conflict. The next pass reads them again.
            if self._locked is not None:
                raise
            return max(copied, _FEW_ROWS)
        return copied

    def _fill(self, table: _Chunked, part: Range) -> int:
        """Copy a range that is empty in the target, in chunks, since it may have grown."""
        after, copied = part.after, 0
        while True:
            rows = self._read(table, Range(after=after, until=part.until), _CHUNK_ROWS)
            last = table.key_of(rows[-1]) if len(rows) == _CHUNK_ROWS else part.until
            self._write(table, Range(after=after, until=last), rows)
            copied += len(rows)
            if last == part.until:
                return copied
            after = last

    def _write(self, table: _Chunked, part: Range, rows: Sequence[Row]) -> None:
        typed = self._typed(table, rows)
        entry = {"table_name": table.name, "last_key": str(part.until), "digest": _digest_of(rows)}

        def work(connection: sa.Connection) -> None:
            table.load(connection, typed)
            query = sa.select(*table.columns).where(*table.within(part)).order_by(table.key)
            if [tuple(row) for row in connection.execute(query)] != typed:
                raise ReceiverError(f"{table.name} up to {part.until}: PostgreSQL returns different values")
            connection.execute(
                sa.delete(ledger).where(ledger.c.table_name == table.name, ledger.c.last_key == entry["last_key"])
            )
            connection.execute(sa.insert(ledger).values(entry))

        self._target.write(work)
        self._on_progress(len(rows))

    def _write_whole(self, table: _Columns) -> None:
        with self._reading() as connection:
            rows = [tuple(row) for row in connection.exec_driver_sql(f"SELECT {table.names} FROM {table.name}")]  # noqa: S608
        typed = self._typed(table, rows)

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(table.table))
            table.load(connection, typed)
            found = [tuple(row) for row in connection.execute(sa.select(*table.columns))]
            if sorted(map(repr, found)) != sorted(map(repr, typed)):
                raise ReceiverError(f"{table.name}: PostgreSQL returns different values")

        self._target.write(work)
        self._on_progress(len(rows))

    def _typed(self, table: _Columns, rows: Sequence[Row]) -> list[Row]:
        typed = table.typed(rows)
        held = sum(_NUL in row[place] for row in typed for place in table.texts if row[place])
        if held:
            self.nul_texts += held
            typed = [tuple(_without_nul(value) for value in row) for row in typed]
        return typed

    # --- Reading the source ---------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Yield a connection to the source: a short one, or the one that holds the lock."""
        if self._locked is not None:
            yield self._locked
        else:
            with self._source.reading() as connection:
                yield connection

    def _newest(self, table: _Chunked) -> Key | None:
        with self._reading() as connection:
            found: Key | None = connection.exec_driver_sql(f"SELECT max({table.key.name}) FROM {table.name}").scalar()  # noqa: S608
        return found

    def _read(self, table: _Chunked, part: Range, limit: int) -> list[Row]:
        with self._reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(*table.query(part, limit))]

    def _digest(self, table: _Chunked, part: Range) -> bytes:
        """Return the present digest of a chunk; an impossible one if it has outgrown the chunk size."""
        rows = self._read(table, part, _CHUNK_ROWS + 1)
        self._on_progress(len(rows))
        return _digest_of(rows) if len(rows) <= _CHUNK_ROWS else b""

    # --- The target -----------------------------------------------------------------------------------------

    def _copied(self, table: _Chunked) -> tuple[list[Range], list[bytes | None]]:
        with self._target.reading() as connection:
            query = sa.select(ledger.c.last_key, ledger.c.digest).where(ledger.c.table_name == table.name)
            entries = sorted((table.parse_key(row.last_key), row.digest) for row in connection.execute(query))
        keys = [key for key, _ in entries]
        ranges = [Range(after=after, until=until) for after, until in zip([None, *keys], keys, strict=False)]
        return ranges, [digest for _, digest in entries]

    def _compare_counts(self, source: sa.Connection) -> dict[str, int]:
        rows: dict[str, int] = {}

        def work(target: sa.Connection) -> None:
            target.exec_driver_sql("SET LOCAL statement_timeout = 0")
            for table in metadata.sorted_tables:
                query = sa.select(sa.func.count()).select_from(table)
                there, here = source.execute(query).scalar_one(), target.execute(query).scalar_one()
                if there != here:
                    raise ReceiverError(
                        f"{table.name} has {here} rows in PostgreSQL and {there} here; stop all writers of the "
                        "new database. Nothing was moved"
                    )
                rows[table.name] = here

        self._target.write(work)
        return rows


def undo(source: Database) -> bool:
    """Make a moved embedded database writable again. Return False if it was not moved."""

    def work(connection: sa.Connection) -> bool:
        moved = find_mark(connection) is not None
        remove_mark(connection)
        return moved

    return source.write(work)


class _Columns:
    """A table's columns, and the conversion of values from SQLite to PostgreSQL."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self.name = table.name
        self.columns = list(table.columns)
        texts = (sa.Text, EncryptedText)
        self.texts = [place for place, column in enumerate(self.columns) if isinstance(column.type, texts)]
        self.names = ", ".join(column.name for column in self.columns)
        of_sqlite, of_postgresql = sqlite.dialect(), postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
        self._results = [
            column.type.dialect_impl(of_sqlite).result_processor(of_sqlite, None) for column in self.columns
        ]
        self._binds = [column.type.dialect_impl(of_postgresql).bind_processor(of_postgresql) for column in self.columns]

    def typed(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with the values that SQLAlchemy would return."""
        return _converted(rows, self._results)

    def load(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Insert rows into PostgreSQL by COPY, in the connection's transaction."""
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {self.name} ({self.names}) FROM STDIN") as copy:
            for row in _converted(rows, self._binds):
                copy.write_row(row)


def _converted(rows: Sequence[Row], processors: Sequence[Any]) -> list[Row]:
    """Return rows with converted values, column by column; most columns need none."""
    columns = list(zip(*rows, strict=True))
    for place, process in enumerate(processors):
        if process is not None and columns:
            columns[place] = tuple(map(process, columns[place]))
    return list(zip(*columns, strict=True))


class _Chunked(_Columns):
    """A table that is read in id order."""

    def __init__(self, table: sa.Table) -> None:
        super().__init__(table)
        (self.key,) = table.primary_key.columns
        self._place = self.columns.index(self.key)
        self._is_uuid = isinstance(self.key.type, sa.Uuid)

    @staticmethod
    def fits(table: sa.Table) -> bool:
        """Return whether a table has a single primary key column `id`."""
        keys = list(table.primary_key.columns)
        return len(keys) == 1 and keys[0].name == "id"

    def key_of(self, row: Row) -> Key:
        """Return the id of a source row."""
        key: Key = row[self._place]
        return key

    def parse_key(self, text: str) -> Key:
        """Return an id from its text in the ledger."""
        return text if self._is_uuid else int(text)

    def query(self, part: Range, limit: int) -> tuple[str, tuple[Any, ...]]:
        """Return SQLite's statement for the raw rows of a range, and its parameters."""
        bounds = [(f"{self.key.name} > ?", part.after), (f"{self.key.name} <= ?", part.until)]
        given = [(condition, key) for condition, key in bounds if key is not None]
        where = f" WHERE {' AND '.join(condition for condition, _ in given)}" if given else ""
        statement = f"SELECT {self.names} FROM {self.name}{where} ORDER BY {self.key.name} LIMIT ?"  # noqa: S608
        return statement, (*(key for _, key in given), limit)

    def within(self, part: Range) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of a range for PostgreSQL; it orders UUIDs as SQLite orders their digits."""
        conditions = []
        if part.after is not None:
            conditions.append(self.key > self._typed_key(part.after))
        if part.until is not None:
            conditions.append(self.key <= self._typed_key(part.until))
        return conditions

    def _typed_key(self, key: Key) -> int | UUID:
        return UUID(str(key)) if self._is_uuid else int(key)


def _digest_of(rows: Sequence[Row]) -> bytes:
    return hashlib.blake2b(repr(rows).encode(), digest_size=16).digest()


def _empty(connection: sa.Connection, table: _Chunked, ranges: Sequence[Range]) -> None:
    for part in ranges:
        connection.execute(sa.delete(table.table).where(*table.within(part)))
        emptied = ledger.c.table_name == table.name, ledger.c.last_key == str(part.until)
        connection.execute(sa.update(ledger).where(*emptied).values(digest=None))


def _without_triggers(connection: sa.Connection) -> None:
    """Drop the triggers: they would count copied rows again, and refuse to rewrite audit entries."""
    for statement in (*rollup.drop_statements("postgresql"), *log.drop_statements("postgresql")):
        connection.exec_driver_sql(statement)


def _complete(connection: sa.Connection, sequences: dict[str, int]) -> None:
    """Make the target ready for a server: set sequences, create triggers and guards, analyze."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    for name, last in sequences.items():
        if name in metadata.tables and last:
            sequence = sa.func.pg_get_serial_sequence(name, "id")
            connection.execute(sa.select(sa.func.setval(sequence, last)))
    newest = "SELECT greatest(max(position), (SELECT max(sequence) FROM pushes), 1) FROM projection"
    connection.exec_driver_sql(f"SELECT setval('pushes_sequence', ({newest}))")
    for module in (rollup, log):
        for statement in (*module.drop_statements("postgresql"), *module.create_statements("postgresql")):
            connection.exec_driver_sql(statement)
    for statement in guard_statements("postgresql", find_encryption(connection).state):
        connection.exec_driver_sql(statement)
    for table in (receipts, replies):
        connection.execute(sa.select(sa.func.brin_summarize_new_values(f"ix_{table.name}_received_at")))
    connection.exec_driver_sql("ANALYZE")


def _without_nul(value: Any) -> Any:
    return value.replace(_NUL, _NUL_SHOWN) if type(value) is str else value
