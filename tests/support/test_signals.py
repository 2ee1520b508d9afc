"""What the present looks like, by the newest rows: the platform's silence, what arrives, what could not be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.alerting.diagnosis import DiagnosisReason, Judgement, Situation, Verdict, judge
from receiver.core import Disk, Kind, first_id_of
from receiver.db.tables import receipts
from receiver.intake import replay_push
from receiver.messages import recording
from receiver.net.self_test import SELF_TEST_BODY
from receiver.support import signals
from receiver.support.signals import LastPush, Minute, RecentDelivery, Silence
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.core import Push, SentMessage
    from receiver.runtime import Runtime

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = NOON + timedelta(seconds=30)


def pushed(at: datetime, *, number: int = 0, **changes: Any) -> Push:
    """A push as it came at that moment, under an id of that moment."""
    push = make_push(task_id=f"t{number}", mobile=f"150809{number:05d}", **changes)
    return replace(push, id=first_id_of(at), received_at=at)


def unreadable(at: datetime, body: bytes = b"mobile=1", **changes: Any) -> Push:
    return replace(pushed(at, body=body), **changes)


def sent(at: datetime | None, *, number: int = 0, **changes: Any) -> SentMessage:
    return make_send(task_id=f"t{number}", mobile=f"150809{number:05d}", sent_at=at, **changes)


def keep(runtime: Runtime, *pushes: Push) -> None:
    save_pushes(runtime.database, pushes)


def record(runtime: Runtime, *sends: SentMessage, recorded_at: datetime = NOW) -> None:
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=recorded_at))


def last_push(runtime: Runtime) -> LastPush | None:
    return runtime.ask(lambda c: signals.find_last_push(c, now=NOW + MINUTE))


# --- The last push --------------------------------------------------------------------------------------


def test_empty_database_has_no_signals(runtime: Runtime) -> None:
    assert last_push(runtime) is None
    assert silence(runtime) is None
    assert delivery(runtime) is None
    assert unreported(runtime) == []
    assert quarantined(runtime) == 0
    assert about(runtime, b"1") is None
    assert minutes(runtime, minutes=2) == [(NOON - MINUTE, 0, 0, 0), (NOON, 0, 0, 0)]


def test_last_push_is_that_of_the_newest_id(runtime: Runtime) -> None:
    keep(runtime, replace(unreadable(NOON), remote_addr="10.0.0.2"))
    keep(runtime, pushed(NOON - SECOND))
    assert last_push(runtime) == LastPush(at=NOON, remote_addr="10.0.0.2", outcome="quarantined", kind=None)
    keep(runtime, pushed(NOON + SECOND, content="好"))
    assert last_push(runtime) == LastPush(
        at=NOON + SECOND, remote_addr="127.0.0.1", outcome="accepted", kind=Kind.REPLY
    )


# --- Minutes --------------------------------------------------------------------------------------------


def minutes(runtime: Runtime, **asked: Any) -> list[tuple[datetime, int, int, int]]:
    found: Sequence[Minute] = runtime.ask(lambda c: signals.list_minutes(c, now=NOW, **asked))
    return [(minute.at, minute.pushes, minute.sent, minute.receipts) for minute in found]


def test_a_minute_has_what_came_from_its_beginning_to_just_before_the_next(runtime: Runtime) -> None:
    ago = NOON - 2 * MINUTE
    keep(
        runtime,
        pushed(ago - timedelta(milliseconds=1), number=1),  # before the span
        pushed(ago, number=2),
        pushed(ago + SECOND, number=2, second=1),
        pushed(ago + 2 * SECOND, number=2),  # a copy: no receipt more
        pushed(NOON - timedelta(milliseconds=1), number=3, content="好"),
        unreadable(NOON),
    )
    record(
        runtime,
        sent(ago - timedelta(milliseconds=1), number=1),
        sent(ago, number=2),
        sent(NOON - timedelta(milliseconds=1), number=3),
        make_send(task_id=None, reference="r", sent_at=NOON, error_message="余额不足"),  # refused: nothing was sent
        sent(None, number=4),
        recorded_at=NOON + SECOND,
    )
    assert minutes(runtime, minutes=3) == [(ago, 3, 1, 2), (NOON - MINUTE, 1, 1, 0), (NOON, 1, 1, 0)]
    assert [minute[0] for minute in minutes(runtime)] == [NOON - n * MINUTE for n in range(59, -1, -1)]


def test_minutes_end_where_the_newest_pushes_no_longer_cover_them(runtime: Runtime) -> None:
    keep(runtime, *(unreadable(NOON - n * 20 * SECOND) for n in range(7)))  # 1, 3 and 3 a minute
    whole = [(NOON - 2 * MINUTE, 3, 0, 0), (NOON - MINUTE, 3, 0, 0), (NOON, 1, 0, 0)]
    assert minutes(runtime, minutes=3, at_most=7) == whole  # exactly the cap
    assert minutes(runtime, minutes=3, at_most=6) == whole[1:]
    assert minutes(runtime, minutes=3, at_most=4) == whole[1:]  # the first one left out is in another minute
    assert minutes(runtime, minutes=3, at_most=3) == whole[2:]
    assert minutes(runtime, minutes=3, at_most=1) == whole[2:]
    assert minutes(runtime, minutes=3, at_most=0) == []


def test_what_lies_before_the_minutes_takes_none_away(runtime: Runtime) -> None:
    keep(runtime, *(pushed(NOON - (3 + n) * MINUTE, number=n) for n in range(9)))
    keep(runtime, pushed(NOON, number=10))
    assert minutes(runtime, minutes=3, at_most=2) == [
        (NOON - 2 * MINUTE, 0, 0, 0),
        (NOON - MINUTE, 0, 0, 0),
        (NOON, 1, 0, 1),
    ]


def test_sends_of_a_clock_that_is_ahead_take_none_away(runtime: Runtime) -> None:
    record(runtime, sent(NOON, number=1), *(sent(NOON + MINUTE, number=n) for n in (2, 3)))
    assert minutes(runtime, minutes=1, at_most=1) == [(NOON, 0, 1, 0)]


@pytest.mark.parametrize("kind", ["sends", "receipts"])
def test_all_kinds_have_the_same_minutes(runtime: Runtime, kind: str) -> None:
    for n in range(5):
        at = NOON - n * MINUTE
        keep(runtime, unreadable(at))
        if kind == "sends":
            record(runtime, sent(at, number=n), sent(at, number=10 + n))
    if kind == "receipts":
        rows = [receipt_row(NOON - n * MINUTE, number) for n in range(4, -1, -1) for number in (2 * n, 2 * n + 1)]
        runtime.database.write(lambda c: c.execute(sa.insert(receipts), rows))
    counts = (1, 2, 0) if kind == "sends" else (1, 0, 2)
    for cap, whole in ((10, 5), (9, 4), (8, 4), (7, 3), (5, 2)):
        found = minutes(runtime, minutes=5, at_most=cap)
        assert found == [(NOON - n * MINUTE, *counts) for n in range(whole - 1, -1, -1)], cap


def receipt_row(at: datetime, number: int) -> dict[str, Any]:
    times = {"received_at": at, "last_seen_at": at, "reported_at": at}
    return {**times, "message_id": number, "push_id": first_id_of(at), "copies": 1, "vendor_status": "1"}


def test_receipts_that_a_spool_brought_late_hide_none(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_FIRST_CHUNK", 3)
    times = [NOON - MINUTE, NOON - DAY, NOON - DAY, NOON, NOON - DAY]
    rows = [receipt_row(at, number) for number, at in enumerate(times)]
    runtime.database.write(lambda c: c.execute(sa.insert(receipts), rows))
    assert minutes(runtime, minutes=2) == [(NOON - MINUTE, 0, 0, 1), (NOON, 0, 0, 1)]


# --- Silence --------------------------------------------------------------------------------------------


def silence(runtime: Runtime, now: datetime = NOW) -> Silence | None:
    return runtime.ask(lambda c: signals.find_silence(c, now=now))


def waiting(runtime: Runtime, count: int, at: datetime) -> None:
    record(runtime, *(sent(at, number=100 + n) for n in range(count)))


@pytest.mark.parametrize(
    ("sends", "age", "quiet", "silent"),
    [
        (5, 61, 121, True),
        (5, 61, 120, False),  # not longer than two minutes
        (5, 60, 121, False),  # not older than a minute
        (4, 61, 121, False),
    ],
)
def test_silent_with_sends_that_wait(runtime: Runtime, sends: int, age: int, quiet: int, silent: bool) -> None:
    last = NOW - quiet * SECOND
    keep(runtime, pushed(last))
    waiting(runtime, sends, NOW - age * SECOND)
    expected = Silence(since=last, usual_gap_seconds=0.0, unreported_sends=5) if silent else None
    assert silence(runtime) == expected


def test_what_we_push_to_ourselves_says_nothing_of_the_platform(runtime: Runtime) -> None:
    last = NOW - 20 * MINUTE
    own = replace(pushed(NOW - MINUTE, number=2), body=SELF_TEST_BODY + b"1&status=1")
    keep(runtime, own)
    assert last_push(runtime) is None
    keep(runtime, pushed(last, number=1))
    found = last_push(runtime)
    assert found is not None
    assert found.at == last
    waiting(runtime, 5, NOW - 15 * MINUTE)
    assert silence(runtime) == Silence(since=last, usual_gap_seconds=0.0, unreported_sends=5)
    minutes = runtime.ask(lambda connection: signals.list_minutes(connection, now=NOW))
    assert sum(minute.pushes for minute in minutes) == 1


def test_only_sends_that_the_platform_took_and_that_no_push_followed_wait(runtime: Runtime) -> None:
    last = NOW - 10 * MINUTE
    keep(runtime, pushed(last, number=1))
    waiting(runtime, 4, NOW - 9 * MINUTE)
    record(
        runtime,
        sent(last, number=2),  # not since the last push
        sent(NOW - 9 * MINUTE, number=1),  # has a receipt
        make_send(task_id=None, reference="r", sent_at=NOW - 9 * MINUTE, error_message="余额不足"),
    )
    runtime.recorder.begin(make_attempt(sent_at=NOW - 9 * MINUTE), day_began=NOON)
    assert silence(runtime) is None
    record(runtime, sent(NOW - 9 * MINUTE, number=200))
    assert silence(runtime) == Silence(since=last, usual_gap_seconds=0.0, unreported_sends=5)


def test_with_sends_the_usual_gap_is_one_that_nights_do_not_make(runtime: Runtime) -> None:
    last = NOW - HOUR
    times = [last - n * MINUTE for n in range(96)]  # 95 gaps of a minute, and 5 of nights
    times += [times[-1] - n * 8 * HOUR for n in range(1, 6)]
    keep(runtime, *(unreadable(at) for at in times))
    waiting(runtime, 5, last + SECOND)
    at_once = last + 3 * MINUTE
    assert silence(runtime, at_once) is None
    assert silence(runtime, at_once + SECOND) == Silence(since=last, usual_gap_seconds=60.0, unreported_sends=5)


def test_no_more_than_a_thousand_waiting_sends_are_counted(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_UNREPORTED_MAX", 7)
    keep(runtime, pushed(NOW - HOUR))
    waiting(runtime, 8, NOW - 30 * MINUTE)
    assert silence(runtime) == Silence(since=NOW - HOUR, usual_gap_seconds=0.0, unreported_sends=7)


@pytest.mark.parametrize(("gap", "least"), [(4 * MINUTE, 15 * MINUTE), (6 * MINUTE, 18 * MINUTE)])
def test_without_sends_the_time_alone_decides(runtime: Runtime, gap: timedelta, least: timedelta) -> None:
    keep(runtime, unreadable(NOON - gap), unreadable(NOON))
    assert silence(runtime, NOON + least) is None
    assert silence(runtime, NOON + least + SECOND) == Silence(
        since=NOON, usual_gap_seconds=gap.total_seconds(), unreported_sends=0
    )


def test_without_sends_a_night_is_no_silence_even_where_the_newest_pushes_know_of_none(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_GAPS_MAX", 10)
    night = [NOON - 3 * DAY, NOON - 3 * DAY + 5 * HOUR]
    long_ago = [NOON - 9 * DAY, NOON - 9 * DAY + 20 * HOUR]  # before the week
    daytime = [NOON - 3 * DAY + 5 * HOUR + n * 10 * MINUTE for n in range(1, 67 * 6 + 1)]
    before = [NOON - 8 * DAY + n * HOUR for n in range(5 * 24)]
    keep(runtime, *(unreadable(at) for at in [*long_ago, *before, *night, *daytime]))
    assert daytime[-1] == NOON
    assert silence(runtime, NOON + 15 * HOUR) is None
    assert silence(runtime, NOON + 15 * HOUR + SECOND) == Silence(
        since=NOON, usual_gap_seconds=5 * 3600.0, unreported_sends=0
    )


def test_a_send_of_the_week_makes_a_quiet_time_no_silence(runtime: Runtime) -> None:
    keep(runtime, pushed(NOON))
    expected = Silence(since=NOON, usual_gap_seconds=0.0, unreported_sends=0)
    record(runtime, sent(NOON - 7 * DAY - SECOND, number=1))
    assert silence(runtime, NOON + HOUR) == expected
    record(runtime, sent(NOON - 7 * DAY, number=2))
    assert silence(runtime, NOON + HOUR) is None


# --- Delivery -------------------------------------------------------------------------------------------


def delivery(runtime: Runtime, template_id: str | None = "540", **asked: Any) -> RecentDelivery | None:
    return runtime.ask(
        lambda c: signals.find_recent_delivery(c, account="default", template_id=template_id, now=NOW, **asked)
    )


def deliver(runtime: Runtime, latencies: Sequence[int | None], *, template_id: str | None = "540") -> None:
    """Record a send at noon, and what was delivered after so many seconds; None: nothing was reported."""
    sends = [sent(NOON - 5 * MINUTE, number=n, template_id=template_id) for n in range(len(latencies))]
    record(runtime, *sends)
    keep(
        runtime,
        *(
            replace(pushed(NOON + n * timedelta(milliseconds=1), number=n, second=latency - 300))
            for n, latency in enumerate(latencies)
            if latency is not None
        ),
    )


def test_delivery_is_told_by_the_95th_percentile(runtime: Runtime) -> None:
    deliver(runtime, [*range(1, 20), 100, None, None])
    assert delivery(runtime) == RecentDelivery(sent=22, arrived=20, within_seconds=19, share=19 / 22)


@pytest.mark.parametrize(("count", "judged"), [(4, False), (5, True)])
def test_fewer_than_five_are_not_judged(runtime: Runtime, count: int, judged: bool) -> None:
    deliver(runtime, [3] * count)
    expected = RecentDelivery(sent=5, arrived=5, within_seconds=3, share=1.0)
    assert delivery(runtime) == (expected if judged else None)


def test_what_may_still_arrive_in_time_is_not_judged(runtime: Runtime) -> None:
    deliver(runtime, [8] * 5)
    record(runtime, *(sent(NOW - timedelta(seconds=age), number=50 + age, template_id="540") for age in (8, 9)))
    assert delivery(runtime) == RecentDelivery(sent=6, arrived=5, within_seconds=8, share=5 / 6)


def test_nothing_delivered_is_judged_after_a_minute(runtime: Runtime) -> None:
    record(runtime, *(sent(NOW - 60 * SECOND, number=n, template_id="540") for n in range(9)))
    assert delivery(runtime) is None
    record(runtime, *(sent(NOW - 61 * SECOND, number=20 + n, template_id="540") for n in range(5)))
    assert delivery(runtime) == RecentDelivery(sent=5, arrived=0, within_seconds=None, share=0.0)


def test_delivery_is_of_one_account_and_template_and_of_what_was_sent_in_the_span(runtime: Runtime) -> None:
    deliver(runtime, [3] * 5, template_id=None)
    record(
        runtime,
        sent(NOON - MINUTE, number=20, template_id="540"),
        sent(NOON - MINUTE, number=21, account="other"),
        sent(NOW - 10 * MINUTE - SECOND, number=22),
        sent(None, number=23),  # no latency
        make_send(task_id=None, reference="r", sent_at=NOON - MINUTE, error_message="余额不足"),
        recorded_at=NOON - MINUTE,
    )
    assert delivery(runtime, None) == RecentDelivery(sent=5, arrived=5, within_seconds=3, share=1.0)
    assert delivery(runtime) is None
    assert delivery(runtime, None, span=11 * MINUTE) == RecentDelivery(sent=6, arrived=5, within_seconds=3, share=5 / 6)


def test_failed_is_judged_and_has_not_arrived(runtime: Runtime) -> None:
    deliver(runtime, [2] * 4)
    record(runtime, sent(NOON - 5 * MINUTE, number=9, template_id="540"))
    keep(runtime, pushed(NOON, number=9, status="0"))
    assert delivery(runtime) == RecentDelivery(sent=5, arrived=4, within_seconds=2, share=0.8)


def test_newest_messages_are_judged_where_there_are_too_many(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(runtime, [2] * 6)
    record(runtime, *(sent(NOON - MINUTE, number=20 + n, template_id="540") for n in range(5)))
    monkeypatch.setattr(signals, "_JUDGED_MAX", 5)
    assert delivery(runtime) == RecentDelivery(sent=5, arrived=0, within_seconds=None, share=0.0)
    monkeypatch.setattr(signals, "_JUDGED_MAX", 2000)
    monkeypatch.setattr(signals, "_NEWEST_MAX", 10)
    assert delivery(runtime) == RecentDelivery(sent=10, arrived=5, within_seconds=2, share=0.5)


# --- Unreported -----------------------------------------------------------------------------------------


def unreported(runtime: Runtime, **asked: Any) -> list[str | None]:
    found = runtime.ask(lambda c: signals.list_unreported(c, runtime.clock(NOW), **asked))
    return [row.task_id for row in found]


def test_unreported_are_those_of_a_day_that_should_have_a_receipt_newest_first(runtime: Runtime) -> None:
    ages = {1: 60 * SECOND, 2: 61 * SECOND, 3: DAY - SECOND, 4: DAY, 5: HOUR, 6: HOUR}
    record(runtime, *(sent(NOW - age, number=number) for number, age in ages.items()))
    record(runtime, make_send(task_id=None, reference="r", sent_at=NOW - HOUR, error_message="余额不足"))
    keep(runtime, pushed(NOW, number=6, status="0"), pushed(NOW + SECOND, number=5, content="好"))
    assert unreported(runtime) == ["t2", "t5", "t3"]
    assert unreported(runtime, limit=2) == ["t2", "t5"]


def test_unreported_can_be_those_of_some_accounts(runtime: Runtime) -> None:
    record(runtime, sent(NOW - HOUR, number=1), sent(NOW - HOUR, number=2, account="other"))
    assert unreported(runtime, accounts=("other",)) == ["t2"]
    assert unreported(runtime, accounts=()) == []


def test_unreported_are_looked_for_among_the_newest_only(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    record(runtime, sent(NOW - 2 * HOUR, number=1), sent(NOW - HOUR, number=2), sent(NOW - MINUTE * 2, number=3))
    keep(runtime, pushed(NOW, number=2), pushed(NOW + SECOND, number=3))
    monkeypatch.setattr(signals, "_NEWEST_MAX", 2)
    assert unreported(runtime) == []
    monkeypatch.setattr(signals, "_NEWEST_MAX", 3)
    assert unreported(runtime) == ["t1"]


# --- Quarantined ----------------------------------------------------------------------------------------


def quarantined(runtime: Runtime, since: datetime | None = None, **asked: Any) -> int:
    return runtime.ask(lambda c: signals.count_quarantined(c, since=since, **asked))


def about(runtime: Runtime, *needles: bytes, since: datetime | None = None, **asked: Any) -> datetime | None:
    found = runtime.ask(lambda c: signals.find_quarantined_about(c, needles=needles, since=since, **asked))
    return found.received_at if found else None


def test_quarantined_are_counted_after_a_moment_and_up_to_a_cap(runtime: Runtime) -> None:
    keep(runtime, *(unreadable(NOON + n * SECOND) for n in range(4)), pushed(NOON + 9 * SECOND))
    assert quarantined(runtime) == 4
    assert quarantined(runtime, NOON) == 3
    assert quarantined(runtime, NOON - timedelta(milliseconds=1)) == 4
    assert quarantined(runtime, NOON + 3 * SECOND) == 0
    assert [quarantined(runtime, at_most=cap) for cap in (5, 4, 3)] == [4, 4, 3]


def test_a_replayed_push_is_quarantined_no_longer(runtime: Runtime) -> None:
    push = unreadable(NOON, b"mobile=15080921090")
    keep(runtime, push)
    assert (quarantined(runtime), about(runtime, b"15080921090")) == (1, NOON)
    readable = replace(push, reading=make_push().reading)
    runtime.database.write(lambda c: replay_push(c, readable))
    assert (quarantined(runtime), about(runtime, b"15080921090")) == (0, None)


def test_newest_quarantined_push_about_any_of_the_needles_is_found(runtime: Runtime) -> None:
    keep(
        runtime,
        unreadable(NOON, b"mobile=15080921090"),
        unreadable(NOON + SECOND, b"x\0\xff15080921090\0"),
        unreadable(NOON + 2 * SECOND, b"", query=b"phone=13900000000"),
        unreadable(NOON + 3 * SECOND, b"nothing"),
        pushed(NOON + 4 * SECOND, number=21090),  # read, so not of these
    )
    assert about(runtime, b"15080921090") == NOON + SECOND
    assert about(runtime, b"13900000000") == NOON + 2 * SECOND
    assert about(runtime, b"15080921090", b"13900000000") == NOON + 2 * SECOND
    assert about(runtime, b"\xff") == NOON + SECOND
    assert about(runtime, b"15080921090", since=NOON + SECOND) is None
    assert about(runtime, b"15080921090", at_most=3) == NOON + SECOND
    assert about(runtime, b"15080921090", at_most=2) is None


@pytest.mark.parametrize("needles", [(), (b"",)])
def test_nothing_is_about_no_needle(runtime: Runtime, needles: tuple[bytes, ...]) -> None:
    keep(runtime, unreadable(NOON))
    assert about(runtime, *needles) is None


def test_found_push_is_whole(runtime: Runtime) -> None:
    push = unreadable(NOON, b"\0mobile=1", query=b"a=1")
    keep(runtime, push)
    found = runtime.ask(lambda c: signals.find_quarantined_about(c, needles=[b"mobile"], since=None))
    assert found is not None
    assert (found.id, found.body, found.query, found.outcome) == (push.id, push.body, push.query, "quarantined")


# --- The verdict ----------------------------------------------------------------------------------------

QUIET = Silence(since=NOON, usual_gap_seconds=1.0, unreported_sends=5)
FULL = Disk(free_bytes=0, total_bytes=10**12)
FINE = Situation(
    database_up=True,
    spool_records=0,
    spool_oldest_seconds=0,
    disk=Disk(free_bytes=1024**3, total_bytes=20 * 1024**3),
    certificate_days_left=None,
    recent_refusals={},
    silence=None,
    platform_reachable=None,
    ever_pushed=True,
)
NEVER = {"ever_pushed": False}


@pytest.mark.parametrize(
    ("changes", "verdict", "reasons"),
    [
        ({}, Verdict.FINE, ()),
        ({"platform_reachable": True}, Verdict.FINE, ()),
        (NEVER, Verdict.UNTRIED, ()),
        (NEVER | {"spool_records": 1}, Verdict.FINE, ()),
        ({"platform_reachable": False}, Verdict.FINE, ()),
        ({"silence": QUIET}, Verdict.PLATFORM, (DiagnosisReason.PLATFORM_SILENT,)),
        ({"silence": QUIET, "platform_reachable": True}, Verdict.PLATFORM, (DiagnosisReason.PLATFORM_SILENT,)),
        ({"silence": QUIET, "spool_records": 1}, Verdict.FINE, ()),
        (
            {"silence": QUIET, "spool_records": 1, "spool_oldest_seconds": 301},
            Verdict.US,
            (DiagnosisReason.SPOOL_STUCK,),
        ),
        (
            {"silence": QUIET, "platform_reachable": False},
            Verdict.NETWORK,
            (DiagnosisReason.PLATFORM_UNREACHABLE, DiagnosisReason.PLATFORM_SILENT),
        ),
        ({"database_up": False}, Verdict.US, (DiagnosisReason.DATABASE_AWAY,)),
        (
            {"database_up": False, "spool_records": 1, "spool_oldest_seconds": 301},
            Verdict.US,
            (DiagnosisReason.DATABASE_AWAY,),
        ),
        ({"spool_records": 1, "spool_oldest_seconds": 300}, Verdict.FINE, ()),
        ({"spool_records": 1, "spool_oldest_seconds": 301}, Verdict.US, (DiagnosisReason.SPOOL_STUCK,)),
        ({"disk": Disk(free_bytes=1024**3 - 1, total_bytes=1024**3)}, Verdict.US, (DiagnosisReason.DISK_NEARLY_FULL,)),
        ({"disk": Disk(free_bytes=499 * 10**9, total_bytes=10**13)}, Verdict.US, (DiagnosisReason.DISK_NEARLY_FULL,)),
        ({"disk": Disk(free_bytes=0, total_bytes=0)}, Verdict.FINE, ()),  # of a file system that tells no size
        ({"certificate_days_left": 1}, Verdict.FINE, ()),
        ({"certificate_days_left": 0}, Verdict.US, (DiagnosisReason.CERTIFICATE_EXPIRED,)),
        ({"certificate_days_left": -3}, Verdict.US, (DiagnosisReason.CERTIFICATE_EXPIRED,)),
        # A stranger's, while no push is missing; the platform's, where one is.
        ({"recent_refusals": {"secret": 1}}, Verdict.FINE, ()),
        (NEVER | {"recent_refusals": {"secret": 1}}, Verdict.US, (DiagnosisReason.REFUSED_SECRET,)),
        (NEVER | {"recent_refusals": {"secret": 1}, "spool_records": 1}, Verdict.FINE, ()),
        (
            {"silence": QUIET, "recent_refusals": {"secret": 1}},
            Verdict.US,
            (DiagnosisReason.REFUSED_SECRET, DiagnosisReason.PLATFORM_SILENT),
        ),
        (NEVER | {"recent_refusals": {"secret": 0, "busy": 3}}, Verdict.UNTRIED, ()),
        (
            NEVER | {"recent_refusals": {"size": 1, "length": 2, "address": 3}},
            Verdict.US,
            (DiagnosisReason.REFUSED_ADDRESS, DiagnosisReason.REFUSED_LENGTH, DiagnosisReason.REFUSED_SIZE),
        ),
        (
            {"silence": QUIET, "platform_reachable": False, "disk": FULL, "recent_refusals": {"address": 9}},
            Verdict.US,
            (
                DiagnosisReason.DISK_NEARLY_FULL,
                DiagnosisReason.REFUSED_ADDRESS,
                DiagnosisReason.PLATFORM_UNREACHABLE,
                DiagnosisReason.PLATFORM_SILENT,
            ),
        ),
    ],
)
def test_verdict_follows_from_the_situation(
    changes: dict[str, Any], verdict: Verdict, reasons: tuple[DiagnosisReason, ...]
) -> None:
    assert judge(replace(FINE, **changes)) == Judgement(verdict=verdict, reasons=reasons)
