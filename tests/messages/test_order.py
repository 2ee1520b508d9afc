"""Any order of appends, records, projections and crashes: one state and one matching, the same as the pure model's."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import MessageState, Receipt, Reply, fits, fold, is_masked
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages import journal, queries
from receiver.messages.projection import project
from receiver.messages.projector import catch_up
from receiver.messages.queries import Page
from receiver.messages.recording import record_sent
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.running import examples

if TYPE_CHECKING:
    from receiver.runtime import Runtime

TASKS = ("1", "22")
NUMBERS = ("15080921090", "15080921091", "15080931090")
MASKED = ("1508092****", "150****1090", "*****921090")


@dataclass(frozen=True)
class Pushed:
    task_id: str
    mobile: str
    status: str | None  # None: a reply
    second: int


@dataclass(frozen=True)
class Sent:
    task_id: str
    mobile: str


def pushed() -> st.SearchStrategy[Pushed]:
    return st.builds(
        Pushed,
        task_id=st.sampled_from(TASKS),
        mobile=st.sampled_from(NUMBERS + MASKED),
        status=st.sampled_from(("1", "0", "7", None)),
        second=st.integers(0, 2),
    )


def sent() -> st.SearchStrategy[Sent]:
    return st.builds(Sent, task_id=st.sampled_from(TASKS), mobile=st.sampled_from(NUMBERS))


@dataclass(frozen=True)
class Projected:
    """A turn of a projector."""

    pushes_max: int
    crashes: bool  # before its commit


def projected() -> st.SearchStrategy[Projected]:
    return st.builds(Projected, pushes_max=st.integers(1, 4), crashes=st.booleans())


Steps = list[list[Pushed | Sent | Projected]]  # transactions; the turns of projectors are each their own


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    """Some things that happen, some of them more than once, in any order, in transactions of any size."""
    happened = draw(st.lists(st.one_of(pushed(), pushed(), sent()), min_size=1, max_size=10))
    again = draw(st.lists(st.sampled_from(happened), max_size=4))
    order = draw(st.permutations(happened + again + draw(st.lists(projected(), max_size=6))))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=3)))
    bounds = [0, *cuts, len(order)]
    return [order[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def apply(runtime: Runtime, transactions: Steps) -> None:
    for transaction in transactions:
        pushes = [
            make_push(task_id=p.task_id, mobile=p.mobile, status=p.status, second=p.second,
                      content="hello" if p.status is None else None)
            for p in transaction if isinstance(p, Pushed)
        ]  # fmt: skip
        sends = [make_send(task_id=s.task_id, mobile=s.mobile) for s in transaction if isinstance(s, Sent)]
        if pushes:
            journal.append(runtime.database, pushes)
        if sends:
            runtime.database.write(partial(record_sent, sends=sends, recorded_at=NOON))
        for turn in transaction:
            if isinstance(turn, Projected):
                take(runtime, turn)
    catch_up(runtime.database)


class Crash(Exception):
    """What ends a projector as a kill would: nothing of its transaction stays."""


def take(runtime: Runtime, turn: Projected) -> None:
    def work(connection: sa.Connection) -> None:
        project(connection, limit=turn.pushes_max)
        if turn.crashes:
            raise Crash

    with suppress(Crash):
        runtime.database.write(work)


def stored(runtime: Runtime) -> tuple[Any, Any]:
    with runtime.database.reading() as connection:
        rows = connection.execute(sa.select(messages)).all()
        keys = {row.id: (row.task_id, row.mobile) for row in rows}
        states = {
            (row.task_id, row.mobile): (row.status, row.reported_at, row.seen, row.recorded_at is not None)
            for row in rows
        }
        page = Page(limit=1000)
        found: list[tuple[Any, ...]] = [
            (
                "receipt",
                row.task_id,
                row.mobile,
                row.vendor_status,
                row.reported_at,
                row.copies,
                keys.get(row.message_id or 0),
            )
            for row in queries.list_receipts(connection, page)
        ]
        found += [
            ("reply", row.task_id, row.mobile, row.content, row.replied_at, row.copies, keys.get(row.message_id or 0))
            for row in queries.list_replies(connection, page)
        ]
    return states, sorted(found, key=repr)


def expected(transactions: Steps) -> tuple[Any, Any]:
    happened = [step for transaction in transactions for step in transaction]
    recorded = {(step.task_id, step.mobile) for step in happened if isinstance(step, Sent)}
    pushes = Counter(step for step in happened if isinstance(step, Pushed))

    def message_of(step: Pushed) -> tuple[str, str] | None:
        if not is_masked(step.mobile):
            return (step.task_id, step.mobile)
        fitting = [key for key in recorded if key[0] == step.task_id and fits(step.mobile, key[1])]
        return fitting[0] if len(fitting) == 1 else None

    readings = {
        step: make_push(
            task_id=step.task_id, mobile=step.mobile, status=step.status, second=step.second,
            content="hello" if step.status is None else None,
        ).reading
        for step in pushes
    }  # fmt: skip
    keys = recorded | {(step.task_id, step.mobile) for step in pushes if not is_masked(step.mobile)}
    states = {}
    for key in keys:
        of_key = [r for step, r in readings.items() if message_of(step) == key and isinstance(r, Receipt)]
        state: MessageState = fold(of_key)
        states[key] = (int(state.status), state.reported_at, state.seen, key in recorded)
    found: list[tuple[Any, ...]] = []
    for step, copies in pushes.items():
        reading = readings[step]
        if isinstance(reading, Receipt):
            what: tuple[Any, ...] = ("receipt", step.task_id, step.mobile, reading.vendor_status, reading.reported_at)
        else:
            assert isinstance(reading, Reply)
            what = ("reply", step.task_id, step.mobile, reading.content, reading.replied_at)
        found.append((*what, copies, message_of(step)))
    return states, sorted(found, key=repr)


def empty(runtime: Runtime) -> None:
    def work(connection: sa.Connection) -> None:
        for table in (pushes, receipts, replies, messages):
            connection.execute(sa.delete(table))

    runtime.database.write(work)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=steps())
def test_any_interleaving_gives_the_models_state(runtime: Runtime, transactions: Steps) -> None:
    empty(runtime)
    apply(runtime, transactions)
    assert stored(runtime) == expected(transactions)


@given(
    st.lists(st.tuples(st.sampled_from(("1", "0", "9")), st.integers(0, 3)), min_size=1).flatmap(
        lambda receipts: st.tuples(st.just(receipts), st.permutations(receipts + receipts))
    )
)
def test_fold_is_the_same_for_any_order_and_copies(pair: Any) -> None:
    first, second = (
        [
            Receipt(mobile="1", task_id="1", vendor_status=s, reported_at=NOON + timedelta(seconds=t))
            for s, t in receipts
        ]
        for receipts in pair
    )
    assert fold(first) == fold(second)


def test_record_and_receipt_at_once_leave_no_unmatched_pair(runtime: Runtime) -> None:
    """32 threads: for each of 16 messages, one records it and one pushes its receipt, some of them masked."""
    rounds = 5
    barrier = threading.Barrier(32)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            for round_ in range(rounds):
                task_id, mobile = f"{round_}-{index // 2}", f"150809210{index // 2:02d}"
                barrier.wait()
                if index % 2:
                    send = make_send(task_id=task_id, mobile=mobile)
                    runtime.database.write(lambda c, s=send: record_sent(c, [s], recorded_at=NOON))  # type: ignore[misc]
                else:
                    masked = mobile[:7] + "****" if index % 4 else mobile
                    push = make_push(task_id=task_id, mobile=masked)
                    save_pushes(runtime.database, [push])
        except BaseException as error:
            failures.append(error)
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(index,)) for index in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    rows = runtime.ask(lambda c: queries.list_messages(c, Page(limit=1000), runtime.clock()))
    assert len(rows) == 16 * rounds
    assert {(row.matched, row.status, row.receipt_count) for row in rows} == {(True, "delivered", 1)}


def test_two_recordings_at_once_leave_an_ambiguous_masked_receipt_to_nobody(runtime: Runtime) -> None:
    """Each of the two alone would take the receipt; together neither may, whoever commits last."""
    for round_ in range(20):
        task_id = f"task-{round_}"
        push = make_push(task_id=task_id, mobile="1508092****")
        save_pushes(runtime.database, [push])
        barrier = threading.Barrier(2)

        def run(mobile: str, task_id: str = task_id, barrier: threading.Barrier = barrier) -> None:
            send = make_send(task_id=task_id, mobile=mobile)
            barrier.wait()
            runtime.database.write(lambda c: record_sent(c, [send], recorded_at=NOON))

        threads = [threading.Thread(target=run, args=(mobile,)) for mobile in NUMBERS[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    receipts = runtime.ask(lambda c: queries.list_receipts(c, Page(limit=1000)))
    assert [row.message_id for row in receipts] == [None] * 20
    rows = runtime.ask(lambda c: queries.list_messages(c, Page(limit=1000), runtime.clock()))
    assert {row.receipt_count for row in rows} == {0}
    assert not any(row.reported_at for row in rows)
