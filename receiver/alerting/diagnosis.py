"""Diagnosis: whether the platform, the network or this receiver causes missing receipts. Pure.

Judges by the findings of the alarm rules, so that no page says that all is well while an alarm is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from receiver.alerting.rules import Alarm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from receiver.alerting.rules import Finding


class Verdict(StrEnum):
    """Who has to act."""

    US = "us"
    NETWORK = "network"
    PLATFORM = "platform"
    ATTENTION = "attention"  # pushes arrive and are saved, and an alarm is open
    FINE = "fine"
    UNTRIED = "untried"  # no fault known, and no push has ever arrived


class DiagnosisReason(StrEnum):
    """A fault for which there is no alarm: alone it says little."""

    REDIRECTED = "redirected"
    REFUSED_SECRET = "refused_secret"  # noqa: S105  (a word, no secret)
    REFUSED_ADDRESS = "refused_address"
    REFUSED_LENGTH = "refused_length"
    REFUSED_SIZE = "refused_size"
    PLATFORM_UNREACHABLE = "platform_unreachable"


# By the refusal reason of `intake.admission`; other reasons do not count.
_REFUSED = {
    "secret": DiagnosisReason.REFUSED_SECRET,
    "address": DiagnosisReason.REFUSED_ADDRESS,
    "length": DiagnosisReason.REFUSED_LENGTH,
    "size": DiagnosisReason.REFUSED_SIZE,
}
# These keep pushes from being stored or shown, or soon will.
_OURS = frozenset(
    {
        Alarm.SERVER_DOWN,
        Alarm.DATABASE_AWAY,
        Alarm.SPOOL_GROWING,
        Alarm.PROJECTION_BEHIND,
        Alarm.DISK_NEARLY_FULL,
        Alarm.CERTIFICATE_ENDS_NOW,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What is known at one moment."""

    findings: Sequence[Finding]
    open_alarms: Collection[Alarm] = ()  # of incidents, of any node, that are not over yet
    recent_refusals: Mapping[str, int]  # of the last 15 minutes, by reason
    redirected: bool = False  # whether pushes arrive as bare GETs, as after a redirect
    platform_reachable: bool | None  # by the last request to its API; None: no request yet
    untried: bool  # whether no push has ever arrived, not even into the spool

    @property
    def alarms(self) -> frozenset[Alarm]:
        """The alarms that are found or open."""
        return frozenset((*self.open_alarms, *(finding.alarm for finding in self.findings)))

    @property
    def silent(self) -> bool:
        """Return whether the platform owes pushes and sends none."""
        return Alarm.PLATFORM_SILENT in self.alarms


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Who has to act, and why."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()  # ours first
    reasons: tuple[DiagnosisReason, ...] = ()


def judge(situation: Situation) -> Judgement:
    """Return who has to act. Our own faults come first: they hide the platform's."""
    findings = tuple(sorted(situation.findings, key=lambda finding: finding.alarm not in _OURS))
    ours = tuple(_reasons(situation))
    unreachable = situation.silent and situation.platform_reachable is False
    if ours or situation.alarms & _OURS:
        verdict = Verdict.US
    elif situation.untried:
        verdict = Verdict.UNTRIED
    elif situation.silent:
        verdict = Verdict.NETWORK if unreachable else Verdict.PLATFORM
    else:
        verdict = Verdict.ATTENTION if situation.alarms else Verdict.FINE
    theirs = (DiagnosisReason.PLATFORM_UNREACHABLE,) if unreachable else ()
    return Judgement(verdict=verdict, findings=findings, reasons=ours + theirs)


def _reasons(situation: Situation) -> Iterator[DiagnosisReason]:
    if situation.redirected:
        yield DiagnosisReason.REDIRECTED
    if situation.silent or situation.untried:  # while no push is overdue, refusals are a third party's
        yield from (reason for word, reason in _REFUSED.items() if situation.recent_refusals.get(word))
