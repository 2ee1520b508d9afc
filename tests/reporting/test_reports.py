"""The delivery report gives what the messages give, whichever way they came to be as they are."""

from __future__ import annotations

import math
import re
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.core import MessageStatus, SendResult
from receiver.db.tables import messages
from receiver.maintenance.verify import verify
from receiver.messages import queries, recording
from receiver.messages.queries import Page
from receiver.reporting import carriers, delivery, rollup
from receiver.reporting.figures import COUNTED, DeliveryFigures, ReportQuestion, Unit
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.running import examples
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 11, 22, 16, tzinfo=UTC)  # in Shanghai, 2026-11-23
WHOLE = ReportQuestion(since=MIDNIGHT - 7 * DAY, until=MIDNIGHT + 7 * DAY, zone=SHANGHAI)
NOW = NOON + timedelta(hours=30)


def report(runtime: Runtime, asked: ReportQuestion) -> tuple[dict[Any, DeliveryFigures], DeliveryFigures]:
    return runtime.ask(lambda c: delivery.delivery_report(c, asked, runtime.clock(NOW)))


def shown(figures: DeliveryFigures) -> dict[str, Any]:
    return {
        **{name: getattr(figures, name) for name in COUNTED},
        "latencies": {seconds: count for seconds, count in sorted(figures.latencies.items()) if count},
    }


# --- The same figures in plain Python, from the rows as readers see them --------------------------------------


def model(runtime: Runtime, asked: ReportQuestion) -> dict[tuple[str | None, ...], dict[str, Any]]:
    groups: dict[tuple[str | None, ...], DeliveryFigures] = defaultdict(DeliveryFigures)
    for row in runtime.ask(lambda c: queries.list_messages(c, Page(limit=10_000), runtime.clock(NOW))):
        moment = (row.sent_at or row.recorded_at) if row.matched else row.reported_at
        if moment is None or not asked.since <= moment < asked.until:
            continue
        if asked.template_id is not None and row.template_id != asked.template_id:
            continue
        local = moment.astimezone(asked.zone)
        key: list[str | None] = []
        if asked.unit is not None:
            key.append(
                {
                    Unit.MONTH: f"{local:%Y-%m}",
                    Unit.DAY: f"{local:%Y-%m-%d}",
                    Unit.HOUR: f"{local:%Y-%m-%dT%H:00}",
                    Unit.FIVE_MINUTES: f"{local:%Y-%m-%dT%H:}{local.minute // 5 * 5:02d}",
                }[asked.unit]
            )
        key += [row.template_id] if asked.by_template else []
        key += [row.account] if asked.by_account else []
        figures = groups[tuple(key)]
        if not row.matched:
            figures.unmatched += 1
            continue
        figures.verified += row.verified_at is not None
        if row.status is MessageStatus.REFUSED:
            figures.refused += 1
        elif row.status in (MessageStatus.SENDING, MessageStatus.OUTCOME_UNKNOWN):
            figures.outcome_unknown += 1
        else:
            figures.sent += 1
            setattr(figures, row.status, getattr(figures, row.status) + 1)
        if row.status is MessageStatus.DELIVERED and row.latency_seconds is not None:
            figures.latencies[math.floor(row.latency_seconds)] += 1
    return {key: shown(figures) for key, figures in groups.items()}


QUESTIONS = [
    WHOLE,
    *(replace(WHOLE, unit=unit) for unit in Unit),
    replace(WHOLE, by_template=True),
    replace(WHOLE, unit=Unit.DAY, by_template=True),
    replace(WHOLE, unit=Unit.DAY, by_account=True),
    replace(WHOLE, by_template=True, by_account=True, unit=None),
    replace(WHOLE, unit=Unit.DAY, since=NOON - DAY, until=NOON + timedelta(hours=1, milliseconds=500)),
    replace(WHOLE, unit=Unit.DAY, zone=ZoneInfo("America/New_York"), since=datetime(2026, 10, 30, tzinfo=UTC)),
    replace(WHOLE, unit=Unit.HOUR, zone=ZoneInfo("Asia/Kathmandu")),
    replace(WHOLE, template_id="540"),
]


