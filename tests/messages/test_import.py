"""`receiver messages import`: files as people have them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from receiver.messages import queries
from receiver.messages.queries import Page
from receiver.runtime import Runtime
from tests.conftest import make_settings
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def installed(tmp_path: Path) -> ServeProcess:
    process = ServeProcess(tmp_path)
    process.upgrade()
    return process


def opened(process: ServeProcess) -> Runtime:
    return Runtime(make_settings(f"sqlite:///{process.data_dir / 'receiver.db'}", process.data_dir))


def recorded(process: ServeProcess) -> dict[str, queries.MessageRow]:
    runtime = opened(process)
    rows = runtime.ask(lambda connection: queries.list_messages(connection, Page(limit=1000), runtime.clock()))
    runtime.stop()
    return {row.task_id or "": row for row in rows}


def import_(process: ServeProcess, text: str, *options: str) -> tuple[int, dict[str, int], str]:
    done = process.run("messages", "import", "-", "--json", *options, stdin=text)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def tally(new: int = 0, filled: int = 0, unchanged: int = 0, rejected: int = 0) -> dict[str, int]:
    return {"new": new, "filled": filled, "unchanged": unchanged, "rejected": rejected}


def test_mysql_batch_output_is_recorded(installed: ServeProcess) -> None:
    text = (
        "taskId\tphone\ttemplateId\tsendTime\tnote\n"
        "3637825\t+86 15080921090\t540\t2026-11-23 12:00:00\ta\\tb\n"
        "3637826\t15080921091\tNULL\tNULL\tNULL\n"
    )
    code, counts, errors = import_(installed, text)
    assert (code, counts) == (0, tally(new=2))
    assert errors == "unused columns: note\n"
    rows = recorded(installed)
    assert rows["3637825"].sent_at is not None
    assert rows["3637825"].sent_at.isoformat() == "2026-11-23T04:00:00+00:00"
    assert (rows["3637825"].mobile, rows["3637825"].template_id) == ("15080921090", "540")
    assert (rows["3637826"].template_id, rows["3637826"].sent_at) == (None, None)


@pytest.mark.parametrize("account", ["nowhere", ""])
def test_account_that_is_not_configured_is_refused_and_nothing_recorded(installed: ServeProcess, account: str) -> None:
    code, counts, error = import_(installed, "task_id,mobile\n1,15080921090\n", "--account", account)
    assert (code, counts, error) == (1, {}, f"receiver: --account: {account}: no such account is configured\n")
    assert recorded(installed) == {}


def test_repeating_an_import_changes_nothing_and_more_columns_fill(installed: ServeProcess) -> None:
    text = "task_id,mobile\n1,15080921090\n2,15080921091\n"
    assert import_(installed, text)[1] == tally(new=2)
    assert import_(installed, text)[1] == tally(unchanged=2)
    more = "task_id,mobile,reference\n1,15080921090,order-1\n2,15080921091,\n"
    assert import_(installed, more)[1] == tally(filled=1, unchanged=1)


def test_rejected_lines_are_named_and_the_others_recorded(installed: ServeProcess, tmp_path: Path) -> None:
    text = (
        "\ufefftask_id,mobile,sent_at\r\n"
        "1,15080921090,2026-11-23T12:00:00Z\r\n"
        "2,12,2026-11-23T12:00:00Z\r\n"
        "\r\n"
        "3,15080921090\r\n"
        '4,"150-8092-1090",yesterday\r\n'
        "1,15080921090,2026-11-23T12:00:01Z\r\n"
    )
    code, counts, errors = import_(installed, text)
    assert (code, counts) == (1, tally(new=1, rejected=4))
    assert sorted(errors.splitlines()) == [
        "line 3: mobile: not a phone number",
        "line 5: line: 2 columns where the first line names 3",
        "line 6: sent_at: not a time such as 2026-11-23T09:14:03+08:00",
        "line 7: sent_at: differs from what is recorded",
    ]
    kept = tmp_path / "rejects"
    code, counts, errors = import_(installed, text, "--rejects", str(kept))
    assert (code, counts["unchanged"], errors) == (1, 1, "")
    assert len(kept.read_text().splitlines()) == 4


def test_numbers_of_an_unusual_length_are_taken_and_told(installed: ServeProcess) -> None:
    lines = [
        "1,15080921090",
        "2,1508092109",
        "3,+1 415 555 2671",
        "4,0086 150 8092 1090",
        "5,85291234567",
        "6,150809210901",
    ]
    code, counts, errors = import_(installed, "\n".join(["task_id,mobile", *lines]))
    assert (code, counts) == (0, tally(new=6))
    assert errors == "2 rows have numbers of an unusual length (first: line 3)\n"


def test_ndjson_and_mapped_columns_and_refused_sends(installed: ServeProcess) -> None:
    lines: list[Any] = [
        {"taskId": 3313746, "Phone": "15080921090", "sentAt": "2026-11-23T12:00:00+08:00"},
        {"phone": "15080921090", "reference": "r", "sentAt": "20261123T12Z", "returnStatus": 0, "message": "余额不足"},
        "not json",
        ["list"],
    ]  # fmt: skip
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    code, counts, errors = import_(installed, text)
    assert (code, counts) == (1, tally(new=2, rejected=2))
    assert errors.splitlines() == ["line 3: line: not JSON", "line 4: line: not an object"]
    assert recorded(installed)[""].error_message == "余额不足"
    odd = "batch;to\n".replace(";", ",") + "9,15080921099\n"
    code, _, errors = import_(installed, odd)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "--map COLUMN=mobile" in errors
    assert import_(installed, odd, "--map", "batch=task_id", "--map", "to=mobile")[1] == tally(new=1)


def test_own_exports_are_no_change_whatever_their_cells_begin_with(installed: ServeProcess, tmp_path: Path) -> None:
    odd = ["-5", "'-5", "''-5", "＝5", "'x", "=1+1", "@a", "'＠a", "5", "3637825123456789012", "0070"]
    sent_at = "2026-11-23T12:00:00.123+08:00"
    lines = [
        {"task_id": text, "mobile": "15080921090", "template_id": text, "reference": text, "sent_at": sent_at}
        for text in odd
    ]
    refused = {
        "mobile": "15080921090",
        "reference": "r",
        "sent_at": sent_at,
        "return_status": "0",
        "message": "余额不足",
    }
    assert import_(installed, "\n".join(map(json.dumps, [*lines, refused])))[1] == tally(new=len(odd) + 1)
    for ending in ("csv", "ndjson", "xlsx"):
        file = tmp_path / f"own.{ending}"
        assert installed.run("export", "messages", str(file), "--full-numbers").returncode == 0
        done = installed.run("messages", "import", str(file), "--json")
        assert (done.returncode, json.loads(done.stdout)) == (0, tally(unchanged=len(odd) + 1)), done.stderr
        assert "latency_seconds" in done.stderr  # of the columns that are not used
    assert set(recorded(installed)) == {*odd, ""}


def test_file_of_excel_is_recorded_and_what_was_found_is_said(installed: ServeProcess, tmp_path: Path) -> None:
    file = tmp_path / "发送明细.csv"
    heading = "任务ID,手机号,发送时间,短信内容"
    text = f"{heading}\n3637825,15080921090,23.11.2026 12:00:00,您的验证码\n3.63783E+18,15080921090,,\n"
    file.write_bytes(text.encode("gbk"))
    installed.environment["RECEIVER_TIME_FORMATS"] = "%d.%m.%Y %H:%M:%S"
    for count in (tally(new=1, rejected=1), tally(unchanged=1, rejected=1)):
        done = installed.run("messages", "import", str(file), "--json")
        assert (done.returncode, json.loads(done.stdout)) == (1, count)
        note, rejected, unused = done.stderr.splitlines()
        assert (note, rejected[:16], unused) == ("read as GB18030", "line 3: task_id:", "unused columns: 短信内容")
    assert recorded(installed)["3637825"].sent_at == datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def test_import_that_breaks_off_says_what_it_has_recorded(installed: ServeProcess) -> None:
    lines = [f"{number},15080921090" for number in range(2000)]
    code, counts, errors = import_(installed, "\n".join(["task_id,mobile", *lines, "9" * 1_100_000]))
    assert (code, counts["new"] >= 1000) == (1, True)
    assert errors.splitlines()[-1].startswith("receiver: line 2002: ")
    assert import_(installed, "\n".join(["task_id,mobile", *lines]))[1]["new"] == 2000 - counts["new"]


def test_import_joins_what_pushes_have_made(installed: ServeProcess) -> None:
    runtime = opened(installed)
    pushes = [make_push(task_id="1"), make_push(task_id="2", mobile="1508092****")]
    save_pushes(runtime.database, pushes)
    runtime.stop()
    assert import_(installed, "task_id,mobile\n1,15080921090\n2,15080921090\n")[1] == tally(new=2)
    assert {(row.status, row.matched) for row in recorded(installed).values()} == {("delivered", True)}


@pytest.mark.parametrize("text", ["", "\n", "colour,size\nred,1\n", "task_id,taskId,mobile\n1,1,15080921090\n"])
def test_file_that_cannot_be_used_is_one_line(text: str, installed: ServeProcess) -> None:
    code, _, errors = import_(installed, text)
    assert (code, len(errors.splitlines())) == (1, 1)
