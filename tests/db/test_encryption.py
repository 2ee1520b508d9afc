"""Encryption at rest: what is kept shows nothing, questions are answered as ever, and keys are changed under load."""

from __future__ import annotations

import subprocess
import threading
from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, Outcome, Push, ReceiverError, first_id_of
from receiver.db import migrate
from receiver.db.encryption import MARK, DecryptionError, EncryptionState, find_encryption, is_token
from receiver.db.encryption.ciphers import FieldCipher, Keyring
from receiver.db.engine import Database
from receiver.db.sqlite import sqlite3
from receiver.db.tables import messages, pushes, replies
from receiver.intake.replay import replay_push
from receiver.intake.spool import Spool
from receiver.maintenance import rekey
from receiver.maintenance.erase import erase_number, find_traces
from receiver.maintenance.move_to_postgres import move, prepare
from receiver.maintenance.verify import verify
from receiver.messages import events, notes, queries
from receiver.messages.events import Position
from receiver.messages.export_files import FileFormat, iter_file
from receiver.messages.queries import Filter, Page
from receiver.messages.recording import record_sent
from receiver.reporting import delivery, figures
from receiver.reporting.busiest import By, list_busiest
from receiver.runtime import Runtime
from receiver.support import lookup_store, signals
from receiver.support.lookup import parse_lookup
from receiver.support.lookup_queries import find_messages
from tests.conftest import make_settings
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.postgres_binaries import as_unprivileged, find_binaries
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.config import Settings

OLD, NEW = ("old", bytes(range(32))), ("new", bytes(range(32, 64)))
NUMBER, OTHER, CONTENT, EXTRA = (
    "15080921090",
    "15080921091",
    "明天上午九点见 Meet you there at nine",
    "字段-extra-value",
)
SAID = ("明天上午九点见", "Meet you there at nine")  # so long that no other base64 holds them by chance


def encrypt(settings: Settings, *keys: tuple[str, bytes]) -> int:
    """Do as `receiver db encrypt` does."""
    database = Database(settings.database_url)
    try:
        return rekey.encrypt(database, Keyring(keys))
    finally:
        database.close()


def await_encrypted(runtime: Runtime) -> None:
    """Wait until a runtime that ran while its database was encrypted uses it again."""
    await_true(lambda: runtime.encryption.cipher is not None and runtime.availability.up)


def _note(connection: sa.Connection, text: str) -> None:
    mine = connection.scalar(sa.select(messages.c.id).where(messages.c.mobile == NUMBER).order_by(messages.c.id))
    assert mine is not None
    notes.add_note(connection, mine, notes.NoteKind.NOTE, user_name="sue", text=text, now=NOON)


def fill(runtime: Runtime) -> None:
    """Keep some of each kind."""
    batch = [
        make_push(),
        make_push(mobile=OTHER, task_id="2", status="0"),
        make_push(content=CONTENT, second=5),
        make_push(content="nul\0 and more", mobile=OTHER, second=6),
        make_push(content="退订", mobile="150****1090", task_id="3313746", second=7),
        make_push(mobile="150****1091", task_id="3", second=8),
        make_push(body=f"mobile={NUMBER}&taskid=1&nothing={quote(CONTENT)}".encode()),
        make_push(body=f"mobile={NUMBER}&taskid=9&status=1&receivetime=2026-11-23+12:00:00&x={quote(EXTRA)}".encode()),
    ]
    save_pushes(runtime.database, batch)
    save_pushes(runtime.database, [replace(batch[0], id=make_push().id)])
    sends = [
        make_send(template_id="540", sent_at=NOON - timedelta(seconds=4)),
        make_send(mobile=OTHER, task_id="3", sent_at=NOON),
        make_send(mobile=OTHER, task_id=None, reference="r", sent_at=NOON, error_message="IP受限"),
    ]
    runtime.database.write(partial(record_sent, sends=sends, recorded_at=NOON))
    runtime.database.write(partial(_note, text=CONTENT))
    runtime.database.write(lambda connection: lookup_store.save_look_up(connection, 1, NUMBER, now=datetime.now(UTC)))