def assert_agrees(runtime: Runtime) -> None:
    for asked in QUESTIONS:
        groups, total = report(runtime, asked)
        found = {key: shown(figures) for key, figures in groups.items()}
        assert found == model(runtime, asked), asked
        everything = model(runtime, replace(asked, unit=None, by_template=False, by_account=False))
        assert shown(total) == everything.get((), shown(DeliveryFigures()))
    with runtime.database.reading() as connection:
        assert rollup.differences(connection) == []


SECONDS = st.integers(-3 * 86400, 3 * 86400)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 5), st.sampled_from(["1", "0", "x"]), SECONDS),
        st.tuples(st.just("masked"), st.integers(0, 5), st.sampled_from(["1", "0"]), SECONDS),
        st.tuples(st.just("record"), st.integers(0, 5), st.sampled_from(["540", "541", None]), SECONDS),
        st.tuples(st.just("record without a time"), st.integers(0, 5), st.just(None), SECONDS),
        st.tuples(st.just("refused"), st.integers(0, 5), st.sampled_from(["540", None]), SECONDS),
        st.tuples(st.just("verified"), st.integers(0, 5), st.just(None), SECONDS),
        st.tuples(st.just("begin"), st.integers(0, 5), st.just("540"), SECONDS),
        st.tuples(st.just("finish"), st.integers(0, 5), st.sampled_from(["taken", "refused", "unknown"]), SECONDS),
    ),
    max_size=25,
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_report_is_that_of_the_messages_for_any_history(runtime: Runtime, steps: list[tuple[Any, ...]]) -> None:
    runtime.database.write(lambda c: [c.execute(sa.delete(table)) for table in reversed(ALL)])
    attempts: dict[int, Any] = {}
    for kind, number, what, seconds in steps:
        _do(runtime, attempts, kind, number, what, seconds)
    assert_agrees(runtime)


ALL = [messages, *(messages.metadata.tables[name] for name in ("receipts", "replies", "attempts"))]


def _do(runtime: Runtime, attempts: dict[int, Any], kind: str, number: int, what: Any, seconds: int) -> None:
    mobile, task_id = f"1560891109{number}", f"t{number}"
    moment = NOON + timedelta(seconds=seconds, milliseconds=seconds % 1000)
    account = ("default", "other")[number % 2]

    def keep(push: Any) -> None:
        save_pushes(runtime.database, [push])

    def finish() -> None:
        attempt = attempts.setdefault(number, make_attempt(mobile=mobile, sent_at=moment))
        result = SendResult(
            state={"taken": None, "refused": MessageStatus.REFUSED}.get(what, MessageStatus.OUTCOME_UNKNOWN),
            answered_at=moment,
            task_id=task_id if what == "taken" else None,
        )
        runtime.recorder.finish(attempt, result)

    def begin() -> None:
        attempt = attempts.setdefault(number, make_attempt(mobile=mobile, sent_at=moment))
        runtime.recorder.begin(attempt, day_began=NOON)

    def record(**changes: Any) -> None:
        send = make_send(account=account, mobile=mobile, template_id=what, **changes)
        runtime.database.write(lambda c: recording.record_sent(c, [send], recorded_at=NOW))

    def verified(at: datetime) -> None:
        runtime.database.write(
            lambda c: recording.record_verified(c, account=account, task_id=task_id, mobile=mobile, verified_at=at)
        )

    {
        "push": lambda: keep(make_push(account=account, mobile=mobile, task_id=task_id, status=what, second=seconds)),
        "masked": lambda: keep(
            make_push(account=account, mobile=mobile[:7] + "****", task_id=task_id, status=what, second=seconds)
        ),
        "record": lambda: record(task_id=task_id, sent_at=moment),
        "record without a time": lambda: record(task_id=task_id),
        "refused": lambda: record(task_id=None, sent_at=moment, reference="r", error_message="余额不足"),
        "verified": lambda: verified(moment.replace(microsecond=0)),
        "begin": begin,
        "finish": finish,
    }[kind]()


