"""Group commit: pushes that arrive during one transaction form the next one. No timer.

If the database does not commit a batch in time, the batch goes to the spool.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from receiver.core import (
    DatabaseMisconfigured,
    DatabaseUnavailable,
    Outcome,
    Overloaded,
    Push,
    Receipt,
    ReceiverError,
    SpoolUnavailable,
    Unreadable,
)
from receiver.db.engine import RowRejected
from receiver.messages.journal import REFUSED_BY_DATABASE
from receiver.observability import get_logger, metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.db.availability import CircuitBreaker
    from receiver.intake.spool import Spool
    from receiver.messages.projector import Projector

_log = get_logger(__name__)

QUEUE_MAX_PUSHES = 10_000
BATCH_MAX_PUSHES = 500
_FIRST_CONTACT_SECONDS = 0.5
# A projection that is so late gets this pause before each batch: a push waits for two of them at most.
_LATE_SECONDS, _LATE_PAUSE_SECONDS = 5.0, 0.1


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A durable push and the outcome that its acknowledgement reports."""

    push: Push
    outcome: Outcome


class BatchWriter:
    """Accepts pushes from many threads and writes them from one. An idle writer commits a single push at once.

    `append` appends a batch to the journal in one transaction and bounded time. It is idempotent by push id, so a batch
    whose commit is in doubt goes to the spool and is still stored once.
    """

    def __init__(
        self,
        append: Callable[[Sequence[Push]], None],
        *,
        availability: CircuitBreaker,
        spool: Spool,
        queue_max: int = QUEUE_MAX_PUSHES,
        batch_max: int = BATCH_MAX_PUSHES,
        projector: Projector | None = None,
    ) -> None:
        self._append_to_journal = append
        self._availability = availability
        self._spool = spool
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._projector = projector
        self._queue: deque[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle = False
        self._stopping = False
        self._appended_at = -math.inf

    def start(self) -> None:
        """Start the writer thread; call it after any fork."""
        self._thread = threading.Thread(target=self._run, name="batch-writer", daemon=True)
        self._thread.start()

    def enqueue(self, push: Push) -> Future[Acknowledged]:
        """Queue a push. The future returns its acknowledgement once it is durable, or raises why it is not.

        Raises Overloaded at once if the queue is full or the receiver is stopping.
        """
        future: Future[Acknowledged] = Future()

        def on_done(result: Acknowledged | ReceiverError) -> None:
            if isinstance(result, Acknowledged):
                future.set_result(result)
            else:
                future.set_exception(result)

        self.enqueue_with_callback(push, on_done)
        return future

    def enqueue_with_callback(self, push: Push, on_done: Callable[[Acknowledged | ReceiverError], None]) -> None:
        """Queue a push; `on_done` is called with the result on the writer's thread. Raises as `enqueue` does."""
        with self._changed:
            if self._stopping:
                raise Overloaded("the receiver is stopping; try again")
            if len(self._queue) >= self._queue_max:
                raise Overloaded("too many pushes are queued; try again")
            self._queue.append((push, on_done))
            if self._idle:
                self._changed.notify()

    @property
    def is_busy(self) -> bool:
        """Return whether pushes have come in within the last second."""
        return time.monotonic() - self._appended_at < 1

    def stop(self) -> None:
        """Write every queued push, then stop. New pushes are refused from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._append_batch(batch)

    def _next_batch(self) -> list[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]]:
        queue = self._queue
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: queue or self._stopping)
            self._idle = False
            batch = [queue.popleft() for _ in range(min(len(queue), self._batch_max))]
        metrics.QUEUE_DEPTH.set(len(queue))
        return batch

    def _append_batch(self, batch: list[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]]) -> None:
        if self._projector is not None and self._projector.lag_seconds > _LATE_SECONDS:
            time.sleep(_LATE_PAUSE_SECONDS)
        begun = time.perf_counter()
        try:
            with tracing.span("append pushes") as span:
                tracing.note(span, {"receiver.pushes": len(batch)})
                results = self._append([push for push, _ in batch])
        except Exception as error:  # noqa: BLE001  (edge of the thread: every caller needs a result)
            metrics.STORE_FAILURES.labels(type(error).__name__).inc()
            own = error if isinstance(error, ReceiverError) else DatabaseUnavailable("the push could not be saved")
            _log.error("pushes not saved", pushes=len(batch), error=type(error).__name__, reason=str(own))
            for _, on_done in batch:
                on_done(own)
            return
        for (_, on_done), result in zip(batch, results, strict=True):
            on_done(result)
        if self._projector is not None:
            self._projector.nudge()
        metrics.BATCH_SECONDS.observe(time.perf_counter() - begun)
        metrics.BATCH_PUSHES.observe(len(batch))
        metrics.LAST_PUSH.set(time.time())
        self._appended_at = time.monotonic()
        for outcome, count in Counter(result.outcome for result in results).items():
            metrics.PUSHES.labels(outcome).inc(count)
        metrics.RECEIPT_DELAY_SECONDS.observe_all(
            [
                max(0.0, (push.received_at - push.reading.reported_at).total_seconds())  # their clock may be ahead
                for push, _ in batch
                if isinstance(push.reading, Receipt)
            ]
        )

    def _append(self, pushes: list[Push]) -> list[Acknowledged]:
        """Save pushes in the database or the spool. Raises SpoolUnavailable."""
        if self._availability.up or (
            not self._availability.known and self._availability.await_known(_FIRST_CONTACT_SECONDS)
        ):
            try:
                return [
                    Acknowledged(push, push.outcome)
                    for push in append_isolating_rejects(self._append_to_journal, pushes)
                ]
            except (DatabaseUnavailable, DatabaseMisconfigured) as error:
                metrics.STORE_FAILURES.labels(type(error).__name__).inc()
                _log.warning("database unavailable, pushes go to the spool", reason=str(error))
                self._availability.mark_down(str(error))
        try:
            self._spool.append(pushes)
        except SpoolUnavailable:
            self._availability.changed.set()
            raise
        return [Acknowledged(push, Outcome.SPOOLED) for push in pushes]


def append_isolating_rejects(append: Callable[[Sequence[Push]], None], pushes: Sequence[Push]) -> list[Push]:
    """Append pushes and return them as appended.

    If the database rejects a batch, it is halved until the rejected push is alone; that one is appended as unreadable.
    Raises DatabaseUnavailable, DatabaseMisconfigured, or RowRejected for a push that is rejected even then.
    """
    try:
        append(pushes)
    except RowRejected:
        if len(pushes) > 1:
            middle = len(pushes) // 2
            return append_isolating_rejects(append, pushes[:middle]) + append_isolating_rejects(append, pushes[middle:])
        (push,) = pushes
        if isinstance(push.reading, Unreadable):
            raise
        _log.error("parsed push rejected by the database, quarantined", push_id=str(push.id))
        return append_isolating_rejects(append, [replace(push, reading=Unreadable(error=REFUSED_BY_DATABASE))])
    return list(pushes)