def answers(runtime: Runtime) -> dict[str, Any]:
    """Ask everything that a number or a content has to do with."""
    clock = runtime.clock(NOON + timedelta(minutes=1))

    def page(limit: int = 50, **wanted: Any) -> Page:
        return Page(limit=limit, filter=Filter(**wanted))

    def look_up(connection: sa.Connection, given: str) -> list[str]:
        wanted = parse_lookup(given)
        assert wanted is not None
        found = find_messages(connection, wanted.queries, clock=clock)
        return [f"{row.id} {row.mobile}" for row in found]

    def file(connection: sa.Connection, name: str, form: FileFormat, **wanted: Any) -> bytes:
        in_full = bool(wanted.pop("in_full", False))
        zone = runtime.settings.timezone
        return b"".join(iter_file(connection, name, form, Filter(**wanted), clock, in_full=in_full, zone=zone))

    def ask(connection: sa.Connection) -> dict[str, Any]:
        since, until = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
        question = figures.ReportQuestion(
            since=since,
            until=until,
            zone=runtime.settings.timezone,
            allocated=(figures.CarrierGroup(name="operator", of_prefix=lambda prefix: prefix, grouped=True),),
        )
        busiest = partial(list_busiest, connection, since=since, until=until, min_sent=1, limit=10)
        return {
            "messages": queries.list_messages(connection, page(), clock),
            "by number": queries.list_messages(connection, page(mobile=NUMBER), clock),
            "receipts by number": queries.list_receipts(connection, page(mobile=OTHER)),
            "replies": queries.list_replies(connection, page()),
            "replies by text": [
                queries.list_replies(connection, page(q=text)) for text in ("九", "MEET", "退订", "zz", "o")
            ],
            "a full page": queries.list_replies(connection, page(limit=1, q="e")),
            "masked": queries.list_receipts(connection, page(mobile="150****1091")),
            "journal": queries.list_pushes(connection, page()),
            "look-ups": [look_up(connection, text) for text in (NUMBER, "1090", "尾号1091", "150****1090", "3313746")],
            "events": events.list_events(connection, Position(), 100, None, clock),
            "busiest": [busiest(By.MOBILE), busiest(By.PREFIX)],
            "report": delivery.delivery_report(connection, question, clock),
            "quarantined": signals.find_quarantined_about(connection, needles=[NUMBER.encode()], since=None),
            "not quarantined": signals.find_quarantined_about(connection, needles=[b"19999999999"], since=None),
            "files": [
                file(connection, name, form, in_full=in_full)
                for name in ("messages", "receipts", "replies")
                for form in (FileFormat.CSV, FileFormat.NDJSON)
                for in_full in (True, False)
            ],
            "notes": [notes.list_cases(connection, limit=50, text=text) for text in (None, "MEET", "nobody")],
            "file by text": file(connection, "replies", FileFormat.CSV, q="meet"),
        }

    return runtime.ask(ask)


