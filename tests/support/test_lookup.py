"""Look-ups: what people are answered, and which messages are meant."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.core import MessageStatus
from receiver.db.tables import messages, replies, retention
from receiver.messages import notes, recording
from receiver.messages.notes import NoteKind
from receiver.messages.queries import MessageRow
from receiver.support import lookup_queries as store
from receiver.support.answers import UNSETTLED, LookupAnswer, answer_of, find_best, group_resends, moment_of
from receiver.support.lookup import parse_lookup
from receiver.support.lookup_service import LookupResult, answer_lookup
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


def test_refused_send_without_its_template_is_a_resend_of_whatever_was_sent_before() -> None:
    refused = {"status": MessageStatus.REFUSED, "template_id": None}
    sent, again = row(1), row(2, NOON + MINUTE, **refused)
    assert ids(sent, again) == [[2, 1]]
    assert ids(sent, row(3, NOON + 2 * MINUTE, mobile="13900000000"), row(4, NOON + 3 * MINUTE, **refused)) == [
        [4, 1],
        [3],
    ]
    assert ids(sent, row(2, NOON + 11 * MINUTE, **refused)) == [[2], [1]]


# Of two attempts, which answers for both: `<` the older one, where the newer came half a minute after it.
_A = LookupAnswer
ARRIVED = [_A.DELIVERED]
OPEN = [_A.WAITING, _A.LATE, _A.SENDING, _A.OUTCOME_UNKNOWN, _A.UNREADABLE, _A.CONFLICTING]
NOT_ARRIVED = [_A.FAILED, _A.UNKNOWN, _A.NO_RECEIPT]
NOT_SENT = [_A.REFUSED]
OLDER_ANSWERS = {
    *((older, newer) for older in ARRIVED for newer in OPEN + NOT_ARRIVED + NOT_SENT),
    *((older, newer) for older in OPEN for newer in NOT_ARRIVED + NOT_SENT),
    *((older, newer) for older in NOT_ARRIVED for newer in NOT_SENT),
}


@pytest.mark.parametrize("older", [answer for answer in LookupAnswer if answer is not _A.NOTHING])
@pytest.mark.parametrize("newer", [answer for answer in LookupAnswer if answer is not _A.NOTHING])
def test_best_attempt_of_use_answers_for_both(older: LookupAnswer, newer: LookupAnswer) -> None:
    def best(gap: timedelta) -> int:
        return find_best([(newer, NOON), (older, NOON - gap)])

    assert best(timedelta(seconds=30)) == best(5 * MINUTE) == ((older, newer) in OLDER_ANSWERS)
    assert best(5 * MINUTE + timedelta(milliseconds=1)) == 0  # its code is of no use any more


def test_of_several_attempts_the_newest_of_the_best_ones_answers() -> None:
    codes = [(_A.REFUSED, NOON), (_A.DELIVERED, NOON - MINUTE), (_A.DELIVERED, NOON - 2 * MINUTE)]
    assert find_best(codes) == 1
    assert find_best([(_A.REFUSED, NOON + 4 * MINUTE), *codes]) == 2
    assert find_best([(_A.REFUSED, NOON + 5 * MINUTE), *codes]) == 0  # that code has expired
    assert find_best([(_A.REFUSED, NOON)]) == 0


def test_attempts_say_which_were_sent_and_what_came_after_the_best() -> None:
    refused = {"status": MessageStatus.REFUSED}
    messages = [row(1, status=MessageStatus.DELIVERED), row(2, NOON + MINUTE, **refused), row(3, NOON + 2 * MINUTE)]
    (group,) = group_resends(messages[:2])
    assert (group.best.id, group.newest.id, group.sent, group.later_by, group.may_change) == (1, 2, 1, MINUTE, False)
    (group,) = group_resends(messages)
    assert (group.best.id, [message.id for message in group.later], group.sent) == (1, [3, 2], 2)
    assert group.may_change  # the last one still waits


def test_of_the_same_moment_the_later_record_is_the_newer() -> None:
    assert ids(row(2), row(1)) == [[2, 1]]
    assert ids(row(1, mobile="13900000000"), row(2)) == [[2], [1]]


# --- Which messages are found ---------------------------------------------------------------------------


def record(runtime: Runtime, *sends: SentMessage) -> None:
    runtime.database.write(lambda connection: recording.record_sent(connection, sends, recorded_at=NOON))


def found(runtime: Runtime, pasted: str, **more: Any) -> list[str | None]:
    wanted = parse_lookup(pasted)
    assert wanted is not None
    clock = runtime.clock(NOON + MINUTE)
    rows = runtime.ask(lambda c: store.find_messages(c, wanted.queries, clock=clock, **more))
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
    assert found(runtime, NUMBER, before=2) == ["t1"]


def answered(runtime: Runtime, pasted: str, within: timedelta | None, **more: Any) -> list[LookupResult]:
    wanted = parse_lookup(pasted)
    assert wanted is not None
    clock = runtime.clock(NOON)
    return runtime.ask(lambda c: answer_lookup(c, wanted, within=within, clock=clock, **more))


def test_time_bounds_go_by_when_a_message_was_sent_else_recorded(runtime: Runtime) -> None:
    record(
        runtime,
        make_send(task_id="t1", template_id="1", sent_at=NOON - DAY),
        make_send(task_id="t2", template_id="2", sent_at=NOON - DAY - timedelta(milliseconds=1)),
        make_send(task_id="t3", template_id="3"),
    )

    def shown(pasted: str, within: timedelta | None) -> tuple[list[str | None], int]:
        (result,) = answered(runtime, pasted, within)
        return [group.message.task_id for group in result.groups], result.older

    for pasted in (NUMBER, "1090"):
        assert shown(pasted, DAY) == (["t3", "t1"], 1)
        assert shown(pasted, 2 * DAY) == (["t3", "t1", "t2"], 0)
        assert shown(pasted, None) == (["t3", "t1", "t2"], 0)
        assert shown(pasted, timedelta()) == (["t3"], 2)


def test_case_that_touches_the_period_is_whole(runtime: Runtime) -> None:
    times = [NOON - 25 * MINUTE, NOON - 16 * MINUTE, NOON - 8 * MINUTE]
    record(runtime, *(make_send(task_id=f"t{n}", sent_at=sent_at) for n, sent_at in enumerate(times)))
    save_pushes(runtime.database, [make_push(task_id="t0", second=-1490), make_push(task_id="t1", content="yes")])
    ((group,),) = (result.groups for result in answered(runtime, NUMBER, 10 * MINUTE))
    assert [message.task_id for message in group.attempts.messages] == ["t2", "t1", "t0"]
    assert (len(group.receipts), len(group.replies)) == (1, 1)  # of all attempts
    assert (group.receipts[0].mobile, group.replies[0].mobile) == ("150****1090", "150****1090")


def test_notes_stand_with_the_case_that_they_are_on_whichever_attempt_was_noted(runtime: Runtime) -> None:
    record(
        runtime,
        make_send(task_id="1", sent_at=NOON - DAY),
        make_send(task_id="2", sent_at=NOON - MINUTE),
        make_send(task_id="3", sent_at=NOON),
    )

    def note(task_id: str, kind: NoteKind, text: str = "") -> None:
        def add(connection: sa.Connection) -> None:
            noted = connection.scalar(sa.select(messages.c.id).where(messages.c.task_id == task_id))
            assert noted is not None
            notes.add_note(connection, noted, kind, user_name="anna", text=text, now=NOON)

        runtime.database.write(add)

    note("2", NoteKind.NOTE, "called back")
    note("3", NoteKind.HANDLED)
    note("1", NoteKind.NOTE, "another day")
    (result,) = answered(runtime, NUMBER, None)
    assert [([entry.text for entry in group.notes], group.handled) for group in result.groups] == [
        (["called back", ""], True),
        (["another day"], False),
    ]


def test_what_belongs_to_other_accounts_is_not_known(runtime: Runtime) -> None:
    pushes = [
        make_push(mobile="186****7777", task_id="t9"),
        make_push(mobile="13700137000", task_id=None, content="退订"),
        make_push(mobile="13700137001", task_id="t8", content="退订"),
    ]
    save_pushes(runtime.database, pushes)
    for pasted in ("186****7777", "18612347777", "13700137000", "7000", "13700137001", "7001"):
        (own,) = answered(runtime, pasted, None, accounts=("default",))
        (others,) = answered(runtime, pasted, None, accounts=("other",))
        assert (own.is_empty, others.is_empty) == (False, True), pasted


def test_masked_receipts_beyond_those_searched_leave_it_open_whether_it_was_sent(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = make_push(mobile="186****7777", task_id="t0")
    save_pushes(runtime.database, [masked])
    save_pushes(runtime.database, [make_push(mobile="13900000000", task_id=f"t{n}", second=n) for n in range(1, 4)])
    record(runtime, make_send(mobile="13900000000", task_id="t1", sent_at=NOON))

    def never_sent(pasted: str) -> list[bool]:
        return [result.never_sent for result in answered(runtime, pasted, None)]

    assert (never_sent("18612347777"), never_sent("18612347778")) == ([False], [True])
    monkeypatch.setattr(store, "_SEARCHED_MAX", 2)
    assert (never_sent("18612347777"), never_sent("18612347778")) == ([False], [False])


def test_used_code_of_an_unrecorded_send_is_known(runtime: Runtime) -> None:
    record(runtime, make_send(mobile="13900000000", sent_at=NOON))
    save_pushes(runtime.database, [make_push(content="ok")])
    runtime.database.write(lambda c: c.execute(sa.delete(replies)))
    (result,) = answered(runtime, NUMBER, None)
    assert (result.is_empty, result.undated, result.never_sent) == (False, True, False)


def test_since_when_messages_are_kept_is_said(runtime: Runtime) -> None:
    (result,) = answered(runtime, NUMBER, None)
    assert result.kept_since is None
    row = {"kind": "messages", "horizon": NOON - 180 * DAY}
    runtime.database.write(lambda c: c.execute(sa.insert(retention), row))
    (result,) = answered(runtime, NUMBER, None)
    assert (result.kept_since, result.never_sent) == (NOON - 180 * DAY, True)


def test_unmatched_refused_and_unsettled_messages_are_found_too(runtime: Runtime) -> None:
    save_pushes(runtime.database, [make_push(task_id="unmatched", second=3)])
    record(runtime, make_send(task_id=None, reference="r", sent_at=NOON + MINUTE, error_message="余额不足"))
    attempt = make_attempt(mobile=NUMBER, sent_at=NOON, reference="r")
    runtime.recorder.begin(attempt, day_began=NOON)
    assert found(runtime, NUMBER) == [None, "unmatched", None]
    assert found(runtime, "尾号1090") == [None, "unmatched", None]
    assert found(runtime, "r") == [None, None]
    (result,) = answered(runtime, "unmatched", timedelta(seconds=0))
    assert (result.earlier, len(result.groups)) == (False, 1)


def test_push_with_another_number_of_the_task_is_not_found_by_the_number(runtime: Runtime) -> None:
    pushes = [make_push(), make_push(mobile="13900000000")]
    save_pushes(runtime.database, pushes)
    assert found(runtime, NUMBER) == ["3313746"]
    assert found(runtime, "3313746") == ["3313746", "3313746"]
