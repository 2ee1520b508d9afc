"""Messages, receipts and replies: derived from the journal, read, searched and exported."""

from __future__ import annotations

from receiver.messages.balance import Level, Reading, Trend, save_readings
from receiver.messages.events import Event, EventKind, Position, list_events
from receiver.messages.journal import find_oldest_pending
from receiver.messages.projector import Projector, catch_up
from receiver.messages.reads import DATA_LAG, Reads
from receiver.messages.recording import Recorded, RecordResult, match_recorded, record_sent, record_verified
from receiver.messages.send_records import (
    FIELDS,
    InvalidSendRecord,
    SendField,
    SendFieldType,
    SendRecordParser,
    parse_filter_time,
)
from receiver.messages.stamps import settled

__all__ = [
    "DATA_LAG",
    "FIELDS",
    "Event",
    "EventKind",
    "InvalidSendRecord",
    "Level",
    "Position",
    "Projector",
    "Reading",
    "Reads",
    "RecordResult",
    "Recorded",
    "SendField",
    "SendFieldType",
    "SendRecordParser",
    "Trend",
    "catch_up",
    "find_oldest_pending",
    "list_events",
    "match_recorded",
    "parse_filter_time",
    "record_sent",
    "record_verified",
    "save_readings",
    "settled",
]