def test_an_encrypted_database_answers_as_the_plain_one_did(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    fill(runtime)
    assert runtime.projector.await_reached(stamped=True) is None
    before = answers(runtime)
    assert before["quarantined"] in before["journal"]
    assert before["not quarantined"] is None
    assert [len(found) for found in before["replies by text"]] == [1, 1, 1, 0, 2]
    assert encrypt(runtime.settings, OLD) > 0
    encrypted = make_runtime(encryption_keys=(OLD,))
    assert answers(encrypted) == before
    with Database(runtime.settings.database_url).reading() as connection:
        assert all(map(is_token, connection.scalars(sa.select(messages.c.mobile))))
    findings = list(verify(encrypted.database, encrypted.admission.read_again))
    assert [finding for finding in findings if not finding.ok] == []
    # And what comes now is as what came before: copies are counted, quarantined pushes read again, masked ones matched.
    fill(encrypted)
    assert encrypted.projector.await_reached(stamped=True) is None
    after = answers(encrypted)
    assert [(row.id, row.copies) for row in after["receipts by number"]] == [
        (row.id, 2 * row.copies) for row in before["receipts by number"]
    ]
    assert [row.id for row in after["messages"]] == [row.id for row in before["messages"]]
    assert after["look-ups"] == before["look-ups"]
    for row in after["journal"]:
        read_again = partial(replay_push, push=encrypted.admission.read_again(row.as_push()))
        encrypted.database.write(read_again)
    findings = list(verify(encrypted.database, encrypted.admission.read_again))
    assert [finding for finding in findings if not finding.ok] == []
    assert encrypted.projector.await_reached(stamped=True) is None
    after = answers(encrypted)  # a replay stamps its message
    database = Database(runtime.settings.database_url)
    assert rekey.decrypt(database, Keyring([OLD])) > 0
    plain = make_runtime()
    assert answers(plain) == after
    database.close()


def test_a_number_is_forgotten_from_sealed_rows(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    encrypt(runtime.settings, OLD)
    await_encrypted(runtime)
    fill(runtime)
    save_pushes(runtime.database, [make_push(mobile=OTHER, task_id="m", content=f"call {NUMBER}", second=9)])
    work = runtime.database, NUMBER, runtime.admission.read_again
    found = find_traces(*work)
    assert (found.rows["look_ups"], found.mentions["pushes"], found.mentions["replies"]) == (1, 1, 1)
    now = runtime.now()
    gone = erase_number(*work, found=found, since=now, now=now, actor="cli", reason=None, mobile_hmac="x")
    assert gone == found.rows
    assert gone["pushes"] == 6
    after = answers(runtime)
    assert after["by number"] == []
    assert {row.mobile for row in after["messages"]} == {OTHER}
    assert [row.outcome for row in after["journal"]] == ["accepted"] * 4
    assert not any(find_traces(*work).rows.values())
    assert [finding for finding in verify(runtime.database, runtime.admission.read_again) if not finding.ok] == []


# --- Nothing is shown -----------------------------------------------------------------------------------


def forms_of(text: str) -> Iterator[bytes]:
    """Give a text as it may stand in a file."""
    raw = text.encode()
    yield from (raw, quote(text).encode(), raw.hex().encode(), text.encode("utf-16-le"))
    yield from (text.encode("unicode_escape"), text.encode("gb18030"))
    for skipped in range(3):  # base64, wherever in a longer text
        whole = b64encode(b"\0" * skipped + raw)
        yield whole[4 : len(whole) - 4]


def traces_in(data: bytes) -> list[str]:
    """Name what can be found in a file of what nobody is to find there."""
    lower = data.lower()
    found = [text for text in (NUMBER, OTHER, *SAID, EXTRA) for form in forms_of(text) if form.lower() in lower]
    digest = sha256(CONTENT.encode())  # by which contents could be tried
    return [*found, *("digest" for form in (digest.digest(), digest.hexdigest().encode()) if form.lower() in lower)]


def dump_of(database_url: str) -> bytes:
    """Give what pg_dump makes of a database."""
    command = [str(find_binaries() / "pg_dump"), "--inserts", "--dbname", database_url.replace("+psycopg", "")]
    made: bytes = subprocess.run(command, check=True, capture_output=True, timeout=60, **as_unprivileged()).stdout
    return made


def files_of(settings: Settings) -> bytes:
    """Give all that a raw search of a database could find: a dump, or the files."""
    if not settings.embedded:
        return dump_of(settings.database_url)
    return b"".join(path.read_bytes() for path in settings.data_dir.glob("receiver.db*"))


def test_a_new_dump_and_the_embedded_file_show_no_number_and_no_content(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    fill(runtime)
    save_pushes(runtime.database, [make_push(task_id=f"n{number}") for number in range(300)])
    assert set(traces_in(files_of(runtime.settings))) == {NUMBER, OTHER, *SAID, EXTRA, "digest"}
    runtime.stop()
    if runtime.settings.embedded:  # as it is where SQLite does not overwrite by itself, which it does here
        with closing(sqlite3.connect(runtime.settings.data_dir / "receiver.db")) as connection, connection:
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute("DELETE FROM look_ups")
    encrypt(runtime.settings, OLD)
    assert traces_in(files_of(runtime.settings)) == []
    encrypted = make_runtime(encryption_keys=(OLD,))
    fill(encrypted)
    # Not as copies, and each by its own way in.
    new = f"mobile={NUMBER}&taskid=new&status=1&receivetime=2026-11-23+12:00:00&x={quote(EXTRA)}"
    for push in (make_push(content=CONTENT, second=9), make_push(body=new.encode())):
        save_pushes(encrypted.database, [push])
    encrypted.stop()
    assert traces_in(files_of(runtime.settings)) == []


def test_spool_files_show_nothing_and_wait_for_their_key(make_runtime: Callable[..., Runtime], tmp_path: Path) -> None:
    runtime = make_runtime(encryption_keys=(NEW,))
    directory = tmp_path / "dead" / "spool"
    directory.parent.mkdir()
    push = make_push(content=CONTENT)
    spool = Spool(directory, max_bytes=1 << 20, ring=Keyring([OLD]))
    spool.append([push])
    spool.close()
    (path,) = directory.iterdir()
    assert traces_in(path.read_bytes()) == []
    with pytest.raises(DecryptionError, match="the key old is missing; add it to RECEIVER_ENCRYPTION_KEYS"):
        runtime.drain(directory)
    assert list(directory.iterdir()) == [path]
    assert runtime.ask(lambda connection: queries.find_push(connection, push.id)) is None
    assert make_runtime(encryption_keys=(NEW, OLD)).drain(directory) == 1
    assert runtime.ask(lambda connection: queries.find_push(connection, push.id)) is not None
    assert list(directory.iterdir()) == []


def test_what_the_database_only_may_mean_is_opened_and_looked_at(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hashes are short, so that each stands for several: here for all.
    monkeypatch.setattr(FieldCipher, "_hash_of_gram", lambda _self, _gram: "0000")
    monkeypatch.setattr(FieldCipher, "end", lambda _self, _digits: "0000")
    runtime = make_runtime(encryption_keys=(OLD,))
    fill(runtime)
    before = answers(runtime)
    runtime.stop()
    encrypt(runtime.settings, OLD)
    after = answers(make_runtime(encryption_keys=(OLD,)))
    for name in ("replies by text", "a full page", "look-ups", "file by text"):
        assert after[name] == before[name], name


# --- On, under another key, and elsewhere ---------------------------------------------------------------


class BrokenOff(Exception):
    """What ends a job as a kill would: between two transactions."""


def break_off(_rows: int) -> None:
    raise BrokenOff


@pytest.mark.thorough
def test_pushes_wait_while_a_database_is_encrypted_and_a_job_broken_off_goes_on(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    save_pushes(runtime.database, [make_push(), make_push(mobile=OTHER), make_push(content=CONTENT)])
    monkeypatch.setattr(rekey, "_ALONE_ROWS", 1)
    database = Database(runtime.settings.database_url)
    with pytest.raises(BrokenOff):
        rekey.encrypt(database, Keyring([OLD]), break_off)
    with database.reading() as connection:
        kept = connection.scalars(sa.select(pushes.c.body).order_by(pushes.c.id)).all()
        assert find_encryption(connection).state is EncryptionState.ENCRYPTING
    assert [body.startswith(MARK) for body in kept] == [True, False, False]
    # The number is there in one form: to keep it in the other would make a second message.
    again = runtime.batch_writer.enqueue(make_push()).result(30)
    assert again.outcome is Outcome.SPOOLED
    with pytest.raises(DatabaseUnavailable, match="run `receiver db encrypt` again"):
        make_runtime(encryption_keys=(OLD,)).make_ready()
    with pytest.raises(ReceiverError, match="finish that first with `receiver db encrypt`"):
        rekey.decrypt(database, Keyring([OLD]))
    rekey.encrypt(database, Keyring([OLD]))
    await_true(lambda: runtime.spool.empty and runtime.availability.up)
    rows = runtime.ask(lambda connection: queries.list_receipts(connection, Page(limit=9)))
    assert [(row.mobile, row.copies) for row in rows] == [(OTHER, 1), (NUMBER, 2)]
    database.close()


def test_a_process_that_no_push_reaches_hears_of_the_encryption_too(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    save_pushes(runtime.database, [make_push()])
    encrypt(runtime.settings, OLD)
    await_encrypted(runtime)
    page = Page(limit=9, filter=Filter(mobile=NUMBER))
    assert len(runtime.ask(lambda connection: queries.list_receipts(connection, page))) == 1


def test_writes_of_a_process_that_knows_no_keys_are_refused_not_quarantined(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime(encryption_keys=(OLD,))
    encrypt(runtime.settings, OLD)
    unknowing = Database(runtime.settings.database_url)
    clock = runtime.clock()
    writes: list[Callable[[], object]] = [
        lambda: save_pushes(unknowing, [make_push()]),
        lambda: save_pushes(unknowing, [make_push(body=b"a=b")]),
        lambda: unknowing.write(partial(record_sent, sends=[make_send()], recorded_at=NOON)),
        lambda: unknowing.write(partial(lookup_store.save_look_up, user_id=1, text=NUMBER, now=NOON)),
    ]
    for write in writes:
        with pytest.raises(DatabaseUnavailable, match="encryption of this database was changed"):
            write()
    reader = make_runtime(encryption_keys=(OLD,))
    assert reader.ask(lambda connection: queries.list_messages(connection, Page(limit=9), clock)) == []
    assert reader.ask(lambda connection: queries.list_pushes(connection, Page(limit=9))) == []
    unknowing.close()


@pytest.mark.thorough
def test_keys_are_changed_beside_pushes_and_a_rotation_broken_off_goes_on(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_runtime(encryption_keys=(OLD,))
    encrypt(first.settings, OLD)
    await_encrypted(first)
    fill(first)
    serving = make_runtime(encryption_keys=(NEW, OLD))
    monkeypatch.setattr(rekey, "_BESIDE_ROWS", 2)
    database = Database(first.settings.database_url)
    ring = Keyring([NEW, OLD])
    with pytest.raises(BrokenOff):
        rekey.rotate(database, ring, break_off)
    acked: list[Push] = []
    stopping = threading.Event()

    def push() -> None:
        while not stopping.is_set():
            kept = serving.batch_writer.enqueue(make_push(task_id=f"t{len(acked)}", content=CONTENT)).result(30)
            assert kept.outcome is Outcome.ACCEPTED
            acked.append(kept.push)

    pusher = threading.Thread(target=push)
    pusher.start()
    came_late: list[Push] = []

    def tell(_rows: int) -> None:  # one node has not been restarted
        if not came_late:
            await_true(lambda: acked)
            came_late.append(replace(make_push(task_id="late"), id=first_id_of(NOON)))
            save_pushes(first.database, came_late)

    count, late = rekey.rotate(database, ring, tell)
    stopping.set()
    pusher.join(30)
    assert count > 0
    assert late == 1
    assert rekey.rotate(database, ring) == (0, 0)
    with database.reading() as connection:
        bodies = connection.scalars(sa.select(pushes.c.body)).all()
        contents = connection.scalars(sa.select(replies.c.content_sealed)).all()
    assert all(sealed.startswith(ring.head) for sealed in (*bodies, *contents))
    expected = answers(serving)
    only_new = make_runtime(encryption_keys=(NEW,))
    assert answers(only_new) == expected
    assert {push.id for push in (*acked, *came_late)} <= {
        row.id for row in only_new.ask(lambda connection: queries.list_pushes(connection, Page(limit=10_000)))
    }
    with pytest.raises(DatabaseMisconfigured, match="the key new is missing; add it to RECEIVER_ENCRYPTION_KEYS"):
        make_runtime(encryption_keys=(OLD,)).make_ready()
    database.close()


@pytest.mark.thorough
def test_an_encrypted_database_moves_to_postgresql_as_it_is(
    sqlite_database_url: str, postgres_database_url: str, tmp_path: Path
) -> None:
    settings = make_settings(sqlite_database_url, tmp_path, encryption_keys=(OLD,))
    source, target = Database(sqlite_database_url), Database(postgres_database_url)
    migrate.upgrade(source)
    encrypt(settings, OLD)
    runtime = Runtime(settings)
    fill(runtime)
    before = answers(runtime)
    prepare(source, target)
    move(source, target, "there", lambda: None)
    moved = Runtime(replace(settings, database_url=postgres_database_url))
    after = answers(moved)
    assert traces_in(dump_of(postgres_database_url)) == []
    assert [row.content.replace("\0", "\u2400") for row in after["replies"]] == [
        row.content for row in before["replies"]
    ]
    for name in ("messages", "receipts by number", "look-ups", "replies by text", "busiest", "journal"):
        assert after[name] == before[name], name
    assert [finding for finding in verify(moved.database, moved.admission.read_again) if not finding.ok] == []
    with pytest.raises(DatabaseUnavailable, match="encryption"):
        save_pushes(target, [make_push()])
    with moved.database.reading() as connection:
        shown = connection.execute(
            sa.text("SELECT mobile, content FROM reporting.replies WHERE mobile NOT LIKE '150%'")
        )
        assert {tuple(row) for row in shown} == {("***", "")}
    for part in (runtime, moved, source, target):
        (part.stop if isinstance(part, Runtime) else part.close)()


@pytest.mark.thorough
def test_commands_say_what_to_do_about_keys(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{b64encode(key).decode()}" for name, key in (NEW, OLD))
    without = ServeProcess(tmp_path)
    process = ServeProcess(tmp_path, environment={"RECEIVER_ENCRYPTION_KEYS": keys})
    assert without.run("db", "upgrade").returncode == 0
    assert "create a key" in without.run("db", "encrypt").stderr
    told = process.run("doctor").stdout
    assert "FAIL  encryption: keys are set, but the database is not encrypted; run `receiver db encrypt`" in told
    encrypted = process.run("db", "encrypt")
    assert (encrypted.returncode, "rows encrypted; the database takes pushes again" in encrypted.stdout) == (0, True)
    assert "no row needs another key" in process.run("db", "rotate").stdout
    refused = without.run("serve")
    assert (refused.returncode, refused.stderr.strip().splitlines()) == (
        1,
        ["receiver: the database is encrypted; set RECEIVER_ENCRYPTION_KEYS to its keys"],
    )
    assert "ok    encryption: on; new rows use the key new" in process.run("doctor").stdout