def await_folded(runtime: Runtime) -> None:
    """Fold, whoever does it, until no change waits to be added up."""
    query = sa.text(
        "SELECT (SELECT count(*) FROM delivery_hour_changes) + (SELECT count(*) FROM delivery_latency_changes)"
    )
    deadline = time.monotonic() + 60
    while runtime.ask(lambda connection: connection.scalar(query)):
        assert time.monotonic() < deadline
        runtime.database.write(rollup.fold)


def test_rebuild_gives_the_same_and_verify_finds_what_does_not_add_up(runtime: Runtime) -> None:
    for number in range(6):
        _do(runtime, {}, "record", number, "540", number * 1000)
        _do(runtime, {}, "push", number, "1", number * 1000 + 7)
    assert_agrees(runtime)
    await_folded(runtime)  # what is tampered with below has to be there
    assert_agrees(runtime)
    runtime.database.write(lambda c: c.execute(sa.text("UPDATE delivery_hours SET delivered = delivered + 1")))
    runtime.database.write(lambda c: c.execute(sa.text("UPDATE delivery_latencies SET messages = messages + 1")))
    wrong = next(
        f for f in verify(runtime.database, runtime.admission.read_again) if f.name == "delivery report adds up"
    )
    assert not wrong.ok
    assert {detail.split(" ")[0] for detail in wrong.details} == {"hour", "day"}
    runtime.database.write(lambda c: rollup.rebuild(c, offset_seconds=8 * 3600))
    assert_agrees(runtime)
    runtime.database.write(lambda c: rollup.rebuild(c, offset_seconds=-5 * 3600))  # the zone of another deployment
    assert_agrees(runtime)


def test_latency_of_what_is_no_longer_delivered_is_none(runtime: Runtime) -> None:
    _do(runtime, {}, "record", 0, "540", 0)
    for second, status in ((5, "1"), (9, "0")):
        _do(runtime, {}, "push", 0, status, second)
        if runtime.database.postgresql:
            runtime.database.write(rollup.fold)
    _, total = report(runtime, replace(WHOLE, unit=Unit.DAY))
    assert (total.failed, total.delivered, total.percentiles_seconds((50, 95, 99))) == (1, 0, [None, None, None])


@pytest.mark.parametrize(
    ("latencies", "p50", "p95", "p99"),
    [
        ({}, None, None, None),
        ({5: 0}, None, None, None),
        ({3: 1}, 3, 3, 3),
        ({1: 50, 2: 45, 9: 4, 60: 1}, 1, 2, 9),
        ({1: 49, 2: 51}, 2, 2, 2),
        ({0: 99, 5: 1}, 0, 0, 0),
    ],
)
def test_percentiles_are_by_nearest_rank(
    latencies: dict[int, int], p50: int | None, p95: int | None, p99: int | None
) -> None:
    figures = DeliveryFigures(latencies=latencies)
    assert figures.percentiles_seconds((50, 95, 99)) == [p50, p95, p99]


# --- Over HTTP --------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(make_runtime: Callable[..., Runtime]) -> tuple[Runtime, FlaskClient, dict[str, str]]:
    runtime = make_runtime()
    return runtime, create_app(runtime).test_client(), {"Authorization": make_key(runtime)}


