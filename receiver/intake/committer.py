"""Makes pushes durable in groups: what came in while one transaction committed is the next transaction."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from receiver import metrics
from receiver.domain import Push, Unreadable
from receiver.errors import Overloaded, StoreUnavailable
from receiver.logs import get_logger
from receiver.store.database import StoreRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = get_logger(__name__)

QUEUE_MAX_PUSHES = 10_000
BATCH_MAX_PUSHES = 500


class Committer:
    """Takes pushes from many threads, keeps them from one. No timer: an idle one commits a lone push at once.

    `save` keeps a batch in one transaction and may be called again with the same pushes: they are idempotent by id.
    The thread starts at the first push, so that a process may fork before.
    """

    def __init__(
        self,
        save: Callable[[Sequence[Push]], None],
        *,
        queue_max: int = QUEUE_MAX_PUSHES,
        batch_max: int = BATCH_MAX_PUSHES,
    ) -> None:
        self._save = save
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._waiting: deque[tuple[Push, Future[Push]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._started_in = 0
        self._stopping = False

    def submit(self, push: Push) -> Future[Push]:
        """Queue a push. The future gives it as it was kept, once durable, or raises what prevented that.

        Raises Overloaded at once where the queue is full or the receiver is stopping.
        """
        future: Future[Push] = Future()
        with self._changed:
            if self._stopping:
                raise Overloaded("the receiver is stopping; try again")
            if len(self._waiting) >= self._queue_max:
                raise Overloaded("too many pushes wait to be kept; try again")
            self._waiting.append((push, future))
            if self._started_in != os.getpid():
                self._start()
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Keep all that was taken, then end. Nothing is taken from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None and self._started_in == os.getpid():
            self._thread.join()

    def _start(self) -> None:
        self._started_in = os.getpid()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._keep(batch)

    def _next_batch(self) -> list[tuple[Push, Future[Push]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_max))]
            metrics.QUEUE_DEPTH.set(len(self._waiting))
        return batch

    def _keep(self, batch: list[tuple[Push, Future[Push]]]) -> None:
        try:
            self._save_again([push for push, _ in batch])
        except StoreRejected:
            self._keep_apart(batch)
        except Exception as error:  # noqa: BLE001  (the edge of the thread: whoever waits must hear of it)
            metrics.STORE_FAILURES.labels(type(error).__name__).inc()
            _log.error("pushes not kept", pushes=len(batch), error=str(error))
            for _, future in batch:
                future.set_exception(error)
        else:
            metrics.BATCH_PUSHES.observe(len(batch))
            metrics.LAST_PUSH.set(time.time())
            for push, future in batch:
                metrics.PUSHES.labels(push.outcome).inc()
                future.set_result(push)

    def _save_again(self, pushes: Sequence[Push]) -> None:
        try:
            self._save(pushes)
        except StoreUnavailable:
            # A connection from before the database's restart fails once; whether this commit arrived does not matter.
            self._save(pushes)

    def _keep_apart(self, batch: list[tuple[Push, Future[Push]]]) -> None:
        """Halve a batch that the database refused, down to the one push that it will not take as it was read."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._keep(batch[:middle])
            self._keep(batch[middle:])
            return
        push, future = batch[0]
        if isinstance(push.reading, Unreadable):
            future.set_exception(StoreRejected("the database refused this push"))
            return
        _log.error("reading refused by the database, push quarantined", push_id=str(push.id))
        self._keep([(replace(push, reading=Unreadable(error="body: refused by the database")), future)])
