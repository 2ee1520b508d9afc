"""`forget`: everything of one number goes, nothing of anybody else; reports and `verify` stay right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from receiver.audit import log
from receiver.cli import cli
from receiver.cli import erase as cli_erase
from receiver.core import new_id
from receiver.db.sqlite import sqlite3
from receiver.db.tables import (
    attempts,
    deliveries,
    forward_queue,
    look_ups,
    messages,
    metadata,
    notes,
    pushes,
    receipts,
    replies,
    tombstones,
)
from receiver.intake.spool import Spool
from receiver.maintenance.erase import erase_number, find_traces
from receiver.maintenance.verify import verify
from receiver.messages import recording
from receiver.reporting import rollup
from receiver.reporting.delivery import delivery_report
from receiver.reporting.figures import ReportQuestion, Unit
from receiver.support.lookup import parse_lookup
from receiver.support.lookup_store import save_look_up
from tests.harness.factories import READER, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.notes import write_note
from tests.harness.postgres_binaries import find_binaries
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from click.testing import Result

    from receiver.core import Push
    from receiver.runtime import Runtime

MOBILE = "13712345678"
ENCODED = "".join(f"%{ord(digit):02X}" for digit in MOBILE)
WIDE = "".join(chr(ord(digit) + 0xFEE0) for digit in MOBILE)
WRITTEN = (
    "+86 (137) 1234.5678",
    "137\u00a01234\u20095678",
    "\u202d137–1234·5678\u202c",
    "（１３７）\u200b１２３４【５６７８】",
    "013712345678.0",
    "137\t1234\u20605678",
)
CONTENT = "我的秘密地址"
REFERENCE = "their-own-order"
NOW = datetime.now(UTC).replace(microsecond=0)
LOCAL = f"{NOW.astimezone(READER.zone):%Y-%m-%d+%H:%M:%S}"

NEEDLES = (
    MOBILE.encode(),
    ENCODED.encode(),
    ENCODED.lower().encode(),
    b"137-1234-5678",
    b"137 1234 5678",
    b"137****5678",
    *(WIDE.encode(encoding) for encoding in ("utf-8", "gb18030")),
    *(quote(WIDE.encode(encoding)).encode() for encoding in ("utf-8", "gb18030")),
    CONTENT.encode(),
    CONTENT[2:5].encode()[1:],  # as the embedded database's text index has it
    CONTENT.encode("gb18030"),
    quote(CONTENT).encode(),
    quote(CONTENT.encode("gb18030")).encode(),
    REFERENCE.encode(),
)


# Where the database does not matter.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def raw_push(body: str | bytes = b"", *, query: bytes = b"") -> Push:
    raw = body.encode() if isinstance(body, str) else body
    reading, flags = READER.read(body=raw, query=query, endpoint=None)
    pushed = make_push()
    return replace(pushed, id=new_id(), body=raw, query=query, reading=reading, flags=flags, received_at=NOW)


def pushes_of_the_number() -> list[Push]:
    """In every way in which the platform may write a number and what somebody has answered."""
    at = f"receivetime={LOCAL}"
    return [
        raw_push(f"mobile={MOBILE}&taskid=plain&status=1&{at}"),
        raw_push(f"mobile={MOBILE}&taskid=plain&status=1&{at}"),
        raw_push(query=f"mobile={MOBILE}&taskid=query&status=0&{at}".encode()),
        raw_push(f"mobile={ENCODED}&taskid=encoded&status=1&{at}"),
        raw_push(f"mobile={ENCODED.lower()}&taskid=encoded2&status=1&{at}"),
        raw_push(f"mobile=%2B86+137-1234-5678&taskid=dashes&status=1&{at}"),
        raw_push(f"mobile={MOBILE}&taskid=plain&content={quote(CONTENT)}&{at}"),
        raw_push(f"mobile={MOBILE}&taskid=gb&content={quote(CONTENT.encode('gb18030'))}&{at}"),
        raw_push(b"mobile=0086" + MOBILE.encode() + b"&taskid=raw&content=" + CONTENT.encode() + b"&" + at.encode()),
        raw_push(f"mobile=137****5678&taskid=masked&status=1&{at}"),
        raw_push(f"mobile=137%2A%2A%2A%2A5678&taskid=masked&content={quote(CONTENT)}&{at}"),
        raw_push(f"mobile={MOBILE}&taskid=bad&status=1&receivetime=yesterday"),
        raw_push(f'{{"mobile": "{MOBILE}"}}'),
        raw_push(f"mobile={quote(WIDE)}&taskid=wide&status=1&{at}"),
        raw_push(f"mobile={quote(WIDE.encode('gb18030')).lower()}&taskid=wide&status=1&{at}"),
        raw_push(b"mobile=" + WIDE.encode() + b"&taskid=wide&status=1&" + at.encode()),
        raw_push(b"mobile=" + WIDE.encode("gb18030") + b"&taskid=wide&status=1&" + at.encode()),
        *(
            raw_push(b"mobile=%b&taskid=%d&status=1&%b" % (form(written.encode(encoding)), number, at.encode()))
            for number, written in enumerate(WRITTEN)
            for encoding in ("utf-8", "gb18030")
            for form in (bytes, lambda raw: quote(raw, safe="").encode())
        ),
        *(raw_push(json.dumps({"mobile": written, "taskid": "j"})) for written in (*WRITTEN, WIDE)),
        raw_push(f'{{"mobile":"{"".join(f"{92:c}u{ord(digit):04x}" for digit in MOBILE)}"}}'),
    ]


def fill(runtime: Runtime, others: int = 40) -> None:
    """The number among others, as one who was sent to, wrote, was looked up."""
    for begin in range(0, others, 500):
        some = range(begin, min(begin + 500, others))
        save_pushes(runtime.database, [make_push(mobile=f"1508{n:07}", task_id=f"k{n}") for n in some])
        save_pushes(
            runtime.database, [make_push(mobile=f"1508{n:07}", task_id=f"k{n}", content=f"您好 {n}") for n in some]
        )
    sends = [
        make_send(mobile=MOBILE, task_id="plain", template_id="540", reference=REFERENCE, sent_at=NOW),
        make_send(mobile=MOBILE, task_id="masked", template_id="540", sent_at=NOW - timedelta(seconds=5)),
        make_send(mobile=MOBILE, task_id=None, reference=REFERENCE, sent_at=NOW, error_message="no"),
        make_send(mobile="15080921090", task_id="masked", template_id="540", sent_at=NOW),
        make_send(mobile="15080921090", task_id="plain", template_id="540", sent_at=NOW),
    ]
    results = runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOW))
    for push in pushes_of_the_number():
        save_pushes(runtime.database, [push])
    rows = [{"id": new_id(), "message_id": result.message_id, "begun_at": NOW} for result in results]
    runtime.database.write(lambda c: c.execute(sa.insert(attempts), rows))
    texts = [
        {"token": text, "user_id": 1, "text": text, "created_at": NOW} for text in ("137 1234 5678", "15080921090")
    ]
    runtime.database.write(lambda c: c.execute(sa.insert(look_ups), texts))
    for result, text in zip(results, (f"call back {MOBILE}", CONTENT, "", "", "calm"), strict=True):
        write_note(runtime, result.message_id, text)


def command(runtime: Runtime, *arguments: str, stdin: str | None = None) -> Result:
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    return CliRunner(env=process.env).invoke(cli, ["erase", *arguments], input=stdin)


def of_others(runtime: Runtime) -> dict[str, list[Any]]:
    """Every row that is not the number's."""
    mine = sa.select(messages.c.id).where(messages.c.mobile == MOBILE)
    conditions = {
        "messages": messages.c.mobile != MOBILE,
        "receipts": sa.or_(receipts.c.message_id.is_(None), receipts.c.message_id.not_in(mine)),
        "replies": sa.or_(replies.c.message_id.is_(None), replies.c.message_id.not_in(mine)),
        "attempts": attempts.c.message_id.not_in(mine),
        "notes": notes.c.message_id.not_in(mine),
        "look_ups": look_ups.c.text == "15080921090",
    }
    return runtime.ask(
        lambda c: {
            name: [
                tuple(row) for row in c.execute(sa.select(metadata.tables[name]).where(where).order_by(sa.text("1")))
            ]
            for name, where in conditions.items()
        }
    )


