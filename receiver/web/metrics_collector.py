"""What a scrape asks of database and disk, so that every serving process gives the same answer.

What happens in a process is counted where it happens, in `metrics.py`. What can be looked up is not kept there, but
asked for here, when somebody wants to know. A new gauge is a function:

    @gauge("receiver_quarantined_pushes", "Pushes that could not be read, of the last day.")
    def _quarantined(scrape: Scrape) -> float:
        return scrape.ask(lambda connection: count_quarantined(connection, since=scrape.now - timedelta(days=1)))

It gives a number; with `label="account"`, a number by the label's value; None where there is nothing to tell. While the
database cannot tell, the gauge is left out: no number is better than an old one. What several gauges need is a
`cached_property` of Scrape. Each question costs its time at every scrape: keep it to what an index answers.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from receiver.alerting import Rate, SetAsideRows, figures, find_set_aside
from receiver.audit import log
from receiver.core import ReceiverError, find_disk
from receiver.db.sqlite import log_bytes, path_of
from receiver.intake import SpoolState, spool_state
from receiver.maintenance.backup_notes import find_backups
from receiver.messages import Reading, balance, find_lag_seconds
from receiver.reporting.busiest import SPIKE_MIN_SENT, By, list_busiest
from receiver.support import signals
from receiver.webhooks import endpoints, fan_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from prometheus_client.core import Metric

    from receiver.db.engine import Connection
    from receiver.runtime import Runtime
    from receiver.webhooks.endpoints import Health

T = TypeVar("T")


class Scrape(Collector):
    """The gauges of one scrape, or of one look by whoever watches without Prometheus."""

    def __init__(self, parts: Runtime) -> None:
        self.parts = parts
        self.now = parts.now()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Ask the database, at once or not at all. Raises StoreUnavailable or StoreUnfit."""
        return self.parts.ask(question)

    @cached_property
    def spool(self) -> SpoolState:
        """What waits in the spool directory."""
        return spool_state(self.parts.spool.directory)

    @cached_property
    def balances(self) -> Mapping[str, Reading]:
        """The last reading of each account's balance."""
        return self.ask(lambda connection: balance.find_last_readings(connection, now=self.now))

    @cached_property
    def targets(self) -> Mapping[str, Health]:
        """What waits for each target, by its name."""
        found = self.ask(endpoints.list_targets)
        return {one.name: self.ask(partial(endpoints.find_health, target=one)) for one in found}

    @cached_property
    def last_push_at(self) -> datetime | None:
        """When the platform pushed last."""
        found = self.ask(lambda connection: signals.find_last_push(connection, now=self.now))
        return found.at if found else None

    @cached_property
    def rates(self) -> Mapping[str, Rate]:
        """How many of the messages that were sent in a span, and are reported, were delivered."""
        return {
            "30m": self.ask(lambda connection: figures.find_recent_rate(connection, now=self.now)),
            "7d": self.ask(lambda connection: figures.find_usual_rate(connection, now=self.now)),
        }

    def collect(self) -> Iterator[Metric]:
        """Return every gauge that can be told now."""
        for each in _GAUGES:
            family = GaugeMetricFamily(each.name, each.help_text, labels=[each.label] if each.label else None)
            for value, number in self.values(each).items():
                family.add_metric([value] if each.label else [], number)
            yield family

    def values(self, each: _Gauge) -> Mapping[str, float]:
        """Return a gauge's numbers by its label's value, by the empty text where it has none."""
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


def gauge(
    name: str, help_text: str, *, label: str | None = None
) -> Callable[[Callable[[Scrape], Found]], Callable[[Scrape], Found]]:
    """Make a gauge of a function that finds its number, or its numbers by the label's value."""

    def register(find: Callable[[Scrape], Found]) -> Callable[[Scrape], Found]:
        _GAUGES.append(_Gauge(name=name, help_text=help_text, label=label, find=find))
        return find

    return register


def age_seconds(spool: SpoolState) -> float:
    """Return the age of the oldest file in the spool; 0: none waits."""
    return 0.0 if spool.oldest_at is None else round(max(0.0, time.time() - spool.oldest_at), 1)


