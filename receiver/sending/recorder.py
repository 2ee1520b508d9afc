"""Keeps the records of sends: in the database, or in the spool while that is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, SendAttempt, SendResult, SentMessage
from receiver.db import once
from receiver.intake import Record, Spool, SpooledAttempt, SpooledSends
from receiver.messages import Reading, balance, recording
from receiver.sending import attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from uuid import UUID

    import sqlalchemy as sa

    from receiver.db.availability import CircuitBreaker
    from receiver.db.engine import Database
    from receiver.sending.attempts import AttemptState

T = TypeVar("T")

_SENDS_PATIENCE_SECONDS = 2.0  # a list of a thousand takes a tenth of a second on an idle machine
_ATTEMPT_PATIENCE_SECONDS = 0.4  # somebody waits for a code
_SPOOLED_AT_ONCE = 4  # transactions, which wait for the disk together
_LOOK_SECONDS = 15.0  # for attempts whose process has ended
_AWAY = object()


class Recorder:
    """Records sends and attempts to send. Safe for many threads."""

    def __init__(self, database: Database, *, link: CircuitBreaker, spool: Spool) -> None:
        self._database = database
        self._link = link
        self._spool = spool
        self._look_at = 0.0

    def record(self, sends: Sequence[SentMessage]) -> list[recording.RecordResult] | None:
        """Record sends. None: the database is away, they wait in the spool. Raises SpoolUnavailable."""
        spooled = SpooledSends(sends=tuple(sends), recorded_at=datetime.now(UTC))
        work = partial(recording.record_sent, sends=sends, recorded_at=spooled.recorded_at)
        return self._keep(work, spooled, patience_seconds=_SENDS_PATIENCE_SECONDS)

    def begin(
        self,
        attempt: SendAttempt,
        *,
        day_began: datetime,
        claim: attempts.IdempotencyClaim | None = None,
        limits: attempts.SendLimits = attempts.NO_LIMITS,
    ) -> AttemptState | None:
        """Note an attempt before it goes out. None: it may go out, and its note waits in the spool.

        Neither limits nor an Idempotency-Key can be looked up then: with a key it raises StoreUnavailable, since a
        second message may be what the key is to prevent. Raises SpoolUnavailable, KeyReused.
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
        return self._keep(work, None if claim else spooled, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)

    def finish(self, attempt: SendAttempt, result: SendResult) -> int | None:
        """Record what became of an attempt; give its message's id. None: it waits in the spool.

        Raises SpoolUnavailable.
        """
        spooled = SpooledAttempt(attempt=attempt, result=result, recorded_at=datetime.now(UTC))
        work = partial(attempts.finish_attempt, attempt=attempt, result=result, recorded_at=spooled.recorded_at)
        return self._keep(work, spooled, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)

    def find(self, attempt_id: UUID) -> AttemptState:
        """Return the state of an attempt that is noted. Raises StoreUnavailable or StoreUnfit."""
        with self._database.reading() as connection:
            return attempts.find_attempt(connection, attempt_id, now=datetime.now(UTC))

    def end_cut_off(self) -> None:
        """Record the end of attempts that a dead process has left under way; now and then, at the first call too.

        Raises StoreUnavailable or StoreUnfit.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        with self._database.reading() as connection:
            found = attempts.find_cut_off(connection, now=datetime.now(UTC))
        for message_id in found:  # each in a transaction of its own: no two rows are held at once
            self._database.write(partial(attempts.end_cut_off, message_id=message_id))

    def keep_reading(self, reading: Reading) -> bool:
        """Keep a reading of the balance. False: the database is away, and the next reading will say more."""
        return self._unless_away(partial(balance.save_readings, readings=[reading])) is not _AWAY

    def claim_notice(self, name: str, *, every: timedelta) -> bool:
        """Return whether this process is the one to say it, in this span of time."""
        now = datetime.now(UTC)
        return self._unless_away(partial(once.claim_notice, name=name, now=now, every=every)) is True

    def record_spooled(self, records: Sequence[SpooledSends | SpooledAttempt]) -> None:
        """Record what waited in the spool, in any order. May be repeated.

        Raises StoreUnavailable, StoreUnfit or StoreRejected.
        """
        if not self._database.postgresql:  # one writer, who waits for the disk at every commit
            self._database.write(partial(_record_spooled, records=records))
            return
        # Each takes its locks in the one order that all writers keep to, and several together would not.
        with ThreadPoolExecutor(_SPOOLED_AT_ONCE) as pool:
            for done in [pool.submit(self._database.write, partial(_record_spooled, records=[r])) for r in records]:
                done.result()

    def _unless_away(self, work: Callable[[sa.Connection], Any]) -> Any:
        """Do the work in one transaction; _AWAY where the database does not take it."""
        try:
            return self._keep(work, None, patience_seconds=_ATTEMPT_PATIENCE_SECONDS)
        except (DatabaseUnavailable, DatabaseMisconfigured):
            return _AWAY

    def _keep(self, work: Callable[[sa.Connection], T], instead: Record | None, *, patience_seconds: float) -> T | None:
        """Do the work in one transaction; keep `instead` in the spool where the database does not take it."""
        try:
            if self._link.known and not self._link.up:
                raise DatabaseUnavailable(f"not now: {self._link.reason}")
            return self._database.write(work, patience_seconds=patience_seconds)
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            if self._link.up:
                self._link.mark_down(str(error))
            if instead is None:
                raise
            self._spool.append([instead])
            self._link.changed.set()
            return None


def _record_spooled(connection: sa.Connection, records: Sequence[SpooledSends | SpooledAttempt]) -> None:
    for record in records:
        at = record.recorded_at
        if isinstance(record, SpooledSends):
            recording.record_sent(connection, record.sends, recorded_at=at)
        elif record.result is None:
            attempts.begin_attempt(connection, record.attempt, recorded_at=at, day_began=at)
        else:
            attempts.finish_attempt(connection, record.attempt, record.result, recorded_at=at)
