"""One check of the deployment and its notifications: `receiver run alarms`."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from prometheus_client.parser import text_string_to_metric_families

from receiver.alerting.figures import find_stored_figures
from receiver.alerting.follow import Incident, PendingNotification
from receiver.alerting.incidents import SharedIncidents
from receiver.alerting.messages import MessageContext, write_incident, write_test
from receiver.alerting.node_state import NodeIncidents, open_node
from receiver.alerting.notifiers import NotificationError, Notifier, beat, post
from receiver.alerting.rules import Alarm, Finding, HealthFigures, StoredFigures, judge_all, thresholds_of
from receiver.config import Settings, address_text, inside_at
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, ReceiverError, find_disk
from receiver.db import version
from receiver.intake.spool import seconds_left, spool_state
from receiver.maintenance.backup_notes import find_backups
from receiver.net.egress_policy import EgressError
from receiver.net.probe import ask_own_server, find_certificate
from receiver.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from receiver.db.engine import Connection
    from receiver.runtime import Runtime

_log = get_logger(__name__)

_REFUSALS_METRIC = "receiver_push_refusals"
_REPLICA_METRIC = "receiver_replica_lag_seconds"


class _Incidents(Protocol):
    """The store of incidents: this node's file, or the database for all nodes."""

    def follow(self, judged: Mapping[Alarm, Sequence[Finding]], now: datetime) -> None: ...
    def list_pending(self, targets: Collection[str], now: datetime) -> list[PendingNotification]: ...
    def claim(self, notification: PendingNotification, now: datetime) -> bool: ...
    def finish(self, notification: PendingNotification, now: datetime, *, delivered: bool) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifyResult:
    """The result of one notification to one target."""

    target: str
    name: str  # of the alarm, or "test"
    state: str
    fault: str | None  # None: delivered
    answer: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlarmRun:
    """The findings and notifications of one check."""

    findings: tuple[Finding, ...]
    notifications: tuple[NotifyResult, ...] = ()
    skipped: bool = False  # another check runs on this node


class Watch:
    """Checks a deployment from one of its nodes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._targets = {target.id: target for target in notifiers_of(runtime.settings)}
        self._shared = SharedIncidents(runtime.database)

    @cached_property
    def place(self) -> MessageContext:
        """Language, time zone, node, status page and documentation for the messages."""
        console = f"{inside_at(self._settings)}/console"
        place = MessageContext(
            language=self._settings.alarm_language,
            zone=self._settings.timezone,
            node=socket.gethostname(),
            status_url=f"{console}/status",
        )
        return replace(place, docs_url=f"{console}/docs") if self._settings.public_url else place

    def look(self) -> AlarmRun:
        """Check once, update the incidents, send due notifications, then send the heartbeat."""
        now = self._runtime.now()
        with open_node(self._settings.data_dir) as node:
            if node is None:
                return AlarmRun(findings=(), skipped=True)
            figures = self._find_figures(node, now)
            judged = judge_all(figures, thresholds_of(self._settings))
            node.follow({alarm: found for alarm, found in judged.items() if alarm.of_node}, now)
            results = self._notify(node, now)
            if figures.stored is not None:
                try:
                    self._shared.follow({alarm: found for alarm, found in judged.items() if not alarm.of_node}, now)
                    results += self._notify(self._shared, now)
                    self._shared.keep_ended(self.place.node, node.list_ended())
                except (DatabaseUnavailable, DatabaseMisconfigured) as error:  # the next check will report it
                    _log.warning("database unavailable", reason=str(error))
        self._beat()
        return AlarmRun(findings=_flat(judged), notifications=tuple(results))

    def _beat(self) -> None:
        """Send the heartbeat; if that fails, the heartbeat service raises its own alarm."""
        if not self._settings.alarm_heartbeat_url:
            return
        try:
            beat(self._settings.alarm_heartbeat_url)
        except NotificationError as error:
            _log.warning("heartbeat failed", reason=str(error))

    def check_without_notifying(self) -> list[Incident]:
        """Return the present findings as incidents; nothing is stored.

        Raises ReceiverError while another check runs on this node.
        """
        now = self._runtime.now()
        with open_node(self._settings.data_dir) as node:
            if node is None:
                raise ReceiverError("another check is running on this node; try again")
            judged = judge_all(self._find_figures(node, now), thresholds_of(self._settings))
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
        """Send a test notification to every target."""
        results = []
        for target in self._targets.values():
            fault, answer = None, ""
            try:
                answer = post(target, write_test(self.place))
            except NotificationError as error:
                fault = str(error)
            results.append(NotifyResult(target=target.name, name="test", state="test", fault=fault, answer=answer))
        return results

    def _notify(self, incidents: _Incidents, now: datetime) -> list[NotifyResult]:
        results = []
        for notification in incidents.list_pending(tuple(self._targets), now):
            if not incidents.claim(notification, now):
                continue
            target, incident, fault = self._targets[notification.target], notification.incident, None
            try:
                post(target, write_incident(incident, notification.state, self.place))
            except NotificationError as error:
                fault = str(error)
            incidents.finish(notification, now, delivered=fault is None)
            results.append(NotifyResult(target=target.name, name=incident.alarm, state=notification.state, fault=fault))
        return results

    # --- Figures --------------------------------------------------------------------------------

    def _find_figures(self, node: NodeIncidents, now: datetime) -> HealthFigures:
        stored, database_fault = self._find_stored(now)
        exposition = self._read_metrics()
        server_fault, spools_because = self._ask_readiness()
        return gather_figures(
            self._runtime,
            now,
            server_fault=server_fault,
            # The server may have lost the database that this process can open: a replaced file.
            database_fault=database_fault or spools_because,
            refusals=None if exposition is None else node.count_refusals(read_refusals(exposition), now),
            stored=stored,
            replica_lag_seconds=None if exposition is None else read_replica_lag(exposition),
        )

    def _find_stored(self, now: datetime) -> tuple[StoredFigures | None, str | None]:
        """Return the figures from the database, or why it cannot be used."""
        try:
            version.require_schema(self._runtime.database)
            self._runtime.database.require_writable()
            stored = self._runtime.ask(lambda connection: find_stored(connection, self._settings, now))
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            return None, str(error)
        return stored, None

    def _ask_readiness(self) -> tuple[str | None, str | None]:
        """Return why the server can save no push, and why it uses the spool; None: no fault."""
        try:
            status, body = ask_own_server(self._settings, "/readyz")
        except EgressError:
            return f"no answer on {address_text(self._settings.inside)}", None
        try:
            answer = json.loads(body)
            return (None, answer.get("reason")) if status == 200 else (str(answer["detail"]), None)
        except (ValueError, LookupError, TypeError, AttributeError):
            return (None if status == 200 else f"/readyz answers with HTTP status {status}"), None

    def _read_metrics(self) -> str | None:
        """Return the text of the server's /metrics; None: not available."""
        try:
            status, body = ask_own_server(self._settings, "/metrics")
        except EgressError:
            return None  # SERVER_DOWN covers that
        if status != 200:
            _log.warning("cannot read refused pushes: allow this host in RECEIVER_METRICS_ALLOW", status=status)
            return None
        return body.decode(errors="replace")


