"""A replica of the database: how far behind it is, and whether it may answer what does not need the newest row.

The clock of the lag is this process' own. Once a second the primary is asked how far its log has come, and then the
replica how much of that it has replayed: it is as far behind as the newest of those moments of which it has all. So an
idle primary makes no lag; a replica that is cut off, and one that has been promoted or follows a former primary, is
found out; and without the primary nothing is known, and nobody is sent there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.db.engine import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.db.encryption import ColumnEncryption

_LOOK_EVERY_SECONDS = 1.0
_LOOK_PATIENCE_SECONDS = 1.0  # for both: a question waits for it now and then
_KEPT_LOOKS = 3600
# The log's positions as numbers. The timeline, which a promotion changes, is the beginning of a log file's name.
_PRIMARY_LOOK = sa.text(
    "SELECT (pg_current_wal_lsn() - '0/0')::bigint AS written,"
    " ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline"
)
# What a replica receives is shown to roles with pg_read_all_stats; others are not told its timeline.
_REPLICA_LOOK = sa.text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END AS replayed,"
    " (SELECT received_tli FROM pg_stat_wal_receiver) AS timeline"
)


class Replica:
    """A replica beside its primary. Safe for many threads; connects at first use."""

    def __init__(
        self, url: str, *, primary: str, max_lag_seconds: float, sealing: ColumnEncryption | None = None
    ) -> None:
        self._database = Database(url, sealing=sealing)
        self._exporting = Database(url, patience_seconds=3600.0, sealing=sealing)
        self._primary = Database(primary, patience_seconds=_LOOK_PATIENCE_SECONDS)
        self._looking_at = Database(url, patience_seconds=_LOOK_PATIENCE_SECONDS)
        self._max_lag_seconds = max_lag_seconds
        self._looking = threading.Lock()
        self._looked_at = float("-inf")
        self._written: deque[tuple[float, int]] = deque(maxlen=_KEPT_LOOKS)  # when the primary's log had come how far
        self._timeline: int | None = None
        self._as_of: float | None = None  # it has everything up to this reading of time.monotonic()

    def lag_seconds(self) -> float | None:
        """Return how far it is behind at most, not older than a second or two; None: it is away, or cannot be told."""
        if time.monotonic() - self._looked_at > _LOOK_EVERY_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._as_of = self._look()
            finally:
                self._looked_at = time.monotonic()
                self._looking.release()
        as_of = self._as_of
        return None if as_of is None else time.monotonic() - as_of

    @contextmanager
    def reading(self, *, for_long: bool = False) -> Iterator[tuple[sa.Connection, float]]:
        """Open a connection for questions, and tell how far behind it is at most.

        Raises StoreUnavailable where it is too far behind, or away; the primary knows then.
        """
        lag = self.lag_seconds()
        if lag is None or lag > self._max_lag_seconds:
            raise DatabaseUnavailable("the replica is away or too far behind")
        database = self._exporting if for_long else self._database
        try:
            with database.reading() as connection:
                yield connection, lag
        except (DatabaseUnavailable, DatabaseMisconfigured):
            self._as_of = None  # until the next look
            raise

    def close(self) -> None:
        """Close every connection."""
        for database in (self._database, self._exporting, self._primary, self._looking_at):
            database.close()

    def _look(self) -> float | None:
        try:
            at = time.monotonic()
            with self._primary.reading() as connection:
                primary = connection.execute(_PRIMARY_LOOK).one()
            with self._looking_at.reading() as connection:
                replica = connection.execute(_REPLICA_LOOK).one()
        except (DatabaseUnavailable, DatabaseMisconfigured):
            return None
        if primary.timeline != self._timeline:
            self._timeline = primary.timeline
            self._written.clear()
        self._written.append((at, primary.written))
        if replica.replayed is None or replica.timeline not in (None, primary.timeline):
            return None
        return max((moment for moment, written in self._written if written <= replica.replayed), default=None)
