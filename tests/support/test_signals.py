"""What the present looks like, by the newest rows: what arrives, and what could not be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import Kind, first_id_of
from receiver.db.tables import receipts
from receiver.intake.replay import replay_push
from receiver.messages import recording
from receiver.net.self_test import SELF_TEST_BODY
from receiver.support import arrivals, signals
from receiver.support.arrivals import LastPush
from receiver.support.signals import Minute, RecentDelivery
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes

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
    return runtime.ask(lambda c: arrivals.find_last_push(c, now=NOW + MINUTE))


# --- The last push --------------------------------------------------------------------------------------


def test_empty_database_has_no_signals(runtime: Runtime) -> None:
    assert last_push(runtime) is None
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


def test_what_we_push_to_ourselves_says_nothing_of_the_platform(runtime: Runtime) -> None:
    keep(runtime, replace(pushed(NOW - MINUTE, number=2), body=SELF_TEST_BODY + b"1&status=1"))
    assert last_push(runtime) is None
    keep(runtime, pushed(NOW - 20 * MINUTE, number=1))
    found = last_push(runtime)
    assert found is not None
    assert found.at == NOW - 20 * MINUTE
    assert sum(pushes for _, pushes, _, _ in minutes(runtime)) == 1


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
    monkeypatch.setattr(signals, "NEWEST_MAX", 10)
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
    monkeypatch.setattr(signals, "NEWEST_MAX", 2)
    assert unreported(runtime) == []
    monkeypatch.setattr(signals, "NEWEST_MAX", 3)
    assert unreported(runtime) == ["t1"]


# --- Quarantined ----------------------------------------------------------------------------------------


def quarantined(runtime: Runtime, since: datetime | None = None, **asked: Any) -> int:
    return runtime.ask(lambda c: arrivals.count_quarantined(c, since=since, **asked))


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
