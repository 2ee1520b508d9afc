"""Gauges read from database and disk at each scrape, so that every serving process returns the same values.

Events in a process are counted in `metrics.py`. Values that can be looked up are read here, at each scrape. A new gauge
is a function:

    @gauge("receiver_quarantined_pushes", "Pushes of the last day that could not be parsed.")
    def _quarantined(scrape: Scrape) -> float:
        return scrape.ask(lambda connection: count_quarantined(connection, since=scrape.now - timedelta(days=1)))

It returns a number; with `label="account"`, a dict of numbers by the label's value; None to leave the gauge out. While
the database is unavailable, the gauge is left out: no number is better than an old one. Values that several gauges need
are a `cached_property` of Scrape. Each query runs at every scrape: use only queries that an index answers.
"""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from receiver import __version__
from receiver.alerting import figures, rules
from receiver.alerting.figures import find_set_aside
from receiver.alerting.push_flow import find_push_flow
from receiver.alerting.rules import Alarm, PushFlow, Rate, SetAsideRows
from receiver.audit import log
from receiver.core import ReceiverError, find_disk
from receiver.db.sqlite import log_bytes, path_of
from receiver.intake.spool import SpoolState, spool_state
from receiver.maintenance.backup_notes import find_backups
from receiver.messages import balance
from receiver.messages.journal import find_oldest_pending
from receiver.observability.metrics import MetricDescription
from receiver.reporting.busiest import SPIKE_MIN_SENT, By, list_busiest
from receiver.support import arrivals
from receiver.webhooks import endpoints, fan_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from receiver.db.engine import Connection
    from receiver.messages.balance import Reading
    from receiver.runtime import Runtime
    from receiver.webhooks.endpoints import Health

T = TypeVar("T")


class Scrape(Collector):
    """The gauges of one scrape, or of one check without Prometheus."""

    def __init__(self, services: Runtime) -> None:
        self.services = services
        self.now = services.now()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Return the answer of the database, without waiting. Raises DatabaseUnavailable or DatabaseMisconfigured."""
        return self.services.ask_present(question)

    @cached_property
    def spool(self) -> SpoolState:
        """The state of the spool directory."""
        return spool_state(self.services.spool.directory)

    @cached_property
    def balances(self) -> Mapping[str, Reading]:
        """The last reading of each account's balance."""
        return self.ask(lambda connection: balance.find_last_readings(connection, now=self.now))

    @cached_property
    def targets(self) -> Mapping[str, Health]:
        """The health of each webhook, by its name."""
        found = self.ask(endpoints.list_endpoints)
        return {one.name: self.ask(partial(endpoints.find_health, target=one)) for one in found}

    @cached_property
    def flow(self) -> PushFlow:
        """What the platform has pushed, and what it owes."""
        return self.ask(lambda connection: find_push_flow(connection, now=self.now))

    @cached_property
    def rates(self) -> Mapping[str, Rate]:
        """The delivery rates of reported messages, by window."""
        return {
            "30m": self.ask(lambda connection: figures.find_recent_rate(connection, now=self.now)),
            "7d": self.ask(lambda connection: figures.find_usual_rate(connection, now=self.now)),
        }

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge."""
        yield self._build_info()
        for each in _GAUGES:
            family = GaugeMetricFamily(each.name, each.help_text, labels=[each.label] if each.label else None)
            for value, number in self.values(each).items():
                family.add_metric([value] if each.label else [], number)
            yield family

    def _build_info(self) -> Metric:
        family = GaugeMetricFamily(_BUILD_INFO.name, _BUILD_INFO.text, labels=_BUILD_INFO.labels)
        database = "sqlite" if self.services.settings.embedded else "postgresql"
        family.add_metric([__version__, platform.python_version(), database], 1)
        return family

    def values(self, each: _Gauge) -> Mapping[str, float]:
        """Return a gauge's numbers by its label's value; without a label, by the empty text."""
        try:
            found = each.find(self)
        except ReceiverError:
            return {}
        if found is None:
            return {}
        return found if not isinstance(found, int | float) else {"": found}


Found = float | dict[str, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gauge:
    name: str
    help_text: str
    label: str | None
    find: Callable[[Scrape], Found]


_GAUGES: list[_Gauge] = []
_BUILD_INFO = MetricDescription(
    "receiver_build_info", "gauge", ("version", "python", "database"), "What is running; always 1."
)


def list_gauges() -> list[MetricDescription]:
    """Return every gauge that is read at a scrape."""
    return [
        _BUILD_INFO,
        *(
            MetricDescription(each.name, "gauge", (each.label,) if each.label else (), each.help_text)
            for each in _GAUGES
        ),
    ]


def gauge(
    name: str, help_text: str, *, label: str | None = None
) -> Callable[[Callable[[Scrape], Found]], Callable[[Scrape], Found]]:
    """Return a decorator that registers a gauge; its function returns a number, or numbers by the label's value."""

    def register(find: Callable[[Scrape], Found]) -> Callable[[Scrape], Found]:
        _GAUGES.append(_Gauge(name=name, help_text=help_text, label=label, find=find))
        return find

    return register


