"""The database connection: transactions, and driver errors as our own exceptions."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, ReceiverError, require_room
from receiver.db.checkpointer import checkpointer, write_turns
from receiver.db.sqlite import CACHE_KIB, OpenFiles, open_files, path_of, sqlite_engine
from receiver.db.tables import complete_for_postgresql
from receiver.db.trigger_codes import TriggerCode
from receiver.db.unreachable import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.dialects import postgresql

    from receiver.db.encryption import ColumnEncryption
    from receiver.db.encryption.ciphers import FieldCipher


T = TypeVar("T")
Connection = sa.Connection  # for those who use no other of its names

PATIENCE_SECONDS = 30.0  # for one question or transaction; a hung server is left then
_CONNECT_SECONDS = 2.0  # of it at most, for a connection, whichever of several servers it is to
_MAINTENANCE_SECONDS = 24 * 3600.0
_ROLL_BACK_SECONDS = 0.2
_UNHEARD_MILLISECONDS = 3000  # a server whose machine acknowledges no packet is given up after this
_DEADLOCK_TRIES = 6
_READ_ONLY_STATE = "25006"  # no longer a primary
_TRY_AGAIN_STATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock: nothing was written
_UNFIT_STATES = {
    "28000": "it refuses this login; check user and password in RECEIVER_DATABASE_URL",
    "28P01": "it refuses this password; check RECEIVER_DATABASE_URL",
    "3D000": "it has no database of that name; create it or mend RECEIVER_DATABASE_URL",
    "42P01": "its schema is older than this program; run `receiver db upgrade`",
    "42703": "its schema is older than this program; run `receiver db upgrade`",
    "42501": "this user lacks the rights; grant them, or use the owner in RECEIVER_DATABASE_URL",
}


def insert(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that supports conflict clauses."""
    if dialect != "postgresql":
        return sqlite.insert(table)
    # Loaded with the connection; the embedded database does without.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)


# For every PostgreSQL connection. Compiling a statement, or starting workers for it, takes longer than nearly all of
# ours; and no query may occupy both processors while pushes arrive. A commit is durable whatever the server's default,
# also on its synchronous standby if there is one. Warnings must arrive: one of them says that the standby has not
# confirmed.
SESSION_OPTIONS = (
    "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
    " -c jit=off -c max_parallel_workers_per_gather=0"
    " -c synchronous_commit=on -c client_min_messages=warning"
)
# If a commit of ours waits nearly as long as the intake's limit, the synchronous standby is unavailable. Each further
# one would wait too, and hold a connection until the standby is back.
_COMMITS_WAIT = sa.text(
    "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE usename = current_user AND wait_event = 'SyncRep'"
    " AND query_start < clock_timestamp() - interval '0.3 seconds')"
)
_WRITE_NOTHING = sa.text("SELECT pg_logical_emit_message(true, 'receiver', '')::text")
_READ_ONLY = "the database is read-only at present"


def lift_statement_timeout(connection: sa.Connection) -> None:
    """Let statements of this transaction take longer than `SESSION_OPTIONS` has it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


class Ask(Protocol):
    """Answers one question from the database."""

    def __call__(self, question: Callable[[sa.Connection], T], /) -> T:
        """Return its answer. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        ...


class SerializationConflict(DatabaseUnavailable):
    """Another transaction changed rows that this one had read; nothing was written. `write` tries again."""


class RowRejected(ReceiverError):
    """The database rejects these values, however often they are sent."""


