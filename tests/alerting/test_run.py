"""`receiver run alarms`: each incident is told once, and its end; by one node of several; and without the database."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from receiver.alerting import history as past
from receiver.alerting import incidents as stored
from receiver.alerting import run
from receiver.alerting.follow import IncidentState
from receiver.alerting.history import IncidentSpan
from receiver.alerting.incidents import SharedIncidents
from receiver.alerting.node_state import open_node
from receiver.alerting.notifiers import Notifier
from receiver.alerting.rules import Alarm, Finding
from receiver.alerting.run import Watch
from receiver.core import Disk
from receiver.db import migrate
from receiver.db.tables import incident_tellings
from receiver.runtime import Runtime
from tests.alerting.test_notifiers import SIGNING_SECRET, TOKEN, Robot, robot
from tests.conftest import make_settings
from tests.harness.factories import NOON
from tests.harness.server import ServeProcess
from tests.support.test_signals import keep, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.alerting.run import AlarmRun

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
QUARANTINED, FIRING, RECOVERED = Alarm.PUSHES_QUARANTINED, IncidentState.FIRING, IncidentState.RECOVERED
WELL = {"/readyz": (200, b"{}"), "/metrics": (200, b"")}


@pytest.fixture
def told() -> Iterator[Robot]:
    with robot() as of_tests:
        yield of_tests


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, bytes]]:
    """What the node's own server answers."""
    answers = dict(WELL)
    monkeypatch.setattr(run, "ask_own_server", lambda _settings, path: answers[path])
    return answers


def target(of_tests: Robot) -> tuple[str, str, str]:
    return "url", of_tests.url, ""


def said(of_tests: Robot) -> list[tuple[str, str]]:
    return [(body["name"], body["state"]) for body in of_tests.bodies]


def quarantine(runtime: Runtime, count: int, at: datetime = NOON) -> None:
    keep(runtime, *(unreadable(at - timedelta(seconds=number)) for number in range(count)))


