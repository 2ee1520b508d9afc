"""The database as the rest of `store` sees it: transactions, and driver errors in the project's own words."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from receiver.errors import ReceiverError, StoreUnavailable, StoreUnfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_DEADLOCK_TRIES = 6
_TRY_AGAIN_STATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock: nothing was written
_UNFIT_STATES = {
    "28000": "it refuses this login; check user and password in RECEIVER_DATABASE_URL",
    "28P01": "it refuses this password; check RECEIVER_DATABASE_URL",
    "3D000": "it has no database of that name; create it or mend RECEIVER_DATABASE_URL",
    "42P01": "its schema is older than this program; run `receiver db upgrade`",
    "42703": "its schema is older than this program; run `receiver db upgrade`",
    "42501": "this user lacks the rights; grant them, or use the owner in RECEIVER_DATABASE_URL",
}


class StoreRejected(ReceiverError):
    """The database will not take these values, however often they are offered."""


class Database:
    """One database, SQLite or PostgreSQL, for one process.

    Connects at first use, so that it may be made before a fork. Safe for many threads.
    """

    def __init__(self, url: str) -> None:
        self.engine = _sqlite_engine(url) if url.startswith("sqlite") else _postgresql_engine(url)
        self.postgresql = self.engine.dialect.name == "postgresql"
        # SQLite has one writer at a time and lets the others poll with growing pauses; a lock hands over at once.
        self._writer = nullcontext() if self.postgresql else threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection for queries. Raises StoreUnavailable or StoreUnfit."""
        with _own_errors(), self.engine.connect() as connection:
            yield connection

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction and commit it; run it again where the database broke a deadlock.

        Raises StoreUnavailable (it may or may not have been committed), StoreUnfit or StoreRejected (it was not).
        """
        for attempt in range(1, _DEADLOCK_TRIES + 1):
            try:
                with _own_errors(), self._writer, self.engine.connect() as connection:
                    connection.execution_options(sqlite_begin="BEGIN IMMEDIATE")
                    with connection.begin():
                        return work(connection)
            except StoreUnavailable as error:
                if attempt == _DEADLOCK_TRIES or _sqlstate(error.__cause__) not in _TRY_AGAIN_STATES:
                    raise
                time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311  (so that the two part)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _sqlite_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(
        url, hide_parameters=True, connect_args={"timeout": 10, "check_same_thread": False}, pool_size=20
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that begins as a reader and then writes can fail with no way to wait: writers say so first.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine


def _postgresql_engine(url: str) -> sa.Engine:
    return sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 5,
            "application_name": "receiver",
            "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        },
    )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn the driver's errors into the project's own, in this one place."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable("the database has no connection left; try again") from error
    except sa.exc.DBAPIError as error:
        raise _translated(error) from error.orig


def _translated(error: sa.exc.DBAPIError) -> ReceiverError:
    state = _sqlstate(error.orig)
    text = str(error.orig).lower()
    if state in _UNFIT_STATES:
        return StoreUnfit(f"the database cannot be used: {_UNFIT_STATES[state]}")
    # A failed connection has no state of its own in psycopg, only the server's words.
    for words, unfit_state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("role", "28000"),
        ("database", "3D000"),
    ):
        if state is None and words in text and ("does not exist" in text or "password" in words):
            return StoreUnfit(f"the database cannot be used: {_UNFIT_STATES[unfit_state]}")
    if "no such table" in text or "no such column" in text:
        return StoreUnfit(f"the database cannot be used: {_UNFIT_STATES['42P01']}")
    if "not a database" in text or "malformed" in text:
        return StoreUnfit("the database file is corrupt; put a backup in its place, keep the old file")
    if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
        return StoreRejected(f"the database refused a value ({type(error.orig).__name__})")
    return StoreUnavailable(f"the database is unavailable ({type(error.orig).__name__})")


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)
