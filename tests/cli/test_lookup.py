"""`receiver lookup`: the console's answer on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from receiver.audit import log
from receiver.cli import cli
from receiver.core import ReceiverError
from receiver.messages import recording
from receiver.support.lookup import NearMissFault
from tests.harness.factories import make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from click.testing import Result

    from receiver.runtime import Runtime

NUMBER, OTHER = "15080921090", "13955551090"
NOW = datetime.now(UTC).replace(microsecond=0)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def look_up(runtime: Runtime, *arguments: str, stdin: str | None = None) -> Result:
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    return CliRunner(env=process.env).invoke(cli, ["lookup", *arguments], input=stdin)


def answer(runtime: Runtime, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    done = look_up(runtime, *arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def push(runtime: Runtime, mobile: str, at: datetime, **fields: Any) -> None:
    """Save a push whose time is another than those of the factory."""
    local = f"{at.astimezone(runtime.settings.timezone):%Y-%m-%d %H:%M:%S}"
    said = "&".join(f"{name}={value}" for name, value in fields.items())
    save_pushes(runtime.database, [make_push(body=f"mobile={mobile}&receivetime={local}&{said}".encode())])


@pytest.fixture
def filled(runtime: Runtime) -> Runtime:
    sends = (
        make_send(task_id="1", sent_at=NOW - 40 * SECOND, template_id="540"),
        make_send(task_id=None, sent_at=NOW - 30 * SECOND, template_id="540", error_message="一分钟之内\x1b[2J"),
        make_send(task_id="[/b]2", mobile=OTHER, sent_at=NOW - 2 * DAY, reference="Ord-17"),
    )
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=NOW))
    push(runtime, NUMBER, NOW - 36 * SECOND, taskid="1", status="1")
    push(runtime, OTHER, NOW - 2 * DAY, taskid="[/b]2", content=f"TD {OTHER}")
    return runtime


def test_answer_is_that_of_the_best_attempt_with_the_numbers_that_were_typed(filled: Runtime) -> None:
    (result,) = answer(filled, f"1. {NUMBER} 10分钟没收到")["results"]
    (group,) = result["groups"]
    assert (group["answer"], group["sent"], group["message"]["task_id"]) == ("delivered", 1, "1")
    assert [attempt["status"] for attempt in group["attempts"]] == ["refused", "delivered"]
    assert [receipt["status"] for receipt in group["receipts"]] == ["delivered"]
    assert {row["mobile"] for row in (group["message"], *group["attempts"])} == {NUMBER}
    assert result["looked_up"] == [{"mobile": NUMBER}]
    assert not result["never_sent"]
    told = look_up(filled, "-", stdin="150 8092 1090\n").stdout
    assert f"number {NUMBER}" in told
    assert "delivered" in told
    assert "2 requested, 1 sent" in told


def test_numbers_that_were_not_typed_are_masked_and_nothing_controls_the_terminal(filled: Runtime) -> None:
    for text in ("1090", "Ord-17", "尾号1090"):
        told = look_up(filled, text, "--period", "7d").stdout
        assert NUMBER not in told
        assert OTHER not in told
        assert "139****1090" in told, text
        assert "\x1b" not in told
    said = json.dumps(answer(filled, "1090", "--period", "all"))
    assert NUMBER not in said
    assert OTHER not in said
    assert "TD 139****1090" in said


def test_reply_says_whether_it_is_an_opt_out_or_may_be_one(filled: Runtime) -> None:
    for content, said in (("TD", "(opt-out): TD"), ("退丁", "(possible opt-out): 退丁"), ("谢谢", "1090: 谢谢")):
        push(filled, NUMBER, NOW - 20 * SECOND, taskid="1", content=content)
        assert said in look_up(filled, NUMBER).stdout


def test_period_shows_the_newest_before_it(filled: Runtime) -> None:
    (result,) = answer(filled, OTHER)["results"]
    assert result["earlier_than_period"]
    assert [group["message"]["task_id"] for group in result["groups"]] == ["[/b]2"]
    (result,) = answer(filled, OTHER, "--period", "7d")["results"]
    assert not result["earlier_than_period"]
    assert "Nothing in the period" in look_up(filled, OTHER, "--period", "10m").stdout


def test_several_numbers_are_answered_apart_and_near_misses_named(filled: Runtime) -> None:
    found = answer(filled, f"{NUMBER}\n{OTHER}\n1508092109", "--period", "all")
    assert [result["looked_up"] for result in found["results"]][:2] == [[{"mobile": NUMBER}], [{"mobile": OTHER}]]
    assert found["near_misses"] == [{"text": "1508092109", "fault": "too_short"}]
    samples = {
        "1508092109": "has 11", "150809210901": "has 11", "15O8O921O9O": "letter", "1.50809E+10": "spreadsheet",
        "25080921090": "13 to 19", "1508092****": "hidden",
    }  # fmt: skip
    assert len(samples) == len(NearMissFault)
    for text, said in samples.items():
        told = look_up(filled, text).stdout
        assert said in told.splitlines()[0], text
        assert "never sent" not in told


def test_never_sent_is_said_of_one_whole_number_alone(filled: Runtime) -> None:
    assert "never sent" in look_up(filled, "18600000000").stdout
    assert answer(filled, "18600000000")["results"][0]["never_sent"]
    for text in ("18600000000 18600000001", "9999", "abc", "186****0000"):
        assert "never sent" not in look_up(filled, text).stdout, text


def test_look_up_is_audited_by_its_numbers(filled: Runtime) -> None:
    answer(filled, f"{NUMBER} {OTHER}")
    entries = filled.ask(lambda connection: log.list_audit(connection, 2))
    assert [(entry["actor"], entry["action"]) for entry in entries] == [("cli", "look_up")] * 2
    assert NUMBER not in json.dumps(entries, default=str)
    assert (
        CliRunner(env=ServeProcess(filled.settings.data_dir, filled.settings.database_url).env)
        .invoke(cli, ["audit", "list", "--mobile", NUMBER, "--json"])
        .stdout.count('"look_up"')
        == 1
    )


def test_what_cannot_be_looked_up_is_one_line(filled: Runtime) -> None:
    for arguments in (("。",), ("a" * 300,), (NUMBER, "--account", "nowhere")):
        done = look_up(filled, *arguments)
        assert done.exit_code == 1
        assert isinstance(done.exception, ReceiverError)
        assert "\n" not in str(done.exception)
    assert look_up(filled, NUMBER, "--period", "1y").exit_code == 2


def test_sent_is_the_time_of_the_send_alone_and_the_last_attempt_is_named(filled: Runtime) -> None:
    push(filled, "13700137000", NOW, taskid="9", status="0")
    assert f"not recorded  {NOW:%Y-%m-%d %H:%M:%S}Z" in look_up(filled, "13700137000").output
    assert "2 requested, 1 sent, the last: refused" in look_up(filled, NUMBER).output
    unsent = [make_send(task_id="8", mobile="13700137001")]
    filled.database.write(lambda connection: recording.record_sent(connection, unsent, recorded_at=NOW))
    assert f"recorded {NOW:%Y-%m-%d %H:%M:%S}Z" in look_up(filled, "13700137001").output


def test_what_is_nearly_a_number_is_no_record_of_nothing(filled: Runtime) -> None:
    assert look_up(filled, "1508092109").output == "1508092109: too few digits for a mobile number, which has 11\n"