class Database:
    """One database, SQLite or PostgreSQL, for one process.

    Connects at first use, so it may be created before a fork. Safe for many threads. Without `encryption`, encrypted
    values are returned as stored.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        encryption: ColumnEncryption | None = None,
        cache_kib: int = CACHE_KIB,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._connecting = _Connecting()
        self._path: Path | None = None  # of the embedded database's file
        self._files: OpenFiles | None = None
        if url.startswith("sqlite"):
            self._path = path_of(url) if sa.make_url(url).database else None
            self._files = None if self._path is None or "immutable=1" in url else open_files(self._path)
            self.engine = sqlite_engine(url, patience_seconds, cache_kib, self._files)
        else:
            self.engine = _postgresql_engine(url, patience_seconds, self._connecting)
        self.postgresql = self.engine.dialect.name == "postgresql"
        self._turns = None if self._path is None else write_turns(self._path)
        self._checkpointer = None if self._path is None else checkpointer(self._path)
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._kept: list[Any] = []  # by `write_at_once`, from one call to the next; each thread takes one out
        self._encryption = encryption
        if encryption is not None:
            encryption.attach(self.engine.dialect)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection for queries. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        with self._own_errors(), self._connected(time.monotonic() + self._patience_seconds) as connection:
            yield connection

    def write(
        self,
        work: Callable[[sa.Connection], T],
        *,
        patience_seconds: float | None = None,
    ) -> T:
        """Run `work` in one transaction and commit it; run it again where that broke a deadlock or was overtaken.

        Raises DatabaseUnavailable (outcome unknown), DatabaseMisconfigured or RowRejected (not committed).
        """
        deadline = time.monotonic() + (patience_seconds or self._patience_seconds)

        def in_transaction() -> T:
            # The connection first: never hold the write lock while others hold every connection.
            with self._own_errors(), self._connected(deadline) as connection, self._writing(deadline):
                connection.execution_options(sqlite_begin="BEGIN IMMEDIATE")
                with connection.begin():
                    result = work(connection)
                if self._files is not None:
                    self._files.require_same()  # else the commit is not in the file that the next start opens
                return result

        return _despite_deadlocks(in_transaction)

    def cipher(self) -> FieldCipher | None:
        """Return the cipher of encrypted rows; None: plain. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        if self._encryption is None:
            return None
        if not self._encryption.known:
            with self.reading():
                pass
        return self._encryption.cipher

    def write_at_once(self, work: Callable[[Any], None]) -> None:
        """Run `work`, which sends one statement through PostgreSQL's driver, as a transaction of its own.

        Saves the cost of a connection of SQLAlchemy, and of the pool's hand-over, which exceed that of a small batch.
        Raises as `write` does.
        """
        deadline = time.monotonic() + self._patience_seconds

        def at_once() -> None:
            with self._own_errors():
                try:
                    pooled = self._kept.pop()
                except IndexError:
                    with self._connecting.until(deadline):
                        pooled = self.engine.raw_connection()
                driver: Any = pooled.driver_connection
                try:
                    driver.deadline = deadline
                    if not driver.autocommit:
                        driver.autocommit = True
                    work(driver)
                except self._driver_error as error:
                    if _sqlstate(error) == _READ_ONLY_STATE:
                        driver.close()
                    raise
                finally:
                    if driver.closed or self._kept:
                        pooled.invalidate()
                    else:
                        self._kept.append(pooled)

        _despite_deadlocks(at_once)

    @contextmanager
    def maintaining(self) -> Iterator[sa.Connection]:
        """Open a connection for long maintenance, with its own transactions and session settings.

        It is closed for good afterwards. Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        with self._own_errors(), self._connected(time.monotonic() + _MAINTENANCE_SECONDS) as connection:
            try:
                yield connection
            finally:
                connection.invalidate()

    def connect(self) -> None:
        """Make a new connection: servers may have changed roles since the last one.

        Allows more time than a transaction may take. Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        self.drop_connections()
        with self._own_errors(), self._connected(time.monotonic() + max(self._patience_seconds, _CONNECT_SECONDS)):
            pass

    def drop_connections(self) -> None:
        """Close idle connections; those in use close after use. No effect for the embedded database.

        A file has no servers to switch between. And closing its last connection removes its log's index, for which a
        full disk has no room.
        """
        if self.postgresql:
            self._close_kept()
            self.engine.dispose()

    def require_writable(self) -> None:
        """Raise DatabaseUnavailable if a write would fail now: locked, read-only, or its required standby is down."""

        def work(connection: sa.Connection) -> None:
            if self._path is not None:
                try:
                    require_room(self._path.parent)
                except OSError as error:
                    raise DatabaseUnavailable(f"{self._path.parent} cannot be written ({error.strerror})") from error
                connection.exec_driver_sql("PRAGMA user_version=0")  # writes a page, as an empty transaction would not
                return
            if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
                raise DatabaseUnavailable(_READ_ONLY)
            if connection.scalar(_COMMITS_WAIT):
                raise DatabaseUnavailable("the database's synchronous standby is unavailable: commits wait for it")

        self.write(work)

    def require_durable(self) -> None:
        """Return once all earlier commits are as durable as a commit is here; raise DatabaseUnavailable otherwise.

        Rows of an earlier attempt with unknown outcome may be on one server only while a synchronous standby is
        unavailable. A transaction that finds them and changes nothing does not wait for the standby. So this one
        writes.
        """
        if self.postgresql:
            self.write(lambda connection: connection.scalar(_WRITE_NOTHING))

    def require_file(self) -> None:
        """Raise DatabaseUnavailable if the embedded database's file, or its log, was replaced since it was opened."""
        if self._files is not None:
            self._files.require_same()

    def empty_log(self) -> None:
        """Empty the embedded database's log. Raises DatabaseUnavailable."""
        if self._checkpointer is not None:
            self._checkpointer.truncate()

    def close(self) -> None:
        """Close every connection."""
        if self._checkpointer is not None:
            self._checkpointer.leave(self)
        self._close_kept()
        self.engine.dispose()
        if self._files is not None:
            self._files.forget()

    def _close_kept(self) -> None:
        with suppress(IndexError):
            while True:
                self._kept.pop().invalidate()

    @contextmanager
    def _connected(self, deadline: float) -> Iterator[sa.Connection]:
        with self._connecting.until(deadline):
            connected = self.engine.connect()
        with connected as connection:
            driver = connection.connection.driver_connection
            if self.postgresql and driver is not None:
                driver.deadline = deadline
            if self._encryption is not None and not self._encryption.known:
                self._encryption.load(connection)
            yield connection

    @contextmanager
    def _writing(self, deadline: float) -> Iterator[None]:
        if self._turns is None or self._checkpointer is None:
            yield
            return
        self._checkpointer.serve(self)
        if not self._turns.acquire(timeout=max(0, deadline - time.monotonic())):
            raise DatabaseUnavailable("the database is unavailable (another write takes too long)")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """Turn the driver's errors into the project's own, in this one place."""
        try:
            yield
        except sa.exc.TimeoutError as error:
            raise DatabaseUnavailable("the database has no connection left; try again") from error
        except sa.exc.DBAPIError as error:
            raise _translated(error.orig or error) from error.orig
        except self._driver_error as error:  # from statements that go past SQLAlchemy
            raise _translated(error) from error


