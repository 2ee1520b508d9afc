"""The short form of `python -m tests.power_loss`: the database is locked once, so that it has journal, spool, drain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.power_loss.run import go_on, look, made_place
from tests.power_loss.scenarios import SHORT, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.power_loss.recorder import Entry

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the recorder with")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    return record(SHORT, tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def place() -> Iterator[Path]:
    with made_place() as name:
        yield Path(name)


def test_power_that_fails_at_any_moment_costs_no_acknowledged_push(
    recorded: tuple[Path, list[Entry]], place: Path
) -> None:
    tally = look(SHORT, *recorded, place, cuts=60)
    go_on(tally, *recorded, place, cuts=60, started=1)
    assert tally.ok, (tally.examples, tally.damaged, tally.unfit)
    assert tally.images > 100
    assert tally.looked_for > 10_000
    assert tally.started == 1


@pytest.mark.parametrize("unsynced", ["", "-wal", ".spool", "/spool"])
def test_a_sync_that_did_not_happen_is_noticed(recorded: tuple[Path, list[Entry]], place: Path, unsynced: str) -> None:
    assert look(SHORT, *recorded, place, cuts=15, unsynced=unsynced).missing > 100
