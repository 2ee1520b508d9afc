"""The balance: a series of readings, what is used in a day, and a day's account of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from receiver.app import create_app
from receiver.core import MessageStatus, SendResult
from receiver.db import once
from receiver.messages import balance
from receiver.messages.balance import Level, Reading
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.platforms import APP_ID, APP_KEY, SETTING, stand_in
from tests.harness.server import ServeProcess
from tests.sending.test_sending import BODY, Sending, make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from receiver.runtime import Runtime


def reading(minutes: float, left: int, *, took: float = 0.01, account: str = "default") -> Reading:
    """A reading so many minutes after noon, answered `took` minutes after it was asked for."""
    answered_at = NOON + timedelta(minutes=minutes)
    return Reading(
        account=account, asked_at=answered_at - timedelta(minutes=took), answered_at=answered_at, remain_point=left
    )


def keep(runtime: Runtime, *readings: Reading) -> None:
    for one in readings:
        assert runtime.recorder.save_reading(one)


# --- The series -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readings", "risen", "used"),
    [
        ([reading(0, 100), reading(1, 99), reading(2, 98)], 0, 2),
        ([reading(0, 100), reading(1, 600), reading(2, 599)], 500, 1),
        # Two requests overlapped, and the second to be asked was answered first: no rise.
        ([reading(0, 100), reading(1, 98, took=0.5), reading(1.1, 99, took=0.7), reading(2, 97)], 0, 3),
        # A rise that an overlapping request saw first is counted once, by the next that did not overlap.
        ([reading(0, 100), reading(1, 599, took=2), reading(2, 598), reading(3, 597)], 498, 1),
        ([], 0, 0),
    ],
)
def test_rise_counts_only_where_the_requests_did_not_overlap(readings: list[Reading], risen: int, used: int) -> None:
    level = Level()
    for one in readings:
        level.add(one)
    assert (level.risen, level.used) == (risen, used)


def test_each_send_and_each_query_is_a_reading(make_runtime: Callable[..., Runtime]) -> None:
    with stand_in() as platform:
        runtime = make_runtime(platform_url=f"http://127.0.0.1:{platform.port}/smsApi", platform_credentials=SETTING)
        shop = Sending(runtime)
        assert shop.send().status_code == 201
        runtime.sender.read_balance("default")
        shop.send(mobile="15608911091")
        runtime.recorder.record([make_send(sent_at=NOON, task_id="by its sender")])
        with runtime.database.reading() as connection:
            found = list(balance.iter_readings(connection, "default", None, runtime.now() + timedelta(hours=1)))
            last = balance.find_last_readings(connection, now=runtime.now())
    assert [one.remain_point for one in found] == [241, 241, 240]
    assert last["default"].remain_point == 240
    assert all(one.asked_at <= one.answered_at for one in found)


def test_repeated_reading_is_one_row(runtime: Runtime) -> None:
    keep(runtime, reading(0, 100), reading(0, 100), reading(0, 99), reading(1, 99, account="other"))
    with runtime.database.reading() as connection:
        found = list(balance.iter_readings(connection, "default", None, NOON + timedelta(days=1)))
        last = balance.find_last_readings(connection, now=runtime.now())
    assert [one.remain_point for one in found] == [100, 99]
    assert {account: one.remain_point for account, one in last.items()} == {"default": 99, "other": 99}


def test_balance_of_a_recorded_send_is_kept_too(runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    record = {"task_id": "1", "mobile": "15080921090", "sent_at": "2026-11-23T12:00:00", "remain_point": "77"}
    for _ in range(2):
        client.post("/api/v1/messages", json=record, headers={"Authorization": make_key(runtime)})
    with runtime.database.reading() as connection:
        (one,) = balance.iter_readings(connection, "default", None, NOON + timedelta(days=1))
    assert (one.remain_point, one.asked_at) == (77, NOON)


# --- GET /balance -----------------------------------------------------------------------------------------


def test_balance_tells_what_is_left_and_for_how_long(make_runtime: Callable[..., Runtime]) -> None:
    with stand_in(balance=700) as platform:
        runtime = make_runtime(
            platform_url=f"http://127.0.0.1:{platform.port}/smsApi",
            platform_credentials=(*SETTING, ("other", "x", "y")),
            balance_low=(("other", 10), ("", 1000)),
        )
        two_days_ago = runtime.now() - timedelta(days=2)
        keep(runtime, Reading(account="default", asked_at=two_days_ago, answered_at=two_days_ago, remain_point=900))
        client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
        first, other = client.get("/api/v1/balance", headers=headers).json["items"]
        platform.platform.balance = 1
        (again,) = client.get("/api/v1/balance?account=default", headers=headers).json["items"]
    told = {name: first[name] for name in ("account", "remain_point", "low", "used_per_day", "days_left", "error")}
    assert told == {
        "account": "default", "remain_point": 700, "low": True, "used_per_day": 100.0, "days_left": 7.0, "error": None,
    }  # fmt: skip
    assert (other["remain_point"], other["low"], other["days_left"]) == (700, False, None)
    assert again["remain_point"] == 700  # asked for a moment ago: the platform is spared


@pytest.mark.parametrize(("port", "error"), [(1, "cannot be reached"), (0, "账号或密码错误")])
def test_balance_that_cannot_be_read_says_why_and_gives_the_last_one(
    make_runtime: Callable[..., Runtime], port: int, error: str
) -> None:
    with stand_in(credentials={"other": "key"}) as platform:
        runtime = make_runtime(
            platform_url=f"http://127.0.0.1:{port or platform.port}/smsApi", platform_credentials=SETTING
        )
        keep(runtime, reading(0, 55))
        client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
        (item,) = client.get("/api/v1/balance", headers=headers).json["items"]
    assert (item["remain_point"], item["read_at"]) == (55, "2026-11-23T04:00:00.000Z")
    assert error in item["error"]


def test_low_balance_is_a_metric_and_one_log_event_a_day(
    make_runtime: Callable[..., Runtime], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "receiver.sending.service._log.warning", lambda event, **values: said.append({"event": event, **values})
    )
    with stand_in(balance=5) as platform:
        runtime = make_runtime(
            platform_url=f"http://127.0.0.1:{platform.port}/smsApi",
            platform_credentials=SETTING,
            balance_low=(("", 6),),
            metrics_allow=(ip_network("127.0.0.0/8"),),
        )
        for _ in range(3):
            runtime.sender.read_balance("default")
        assert said == [{"event": "balance low", "account": "default", "remain_point": 5, "threshold": 6}]
        metrics = create_app(runtime).test_client().get("/metrics").text
        assert 'receiver_balance_points{account="default"} 5.0' in metrics
        assert 'receiver_balance_low{account="default"} 1.0' in metrics
        now, day = runtime.now(), timedelta(days=1)
        again = runtime.database.write(lambda c: once.claim_notice(c, "balance_low:default", now=now + day, every=day))
        assert again


# --- The bill ---------------------------------------------------------------------------------------------


def test_bill_holds_the_balance_against_what_was_sent(runtime: Runtime) -> None:
    def local(day: int, hour: int) -> datetime:
        return datetime(2026, 11, day, hour, tzinfo=runtime.settings.timezone).astimezone(UTC)

    def left(moment: datetime, points: int) -> Reading:
        return Reading(account="default", asked_at=moment, answered_at=moment, remain_point=points)

    keep(
        runtime, left(local(21, 23), 100), left(local(22, 1), 97), left(local(22, 9), 597), left(local(22, 20), 590),
        left(local(24, 0), 590),
    )  # fmt: skip
    for number, (task_id, at) in enumerate((("a", local(22, 0)), ("b", local(22, 12)), ("c", local(22, 23)))):
        attempt = make_attempt(mobile=f"1560891100{number}", sent_at=at)
        result = SendResult(state=None, answered_at=at, task_id=task_id, success_counts=3)
        runtime.recorder.finish(attempt, result)
        runtime.batch_writer.enqueue(make_push(mobile=attempt.mobile, task_id=task_id, status="01"[number % 2])).result(
            60
        )
    refused = SendResult(state=MessageStatus.REFUSED, answered_at=local(22, 5), error_message="余额不足")
    runtime.recorder.finish(make_attempt(sent_at=local(22, 5)), refused)
    runtime.recorder.record([make_send(task_id="d", sent_at=local(23, 0))])

    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    days = client.get("/api/v1/reports/billing?from=2026-11-22&to=2026-11-24", headers=headers).json["items"]
    assert days[0] == {
        "account": "default", "day": "2026-11-22", "opening": 100, "top_ups": 500, "closing": 590, "accepted": 9,
        "delivered": 1, "failed": 2, "refused": 1, "difference": 1, "gaps": [],
    }  # fmt: skip
    assert days[1] == {
        "account": "default", "day": "2026-11-23", "opening": 590, "top_ups": 0, "closing": 590, "accepted": 0,
        "delivered": 0, "failed": 0, "refused": 0, "difference": 0,
        "gaps": ["no reading in this day", "1 sends are recorded without success_counts"],
    }  # fmt: skip


def test_bill_from_a_day_to_the_same_day_is_of_that_day(runtime: Runtime) -> None:
    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    for end in (22, 23):
        answer = client.get(f"/api/v1/reports/billing?from=2026-11-22&to=2026-11-{end}", headers=headers)
        assert [item["day"] for item in answer.json["items"]] == ["2026-11-22"]


def test_bill_without_readings_names_the_gap_and_invents_nothing(runtime: Runtime) -> None:
    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    path = "/api/v1/reports/billing?from=2026-11-22&to=2026-11-23"
    (day,) = client.get(path, headers=headers).json["items"]
    assert (day["opening"], day["closing"], day["difference"]) == (None, None, None)
    assert day["gaps"] == ["no reading before this day: opening is the first one in it", "no reading in this day"]
    keep(runtime, reading(-24 * 60, 10), reading(-24 * 60 + 1, 8))
    (day,) = client.get(path, headers=headers).json["items"]
    assert (day["opening"], day["closing"], day["difference"]) == (10, 8, 2)
    assert day["gaps"] == ["no reading before this day: opening is the first one in it"]


@pytest.mark.parametrize(
    "query",
    ["", "from=2026-11-22", "from=22.11.2026&to=2026-11-23",
     "from=2026-01-01&to=2026-11-23", "from=0001-01-01&to=0001-01-02", "from=2026-11-22&to=2026-11-23&account=no"],
)  # fmt: skip
def test_bill_of_days_that_are_none_names_them(runtime: Runtime, query: str) -> None:
    client, headers = create_app(runtime).test_client(), {"Authorization": make_key(runtime)}
    answer = client.get(f"/api/v1/reports/billing?{query}", headers=headers)
    assert (answer.status_code, bool(answer.json["errors"])) == (422, True)


# --- The command line -------------------------------------------------------------------------------------


def test_commands_send_read_and_say_what_went_wrong(tmp_path: Path) -> None:
    with stand_in(one_a_minute=True, balance=50) as platform:
        process = ServeProcess(
            tmp_path,
            environment={
                "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform.port}/smsApi",
                "RECEIVER_PLATFORM_CREDENTIALS": f"default:{APP_ID}:{APP_KEY}",
                "RECEIVER_BALANCE_LOW": "100",
            },
        )
        process.upgrade()
        arguments = ("send", "+86 156-0891-1090", "--template", "540")
        sent = process.run(*arguments, "--code", "-", "--json", stdin=f"{BODY['code']}\n")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout) == {"task_id": "3313746", "message_id": "1", "remain_point": 49}
        refused = process.run(*arguments, "--code", BODY["code"])
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "相同手机号码一分钟之内只可发送一次" in refused.stderr.splitlines()[-1]
        for command in (("balance",), ("run", "balance")):
            read = process.run(*command, "--json")
            assert (read.returncode, json.loads(read.stdout)["remain_point"]) == (0, 49)
    wrong = process.run("send", "12", "--template", "x", "--code", "y")
    assert wrong.returncode == 1
    assert all(field in wrong.stderr for field in ("mobile: ", "template_id: ", "code: "))
    away = process.run("balance")
    assert (away.returncode, away.stderr.splitlines()[-1].startswith("receiver: default: the platform cannot")) == (
        1,
        True,
    )
    process.environment = {}
    assert "RECEIVER_PLATFORM_CREDENTIALS" in process.run("balance").stderr
