"""Why messages did not arrive: counted over the newest messages of a period, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.core import DeliveryStatus
from receiver.reporting.carriers import allocation
from receiver.support import signals
from receiver.support.reasons import (
    Outcomes,
    Sampled,
    count_by_operator,
    count_refusals,
    count_vendor_statuses,
    find_sample_begin,
)
from tests.harness.factories import NOON, make_push, make_send
from tests.support.test_signals import keep, record

if TYPE_CHECKING:
    import pytest

    from receiver.runtime import Runtime

MINUTE = timedelta(minutes=1)
ALL = Sampled(since=NOON - timedelta(days=1), until=NOON + MINUTE)
UNICOM, MOBILE = "13000000001", "13800138000"


def test_outcomes_are_those_of_each_operator_and_refused_ones_are_not_sent(runtime: Runtime) -> None:
    record(
        runtime,
        *(make_send(task_id=f"m{n}", mobile=MOBILE, sent_at=NOON - MINUTE) for n in range(3)),
        make_send(task_id="u", mobile=UNICOM, sent_at=NOON - MINUTE),
        make_send(task_id=None, reference="r", mobile=UNICOM, sent_at=NOON - MINUTE, error_message="余额不足"),
        make_send(task_id="x", mobile="12000000000", sent_at=NOON - MINUTE),
        make_send(task_id="old", mobile=MOBILE, sent_at=NOON - timedelta(days=2)),
    )
    keep(
        runtime,
        make_push(mobile=MOBILE, task_id="m0"),
        make_push(mobile=MOBILE, task_id="m1", status="0"),
    )
    found = runtime.ask(lambda connection: count_by_operator(connection, ALL, allocation().operator))
    assert found == {
        "中国移动": Outcomes(sent=3, delivered=1, failed=1, waiting=1),
        None: Outcomes(sent=1, waiting=1),
        "中国联通": Outcomes(sent=1, waiting=1),
    }
    assert list(found) == ["中国移动", None, "中国联通"]


def test_refusals_and_status_values_are_counted_most_first(runtime: Runtime) -> None:
    refused = (("a", "余额不足"), ("b", "一分钟之内只可发送一次"), ("c", "一分钟之内只可发送一次"))
    record(
        runtime,
        *(make_send(task_id=None, reference=name, sent_at=NOON - MINUTE, error_message=why) for name, why in refused),
        *(make_send(task_id=f"t{n}", sent_at=NOON - MINUTE, template_id="540") for n in range(3)),
        make_send(task_id="other", account="other", sent_at=NOON - MINUTE),
    )
    keep(
        runtime,
        make_push(task_id="t0"),
        make_push(task_id="t1"),
        make_push(task_id="t2", status="UNDELIV"),
        make_push(task_id="other", account="other", status="0"),
    )
    assert runtime.ask(lambda connection: count_refusals(connection, ALL)) == [
        ("一分钟之内只可发送一次", 2),
        ("余额不足", 1),
    ]
    assert runtime.ask(lambda connection: count_vendor_statuses(connection, ALL)) == [
        ("1", DeliveryStatus.DELIVERED, 2),
        ("0", DeliveryStatus.FAILED, 1),
        ("UNDELIV", DeliveryStatus.UNKNOWN, 1),
    ]
    of_other = Sampled(since=ALL.since, until=ALL.until, accounts=("other",))
    assert runtime.ask(lambda connection: count_vendor_statuses(connection, of_other)) == [
        ("0", DeliveryStatus.FAILED, 1)
    ]
    of_template = Sampled(since=ALL.since, until=ALL.until, template_id="540")
    assert runtime.ask(lambda connection: count_refusals(connection, of_template)) == []


def test_only_the_newest_are_counted_and_since_when_is_known(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    record(runtime, *(make_send(task_id=f"t{n}", mobile=MOBILE, sent_at=NOON - n * MINUTE) for n in range(4)))
    assert runtime.ask(lambda connection: find_sample_begin(connection, ALL)) is None
    monkeypatch.setattr(signals, "NEWEST_MAX", 3)
    assert runtime.ask(lambda connection: find_sample_begin(connection, ALL)) == NOON - 2 * MINUTE
    found = runtime.ask(lambda connection: count_by_operator(connection, ALL, allocation().operator))
    assert found == {"中国移动": Outcomes(sent=3, waiting=3)}
