"""`verify`: it agrees with what is right, and finds and names each kind of tampering."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.domain import Unreadable
from receiver.store import write
from receiver.store.verify import Finding, verify
from tests.factories import make_push, make_send
from tests.server import ServeProcess

if TYPE_CHECKING:
    from receiver.domain import Push
    from receiver.runtime import Runtime


def submit(runtime: Runtime, *pushes: Push) -> None:
    for future in [runtime.committer.submit(push) for push in pushes]:
        future.result(timeout=20)


def findings(runtime: Runtime) -> dict[str, Finding]:
    return {finding.name: finding for finding in verify(runtime.database, runtime.gate.read_again)}


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
    filled.database.write(lambda connection: write.replay_push(connection, readable))
    assert all(finding.ok for finding in findings(filled).values())


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
