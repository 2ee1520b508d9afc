"""Every metric, defined once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PUSHES = Counter("receiver_pushes", "Pushes acknowledged, once durable.", ["outcome"])
LANE_PUSHES = Counter("receiver_lane_pushes", "Pushes answered by the push lane, without Flask.")
REFUSALS = Counter("receiver_push_refusals", "Pushes refused, nothing kept.", ["reason"])
ACK_SECONDS = Histogram(
    "receiver_ack_seconds",
    "From the whole push read to its acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.7, 1, 2.5, 5, 10),
)
BATCH_PUSHES = Histogram(
    "receiver_batch_pushes",
    "Pushes made durable by one transaction.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_SECONDS = Histogram(
    "receiver_batch_seconds",
    "Time that one transaction, or one write to the spool, took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
DRAINED = Counter("receiver_spool_drained_pushes", "Pushes saved from the spool.")
DATABASE_UP = Gauge("receiver_database_up", "1: the database was in reach when last used; 0: pushes are spooled.")
SPOOL_RECORDS = Gauge("receiver_spool_records", "Records that wait in the spool directory.")
SPOOL_BYTES = Gauge("receiver_spool_bytes", "Bytes of what waits in the spool directory.")
SPOOL_OLDEST = Gauge("receiver_spool_oldest_age_seconds", "Age of the oldest file in the spool; 0: none.")
QUEUE_DEPTH = Gauge("receiver_queue_depth", "Pushes that wait to be made durable.")
LAST_PUSH = Gauge("receiver_last_push_timestamp_seconds", "When the last push was acknowledged, Unix time.")
STORE_FAILURES = Counter("receiver_store_failures", "Transactions that the database did not take.", ["reason"])
EVENTS_LAG = Gauge(
    "receiver_events_lag_seconds", "For how long a transaction that does not end has held the events back; 0: none."
)
SENDS = Counter("receiver_sends", "Requests to send, by what became of them.", ["outcome"])
SEND_SPIKES = Gauge(
    "receiver_send_spikes", "Prefixes of numbers that were sent to five times as often as usual, in the last hour."
)
BALANCE = Gauge("receiver_balance_points", "Messages left, by the last reading.", ["account"])
BALANCE_LOW = Gauge("receiver_balance_low", "1: fewer are left than RECEIVER_BALANCE_LOW.", ["account"])
BALANCE_AGE = Gauge("receiver_balance_age_seconds", "Age of the last reading of the balance.", ["account"])
