"""The history of incidents: 90 days, as a list and by day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.alerting.incidents import as_incident
from receiver.alerting.rules import Alarm
from receiver.db.tables import incidents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime
    from zoneinfo import ZoneInfo

    from receiver.alerting.follow import Incident

DAYS = 90
_SPANS_MAX = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PastIncident:
    """An incident of the history."""

    id: int
    incident: Incident
    node: str  # the one that it concerned; empty: all


@dataclass(frozen=True, kw_only=True, slots=True)
class IncidentSpan:
    """How long an incident lasted."""

    alarm: Alarm
    since: datetime
    until: datetime | None  # None: it is open


@dataclass(frozen=True, kw_only=True, slots=True)
class IncidentDay:
    """One day, and the incidents that lasted into it or began on it."""

    day: date
    incidents: int
    critical: bool  # whether one of them was


def list_history(
    connection: sa.Connection, *, limit: int, before: int | None = None, accounts: Sequence[str] | None = None
) -> list[PastIncident]:
    """Return confirmed incidents, newest first by id, below the id `before`.

    Those of single nodes are there once they are over. `accounts`: what concerns these, or the whole deployment.
    """
    query = sa.select(incidents).where(*_seen_by(accounts)).order_by(incidents.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(incidents.c.id < before)
    return [PastIncident(id=row.id, incident=as_incident(row), node=row.node) for row in connection.execute(query)]


def list_spans(
    connection: sa.Connection, *, since: datetime, accounts: Sequence[str] | None = None
) -> tuple[list[IncidentSpan], datetime]:
    """Return the spans of confirmed incidents that were not over at `since`, and from when on they are all.

    At most 2,000, those that ended last.
    """
    column = incidents.c
    lasted = sa.or_(column.recovered_at.is_(None), column.recovered_at >= since)
    query = sa.select(column.alarm, column.since, column.recovered_at).where(*_seen_by(accounts), lasted)
    rows = connection.execute(query.order_by(column.recovered_at.desc().nulls_first()).limit(_SPANS_MAX)).all()
    spans = [IncidentSpan(alarm=Alarm(row.alarm), since=row.since, until=row.recovered_at) for row in rows]
    return spans, (spans[-1].until or since) if len(spans) == _SPANS_MAX else since


def count_by_day(spans: Iterable[IncidentSpan], *, since: datetime, now: datetime, zone: ZoneInfo) -> list[IncidentDay]:
    """Return the days from that of `since` up to today, oldest first, those without incidents too."""
    first, today = since.astimezone(zone).date(), now.astimezone(zone).date()
    counts = dict.fromkeys((first + timedelta(days=number) for number in range((today - first).days + 1)), 0)
    critical = set()
    for span in spans:
        begun, over = span.since.astimezone(zone).date(), (span.until or now).astimezone(zone).date()
        for day in counts:
            if begun <= day <= over:
                counts[day] += 1
                if span.alarm.critical:
                    critical.add(day)
    return [IncidentDay(day=day, incidents=count, critical=day in critical) for day, count in counts.items()]


def _seen_by(accounts: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of confirmed incidents that a user of these accounts may see (None: of all)."""
    column = incidents.c
    known = column.alarm.in_([alarm.value for alarm in Alarm])  # an older version may have had others
    conditions: list[sa.ColumnElement[bool]] = [column.said_at.isnot(None), known]
    if accounts is not None:
        of_account = column.alarm.in_([alarm.value for alarm in Alarm if alarm.of_account])
        own = sa.and_(of_account, column.subject.in_(accounts))
        conditions.append(sa.or_(own, sa.and_(~of_account, column.subject == "")))
    return conditions
