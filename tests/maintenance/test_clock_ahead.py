"""A clock that ran ahead: nothing goes by it, and what went before is told and set back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.audit import log
from receiver.db.tables import messages, pushes, receipts, retention
from receiver.maintenance import prune
from receiver.maintenance.retention import RetentionKind, list_horizons
from receiver.maintenance.verify import verify
from receiver.messages import recording
from receiver.reporting.delivery import delivery_report
from receiver.reporting.figures import ReportQuestion
from receiver.runtime import Runtime
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.maintenance.test_prune import command, count, counts, id_of, on_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    from receiver.core import CheckResult, Push

YEARS_AHEAD = timedelta(days=3660)


def push_at(at: datetime, *, reported: datetime | None = None, task_id: str = "1", mobile: str = "15080921090") -> Push:
    """A receipt that came at that moment by our clock, and was reported then or at another by the platform's."""
    second = int(((reported or at) - NOON).total_seconds())
    made = make_push(second=second, task_id=task_id, mobile=mobile)
    return replace(made, id=id_of(at), received_at=at)


def keep(runtime: Runtime, *batch: Push) -> None:
    save_pushes(runtime.database, batch)


def deliver(runtime: Runtime, name: str, number: int, at: datetime) -> None:
    """Record so many sends of a moment, each with its receipt."""
    sends = [make_send(task_id=name, mobile=f"1508092{n:04}", sent_at=at - timedelta(seconds=9)) for n in range(number)]
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=at))
    keep(runtime, *(push_at(at, task_id=name, mobile=send.mobile) for send in sends))


def reported(runtime: Runtime, zone: tzinfo) -> tuple[int, int]:
    """What the report says was sent, and delivered, around the present."""
    midnight = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = ReportQuestion(
        since=midnight - timedelta(days=30), until=midnight + timedelta(days=1), zone=runtime.settings.timezone
    )
    _, total = runtime.ask(lambda connection: delivery_report(connection, asked, runtime.clock()))
    return total.sent, total.delivered


