"""The drainer saves what waits, and is the one who notices that the database is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from receiver.core import DatabaseUnavailable
from receiver.db.availability import CircuitBreaker
from receiver.intake.drainer import Drainer
from receiver.intake.spool import Spool
from receiver.intake.spool_records import SpooledSends
from tests.harness.factories import NOON, make_push, make_send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_drainer(
    spool: Spool,
    link: CircuitBreaker,
    save: Callable[[Any], None],
    record: Callable[[Any], None],
    confirm: Callable[[], None] = lambda: None,
) -> Drainer:
    return Drainer(
        spool,
        availability=link,
        make_ready=lambda: None,
        read_again=lambda push: push,
        append=save,
        record_sends=record,
        require_durable=confirm,
        housekeeping=lambda: None,
    )


def test_link_that_goes_down_during_a_long_drain_is_up_again_with_the_next_batch(tmp_path: Path) -> None:
    """Somebody with less patience has given up meanwhile; what is saved proves that the database is there."""
    spool = Spool(tmp_path / "spool", max_bytes=1 << 30)
    spool.append([make_push(task_id=str(number)) for number in range(1200)])
    link = CircuitBreaker()
    link.mark_up()
    seen: list[bool] = []

    def save(_batch: Any) -> None:
        seen.append(link.up)
        link.mark_down("a batch that waited for too long")

    assert make_drainer(spool, link, save, lambda _: None).drain() == 1200
    assert seen == [True, True, True]
    assert link.up
    spool.close()


def test_pushes_and_sends_of_a_file_are_saved_in_batches_whatever_their_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1 << 30)
    sends = SpooledSends(sends=(make_send(),), recorded_at=NOON)
    for number in range(300):
        spool.append([make_push(task_id=str(number)), sends])
    saved: list[int] = []
    recorded: list[int] = []
    drainer = make_drainer(
        spool, CircuitBreaker(), lambda batch: saved.append(len(batch)), lambda batch: recorded.append(len(batch))
    )
    assert drainer.drain() == 600
    assert (sum(saved), len(saved), sum(recorded)) == (300, 2, 300)
    assert len(recorded) <= 8
    assert spool.empty
    spool.close()


def test_file_stays_until_what_it_held_is_durable(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1 << 30)
    spool.append([make_push()])
    standby_is_back = iter([False, True])

    def confirm() -> None:
        if not next(standby_is_back):
            raise DatabaseUnavailable("the commit waits for the standby")

    drainer = make_drainer(spool, CircuitBreaker(), lambda _: None, lambda _: None, confirm)
    with pytest.raises(DatabaseUnavailable):
        drainer.drain()
    assert not spool.empty
    drainer.drain()
    assert spool.empty
    spool.close()
