"""The alarm rules: findings from the figures of one moment. Pure.

deploy/prometheus/alerts.yml has the same alarms under the same names; the runbook has the remedies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from receiver.config import Settings
    from receiver.core import Disk
    from receiver.maintenance.backup_notes import Noted

_SPOOL_OLD_SECONDS = 300
_SPOOL_FULL_SHARE = 0.5
_PROJECTION_LAG_SECONDS = 60
_WEBHOOK_LATE = timedelta(minutes=15)
_REPLICA_LAG_SECONDS = 60
_AUDIT_LATE = timedelta(minutes=15)
_BALANCE_STALE = timedelta(hours=1)
_CERTIFICATE_SOON_DAYS, _CERTIFICATE_NOW_DAYS = 14, 3
_MISSED_MIN = 20  # pushes of last week; with fewer, silence now may be chance
_SETTLED_MIN, _USUAL_SETTLED_MIN = 50, 500
_SIGMAS = 4


class Alarm(StrEnum):
    """The alarms."""

    SERVER_DOWN = "server_down"
    DATABASE_AWAY = "database_away"
    SPOOL_GROWING = "spool_growing"
    PUSHES_REFUSED = "pushes_refused"
    PROJECTION_BEHIND = "projection_behind"
    WEBHOOKS_BEHIND = "webhooks_behind"
    ROWS_SET_ASIDE = "rows_set_aside"
    PLATFORM_SILENT = "platform_silent"
    PUSHES_QUARANTINED = "pushes_quarantined"
    DELIVERY_FALLEN = "delivery_fallen"
    BALANCE_LOW = "balance_low"
    BALANCE_STALE = "balance_stale"
    CERTIFICATE_ENDS_SOON = "certificate_ends_soon"
    CERTIFICATE_ENDS_NOW = "certificate_ends_now"
    REPLICA_BEHIND = "replica_behind"
    DISK_NEARLY_FULL = "disk_nearly_full"
    AUDIT_SYSLOG_LAG = "audit_syslog_lag"
    BACKUP_OLD = "backup_old"

    @property
    def heading(self) -> str:
        """Its name in Prometheus, and its heading in the runbook."""
        return "".join(word.capitalize() for word in self.split("_"))

    @property
    def critical(self) -> bool:
        """Return whether it needs immediate action: pushes or codes are being lost, or soon will be."""
        return self in _CRITICAL

    @property
    def of_account(self) -> bool:
        """Return whether its subject is an account."""
        return self in _OF_ACCOUNT

    @property
    def of_node(self) -> bool:
        """Return whether it concerns one node, and no other can detect it."""
        return self in _OF_NODE


_OF_ACCOUNT = frozenset({Alarm.BALANCE_LOW, Alarm.BALANCE_STALE})
_OF_NODE = frozenset(
    {
        Alarm.SERVER_DOWN,
        Alarm.DATABASE_AWAY,
        Alarm.SPOOL_GROWING,
        Alarm.PUSHES_REFUSED,
        Alarm.DISK_NEARLY_FULL,
        Alarm.BACKUP_OLD,
    }
)
_CRITICAL = frozenset(
    {Alarm.SERVER_DOWN, Alarm.DATABASE_AWAY, Alarm.PLATFORM_SILENT, Alarm.BALANCE_LOW, Alarm.CERTIFICATE_ENDS_NOW}
)


Key = tuple[Alarm, str]  # alarm and subject


# --- Figures ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """The configurable thresholds."""

    silent_after: timedelta = timedelta(minutes=10)
    refusals: int = 20  # for one reason, in a quarter of an hour
    quarantined: int = 5  # in an hour
    delivery_fall: float = 0.10  # of 1
    balance_low: Callable[[str], int | None] = lambda _account: None  # by account


def thresholds_of(settings: Settings) -> Thresholds:
    """Return the thresholds from the settings."""
    return Thresholds(
        silent_after=settings.alarm_silent,
        refusals=settings.alarm_refusals,
        quarantined=settings.alarm_quarantined,
        delivery_fall=settings.alarm_delivery_fall / 100,
        balance_low=settings.balance_low_of,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Delivered messages of a period, and all with a final report."""

    delivered: int = 0
    settled: int = 0

    @property
    def share(self) -> float:
        """The share from 0 to 1; 0 if nothing is settled."""
        return self.delivered / self.settled if self.settled else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceLeft:
    """The remaining messages of an account, by its last reading."""

    left: int
    read_at: datetime
    asked: bool  # whether we query it with credentials; else it comes with sends of others


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAsideRows:
    """The number of skipped rows of a table, and the first of their ids."""

    count: int
    ids: tuple[str, ...]

    @property
    def named(self) -> str:
        """The ids as text, with an ellipsis if there are more."""
        return ", ".join(self.ids) + (", \u2026" if self.count > len(self.ids) else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class PushFlow:
    """What the platform has pushed, and what it owes."""

    last_push_at: datetime | None = None  # None: never
    unanswered_since: datetime | None = None  # since when five numbers have waited without any push; None: fewer
    missed_pushes: int = 0  # pushes one week before the present silence; 0 if sends are recorded


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFigures:
    """The present figures from the database."""

    flow: PushFlow
    quarantined: int  # in the last hour
    projection_lag_seconds: float
    recent: Rate
    usual: Rate
    balances: Mapping[str, BalanceLeft] = field(default_factory=dict)  # of accounts with a reading
    webhook_oldest: Mapping[str, datetime] = field(default_factory=dict)  # by endpoint with pending deliveries
    set_aside: Mapping[str, SetAsideRows] = field(default_factory=dict)  # by table
    unshipped_since: datetime | None = None  # of the oldest entry not sent to syslog; None: none, or no syslog


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthFigures:
    """The figures of one moment. Unknown ones are None, and their rules are skipped."""

    now: datetime
    server_fault: str | None  # why no push can be saved; None: no fault
    database_fault: str | None
    spool_bytes: int
    spool_max_bytes: int
    spool_oldest_seconds: float  # 0: the spool is empty
    refusals: Mapping[str, int] | None  # in the last 15 minutes, by reason
    stored: StoredFigures | None
    disk: Disk  # that holds the data directory
    certificate_days_left: float | None
    spool_lasts_seconds: float | None = None  # at the present rate; None: unknown, or empty
    backups: Mapping[str, Noted] = field(default_factory=dict)  # made on this node, by command
    certificate_fault: str | None = None  # why it is invalid; None: valid or unknown
    replica_lag_seconds: float | None = None  # as the server sees it; infinite: unavailable; None: no replica


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One fault."""

    alarm: Alarm
    subject: str = ""  # such as an account or a reason
    since: datetime | None = None  # None: unknown
    evidence: Mapping[str, Any] = field(default_factory=dict)  # for the texts; no secrets, no full numbers

    @property
    def key(self) -> Key:
        """Its identity."""
        return self.alarm, self.subject


# --- The rules --------------------------------------------------------------------------------------------
# Each returns its findings, or None if its figures are missing.

Found = list[Finding] | None


def _server_down(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.server_fault is None:
        return []
    return [Finding(alarm=Alarm.SERVER_DOWN, evidence={"fault": figures.server_fault})]


def _database_away(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.database_fault is None:
        return []
    evidence = {"fault": figures.database_fault, **_spool_lasts(figures)}
    return [Finding(alarm=Alarm.DATABASE_AWAY, evidence=evidence)]


def _spool_growing(figures: HealthFigures, _limits: Thresholds) -> Found:
    share = figures.spool_bytes / figures.spool_max_bytes
    if figures.spool_oldest_seconds <= _SPOOL_OLD_SECONDS and share <= _SPOOL_FULL_SHARE:
        return []
    evidence = {
        "bytes": figures.spool_bytes,
        "percent": round(100 * share),
        "minutes": round(figures.spool_oldest_seconds / 60),
        **_spool_lasts(figures),
    }
    since = figures.now - timedelta(seconds=figures.spool_oldest_seconds)
    return [Finding(alarm=Alarm.SPOOL_GROWING, since=since, evidence=evidence)]


def _spool_lasts(figures: HealthFigures) -> Mapping[str, Any]:
    """Return for how long the spool has room, if known."""
    seconds = figures.spool_lasts_seconds
    return {} if seconds is None else {"lasts_hours": hours_of(seconds)}


def hours_of(seconds: float) -> float:
    """Return hours, with one decimal below ten."""
    hours = seconds / 3600
    return round(hours, 1) if hours < 10 else round(hours)


def _pushes_refused(figures: HealthFigures, limits: Thresholds) -> Found:
    if figures.refusals is None:
        return None
    return [
        Finding(alarm=Alarm.PUSHES_REFUSED, subject=reason, evidence={"count": count})
        for reason, count in sorted(figures.refusals.items())
        if count > limits.refusals
    ]


def _projection_behind(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    lag = figures.stored.projection_lag_seconds
    if lag <= _PROJECTION_LAG_SECONDS:
        return []
    since = figures.now - timedelta(seconds=lag)
    return [Finding(alarm=Alarm.PROJECTION_BEHIND, since=since, evidence={"minutes": round(lag / 60)})]


def _webhooks_behind(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    return [
        Finding(
            alarm=Alarm.WEBHOOKS_BEHIND,
            subject=target,
            since=oldest_at,
            evidence={"minutes": math.floor((figures.now - oldest_at).total_seconds() / 60)},
        )
        for target, oldest_at in sorted(figures.stored.webhook_oldest.items())
        if figures.now - oldest_at > _WEBHOOK_LATE
    ]


def _rows_set_aside(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    return [
        Finding(
            alarm=Alarm.ROWS_SET_ASIDE,
            subject=table,
            evidence={"count": rows.count, "ids": rows.named},
        )
        for table, rows in sorted(figures.stored.set_aside.items())
    ]


def _platform_silent(figures: HealthFigures, limits: Thresholds) -> Found:
    if figures.stored is None or figures.spool_bytes:
        return None
    silence = find_silence(figures.stored.flow, spooled=False, now=figures.now, silent_after=limits.silent_after)
    return [] if silence is None else [silence]


def find_silence(flow: PushFlow, *, spooled: bool, now: datetime, silent_after: timedelta) -> Finding | None:
    """Return the platform's silence: it owes pushes and sends none. None: it is not silent, or has nothing to push."""
    if spooled:  # such pushes count as arrived: the journal will have them
        return None
    since = flow.last_push_at
    if flow.unanswered_since is not None and now - flow.unanswered_since > silent_after:
        minutes = math.floor((now - flow.unanswered_since).total_seconds() / 60)
        return Finding(alarm=Alarm.PLATFORM_SILENT, since=since, evidence={"minutes": minutes})
    if flow.missed_pushes >= _MISSED_MIN:
        return Finding(alarm=Alarm.PLATFORM_SILENT, since=since, evidence={"last_week": flow.missed_pushes})
    return None


def _pushes_quarantined(figures: HealthFigures, limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    if figures.stored.quarantined <= limits.quarantined:
        return []
    return [Finding(alarm=Alarm.PUSHES_QUARANTINED, evidence={"count": figures.stored.quarantined})]


def _delivery_fallen(figures: HealthFigures, limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    recent, usual = figures.stored.recent, figures.stored.usual
    if recent.settled < _SETTLED_MIN or usual.settled < _USUAL_SETTLED_MIN:
        return []
    fall = usual.share - recent.share
    chance = math.sqrt(usual.share * (1 - usual.share) / recent.settled)  # one standard deviation of the recent share
    if fall <= limits.delivery_fall or fall <= _SIGMAS * chance:
        return []
    evidence = {
        "percent": round(100 * recent.share, 1),
        "usual": round(100 * usual.share, 1),
        "messages": recent.settled,
    }
    return [Finding(alarm=Alarm.DELIVERY_FALLEN, evidence=evidence)]


def _balance_low(figures: HealthFigures, limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    found = []
    for account, balance in sorted(figures.stored.balances.items()):
        low = limits.balance_low(account)
        if low is not None and balance.left < low:
            evidence = {"left": balance.left, "low": low}
            found.append(Finding(alarm=Alarm.BALANCE_LOW, subject=account, evidence=evidence))
    return found


def _balance_stale(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    return [
        Finding(
            alarm=Alarm.BALANCE_STALE,
            subject=account,
            since=balance.read_at,
            evidence={"hours": math.floor((figures.now - balance.read_at).total_seconds() / 3600)},
        )
        for account, balance in sorted(figures.stored.balances.items())
        if balance.asked and figures.now - balance.read_at > _BALANCE_STALE
    ]


def _certificate_ends_soon(figures: HealthFigures, _limits: Thresholds) -> Found:
    left = figures.certificate_days_left
    if left is None or left < _CERTIFICATE_NOW_DAYS:
        return None  # CERTIFICATE_ENDS_NOW covers that; this alarm neither starts nor ends
    if left >= _CERTIFICATE_SOON_DAYS:
        return []
    return [Finding(alarm=Alarm.CERTIFICATE_ENDS_SOON, evidence={"days": math.floor(left)})]


def _certificate_ends_now(figures: HealthFigures, _limits: Thresholds) -> Found:
    left = figures.certificate_days_left
    if left is None:
        return None
    if left >= _CERTIFICATE_NOW_DAYS:
        return []
    fault = {} if figures.certificate_fault is None else {"fault": figures.certificate_fault}
    return [Finding(alarm=Alarm.CERTIFICATE_ENDS_NOW, evidence={"days": math.floor(left), **fault})]


def _replica_behind(figures: HealthFigures, _limits: Thresholds) -> Found:
    lag = figures.replica_lag_seconds
    if lag is None:
        return None
    return (
        [Finding(alarm=Alarm.REPLICA_BEHIND, evidence={"seconds": round(lag) if math.isfinite(lag) else "\u221e"})]
        if lag > _REPLICA_LAG_SECONDS
        else []
    )


def _disk_nearly_full(figures: HealthFigures, _limits: Thresholds) -> Found:
    if not figures.disk.nearly_full:
        return []
    evidence = {
        "free_gb": round(figures.disk.free_bytes / 1e9, 1),
        "percent": round(100 * figures.disk.free_bytes / figures.disk.total_bytes, 1),
    }
    return [Finding(alarm=Alarm.DISK_NEARLY_FULL, evidence=evidence)]


def _audit_syslog_lag(figures: HealthFigures, _limits: Thresholds) -> Found:
    if figures.stored is None:
        return None
    since = figures.stored.unshipped_since
    if since is None or figures.now - since <= _AUDIT_LATE:
        return []
    minutes = math.floor((figures.now - since).total_seconds() / 60)
    return [Finding(alarm=Alarm.AUDIT_SYSLOG_LAG, since=since, evidence={"minutes": minutes})]


def _backup_old(figures: HealthFigures, _limits: Thresholds) -> Found:
    # Without any attempt there is no alarm: another tool may make the backups.
    found = []
    for command, noted in sorted(figures.backups.items()):
        if noted.failing:
            found.append(
                Finding(alarm=Alarm.BACKUP_OLD, subject=command, since=noted.failed_at, evidence={"failed": True})
            )
        elif noted.made_at is not None and noted.old(figures.now):
            evidence = {"made_at": f"{noted.made_at:%Y-%m-%dT%H:%M:%SZ}"}
            found.append(Finding(alarm=Alarm.BACKUP_OLD, subject=command, since=noted.made_at, evidence=evidence))
    return found


_RULES: Mapping[Alarm, Callable[[HealthFigures, Thresholds], Found]] = {
    Alarm.SERVER_DOWN: _server_down,
    Alarm.DATABASE_AWAY: _database_away,
    Alarm.SPOOL_GROWING: _spool_growing,
    Alarm.PUSHES_REFUSED: _pushes_refused,
    Alarm.PROJECTION_BEHIND: _projection_behind,
    Alarm.WEBHOOKS_BEHIND: _webhooks_behind,
    Alarm.ROWS_SET_ASIDE: _rows_set_aside,
    Alarm.PLATFORM_SILENT: _platform_silent,
    Alarm.PUSHES_QUARANTINED: _pushes_quarantined,
    Alarm.DELIVERY_FALLEN: _delivery_fallen,
    Alarm.BALANCE_LOW: _balance_low,
    Alarm.BALANCE_STALE: _balance_stale,
    Alarm.CERTIFICATE_ENDS_SOON: _certificate_ends_soon,
    Alarm.CERTIFICATE_ENDS_NOW: _certificate_ends_now,
    Alarm.REPLICA_BEHIND: _replica_behind,
    Alarm.DISK_NEARLY_FULL: _disk_nearly_full,
    Alarm.AUDIT_SYSLOG_LAG: _audit_syslog_lag,
    Alarm.BACKUP_OLD: _backup_old,
}


def judge_all(figures: HealthFigures, limits: Thresholds) -> Mapping[Alarm, Sequence[Finding]]:
    """Return the findings by alarm, without the alarms whose figures are missing."""
    judged = {alarm: rule(figures, limits) for alarm, rule in _RULES.items()}
    return {alarm: found for alarm, found in judged.items() if found is not None}