def findings(runtime: Runtime) -> dict[str, CheckResult]:
    return {finding.name: finding for finding in verify(runtime.database, runtime.admission.read_again)}


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A clock that is ten years ahead, until it is undone."""
    monkeypatch.setattr(Runtime, "now", lambda _: datetime.now(UTC) + YEARS_AHEAD)
    return monkeypatch


@pytest.mark.parametrize("arguments", [("prune", "--yes"), ("run", "prune")], ids=" ".join)
def test_prune_refuses_a_clock_that_is_years_ahead(
    runtime: Runtime, ahead: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    deliver(runtime, "kept", 3, datetime.now(UTC) - timedelta(hours=1))
    refused = command(runtime, *arguments)
    assert (refused.exit_code, type(refused.exception).__name__) == (1, "ClockDoubted")
    said = str(refused.exception)
    assert "\n" not in said
    for part in (f"{datetime.now(UTC) + YEARS_AHEAD:%Y-%m-%d}", f"{datetime.now(UTC):%Y-}", "--now-is-right"):
        assert part in said
    assert counts(runtime) == [3, 3, 0, 3]
    assert runtime.ask(list_horizons) == {}
    ahead.undo()
    assert command(runtime, *arguments).exit_code == 0


@on_sqlite
def test_pushes_that_came_under_the_wrong_clock_do_not_vouch_for_it(
    runtime: Runtime, ahead: pytest.MonkeyPatch
) -> None:
    del ahead
    now = datetime.now(UTC)
    keep(runtime, push_at(now + YEARS_AHEAD, reported=now))
    runtime.audit("me", "login")
    assert command(runtime, "run", "prune").exit_code == 1
    assert count(runtime, pushes) == 1


@on_sqlite
def test_silent_receiver_goes_on_pruning_from_prune_to_prune(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(runtime, push_at(datetime.now(UTC)))
    for day in range(2, 20, 2):
        monkeypatch.setattr(Runtime, "now", lambda _, day=day: datetime.now(UTC) + timedelta(days=day))
        assert command(runtime, "run", "prune").exit_code == 0
    assert count(runtime, pushes) == 0  # kept for 14 days
    monkeypatch.setattr(Runtime, "now", lambda _: datetime.now(UTC) + timedelta(days=30))
    assert command(runtime, "run", "prune").exit_code == 1
    assert command(runtime, "prune", "--yes", "--now-is-right").exit_code == 0
    assert command(runtime, "run", "prune").exit_code == 0


@on_sqlite
def test_new_receiver_that_nothing_has_come_to_is_pruned_without_a_word(runtime: Runtime) -> None:
    assert command(runtime, "run", "prune").exit_code == 0
    runtime.database.write(
        lambda connection: recording.record_sent(connection, [make_send()], recorded_at=datetime.now(UTC))
    )
    assert command(runtime, "run", "prune").exit_code == 0


def ruin(runtime: Runtime, ahead: pytest.MonkeyPatch) -> None:
    """Deliver 200 messages and prune them all by a clock that is ten years ahead; then it is right again."""
    deliver(runtime, "before", 200, datetime.now(UTC) - timedelta(minutes=1))
    assert command(runtime, "prune", "--yes", "--now-is-right").exit_code == 0
    assert counts(runtime) == [0, 0, 0, 0]
    ahead.undo()


def test_books_that_a_wrong_clock_has_closed_are_opened_again(runtime: Runtime, ahead: pytest.MonkeyPatch) -> None:
    ruin(runtime, ahead)
    deliver(runtime, "after", 100, datetime.now(UTC))
    zone = runtime.settings.timezone
    assert reported(runtime, zone) == (200, 200)
    told = {row["check"]: row for row in json.loads(command(runtime, "doctor", "--json").stdout)}["retention"]
    assert (told["ok"], "report closed before 2036" in told["text"]) == (False, True)
    pruned = findings(runtime)["retention horizons are in the past"]
    assert (pruned.ok, len(pruned.details)) == (False, 6)
    assert command(runtime, "run", "prune").exit_code == 1  # a right one would hide it

    done = command(runtime, "db", "rebuild-rollups", "--reopen")
    assert (done.exit_code, "report closed before 2036" in done.stdout) == (0, True)
    assert reported(runtime, zone) == (300, 300)
    assert [finding for finding in findings(runtime).values() if not finding.ok] == []
    entry = runtime.ask(lambda connection: log.list_audit(connection, 1))[0]
    assert (entry["action"], len(entry["detail"]["was"])) == ("report.reopen", 6)
    assert {found.horizon <= datetime.now(UTC) for found in runtime.ask(list_horizons).values()} == {True}
    assert command(runtime, "run", "prune").exit_code == 0
    assert counts(runtime) == [100, 100, 0, 100]

    deliver(runtime, "later", 10, datetime.now(UTC))
    for _ in range(2):
        assert reported(runtime, zone) == (310, 310)
        again = command(runtime, "db", "rebuild-rollups", "--reopen")
        assert "no horizon is in the future" in again.stdout
    assert [finding for finding in findings(runtime).values() if not finding.ok] == []


@on_sqlite
def test_sends_that_are_recorded_a_second_time_count_once_in_opened_books(
    runtime: Runtime, ahead: pytest.MonkeyPatch
) -> None:
    sent = datetime.now(UTC) - timedelta(days=2)
    deliver(runtime, "old", 20, sent)
    ruin(runtime, ahead)
    deliver(runtime, "after", 100, datetime.now(UTC))
    sends = [make_send(task_id="old", mobile=f"1508092{n:04}", sent_at=sent - timedelta(seconds=9)) for n in range(20)]
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=datetime.now(UTC)))
    assert command(runtime, "db", "rebuild-rollups", "--reopen").exit_code == 0
    assert reported(runtime, runtime.settings.timezone) == (320, 320)
    assert findings(runtime)["delivery report adds up"].ok


def _killed(*_: object) -> Iterator[int]:
    raise KeyboardInterrupt


@on_sqlite
def test_messages_that_a_broken_off_prune_has_left_count_once_in_opened_books(
    runtime: Runtime, ahead: pytest.MonkeyPatch
) -> None:
    deliver(runtime, "left", 20, datetime.now(UTC) - timedelta(days=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prune._BATCHES, RetentionKind.MESSAGES, _killed)  # killed before the first went
        assert command(runtime, "prune", "--yes", "--now-is-right").exit_code == 1
    ahead.undo()
    deliver(runtime, "after", 100, datetime.now(UTC))
    assert command(runtime, "db", "rebuild-rollups", "--reopen").exit_code == 0
    assert reported(runtime, runtime.settings.timezone) == (120, 120)
    assert findings(runtime)["delivery report adds up"].ok


def test_missing_rows_are_no_pruned_ones_because_a_horizon_is_in_the_future(runtime: Runtime) -> None:
    deliver(runtime, "there", 5, datetime.now(UTC) - timedelta(hours=1))
    future = {"horizon": datetime.now(UTC) + YEARS_AHEAD}
    rows = [{"kind": kind.value, **future} for kind in (RetentionKind.PUSHES, RetentionKind.RECEIPTS)]
    runtime.database.write(lambda connection: connection.execute(sa.insert(retention), rows))
    name = "receipts and replies follow from the journal"
    assert findings(runtime)[name].ok
    newest = sa.select(sa.func.max(receipts.c.id)).scalar_subquery()
    runtime.database.write(lambda connection: connection.execute(sa.delete(receipts).where(receipts.c.id == newest)))
    assert not findings(runtime)[name].ok


@on_sqlite
def test_books_are_not_opened_by_a_clock_that_is_behind(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(runtime, "new", 1, datetime.now(UTC))
    assert command(runtime, "run", "prune").exit_code == 0
    before = runtime.ask(list_horizons)
    monkeypatch.setattr(Runtime, "now", lambda _: datetime.now(UTC) - YEARS_AHEAD)
    assert command(runtime, "db", "rebuild-rollups", "--reopen").exit_code == 1
    assert runtime.ask(list_horizons) == before
    assert count(runtime, messages) == 1
