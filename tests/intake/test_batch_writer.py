"""Group commit: batches form by themselves, one bad row sinks nothing, the queue is bounded."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from receiver.core import DatabaseUnavailable, Outcome, Overloaded, Push, Receipt, SpoolUnavailable
from receiver.db.availability import CircuitBreaker
from receiver.db.engine import RowRejected
from receiver.intake.batch_writer import BatchWriter
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.intake.test_push import journal, receipts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.intake.spool import Spool
    from receiver.runtime import Runtime


class Store:
    """Keeps batches; can be held, and can refuse."""

    def __init__(self) -> None:
        self.batches: list[list[Push]] = []
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.refuses: Callable[[Sequence[Push]], Exception | None] = lambda _: None

    def save(self, batch: Sequence[Push]) -> None:
        self.reached.set()
        self.free.wait(20)
        if error := self.refuses(batch):
            raise error
        self.batches.append(list(batch))


class Files:
    """Keeps what the store does not take; can be full."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.full = False

    def append(self, records: Sequence[Any]) -> None:
        if self.full:
            raise SpoolUnavailable("full")
        self.records += records


def make_writer(
    save: Callable[[Sequence[Push]], None], files: Files | None = None, **limits: Any
) -> tuple[BatchWriter, CircuitBreaker]:
    link = CircuitBreaker()
    link.mark_up()
    writer = BatchWriter(save, availability=link, spool=cast("Spool", files or Files()), **limits)
    writer.start()
    return writer, link


def test_what_came_during_one_commit_is_the_next_batch() -> None:
    store = Store()
    store.free.clear()
    writer, _ = make_writer(store.save, batch_max=50)
    first = writer.enqueue(make_push())
    store.reached.wait(20)
    rest = [writer.enqueue(make_push()) for _ in range(70)]
    assert not first.done()
    store.free.set()
    for future in (first, *rest):
        assert future.result(timeout=20).outcome is Outcome.ACCEPTED
    assert [len(batch) for batch in store.batches] == [1, 50, 20]
    writer.stop()


def test_full_queue_refuses_at_once_and_recovers() -> None:
    store = Store()
    store.free.clear()
    writer, _ = make_writer(store.save, queue_max=3)
    taken = [writer.enqueue(make_push())]
    store.reached.wait(20)
    taken += [writer.enqueue(make_push()) for _ in range(3)]
    with pytest.raises(Overloaded):
        writer.enqueue(make_push())
    store.free.set()
    for future in taken:
        future.result(timeout=20)
    assert writer.enqueue(make_push()).result(timeout=20)
    writer.stop()


def test_stop_keeps_what_was_taken_and_refuses_the_rest() -> None:
    store = Store()
    store.free.clear()
    writer, _ = make_writer(store.save)
    taken = [writer.enqueue(make_push())]
    assert store.reached.wait(5)
    taken += [writer.enqueue(make_push()) for _ in range(4)]  # queued behind a commit that is under way
    threading.Timer(0.2, store.free.set).start()
    writer.stop()
    assert all(future.result(timeout=0) for future in taken)
    with pytest.raises(Overloaded):
        writer.enqueue(make_push())


def test_database_away_sends_pushes_to_the_spool_until_somebody_says_it_is_back() -> None:
    store, files = Store(), Files()
    store.refuses = lambda _: DatabaseUnavailable("gone")
    writer, link = make_writer(store.save, files)
    for future in [writer.enqueue(make_push()) for _ in range(3)]:
        assert future.result(timeout=20).outcome is Outcome.SPOOLED
    assert (link.up, link.reason, len(files.records)) == (False, "gone", 3)
    store.refuses = lambda _: None
    assert writer.enqueue(make_push()).result(timeout=20).outcome is Outcome.SPOOLED
    link.mark_up()
    assert writer.enqueue(make_push()).result(timeout=20).outcome is Outcome.ACCEPTED
    writer.stop()


def test_neither_database_nor_spool_is_told_to_all_who_wait_and_ends_by_itself() -> None:
    store, files = Store(), Files()
    store.refuses = lambda _: DatabaseUnavailable("gone")
    files.full = True
    writer, _ = make_writer(store.save, files)
    for future in [writer.enqueue(make_push()) for _ in range(3)]:
        with pytest.raises(SpoolUnavailable):
            future.result(timeout=20)
    files.full = False
    assert writer.enqueue(make_push()).result(timeout=20).outcome is Outcome.SPOOLED
    writer.stop()


def test_late_projection_delays_an_acknowledgement_by_a_fifth_of_a_second_at_most() -> None:
    store = Store()
    projector = SimpleNamespace(lag_seconds=4.9, nudge=lambda: None)
    writer, _ = make_writer(store.save, projector=projector)

    def seconds_of_acknowledgement() -> float:
        begun = time.monotonic()
        writer.enqueue(make_push()).result(20)
        return time.monotonic() - begun

    seconds_of_acknowledgement()
    assert min(seconds_of_acknowledgement() for _ in range(5)) < 0.1
    projector.lag_seconds = 5.1
    assert 0.1 <= min(seconds_of_acknowledgement() for _ in range(5)) < 0.2
    writer.stop()


def test_one_push_that_the_database_refuses_is_quarantined_alone(runtime: Runtime) -> None:
    """A reading that no column takes: the real database refuses it, its neighbours are kept."""

    def poisoned(batch: Sequence[Push]) -> None:
        if any(isinstance(push.reading, Receipt) and push.reading.task_id == "bad" for push in batch):
            raise RowRejected("refused")
        save_pushes(runtime.database, batch)

    writer, _ = make_writer(poisoned)
    futures = [writer.enqueue(make_push(task_id="bad" if number == 5 else str(number))) for number in range(12)]
    outcomes = [future.result(timeout=20) for future in futures]
    assert [push.outcome for push in outcomes].count(Outcome.QUARANTINED) == 1
    assert (outcomes[5].outcome, outcomes[5].push.error) == (Outcome.QUARANTINED, "body: refused by the database")
    assert len(receipts(runtime)) == 11
    assert len(journal(runtime)) == 12
    writer.stop()


def test_value_that_a_real_database_refuses_sinks_only_its_push(postgres_runtime: Runtime) -> None:
    bad = make_push(task_id="bad")
    assert isinstance(bad.reading, Receipt)
    bad = replace(bad, reading=replace(bad.reading, vendor_status="a\0b"))  # the gate would not let it through
    pushes = [make_push(task_id="1"), bad, make_push(task_id="2")]
    kept = [future.result(timeout=20) for future in [postgres_runtime.batch_writer.enqueue(push) for push in pushes]]
    assert [push.outcome.value for push in kept] == ["accepted", "quarantined", "accepted"]
    assert sorted(row.outcome for row in journal(postgres_runtime)) == ["accepted", "accepted", "quarantined"]
