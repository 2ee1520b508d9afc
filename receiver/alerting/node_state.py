"""Incidents of one node, in a file of its data directory: so that they are followed while the database is away."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from receiver.alerting.follow import TELL_FOR, Incident, IncidentState, PendingNotification, follow_all, list_tellings
from receiver.alerting.rules import Alarm, Finding
from receiver.core import write_file
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
class _Kept:
    incident: Incident
    told: set[tuple[str, IncidentState]] = field(default_factory=set)
    id: str = field(default_factory=lambda: uuid4().hex)


class NodeIncidents:
    """The incidents of this node, and how often its server had refused pushes at the last looks.

    For one look at a time: see `open_node`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / _FILE
        self._kept: list[_Kept] = []
        self._refusals: list[tuple[datetime, dict[str, int]]] = []
        self.looked_at: datetime | None = None  # the last look; None: there was none
        try:
            self._read(json.loads(self._path.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("incidents of this node cannot be read", file=str(self._path), reason=type(error).__name__)

    def list_open(self) -> list[Incident]:
        """Return those that are open and were seen more than once."""
        return [kept.incident for kept in self._kept if kept.incident.said_at and not kept.incident.recovered_at]

    def follow(self, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None:
        """Take one look's findings: what is new, what still holds, what is over."""
        self.looked_at = now
        still = {kept.incident.key: kept for kept in self._kept if kept.incident.recovered_at is None}
        for key, before, after in follow_all([kept.incident for kept in still.values()], judged, now):
            if after is None:
                self._kept.remove(still[key])
            elif before is None:
                self._kept.append(_Kept(after))
            else:
                still[key].incident = after
        self._kept = [kept for kept in self._kept if now - (kept.incident.recovered_at or now) <= TELL_FOR]
        if not self._write():
            # What cannot be kept is not seen a second time: better said at every look than never.
            for kept in self._kept:
                kept.incident = replace(kept.incident, said_at=kept.incident.said_at or now)

    def list_untold(self, targets: Collection[str], now: datetime) -> list[PendingNotification]:
        """Return what is still to be told, to whom."""
        return [
            telling for kept in self._kept for telling in list_tellings(kept.id, kept.incident, kept.told, targets, now)
        ]

    def claim(self, _telling: PendingNotification, _now: datetime) -> bool:
        """Return whether this caller is the one to tell it: it is, nobody else looks meanwhile."""
        return True

    def settle(self, telling: PendingNotification, _now: datetime, *, told: bool) -> None:
        """Note that it was told, or that it was not."""
        if told:
            next(kept for kept in self._kept if kept.id == telling.incident_id).told.add(
                (telling.target, telling.state)
            )
            self._write()

    def count_refusals(self, totals: Mapping[str, int], now: datetime) -> Mapping[str, int]:
        """Say how many pushes were refused in the last quarter of an hour, by the server's totals at each look."""
        recent = [(at, seen) for at, seen in self._refusals if timedelta(0) <= now - at <= _REFUSALS_WINDOW]
        self._refusals = [*recent, (now, dict(totals))]
        return count_rises([seen for _, seen in self._refusals])

    def _read(self, saved: Any) -> None:
        self._kept = [
            _Kept(
                _incident(row["incident"]), {(target, IncidentState(state)) for target, state in row["told"]}, row["id"]
            )
            for row in saved["incidents"]
        ]
        self._refusals = [(datetime.fromisoformat(at), seen) for at, seen in saved["refusals"]]
        looked_at = saved.get("looked_at")  # an older version wrote none
        self.looked_at = datetime.fromisoformat(looked_at) if looked_at else None

    def _write(self) -> bool:
        """Replace the file, whole or not at all. Whether that was possible."""
        rows = [{"id": kept.id, "incident": asdict(kept.incident), "told": sorted(kept.told)} for kept in self._kept]
        saved = {"incidents": rows, "refusals": self._refusals, "looked_at": self.looked_at}
        text = json.dumps(saved, default=datetime.isoformat, indent=1)
        try:
            write_file(self._path, text)
        except OSError as error:
            _log.warning("incidents of this node cannot be kept", file=str(self._path), reason=error.strerror)
            return False
        return True


@contextmanager
def open_node(data_dir: Path) -> Iterator[NodeIncidents | None]:
    """Hold a node's incidents for one look. None: another look is under way."""
    with (data_dir / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield NodeIncidents(data_dir)


def count_rises(totals: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Add up by how much counts have risen from one look to the next; one that fell has begun anew, from 0."""
    risen: dict[str, int] = {}
    for before, after in pairwise(totals):
        for name, total in after.items():
            base = before.get(name, 0)
            risen[name] = risen.get(name, 0) + (total - base if total >= base else total)
    return risen


def _incident(row: Mapping[str, Any]) -> Incident:
    times = {name: datetime.fromisoformat(row[name]) if row[name] else None for name in _TIMES}
    return Incident(**{**row, **times, "alarm": Alarm(row["alarm"])})