def age_seconds(spool: SpoolState) -> float:
    """Return the age of the oldest file in the spool; 0: the spool is empty."""
    return 0.0 if spool.oldest_at is None else round(max(0.0, time.time() - spool.oldest_at), 1)


@gauge("receiver_spool_records", "Records in the spool directory.")
def _spool_records(scrape: Scrape) -> float:
    return scrape.spool.records


@gauge("receiver_spool_bytes", "Bytes in the spool directory.")
def _spool_bytes(scrape: Scrape) -> float:
    return scrape.spool.bytes


@gauge(
    "receiver_spool_max_bytes",
    "RECEIVER_SPOOL_MAX_BYTES; when the spool is full and the database is down, pushes are refused.",
)
def _spool_max_bytes(scrape: Scrape) -> float:
    return scrape.services.settings.spool_max_bytes


@gauge("receiver_spool_oldest_age_seconds", "Age of the oldest file in the spool; 0 if empty.")
def _spool_oldest(scrape: Scrape) -> float:
    return age_seconds(scrape.spool)


@gauge("receiver_spool_damaged_files", "Spool files with unreadable parts; an operator has to check them.")
def _spool_damaged(scrape: Scrape) -> float:
    return len(scrape.spool.damaged)


@gauge(
    "receiver_sqlite_log_bytes",
    "Size of the embedded database's write-ahead log; a long read lets it grow. Absent with PostgreSQL.",
)
def _sqlite_log(scrape: Scrape) -> float | None:
    if not scrape.services.settings.embedded:
        return None
    return log_bytes(path_of(scrape.services.settings.database_url))


@gauge("receiver_disk_nearly_full", "1 if the disk of the data directory has less than 1 GB or 5 % free.")
def _disk_nearly_full(scrape: Scrape) -> float:
    return float(find_disk(scrape.services.settings.data_dir).nearly_full)


@gauge("receiver_backup_age_seconds", "Age of the last successful backup on this node.", label="command")
def _backup_age(scrape: Scrape) -> dict[str, float]:
    found = find_backups(scrape.services.settings.data_dir)
    return {command: (scrape.now - noted.made_at).total_seconds() for command, noted in found.items() if noted.made_at}


@gauge("receiver_backup_failed", "1 if the last backup on this node failed.", label="command")
def _backup_failed(scrape: Scrape) -> dict[str, float]:
    found = find_backups(scrape.services.settings.data_dir)
    return {command: float(noted.failing) for command, noted in found.items()}


@gauge("receiver_projection_lag_seconds", "Age of the oldest push that is acknowledged and not projected; 0 if none.")
def _projection_lag(scrape: Scrape) -> float:
    return scrape.ask(find_oldest_pending) or 0.0


@gauge(
    "receiver_replica_lag_seconds",
    "Upper bound of the replica's lag; infinite if unavailable, absent without a replica.",
)
def _replica_lag(scrape: Scrape) -> float | None:
    if scrape.services.replica is None:
        return None
    lag = scrape.services.replica.lag_seconds()
    return math.inf if lag is None else lag


@gauge("receiver_send_spikes", "Number prefixes that received five times their usual messages in the last hour.")
def _send_spikes(scrape: Scrape) -> float:
    since = scrape.now - timedelta(hours=1)
    found = scrape.ask(
        lambda connection: list_busiest(
            connection, By.PREFIX, since=since, until=scrape.now, min_sent=SPIKE_MIN_SENT, limit=200
        )
    )
    return len({busy.key for busy in found if busy.spike})


@gauge("receiver_balance_points", "Messages left, by the last reading of the balance.", label="account")
def _balance(scrape: Scrape) -> dict[str, float]:
    return {account: reading.remain_point for account, reading in scrape.balances.items()}


@gauge("receiver_balance_low", "1 if the balance is below RECEIVER_BALANCE_LOW.", label="account")
def _balance_low(scrape: Scrape) -> dict[str, float]:
    thresholds = {account: scrape.services.settings.balance_low_of(account) for account in scrape.balances}
    return {
        account: float((threshold := thresholds[account]) is not None and reading.remain_point < threshold)
        for account, reading in scrape.balances.items()
    }