@gauge("receiver_spool_records", "Records that wait in the spool directory.")
def _spool_records(scrape: Scrape) -> float:
    return scrape.spool.records


@gauge("receiver_spool_bytes", "Bytes of what waits in the spool directory.")
def _spool_bytes(scrape: Scrape) -> float:
    return scrape.spool.bytes


@gauge("receiver_spool_max_bytes", "RECEIVER_SPOOL_MAX_BYTES: beyond it, and without the database, pushes are refused.")
def _spool_max_bytes(scrape: Scrape) -> float:
    return scrape.parts.settings.spool_max_bytes


@gauge("receiver_spool_oldest_age_seconds", "Age of the oldest file in the spool; 0: none.")
def _spool_oldest(scrape: Scrape) -> float:
    return age_seconds(scrape.spool)


@gauge("receiver_spool_damaged_files", "Spool files of which a part could not be read; they stay for an operator.")
def _spool_damaged(scrape: Scrape) -> float:
    return len(scrape.spool.damaged)


@gauge(
    "receiver_sqlite_log_bytes",
    "Size of the embedded database's write-ahead log; it grows while an old state is being read. Left out: PostgreSQL.",
)
def _sqlite_log(scrape: Scrape) -> float | None:
    if not scrape.parts.settings.embedded:
        return None
    return log_bytes(path_of(scrape.parts.settings.database_url))


@gauge("receiver_disk_nearly_full", "1: the disk of the data directory has less than a gigabyte left, or than 5 %.")
def _disk_nearly_full(scrape: Scrape) -> float:
    return float(find_disk(scrape.parts.settings.data_dir).nearly_full)


@gauge("receiver_backup_age_seconds", "Age of the last good backup that was made on this node.", label="command")
def _backup_age(scrape: Scrape) -> dict[str, float]:
    found = find_backups(scrape.parts.settings.data_dir)
    return {command: (scrape.now - noted.made_at).total_seconds() for command, noted in found.items() if noted.made_at}


@gauge("receiver_backup_failed", "1: the last try of a backup on this node has failed.", label="command")
def _backup_failed(scrape: Scrape) -> dict[str, float]:
    found = find_backups(scrape.parts.settings.data_dir)
    return {command: float(noted.failing) for command, noted in found.items()}


@gauge("receiver_events_lag_seconds", "For how long a transaction that does not end has held the events back; 0: none.")
def _events_lag(scrape: Scrape) -> float:
    return scrape.ask(find_lag_seconds)


@gauge(
    "receiver_replica_lag_seconds", "How far the replica is behind at most; infinite: away; left out: there is none."
)
def _replica_lag(scrape: Scrape) -> float | None:
    if scrape.parts.replica is None:
        return None
    lag = scrape.parts.replica.lag_seconds()
    return math.inf if lag is None else lag


@gauge("receiver_send_spikes", "Prefixes of numbers that were sent to five times as often as usual, in the last hour.")
def _send_spikes(scrape: Scrape) -> float:
    since = scrape.now - timedelta(hours=1)
    found = scrape.ask(
        lambda connection: list_busiest(
            connection, By.PREFIX, since=since, until=scrape.now, min_sent=SPIKE_MIN_SENT, limit=200
        )
    )
    return len({busy.key for busy in found if busy.spike})


@gauge("receiver_balance_points", "Messages left, by the last reading.", label="account")
def _balance(scrape: Scrape) -> dict[str, float]:
    return {account: reading.remain_point for account, reading in scrape.balances.items()}


@gauge("receiver_balance_low", "1: fewer are left than RECEIVER_BALANCE_LOW.", label="account")
def _balance_low(scrape: Scrape) -> dict[str, float]:
    thresholds = {account: scrape.parts.settings.balance_low_of(account) for account in scrape.balances}
    return {
        account: float((threshold := thresholds[account]) is not None and reading.remain_point < threshold)
        for account, reading in scrape.balances.items()
    }


