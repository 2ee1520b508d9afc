"""Incidents shared by all nodes; the first node to check updates them and notifies each target."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.alerting.follow import (
    NOTIFY_END_FOR,
    Incident,
    IncidentState,
    PendingNotification,
    follow_all,
    pending_notifications,
)
from receiver.alerting.rules import Alarm, Finding
from receiver.db.engine import Database, insert
from receiver.db.sql import is_over
from receiver.db.tables import incident_tellings, incidents

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime


_FOLLOW_LOCK = 0x726376725F616C  # one node at a time
_CLAIM_HOLDS = timedelta(minutes=2)  # a process that has not finished by then is dead
_KEPT_FOR = timedelta(days=90)
_COLUMNS = tuple(Incident.__slots__)


class SharedIncidents:
    """The incidents in the database. Every method raises DatabaseUnavailable or DatabaseMisconfigured."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def follow(self, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None:
        """Update the incidents with the findings of one check."""

        def work(connection: sa.Connection) -> None:
            if self._database.postgresql:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_FOLLOW_LOCK)))
            _follow(connection, judged, now)

        self._database.write(work)

    def keep_ended(self, node: str, ended: Sequence[Incident]) -> None:
        """Keep the incidents of one node that are over, for the history alone. Idempotent.

        Nobody hears of them again: only who was told of an incident's start by this store is told of its end.
        """
        if not ended:
            return

        def work(connection: sa.Connection) -> None:
            column = incidents.c
            recent = sa.select(column.alarm, column.subject, column.since).where(
                column.node == node, column.recovered_at >= min(one.recovered_at or one.since for one in ended)
            )
            kept = {(Alarm(row.alarm), row.subject, row.since) for row in connection.execute(recent)}
            new = [_values(one) | {"node": node} for one in ended if (*one.key, one.since) not in kept]
            if new:
                connection.execute(sa.insert(incidents), new)

        self._database.write(work)

    def list_pending(self, targets: Collection[str], now: datetime) -> list[PendingNotification]:
        """Return the due notifications."""
        with self._database.reading() as connection:
            recent = sa.or_(incidents.c.recovered_at.is_(None), incidents.c.recovered_at > now - NOTIFY_END_FOR)
            said = sa.select(incidents).where(recent, incidents.c.said_at.isnot(None)).order_by(incidents.c.id)
            rows = connection.execute(said).all()
            sent = connection.execute(
                sa.select(incident_tellings).where(
                    incident_tellings.c.incident_id.in_([row.id for row in rows]),
                    incident_tellings.c.told_at.isnot(None),
                )
            ).all()
        by_incident: dict[int, set[tuple[str, IncidentState]]] = {}
        for row in sent:
            by_incident.setdefault(row.incident_id, set()).add((row.target, IncidentState(row.state)))
        return [
            due
            for row in rows
            for due in pending_notifications(str(row.id), as_incident(row), by_incident.get(row.id, ()), targets, now)
        ]

    def claim(self, notification: PendingNotification, now: datetime) -> bool:
        """Return whether this node is the one to send the notification."""
        table = incident_tellings
        statement = insert("postgresql" if self._database.postgresql else "sqlite", table)
        claimed = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={"claimed_at": now},
            where=sa.and_(table.c.told_at.is_(None), is_over(table.c.claimed_at, _CLAIM_HOLDS, now)),
        ).returning(table.c.target)
        row = {**_key(notification), "claimed_at": now}
        return self._database.write(lambda connection: connection.execute(claimed, row).one_or_none()) is not None

    def finish(self, notification: PendingNotification, now: datetime, *, delivered: bool) -> None:
        """Mark a notification as delivered, or release it so that another node can retry."""
        table = incident_tellings
        of_telling = sa.and_(*(table.c[name] == value for name, value in _key(notification).items()))
        statement = (
            sa.update(table).where(of_telling).values(told_at=now) if delivered else sa.delete(table).where(of_telling)
        )
        self._database.write(lambda connection: connection.execute(statement))


def list_open(connection: sa.Connection) -> list[Incident]:
    """Return the open, confirmed incidents, oldest first."""
    query = sa.select(incidents).where(incidents.c.recovered_at.is_(None), incidents.c.said_at.isnot(None))
    return [as_incident(row) for row in connection.execute(query.order_by(incidents.c.since, incidents.c.id))]


def _follow(connection: sa.Connection, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None:
    rows = connection.execute(sa.select(incidents).where(incidents.c.recovered_at.is_(None))).all()
    ids = {as_incident(row).key: row.id for row in rows}
    for key, before, after in follow_all([as_incident(row) for row in rows], judged, now):
        if after is None:
            connection.execute(sa.delete(incidents).where(incidents.c.id == ids[key]))
        elif before is None:
            connection.execute(sa.insert(incidents).values(_values(after)))
        elif after != before:
            connection.execute(sa.update(incidents).where(incidents.c.id == ids[key]).values(_values(after)))
    gone = sa.select(incidents.c.id).where(incidents.c.recovered_at < now - _KEPT_FOR)
    connection.execute(sa.delete(incident_tellings).where(incident_tellings.c.incident_id.in_(gone)))
    connection.execute(sa.delete(incidents).where(incidents.c.id.in_(gone)))


def as_incident(row: Any) -> Incident:
    """Return a row of the table as a value."""
    return Incident(**{name: getattr(row, name) for name in _COLUMNS} | {"alarm": Alarm(row.alarm)})


def _values(incident: Incident) -> dict[str, Any]:
    return {name: getattr(incident, name) for name in _COLUMNS}


def _key(notification: PendingNotification) -> dict[str, Any]:
    return {"incident_id": int(notification.incident_id), "target": notification.target, "state": notification.state}
