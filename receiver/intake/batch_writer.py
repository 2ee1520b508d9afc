"""Makes pushes durable in groups: what came in while one transaction committed is the next transaction.

Where the database does not take a group in time, the spool does.
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
from receiver.db.engine import StoreRejected
from receiver.observability import get_logger, metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.db.availability import CircuitBreaker
    from receiver.intake.spool import Spool

_log = get_logger(__name__)

QUEUE_MAX_PUSHES = 10_000
BATCH_MAX_PUSHES = 500
_FIRST_CONTACT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A push that is durable, and what its acknowledgement says of it."""

    push: Push
    outcome: Outcome


class BatchWriter:
    """Takes pushes from many threads, keeps them from one. No timer: an idle one commits a lone push at once.

    `save` keeps a batch in one transaction, in bounded time, and may be called again with the same pushes: they are
    idempotent by id. So a batch whose commit is in doubt goes to the spool and is stored once all the same.
    """

    def __init__(
        self,
        save: Callable[[Sequence[Push]], None],
        *,
        link: CircuitBreaker,
        spool: Spool,
        queue_max: int = QUEUE_MAX_PUSHES,
        batch_max: int = BATCH_MAX_PUSHES,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._save = save
        self._link = link
        self._spool = spool
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._tell = tell  # that something was kept; at once, since the next batch waits for it
        self._waiting: deque[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle = False
        self._stopping = False
        self._kept_at = -math.inf

    def start(self) -> None:
        """Begin to keep what is taken; in the process that is to do it, after any fork."""
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def submit(self, push: Push) -> Future[Acknowledged]:
        """Queue a push. The future gives it as it was kept, once durable, or raises what prevented that.

        Raises Overloaded at once where the queue is full or the receiver is stopping.
        """
        future: Future[Acknowledged] = Future()

        def settle(result: Acknowledged | ReceiverError) -> None:
            if isinstance(result, Acknowledged):
                future.set_result(result)
            else:
                future.set_exception(result)

        self.take(push, settle)
        return future

    def take(self, push: Push, settle: Callable[[Acknowledged | ReceiverError], None]) -> None:
        """Queue a push; `settle` is told what became of it, on the committer's thread. Raises as `submit` does."""
        with self._changed:
            if self._stopping:
                raise Overloaded("the receiver is stopping; try again")
            if len(self._waiting) >= self._queue_max:
                raise Overloaded("too many pushes wait to be kept; try again")
            self._waiting.append((push, settle))
            if self._idle:
                self._changed.notify()

    @property
    def busy(self) -> bool:
        """Return whether pushes have come in within the last second."""
        return time.monotonic() - self._kept_at < 1

    def stop(self) -> None:
        """Keep all that was taken, then end. Nothing is taken from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._keep(batch)

    def _next_batch(self) -> list[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]]:
        waiting = self._waiting
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: waiting or self._stopping)
            self._idle = False
            batch = [waiting.popleft() for _ in range(min(len(waiting), self._batch_max))]
        metrics.QUEUE_DEPTH.set(len(waiting))
        return batch

    def _keep(self, batch: list[tuple[Push, Callable[[Acknowledged | ReceiverError], None]]]) -> None:
        begun = time.perf_counter()
        try:
            with tracing.span("keep pushes") as span:
                span.note({"receiver.pushes": len(batch)})
                results = self._results([push for push, _ in batch])
        except Exception as error:  # noqa: BLE001  (the edge of the thread: whoever waits must hear of it)
            metrics.STORE_FAILURES.labels(type(error).__name__).inc()
            own = error if isinstance(error, ReceiverError) else DatabaseUnavailable("the push could not be kept")
            _log.error("pushes not kept", pushes=len(batch), error=type(error).__name__, reason=str(own))
            for _, settle in batch:
                settle(own)
            return
        for (_, settle), result in zip(batch, results, strict=True):
            settle(result)
        self._tell()
        metrics.BATCH_SECONDS.observe(time.perf_counter() - begun)
        metrics.BATCH_PUSHES.observe(len(batch))
        metrics.LAST_PUSH.set(time.time())
        self._kept_at = time.monotonic()
        for outcome, count in Counter(result.outcome for result in results).items():
            metrics.PUSHES.labels(outcome).inc(count)
        metrics.RECEIPT_DELAY_SECONDS.observe_all(
            [
                max(0.0, (push.received_at - push.reading.reported_at).total_seconds())  # their clock may be ahead
                for push, _ in batch
                if isinstance(push.reading, Receipt)
            ]
        )

    def _results(self, pushes: list[Push]) -> list[Acknowledged]:
        """Keep pushes, in the database or the spool. Raises SpoolUnavailable."""
        if self._link.up or (not self._link.known and self._link.await_known(_FIRST_CONTACT_SECONDS)):
            try:
                return [Acknowledged(push, push.outcome) for push in save_apart(self._save, pushes)]
            except (DatabaseUnavailable, DatabaseMisconfigured) as error:
                metrics.STORE_FAILURES.labels(type(error).__name__).inc()
                _log.warning("database away, pushes go to the spool", reason=str(error))
                self._link.mark_down(str(error))
        try:
            self._spool.append(pushes)
        except SpoolUnavailable:
            self._link.changed.set()
            raise
        return [Acknowledged(push, Outcome.SPOOLED) for push in pushes]


def save_apart(save: Callable[[Sequence[Push]], None], pushes: Sequence[Push]) -> list[Push]:
    """Save pushes; give them as they were kept.

    A batch that the database refuses is halved, down to the one push that it will not take as it was read: that one
    is kept as unreadable. Raises StoreUnavailable, StoreUnfit, or StoreRejected for a push refused even so.
    """
    try:
        save(pushes)
    except StoreRejected:
        if len(pushes) > 1:
            middle = len(pushes) // 2
            return save_apart(save, pushes[:middle]) + save_apart(save, pushes[middle:])
        (push,) = pushes
        if isinstance(push.reading, Unreadable):
            raise
        _log.error("reading refused by the database, push quarantined", push_id=str(push.id))
        return save_apart(save, [replace(push, reading=Unreadable(error="body: refused by the database"))])
    return list(pushes)
