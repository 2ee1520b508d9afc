"""What is wrong, by figures of one moment; and what becomes of it from look to look."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from receiver.alerting.follow import Incident, IncidentState, follow, follow_all, pending_notifications
from receiver.alerting.messages import MessageContext, write_incident
from receiver.alerting.node_state import count_rises
from receiver.alerting.rules import (
    Alarm,
    BalanceLeft,
    Finding,
    HealthFigures,
    PushFlow,
    Rate,
    SetAsideRows,
    StoredFigures,
    Thresholds,
    judge_all,
)
from receiver.alerting.run import read_refusals, read_replica_lag
from receiver.alerting.texts import title_of
from receiver.config import ALARM_LANGUAGES
from receiver.core import Disk
from receiver.docs import library
from receiver.maintenance.backup_notes import Noted
from tests.harness.factories import NOON

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USUAL = Rate(delivered=9_500, settled=10_000)
STORED = StoredFigures(
    flow=PushFlow(last_push_at=NOON - SECOND),
    quarantined=0,
    projection_lag_seconds=0.0,
    recent=Rate(delivered=95, settled=100),
    usual=USUAL,
)
WELL = HealthFigures(
    now=NOON,
    server_fault=None,
    database_fault=None,
    spool_bytes=0,
    spool_max_bytes=1000,
    spool_oldest_seconds=0.0,
    refusals={"secret": 0},
    stored=STORED,
    disk=Disk(free_bytes=10**12, total_bytes=2 * 10**12),
    certificate_days_left=60.0,
)
LIMITS = Thresholds(balance_low={"low": 100}.get)


def wrong(figures: HealthFigures) -> set[tuple[Alarm, str]]:
    return {finding.key for found in judge_all(figures, LIMITS).values() for finding in found}


def kept(*, flow: PushFlow = STORED.flow, **changes: Any) -> HealthFigures:
    return replace(WELL, stored=replace(STORED, flow=flow, **changes))


def backed_up(made: timedelta | None = None, failed: timedelta | None = None) -> HealthFigures:
    made_at, failed_at = (None if age is None else NOON - age for age in (made, failed))
    noted = Noted(made_at=made_at, failed_at=failed_at)
    return replace(WELL, backups={"receiver backup": noted})


def test_nothing_is_wrong_where_all_is_well() -> None:
    assert wrong(WELL) == set()
    assert set(judge_all(WELL, LIMITS)) == set(Alarm) - {Alarm.REPLICA_BEHIND}  # there is none


@pytest.mark.parametrize(
    ("figures", "alarm", "subject"),
    [
        (replace(WELL, server_fault="nothing answers"), Alarm.SERVER_DOWN, ""),
        (kept(set_aside={"receipts": SetAsideRows(count=1, ids=("17",))}), Alarm.ROWS_SET_ASIDE, "receipts"),
        (replace(WELL, database_fault="it is away"), Alarm.DATABASE_AWAY, ""),
        (replace(WELL, spool_bytes=1, spool_oldest_seconds=301.0), Alarm.SPOOL_GROWING, ""),
        (replace(WELL, spool_bytes=501, spool_oldest_seconds=1.0), Alarm.SPOOL_GROWING, ""),
        (replace(WELL, refusals={"secret": 21, "size": 20}), Alarm.PUSHES_REFUSED, "secret"),
        (kept(projection_lag_seconds=61.0), Alarm.PROJECTION_BEHIND, ""),
        (kept(webhook_oldest={"shop": NOON - 16 * MINUTE, "old": NOON}), Alarm.WEBHOOKS_BEHIND, "shop"),
        (
            kept(flow=PushFlow(last_push_at=NOON - HOUR, unanswered_since=NOON - 10 * MINUTE - SECOND)),
            Alarm.PLATFORM_SILENT,
            "",
        ),
        (kept(flow=PushFlow(last_push_at=None, unanswered_since=NOON - 11 * MINUTE)), Alarm.PLATFORM_SILENT, ""),
        (kept(flow=PushFlow(last_push_at=NOON - HOUR, missed_pushes=20)), Alarm.PLATFORM_SILENT, ""),
        (kept(quarantined=6), Alarm.PUSHES_QUARANTINED, ""),
        (kept(recent=Rate(delivered=83, settled=100)), Alarm.DELIVERY_FALLEN, ""),
        (kept(balances={"low": BalanceLeft(left=99, read_at=NOON, asked=True)}), Alarm.BALANCE_LOW, "low"),
        (kept(balances={"x": BalanceLeft(left=9, read_at=NOON - HOUR - SECOND, asked=True)}), Alarm.BALANCE_STALE, "x"),
        (replace(WELL, certificate_days_left=13.9), Alarm.CERTIFICATE_ENDS_SOON, ""),
        (replace(WELL, replica_lag_seconds=61.0), Alarm.REPLICA_BEHIND, ""),
        (replace(WELL, replica_lag_seconds=inf), Alarm.REPLICA_BEHIND, ""),
        (replace(WELL, disk=Disk(free_bytes=9 * 10**8, total_bytes=10**10)), Alarm.DISK_NEARLY_FULL, ""),
        (backed_up(made=36 * HOUR + SECOND), Alarm.BACKUP_OLD, "receiver backup"),
        (backed_up(made=-36 * HOUR - SECOND), Alarm.BACKUP_OLD, "receiver backup"),  # by a clock that was ahead
        (backed_up(made=2 * HOUR, failed=HOUR), Alarm.BACKUP_OLD, "receiver backup"),
        (backed_up(failed=HOUR), Alarm.BACKUP_OLD, "receiver backup"),
        (kept(unshipped_since=NOON - 15 * MINUTE - SECOND), Alarm.AUDIT_SYSLOG_LAG, ""),
    ],
)
def test_each_alarm_is_found_by_its_own_figures_alone(figures: HealthFigures, alarm: Alarm, subject: str) -> None:
    assert wrong(figures) == {(alarm, subject)}


def test_certificate_about_to_end_is_one_alarm_and_the_earlier_one_of_it_is_not_over() -> None:
    for left in (2.9, 0):
        judged = judge_all(replace(WELL, certificate_days_left=left), LIMITS)
        assert [finding.alarm for found in judged.values() for finding in found] == [Alarm.CERTIFICATE_ENDS_NOW]
        assert Alarm.CERTIFICATE_ENDS_SOON not in judged
    assert Alarm.CERTIFICATE_ENDS_SOON in judge_all(replace(WELL, certificate_days_left=3.0), LIMITS)


@pytest.mark.parametrize("language", ALARM_LANGUAGES)
def test_certificate_that_is_not_accepted_is_told_with_the_reason_and_no_days(language: str) -> None:
    fault = "unable to get local issuer certificate"
    judged = judge_all(replace(WELL, certificate_days_left=0, certificate_fault=fault), LIMITS)
    ((finding,),) = [found for found in judged.values() if found]
    incident = Incident(
        alarm=finding.alarm, subject=finding.subject, since=NOON, evidence=finding.evidence, seen_at=NOON
    )
    place = MessageContext(language=language, zone=ZoneInfo("Asia/Shanghai"), node="a", status_url="http://x")
    text = write_incident(incident, IncidentState.FIRING, place).text
    assert fault in text
    assert not any(days in text for days in (" 0 more days", " 0 天"))
    assert title_of(incident, language) in text


@pytest.mark.parametrize(
    ("language", "says"),
    [("en", "At the present rate the spool is full in 2.5 hours."), ("zh-CN", "剩余容量还可用约 2.5 小时。")],
)
def test_spool_that_is_used_is_told_with_the_time_that_is_left(language: str, says: str) -> None:
    figures = replace(WELL, database_fault="it is away", spool_bytes=501, spool_lasts_seconds=9_000.0)
    for found in filter(None, judge_all(figures, LIMITS).values()):
        incident = Incident(
            alarm=found[0].alarm, subject="", since=NOON, evidence=found[0].evidence, seen_at=NOON, said_at=NOON
        )
        assert says in write_incident(incident, IncidentState.FIRING, place(language)).text
        assert (
            says
            not in write_incident(replace(incident, recovered_at=NOON), IncidentState.RECOVERED, place(language)).text
        )
        unknown = judge_all(replace(figures, spool_lasts_seconds=None), LIMITS)[found[0].alarm][0]
        assert "lasts_hours" not in unknown.evidence


@pytest.mark.parametrize(
    "figures",
    [
        replace(WELL, spool_bytes=500, spool_oldest_seconds=300.0),
        replace(WELL, refusals={"secret": 20}),
        replace(kept(projection_lag_seconds=60.0), replica_lag_seconds=60.0),
        kept(webhook_oldest={"shop": NOON - 15 * MINUTE}),
        kept(unshipped_since=NOON - 15 * MINUTE),
        backed_up(made=36 * HOUR),
        backed_up(made=HOUR, failed=2 * HOUR),
        # A night: the last push is hours ago, nobody was sent anything, and last week's nights were quiet too.
        kept(flow=PushFlow(last_push_at=NOON - 8 * HOUR, missed_pushes=19)),
        # Sends wait, but for no longer than is usual.
        kept(flow=PushFlow(last_push_at=NOON - 8 * HOUR, unanswered_since=NOON - 10 * MINUTE)),
        kept(quarantined=5),
        # Two in three of sixty, where four in five are usual: chance may do that.
        kept(recent=Rate(delivered=40, settled=60), usual=Rate(delivered=8_000, settled=10_000)),
        # Far fewer than usual, but of hardly any.
        kept(recent=Rate(delivered=0, settled=49)),
        kept(recent=Rate(delivered=0, settled=100), usual=Rate(delivered=499, settled=499)),
        # Certain, and of no weight.
        kept(recent=Rate(delivered=88_000, settled=100_000)),
        kept(recent=Rate(), usual=Rate()),
        kept(
            balances={
                "low": BalanceLeft(left=100, read_at=NOON - HOUR, asked=True),
                "other": BalanceLeft(left=0, read_at=NOON - DAY, asked=False),
            }
        ),
        replace(WELL, certificate_days_left=14.0),
    ],
)
def test_what_is_within_its_limits_is_no_alarm(figures: HealthFigures) -> None:
    assert wrong(figures) == set()


def test_fall_of_a_perfect_delivery_is_found() -> None:
    assert wrong(kept(recent=Rate(delivered=44, settled=50), usual=Rate(delivered=500, settled=500))) == {
        (Alarm.DELIVERY_FALLEN, "")
    }


def test_limits_are_those_that_were_chosen() -> None:
    strict = Thresholds(silent_after=MINUTE, refusals=0, quarantined=0, delivery_fall=0.001)
    figures = replace(
        kept(
            flow=PushFlow(unanswered_since=NOON - 2 * MINUTE),
            quarantined=1,
            recent=Rate(delivered=9_000, settled=10_000),
        ),
        refusals={"size": 1},
    )
    assert {alarm for alarm, found in judge_all(figures, strict).items() if found} == {
        Alarm.PLATFORM_SILENT,
        Alarm.PUSHES_QUARANTINED,
        Alarm.DELIVERY_FALLEN,
        Alarm.PUSHES_REFUSED,
    }


def test_what_cannot_be_known_is_judged_by_nobody() -> None:
    blind = replace(
        WELL, database_fault="away", server_fault="away", stored=None, refusals=None, certificate_days_left=None
    )
    of_this_machine = {Alarm.SPOOL_GROWING, Alarm.DISK_NEARLY_FULL, Alarm.BACKUP_OLD}
    assert set(judge_all(blind, LIMITS)) == {Alarm.SERVER_DOWN, Alarm.DATABASE_AWAY} | of_this_machine


def test_pushes_in_the_spool_have_come() -> None:
    silent = kept(flow=PushFlow(last_push_at=NOON - HOUR, unanswered_since=NOON - HOUR))
    assert Alarm.PLATFORM_SILENT not in judge_all(replace(silent, spool_bytes=1), LIMITS)


# --- From look to look ----------------------------------------------------------------------------------

FINDING = Finding(alarm=Alarm.PUSHES_QUARANTINED, evidence={"count": 6})


def followed(*looks: Finding | None, every: timedelta = MINUTE) -> list[Incident | None]:
    """What an incident is after each look, a minute apart."""
    states: list[Incident | None] = []
    for number, finding in enumerate(looks):
        incident = states[-1] if states else None
        states.append(follow(incident, finding, NOON + number * every))
    return states


def test_incident_is_said_at_its_second_look_and_over_at_the_second_without_it() -> None:
    first, second, gone, over = (state for state in followed(FINDING, FINDING, None, None) if state)
    assert (first.said_at, second.said_at) == (None, NOON + MINUTE)
    assert second.since == NOON
    assert (gone.recovered_at, over.recovered_at) == (None, NOON + 3 * MINUTE)


def test_what_is_seen_once_is_forgotten() -> None:
    assert followed(FINDING, None)[-1] is None


def test_flapping_is_one_incident() -> None:
    states = followed(FINDING, FINDING, None, FINDING, None, FINDING, None)
    assert states[-1] is not None
    assert (states[-1].since, states[-1].said_at, states[-1].recovered_at) == (NOON, NOON + MINUTE, None)


def test_looks_of_several_nodes_in_the_same_minute_are_one() -> None:
    at_once = followed(FINDING, FINDING, FINDING, every=SECOND)
    assert at_once[-1] is not None
    assert at_once[-1].said_at is None


def test_incident_keeps_its_beginning_and_has_the_newest_evidence() -> None:
    worse = replace(FINDING, since=NOON + HOUR, evidence={"count": 60})
    last = followed(replace(FINDING, since=NOON - HOUR), worse)[-1]
    assert last is not None
    assert (last.since, last.evidence) == (NOON - HOUR, {"count": 60})


def test_what_was_not_judged_stays_as_it_is() -> None:
    states = followed(FINDING, FINDING)
    open_ones = [state for state in states[-1:] if state]
    assert list(follow_all(open_ones, {Alarm.DATABASE_AWAY: []}, NOON + DAY)) == []
    ((key, before, after),) = follow_all(open_ones, {Alarm.PUSHES_QUARANTINED: []}, NOON + DAY)
    assert (key, before) == (FINDING.key, open_ones[0])
    assert after == replace(open_ones[0], clear_at=NOON + DAY)


# --- Who is told ----------------------------------------------------------------------------------------


def test_each_target_is_told_of_both_ends_once() -> None:
    _, said, gone, over = (state for state in followed(FINDING, FINDING, None, None) if state)

    def untold(
        incident: Incident, *told: tuple[str, IncidentState], later: timedelta = HOUR
    ) -> list[tuple[str, IncidentState]]:
        tellings = pending_notifications("1", incident, told, ["a", "b"], NOON + later)
        return [(telling.target, telling.state) for telling in tellings]

    firing, recovered = IncidentState.FIRING, IncidentState.RECOVERED
    assert untold(said) == [("a", firing), ("b", firing)]
    assert untold(said, ("a", firing)) == [("b", firing)]
    assert untold(gone, ("a", firing), ("b", firing)) == []
    # Who never heard of it does not hear that it is over.
    assert untold(over, ("a", firing)) == [("a", recovered)]
    assert untold(over, ("a", firing), ("a", recovered)) == []
    assert untold(over, ("a", firing), later=2 * DAY) == []
    assert untold(replace(said, said_at=None)) == []


# --- Words ----------------------------------------------------------------------------------------------

EVIDENCE: dict[str, Any] = {

    "fault": "nothing answers on 127.0.0.1:8000", "bytes": 12, "percent": 51, "minutes": 7, "count": 21,
    "usual": 95.0, "messages": 100, "left": 9, "low": 10, "hours": 2, "days": 13, "seconds": 61, "ids": "17",
    "free_gb": 0.9, "made_at": "x",
}  # fmt: skip


def place(language: str) -> MessageContext:
    return MessageContext(
        language=language,
        zone=ZoneInfo("Asia/Shanghai"),
        node="node-1",
        status_url="https://sms.example.com/console/status",
    )


@pytest.mark.parametrize("language", ALARM_LANGUAGES)
@pytest.mark.parametrize("alarm", list(Alarm))
def test_every_alarm_has_its_words(alarm: Alarm, language: str) -> None:
    incident = Incident(alarm=alarm, subject="secret", since=NOON, evidence=EVIDENCE, seen_at=NOON, said_at=NOON)
    lines = write_incident(incident, IncidentState.FIRING, place(language)).text.splitlines()
    assert len(lines) == 6
    assert lines[2].endswith("2026-11-23 12:00:00 (Asia/Shanghai)")
    assert f"receiver docs {alarm.heading}" in lines[4]
    assert lines[4].endswith("https://sms.example.com/console/status")


def test_message_leads_into_the_console_where_that_answers() -> None:
    known = replace(place("en"), docs_url="https://sms.example.com/console/docs")

    def details(alarm: Alarm) -> str:
        incident = Incident(alarm=alarm, subject="", since=NOON, evidence=EVIDENCE, seen_at=NOON, said_at=NOON)
        return write_incident(incident, IncidentState.FIRING, known).text.splitlines()[4]

    section = library().find_alarm("DatabaseAway")
    assert section.anchor == "databaseaway"
    assert f"https://sms.example.com/console/docs/{section}, " in details(Alarm.DATABASE_AWAY)
    assert "receiver docs ServerDown, " in details(Alarm.SERVER_DOWN)


def test_message_is_whole_in_both_languages() -> None:
    incident = Incident(
        alarm=Alarm.PUSHES_REFUSED, subject="secret", since=NOON, evidence={"count": 21}, seen_at=NOON, said_at=NOON
    )
    assert write_incident(incident, IncidentState.FIRING, place("en")).text.splitlines()[:3] == [
        "[receiver] WARNING: pushes are refused: wrong secret",
        "21 pushes were refused in the last 15 minutes: wrong secret.",
        "Since: 2026-11-23 12:00:00 (Asia/Shanghai)",
    ]
    over = replace(incident, recovered_at=NOON + HOUR)
    message = write_incident(over, IncidentState.RECOVERED, place("zh-CN"))
    assert message.text.splitlines() == [
        "[receiver] 已恢复：推送被拒绝：密钥错误",
        "最近 15 分钟有 21 条推送被拒绝：密钥错误。",
        "从 2026-11-23 12:00:00 (Asia/Shanghai) 持续到 2026-11-23 13:00:00 (Asia/Shanghai)。",
        "查看：receiver docs PushesRefused，https://sms.example.com/console/status",
        "节点：node-1",
    ]
    assert message.fields == {
        "name": "pushes_refused", "subject": "secret", "state": "recovered", "severity": "warning",
        "since": "2026-11-23T04:00:00+00:00", "recovered_at": "2026-11-23T05:00:00+00:00",
        "evidence": {"count": 21}, "node": "node-1",
    }  # fmt: skip


@pytest.mark.parametrize("language", ALARM_LANGUAGES)
def test_silence_without_recorded_sends_tells_of_last_week(language: str) -> None:
    figures = kept(flow=PushFlow(last_push_at=NOON - HOUR, missed_pushes=432))
    (finding,) = judge_all(figures, LIMITS)[Alarm.PLATFORM_SILENT]
    incident = follow(None, finding, NOON)
    assert incident
    assert incident.since == NOON - HOUR
    assert " 432 " in write_incident(incident, IncidentState.FIRING, place(language)).text


# --- Refused pushes --------------------------------------------------------------------------------------


def test_refusals_are_added_up_over_a_restart_of_the_server() -> None:
    looks = [{"secret": 100}, {"secret": 110}, {"secret": 3, "size": 2}, {"secret": 5, "size": 2}]
    assert count_rises(looks) == {"secret": 10 + 3 + 2, "size": 2}
    assert count_rises(looks[:1]) == {}


def test_refusals_are_read_from_what_the_server_exposes() -> None:
    exposed = (
        "# HELP receiver_push_refusals_total Pushes refused, nothing stored.\n"
        "# TYPE receiver_push_refusals_total counter\n"
        'receiver_push_refusals_total{reason="secret"} 3.0\n'
        'receiver_push_refusals_total{reason="size"} 1.0\n'
        "# TYPE receiver_push_refusals_created gauge\n"
        'receiver_push_refusals_created{reason="secret"} 1.7e+09\n'
        "# TYPE receiver_pushes_total counter\n"
        'receiver_pushes_total{outcome="accepted"} 9.0\n'
    )
    assert read_refusals(exposed) == {"secret": 3, "size": 1}


def test_lag_of_the_replica_is_read_where_the_server_tells_it() -> None:
    kind = "# TYPE receiver_replica_lag_seconds gauge\n"
    assert read_replica_lag(f"{kind}receiver_replica_lag_seconds 61.5\n") == 61.5
    assert read_replica_lag(f"{kind}receiver_replica_lag_seconds +Inf\n") == inf  # it is away
    assert read_replica_lag("") is None
