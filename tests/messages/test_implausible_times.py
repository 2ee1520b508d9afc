"""Times from outside are held to bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.core import UNREADABLE_TIME, Receipt, Unreadable, read_time, write_time
from receiver.messages import queries
from tests.conftest import SECRET
from tests.harness.factories import READER

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def body(moment: datetime) -> bytes:
    local = moment.astimezone(READER.zone)
    return f"mobile=15080921090&taskid=1&status=1&receivetime={local:%Y-%m-%d %H:%M:%S}".encode()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23 04:00:00.000000", AT),
        ("226-11-20 01:54:17.000000", datetime(226, 11, 20, 1, 54, 17, tzinfo=UTC)),
        ("1-01-01 15:54:17.000000", datetime(1, 1, 1, 15, 54, 17, tzinfo=UTC)),
        ("yesterday", UNREADABLE_TIME),
        ("", UNREADABLE_TIME),
        (None, UNREADABLE_TIME),
        ("226-13-45 01:54:17", UNREADABLE_TIME),
    ],
)
def test_embedded_databases_times_are_read_by_one_function_that_never_raises(text: str, moment: datetime) -> None:
    assert read_time(text) == moment


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(226, 1, 1, tzinfo=UTC), AT])
def test_they_are_written_with_four_digits_of_a_year_and_sort_as_they_follow(moment: datetime) -> None:
    assert read_time(write_time(moment)) == moment
    assert write_time(moment) <= write_time(AT)


# --- Our own clock --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=48)])
def test_time_up_to_48_hours_ahead_of_its_arrival_is_read(ahead: timedelta) -> None:
    reading, flags = READER.read(body=body(AT + ahead), query=b"", endpoint=None, seen_at=AT)
    assert isinstance(reading, Receipt)
    assert (reading.reported_at, flags) == (AT + ahead, ())


def test_time_further_ahead_is_quarantined_and_read_where_our_clock_is_behind() -> None:
    ahead = AT + timedelta(hours=48, seconds=1)
    reading, _ = READER.read(body=body(ahead), query=b"", endpoint=None, seen_at=AT)
    assert reading == Unreadable(error="receivetime: more than 48 hours ahead")
    reading, flags = READER.read(body=body(ahead), query=b"", endpoint=None, seen_at=AT, clock=False)
    assert isinstance(reading, Receipt)
    assert flags == ("clock",)


def test_clock_behind_the_newest_row_costs_no_push(runtime: Runtime) -> None:
    now = datetime.now(UTC)
    runtime.admission.record_newest_push_at(now + timedelta(days=300))  # the row of a day on which the clock was right
    answer = create_app(runtime).test_client().post(f"/push/{SECRET}", data=body(now + timedelta(days=300)))
    assert answer.headers["X-Push-Outcome"] == "accepted"
    (row,) = runtime.ask(lambda connection: queries.list_pushes(connection, queries.Page(limit=1)))
    assert list(row.flags) == ["clock"]
    # Read again, by whoever proves or saves it, it stays what it was.
    assert isinstance(runtime.admission.read_again(row.as_push()).reading, Receipt)
    assert isinstance(runtime.admission.read_spooled(row.as_push()).reading, Receipt)


def test_replay_holds_a_time_to_the_replays_own(runtime: Runtime, client: FlaskClient, bearer: dict[str, str]) -> None:
    ahead = datetime.now(UTC) + timedelta(days=3)
    refused = client.post(f"/push/{SECRET}", data=body(ahead))
    assert refused.headers["X-Push-Error"] == "receivetime: more than 48 hours ahead"
    path = f"/api/v1/pushes/{refused.headers['X-Push-Id']}/replay"
    assert client.post(path, headers=bearer).json["outcome"] == "quarantined"
    push = runtime.admission.read_again(
        runtime.ask(lambda connection: queries.list_pushes(connection, queries.Page(limit=1)))[0].as_push(),
        seen_at=ahead,
    )
    assert isinstance(push.reading, Receipt)


@pytest.mark.parametrize(
    ("sent_at", "fault"),
    [
        ("9999-12-31T23:59:59Z", "more than 48 hours ahead"),
        ("9999-12-31 23:59:59", "more than 48 hours ahead"),
        ("1999-12-31 23:59:59", "before 2000"),
        ("0226-11-20T10:00:00Z", "before 2000"),
        (1796010112345, "not a time such as 2026-11-23T09:14:03+08:00"),
    ],
)
def test_send_of_a_time_that_cannot_be_right_is_refused(
    client: FlaskClient, bearer: dict[str, str], sent_at: object, fault: str
) -> None:
    item = {"task_id": "1", "mobile": "15080921090", "sent_at": sent_at}
    answer = client.post("/api/v1/messages", json=item, headers=bearer)
    assert answer.status_code == 422
    assert answer.json["errors"] == [{"pointer": "#/sent_at", "detail": fault}]
    assert client.get("/api/v1/messages", headers=bearer).json["items"] == []
