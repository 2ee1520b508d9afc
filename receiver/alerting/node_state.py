"""Incidents of one node, in a file of its data directory: they work without the database."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from receiver.alerting.follow import (
    NOTIFY_END_FOR,
    Incident,
    IncidentState,
    PendingNotification,
    follow_all,
    pending_notifications,
)
from receiver.alerting.rules import Alarm, Finding
from receiver.core import try_lock, write_file
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


_log = get_logger(__name__)

_FILE = "alarms.json"
_LOCK = "alarms.lock"
_REFUSALS_WINDOW = timedelta(minutes=15)
_TIMES = ("since", "seen_at", "said_at", "clear_at", "recovered_at")


@dataclass(slots=True)
class _NodeIncident:
    incident: Incident
    sent: set[tuple[str, IncidentState]] = field(default_factory=set)
    id: str = field(default_factory=lambda: uuid4().hex)


class NodeIncidents:
    """The incidents of this node, and its server's refusal counts at the last checks.

    For one check at a time: see `open_node`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / _FILE
        self._incidents: list[_NodeIncident] = []
        self._refusals: list[tuple[datetime, dict[str, int]]] = []
        self.looked_at: datetime | None = None  # time of the last check; None: no check yet
        try:
            self._read(json.loads(self._path.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("incidents of this node cannot be read", file=str(self._path), reason=type(error).__name__)

    def list_open(self) -> list[Incident]:
        """Return the open, confirmed incidents."""
        return [one.incident for one in self._incidents if one.incident.said_at and not one.incident.recovered_at]

    def list_ended(self) -> list[Incident]:
        """Return the confirmed incidents that are over, of the last day."""
        return [one.incident for one in self._incidents if one.incident.said_at and one.incident.recovered_at]

    def follow(self, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None:
        """Update the incidents with the findings of one check."""
        self.looked_at = now
        still = {one.incident.key: one for one in self._incidents if one.incident.recovered_at is None}
        for key, before, after in follow_all([one.incident for one in still.values()], judged, now):
            if after is None:
                self._incidents.remove(still[key])
            elif before is None:
                self._incidents.append(_NodeIncident(after))
            else:
                still[key].incident = after
        self._incidents = [one for one in self._incidents if now - (one.incident.recovered_at or now) <= NOTIFY_END_FOR]
        if not self._write():
            # Without the file no incident is ever confirmed: notify at every check instead of never.
            for one in self._incidents:
                one.incident = replace(one.incident, said_at=one.incident.said_at or now)

    def list_pending(self, targets: Collection[str], now: datetime) -> list[PendingNotification]:
        """Return the due notifications."""
        return [
            due
            for one in self._incidents
            for due in pending_notifications(one.id, one.incident, one.sent, targets, now)
        ]

    def claim(self, _telling: PendingNotification, _now: datetime) -> bool:
        """Return True: only one check runs at a time."""
        return True

    def finish(self, notification: PendingNotification, _now: datetime, *, delivered: bool) -> None:
        """Mark a notification as delivered; an undelivered one is retried at the next check."""
        if delivered:
            next(one for one in self._incidents if one.id == notification.incident_id).sent.add(
                (notification.target, notification.state)
            )
            self._write()

    def count_refusals(self, totals: Mapping[str, int], now: datetime) -> Mapping[str, int]:
        """Return the refusals of the last 15 minutes by reason, from the server's totals at each check."""
        recent = [(at, seen) for at, seen in self._refusals if timedelta(0) <= now - at <= _REFUSALS_WINDOW]
        self._refusals = [*recent, (now, dict(totals))]
        return count_rises([seen for _, seen in self._refusals])

    def _read(self, saved: Any) -> None:
        self._incidents = [
            _NodeIncident(
                _incident(row["incident"]), {(target, IncidentState(state)) for target, state in row["told"]}, row["id"]
            )
            for row in saved["incidents"]
        ]
        self._refusals = [(datetime.fromisoformat(at), seen) for at, seen in saved["refusals"]]
        looked_at = saved.get("looked_at")  # an older version wrote none
        self.looked_at = datetime.fromisoformat(looked_at) if looked_at else None

    def _write(self) -> bool:
        """Replace the file atomically. Return whether that worked."""
        rows = [{"id": one.id, "incident": asdict(one.incident), "told": sorted(one.sent)} for one in self._incidents]
        saved = {"incidents": rows, "refusals": self._refusals, "looked_at": self.looked_at}
        text = json.dumps(saved, default=datetime.isoformat, indent=1)
        try:
            write_file(self._path, text)
        except OSError as error:
            _log.warning("incidents of this node cannot be saved", file=str(self._path), reason=error.strerror)
            return False
        return True


@contextmanager
def open_node(data_dir: Path) -> Iterator[NodeIncidents | None]:
    """Lock and yield a node's incidents for one check. None: another check is running."""
    with (data_dir / _LOCK).open("ab") as lock:
        yield NodeIncidents(data_dir) if try_lock(lock) else None


def count_rises(totals: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the increases between successive totals; a total that fell restarted from 0."""
    risen: dict[str, int] = {}
    for before, after in pairwise(totals):
        for name, total in after.items():
            base = before.get(name, 0)
            risen[name] = risen.get(name, 0) + (total - base if total >= base else total)
    return risen


def _incident(row: Mapping[str, Any]) -> Incident:
    times = {name: datetime.fromisoformat(row[name]) if row[name] else None for name in _TIMES}
    return Incident(**{**row, **times, "alarm": Alarm(row["alarm"])})
