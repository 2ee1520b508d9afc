"""A read replica: its lag, and whether it may answer queries that do not need the newest row.

The lag is measured by this process's own clock. Once a second it asks the primary for its log position, and then the
replica how much of that it has replayed. The lag is the age of the newest such position that the replica has reached.
So an idle primary makes no lag; and a replica that is cut off, promoted, or follows a former primary is detected.
Without the primary the lag is unknown, and the replica is not used.
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
# Only roles with pg_read_all_stats see what a replica receives, and its timeline.
_REPLICA_LOOK = sa.text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END AS replayed,"
    " (SELECT received_tli FROM pg_stat_wal_receiver) AS timeline"
)


class Replica:
    """A read replica beside its primary. Safe for many threads; connects at first use."""

    def __init__(
        self, url: str, *, primary: str, max_lag_seconds: float, encryption: ColumnEncryption | None = None
    ) -> None:
        self._database = Database(url, encryption=encryption)
        self._exporting = Database(url, patience_seconds=3600.0, encryption=encryption)
        self._primary = Database(primary, patience_seconds=_LOOK_PATIENCE_SECONDS)
        self._looking_at = Database(url, patience_seconds=_LOOK_PATIENCE_SECONDS)
        self._max_lag_seconds = max_lag_seconds
        self._looking = threading.Lock()
        self._looked_at = float("-inf")
        self._written: deque[tuple[float, int]] = deque(maxlen=_KEPT_LOOKS)  # when the primary's log had come how far
        self._timeline: int | None = None
        self._as_of: float | None = None  # it has everything up to this reading of time.monotonic()

    def lag_seconds(self) -> float | None:
        """Return the maximum lag, a second or two old at most; None: unavailable, or unknown."""
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
        """Open a connection for queries, with its maximum lag.

        Raises DatabaseUnavailable if the replica is too far behind, or unavailable; use the primary then.
        """
        lag = self.lag_seconds()
        if lag is None or lag > self._max_lag_seconds:
            raise DatabaseUnavailable("the replica is unavailable or too far behind")
        database = self._exporting if for_long else self._database
        try:
            with database.reading() as connection:
                yield connection, lag
        except (DatabaseUnavailable, DatabaseMisconfigured):
            self._as_of = None  # until the next check
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
