"""What alarms are judged by, as the database tells it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from receiver.alerting import figures
from receiver.alerting.rules import BalanceLeft, PushFlow, Rate, StoredFigures
from receiver.audit import note_shipped
from receiver.messages import balance
from receiver.messages.balance import Reading
from receiver.net.self_test import SELF_TEST_BODY
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import endpoints
from receiver.webhooks.endpoints import NewEndpoint, PayloadFormat
from tests.harness.factories import NOON
from tests.harness.waiting import await_true
from tests.sending.test_sending import make_attempt
from tests.support.test_signals import keep, pushed, record, sent, unreadable

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from receiver.runtime import Runtime

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * DAY


def found(runtime: Runtime, now: datetime = NOON, accounts: Collection[str] = ("default",)) -> StoredFigures:
    return runtime.ask(lambda connection: figures.find_stored_figures(connection, now=now, accounts=accounts))


def test_empty_database_tells_of_nothing_wrong(runtime: Runtime) -> None:
    assert found(runtime) == StoredFigures(
        flow=PushFlow(last_push_at=None, unanswered_since=None, missed_pushes=0),
        quarantined=0,
        projection_lag_seconds=0.0,
        recent=Rate(),
        usual=Rate(),
    )


# --- Silence --------------------------------------------------------------------------------------------


def test_silence_is_as_old_as_the_fifth_number_that_waits(runtime: Runtime) -> None:
    keep(runtime, pushed(NOON - HOUR, number=99))
    for number in range(4):
        record(runtime, sent(NOON - (40 - number) * MINUTE, number=number))
    # To the same again: one that is switched off is no silence, however often it is tried.
    again = [replace(sent(NOON - 30 * MINUTE, number=1), task_id=f"again {time}") for time in range(9)]
    record(runtime, *again)
    assert found(runtime).flow.unanswered_since is None
    record(runtime, sent(NOON - 20 * MINUTE, number=4), sent(NOON - MINUTE, number=5))
    assert found(runtime).flow.unanswered_since == NOON - 20 * MINUTE
    assert found(runtime).flow.last_push_at == NOON - HOUR


def test_any_push_ends_a_silence(runtime: Runtime) -> None:
    record(runtime, *(sent(NOON - 20 * MINUTE, number=number) for number in range(6)))
    assert found(runtime).flow.unanswered_since == NOON - 20 * MINUTE
    keep(runtime, unreadable(NOON - SECOND))
    assert found(runtime).flow.unanswered_since is None


def test_self_test_ends_no_silence(runtime: Runtime) -> None:
    record(runtime, *(sent(NOON - 20 * MINUTE, number=number) for number in range(6)))
    body = SELF_TEST_BODY + b"1&status=1&receivetime=2026-11-23+12%3A00%3A00"
    keep(runtime, unreadable(NOON - SECOND, body=body))
    assert found(runtime).flow.unanswered_since == NOON - 20 * MINUTE


def test_sends_from_before_the_first_day_are_no_silence(runtime: Runtime) -> None:
    record(runtime, *(sent(NOON - 2 * DAY, number=number) for number in range(6)))
    assert found(runtime).flow.unanswered_since is None


def test_refused_sends_wait_for_nothing(runtime: Runtime) -> None:
    sends = [sent(NOON - HOUR, number=number, reference=f"{number}") for number in range(6)]
    record(runtime, *(replace(send, task_id=None, error_message="余额不足") for send in sends))
    for number in range(6):  # nor attempts whose outcome is not known yet
        runtime.recorder.begin(make_attempt(mobile=f"1508090000{number}", sent_at=NOON - HOUR), day_began=NOON - DAY)
    assert found(runtime).flow.unanswered_since is None


def test_pushes_of_last_week_are_missed_where_nobody_records_sends(runtime: Runtime) -> None:
    keep(runtime, pushed(NOON - 2 * HOUR, number=99))
    keep(runtime, *(pushed(NOON - WEEK - minutes * MINUTE, number=minutes) for minutes in range(1, 240, 10)))
    assert found(runtime).flow.missed_pushes == 12  # of the two hours
    assert found(runtime, NOON - HOUR - SECOND).flow.missed_pushes == 0  # not an hour yet
    # At night hardly any came last week: what is missed stays missed.
    assert found(runtime, NOON + 12 * HOUR).flow.missed_pushes == 12
    keep(runtime, pushed(NOON + 13 * HOUR))
    assert found(runtime, NOON + 13 * HOUR + SECOND).flow.missed_pushes == 0


def test_quiet_time_without_pushes_is_none_where_sends_are_recorded(runtime: Runtime) -> None:
    keep(runtime, pushed(NOON - 2 * HOUR, number=99))
    keep(runtime, *(pushed(NOON - WEEK - minutes * MINUTE, number=minutes) for minutes in range(1, 120, 10)))
    record(runtime, sent(NOON - DAY, number=99))
    assert found(runtime).flow.missed_pushes == 0


# --- Delivery -------------------------------------------------------------------------------------------


def test_rates_are_of_what_is_settled(runtime: Runtime) -> None:
    recent, before = NOON - 10 * MINUTE, NOON - 2 * DAY
    record(runtime, *(sent(recent, number=number) for number in range(8)))
    record(runtime, *(sent(before, number=number) for number in range(10, 30)))
    record(runtime, *(sent(NOON - 9 * DAY, number=number) for number in range(30, 40)))
    keep(runtime, *(pushed(recent + number * SECOND, number=number) for number in range(3)))
    keep(runtime, *(pushed(recent + number * SECOND, number=number, status="0") for number in range(3, 5)))
    keep(runtime, *(pushed(recent + number * SECOND, number=number, status="7") for number in range(5, 6)))
    keep(runtime, *(pushed(before + number * SECOND, number=number) for number in range(10, 28)))
    keep(runtime, *(pushed(before + number * SECOND, number=number, status="0") for number in range(28, 30)))
    keep(runtime, *(pushed(before + number * SECOND, number=number) for number in range(30, 40)))
    assert found(runtime).recent == Rate(delivered=3, settled=6)
    assert found(runtime).usual == Rate(delivered=21, settled=26)


# --- The rest -------------------------------------------------------------------------------------------


def test_quarantined_are_those_of_the_hour(runtime: Runtime) -> None:
    keep(runtime, unreadable(NOON - HOUR - SECOND), unreadable(NOON - MINUTE), unreadable(NOON - SECOND))
    assert found(runtime).quarantined == 2


def test_balance_that_others_tell_is_not_asked_for(runtime: Runtime) -> None:
    readings = [
        Reading(account=account, asked_at=NOON - HOUR, answered_at=NOON - HOUR, remain_point=7)
        for account in ("default", "other")
    ]
    runtime.database.write(lambda connection: balance.save_readings(connection, readings))
    assert found(runtime).balances == {
        "default": BalanceLeft(left=7, read_at=NOON - HOUR, asked=True),
        "other": BalanceLeft(left=7, read_at=NOON - HOUR, asked=False),
    }


# --- Own systems ----------------------------------------------------------------------------------------


def test_the_oldest_that_waits_is_told_of_each_target(runtime: Runtime) -> None:
    for name in ("idle", "shop"):
        new = NewEndpoint(name=name, url="https://example.com/", format=PayloadFormat.RAW, accounts=(name,))
        runtime.database.write(partial(endpoint_changes.create_endpoint, new=new, now=runtime.now()))
        made = runtime.ask(lambda c, name=name: endpoints.get_endpoint(c, name))  # type: ignore[misc]
        runtime.database.write(
            partial(endpoint_changes.pause_endpoint, target=made, now=runtime.now(), because="for a test")
        )
    before = runtime.now()
    keep(runtime, *(replace(pushed(NOON, number=number), account="shop") for number in range(2)))
    runtime.webhook_worker.run_now()
    await_true(lambda: bool(found(runtime).webhook_oldest))
    (target, oldest_at), *others = found(runtime).webhook_oldest.items()
    assert (target, others) == ("shop", [])
    assert abs(oldest_at - before) < timedelta(minutes=5)


def test_audit_waits_for_syslog_where_there_is_one(runtime: Runtime) -> None:
    def unshipped(*, ships_audit: bool) -> datetime | None:
        return runtime.ask(
            lambda connection: figures.find_stored_figures(connection, now=NOON, accounts=(), ships_audit=ships_audit)
        ).unshipped_since

    runtime.audit("key", "keys.create")
    assert unshipped(ships_audit=False) is None
    assert unshipped(ships_audit=True) is not None
    runtime.database.write(lambda connection: note_shipped(connection, 1))
    assert unshipped(ships_audit=True) is None
