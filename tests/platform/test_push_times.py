"""Times in other forms than the platform's: read where the settings say how, quarantined where not, never an error."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from receiver.core import Receipt, Unreadable
from receiver.platform.push_parser import PushReader


def read(time: str, *forms: str) -> Receipt | Unreadable:
    reader = PushReader(zone=ZoneInfo("Asia/Shanghai"), time_formats=forms)
    body = f"mobile=15080921090&taskid=1&status=1&receivetime={quote(time)}".encode()
    reading, _ = reader.read(body=body, query=b"", endpoint=None)
    assert isinstance(reading, Receipt | Unreadable)
    return reading


@pytest.mark.parametrize(
    ("time", "form"),
    [
        ("2026/11/23 09:14:03", "%Y/%m/%d %H:%M:%S"),
        ("2026年11月23日 09:14:03", "%Y年%m月%d日 %H:%M:%S"),
        ("2026-11-23T01:14:03+0000", "%Y-%m-%dT%H:%M:%S%z"),
    ],
)
def test_time_in_a_form_of_the_settings_is_read(time: str, form: str) -> None:
    reading = read(time, "%d.%m.%Y %H:%M:%S", form)
    assert isinstance(reading, Receipt)
    assert reading.reported_at == datetime(2026, 11, 23, 1, 14, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "form", ["%H:%m:%m", "%Y,%Y", "%", "%Q", "(", "%s", "%G %Y", "%z", "%Y-%m-%d %H:%M:%S%z", "", "%c%c", "\0"]
)
@pytest.mark.parametrize(
    "time", ["2026/11/23 09:14:03", "0001-01-01 00:00:00+2359", "(", "+9999", "２０２６/11/23 09:14:03", "12:11:10"]
)
def test_form_that_no_start_would_take_raises_nothing(time: str, form: str) -> None:
    assert isinstance(read(time, form), Unreadable | Receipt)


def test_digits_of_full_width_are_no_time() -> None:
    assert isinstance(read("２０２６/11/23 09:14:03", "%Y/%m/%d %H:%M:%S"), Unreadable)