def test_report_names_its_groups_and_rates(asking: tuple[Runtime, FlaskClient, dict[str, str]]) -> None:
    runtime, client, headers = asking
    for number, status in enumerate("1110"):
        _do(runtime, {}, "record", 2 * number, "540", 0)
        _do(runtime, {}, "push", 2 * number, status, 5 + number)
    used = {"task_id": "t0", "mobile": "+86 156-0891-1090", "account": "default"}
    earliest = "2026-11-23T12:00:30+08:00"
    for moment in ("2026-11-23T12:01:00+08:00", earliest, "2026-11-23T12:02:00+08:00"):
        told = client.post("/api/v1/messages/verified", json=used | {"verified_at": moment}, headers=headers)
        assert told.status_code == 200
    timeline = client.get(f"/api/v1/messages/{told.json['id']}", headers=headers).json["timeline"]
    assert {"kind": "verified", "at": "2026-11-23T04:00:30.000Z"} in timeline
    keep = make_push(task_id="nobody", second=60)
    save_pushes(runtime.database, [keep])
    path = "/api/v1/reports/delivery?from=2026-11-23&to=2026-11-24&group_by=day,template_id"
    answer = client.get(path, headers=headers).json
    assert answer["timezone"] == "Asia/Shanghai"
    group, unmatched = sorted(answer["items"], key=lambda item: item["template_id"] is None)
    assert group == {
        "day": "2026-11-23", "template_id": "540", "sent": 4, "refused": 0, "outcome_unknown": 0, "delivered": 3,
        "failed": 1, "unknown": 0, "pending": 0, "no_receipt": 0, "delivery_rate": 0.75, "latency_p50_seconds": 6,
        "latency_p95_seconds": 7, "latency_p99_seconds": 7, "verified": 1,
        "conversion_rate": 0.25, "unmatched": 0, "match_rate": 1.0,
    }  # fmt: skip
    assert (unmatched["template_id"], unmatched["unmatched"], unmatched["delivery_rate"]) == (None, 1, None)
    assert (answer["total"]["sent"], answer["total"]["match_rate"]) == (4, 0.8)
    table = client.get(path, headers={**headers, "Accept": "text/csv"})
    assert table.content_type == "text/csv; charset=utf-8"
    assert table.text.splitlines()[0].startswith("day,template_id,sent,refused,outcome_unknown,delivered,")
    assert "2026-11-23,540,4,0,0,3,1,0,0,0,0.75,6,7,7,1,0.25,0,1.0" in table.text.splitlines()


@pytest.mark.parametrize("day", ["2026-11-23", "20261123"])
def test_report_from_a_day_to_the_same_day_is_of_that_day(
    asking: tuple[Runtime, FlaskClient, dict[str, str]], day: str
) -> None:
    runtime, client, headers = asking
    sends = [make_send(task_id=f"{hour}", sent_at=MIDNIGHT + timedelta(hours=hour)) for hour in (-1, 0, 0.5, 23, 24)]
    runtime.recorder.record(sends)

    def report_of(name: str, end: str) -> Any:
        answer = client.get(f"/api/v1/reports/{name}from={day}&to={end}", headers=headers)
        assert answer.status_code == 200, answer.json
        return answer.json["items"]

    for name in ("delivery?group_by=day&", "busiest?min_sent=2&"):
        assert report_of(name, day) == report_of(name, "2026-11-24") != []
    assert [item["sent"] for item in report_of("delivery?group_by=day&", day)] == [3]


@pytest.mark.parametrize(
    ("zone", "before", "twice"),
    [
        ("America/New_York", datetime(2026, 11, 1, 4, 30, tzinfo=UTC), ["T01:00-04:00", "T01:00-05:00"]),
        ("Europe/Berlin", datetime(2026, 10, 24, 23, 30, tzinfo=UTC), ["T02:00+02:00", "T02:00+01:00"]),
    ],
)
def test_hour_that_comes_twice_is_two(
    make_runtime: Callable[..., Runtime], zone: str, before: datetime, twice: list[str]
) -> None:
    runtime = make_runtime()
    moments = [before + timedelta(hours=number) for number in range(4)]
    runtime.recorder.record([make_send(task_id=f"{n}", sent_at=moment) for n, moment in enumerate(moments)])
    whole = ReportQuestion(since=before - DAY, until=before + DAY, zone=ZoneInfo(zone), unit=Unit.HOUR)
    groups, total = report(runtime, whole)
    assert [key[0][10:] for key in groups if key[0]] == [
        f"T0{int(twice[0][2]) - 1}:00",
        *twice,
        f"T0{int(twice[0][2]) + 1}:00",
    ]
    assert [figures.sent for figures in groups.values()] == [1, 1, 1, 1]
    assert total.sent == 4
    fine, _ = report(runtime, replace(whole, unit=Unit.FIVE_MINUTES))
    assert [key[0][10:] for key in fine if key[0]][1:3] == [name.replace(":00", ":30", 1) for name in twice]
    by_day, _ = report(runtime, replace(whole, unit=Unit.DAY))
    assert [figures.sent for figures in by_day.values()] == [4]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"task_id": "t0"}, "#/mobile"),
        ({"mobile": "15608911090"}, "#/task_id"),
        ({"task_id": "t0", "mobile": "156****1090"}, "#/mobile"),
        ({"task_id": "t0", "mobile": "15608911090", "code": "1234"}, "#/code"),
        ({"task_id": "t0", "mobile": "15608911090", "account": "nobody"}, "#/account"),
    ],
)
def test_use_of_a_code_that_cannot_be_noted_names_what_is_wrong(
    asking: tuple[Runtime, FlaskClient, dict[str, str]], body: dict[str, str], pointer: str
) -> None:
    _, client, headers = asking
    answer = client.post("/api/v1/messages/verified", json={"account": "default"} | body, headers=headers)
    assert (answer.status_code, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])