class _Connecting(threading.local):
    """How long a thread waits for a new connection of the pool."""

    deadline: float | None = None

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Wait until then, a reading of time.monotonic(), at most as long as a connection may take."""
        self.deadline = deadline
        try:
            yield
        finally:
            self.deadline = None


def _postgresql_engine(url: str, patience_seconds: float, connecting: _Connecting) -> sa.Engine:
    # Here, so that the embedded database needs no PostgreSQL driver.
    from receiver.db.deadline import Servers  # noqa: PLC0415

    complete_for_postgresql()
    servers = Servers(
        url.replace("postgresql+psycopg://", "postgresql://", 1),
        application_name="receiver",
        options=SESSION_OPTIONS,
        # Where an answer may take an hour, keepalives still notice a dead server.
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        # And a request that does not arrive fails soon, so that another server is tried.
        tcp_user_timeout=_UNHEARD_MILLISECONDS,
    )

    def connect() -> Any:
        longest = time.monotonic() + _CONNECT_SECONDS
        connection = servers.connect(min(connecting.deadline or longest, longest))
        connection.deadline = connecting.deadline  # for SQLAlchemy's first queries
        return connection

    engine = sa.create_engine(
        "postgresql+psycopg://",  # the servers are the driver's business: SQLAlchemy reads URLs in its own way
        creator=connect,
        hide_parameters=True,
        pool_size=10,
        max_overflow=10,
        pool_timeout=min(5, patience_seconds),
        # Renewed now and then, but never while a push waits for a connection.
        pool_recycle=1800 if patience_seconds == PATIENCE_SECONDS else -1,
    )

    @event.listens_for(engine, "handle_error")
    def _leave_a_read_only_server(context: sa.engine.ExceptionContext) -> None:
        # All its connections with this one: the next are made to the server that is the primary then.
        if _sqlstate(context.original_exception) == _READ_ONLY_STATE:
            context.is_disconnect = True

    @event.listens_for(engine, "reset")
    def _wait_as_long_as_it_takes_no_more(connection: Any, _record: Any, _state: Any) -> None:
        # Given back after its deadline: the roll-back has a moment of its own.
        connection.deadline = time.monotonic() + _ROLL_BACK_SECONDS

    return engine


def _translated(error: BaseException) -> ReceiverError:
    state = _sqlstate(error)
    words = str(error)
    if words.startswith(TriggerCode.MOVED):
        return DatabaseMisconfigured(words.removeprefix(TriggerCode.MOVED).strip())
    if words.startswith(TriggerCode.ENCRYPTION_CHANGED):
        return DatabaseUnavailable("the encryption of this database was changed")
    text = words.lower()
    if state in _UNFIT_STATES:
        return DatabaseMisconfigured(f"the database cannot be used: {_UNFIT_STATES[state]}")
    if state == _READ_ONLY_STATE or "session is read-only" in text or "server is in hot standby mode" in text:
        return DatabaseUnavailable(_READ_ONLY)
    # A failed connection has no state of its own in psycopg, only the server's words.
    for part, unfit_state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("role", "28000"),
        ("database", "3D000"),
    ):
        if state is None and part in text and ("does not exist" in text or "password" in part):
            return DatabaseMisconfigured(f"the database cannot be used: {_UNFIT_STATES[unfit_state]}")
    if "no such table" in text or "no such column" in text:
        return DatabaseMisconfigured(f"the database cannot be used: {_UNFIT_STATES['42P01']}")
    if "not a database" in text or "malformed" in text:
        return DatabaseMisconfigured("the database file is corrupt; restore a backup, keep the old file")
    # By name: SQLAlchemy's, sqlite3's and psycopg's classes have the names of PEP 249 in common, and no more.
    # Invalid text is the fault of one row, and no reason to treat the database as unavailable.
    of_a_value = {"IntegrityError", "DataError"} & {base.__name__ for base in type(error).__mro__}
    if of_a_value or "could not decode to utf-8" in text:
        return RowRejected(f"the database refused a value ({type(error).__name__})")
    return DatabaseUnavailable(f"the database is unavailable ({explain(str(error)) or type(error).__name__})")


def _despite_deadlocks(run: Callable[[], T]) -> T:
    for attempt in range(1, _DEADLOCK_TRIES):
        try:
            return run()
        except DatabaseUnavailable as error:
            if not isinstance(error, SerializationConflict) and _sqlstate(error.__cause__) not in _TRY_AGAIN_STATES:
                raise
            time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311  (so that the two part)
    return run()


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)
