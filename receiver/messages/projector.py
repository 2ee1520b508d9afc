"""Keeps the projection near the journal's end: a thread of each serving process, and the wait of readers.

A read sees what was acknowledged before it began: it waits until the projection has reached the journal's end of that
moment, at most a second.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from receiver.core import DatabaseUnavailable, ReceiverError
from receiver.db.engine import RowRejected
from receiver.db.set_aside import ROW_FAULTS
from receiver.messages.journal import find_end, find_oldest_pending
from receiver.messages.projection import BATCH_MAX_PUSHES, Progress, project, project_one
from receiver.messages.stamping import Stamping
from receiver.messages.stamps import is_any_unstamped
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.db.availability import CircuitBreaker
    from receiver.db.engine import Connection, Database

_log = get_logger(__name__)

READ_WAIT_SECONDS = 1.0
CATCH_UP_SECONDS = 60.0  # of a command; what is not projected then is left out
_POLL_SECONDS = 0.005
_OTHERS_POLL_SECONDS = 0.5  # for pushes that another process has appended and not projected
# Pushes that come within this time are one set: the statements of a set cost as much as those of one push.
_GATHER_SECONDS = 0.03
# The embedded database has one writer: a set may hold it for about this long, less while pushes come.
_HOLD_SECONDS, _HOLD_BUSY_SECONDS = 0.015, 0.0015
_FEWEST_PUSHES = 16
_REFUSED_MAX = 30  # in a row: so many are no damage, the program is wrong
_RETRY_SECONDS = 1.0
_STOP_SECONDS = 5.0  # for the current set, where the database hangs
_GIVE_WAY_SECONDS = 2.0


class _Sets:
    """Projects set by set, each in a transaction of its own."""

    def __init__(self, database: Database, is_busy: Callable[[], bool]) -> None:
        self._database = database
        self._is_busy = is_busy
        self._limit = BATCH_MAX_PUSHES if database.postgresql else _FEWEST_PUSHES
        self._refused = 0  # in a row
        self._stamping = Stamping(database)

    def project_next(self) -> Progress | None:
        """Project the next set, then stamp some messages. None: another process is the projector at present.

        A push that the database refuses is quarantined, so that it stops no other.
        Raises DatabaseUnavailable, DatabaseMisconfigured, or ReceiverError where it refuses one after another.
        """
        held = 0.0

        def work(connection: Connection) -> Progress | None:
            nonlocal held
            begun = time.monotonic()
            try:
                progress = project(connection, limit=self._limit)
                if progress is None:
                    return None
                return replace(progress, unstamped=self._stamping.is_due(connection))
            finally:
                held = time.monotonic() - begun

        while self._limit > 1:
            try:
                progress = self._database.write(work)
            except (RowRejected, *ROW_FAULTS):
                self._limit = max(1, self._limit // 8)
            else:
                if progress is not None and progress.unstamped:
                    begun = time.monotonic()
                    progress = replace(progress, unstamped=self._stamping.stamp_next(limit=self._limit))
                    held = max(held, time.monotonic() - begun)
                self._adjust(progress, held)
                return progress
        return self._project_one()

    def _project_one(self) -> Progress | None:
        if self._refused >= _REFUSED_MAX:
            raise ReceiverError("the projection refuses one push after another; see the log, then restart")
        progress, error = self._database.write(project_one)
        if error is not None:
            self._refused += 1
            _log.error("push refused by the projection, quarantined", error=type(error).__name__)
        elif progress is not None:
            self._refused, self._limit = 0, 2
        return progress

    def _adjust(self, progress: Progress | None, held: float) -> None:
        if self._database.postgresql:
            self._limit = min(BATCH_MAX_PUSHES, self._limit * 2)
        elif progress is not None and (progress.more or progress.unstamped):
            wanted = _HOLD_BUSY_SECONDS if self._is_busy() else _HOLD_SECONDS
            factor = min(2.0, max(0.5, wanted / max(held, 0.0001)))
            self._limit = min(BATCH_MAX_PUSHES, max(_FEWEST_PUSHES, int(self._limit * factor)))


def catch_up(database: Database, *, seconds: float = CATCH_UP_SECONDS) -> float | None:
    """Project all that the journal has at this moment, or wait until another process has; so, too, for stamps.

    None: it is projected. Else, after `seconds`: the age of the oldest push that is not, in seconds.
    Raises DatabaseUnavailable or DatabaseMisconfigured.
    """
    sets = _Sets(database, lambda: False)
    end, position, unstamped = _look(database, stamps=True)
    deadline = time.monotonic() + seconds
    while position < end or unstamped:
        if time.monotonic() > deadline:
            return _find_lag(database, end)
        progress = sets.project_next()
        if progress is None:
            time.sleep(_POLL_SECONDS)
            _, position, unstamped = _look(database, stamps=True)
        else:
            position, unstamped = progress.position, progress.unstamped is not False
            if progress.unstamped is None:
                time.sleep(_POLL_SECONDS)
    return None


def _look(database: Database, *, stamps: bool = False) -> tuple[int, int, bool]:
    """Return what `find_end` does, and, if `stamps` are asked for, whether any message has none."""
    with database.reading() as connection:
        return *find_end(connection), stamps and is_any_unstamped(connection)


def _find_lag(database: Database, end: int) -> float | None:
    with database.reading() as connection:
        return find_oldest_pending(connection, upto=end)


class Projector:
    """Projects what this process appends, and what others have left. One per process; safe for many threads."""

    def __init__(
        self,
        database: Database,
        *,
        availability: CircuitBreaker,
        is_busy: Callable[[], bool] = lambda: False,
        on_projected: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._availability = availability
        self._on_projected = on_projected  # must return at once
        self._sets = _Sets(database, is_busy)
        self._position = 0
        self._turns_begun = self._last_stamped = 0  # this process's turns, and the last that left nothing unstamped
        # The journal's end at some moment, which the projection has not reached since.
        self._mark = 0
        self._marked_at: float | None = None
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._wanted = threading.Event()  # a reader waits
        self._moved = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it after any fork."""
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Wake the projector after an append, or a change of messages. Very cheap."""
        self._nudged.set()

    def stop(self) -> None:
        """Stop after the current set; another process, or the next start, does the rest."""
        self._stopping.set()
        self._wanted.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest push has waited that is not projected, as this process knows it."""
        marked_at = self._marked_at
        return 0.0 if marked_at is None else time.monotonic() - marked_at

    @property
    def is_late(self) -> bool:
        """Return whether long reads and webhooks should give way to the projection."""
        return self.lag_seconds > _GIVE_WAY_SECONDS

    def await_reached(self, seconds: float = READ_WAIT_SECONDS, *, stamped: bool = False) -> float | None:
        """Wait until what was appended before this call is projected; return as `catch_up` does.

        `stamped`: and until messages that were changed before it have their stamp, as far as no one else holds them.
        """
        if self._thread is None:
            return catch_up(self._database, seconds=seconds)
        wanted = self._turns_begun + 1  # one that is under way may not have seen the change
        end, position, unstamped = _look(self._database, stamps=stamped)
        deadline = time.monotonic() + seconds
        while position < end or unstamped:
            if time.monotonic() > deadline:
                return max(_find_lag(self._database, end) or 0.0, seconds if unstamped else 0.0) or None
            self._wanted.set()
            self._nudged.set()
            with self._moved:
                aims = (end if position < end else 0), (wanted if unstamped else 0)
                self._moved.wait_for(
                    lambda: self._position >= aims[0] and self._last_stamped >= aims[1],  # noqa: B023  (called here)
                    2 * _POLL_SECONDS,
                )
                position = max(position, self._position)
                unstamped = unstamped and self._last_stamped < wanted
            if position < end:  # another process may be the projector
                _, position, left = _look(self._database, stamps=stamped)
                if left and position >= end:  # the set is committed, and its last stamps come in a transaction after it
                    wanted, unstamped = self._turns_begun + 1, True
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._nudged.wait(_OTHERS_POLL_SECONDS)
            self._wanted.wait(_GATHER_SECONDS)
            self._nudged.clear()
            self._wanted.clear()
            try:
                if self._availability.up and not self._stopping.is_set():
                    self._project()
            except Exception as error:  # noqa: BLE001  (edge of the thread: it must go on)
                if not isinstance(error, DatabaseUnavailable):
                    reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                    _log.warning("projection failed, retrying", reason=reason)
                self._stopping.wait(_RETRY_SECONDS)

    def _project(self) -> None:
        """Project until a set is the last one."""
        while not self._stopping.is_set():
            self._turns_begun += 1
            progress = self._sets.project_next()
            if progress is None:
                self._stopping.wait(_POLL_SECONDS)
                self._nudged.set()  # another process may have begun before our last append
                return
            with self._moved:
                self._position = progress.position
                if progress.unstamped is False:
                    self._last_stamped = self._turns_begun
                self._moved.notify_all()
            if progress.pushes:
                self._on_projected()
            if not progress.more:
                self._marked_at = None
                if progress.unstamped:
                    continue
                if progress.unstamped is None:
                    self._stopping.wait(_POLL_SECONDS)
                    self._nudged.set()  # until it is known
                return
            if self._marked_at is None or progress.position >= self._mark:
                self._mark, _, _ = _look(self._database)
                self._marked_at = time.monotonic()