@pytest.mark.parametrize(
    "query",
    [
        "delivery?",
        "delivery?from=2026-11-23",
        "delivery?from=2026-11-24&to=2026-11-23",
        "delivery?from=2026-11-23T00:00&to=2026-11-23T00:00",
        "delivery?from=2026-11-01&to=2026-11-23&group_by=five_minutes",
        "delivery?from=2026-01-01&to=2026-11-23&group_by=hour",
        "delivery?from=2000-01-01&to=2026-11-23",
        "delivery?from=1960-01-01&to=1960-01-02",
        "delivery?from=x&to=y",
        "delivery?from=2026-11-22&to=2026-11-23&group_by=day,hour",
        "delivery?from=2026-11-22&to=2026-11-23&group_by=colour",
        "delivery?from=2026-10-01&to=2026-11-23&group_by=province",
        "delivery?from=2026-11-22&to=2026-11-23&group_by=day,account,template_id",
        "delivery?from=2026-11-22&to=2026-11-23&group_by=day,day",
        "delivery?from=2026-11-22&to=2026-11-23&account=nobody",
        "busiest?",
        "busiest?from=2026-11-23T00:00&to=2026-11-23T00:00",
        "busiest?from=2026-11-20&to=2026-11-23",
        "busiest?from=2026-11-22&to=2026-11-23&by=name",
        "busiest?from=2026-11-22&to=2026-11-23&min_sent=1",
    ],
)
def test_question_that_is_none_names_what_is_wrong(
    asking: tuple[Runtime, FlaskClient, dict[str, str]], query: str
) -> None:
    _, client, headers = asking
    answer = client.get(f"/api/v1/reports/{query}", headers=headers)
    assert (answer.status_code, bool(answer.json["errors"])) == (422, True)


def test_report_by_what_numbers_were_allocated_to(asking: tuple[Runtime, FlaskClient, dict[str, str]]) -> None:
    runtime, client, headers = asking
    mobiles = ["15080921090", "15080921091", "13800138000", "18612345678", "12345", "8613800138"]
    sends = [
        make_send(mobile=mobile, task_id=str(number), sent_at=NOON, template_id="540")
        for number, mobile in enumerate(mobiles)
    ]
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOW))
    save_pushes(runtime.database, [make_push(second=3, task_id="0"), make_push(second=5, task_id="nobody")])
    path = "/api/v1/reports/delivery?from=2026-11-23&to=2026-11-24"

    def groups(query: str, *names: str) -> list[tuple[Any, ...]]:
        answer = client.get(f"{path}&{query}", headers=headers).json
        assert re.fullmatch(r"phonenumbers [0-9.]+, as allocated, porting ignored", answer["allocation"])
        return [tuple(item[name] for name in names) for item in answer["items"]]

    assert groups("group_by=operator", "operator", "sent", "delivered", "latency_p50_seconds", "unmatched") == [
        (None, 2, 0, None, 0), ("中国移动", 3, 1, 3, 1), ("中国联通", 1, 0, None, 0),
    ]  # fmt: skip
    assert groups("group_by=day,province", "day", "province", "sent") == [
        ("2026-11-23", None, 2), ("2026-11-23", "北京", 2), ("2026-11-23", "湖南", 2),
    ]  # fmt: skip
    assert groups("group_by=template_id&province=湖南&operator=中国移动", "template_id", "sent") == [
        (None, 0), ("540", 2),
    ]  # fmt: skip
    assert "allocation" not in client.get(path, headers=headers).text


