"""Who has to act where receipts are missing: by the alarms, and by what alone says too little for an alarm."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.alerting.diagnosis import DiagnosisReason, Judgement, Situation, Verdict, judge
from receiver.alerting.rules import Alarm, Finding

FINE: dict[str, Any] = {"findings": (), "recent_refusals": {}, "platform_reachable": None, "untried": False}
NEVER = {"untried": True}
SILENT = Finding(alarm=Alarm.PLATFORM_SILENT)


def found(*alarms: Alarm) -> dict[str, Any]:
    return {"findings": tuple(Finding(alarm=alarm) for alarm in alarms)}


@pytest.mark.parametrize(
    ("changes", "verdict", "reasons"),
    [
        ({}, Verdict.FINE, ()),
        ({"platform_reachable": False}, Verdict.FINE, ()),
        (NEVER, Verdict.UNTRIED, ()),
        (NEVER | found(Alarm.BACKUP_OLD), Verdict.UNTRIED, ()),
        (NEVER | found(Alarm.PLATFORM_SILENT), Verdict.UNTRIED, ()),  # the way in is not set up yet
        (found(Alarm.PLATFORM_SILENT), Verdict.PLATFORM, ()),
        (found(Alarm.PLATFORM_SILENT) | {"platform_reachable": True}, Verdict.PLATFORM, ()),
        (
            found(Alarm.PLATFORM_SILENT) | {"platform_reachable": False},
            Verdict.NETWORK,
            (DiagnosisReason.PLATFORM_UNREACHABLE,),
        ),
        (found(Alarm.DATABASE_AWAY), Verdict.US, ()),
        (found(Alarm.SPOOL_GROWING), Verdict.US, ()),
        (found(Alarm.PROJECTION_BEHIND), Verdict.US, ()),
        (found(Alarm.DISK_NEARLY_FULL), Verdict.US, ()),
        (found(Alarm.CERTIFICATE_ENDS_NOW), Verdict.US, ()),
        # Pushes arrive and are saved, but it is not true that all is well.
        (found(Alarm.CERTIFICATE_ENDS_SOON), Verdict.ATTENTION, ()),
        (found(Alarm.PUSHES_REFUSED), Verdict.ATTENTION, ()),
        (found(Alarm.BALANCE_LOW), Verdict.ATTENTION, ()),
        # What another node found, or what this one no longer finds: as the alarm says until it is over.
        ({"open_alarms": [Alarm.BALANCE_LOW]}, Verdict.ATTENTION, ()),
        ({"open_alarms": [Alarm.PLATFORM_SILENT]}, Verdict.PLATFORM, ()),
        ({"open_alarms": [Alarm.SERVER_DOWN]}, Verdict.US, ()),
        # A stranger's, while no push is missing; the platform's, where one is.
        ({"recent_refusals": {"secret": 1}}, Verdict.FINE, ()),
        (NEVER | {"recent_refusals": {"secret": 1}}, Verdict.US, (DiagnosisReason.REFUSED_SECRET,)),
        (
            found(Alarm.PLATFORM_SILENT) | {"recent_refusals": {"secret": 1}},
            Verdict.US,
            (DiagnosisReason.REFUSED_SECRET,),
        ),
        (NEVER | {"recent_refusals": {"secret": 0, "busy": 3}}, Verdict.UNTRIED, ()),
        (
            NEVER | {"recent_refusals": {"size": 1, "length": 2, "address": 3}},
            Verdict.US,
            (DiagnosisReason.REFUSED_ADDRESS, DiagnosisReason.REFUSED_LENGTH, DiagnosisReason.REFUSED_SIZE),
        ),
        ({"redirected": True}, Verdict.US, (DiagnosisReason.REDIRECTED,)),
    ],
)
def test_verdict_follows_from_the_situation(
    changes: dict[str, Any], verdict: Verdict, reasons: tuple[DiagnosisReason, ...]
) -> None:
    judgement = judge(Situation(**FINE | changes))
    assert (judgement.verdict, judgement.reasons) == (verdict, reasons)


@pytest.mark.parametrize("alarm", Alarm)
def test_no_alarm_leaves_all_well(alarm: Alarm) -> None:
    assert judge(Situation(**FINE | found(alarm))).verdict is not Verdict.FINE


def test_our_own_faults_are_named_first() -> None:
    situation = Situation(**FINE | {"findings": (SILENT, Finding(alarm=Alarm.DISK_NEARLY_FULL))})
    own, theirs = Finding(alarm=Alarm.DISK_NEARLY_FULL), SILENT
    assert judge(situation) == Judgement(verdict=Verdict.US, findings=(own, theirs))
