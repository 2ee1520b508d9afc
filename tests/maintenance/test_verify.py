"""`verify`: it agrees with what is right, and finds and names each kind of tampering."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import CheckResult, OptOut, Outcome, Reply, Unreadable
from receiver.db.tables import messages, receipts, replies
from receiver.intake.replay import replay_push
from receiver.maintenance.verify import verify
from receiver.messages import queries
from receiver.messages.projector import catch_up
from tests.harness.factories import make_push, make_send
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from receiver.core import Push
    from receiver.runtime import Runtime


def submit(runtime: Runtime, *pushes: Push) -> None:
    for future in [runtime.batch_writer.enqueue(push) for push in pushes]:
        future.result(timeout=20)
    catch_up(runtime.database)


def findings(runtime: Runtime) -> dict[str, CheckResult]:
    return {finding.name: finding for finding in verify(runtime.database, runtime.admission.read_again)}


def run(runtime: Runtime, statement: str) -> None:
    def work(connection: sa.Connection) -> None:
        assert connection.execute(sa.text(statement)).rowcount == 1, statement

    runtime.database.write(work)


@pytest.fixture
def filled(runtime: Runtime) -> Runtime:
    """A bit of everything."""
    runtime.recorder.record(
        [make_send(), make_send(mobile="15080921091"), make_send(task_id="masked", mobile="15080920001")]
    )
    submit(
        runtime,
        make_push(),
        make_push(),
        make_push(status="0", second=5),
        make_push(mobile="15080921091"),
        make_push(content="退订"),
        make_push(task_id="unmatched", status="7"),
        make_push(task_id="masked", mobile="1508092****"),
        make_push(body=b"mobile=1&nonsense"),
        make_push(body=b"mobile=15080921090&taskid=9&status=1&receivetime=2019-07-23+17:00:00&other=x"),
    )
    return runtime


def test_what_the_receiver_wrote_agrees(filled: Runtime) -> None:
    found = findings(filled)
    assert [finding.details for finding in found.values()] == [()] * 7
    assert all(finding.ok for finding in found.values())
    assert found["receipts and replies follow from the journal"].count == 7


@pytest.mark.parametrize(
    ("tampering", "name"),
    [
        ("DELETE FROM receipts WHERE vendor_status = '7'", "receipts and replies follow from the journal"),
        ("UPDATE receipts SET copies = 3 WHERE copies = 2", "receipts and replies follow from the journal"),
        ("UPDATE receipts SET copies = 1 WHERE copies = 2", "receipts and replies follow from the journal"),
        (
            "UPDATE receipts SET vendor_status = '1' WHERE vendor_status = '7'",
            "receipts and replies follow from the journal",
        ),
        ("UPDATE replies SET content_sha256 = push_sha WHERE 1 = 1", "receipts and replies follow from the journal"),
        ("DELETE FROM replies", "receipts and replies follow from the journal"),
        (
            "DELETE FROM pushes WHERE id IN (SELECT push_id FROM receipts WHERE vendor_status = '7')",
            "receipts and replies follow from the journal",
        ),
        ("UPDATE messages SET status = 3 WHERE task_id = 'unmatched'", "states follow from receipts"),
        ("UPDATE messages SET seen = 0 WHERE task_id = 'unmatched'", "states follow from receipts"),
        ("UPDATE messages SET reported_at = NULL WHERE task_id = 'unmatched'", "states follow from receipts"),
        ("DELETE FROM messages WHERE task_id = 'unmatched'", "states follow from receipts"),
        ("UPDATE receipts SET message_id = NULL WHERE masked_mobile <> ''", "masked numbers belong where they fit"),
    ],
)
def test_tampering_is_found_and_named(filled: Runtime, tampering: str, name: str) -> None:
    if filled.database.postgresql:
        tampering = tampering.replace("push_sha", "decode('00', 'hex')")
    run(filled, tampering.replace("push_sha", "x'00'"))
    found = findings(filled)
    assert not found[name].ok
    assert found[name].details
    told = json.dumps([finding.details for finding in found.values()], ensure_ascii=False)
    assert "15080921090" not in told
    assert "退订" not in told


@pytest.mark.parametrize("task_id", ["3313746", "new"], ids=["meets a row", "makes a row"])
def test_replays_are_not_taken_for_copies(filled: Runtime, task_id: str) -> None:
    """A push that could be read only later, as one whose form of time was not yet set."""
    readable = make_push(task_id=task_id)
    submit(filled, replace(readable, reading=Unreadable(error="receivetime: not yet")))
    filled.database.write(lambda connection: replay_push(connection, readable))
    assert all(finding.ok for finding in findings(filled).values())


def read_as(push: Push, other: Push) -> Push:
    """A push that rules of another day read as that one."""
    return replace(push, reading=other.reading)


def verified_by(runtime: Runtime, rules: dict[bytes, Push]) -> list[CheckResult]:
    """What is not proved where bytes are read by other rules."""

    def read_again(push: Push) -> Push:
        return read_as(push, rules[push.body]) if push.body in rules else runtime.admission.read_again(push)

    return [finding for finding in verify(runtime.database, read_again) if not finding.ok]


def other_rules() -> tuple[list[Push], dict[bytes, Push]]:
    """Pushes, and what the bytes of some are read as today: of another task, as a reply, not at all."""
    pushed = [make_push(task_id=f"t{number}", status="0") for number in range(4)]
    pushed[3] = make_push(task_id="t3", content="hi")
    unreadable = make_push(body=b"mobile=1")
    rules = dict(
        zip(
            (push.body for push in pushed),
            (make_push(task_id="other", status="0"), make_push(task_id="t1", content="hi"), unreadable, unreadable),
            strict=True,
        )
    )
    return [*pushed, *(replace(push, id=make_push().id) for push in pushed)], rules


@pytest.mark.parametrize("age", ["kept", "older"])
def test_what_was_read_when_it_came_stands_whatever_is_read_today(filled: Runtime, age: str) -> None:
    pushed, rules = other_rules()
    submit(filled, *pushed)
    if age == "older":  # from before it was kept
        filled.database.write(lambda connection: connection.execute(sa.text("UPDATE pushes SET digest = NULL")))
    assert verified_by(filled, rules) == []
    run(filled, "DELETE FROM receipts WHERE message_id = (SELECT id FROM messages WHERE task_id = 't1')")
    (followed, _) = verified_by(filled, rules)
    assert followed.name == "receipts and replies follow from the journal"


def rows_of(runtime: Runtime) -> list[tuple[str, str | None, int]]:
    def work(connection: sa.Connection) -> list[tuple[str, str | None, int]]:
        return sorted(
            (table.name, row.of_task_id, row.copies)
            for table in (receipts, replies)
            for row in connection.execute(queries.select_inbound_events(table))
        )

    return runtime.ask(work)


def replay_all(runtime: Runtime, pushed: list[Push], rules: dict[bytes, Push]) -> None:
    for push in pushed:
        again = read_as(push, rules[push.body])
        assert runtime.database.write(partial(replay_push, push=again)) is Outcome.ACCEPTED


def test_replay_replaces_what_its_push_alone_had_brought(runtime: Runtime) -> None:
    pushed, rules = other_rules()
    alone = pushed[:4]
    submit(runtime, make_push(task_id="other", status="0"), *alone)
    assert len(rows_of(runtime)) == 5
    replay_all(runtime, alone, rules)
    replay_all(runtime, alone, rules)
    assert rows_of(runtime) == [
        ("receipts", "other", 2),  # of which t0's push turns out to be a copy
        ("receipts", "t2", 1),  # and what cannot be read any more stands
        ("replies", "t1", 1),
        ("replies", "t3", 1),
    ]
    found = runtime.ask(lambda connection: connection.execute(sa.select(messages.c.task_id, messages.c.status)).all())
    assert sorted(map(tuple, found)) == [("other", 2), ("t1", 0), ("t2", 2), ("t3", 0)]
    assert verified_by(runtime, rules) == []
    assert all(finding.ok for finding in findings(runtime).values())


def test_replay_leaves_what_others_have_brought_as_well(runtime: Runtime) -> None:
    pushed, rules = other_rules()
    submit(runtime, *pushed)
    before = rows_of(runtime)
    replay_all(runtime, pushed, rules)
    assert rows_of(runtime) == before
    assert verified_by(runtime, rules) == []


def test_replay_by_other_words_judges_a_reply_anew(runtime: Runtime) -> None:
    pushed = make_push(content="走开")
    submit(runtime, pushed)
    assert isinstance(pushed.reading, Reply)
    again = replace(pushed, reading=replace(pushed.reading, opt_out=OptOut.YES))
    found: list[sa.Row[Any]] = []
    for _ in range(2):
        runtime.database.write(partial(replay_push, push=again))
        found += runtime.ask(lambda connection: connection.execute(sa.select(replies)).all())
    assert [(row.opt_out, row.copies) for row in found] == [(True, 1)] * 2
    assert found[0] == found[1]  # nothing new the second time
    assert all(finding.ok for finding in findings(runtime).values())


def test_command_tells_its_verdict_by_exit_code(filled: Runtime) -> None:
    process = ServeProcess(filled.settings.data_dir, filled.settings.database_url)
    agreed = process.run("verify")
    assert (agreed.returncode, agreed.stderr) == (0, "")
    assert agreed.stdout.count("ok  ") == 9
    run(filled, "DELETE FROM replies")
    found = process.run("verify", "--json")
    assert found.returncode == 1
    said = [json.loads(line)["ok"] for line in found.stdout.splitlines()]
    assert said == [True, True, False, *[True] * 6]


def test_damaged_spool_is_told(filled: Runtime) -> None:
    process = ServeProcess(filled.settings.data_dir, filled.settings.database_url)
    (filled.settings.data_dir / "spool").mkdir(exist_ok=True)
    (filled.settings.data_dir / "spool" / "x.damaged").write_bytes(b"x")
    assert "x.damaged" in process.run("verify").stdout
    assert process.run("spool", "status").returncode == 1
