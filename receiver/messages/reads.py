"""Which database answers a query, and how old its answer may be."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.messages.journal import find_oldest_pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.db.availability import CircuitBreaker
    from receiver.db.engine import Connection, Database
    from receiver.db.replica import Replica
    from receiver.messages.projector import Projector

T = TypeVar("T")

# How old an answer of this request or command is, in seconds: acknowledged pushes may be missing. None: none is.
DATA_LAG: ContextVar[float | None] = ContextVar("data_lag", default=None)


class Reads:
    """Answers the queries of one process. Safe for many threads.

    Each method may raise DatabaseUnavailable or DatabaseMisconfigured.
    """

    def __init__(
        self,
        database: Database,
        *,
        export_database: Database,
        replica: Replica | None,
        availability: CircuitBreaker,
        projector: Projector,
    ) -> None:
        self._database = database
        self._export_database = export_database
        self._replica = replica
        self._availability = availability
        self._projector = projector

    def ask(self, question: Callable[[Connection], T], *, stamped: bool = False) -> T:
        """Return the result of one query function, which sees every push that was acknowledged before this call.

        Waits at most a second for that. Past it the answer lacks some, and `DATA_LAG` says how old it is. `stamped`: it
        asks for messages by their stamps, and waits for these as well.
        """
        with self._availability.tracking():
            self._await_projection(stamped=stamped)
            return self._query(question)

    def ask_present(self, question: Callable[[Connection], T]) -> T:
        """Return the result of one query function on the database as it is: no push changes the answer, or it shows how
        far the projection is.
        """
        with self._availability.tracking():
            return self._query(question)

    def _await_projection(self, *, stamped: bool = False) -> None:
        if (lag := self._projector.await_reached(stamped=stamped)) is not None:
            DATA_LAG.set(lag)

    def _query(self, question: Callable[[Connection], T]) -> T:
        with self._database.reading() as connection:
            return question(connection)

    def browse(self, question: Callable[[Connection], T]) -> T:
        """Return the result of a query that may be slightly old; `DATA_LAG` says how old.

        Uses the replica if it is in time. Not for queries that must see the latest writes: API keys, sessions, sends
        and their Idempotency-Keys, the state of one message.
        """
        self._availability.require()
        if self._replica is not None:
            try:
                with self._replica.reading() as (connection, lag):
                    DATA_LAG.set(lag + (find_oldest_pending(connection) or 0.0))
                    return question(connection)
            except (DatabaseUnavailable, DatabaseMisconfigured):
                pass  # the replica may also cancel a query to continue its replay
        return self.ask(question)

    @contextmanager
    def exporting(self, *, stamped: bool = False) -> Iterator[Connection]:
        """Yield a separate connection for reads of up to an hour; to the replica if it is in time.

        `stamped`: as `ask` has it, where there is no replica.
        """
        if self._replica is not None:
            with ExitStack() as stack:
                try:
                    connection, _ = stack.enter_context(self._replica.reading(for_long=True))
                except (DatabaseUnavailable, DatabaseMisconfigured):
                    pass
                else:
                    yield connection
                    return
        with self._availability.tracking():
            self._await_projection(stamped=stamped)
            with self._export_database.reading() as connection:
                yield connection