@gauge(
    "receiver_balance_age_seconds",
    "Age of the last reading of the balance, of accounts with credentials.",
    label="account",
)
def _balance_age(scrape: Scrape) -> dict[str, float]:
    asked = {account for account, _, _ in scrape.parts.settings.platform_credentials}
    return {
        account: (scrape.now - reading.answered_at).total_seconds()
        for account, reading in scrape.balances.items()
        if account in asked
    }


@gauge(
    "receiver_rows_set_aside",
    "Rows that cannot be read, or whose times cannot be right, and that are left out of what they would end.",
    label="table",
)
def _rows_set_aside(scrape: Scrape) -> dict[str, float]:
    found = scrape.ask(find_set_aside)
    none = SetAsideRows(count=0, ids=())
    return {table: found.get(table, none).count for table in ("pushes", "messages", "receipts", "replies")}


@gauge("receiver_webhook_queue", "What was kept and is not made into deliveries yet.")
def _forward_queue(scrape: Scrape) -> float:
    return scrape.ask(fan_out.count_queue)


@gauge("receiver_webhook_pending", "Deliveries that wait for a target; 100,000 stands for more.", label="target")
def _forward_pending(scrape: Scrape) -> dict[str, float]:
    return {name: health.pending for name, health in scrape.targets.items()}


@gauge("receiver_webhook_dead_letters", "Deliveries that were given up and may be replayed.", label="target")
def _forward_dead(scrape: Scrape) -> dict[str, float]:
    return {name: health.dead for name, health in scrape.targets.items()}


@gauge("receiver_webhook_oldest_age_seconds", "Age of the oldest that waits for a target; 0: none.", label="target")
def _forward_oldest(scrape: Scrape) -> dict[str, float]:
    return {
        name: 0.0 if health.oldest_at is None else max(0.0, (scrape.now - health.oldest_at).total_seconds())
        for name, health in scrape.targets.items()
    }


@gauge(
    "receiver_audit_syslog_lag_seconds", "Age of the oldest audit entry that was not sent on to syslog; 0: all were."
)
def _audit_syslog_lag(scrape: Scrape) -> float | None:
    if not scrape.parts.settings.audit_syslog:
        return None
    since = scrape.ask(log.find_unshipped_since)
    return 0.0 if since is None else (scrape.now - since).total_seconds()


# --- What the alarms of deploy/prometheus are judged by, as `receiver run alarms` is --------------------------


@gauge(
    "receiver_receipts_overdue_seconds",
    "For how long five numbers have waited for a receipt while the platform pushed nothing at all; 0: they do not.",
)
def _unanswered(scrape: Scrape) -> float:
    since = scrape.ask(
        lambda connection: figures.find_unanswered_since(connection, scrape.last_push_at, now=scrape.now)
    )
    return 0.0 if since is None else (scrape.now - since).total_seconds()


@gauge(
    "receiver_expected_pushes_missing",
    "Pushes of last week in the stretch that is silent now, where no sends are recorded; 0: it is not silent.",
)
def _missed(scrape: Scrape) -> float:
    return scrape.ask(lambda connection: figures.count_missed(connection, scrape.last_push_at, now=scrape.now))


@gauge("receiver_quarantined_last_hour", "Pushes of the last hour that nobody could read yet; 1,000 stands for more.")
def _quarantined_last_hour(scrape: Scrape) -> float:
    since = scrape.now - timedelta(hours=1)
    return scrape.ask(lambda connection: signals.count_quarantined(connection, since=since))


@gauge(
    "receiver_delivery_rate", "Delivered of the messages that were sent in the window and are reported.", label="window"
)
def _delivery_rate(scrape: Scrape) -> dict[str, float]:
    return {window: rate.share for window, rate in scrape.rates.items() if rate.settled}


@gauge("receiver_settled_messages", "Messages that were sent in the window and are reported.", label="window")
def _settled_messages(scrape: Scrape) -> dict[str, float]:
    return {window: rate.settled for window, rate in scrape.rates.items()}
