"""Incidents: how findings become one over several looks, and who is notified of what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from receiver.alerting.rules import _CLOCKS_APART, Alarm, Finding, Key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime


# What holds, and what is over, has to be so at two looks: with a timer each minute, whichever nodes run it.
_HOLD = timedelta(seconds=50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One thing that is, or was, wrong for a time."""

    alarm: Alarm
    subject: str
    since: datetime
    evidence: Mapping[str, Any]  # of the last look at which it held
    seen_at: datetime  # first
    said_at: datetime | None = None  # from then on it is said; None: it was not seen twice yet
    clear_at: datetime | None = None  # from when on it was not seen any more
    recovered_at: datetime | None = None

    @property
    def key(self) -> Key:
        """What tells it from others that are open."""
        return self.alarm, self.subject


def follow(incident: Incident | None, finding: Finding | None, now: datetime) -> Incident | None:
    """Return what an open incident is after one more look; None: there is none, and nothing was said of any.

    It is said once it was seen at two looks, and over once it was not at two.
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
    """Return whether a clock that was ahead has noted it: it was not, or the alarm would be silent until then."""
    return moment > now + _CLOCKS_APART


def follow_all(
    incidents: Iterable[Incident], judged: Mapping[Alarm, Sequence[Finding]], now: datetime
) -> Iterator[tuple[Key, Incident | None, Incident | None]]:
    """Return (key, before, after) for each open incident of a judged alarm, and for each finding that is new."""
    found = {finding.key: finding for findings in judged.values() for finding in findings}
    for incident in incidents:
        if incident.alarm in judged:
            yield incident.key, incident, follow(incident, found.pop(incident.key, None), now)
    for key, finding in found.items():
        yield key, None, follow(None, finding, now)


TELL_FOR = timedelta(days=1)  # after the end of an incident; later nobody wants to know


class IncidentState(StrEnum):
    """What is told of an incident."""

    FIRING = "firing"
    RECOVERED = "recovered"


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingNotification:
    """One thing to be told to one target."""

    incident_id: str
    incident: Incident
    target: str
    state: IncidentState


def list_tellings(
    incident_id: str,
    incident: Incident,
    told: Collection[tuple[str, IncidentState]],
    targets: Iterable[str],
    now: datetime,
) -> Iterator[PendingNotification]:
    """Return what is still to be told of an incident. `told`: (target, state). The end is told to who knows of it."""
    state = IncidentState.FIRING if incident.recovered_at is None else IncidentState.RECOVERED
    if incident.said_at is None or (incident.recovered_at and now - incident.recovered_at > TELL_FOR):
        return
    for target in targets:
        knows = (target, IncidentState.FIRING) in told
        if (target, state) not in told and (state is IncidentState.FIRING or knows):
            yield PendingNotification(incident_id=incident_id, incident=incident, target=target, state=state)