@gauge(
    "receiver_balance_age_seconds",
    "Age of the last reading of the balance, for accounts with credentials.",
    label="account",
)
def _balance_age(scrape: Scrape) -> dict[str, float]:
    asked = {account for account, _, _ in scrape.services.settings.platform_credentials}
    return {
        account: (scrape.now - reading.answered_at).total_seconds()
        for account, reading in scrape.balances.items()
        if account in asked
    }


@gauge(
    "receiver_rows_set_aside",
    "Rows skipped because they cannot be read or have implausible times.",
    label="table",
)
def _rows_set_aside(scrape: Scrape) -> dict[str, float]:
    found = scrape.ask(find_set_aside)
    none = SetAsideRows(count=0, ids=())
    return {table: found.get(table, none).count for table in ("pushes", "messages", "receipts", "replies")}


@gauge("receiver_webhook_queue", "Saved events that are not turned into deliveries yet.")
def _webhook_queue(scrape: Scrape) -> float:
    return scrape.ask(fan_out.count_queue)


@gauge("receiver_webhook_pending", "Pending deliveries per webhook (capped at 100,000).", label="webhook")
def _webhook_pending(scrape: Scrape) -> dict[str, float]:
    return {name: health.pending for name, health in scrape.targets.items()}


@gauge("receiver_webhook_dead_letters", "Failed deliveries per webhook that can be replayed.", label="webhook")
def _webhook_dead(scrape: Scrape) -> dict[str, float]:
    return {name: health.dead for name, health in scrape.targets.items()}


@gauge(
    "receiver_webhook_oldest_age_seconds", "Age of the oldest pending delivery per webhook; 0 if none.", label="webhook"
)
def _webhook_oldest(scrape: Scrape) -> dict[str, float]:
    return {
        name: 0.0 if health.oldest_at is None else max(0.0, (scrape.now - health.oldest_at).total_seconds())
        for name, health in scrape.targets.items()
    }


@gauge("receiver_audit_syslog_lag_seconds", "Age of the oldest audit entry not sent to syslog; 0 if none.")
def _audit_syslog_lag(scrape: Scrape) -> float | None:
    if not scrape.services.settings.audit_syslog:
        return None
    since = scrape.ask(log.find_unshipped_since)
    return 0.0 if since is None else (scrape.now - since).total_seconds()


# --- Gauges for the alarms of deploy/prometheus, equal to those of `receiver run alarms` ------------------------


@gauge(
    "receiver_receipts_overdue_seconds",
    "How long at least five numbers have had no receipt while the platform pushed nothing; 0 if none.",
)
def _unanswered(scrape: Scrape) -> float:
    since = scrape.flow.unanswered_since
    return 0.0 if since is None else (scrape.now - since).total_seconds()


@gauge(
    "receiver_expected_pushes_missing",
    "Pushes received last week in the same period as the current silence, if no sends are recorded; 0 without silence.",
)
def _missed(scrape: Scrape) -> float:
    return scrape.flow.missed_pushes


@gauge(
    "receiver_platform_silent",
    "1: the platform owes pushes and sends none, for longer than RECEIVER_ALARM_SILENT_MINUTES; 0 otherwise.",
)
def _silent(scrape: Scrape) -> float:
    silent_after = scrape.services.settings.alarm_silent
    spooled = bool(scrape.spool.bytes)
    found = rules.find_silence(scrape.flow, spooled=spooled, now=scrape.now, silent_after=silent_after)
    return float(found is not None)


@gauge(
    "receiver_alarm_threshold",
    "Threshold of an alarm, from the settings; beyond it the alarm starts, and Prometheus' alert.",
    label="alarm",
)
def _alarm_threshold(scrape: Scrape) -> dict[str, float]:
    limits = rules.thresholds_of(scrape.services.settings)
    return {
        Alarm.PUSHES_REFUSED: limits.refusals,
        Alarm.PUSHES_QUARANTINED: limits.quarantined,
        Alarm.DELIVERY_FALLEN: limits.delivery_fall,
    }


@gauge("receiver_quarantined_last_hour", "Pushes of the last hour that could not be parsed (capped at 1,000).")
def _quarantined_last_hour(scrape: Scrape) -> float:
    since = scrape.now - timedelta(hours=1)
    return scrape.ask(lambda connection: arrivals.count_quarantined(connection, since=since))


@gauge("receiver_delivery_rate", "Share delivered of the reported messages sent in the window.", label="window")
def _delivery_rate(scrape: Scrape) -> dict[str, float]:
    return {window: rate.share for window, rate in scrape.rates.items() if rate.settled}


@gauge("receiver_settled_messages", "Reported messages sent in the window.", label="window")
def _settled_messages(scrape: Scrape) -> dict[str, float]:
    return {window: rate.settled for window, rate in scrape.rates.items()}
