"""Every metric, defined once: what happens is counted here; what is asked at a scrape is in `web/scrape.py`.

`receiver serve` loads this module again in each serving process, so that all of them count into one place
(`server/counts.py`). So metrics are reached by `metrics.NAME`, and each gauge says how processes are put together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

REGISTRY = CollectorRegistry()


class ManyHistogram(Histogram):
    """A histogram, without labels, that takes many values for the price of a few."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of the values."""
        if len(values) <= 1:
            for value in values:
                self.observe(value)
            return
        self._sum.inc(sum(values))
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)


# --- Are pushes coming, and are they kept? ---

PUSHES = Counter("receiver_pushes", "Pushes acknowledged, once durable.", ["outcome"], registry=REGISTRY)
LANE_PUSHES = Counter("receiver_lane_pushes", "Pushes answered by the push lane, without Flask.", registry=REGISTRY)
LAST_PUSH = Gauge(
    "receiver_last_push_timestamp_seconds",
    "When the last push was acknowledged, Unix time.",
    multiprocess_mode="max",
    registry=REGISTRY,
)
BATCH_PUSHES = ManyHistogram(
    "receiver_batch_pushes",
    "Pushes made durable by one transaction.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    registry=REGISTRY,
)
BATCH_SECONDS = ManyHistogram(
    "receiver_batch_seconds",
    "Time that one transaction, or one write to the spool, took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
    registry=REGISTRY,
)
DRAINED = Counter("receiver_spool_drained_pushes", "Pushes saved from the spool.", registry=REGISTRY)
DATABASE_UP = Gauge(
    "receiver_database_up",
    "1: the database was in reach when last used; 0: pushes of at least one process are spooled.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "receiver_queue_depth", "Pushes that wait to be made durable.", multiprocess_mode="livesum", registry=REGISTRY
)
STORE_FAILURES = Counter(
    "receiver_store_failures", "Transactions that the database did not take.", ["reason"], registry=REGISTRY
)

# --- How late? ---

ACK_SECONDS = ManyHistogram(
    "receiver_ack_seconds",
    "From the whole push read to its acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.7, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
RECEIPT_DELAY_SECONDS = ManyHistogram(
    "receiver_receipt_delay_seconds",
    "From the time that a receipt reports to its arrival, copies included: how late the platform tells.",
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 21600, 86400),
    registry=REGISTRY,
)

# --- What is refused? ---

REFUSALS = Counter("receiver_push_refusals", "Pushes refused, nothing kept.", ["reason"], registry=REGISTRY)
PROBES = Counter(
    "receiver_push_probes",
    "Bare requests to a push URL, acknowledged and not kept: probes, or pushes that were redirected.",
    ["method"],
    registry=REGISTRY,
)
REQUEST_TIMEOUTS = Counter(
    "receiver_request_timeouts", "Requests given up on, pushes or not: not whole after 20 s.", registry=REGISTRY
)
LEFT_OVER = Counter(
    "receiver_pushes_left_over",
    "Pushes with a Content-Length that was too small: what they left over was skipped.",
    registry=REGISTRY,
)
WOULD_REFUSE = Counter(
    "receiver_push_policy_observed_denials",
    "Pushes taken that RECEIVER_PUSH_ALLOW (address), or the end of a retiring secret (secret), would refuse.",
    ["reason"],
    registry=REGISTRY,
)
SENDS = Counter("receiver_sends", "Requests to send, by what became of them.", ["outcome"], registry=REGISTRY)

AUDIT_SYSLOG_FAILURES = Counter(
    "receiver_audit_syslog_failures", "Times that the audit could not be sent on to syslog.", registry=REGISTRY
)

LOG_LINES_DROPPED = Counter(
    "receiver_log_lines_dropped",
    "Lines of the log that were dropped, because they were not read as fast as they came.",
    registry=REGISTRY,
)

# --- Do own systems hear of it? ---

FORWARD_ATTEMPTS = Counter(
    "receiver_webhook_attempts",
    "Deliveries to targets, by what became of each attempt.",
    ["target", "outcome"],
    registry=REGISTRY,
)

# --- Who serves? ---

PROCESSES = Gauge(
    "receiver_serving_processes", "Serving processes that are up.", multiprocess_mode="livesum", registry=REGISTRY
)
PROCESS_STARTS = Counter("receiver_process_starts", "Serving processes that were started.", registry=REGISTRY)
CERTIFICATE_NOT_AFTER = Gauge(
    "receiver_certificate_not_after_timestamp_seconds",
    "When the certificate that is served ends, Unix time; 0: none is served.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)

# There from the beginning: a rate cannot be seen of what begins with 1.
for _outcome in ("accepted", "quarantined", "spooled"):
    PUSHES.labels(_outcome)
for _reason in ("secret", "address", "length", "size", "timeout", "head"):
    REFUSALS.labels(_reason)
for _method in ("GET", "HEAD"):
    PROBES.labels(_method)
for _reason in ("secret", "address"):
    WOULD_REFUSE.labels(_reason)