def test_allocation_that_is_not_installed_is_said(
    asking: tuple[Runtime, FlaskClient, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client, headers = asking
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    carriers.allocation.cache_clear()
    path = "/api/v1/reports/delivery?from=2026-11-23&to=2026-11-24&group_by=operator"
    refused = client.get(path, headers=headers)
    assert (refused.status_code, "receiver[numbers]" in refused.text) == (422, True)


# --- The busiest ------------------------------------------------------------------------------------------------


def test_busiest_shows_what_pumping_looks_like(asking: tuple[Runtime, FlaskClient, dict[str, str]]) -> None:
    runtime, client, headers = asking
    sends = [
        *(make_send(mobile=f"1700000{n:04d}", task_id=f"p{n}", sent_at=NOON + timedelta(seconds=n)) for n in range(30)),
        *(make_send(mobile="13800138000", task_id=f"m{n}", sent_at=NOON + timedelta(minutes=n)) for n in range(25)),
        # Usual for this one: some three an hour, all week.
        *(
            make_send(mobile="13800138000", task_id=f"u{n}", sent_at=NOON - timedelta(minutes=20 * n))
            for n in range(504)
        ),
        make_send(mobile="17000000001", task_id=None, sent_at=NOON, reference="r", error_message="x"),
    ]
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOW))
    save_pushes(runtime.database, [make_push(mobile="17000000003", task_id="p3", second=9)])
    path = "/api/v1/reports/busiest?from=2026-11-23T12:00&to=2026-11-23T13:00"
    answer = client.get(path, headers=headers).json
    assert answer["items"] == [
        {"hour": "2026-11-23T12:00", "prefix": "1700000", "sent": 30, "delivered": 1, "verified": 0,
         "usual_per_hour": 0.0, "spike": True},
        {"hour": "2026-11-23T12:00", "prefix": "1380013", "sent": 26, "delivered": 0, "verified": 0,
         "usual_per_hour": 2.994, "spike": True},
    ]  # fmt: skip
    (busy,) = client.get(f"{path}&by=mobile&min_sent=26", headers=headers).json["items"]
    assert (busy["mobile"], busy["sent"], busy["spike"]) == ("13800138000", 26, True)
    plain = {"Authorization": make_key(runtime, Scope.REPORTS)}
    assert client.get(f"{path}&by=mobile", headers=plain).json["items"][0]["mobile"] == "138****8000"
    usual = client.get(path.replace("T12:00&", "T11:00&").replace("13:00", "12:00") + "&min_sent=2", headers=headers)
    assert [(busy["sent"], busy["spike"]) for busy in usual.json["items"]] == [(3, False)]
    # Sent to for the first time, but too few for anybody's alarm.
    few = [make_send(mobile="15900000000", task_id=f"f{n}", sent_at=NOON) for n in range(2)]
    runtime.database.write(lambda c: recording.record_sent(c, few, recorded_at=NOW))
    *_, rarest = client.get(f"{path}&by=mobile&min_sent=2", headers=headers).json["items"]
    assert (rarest["mobile"], rarest["sent"], rarest["spike"]) == ("15900000000", 2, False)


def test_spikes_of_the_last_hour_are_a_metric(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(metrics_allow=(ip_network("127.0.0.0/8"),))
    client = create_app(runtime).test_client()
    now = runtime.now()
    then = now - timedelta(minutes=1)
    sends = [make_send(mobile=f"1700000{n:04d}", task_id=f"p{n}", sent_at=then) for n in range(20)]
    runtime.database.write(lambda c: recording.record_sent(c, sends[1:], recorded_at=now))
    assert "receiver_send_spikes 0.0" in client.get("/metrics").text
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=now))
    assert "receiver_send_spikes 1.0" in client.get("/metrics").text
