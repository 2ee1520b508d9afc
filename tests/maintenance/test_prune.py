"""`prune`: what is older than it is kept for goes; reports and `verify` stay right."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from receiver.app import create_app
from receiver.audit import log
from receiver.cli import cli
from receiver.core import first_id_of, iso_milliseconds, new_id
from receiver.core.cursors import Cursors
from receiver.db.tables import attempts, deliveries, forward_queue, messages, notes, pushes, receipts, replies
from receiver.maintenance.prune import Plan, look, prune
from receiver.maintenance.retention import RetentionKind, list_horizons
from receiver.maintenance.verify import verify
from receiver.messages import journal, recording
from receiver.messages.events import Position
from receiver.messages.projector import catch_up
from receiver.reporting import rollup
from receiver.reporting.delivery import delivery_report
from receiver.reporting.figures import ReportQuestion, Unit
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import appending, save_pushes
from tests.harness.notes import write_note
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from click.testing import Result

    from receiver.core import Push
    from receiver.runtime import Runtime

NOW = datetime.now(UTC).replace(microsecond=0)
# Where the database does not matter.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_both = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)], indirect=True
)
DAYS = {
    RetentionKind.PUSHES: 14,
    RetentionKind.RECEIPTS: 180,
    RetentionKind.REPLIES: 90,
    RetentionKind.MESSAGES: 180,
    RetentionKind.AUDIT: 180,
}
CUTOFFS = {kind: NOW - timedelta(days=days) for kind, days in DAYS.items()}


def push_of(days_ago: float, **fields: Any) -> Push:
    """A push that came so many days before NOW, as its report says too."""
    at = NOW - timedelta(days=days_ago)
    made = make_push(second=int((at - NOON).total_seconds()), **fields)
    return replace(made, id=id_of(at), received_at=at)


def id_of(at: datetime) -> UUID:
    """A push id of that time: its head, and a random tail."""
    random = new_id().int & ((1 << 60) - 1)
    return type(new_id())(int=first_id_of(at).int | random)


def save(runtime: Runtime, *batch: Push) -> None:
    save_pushes(runtime.database, batch)


def record(runtime: Runtime, days_ago: float, **fields: Any) -> int:
    """Record a send of so many days ago; give its message's id."""
    at = NOW - timedelta(days=days_ago)
    send = make_send(sent_at=at - timedelta(seconds=4), **fields)
    (result,) = runtime.database.write(lambda connection: recording.record_sent(connection, [send], recorded_at=at))
    return result.message_id


def run(
    runtime: Runtime,
    *kinds: RetentionKind,
    readers: Position | None = None,
    changes: Mapping[RetentionKind, datetime] = CUTOFFS,
) -> dict[RetentionKind, int]:
    plan = Plan(kinds=kinds or tuple(RetentionKind), cutoffs={**CUTOFFS, **changes}, readers=readers)
    return prune(runtime.database, plan, now=lambda: NOW)