def find_stored(connection: Connection, settings: Settings, now: datetime) -> StoredFigures:
    """Return the present figures from the database, of the accounts of these settings."""
    accounts = [account for account, _, _ in settings.platform_credentials]
    return find_stored_figures(connection, now=now, accounts=accounts, ships_audit=bool(settings.audit_syslog))


def gather_figures(
    runtime: Runtime,
    now: datetime,
    *,
    database_fault: str | None,
    refusals: Mapping[str, int] | None,
    stored: StoredFigures | None,
    server_fault: str | None = None,
    replica_lag_seconds: float | None = None,
) -> HealthFigures:
    """Return the figures of this moment: those given, and those of spool, disk, certificate and backups."""
    settings = runtime.settings
    spool, disk = spool_state(runtime.spool.directory), find_disk(settings.data_dir)
    certificate = find_certificate(settings.public_url)
    return HealthFigures(
        now=now,
        server_fault=server_fault,
        database_fault=database_fault,
        spool_bytes=spool.bytes,
        spool_max_bytes=settings.spool_max_bytes,
        spool_oldest_seconds=0.0 if spool.oldest_at is None else max(0.0, time.time() - spool.oldest_at),
        refusals=refusals,
        stored=stored,
        spool_lasts_seconds=seconds_left(spool, max_bytes=settings.spool_max_bytes, disk=disk, now=time.time()),
        disk=disk,
        backups=find_backups(settings.data_dir),
        certificate_days_left=None if certificate is None else certificate.days_left,
        certificate_fault=None if certificate is None else certificate.fault,
        replica_lag_seconds=replica_lag_seconds,
    )


def read_refusals(exposition: str) -> Mapping[str, int]:
    """Return the refused pushes of a server by reason, from its /metrics text."""
    totals: dict[str, int] = {}
    for family in text_string_to_metric_families(exposition):
        if family.name == _REFUSALS_METRIC:
            for sample in family.samples:
                if sample.name == f"{_REFUSALS_METRIC}_total":
                    reason = sample.labels["reason"]
                    totals[reason] = totals.get(reason, 0) + int(sample.value)
    return totals


def read_replica_lag(exposition: str) -> float | None:
    """Return the replica lag, which only a long-running process knows; None: no such metric."""
    for family in text_string_to_metric_families(exposition):
        if family.name == _REPLICA_METRIC:
            return max((sample.value for sample in family.samples), default=None)
    return None


def notifiers_of(settings: Settings) -> list[Notifier]:
    """Return the targets of RECEIVER_ALARM_URLS."""
    return [Notifier(kind=kind, url=url, secret=secret) for kind, url, secret in settings.alarm_urls]


def _flat(judged: Mapping[Alarm, Sequence[Finding]]) -> tuple[Finding, ...]:
    return tuple(finding for findings in judged.values() for finding in findings)
