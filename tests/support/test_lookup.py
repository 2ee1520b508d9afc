"""Look-ups: what people are answered, and which messages are meant."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from receiver.core import MessageStatus
from receiver.messages import recording
from receiver.messages.queries import MessageRow
from receiver.support import lookup_queries as store
from receiver.support.answers import UNSETTLED, LookupAnswer, answer_of, group_resends, moment_of
from receiver.support.lookup import parse_lookup
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.core import SentMessage
    from receiver.runtime import Runtime

NUMBER = "15080921090"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


# --- What is answered -----------------------------------------------------------------------------------


def row(number: int = 1, at: datetime | None = NOON, **changes: Any) -> MessageRow:
    values: dict[str, Any] = {
        "id": number, "account": "default", "task_id": f"t{number}", "mobile": NUMBER, "template_id": "540",
        "reference": None, "sent_at": at, "recorded_at": NOON, "counted_at": at or NOON,
        "status": MessageStatus.PENDING, "late": False, "reported_at": None, "latency_seconds": None, "matched": True,
        "conflicting": False, "error_message": None, "receipt_count": 0, "reply_count": 0, "verified_at": None,
        "updated_at": NOON,
    }  # fmt: skip
    return MessageRow(**values | changes)


@pytest.mark.parametrize(
    ("changes", "answer", "with_unreadable"),
    [
        ({}, LookupAnswer.WAITING, LookupAnswer.UNREADABLE),
        ({"late": True}, LookupAnswer.LATE, LookupAnswer.UNREADABLE),
        ({"status": MessageStatus.NO_RECEIPT}, LookupAnswer.NO_RECEIPT, LookupAnswer.UNREADABLE),
        ({"status": MessageStatus.DELIVERED}, LookupAnswer.DELIVERED, LookupAnswer.DELIVERED),
        ({"status": MessageStatus.FAILED}, LookupAnswer.FAILED, LookupAnswer.FAILED),
        ({"status": MessageStatus.UNKNOWN}, LookupAnswer.UNKNOWN, LookupAnswer.UNKNOWN),
        ({"status": MessageStatus.DELIVERED, "conflicting": True}, LookupAnswer.CONFLICTING, LookupAnswer.CONFLICTING),
        ({"status": MessageStatus.FAILED, "conflicting": True}, LookupAnswer.CONFLICTING, LookupAnswer.CONFLICTING),
        ({"status": MessageStatus.REFUSED}, LookupAnswer.REFUSED, LookupAnswer.REFUSED),
        ({"status": MessageStatus.SENDING}, LookupAnswer.SENDING, LookupAnswer.SENDING),
        ({"status": MessageStatus.OUTCOME_UNKNOWN}, LookupAnswer.OUTCOME_UNKNOWN, LookupAnswer.OUTCOME_UNKNOWN),
    ],
)
def test_every_state_has_its_answer(
    changes: dict[str, Any], answer: LookupAnswer, with_unreadable: LookupAnswer
) -> None:
    assert answer_of(row(**changes)) is answer
    assert answer_of(row(**changes), unreadable=True) is with_unreadable


def test_what_may_change_by_itself() -> None:
    assert set(LookupAnswer) - UNSETTLED == {
        LookupAnswer.DELIVERED,
        LookupAnswer.FAILED,
        LookupAnswer.UNKNOWN,
        LookupAnswer.CONFLICTING,
        LookupAnswer.REFUSED,
    }


def test_a_message_is_of_when_it_was_sent_else_recorded_else_reported() -> None:
    later = NOON + MINUTE
    assert moment_of(row(at=NOON, recorded_at=later)) == NOON
    assert moment_of(row(at=None, recorded_at=later)) == later
    assert moment_of(row(at=None, recorded_at=None, reported_at=later)) == later


def ids(*messages: MessageRow) -> list[list[int]]:
    return [[message.id for message in group.messages] for group in group_resends(messages)]


def test_resends_are_those_of_a_number_and_template_each_within_ten_minutes_of_the_one_before() -> None:
    assert ids() == []
    chain = [row(1, NOON), row(2, NOON + 10 * MINUTE), row(3, NOON + 20 * MINUTE)]
    assert ids(*chain) == [[3, 2, 1]]
    assert ids(*chain[::-1]) == [[3, 2, 1]]
    gap = row(4, NOON + 30 * MINUTE + timedelta(milliseconds=1))
    assert ids(gap, *chain) == [[4], [3, 2, 1]]


def test_other_numbers_templates_and_accounts_are_no_resends() -> None:
    others = [
        row(2, NOON + MINUTE, mobile="13900000000"),
        row(3, NOON + 2 * MINUTE, template_id="541"),
        row(4, NOON + 3 * MINUTE, template_id=None),
        row(5, NOON + 4 * MINUTE, account="other"),
    ]
    again = row(6, NOON + 5 * MINUTE)
    assert ids(row(1), *others, again) == [[6, 1], [5], [4], [3], [2]]
    (group, *_) = group_resends([row(1), again])
    assert (group.newest.id, [message.id for message in group.earlier]) == (6, [1])


def test_of_the_same_moment_the_later_record_is_the_newer() -> None:
    assert ids(row(2), row(1)) == [[2, 1]]
    assert ids(row(1, mobile="13900000000"), row(2)) == [[2], [1]]


# --- Which messages are found ---------------------------------------------------------------------------


def record(runtime: Runtime, *sends: SentMessage) -> None:
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=NOON))


def found(runtime: Runtime, pasted: str, *, since: datetime = NOON - DAY, limit: int = 100) -> list[str | None]:
    wanted = parse_lookup(pasted)
    assert wanted is not None
    clock = runtime.clock(NOON + MINUTE)
    rows = runtime.ask(lambda c: store.find_messages(c, wanted.queries, since=since, clock=clock, limit=limit))
    return [message.task_id for message in rows]


def test_messages_are_found_by_all_that_people_say_of_them(runtime: Runtime) -> None:
    other = "13955551090"
    record(
        runtime,
        make_send(task_id="t1", sent_at=NOON, reference="order-1"),
        make_send(task_id="t2", sent_at=NOON + timedelta(seconds=2), reference="SO-10023456789"),
        make_send(task_id="t3", mobile=other, sent_at=NOON + timedelta(seconds=1), reference="1090"),
        make_send(task_id="t4", mobile="13900000000", sent_at=NOON, reference="t1"),
    )
    assert found(runtime, "+86 150 8092 1090") == ["t2", "t1"]
    assert found(runtime, "task id: t3") == ["t3"]
    assert found(runtime, "t1") == ["t4", "t1"]  # of the same moment, the later record first
    assert found(runtime, "order-1") == found(runtime, "ORDER-1") == ["t1"]
    assert found(runtime, "参考号 so-10023456789。") == ["t2"]
    assert found(runtime, "批次ID：T1 没收到") == ["t4", "t1"]
    assert found(runtime, f"2026-11-29 23:08 {other}\t540\n+86 150 8092 1090") == ["t2", "t3", "t1"]
    assert found(runtime, f"{other} 尾号 0000") == ["t3", "t4"]
    assert found(runtime, "SO-10023456789") == ["t2"]
    assert found(runtime, "尾号1090") == ["t2", "t3", "t1"]
    assert found(runtime, "1090") == ["t2", "t3", "t1"]  # each once, though it is t3's reference too
    assert found(runtime, "150****1090") == ["t2", "t1"]
    assert found(runtime, "139****1090") == ["t3"]
    assert found(runtime, "138****1090") == []
    assert found(runtime, "2222") == []
    assert found(runtime, "1090", limit=2) == ["t2", "t3"]


def test_time_bounds_go_by_when_a_message_was_sent_else_recorded(runtime: Runtime) -> None:
    record(
        runtime,
        make_send(task_id="t1", sent_at=NOON - DAY),
        make_send(task_id="t2", sent_at=NOON - DAY - timedelta(milliseconds=1)),
        make_send(task_id="t3"),
    )
    for pasted in (NUMBER, "1090"):
        assert found(runtime, pasted) == ["t3", "t1"]
        assert found(runtime, pasted, since=NOON - 2 * DAY) == ["t3", "t1", "t2"]
        assert found(runtime, pasted, since=NOON) == ["t3"]
        assert found(runtime, pasted, since=NOON + timedelta(milliseconds=1)) == []


def test_unmatched_refused_and_unsettled_messages_are_found_too(runtime: Runtime) -> None:
    save_pushes(runtime.database, [make_push(task_id="unmatched", second=3)])
    record(runtime, make_send(task_id=None, reference="r", sent_at=NOON + MINUTE, error_message="余额不足"))
    attempt = make_attempt(mobile=NUMBER, sent_at=NOON, reference="r")
    runtime.recorder.begin(attempt, day_began=NOON)
    assert found(runtime, NUMBER) == [None, "unmatched", None]
    assert found(runtime, "尾号1090") == [None, "unmatched", None]
    assert found(runtime, "r") == [None, None]
    assert found(runtime, "unmatched", since=NOON + timedelta(seconds=4)) == []


def test_push_with_another_number_of_the_task_is_not_found_by_the_number(runtime: Runtime) -> None:
    pushes = [make_push(), make_push(mobile="13900000000")]
    save_pushes(runtime.database, pushes)
    assert found(runtime, NUMBER) == ["3313746"]
    assert found(runtime, "3313746") == ["3313746", "3313746"]
