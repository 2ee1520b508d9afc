"""Incidents: how findings of successive checks become one, and the notifications that are due."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from receiver.core import CLOCKS_APART

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from receiver.alerting.rules import Alarm, Finding, Key

# A start or an end must show in two checks; the timer runs each minute, on any node.
_HOLD = timedelta(seconds=50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One fault, open or over."""

    alarm: Alarm
    subject: str
    since: datetime
    evidence: Mapping[str, Any]  # of the last check that found it
    seen_at: datetime  # first
    said_at: datetime | None = None  # when it was confirmed by a second check; None: not yet
    clear_at: datetime | None = None  # first check that no longer found it
    recovered_at: datetime | None = None

    @property
    def key(self) -> Key:
        """Its identity among the open incidents."""
        return self.alarm, self.subject


def follow(incident: Incident | None, finding: Finding | None, now: datetime) -> Incident | None:
    """Return the incident after one more check; None: none is open.

    It is notified after two checks that find it, and over after two that do not.
    """
    if finding is None:
        if incident is None or incident.said_at is None:
            return None
        if incident.clear_at is None or _is_ahead(incident.clear_at, now):
            return replace(incident, clear_at=now)
        return replace(incident, recovered_at=now) if now - incident.clear_at >= _HOLD else incident
    if incident is None:
        return Incident(
            alarm=finding.alarm,
            subject=finding.subject,
            since=finding.since or now,
            evidence=finding.evidence,
            seen_at=now,
        )
    seen_at = now if _is_ahead(incident.seen_at, now) else incident.seen_at
    said_at = incident.said_at or (now if now - seen_at >= _HOLD else None)
    return replace(incident, evidence=finding.evidence, seen_at=seen_at, said_at=said_at, clear_at=None)


def _is_ahead(moment: datetime, now: datetime) -> bool:
    """Return whether a clock that was ahead wrote this time; it would delay the alarm until then."""
    return moment > now + CLOCKS_APART


def follow_all(
    incidents: Iterable[Incident], judged: Mapping[Alarm, Sequence[Finding]], now: datetime
) -> Iterator[tuple[Key, Incident | None, Incident | None]]:
    """Yield (key, before, after) for each open incident of a judged alarm and each new finding."""
    found = {finding.key: finding for findings in judged.values() for finding in findings}
    for incident in incidents:
        if incident.alarm in judged:
            yield incident.key, incident, follow(incident, found.pop(incident.key, None), now)
    for key, finding in found.items():
        yield key, None, follow(None, finding, now)


NOTIFY_END_FOR = timedelta(days=1)  # after its end an incident is notified no longer than this


class IncidentState(StrEnum):
    """The state that a notification reports."""

    FIRING = "firing"
    RECOVERED = "recovered"


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingNotification:
    """One notification that one target has not received."""

    incident_id: str
    incident: Incident
    target: str
    state: IncidentState


def pending_notifications(
    incident_id: str,
    incident: Incident,
    sent: Collection[tuple[str, IncidentState]],
    targets: Iterable[str],
    now: datetime,
) -> Iterator[PendingNotification]:
    """Yield the due notifications of an incident. `sent`: the (target, state) already sent.

    Only targets that were notified of the start are notified of the end.
    """
    state = IncidentState.FIRING if incident.recovered_at is None else IncidentState.RECOVERED
    if incident.said_at is None or (incident.recovered_at and now - incident.recovered_at > NOTIFY_END_FOR):
        return
    for target in targets:
        knows = (target, IncidentState.FIRING) in sent
        if (target, state) not in sent and (state is IncidentState.FIRING or knows):
            yield PendingNotification(incident_id=incident_id, incident=incident, target=target, state=state)
