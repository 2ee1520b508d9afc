"""One look at how it goes, and what follows from it: `receiver run alarms`."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from prometheus_client.parser import text_string_to_metric_families

from receiver.alerting.figures import find_kept
from receiver.alerting.follow import Incident, PendingNotification
from receiver.alerting.incidents import SharedIncidents
from receiver.alerting.messages import MessageContext, write_incident, write_test
from receiver.alerting.node_state import NodeIncidents, open_node
from receiver.alerting.notifiers import NotificationError, Notifier, beat, post
from receiver.alerting.rules import Alarm, Finding, HealthFigures, StoredFigures, Thresholds, judge_all
from receiver.config import Settings, address_text, inside_at
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, ReceiverError, find_disk
from receiver.db import version
from receiver.intake import seconds_left, spool_state
from receiver.maintenance.backup_notes import find_backups
from receiver.net.probe import ask_own_server, find_certificate
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from receiver.runtime import Runtime

_log = get_logger(__name__)

_REFUSALS_METRIC = "receiver_push_refusals"
_REPLICA_METRIC = "receiver_replica_lag_seconds"


class _Incidents(Protocol):
    """Where incidents are followed: this node's file, or the database for all nodes."""

    def follow(self, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None: ...
    def list_untold(self, targets: Collection[str], now: datetime) -> list[PendingNotification]: ...
    def claim(self, telling: PendingNotification, now: datetime) -> bool: ...
    def settle(self, telling: PendingNotification, now: datetime, *, told: bool) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifyResult:
    """What became of telling one target one thing."""

    target: str
    name: str  # of the alarm, or "test"
    state: str
    fault: str | None  # None: it was told
    answer: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlarmRun:
    """What one look has found, and who was told."""

    findings: tuple[Finding, ...]
    told: tuple[NotifyResult, ...] = ()
    skipped: bool = False  # another look at this node is under way


class Watch:
    """Looks at one deployment from one of its nodes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._targets = {target.id: target for target in targets_of(runtime.settings)}
        self._shared = SharedIncidents(runtime.database)

    @cached_property
    def place(self) -> MessageContext:
        """From where it is told, and how."""
        return MessageContext(
            language=self._settings.alarm_language,
            zone=self._settings.timezone,
            node=socket.gethostname(),
            status_url=f"{inside_at(self._settings)}/console/status",
        )

    def look(self) -> AlarmRun:
        """Look once, follow every incident, tell each target what it does not know yet; then give the heartbeat."""
        now = self._runtime.now()
        with open_node(self._settings.data_dir) as node:
            if node is None:
                return AlarmRun(findings=(), skipped=True)
            figures = self._find_figures(node, now)
            judged = judge_all(figures, limits_of(self._settings))
            node.follow({alarm: found for alarm, found in judged.items() if alarm.of_node}, now)
            told = self._tell(node, now)
            if figures.kept is not None:
                try:
                    self._shared.follow({alarm: found for alarm, found in judged.items() if not alarm.of_node}, now)
                    told += self._tell(self._shared, now)
                except (DatabaseUnavailable, DatabaseMisconfigured) as error:  # just now: the next look will say so
                    _log.warning("the database went away", reason=str(error))
        self._beat()
        return AlarmRun(findings=_flat(judged), told=tuple(told))

    def _beat(self) -> None:
        """Let the heartbeat's server know that somebody looks; where it cannot be reached, it will say so itself."""
        if not self._settings.alarm_heartbeat_url:
            return
        try:
            beat(self._settings.alarm_heartbeat_url)
        except NotificationError as error:
            _log.warning("the heartbeat was not taken", reason=str(error))

    def look_without_telling(self) -> list[Incident]:
        """Return what would be incidents if it lasted; nothing is kept."""
        now = self._runtime.now()
        with open_node(self._settings.data_dir) as node:
            if node is None:
                raise ReceiverError("another look at this node is under way; try again")
            judged = judge_all(self._find_figures(node, now), limits_of(self._settings))
        return [
            Incident(
                alarm=finding.alarm,
                subject=finding.subject,
                since=finding.since or now,
                evidence=finding.evidence,
                seen_at=now,
            )
            for finding in _flat(judged)
        ]

    def test(self) -> list[NotifyResult]:
        """Tell every target that this is a test."""
        told = []
        for target in self._targets.values():
            fault, answer = None, ""
            try:
                answer = post(target, write_test(self.place))
            except NotificationError as error:
                fault = str(error)
            told.append(NotifyResult(target=target.name, name="test", state="test", fault=fault, answer=answer))
        return told

    def _tell(self, incidents: _Incidents, now: datetime) -> list[NotifyResult]:
        told = []
        for telling in incidents.list_untold(tuple(self._targets), now):
            if not incidents.claim(telling, now):
                continue
            target, incident, fault = self._targets[telling.target], telling.incident, None
            try:
                post(target, write_incident(incident, telling.state, self.place))
            except NotificationError as error:
                fault = str(error)
            incidents.settle(telling, now, told=fault is None)
            told.append(NotifyResult(target=target.name, name=incident.alarm, state=telling.state, fault=fault))
        return told

    # --- What is known --------------------------------------------------------------------------------

    def _find_figures(self, node: NodeIncidents, now: datetime) -> HealthFigures:
        spool = spool_state(self._runtime.spool.directory)
        kept, database_fault = self._find_kept(now)
        exposed = self._find_exposed()
        server_fault, spools_because = self._ask_readiness()
        disk = find_disk(self._settings.data_dir)
        certificate = find_certificate(self._settings.public_url)
        return HealthFigures(
            now=now,
            server_fault=server_fault,
            # The server may have lost what this process can open: a file that was replaced under it.
            database_fault=database_fault or spools_because,
            spool_bytes=spool.bytes,
            spool_max_bytes=self._settings.spool_max_bytes,
            spool_oldest_seconds=0.0 if spool.oldest_at is None else max(0.0, time.time() - spool.oldest_at),
            refusals=None if exposed is None else node.count_refusals(read_refusals(exposed), now),
            kept=kept,
            spool_lasts_seconds=seconds_left(
                spool, max_bytes=self._settings.spool_max_bytes, disk=disk, now=time.time()
            ),
            disk=disk,
            backups=find_backups(self._settings.data_dir),
            certificate_days_left=None if certificate is None else certificate.days_left,
            certificate_fault=None if certificate is None else certificate.fault,
            replica_lag_seconds=None if exposed is None else read_replica_lag(exposed),
        )

    def _find_kept(self, now: datetime) -> tuple[StoredFigures | None, str | None]:
        """Ask the database; or say why it cannot be used."""
        accounts = [account for account, _, _ in self._settings.platform_credentials]
        try:
            version.require_schema(self._runtime.database)
            self._runtime.database.require_writable()
            ships = bool(self._settings.audit_syslog)
            kept = self._runtime.ask(
                lambda connection: find_kept(connection, now=now, accounts=accounts, ships_audit=ships)
            )
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            return None, str(error)
        return kept, None

    def _ask_readiness(self) -> tuple[str | None, str | None]:
        """Ask the server; return why it can keep no push, and why it keeps them in the spool. None: neither."""
        try:
            status, body = ask_own_server(self._settings, "/readyz")
        except OSError:
            return f"nothing answers on {address_text(self._settings.inside)}", None
        try:
            said = json.loads(body)
            return (None, said.get("reason")) if status == 200 else (str(said["detail"]), None)
        except (ValueError, LookupError, TypeError, AttributeError):
            return (None if status == 200 else f"/readyz answers with HTTP status {status}"), None

    def _find_exposed(self) -> str | None:
        """Ask the server what its /metrics says; None: it does not."""
        try:
            status, body = ask_own_server(self._settings, "/metrics")
        except OSError:
            return None  # that itself is an alarm
        if status != 200:
            _log.warning("refused pushes are not known: /metrics must be open to this host", status=status)
            return None
        return body.decode(errors="replace")


def read_refusals(exposition: str) -> Mapping[str, int]:
    """Return the refused pushes of a server by reason, from what its /metrics says."""
    totals: dict[str, int] = {}
    for family in text_string_to_metric_families(exposition):
        if family.name == _REFUSALS_METRIC:
            for sample in family.samples:
                if sample.name == f"{_REFUSALS_METRIC}_total":
                    reason = sample.labels["reason"]
                    totals[reason] = totals.get(reason, 0) + int(sample.value)
    return totals


def read_replica_lag(exposition: str) -> float | None:
    """Return how far the replica is behind, which only a process that looks for a while can say; None: not told."""
    for family in text_string_to_metric_families(exposition):
        if family.name == _REPLICA_METRIC:
            return max((sample.value for sample in family.samples), default=None)
    return None


def targets_of(settings: Settings) -> list[Notifier]:
    """Return those who are to be told."""
    return [Notifier(kind=kind, url=url, secret=secret) for kind, url, secret in settings.alarm_urls]


def limits_of(settings: Settings) -> Thresholds:
    """Return the limits as they are set."""
    return Thresholds(
        silent_after=settings.alarm_silent,
        refusals=settings.alarm_refusals,
        quarantined=settings.alarm_quarantined,
        delivery_fall=settings.alarm_delivery_fall / 100,
        balance_low=settings.balance_low_of,
    )


def _flat(judged: Mapping[Alarm, Sequence[Finding]]) -> tuple[Finding, ...]:
    return tuple(finding for findings in judged.values() for finding in findings)
