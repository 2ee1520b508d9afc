"""Every metric, defined once. Events are counted here; values read at a scrape are in `web/metrics_collector.py`.

Each serving process counts into files that all of them share (`start_in_files`), so each gauge says how the processes
are combined.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Tally
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from receiver.observability.logging import take_dropped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REGISTRY = CollectorRegistry()


_OBSERVED_MAX = 7 * 86400.0  # a week: one absurd time must not decide a sum for ever


class ManyHistogram(Histogram):
    """A histogram without labels that observes many values at little cost."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of the values; one above the bound counts as the bound."""
        if len(values) <= 1:
            for value in values:
                self.observe(min(value, _OBSERVED_MAX))
            return
        total = sum(values)
        if total > _OBSERVED_MAX:
            total = sum(min(value, _OBSERVED_MAX) for value in values)
        self._sum.inc(total)
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)


# --- Do pushes arrive, and are they stored? ---

PUSHES = Counter("receiver_pushes", "Pushes acknowledged.", ["outcome"], registry=REGISTRY)
FAST_PATH_PUSHES = Counter(
    "receiver_fast_path_pushes", "Pushes answered by the fast path, without Flask.", registry=REGISTRY
)
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
    "Duration of one transaction or one write to the spool.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
    registry=REGISTRY,
)
DRAINED = Counter("receiver_spool_drained_pushes", "Pushes moved from the spool to the database.", registry=REGISTRY)
DATABASE_UP = Gauge(
    "receiver_database_up",
    "1: the database was reachable when last used; 0: at least one process spools its pushes.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "receiver_queue_depth", "Pushes in the queue, not yet durable.", multiprocess_mode="livesum", registry=REGISTRY
)
STORE_FAILURES = Counter(
    "receiver_store_failures", "Transactions that the database did not commit.", ["reason"], registry=REGISTRY
)

# --- How late? ---

ACK_SECONDS = ManyHistogram(
    "receiver_ack_seconds",
    "Time from the last byte of a push to its acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.7, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
RECEIPT_DELAY_SECONDS = ManyHistogram(
    "receiver_receipt_delay_seconds",
    "Time from a receipt's reported time to its arrival, copies included, a week at most: the platform's delay.",
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 21600, 86400),
    registry=REGISTRY,
)

# Requests for API, console and other pages, and those through the send proxy. Pushes have metrics of their own. `route`
# is a template, never a path: no id, number or secret. Requests without a key can create every series, so they are few:
# HEAD and OPTIONS, which every route has, count as "other"; durations are by route alone.
_COUNTED_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
HTTP_REQUESTS = Counter(
    "receiver_http_requests",
    "Requests other than pushes, by route, method and class of the status.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
HTTP_REQUEST_SECONDS = Histogram(
    "receiver_http_request_duration_seconds",
    "Time from a request's head to the end of its answer, the wait that ?wait= asks for included.",
    ["route"],
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)

# --- What is refused? ---

REFUSALS = Counter("receiver_push_refusals", "Pushes refused, nothing stored.", ["reason"], registry=REGISTRY)
PROBES = Counter(
    "receiver_push_probes",
    "Bare requests to a push URL, acknowledged, nothing stored: probes, or redirected pushes.",
    ["method"],
    registry=REGISTRY,
)
REQUEST_TIMEOUTS = Counter(
    "receiver_request_timeouts", "Requests of any kind that were incomplete after 20 s.", registry=REGISTRY
)
LEFT_OVER = Counter(
    "receiver_pushes_left_over",
    "Pushes whose Content-Length was too small: the surplus bytes were skipped.",
    registry=REGISTRY,
)
WOULD_REFUSE = Counter(
    "receiver_push_policy_observed_denials",
    "Pushes accepted that RECEIVER_PUSH_ALLOW (address) or the end of a retiring secret (secret) would refuse.",
    ["reason"],
    registry=REGISTRY,
)
SENDS = Counter("receiver_sends", "Requests to send, by outcome.", ["outcome"], registry=REGISTRY)

AUDIT_SYSLOG_FAILURES = Counter(
    "receiver_audit_syslog_failures", "Failed attempts to send audit entries to syslog.", registry=REGISTRY
)

LOG_LINES_DROPPED = Counter(
    "receiver_log_lines_dropped",
    "Log lines dropped because standard error was not read fast enough.",
    registry=REGISTRY,
)


def count_dropped_lines() -> None:
    """Count the log lines that were dropped since the last call."""
    if count := take_dropped():
        LOG_LINES_DROPPED.inc(count)


# --- Are webhooks delivered? ---

WEBHOOK_ATTEMPTS = Counter(
    "receiver_webhook_attempts",
    "Delivery attempts, by webhook endpoint and outcome.",
    ["webhook", "outcome"],
    registry=REGISTRY,
)

# --- Who serves? ---

PROCESSES = Gauge(
    "receiver_serving_processes", "Serving processes that are running.", multiprocess_mode="livesum", registry=REGISTRY
)
PROCESS_STARTS = Counter("receiver_process_starts", "Serving processes started.", registry=REGISTRY)
CERTIFICATE_NOT_AFTER = Gauge(
    "receiver_certificate_not_after_timestamp_seconds",
    "When the served certificate expires, Unix time; 0: no certificate.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)


def _create_series() -> None:
    """Create the known series at start: `rate` misses a series that begins with 1."""
    for outcome in ("accepted", "quarantined", "spooled"):
        PUSHES.labels(outcome)
    for reason in ("secret", "address", "length", "size", "timeout", "head"):
        REFUSALS.labels(reason)
    for method in ("GET", "HEAD"):
        PROBES.labels(method)
    for reason in ("secret", "address"):
        WOULD_REFUSE.labels(reason)
    for reason in ("DatabaseUnavailable", "DatabaseMisconfigured", "SpoolUnavailable"):
        STORE_FAILURES.labels(reason)
    for outcome in ("accepted", "refused", "outcome_unknown", "local_limit", "unrecorded"):
        SENDS.labels(outcome)


_create_series()


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """A metric as a reader sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def list_metrics() -> list[MetricDescription]:
    """Return every metric that is counted, in the order of this module."""
    found = []
    for metric in globals().values():
        if isinstance(metric, (Counter, Gauge, Histogram)):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = metric._labelnames  # noqa: SLF001  (without a series, nothing else names them)
            found.append(MetricDescription(name, family.type, tuple(labels), family.documentation))
    return found


def count_request(route: str | None, method: str, status: int, seconds: float) -> None:
    """Count an answered request that is no push. `route`: a template; None: its path leads nowhere."""
    route = route or "none"
    method = method if method in _COUNTED_METHODS else "other"
    for each in ("2xx", "4xx", "5xx"):  # at the first request, not at the first error
        HTTP_REQUESTS.labels(route, method, each)
    HTTP_REQUESTS.labels(route, method, f"{status // 100}xx").inc()
    HTTP_REQUEST_SECONDS.labels(route).observe(seconds)


def start_in_files(directory: Path, slot: int) -> None:
    """Count in the slot's files of that directory from now on; called once, in a process just forked.

    prometheus_client decides where a metric counts when it makes the metric's values. They are made again: every module
    imports the metrics long before a process has its slot. By default its files are named by process, not by slot.
    """
    own = [each for each in globals().values() if isinstance(each, (Counter, Gauge, Histogram))]
    for metric in own:
        metric.clear()  # before the directory is set: from then on prometheus_client warns of it
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: slot)
    for metric in own:
        if metric._is_observable():  # noqa: SLF001  (not the parent of labelled ones)
            metric._metric_init()  # noqa: SLF001  (made for values that come later)
    _create_series()