class Node:
    """One node's job, run at chosen moments."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self._runtime, self._patch = runtime, monkeypatch

    def look(self, minutes: float) -> AlarmRun:
        """Look once, so many minutes after noon."""
        self._patch.setattr(Runtime, "now", lambda _: NOON + minutes * MINUTE)
        return Watch(self._runtime).look()


@pytest.fixture
def make_node(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, server: dict[str, tuple[int, bytes]]
) -> Callable[..., Node]:
    return lambda **changes: Node(make_runtime(**changes), monkeypatch)


@pytest.fixture
def node(
    tmp_path: Path, told: Robot, monkeypatch: pytest.MonkeyPatch, server: dict[str, tuple[int, bytes]]
) -> Iterator[Node]:
    """A node for what needs no database in particular."""
    runtime = Runtime(make_settings(f"sqlite:///{tmp_path / 'receiver.db'}", tmp_path, alarm_urls=(target(told),)))
    migrate.upgrade(runtime.database)
    yield Node(runtime, monkeypatch)
    runtime.stop()


# --- Once, and once when it is over -----------------------------------------------------------------------


def test_incident_is_told_once_and_once_when_it_is_over(
    make_runtime: Callable[..., Runtime], make_node: Callable[..., Node], told: Robot
) -> None:
    node = make_node(alarm_urls=(target(told),))
    quarantine(make_runtime(), 6)
    for minute in range(4):
        look = node.look(minute)
        assert [finding.alarm for finding in look.findings] == [QUARANTINED]
        assert len(look.notifications) == (minute == 1)
    assert said(told) == [(QUARANTINED, FIRING)]
    assert told.bodies[0]["evidence"] == {"count": 6}
    for minute in range(61, 65):
        node.look(minute)
    assert said(told) == [(QUARANTINED, FIRING), (QUARANTINED, RECOVERED)]
    # The next one is another.
    quarantine(make_runtime(), 6, NOON + 180 * MINUTE)
    for minute in range(180, 183):
        node.look(minute)
    assert said(told)[2:] == [(QUARANTINED, FIRING)]


def test_messages_lead_to_the_documentation_of_the_console_where_its_address_is_known(
    make_runtime: Callable[..., Runtime],
) -> None:
    assert Watch(make_runtime()).place.docs_url is None
    known = Watch(make_runtime(public_url="https://sms.example.com")).place
    assert known.docs_url == "https://sms.example.com/console/docs"
    assert known.status_url == "https://sms.example.com/console/status"


def test_two_nodes_that_look_at_once_tell_it_once(
    make_runtime: Callable[..., Runtime], server: dict[str, tuple[int, bytes]], told: Robot, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    watches = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        watches.append(Watch(make_runtime(data_dir=tmp_path / name, alarm_urls=(target(told),))))
    quarantine(make_runtime(), 6)
    for minute in (0, 1, 2, 62, 63, 64):
        monkeypatch.setattr(Runtime, "now", lambda _, minute=minute: NOON + minute * MINUTE)
        with ThreadPoolExecutor(3) as threads:
            looks = list(threads.map(lambda watch: watch.look(), watches))
        assert not any(look.skipped for look in looks)
    assert said(told) == [(QUARANTINED, FIRING), (QUARANTINED, RECOVERED)]


def test_target_that_fails_is_tried_again_and_the_other_is_not_told_twice(
    make_runtime: Callable[..., Runtime], make_node: Callable[..., Node], told: Robot
) -> None:
    with robot() as failing:
        failing.answer(*[(200, {"errcode": 310000, "errmsg": "sign not match"})] * 2)
        node = make_node(alarm_urls=(("dingtalk", failing.url, SIGNING_SECRET), target(told)))
        quarantine(make_runtime(), 6)
        looks = [node.look(minute) for minute in range(5)]
        faults = [[one.fault for one in look.notifications] for look in looks]
        refused = "dingtalk at 127.0.0.1: refused: errcode 310000, sign not match"
        assert faults == [[], [refused, None], [refused], [None], []]
        assert len(failing.bodies) == 3
    assert said(told) == [(QUARANTINED, FIRING)]


def test_who_has_claimed_and_died_is_replaced_after_two_minutes(
    make_runtime: Callable[..., Runtime], make_node: Callable[..., Node], told: Robot
) -> None:
    quarantine(make_runtime(), 6)
    nobody = make_node()
    nobody.look(0)
    nobody.look(1)
    shared = SharedIncidents(make_runtime().database)
    kind, url, _ = target(told)
    (telling,) = shared.list_pending([Notifier(kind=kind, url=url).id], NOON + MINUTE)
    assert shared.claim(telling, NOON + MINUTE)
    node = make_node(alarm_urls=(target(told),))
    node.look(2)
    assert said(told) == []
    node.look(3)
    assert said(told) == [(QUARANTINED, FIRING)]
    assert not shared.claim(telling, NOON + DAY)


def test_open_incidents_are_listed_and_old_ones_are_dropped(
    make_runtime: Callable[..., Runtime], make_node: Callable[..., Node], told: Robot
) -> None:
    runtime, node = make_runtime(), make_node(alarm_urls=(target(told),))
    quarantine(runtime, 6)
    node.look(0)
    assert runtime.ask(stored.list_open) == []  # seen once
    node.look(1)
    (incident,) = runtime.ask(stored.list_open)
    assert (incident.alarm, incident.since) == (QUARANTINED, NOON)
    for minutes in (70, 71, 91 * DAY / MINUTE):
        node.look(minutes)
    assert runtime.ask(stored.list_open) == []
    assert runtime.ask(lambda c: c.scalar(sa.select(sa.func.count()).select_from(incident_tellings))) == 0


def test_history_has_what_was_over_of_all_nodes_and_of_each(
    make_runtime: Callable[..., Runtime], server: dict[str, tuple[int, bytes]], told: Robot, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runtime = make_runtime()
    quarantine(runtime, 6)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        watch = Watch(make_runtime(data_dir=tmp_path / name, alarm_urls=(target(told),)))
        watch.place = replace(watch.place, node=name)
        for minute in range(8):
            monkeypatch.setattr(Runtime, "now", lambda _, minute=minute: NOON + minute * MINUTE)
            server["/readyz"] = (503, b'{"detail": "full"}') if minute in (1, 2, 3) else WELL["/readyz"]
            watch.look()

    def history(**more: Any) -> list[tuple[str, Alarm, datetime, datetime | None]]:
        rows = runtime.ask(lambda c: past.list_history(c, limit=10, **more))
        return [(row.node, row.incident.alarm, row.incident.since, row.incident.recovered_at) for row in rows]

    assert history() == [
        ("b", Alarm.SERVER_DOWN, NOON + MINUTE, NOON + 5 * MINUTE),
        ("a", Alarm.SERVER_DOWN, NOON + MINUTE, NOON + 5 * MINUTE),
        ("", QUARANTINED, NOON, None),
    ]
    assert [node for node, *_ in history(before=3)] == ["a", ""]
    down = IncidentSpan(alarm=Alarm.SERVER_DOWN, since=NOON + MINUTE, until=NOON + 5 * MINUTE)
    begun = NOON + 5 * MINUTE
    open_one = IncidentSpan(alarm=QUARANTINED, since=NOON, until=None)
    assert runtime.ask(lambda c: past.list_spans(c, since=begun)) == ([open_one, down, down], begun)
    assert runtime.ask(lambda c: past.list_spans(c, since=begun + MINUTE))[0] == [open_one]
    monkeypatch.setattr(past, "_SPANS_MAX", 2)  # what ended before the last one read is not known
    assert runtime.ask(lambda c: past.list_spans(c, since=NOON)) == ([open_one, down], begun)
    of_each = [(Alarm.SERVER_DOWN, state) for state in (FIRING, FIRING, RECOVERED, RECOVERED)]
    assert sorted(said(told)) == [(QUARANTINED, FIRING), *of_each]  # and none again for the history


def test_history_of_some_accounts_is_without_the_others(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    shared = SharedIncidents(runtime.database)
    low = [Finding(alarm=Alarm.BALANCE_LOW, subject=name) for name in ("shop", "bank")]
    behind = [Finding(alarm=Alarm.WEBHOOKS_BEHIND, subject="erp")]
    found = {Alarm.BALANCE_LOW: low, Alarm.WEBHOOKS_BEHIND: behind, QUARANTINED: [Finding(alarm=QUARANTINED)]}
    shared.follow(found, NOON)
    assert runtime.ask(lambda c: past.list_history(c, limit=9)) == []  # seen once
    shared.follow(found, NOON + MINUTE)
    assert len(runtime.ask(lambda c: past.list_history(c, limit=9))) == 4
    seen = runtime.ask(lambda c: past.list_history(c, limit=9, accounts=("shop",)))
    assert {row.incident.key for row in seen} == {(Alarm.BALANCE_LOW, "shop"), (QUARANTINED, "")}
    spans, _ = runtime.ask(lambda c: past.list_spans(c, since=NOON, accounts=("shop",)))
    assert sorted(span.alarm for span in spans) == [Alarm.BALANCE_LOW, QUARANTINED]


def test_days_of_the_history_are_those_of_the_zone() -> None:
    def span(alarm: Alarm, since: datetime, until: datetime | None) -> IncidentSpan:
        return IncidentSpan(alarm=alarm, since=since, until=until)

    hour = 60 * MINUTE
    spans = [
        span(QUARANTINED, NOON - 3 * DAY + 11 * hour, NOON - 3 * DAY + 13 * hour),  # over midnight in Shanghai
        span(Alarm.SERVER_DOWN, NOON - 2 * DAY, NOON - 2 * DAY + MINUTE),
        span(QUARANTINED, NOON - 9 * DAY, NOON - 8 * DAY),
        span(QUARANTINED, NOON, None),
    ]
    days = past.count_by_day(spans, since=NOON - 4 * DAY, now=NOON, zone=ZoneInfo("Asia/Shanghai"))
    assert [(day.day.day, day.incidents, day.critical) for day in days] == [
        (19, 0, False), (20, 1, False), (21, 2, True), (22, 0, False), (23, 1, False),
    ]  # fmt: skip


# --- One node's own, without the database ------------------------------------------------------------------


def test_database_that_is_away_is_told_once_and_its_return(
    database_url: str, tmp_path: Path, told: Robot, server: dict[str, tuple[int, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def node(url: str) -> Node:
        return Node(Runtime(make_settings(url, tmp_path, alarm_urls=(target(told),))), monkeypatch)

    away = "postgresql+psycopg://postgres@127.0.0.1:1/gone"
    looks = [node(away).look(minute) for minute in range(3)]
    assert [look.findings[0].alarm for look in looks] == [Alarm.DATABASE_AWAY] * 3
    assert said(told) == [(Alarm.DATABASE_AWAY, FIRING)]
    assert told.bodies[0]["severity"] == "critical"
    back = Runtime(make_settings(database_url, tmp_path))
    migrate.upgrade(back.database)
    back.stop()
    for minute in range(3, 6):
        assert node(database_url).look(minute).findings == ()
    assert said(told) == [(Alarm.DATABASE_AWAY, FIRING), (Alarm.DATABASE_AWAY, RECOVERED)]


def test_what_the_database_knew_outlasts_its_absence(
    make_runtime: Callable[..., Runtime], make_node: Callable[..., Node], told: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(alarm_urls=(target(told),))
    quarantine(make_runtime(), 6)
    node.look(0)
    node.look(1)
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "_find_stored", lambda *_: (None, "the database is unavailable"))
        node.look(2)
        node.look(3)
    node.look(4)
    node.look(5)
    assert said(told) == [(QUARANTINED, FIRING), (Alarm.DATABASE_AWAY, FIRING), (Alarm.DATABASE_AWAY, RECOVERED)]


def test_server_that_is_down_or_cannot_keep_pushes_is_told(
    node: Node, server: dict[str, tuple[int, bytes]], told: Robot
) -> None:
    server["/readyz"] = (503, b'{"detail": "the database is away; the spool is full"}')
    node.look(0)
    node.look(1)
    assert "the database is away; the spool is full" in told.bodies[0]["text"]
    server["/readyz"] = (500, b"")
    (finding,) = node.look(2).findings
    assert finding.evidence == {"fault": "/readyz answers with HTTP status 500"}


def test_refusals_are_counted_from_look_to_look(node: Node, server: dict[str, tuple[int, bytes]], told: Robot) -> None:
    def expose(secret: int) -> None:
        text = (
            f'# TYPE receiver_push_refusals_total counter\nreceiver_push_refusals_total{{reason="secret"}} {secret}\n'
        )
        server["/metrics"] = (200, text.encode())

    found = []
    for minute, total in [(0, 1000), (1, 1015), (2, 6), (3, 6), (14, 6), (18, 6), (19, 6)]:
        expose(total)
        found.append([dict(finding.evidence) for finding in node.look(minute).findings])
    # 15, then 6 after a restart; a quarter of an hour later they no longer count.
    assert found == [[], [], [{"count": 21}], [{"count": 21}], [{"count": 21}], [], []]
    assert said(told) == [("pushes_refused", FIRING), ("pushes_refused", RECOVERED)]
    assert told.bodies[0]["subject"] == "secret"
    server["/metrics"] = (403, b"")
    assert node.look(20).findings == ()


def test_node_that_can_keep_nothing_tells_at_every_look(
    node: Node, server: dict[str, tuple[int, bytes]], told: Robot, tmp_path: Path
) -> None:
    (tmp_path / "alarms.json").mkdir()  # no file can take its place
    server["/readyz"] = (503, b'{"detail": "the disk is full"}')
    node.look(0)
    node.look(1)
    assert said(told) == [(Alarm.SERVER_DOWN, FIRING)] * 2


def test_damaged_file_is_begun_anew(
    node: Node, server: dict[str, tuple[int, bytes]], told: Robot, tmp_path: Path
) -> None:
    (tmp_path / "alarms.json").write_text('{"incidents": [{}]')
    server["/readyz"] = (503, b"[]")
    node.look(0)
    node.look(1)
    assert said(told) == [(Alarm.SERVER_DOWN, FIRING)]


def test_second_look_at_a_node_leaves_it_to_the_first(node: Node, tmp_path: Path) -> None:
    with open_node(tmp_path) as held:
        assert held is not None
        assert node.look(0).skipped
    assert not node.look(0).skipped


def test_old_and_failed_backups_are_told_by_the_node_that_made_them(node: Node, told: Robot, tmp_path: Path) -> None:
    for name, hours in (("backup.made", 37), ("backup.sh.made", 5), ("backup.sh.failed", 4)):
        (tmp_path / name).touch()
        at = (NOON - timedelta(hours=hours)).timestamp()
        os.utime(tmp_path / name, (at, at))
    node.look(0)
    node.look(1)
    assert [(body["name"], body["subject"]) for body in told.bodies] == [
        (Alarm.BACKUP_OLD, "backup.sh"), (Alarm.BACKUP_OLD, "receiver backup"),
    ]  # fmt: skip
    assert "The last run of `backup.sh` failed" in told.bodies[0]["text"]
    assert (
        "The last backup by `receiver backup` was made at 2026-11-21T15:00:00Z; one is due every day."
        in told.bodies[1]["text"]
    )


def test_disk_that_fills_is_told(node: Node, told: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_disk", lambda _: Disk(free_bytes=9 * 10**8, total_bytes=10**12))
    node.look(0)
    node.look(1)
    assert said(told) == [(Alarm.DISK_NEARLY_FULL, FIRING)]
    assert "has 0.9 GB left (0.1 %)" in told.bodies[0]["text"]


def test_heartbeat_is_given_after_each_look_whatever_it_finds(
    make_node: Callable[..., Node], server: dict[str, tuple[int, bytes]], told: Robot, tmp_path: Path
) -> None:
    node = make_node(alarm_urls=(target(told),), alarm_heartbeat_url=f"http://127.0.0.1:{told.port}/beat/{TOKEN}")
    server["/readyz"] = (503, b"[]")
    node.look(0)
    assert told.paths == [f"/beat/{TOKEN}"]
    node.look(1)
    assert said(told) == [(Alarm.SERVER_DOWN, FIRING)]
    assert told.paths[1:] == [f"/robot/send?access_token={TOKEN}", f"/beat/{TOKEN}"]
    with open_node(tmp_path):
        node.look(2)
    assert len(told.paths) == 3  # no look, no heartbeat


def test_heartbeat_that_is_not_taken_is_logged_without_its_address_and_fails_nothing(
    make_node: Callable[..., Node], told: Robot, caplog: pytest.LogCaptureFixture
) -> None:
    told.answer((500, {}))
    look = make_node(alarm_heartbeat_url=f"http://127.0.0.1:{told.port}/beat/{TOKEN}").look(0)
    assert look.notifications == ()
    assert "127.0.0.1: answered with HTTP status 500" in caplog.text
    gone = make_node(alarm_heartbeat_url=f"http://127.0.0.1:1/beat/{TOKEN}").look(0)
    assert gone.notifications == ()
    assert "127.0.0.1: cannot be reached" in caplog.text
    assert TOKEN not in caplog.text


# --- As a command -----------------------------------------------------------------------------------------


def test_command_tells_tests_and_dry_runs(tmp_path: Path, told: Robot) -> None:
    # The machine's own disk may be nearly full, which would be a finding too.
    with_room = "import shutil; shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10**11, 4 * 10**10, 6 * 10**10)"
    (tmp_path / "at_start").mkdir()
    (tmp_path / "at_start" / "sitecustomize.py").write_text(with_room)
    with robot() as other:
        process = ServeProcess(
            tmp_path,
            environment={
                "PYTHONPATH": str(tmp_path / "at_start"),
                "RECEIVER_ALARM_URLS": f"dingtalk:{told.url}#{SIGNING_SECRET},url:{other.url}",
                "RECEIVER_ALARM_LANGUAGE": "zh-CN",
                "RECEIVER_ALARM_REFUSALS": "2",
            },
        )
        with process:
            first = process.run("run", "alarms")
            assert (first.returncode, first.stdout) == (0, "no problems found\n"), first.stderr
            for _ in range(3):
                assert process.request("POST", "/push/wrong-secret", b"mobile=1").status == 404
            second = json.loads(process.run("run", "alarms", "--json").stdout)
            assert [(one["alarm"], one["subject"]) for one in second["findings"]] == [("pushes_refused", "secret")]
            assert second["notifications"] == []  # seen once
        _let_pass(tmp_path, MINUTE)
        dry = process.run("run", "alarms", "--dry-run")
        assert "[receiver] 告警：服务无法接收推送" in dry.stdout
        assert told.bodies == []

        other.answer((500, {}), (500, {}))
        tested = process.run("run", "alarms", "--test")
        assert tested.returncode == 1
        assert tested.stdout == "notified dingtalk at 127.0.0.1: ok\n"
        assert tested.stderr == "receiver: notification failed: url at 127.0.0.1: answered with HTTP status 500\n"
        assert "测试" in told.bodies[0]["text"]["content"]

        process.run("run", "alarms")
        _let_pass(tmp_path, MINUTE)
        failed = process.run("run", "alarms")
        assert failed.returncode == 1
        assert failed.stdout == "problem: server_down\nnotified dingtalk at 127.0.0.1: server_down firing\n"
        shown = tested.stdout + tested.stderr + failed.stdout + failed.stderr
    assert TOKEN not in shown
    assert SIGNING_SECRET not in shown


def _let_pass(data_dir: Path, time: timedelta) -> None:
    """Make a node's incidents older, as if so much time had passed."""
    path = data_dir / "alarms.json"
    saved = json.loads(path.read_text())
    for row in saved["incidents"]:
        seen_at = datetime.fromisoformat(row["incident"]["seen_at"])
        row["incident"]["seen_at"] = (seen_at - time).isoformat()
    path.write_text(json.dumps(saved))


def test_test_needs_somebody_to_tell(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    done = process.run("run", "alarms", "--test")
    assert done.returncode == 1
    assert "no alarm URLs; set RECEIVER_ALARM_URLS" in done.stderr
    assert process.run("run", "alarms", "--test", "--dry-run").returncode == 2