def count(runtime: Runtime, table: sa.Table) -> int:
    return runtime.ask(lambda c: c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def counts(runtime: Runtime) -> list[int]:
    return [count(runtime, table) for table in (pushes, receipts, replies, messages)]


def checked(connection: sa.Connection, runtime: Runtime) -> list[Any]:
    """What `verify` says within a transaction that is not committed."""

    class _Open:
        postgresql = False

        @contextmanager
        def reading(self) -> Iterator[sa.Connection]:
            yield connection

    return list(verify(_Open(), runtime.admission.read_again))  # type: ignore[arg-type]


def wrong(runtime: Runtime) -> list[Any]:
    return [f for f in verify(runtime.database, runtime.admission.read_again) if not f.ok]


def report(runtime: Runtime, unit: Unit | None = Unit.DAY) -> Any:
    """The figures of the last year, by day and template."""
    zone = ZoneInfo("Asia/Shanghai")
    until = NOW.astimezone(zone).replace(hour=0, minute=0, second=0).astimezone(UTC) + timedelta(days=1)
    asked = ReportQuestion(since=until - timedelta(days=365), until=until, zone=zone, unit=unit, by_template=True)
    groups, total = runtime.ask(lambda c: delivery_report(c, asked, runtime.clock(NOW)))
    return {key: (f.sent, f.delivered, f.failed, f.unmatched, dict(f.latencies)) for key, f in groups.items()}, total


@pytest.fixture
def aged(runtime: Runtime) -> Runtime:
    """Pushes, sends and replies of a year, one of each in most ages."""
    for number, days_ago in enumerate((300, 200, 181, 100, 50, 15, 13, 1)):
        mobile, task_id = f"1508092{number:04}", f"t{number}"
        record(runtime, days_ago, mobile=mobile, task_id=task_id, template_id="540")
        save(runtime, push_of(days_ago, mobile=mobile, task_id=task_id))
        save(runtime, push_of(days_ago - 0.01, mobile=mobile, task_id=task_id, content=f"好 {number}"))
    save(runtime, push_of(250, task_id="unmatched"), push_of(249, body=b"mobile=1&nonsense"))
    for days_ago in (181, 10):
        runtime.database.write(
            lambda c, days_ago=days_ago: log.write_audit(  # type: ignore[misc]
                c, at=NOW - timedelta(days=days_ago), actor="me", action="test", detail={}
            )
        )
    return runtime


def test_each_kind_goes_by_its_own_age_and_the_rest_agrees(aged: Runtime) -> None:
    before = report(aged)
    assert counts(aged) == [18, 9, 8, 9]
    gone = run(aged)
    assert gone == {
        RetentionKind.PUSHES: 14,
        RetentionKind.RECEIPTS: 4,
        RetentionKind.REPLIES: 4,
        RetentionKind.MESSAGES: 4,
        RetentionKind.AUDIT: 1,
    }
    assert counts(aged) == [4, 5, 4, 5]
    assert wrong(aged) == []
    assert report(aged) == before
    assert set(aged.ask(list_horizons)) == set(RetentionKind)
    assert sum(run(aged).values()) == 0


@on_sqlite
def test_dry_run_says_what_would_go_and_changes_nothing(aged: Runtime) -> None:
    due = aged.ask(lambda c: look(c, Plan(kinds=tuple(RetentionKind), cutoffs=CUTOFFS)))
    assert [one.rows for one in due] == [14, 4, 4, 4, 1]
    assert due[0].oldest == NOW - timedelta(days=300)
    assert due[0].bytes
    assert counts(aged) == [18, 9, 8, 9]
    assert aged.ask(list_horizons) == {}


def test_sums_made_anew_keep_what_is_pruned(aged: Runtime) -> None:
    before = report(aged)
    run(aged)
    for _ in range(2):
        aged.database.write(lambda c: rollup.rebuild(c, offset_seconds=8 * 3600))
        assert report(aged) == before
    aged.database.write(lambda c: rollup.rebuild(c, offset_seconds=-5 * 3600))
    assert wrong(aged) == []
    aged.database.write(lambda c: rollup.rebuild(c, offset_seconds=8 * 3600))
    assert report(aged) == before
    assert wrong(aged) == []


def test_what_comes_late_for_a_pruned_message_is_kept_and_counted_in_no_report(aged: Runtime) -> None:
    before = report(aged)
    run(aged)
    late = replace(push_of(200, mobile="15080920001", task_id="t1"), id=new_id(), received_at=datetime.now(UTC))
    save(aged, late)  # a copy of a receipt that is pruned
    record(aged, 200, mobile="15080920001", task_id="t1", template_id="540")  # its file is imported once more
    assert count(aged, messages) == 6
    assert report(aged) == before
    assert wrong(aged) == []


def test_message_stays_as_long_as_a_receipt_or_reply_of_it(runtime: Runtime) -> None:
    for task_id, fields in (("late", {}), ("reply", {"content": "退订"})):
        record(runtime, 190, task_id=task_id)
        save(runtime, push_of(20, task_id=task_id, **fields))
    record(runtime, 190, task_id="alone")
    assert run(runtime)[RetentionKind.MESSAGES] == 1
    assert counts(runtime)[1:] == [1, 1, 2]
    assert wrong(runtime) == []
    later = NOW + timedelta(days=75)  # the reply's 90 days are over
    assert (
        run(runtime, changes={kind: later - timedelta(days=days) for kind, days in DAYS.items()})[
            RetentionKind.MESSAGES
        ]
        == 1
    )
    assert counts(runtime)[1:] == [1, 0, 1]


@on_sqlite
def test_copy_after_the_horizon_keeps_its_row_and_is_proved(runtime: Runtime) -> None:
    old = push_of(185)
    record(runtime, 185)
    save(runtime, old, replace(old, id=id_of(NOW - timedelta(days=184))))
    save(runtime, replace(old, id=id_of(NOW - timedelta(days=3)), received_at=NOW - timedelta(days=3)))
    run(runtime)
    assert counts(runtime) == [1, 1, 0, 1]
    assert wrong(runtime) == []
    runtime.database.write(lambda c: c.execute(sa.update(receipts).values(copies=1)))
    assert [finding.name for finding in wrong(runtime)] == ["receipts and replies follow from the journal"]


@on_sqlite
def test_tampering_after_the_horizon_is_still_found(aged: Runtime) -> None:
    run(aged)
    recent = (NOW - timedelta(days=3)).date().isoformat()
    for tampering in (
        f"DELETE FROM receipts WHERE last_seen_at > '{recent}'",
        f"UPDATE receipts SET copies = 2 WHERE last_seen_at > '{recent}'",
        "UPDATE messages SET status = 2 WHERE task_id = 't7'",
        f"DELETE FROM replies WHERE last_seen_at > '{recent}'",
        "UPDATE delivery_hours SET sent = sent + 1 WHERE hour = (SELECT max(hour) FROM delivery_hours)",
    ):
        with aged.database.engine.connect() as connection, connection.begin() as transaction:
            assert connection.execute(sa.text(tampering)).rowcount > 0
            found = [f for f in checked(connection, aged) if not f.ok]
            transaction.rollback()
        assert found, tampering
    assert wrong(aged) == []


@on_sqlite
def test_state_stays_when_its_receipts_go_first(aged: Runtime) -> None:
    run(aged, RetentionKind.RECEIPTS, changes={RetentionKind.RECEIPTS: NOW - timedelta(days=40)})
    assert counts(aged) == [18, 3, 8, 9]
    assert wrong(aged) == []
    aged.database.write(lambda c: c.execute(sa.text("UPDATE messages SET status = 2 WHERE task_id = 't6'")))
    assert wrong(aged)


@on_sqlite
def test_nothing_goes_from_under_a_readers_cursor(aged: Runtime) -> None:
    read = aged.ask(lambda c: c.execute(sa.select(sa.func.min(receipts.c.id))).scalar_one())
    gone = run(aged, readers=Position(read, 0))
    assert gone[RetentionKind.RECEIPTS] == 1
    assert gone[RetentionKind.REPLIES] == 0
    assert gone[RetentionKind.MESSAGES] == 0  # each has a reply or a receipt that is not read
    assert wrong(aged) == []
    assert run(aged, readers=Position(10**9, 10**9))[RetentionKind.MESSAGES] == 4


def test_masked_number_finds_its_message_once_another_is_pruned(runtime: Runtime) -> None:
    record(runtime, 190, mobile="15080921090", task_id="two")
    record(runtime, 5, mobile="15080921091", task_id="two")
    save(runtime, push_of(4, mobile="1508092****", task_id="two"))
    run(runtime)
    assert count(runtime, messages) == 1
    assert wrong(runtime) == []


@on_sqlite
def test_notes_of_sends_go_with_their_messages(runtime: Runtime) -> None:
    old, new = record(runtime, 190, task_id="a"), record(runtime, 5, task_id="b")
    rows = [
        {"id": id_of(NOW - timedelta(days=days)), "message_id": message, "begun_at": NOW - timedelta(days=days)}
        for days, message in ((190, old), (5, new))
    ]
    runtime.database.write(lambda c: c.execute(sa.insert(attempts), rows))
    for message in (old, new):
        write_note(runtime, message, "called")
    run(runtime)
    assert runtime.ask(lambda c: list(c.scalars(sa.select(attempts.c.message_id)))) == [new]
    assert runtime.ask(lambda c: list(c.scalars(sa.select(notes.c.message_id)))) == [new]


@on_sqlite
def test_report_that_reads_messages_says_since_when_it_is_whole(aged: Runtime) -> None:
    run(aged)
    client, key = create_app(aged).test_client(), {"Authorization": make_key(aged)}
    today = NOW.astimezone(ZoneInfo("Asia/Shanghai")).replace(hour=0, minute=0, second=0)
    span = {"from": (today - timedelta(days=190)).isoformat(), "to": (today - timedelta(days=170)).isoformat()}
    horizon = aged.ask(list_horizons)[RetentionKind.MESSAGES].horizon
    told = [
        client.get("/api/v1/reports/delivery", query_string={**span, "group_by": unit}, headers=key).get_json()
        for unit in ("hour", "day")
    ]
    assert [answer.get("whole_since") for answer in told] == [iso_milliseconds(horizon), None]


@on_sqlite
def test_journal_stays_from_the_oldest_push_on_that_a_target_waits_for(runtime: Runtime) -> None:
    batch = [push_of(days, task_id=f"t{days}") for days in (50, 40, 30)]
    save(runtime, *batch)
    delivery = {"target_id": 1, "event_id": new_id(), "event": "push", "created_at": NOW, "next_at": NOW}
    for number, dead_at in ((1, None), (0, NOW)):
        row = {**delivery, "push_id": batch[number].id, "dead_at": dead_at}
        runtime.database.write(lambda c, row=row: c.execute(sa.insert(deliveries).values(row)))  # type: ignore[misc]
    assert run(runtime, RetentionKind.PUSHES)[RetentionKind.PUSHES] == 1
    assert wrong(runtime) == []
    runtime.database.write(lambda c: c.execute(sa.delete(deliveries)))
    runtime.database.write(lambda c: c.execute(sa.insert(forward_queue).values(kind="push", push_id=batch[2].id)))
    assert run(runtime, RetentionKind.PUSHES)[RetentionKind.PUSHES] == 1
    assert runtime.ask(lambda c: list(c.scalars(sa.select(pushes.c.id)))) == [batch[2].id]


def test_journal_stays_until_it_is_projected(postgres_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = postgres_runtime
    monkeypatch.setattr(
        "receiver.maintenance.prune.catch_up", lambda _database: None
    )  # it would wait for the open append
    with appending(runtime.database, [push_of(50, task_id="open")]):
        journal.append(runtime.database, [push_of(50, task_id="behind it")])
        assert run(runtime, RetentionKind.PUSHES)[RetentionKind.PUSHES] == 0
    assert catch_up(runtime.database) is None
    assert run(runtime, RetentionKind.PUSHES)[RetentionKind.PUSHES] == 2
    assert wrong(runtime) == []


@on_both
def test_killed_prune_is_taken_up_where_it_was(runtime: Runtime) -> None:
    for begin in range(0, 2000, 500):
        save(runtime, *(push_of(20, mobile=f"1508{n:07}", task_id=f"k{n}") for n in range(begin, begin + 500)))
    save(runtime, push_of(0.1))  # by which it knows that the clock is right
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    child = subprocess.Popen(
        [sys.executable, "-m", "receiver", "prune", "--kind", "pushes", "--yes"],
        env=process.env,
        cwd=process.data_dir,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while count(runtime, pushes) == 2001:
        assert child.poll() is None
        assert time.monotonic() < deadline
    child.kill()
    child.wait(60)
    assert wrong(runtime) == []
    run(runtime, RetentionKind.PUSHES)
    assert counts(runtime)[:2] == [1, 2001]
    assert wrong(runtime) == []


def command(runtime: Runtime, *arguments: str) -> Result:
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    return CliRunner(env=process.env).invoke(cli, arguments)


@on_sqlite
def test_command_shows_then_does_and_leaves_a_note_in_the_audit(aged: Runtime) -> None:
    shown = command(aged, "prune", "--json", "--kind", "pushes")
    assert json.loads(shown.stdout)["rows"] == 14
    assert counts(aged)[0] == 18
    cursor = aged.settings.data_dir / "events.cursor"
    cursor.write_text("0.0\n")
    kept = command(aged, "prune", "--yes", "--json", "--kind", "receipts", "--cursor-file", str(cursor))
    assert json.loads(kept.stdout) == {"receipts": 0}
    opaque = Cursors(aged.shared_secret("cursor"), "events", {"accounts": None}).make(1, 0)
    kept = command(aged, "prune", "--yes", "--json", "--kind", "receipts", "--cursor", opaque)
    assert json.loads(kept.stdout) == {"receipts": 1}
    assert "note  retention: not pruned for two days: pushes" in command(aged, "doctor").stdout
    done = command(aged, "run", "prune", "--json")
    assert json.loads(done.stdout)["pushes"] == 14
    entry = aged.ask(lambda c: log.list_audit(c, 1))[0]
    assert (entry["action"], entry["detail"]["pushes"]) == ("prune", 14)
    assert "ok    retention" in command(aged, "doctor").stdout
    assert "pushes whole since: " in command(aged, "status").stdout


@on_sqlite
def test_reader_of_some_kinds_holds_no_others(aged: Runtime) -> None:
    place = aged.settings.data_dir / "replies.cursor"
    place.write_text("0.0\n")
    assert command(aged, "events", "--kind", "reply", "--cursor-file", str(place)).exit_code == 0
    ends = place.read_text().strip().split(".")
    assert (ends[0], ends[4]) == ("0", "reply")
    assert int(ends[1]) > 0
    assert command(aged, "events", "--kind", "reply", "--cursor-file", str(place)).stdout == ""
    for option, cursor in (("--cursor-file", str(place)), ("--cursor", _cursor(aged, kind="reply"))):
        shown = json.loads(command(aged, "prune", "--json", "--kind", "receipts", option, cursor).stdout)
        assert (shown["kind"], shown["rows"]) == (
            "receipts",
            json.loads(command(aged, "prune", "--json", "--kind", "receipts").stdout)["rows"],
        )
        assert shown["rows"] > 0


def _cursor(runtime: Runtime, **query: str) -> str:
    """The cursor of a reader that has read nothing."""
    headers = {"Authorization": make_key(runtime)}
    answer = create_app(runtime).test_client().get("/api/v1/events", query_string=query, headers=headers)
    cursor: str = answer.json["next_cursor"]
    return cursor


@on_sqlite
def test_wrong_demands_are_refused(runtime: Runtime) -> None:
    for arguments, told in (
        (["--kind", "audit", "--days", "100"], "--days: below 180"),
        (
            ["--kind", "messages", "--days", "30"],
            "RECEIVER_KEEP_RECEIPTS_DAYS: longer than RECEIVER_KEEP_MESSAGES_DAYS",
        ),
        (["--days", "30"], "--days goes with one --kind"),
        (["--cursor", "made.up"], "this cursor is invalid; start without one"),
    ):
        refused = command(runtime, "prune", "--yes", *arguments)
        assert refused.exit_code != 0
        assert told in f"{refused.exception}{refused.output}"
