"""Diagnosis: whether the platform, the network or this receiver causes missing receipts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from receiver.core import Disk
    from receiver.support.signals import Silence

_SPOOL_MAX_SECONDS = 300  # with the database up, spooled records are saved within seconds


class Verdict(StrEnum):
    """Who has to act."""

    US = "us"
    NETWORK = "network"
    PLATFORM = "platform"
    FINE = "fine"
    UNTRIED = "untried"  # no fault known, and no push has ever arrived


class DiagnosisReason(StrEnum):
    """One fault."""

    DATABASE_AWAY = "database_away"
    SPOOL_STUCK = "spool_stuck"
    DISK_NEARLY_FULL = "disk_nearly_full"
    CERTIFICATE_EXPIRED = "certificate_expired"
    REDIRECTED = "redirected"
    REFUSED_SECRET = "refused_secret"  # noqa: S105  (a word, no secret)
    REFUSED_ADDRESS = "refused_address"
    REFUSED_LENGTH = "refused_length"
    REFUSED_SIZE = "refused_size"
    PLATFORM_UNREACHABLE = "platform_unreachable"
    PLATFORM_SILENT = "platform_silent"


# By the refusal reason of `intake.admission`; other reasons do not count.
_REFUSED = {
    "secret": DiagnosisReason.REFUSED_SECRET,
    "address": DiagnosisReason.REFUSED_ADDRESS,
    "length": DiagnosisReason.REFUSED_LENGTH,
    "size": DiagnosisReason.REFUSED_SIZE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """The known facts of one moment."""

    database_up: bool
    spool_records: int
    spool_oldest_seconds: float  # 0: the spool is empty
    disk: Disk  # that holds the data directory
    certificate_days_left: float | None  # None: no certificate, or unknown
    recent_refusals: Mapping[str, int]  # of the last 15 minutes, by reason
    silence: Silence | None
    redirected: bool = False  # whether pushes arrive as bare GETs, as after a redirect
    platform_reachable: bool | None  # by the last request to its API; None: no request yet
    ever_pushed: bool  # whether the platform has ever pushed

    @property
    def push_due(self) -> bool:
        """Return whether a push is overdue.

        Records in the spool count as arrived: the journal will have them.
        """
        return not self.spool_records and (self.silence is not None or not self.ever_pushed)

    @property
    def untried(self) -> bool:
        """Return whether no push has ever arrived, not even into the spool."""
        return not self.ever_pushed and not self.spool_records


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Who has to act, and why."""

    verdict: Verdict
    reasons: tuple[DiagnosisReason, ...] = ()  # every reason, ours first; empty for FINE and UNTRIED


def judge(situation: Situation) -> Judgement:
    """Return who has to act. Our own faults come first: they hide the platform's."""
    ours = tuple(_ours(situation))
    theirs = tuple(_theirs(situation))
    if ours:
        verdict = Verdict.US
    elif DiagnosisReason.PLATFORM_UNREACHABLE in theirs:
        verdict = Verdict.NETWORK
    else:
        verdict = Verdict.PLATFORM if theirs else Verdict.UNTRIED if situation.untried else Verdict.FINE
    return Judgement(verdict=verdict, reasons=(*ours, *theirs))


def _ours(situation: Situation) -> Iterator[DiagnosisReason]:
    if not situation.database_up:
        yield DiagnosisReason.DATABASE_AWAY
    elif situation.spool_records and situation.spool_oldest_seconds > _SPOOL_MAX_SECONDS:
        yield DiagnosisReason.SPOOL_STUCK
    if situation.disk.nearly_full:
        yield DiagnosisReason.DISK_NEARLY_FULL
    if situation.certificate_days_left is not None and situation.certificate_days_left <= 0:
        yield DiagnosisReason.CERTIFICATE_EXPIRED
    if situation.redirected:
        yield DiagnosisReason.REDIRECTED
    if situation.push_due:  # while no push is overdue, refusals are a third party's
        yield from (reason for word, reason in _REFUSED.items() if situation.recent_refusals.get(word))


def _theirs(situation: Situation) -> Iterator[DiagnosisReason]:
    if situation.silence is None or not situation.push_due:
        return
    if situation.platform_reachable is False:
        yield DiagnosisReason.PLATFORM_UNREACHABLE
    yield DiagnosisReason.PLATFORM_SILENT
