"""Stores records of sends: in the database, or in the spool while it is unavailable."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, SendAttempt, SendResult, SentMessage
from receiver.db import once
from receiver.intake.spool_records import Record, SpooledAttempt, SpooledSends
from receiver.messages import balance, recording
from receiver.sending import attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from uuid import UUID

    import sqlalchemy as sa

    from receiver.db.availability import CircuitBreaker
    from receiver.db.engine import Database
    from receiver.intake.spool import Spool
    from receiver.messages.balance import Reading
    from receiver.sending.attempts import AttemptState

T = TypeVar("T")

_SENDS_PATIENCE_SECONDS = 2.0  # a list of a thousand takes a tenth of a second on an idle machine
_ATTEMPT_PATIENCE_SECONDS = 0.4  # a person waits for the code
_SPOOLED_AT_ONCE = 4  # concurrent transactions, which share their disk waits
_CUT_OFF_CHECK_SECONDS = 15.0  # between two searches for attempts of dead processes
_UNAVAILABLE = object()


class Recorder:
    """Records sends and send attempts. Thread-safe."""

    def __init__(
        self,
        database: Database,
        *,
        availability: CircuitBreaker,
        spool: Spool,
        on_recorded: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._on_recorded = on_recorded  # must return at once
        self._availability = availability
        self._spool = spool
        self._next_cut_off_check = 0.0

    def record(self, sends: Sequence[SentMessage]) -> list[recording.RecordResult] | None:
        """Record sends. None: they are spooled, the database is unavailable. Raises SpoolUnavailable."""
        spooled = SpooledSends(sends=tuple(sends), recorded_at=datetime.now(UTC))
        work = partial(recording.record_sent, sends=sends, recorded_at=spooled.recorded_at)
        return self._write_or_spool(work, spooled, patience_seconds=_SENDS_PATIENCE_SECONDS)

    def begin(
        self,
        attempt: SendAttempt,
        *,
        day_began: datetime,
        claim: attempts.IdempotencyClaim | None = None,
        limits: attempts.SendLimits = attempts.NO_LIMITS,
    ) -> AttemptState | None:
        """Record an attempt before its request goes out. None: send it; its record is spooled.

        Limits and Idempotency-Keys need the database. So with a key this raises DatabaseUnavailable instead of risking
        a second message. Also raises SpoolUnavailable and KeyReused.
        """
        spooled = SpooledAttempt(attempt=attempt, result=None, recorded_at=datetime.now(UTC))
        work = partial(
            attempts.begin_attempt,
            attempt=attempt,
            recorded_at=spooled.recorded_at,
            day_began=day_began,
            claim=claim,
            limits=limits,
        )
        return self._write_or_spool(work, None if claim else spooled, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)

    def finish(self, attempt: SendAttempt, result: SendResult) -> int | None:
        """Record the result of an attempt and return its message's id. None: it is spooled.

        Raises SpoolUnavailable.
        """
        spooled = SpooledAttempt(attempt=attempt, result=result, recorded_at=datetime.now(UTC))
        work = partial(attempts.finish_attempt, attempt=attempt, result=result, recorded_at=spooled.recorded_at)
        return self._write_or_spool(work, spooled, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)

    def find(self, attempt_id: UUID) -> AttemptState:
        """Return the state of a recorded attempt. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        with self._database.reading() as connection:
            return attempts.find_attempt(connection, attempt_id, now=datetime.now(UTC))

    def end_cut_off(self) -> None:
        """End the attempts that a dead process left as SENDING; searches at the first call, then every 15 s.

        Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        if time.monotonic() < self._next_cut_off_check:
            return
        self._next_cut_off_check = time.monotonic() + _CUT_OFF_CHECK_SECONDS
        with self._database.reading() as connection:
            found = attempts.find_cut_off(connection, now=datetime.now(UTC))
        for message_id in found:  # one transaction each: it never locks two rows
            self._database.write(partial(attempts.end_cut_off, message_id=message_id))

    def save_reading(self, reading: Reading) -> bool:
        """Save a balance reading. False: the database is unavailable; the next reading replaces this one."""
        return self._write_if_available(partial(balance.save_readings, readings=[reading])) is not _UNAVAILABLE

    def claim_notice(self, name: str, *, every: timedelta) -> bool:
        """Return whether this process is the one to log the notice in this interval."""
        now = datetime.now(UTC)
        return self._write_if_available(partial(once.claim_notice, name=name, now=now, every=every)) is True

    def record_spooled(self, records: Sequence[SpooledSends | SpooledAttempt]) -> None:
        """Record spooled sends and attempts, in any order. Idempotent.

        Raises DatabaseUnavailable, DatabaseMisconfigured or RowRejected.
        """
        if not self._database.postgresql:  # one writer, which waits for the disk at every commit
            self._database.write(partial(_record_spooled, records=records))
            return
        # One record per transaction keeps the lock order of all writers; several together would break it.
        with ThreadPoolExecutor(_SPOOLED_AT_ONCE) as pool:
            for done in [pool.submit(self._database.write, partial(_record_spooled, records=[r])) for r in records]:
                done.result()

    def _write_if_available(self, work: Callable[[sa.Connection], Any]) -> Any:
        """Run the work in one transaction; return _UNAVAILABLE if the database is unavailable."""
        try:
            return self._write_or_spool(work, None, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)
        except (DatabaseUnavailable, DatabaseMisconfigured):
            return _UNAVAILABLE

    def _write_or_spool(
        self, work: Callable[[sa.Connection], T], instead: Record | None, *, patience_seconds: float
    ) -> T | None:
        """Run the work in one transaction; if the database is unavailable, spool `instead` and return None."""
        try:
            if self._availability.known and not self._availability.up:
                raise DatabaseUnavailable(f"the database is unavailable: {self._availability.reason}")
            result = self._database.write(work, patience_seconds=patience_seconds)
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            if self._availability.up:
                self._availability.mark_down(str(error))
            if instead is None:
                raise
            self._spool.append([instead])
            self._availability.changed.set()
            return None
        self._on_recorded()
        return result


def _record_spooled(connection: sa.Connection, records: Sequence[SpooledSends | SpooledAttempt]) -> None:
    for record in records:
        at = record.recorded_at
        if isinstance(record, SpooledSends):
            recording.record_sent(connection, record.sends, recorded_at=at)
        elif record.result is None:
            attempts.begin_attempt(connection, record.attempt, recorded_at=at, day_began=at)
        else:
            attempts.finish_attempt(connection, record.attempt, record.result, recorded_at=at)