def count(runtime: Runtime, table: sa.Table) -> int:
    return runtime.ask(lambda c: c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def wrong(runtime: Runtime) -> list[Any]:
    return [f for f in verify(runtime.database, runtime.admission.read_again) if not f.ok]


def report(runtime: Runtime) -> Any:
    zone = ZoneInfo("Asia/Shanghai")
    until = NOW.astimezone(zone).replace(hour=0, minute=0, second=0).astimezone(UTC) + timedelta(days=1)
    asked = ReportQuestion(
        since=until - timedelta(days=30), until=until, zone=zone, unit=Unit.DAY, by_template=True, by_account=True
    )
    return runtime.ask(lambda c: delivery_report(c, asked, runtime.clock(NOW)))


def holding(data: bytes) -> list[bytes]:
    return [needle for needle in NEEDLES if needle in data]


@on_sqlite
def test_dry_run_says_what_would_go_and_changes_nothing(runtime: Runtime) -> None:
    fill(runtime)
    before = count(runtime, pushes)
    said = json.loads(command(runtime, "-", "--json", stdin="+86 137 1234 5678\n").stdout)
    assert said == {
        "done": False,
        "rows": {"pushes": 49, "messages": 16, "receipts": 13, "replies": 4, "attempts": 3, "notes": 3, "look_ups": 1},
        "mentions": {"pushes": 0, "replies": 0, "notes": 0, "audit": 0},
    }
    assert count(runtime, pushes) == before
    assert count(runtime, tombstones) == 0


def test_all_of_the_number_goes_and_nothing_of_others(runtime: Runtime) -> None:
    fill(runtime)
    others, reported, journal = of_others(runtime), report(runtime), count(runtime, pushes)
    done = command(runtime, MOBILE, "--yes", "--reason", "request 7")
    assert (done.exit_code, done.exception) == (0, None)
    assert of_others(runtime) == others
    assert count(runtime, pushes) == journal - 49
    assert count(runtime, messages) == len(others["messages"])
    assert report(runtime) == reported
    assert wrong(runtime) == []
    hashed = runtime.mobile_hmac(MOBILE)
    assert MOBILE not in hashed
    entry = runtime.ask(lambda c: log.list_audit(c, 1))[0]
    assert (entry["action"], entry["detail"]["mobile_hmac"], entry["detail"]["reason"]) == (
        "erase",
        hashed,
        "request 7",
    )
    (stone,) = runtime.ask(lambda c: c.execute(sa.select(tombstones)).all())
    assert (stone.mobile_hmac, stone.reason, stone.counts["messages"]) == (hashed, "request 7", 16)
    assert stone.cleaned_at is not None
    again = json.loads(command(runtime, MOBILE, "--yes", "--json").stdout)
    assert sum(again["rows"].values()) == 0
    assert count(runtime, tombstones) == 1


@on_sqlite
@pytest.mark.parametrize(
    "pasted", [f"{MOBILE}15911110000", f"①{MOBILE}", f"{MOBILE}2026-11-29", "1. １３７-1234-5678\n2. 15911110000"]
)
def test_look_up_that_names_it_in_any_way_goes(runtime: Runtime, pasted: str) -> None:
    parsed = parse_lookup(pasted)
    assert parsed is not None
    assert MOBILE in parsed.numbers
    for text in (pasted, "15080921090"):
        runtime.database.write(lambda c, text=text: save_look_up(c, 1, text, now=NOW))  # type: ignore[misc]
    assert command(runtime, MOBILE, "--yes").exit_code == 0
    assert runtime.ask(lambda c: c.scalars(sa.select(look_ups.c.text)).all()) == ["15080921090"]


@on_sqlite
def test_what_others_wrote_of_it_stays_and_is_told(runtime: Runtime) -> None:
    fill(runtime)
    save_pushes(runtime.database, [make_push(content=f"call {MOBILE}", task_id="other")])
    save_pushes(runtime.database, [make_push(task_id=f"9{MOBILE}9")])  # no number at all
    other = runtime.ask(lambda c: c.scalar(sa.select(messages.c.id).where(messages.c.mobile == "15080921090")))
    assert other is not None
    write_note(runtime, other, f"of {MOBILE}")
    before = count(runtime, pushes)
    done = json.loads(command(runtime, MOBILE, "--yes", "--json").stdout)
    assert done["mentions"] == {"pushes": 1, "replies": 1, "notes": 1, "audit": 0}
    assert count(runtime, pushes) == before - 49
    assert wrong(runtime) == []


def test_push_that_comes_meanwhile_goes_whole_and_a_later_one_stays(runtime: Runtime) -> None:
    fill(runtime)
    begun = datetime.now(UTC) - timedelta(minutes=1)
    found = find_traces(runtime.database, MOBILE, runtime.admission.read_again)
    again, new = (raw_push(f"mobile={MOBILE}&taskid={task}&status=0&receivetime={LOCAL}") for task in ("plain", "new"))
    save_pushes(runtime.database, [again, replace(again, id=new_id()), new])  # the second makes no row
    rows = erase_number(
        runtime.database,
        MOBILE,
        runtime.admission.read_again,
        found=found,
        since=begun,
        now=NOW,
        actor="cli",
        reason=None,
        mobile_hmac="x",
    )
    assert (rows["pushes"], rows["messages"]) == (52, 17)
    assert wrong(runtime) == []
    save_pushes(runtime.database, [replace(new, id=new_id())])
    assert count(runtime, messages) == 43
    assert wrong(runtime) == []


def test_what_waits_to_be_told_of_it_goes_too(runtime: Runtime) -> None:
    fill(runtime)
    runtime.webhook_worker.stop()  # there is no target: it would throw away what waits
    mine = runtime.ask(lambda c: c.execute(sa.select(messages.c.id).where(messages.c.mobile == MOBILE)).scalars().all())
    other = runtime.ask(lambda c: c.execute(sa.select(messages.c.id).where(messages.c.mobile != MOBILE)).scalar())
    unreadable = runtime.ask(lambda c: c.execute(sa.select(pushes.c.id).where(pushes.c.error.isnot(None))).scalar())
    new = {"target_id": 1, "event": "push", "created_at": NOW, "next_at": NOW}
    about = [{"message_id": mine[0]}, {"order_key": mine[1]}, {"push_id": unreadable}, {"message_id": other}]
    empty = dict.fromkeys(("message_id", "order_key", "push_id"))
    rows = [{**new, "event_id": new_id(), **empty, **one} for one in about]
    runtime.database.write(lambda c: c.execute(sa.insert(deliveries), rows))
    queued = [
        {"kind": "push", "message_id": mine[0], "push_id": None},
        {"kind": "push", "message_id": other, "push_id": None},
    ]
    runtime.database.write(lambda c: c.execute(sa.insert(forward_queue), queued))
    assert command(runtime, MOBILE, "--yes").exit_code == 0
    assert runtime.ask(lambda c: list(c.scalars(sa.select(deliveries.c.message_id)))) == [other]
    assert runtime.ask(lambda c: list(c.scalars(sa.select(forward_queue.c.message_id)))) == [other]


def test_forgotten_messages_stay_in_sums_that_are_made_anew(runtime: Runtime) -> None:
    fill(runtime)
    reported = report(runtime)
    command(runtime, MOBILE, "--yes")
    for _ in range(2):
        runtime.database.write(lambda c: rollup.rebuild(c, offset_seconds=8 * 3600))
        assert report(runtime) == reported
    assert wrong(runtime) == []
    runtime.database.write(lambda c: c.execute(sa.text("UPDATE forgotten_hours SET sent = sent + 1")))
    assert wrong(runtime)


def test_broken_off_before_the_files_are_clean_it_is_taken_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(runtime)
    with monkeypatch.context() as patch:
        patch.setattr(cli_erase, "clean", lambda *_, **__: sys.exit(9))
        assert command(runtime, MOBILE, "--yes").exit_code == 9
    assert "not cleaned yet" in command(runtime, "--status").output
    assert command(runtime, MOBILE, "--yes").exit_code == 0
    assert "not cleaned yet" not in command(runtime, "--status").output
    assert count(runtime, tombstones) == 1


@on_sqlite
def test_spool_is_saved_first_and_what_cannot_be_read_of_it_stands_in_the_way(runtime: Runtime) -> None:
    runtime._drainer.stop()  # no server saves it
    spool = Spool(runtime.spool.directory, max_bytes=1 << 20)
    spool.append([raw_push(f"mobile={MOBILE}&taskid=spooled&status=1&receivetime={LOCAL}")])
    spool.close()
    assert json.loads(command(runtime, MOBILE, "--yes", "--json").stdout)["rows"]["pushes"] == 1
    assert [path for path in runtime.spool.directory.iterdir() if holding(path.read_bytes())] == []
    damaged = runtime.spool.directory / "1.damaged"
    damaged.write_bytes(MOBILE.encode())
    refused = command(runtime, MOBILE, "--yes")
    assert "1.damaged; remove them" in str(refused.exception)


@on_sqlite
def test_wrong_demands_are_refused(runtime: Runtime) -> None:
    for arguments, told in (
        (["137****5678"], "not a complete phone number"),
        (["hello"], "not a complete phone number"),
        ([MOBILE, "--reason", f"{MOBILE} asked"], "--reason must not contain the phone number"),
        ([], "Pass MOBILE, or --status"),
    ):
        refused = command(runtime, "--yes", *arguments)
        assert refused.exit_code != 0
        assert told in f"{refused.exception}{refused.output}"


def test_away_database_is_told_clearly(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    refused = CliRunner(env=process.env).invoke(cli, ["erase", MOBILE, "--yes"])
    assert "the database is unavailable" in str(refused.exception)


# --- Raw ------------------------------------------------------------------------------------------------------


def files_holding(*places: Path) -> dict[str, list[bytes]]:
    """Which needles stand in which files of these directories, byte for byte."""
    paths = [path for place in places for path in place.rglob("*") if path.is_file()]
    found = {str(path): holding(path.read_bytes()) for path in paths}
    return {path: needles for path, needles in found.items() if needles}


@on_sqlite
def test_no_byte_of_it_is_left_in_the_embedded_database_beside_its_server(runtime: Runtime, tmp_path: Path) -> None:
    fill(runtime, 1500)  # enough to part pages, which leaves copies of rows behind
    # As it is deleted where SQLite does not overwrite by itself, which it does here.
    with closing(sqlite3.connect(runtime.settings.data_dir / "receiver.db")) as connection, connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("DELETE FROM look_ups WHERE text = '137 1234 5678'")
    data, backups = runtime.settings.data_dir, tmp_path / "backups"
    process = ServeProcess(data, runtime.settings.database_url)
    with process:
        body = f"mobile={MOBILE}&taskid=served&status=1&receivetime={LOCAL}".encode()
        assert process.request("POST", process.target, body).status == 200
        before = files_holding(data)
        assert len(set().union(*before.values())) > 7
        done = process.run("erase", "-", "--yes", "--json", stdin=f"{MOBILE}\n")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"]["pushes"] == 50
        assert process.request("POST", process.target, body.replace(MOBILE.encode(), b"15080921099")).status == 200
        assert files_holding(data) == {}
        assert process.run("backup", str(backups), "--no-verify").returncode == 0
    assert files_holding(data, backups) == {}
    assert wrong(runtime) == []


def relation_files(runtime: Runtime) -> dict[str, list[bytes]]:
    """Which needles stand in the files of a PostgreSQL database, by table or index."""
    with psycopg.connect(runtime.settings.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        (root,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        path = "pg_relation_filepath(oid)"
        query = f"SELECT oid::regclass::text, {path} FROM pg_class WHERE {path} <> ''"
        found = {}
        for name, path in connection.execute(query).fetchall():
            data = (Path(root) / path).read_bytes()
            if needles := holding(data):
                found[name] = needles
    return found


def rows_holding(runtime: Runtime) -> dict[str, int]:
    """How many rows of each table of any schema hold a needle, as text or as the digits of their bytes."""
    with psycopg.connect(runtime.settings.database_url.replace("+psycopg", "")) as connection:
        query = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') ORDER BY 1"
        found = {}
        for (table,) in connection.execute(query).fetchall():
            needles = [text for needle in NEEDLES for text in (needle.decode("utf-8", "replace"), needle.hex())]
            held = "EXISTS (SELECT FROM unnest(%s::text[]) AS n WHERE position(n IN t::text) > 0)"
            query = f"SELECT count(*) FROM {table} AS t WHERE {held}"
            (rows,) = connection.execute(query, [needles]).fetchone() or (0,)
            if rows:
                found[table] = rows
    return found


def dump(runtime: Runtime) -> bytes:
    command = [str(find_binaries() / "pg_dump"), runtime.settings.database_url.replace("+psycopg", "")]
    dumped = subprocess.run(command, capture_output=True, check=True).stdout
    return dumped + b"".join(bytes.fromhex(found.decode()) for found in re.findall(rb"\\\\x([0-9a-f]+)", dumped))


def test_no_row_index_or_dump_of_postgresql_has_it(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    fill(runtime, 1000)
    runtime.database.write(lambda c: c.exec_driver_sql("ANALYZE"))  # samples of rows, which are rows as well
    before = rows_holding(runtime)
    assert {"pushes", "messages", "receipts", "replies", "look_ups", "pg_statistic"} <= before.keys()
    assert len(holding(dump(runtime))) > 7
    assert "ix_messages_mobile" in relation_files(runtime)
    done = command(runtime, MOBILE, "--yes")
    assert (done.exit_code, done.exception) == (0, None)
    assert rows_holding(runtime) == {}
    assert holding(dump(runtime)) == []
    # VACUUM leaves bytes in the free space of pages, which nothing but their files shows. A rewrite does not.
    assert relation_files(runtime)
    assert command(runtime, MOBILE, "--yes", "--rewrite").exit_code == 0
    assert relation_files(runtime) == {}
    assert wrong(runtime) == []


def test_log_of_postgresql_is_told_to_hold_it_until_its_files_are_written_over(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    fill(runtime)
    command(runtime, MOBILE, "--yes")
    url = runtime.settings.database_url.replace("+psycopg", "")

    def state() -> str:
        return str(json.loads(command(runtime, "--status", "--json").stdout)["log"])

    assert state().startswith("held: ")
    deadline = time.monotonic() + 120
    with psycopg.connect(url, autocommit=True) as connection:
        (root,) = connection.execute("SHOW data_directory").fetchone() or ("",)

        def file() -> object:
            return connection.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()

        while (written_to := file()) and state().startswith("held: "):
            assert time.monotonic() < deadline
            connection.execute("SELECT pg_logical_emit_message(true, 'x', 'x'), pg_switch_wal()")
            connection.execute("CHECKPOINT")
        assert state() == "gone"
        assert file() != written_to  # its end may have been written long ago, and held it
        assert files_holding(Path(root) / "pg_wal") == {}
