"""Records of sends as programs hand them in: what is mended, what is refused."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from receiver.messages.send_records import InvalidSendRecord, SendRecordParser

SHANGHAI = ZoneInfo("Asia/Shanghai")
SENDS = SendRecordParser(zone=SHANGHAI, accounts=frozenset({"default"}))
MOBILE = "15080921090"
ID_ROUNDED = "rounded to the form 1.2E+18 by a spreadsheet: format its column as text and export the ids again"
ID_FLOAT = "made a number with .0 by a spreadsheet or data frame: read its column as text and export it again"
ID_SHOWN = "a number of a spreadsheet, rounded beyond 15 digits: format its column as text and export the ids again"
ID_EMPTY = "a word for no value: leave the cell empty"
ID_MARKED = "begins with a spreadsheet's text apostrophe: remove it"
NO_TIME = "not a time such as 2026-11-23T09:14:03+08:00"


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("3313746.0", ID_FLOAT),
        ("3.63783E+18", ID_ROUNDED),
        ("NULL", ID_EMPTY),
        ("\\N", ID_EMPTY),
        ("'100042", ID_MARKED),
        ("\u200b", "missing"),
    ],
)
def test_id_that_a_spreadsheet_or_data_frame_broke_is_refused(cell: str, fault: str) -> None:
    with pytest.raises(InvalidSendRecord) as refused:
        SENDS.read({"task_id": cell, "mobile": MOBILE})
    assert refused.value.faults == {"task_id": fault}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("3637825\u200b", "3637825"),
        ("\u202d3637825\u202c", "3637825"),
        ("３６３７８２５", "3637825"),
        (3637825123456789012, "3637825123456789012"),
        ("12345678e123", "12345678e123"),  # letters and digits
        ("1.2.3", "1.2.3"),
        ("＝5", "＝5"),
    ],
)
def test_id_loses_what_cannot_be_seen_and_nothing_else(given: str | int, kept: str) -> None:
    sent = SENDS.read({"task_id": given, "mobile": MOBILE, "template_id": given})
    assert (sent.task_id, sent.template_id) == (kept, kept)


@pytest.mark.parametrize("number", [1796010112, 1796010112345, "1796010112345", "2026112304"])
def test_seconds_since_1970_are_no_time(number: str | int) -> None:
    with pytest.raises(InvalidSendRecord) as refused:
        SENDS.read({"task_id": "1", "mobile": MOBILE, "sent_at": number})
    assert refused.value.faults == {"sent_at": NO_TIME}


@pytest.mark.parametrize("return_status", ["1", 1, "1.0", " 1"])
def test_message_of_a_send_that_was_taken_is_no_fault_and_no_error(return_status: str | int) -> None:
    sent = SENDS.read({"task_id": "1", "mobile": MOBILE, "return_status": return_status, "message": "成功"})
    assert sent.error_message is None


@pytest.mark.parametrize("return_status", ["2", "yes", True, 1.0, -1, "0x1"])
def test_return_status_that_is_none_is_named(return_status: object) -> None:
    with pytest.raises(InvalidSendRecord) as refused:
        SENDS.read({"task_id": "1", "mobile": MOBILE, "return_status": return_status})
    assert refused.value.faults == {"return_status": "not 0 or 1"}
