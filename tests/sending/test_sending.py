"""A send is recorded whatever happens around it, and is never made twice."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.core import (
    DatabaseUnavailable,
    MessageStatus,
    SendAttempt,
    SendResult,
    first_id_of,
    new_id,
    whole_milliseconds,
)
from receiver.db.engine import Database
from receiver.db.tables import attempts as attempts_table
from receiver.db.tables import messages as messages_table
from receiver.intake.spool_records import SpooledAttempt, read_file
from receiver.messages import queries, recording
from receiver.messages.queries import Filter, Page
from receiver.platform.client import PlatformClient, RawAnswer
from receiver.sending.attempts import CUT_OFF
from receiver.sending.recorder import Recorder
from receiver.sending.service import Sender
from tests.conftest import SECRET, make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.platforms import APP_ID, APP_KEY, CODE, GOOD_ANSWER, MOBILE, SETTING, http, scripted, stand_in

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient

    from receiver.messages.queries import MessageRow
    from receiver.runtime import Runtime

BODY = {"mobile": MOBILE, "template_id": "540", "code": CODE, "reference": "order-1"}


class Sending:
    """An application that sends to one platform."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.client: FlaskClient = create_app(runtime).test_client()
        self.headers = {"Authorization": make_key(runtime)}

    def send(self, key: str | None = None, **changes: Any) -> Any:
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        return self.client.post("/api/v1/verify-codes", json=BODY | changes, headers=headers)

    def rows(self) -> list[MessageRow]:
        """Every message, newest first."""
        return self.runtime.ask(lambda c: queries.list_messages(c, Page(limit=100), self.runtime.clock()))

    def row(self) -> MessageRow:
        (row,) = self.rows()
        return row


@pytest.fixture
def sending(make_runtime: Callable[..., Runtime]) -> Callable[..., Sending]:
    def make(port: int, **settings: Any) -> Sending:
        url = f"http://127.0.0.1:{port}/smsApi"
        return Sending(make_runtime(**{"platform_url": url, "platform_credentials": SETTING} | settings))

    return make


def answering(body: bytes) -> Any:
    return scripted(lambda connection: connection.sendall(http(body)))


# --- What a sender is told ------------------------------------------------------------------------------


def test_send_answers_with_the_message_and_keeps_no_trace_of_the_code(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        answer = shop.send()
    assert answer.status_code == 201, answer.json
    told = {name: answer.json[name] for name in ("task_id", "mobile", "template_id", "reference", "status", "matched")}
    assert told == {
        "task_id": "3313746", "mobile": MOBILE, "template_id": "540", "reference": "order-1",
        "status": "pending", "matched": True,
    }  # fmt: skip
    with shop.runtime.database.reading() as connection:
        for table in (messages_table, attempts_table):
            assert CODE not in str(connection.execute(sa.select(table)).all())
        row = connection.execute(sa.select(messages_table)).one()
    assert (row.success_counts, row.remain_point, row.send_state) == (1, 241, None)


def test_refusal_is_told_in_the_platforms_words_and_recorded(sending: Callable[..., Sending]) -> None:
    with stand_in(one_a_minute=True) as platform:
        shop = sending(platform.port)
        assert shop.send().status_code == 201
        answer = shop.send()
    words = "相同手机号码一分钟之内只可发送一次"
    assert answer.status_code == 422
    assert (answer.json["detail"], answer.json["code"]) == (words, "number_minute_limit")
    assert (answer.json["waiting_helps"], bool(answer.json["advice"])) == (True, True)
    refused, sent = shop.rows()
    assert (refused.status, refused.error_message, refused.task_id) == (MessageStatus.REFUSED, words, None)
    assert (sent.status, sent.error_message) == (MessageStatus.PENDING, None)


@pytest.mark.parametrize("body", [b"<html>", b'{"returnStatus": "1 ", "taskId": null}'])
def test_unreadable_answer_is_502_outcome_unknown_and_recorded_as_such(
    sending: Callable[..., Sending], body: bytes
) -> None:
    with answering(body) as (port, requests):
        shop = sending(port)
        answer = shop.send()
    assert (answer.status_code, answer.json["code"]) == (502, "outcome_unknown")
    assert "Retry-After" not in answer.headers
    assert shop.row().status is MessageStatus.OUTCOME_UNKNOWN
    assert len(requests) == 1


def test_unreached_platform_is_502_and_recorded_as_not_sent(sending: Callable[..., Sending]) -> None:
    shop = sending(1)
    answer = shop.send()
    assert (answer.status_code, answer.json["code"]) == (502, "platform_unreachable")
    assert "nothing was sent" in answer.json["detail"]
    row = shop.row()
    assert row.status is MessageStatus.REFUSED
    assert row.error_message is not None
    assert row.error_message.startswith("not sent: ")


class Broken(PlatformClient):
    """A client with a fault that nobody has thought of."""

    def post(self, path: str, body: bytes) -> RawAnswer:
        raise RuntimeError(path, body)


def test_attempt_whose_call_raises_anything_is_over(sending: Callable[..., Sending]) -> None:
    shop = sending(1)
    shop.runtime.sender = Sender(shop.runtime.settings, shop.runtime.recorder, Broken("http://127.0.0.1:1"))
    answer = shop.send()
    assert (answer.status_code, answer.json["code"]) == (502, "outcome_unknown")
    assert CODE not in answer.text
    assert shop.row().status is MessageStatus.OUTCOME_UNKNOWN


def test_attempts_that_wait_for_their_turn_when_the_process_stops_are_recorded_as_not_sent(
    sending: Callable[..., Sending],
) -> None:
    may_answer = threading.Event()

    def behave(connection: socket.socket) -> None:
        may_answer.wait(60)
        connection.sendall(http(b"{}"))

    with scripted(behave) as (port, requests), ThreadPoolExecutor(80) as pool:
        shop = sending(port)
        answers = [pool.submit(shop.send) for _ in range(70)]
        deadline = time.monotonic() + 60
        while len(requests) < 64 or len(shop.rows()) < 70:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        closing = pool.submit(shop.runtime.sender.close)
        time.sleep(0.2)
        may_answer.set()
        closing.result(60)
        codes = [answer.result(60).json["code"] for answer in answers]
    assert (codes.count("outcome_unknown"), codes.count("platform_unreachable")) == (64, 6)
    assert [row.error_message for row in shop.rows() if row.status is MessageStatus.REFUSED] == [
        "not sent: this process is stopping"
    ] * 6


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"mobile": "+1 650 555 0100"}, {"#/mobile"}),
        ({"code": "12a"}, {"#/code"}),
        ({"template_id": "x"}, {"#/template_id"}),
        ({"account": "other"}, {"#/account"}),
        ({"unknown": 1}, {"#/unknown"}),
    ],
)
def test_wrong_input_is_named_and_nothing_is_sent(
    sending: Callable[..., Sending], changes: dict[str, Any], pointers: set[str]
) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        answer = shop.send(**changes)
        assert platform.ledger.summary()["sent"] == 0
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json["errors"]} == pointers
    assert shop.rows() == []


def test_without_credentials_the_setting_is_named(sending: Callable[..., Sending]) -> None:
    answer = sending(1, platform_credentials=()).send()
    assert answer.status_code == 422
    assert "RECEIVER_PLATFORM_CREDENTIALS" in answer.json["errors"][0]["detail"]


# --- Once -----------------------------------------------------------------------------------------------


def test_repeated_key_answers_the_first_result_and_sends_nothing(sending: Callable[..., Sending]) -> None:
    with stand_in(one_a_minute=True) as platform:
        shop = sending(platform.port)
        first, second = shop.send("a"), shop.send("a")
        refused, refused_again = shop.send("b"), shop.send("b")
        assert platform.ledger.summary() | {"pushed": 0, "acked": 0} == {
            "sent": 1, "refused": 1, "pushed": 0, "acked": 0,
        }  # fmt: skip
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json | {"updated_at": ""} == second.json | {"updated_at": ""}  # the stamp of a send comes after it
    assert (refused.status_code, refused_again.status_code, refused_again.json) == (422, 422, refused.json)
    replayed = [answer.headers.get("Idempotent-Replayed") for answer in (first, second, refused, refused_again)]
    assert replayed == [None, "true", None, "true"]
    assert first.headers["Location"] == second.headers["Location"] == f"/api/v1/messages/{first.json['id']}"


def test_key_repeated_for_another_request_is_refused(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        shop.send("a")
        answer = shop.send("a", code="735195")
        assert platform.ledger.summary()["sent"] == 1
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")


def test_key_of_another_caller_is_another_key(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        shop.send("a")
        shop.headers = {"Authorization": make_key(shop.runtime)}
        assert shop.send("a").json["task_id"] == "3313747"


def test_key_repeated_while_the_first_is_under_way_waits_for_its_result(sending: Callable[..., Sending]) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def behave(connection: socket.socket) -> None:
        asked.set()
        may_answer.wait(60)
        connection.sendall(http(GOOD_ANSWER))

    with scripted(behave) as (port, requests), ThreadPoolExecutor(8) as pool:
        shop = sending(port)
        first = pool.submit(shop.send, "a")
        assert asked.wait(60)
        others = [pool.submit(shop.send, "a") for _ in range(5)]
        time.sleep(0.3)
        assert not any(other.done() for other in others)
        may_answer.set()
        answers = [future.result(60) for future in (first, *others)]
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json["task_id"] for answer in answers} == {"3313746"}
    assert len(requests) == 1


def test_fingerprint_needs_what_the_database_does_not_hold(sending: Callable[..., Sending]) -> None:
    found = []
    for app_key in (APP_KEY, APP_KEY + "x"):
        with stand_in() as platform:
            shop = sending(platform.port, platform_credentials=(("default", APP_ID, app_key),))
            shop.send(app_key)
            with shop.runtime.database.reading() as connection:
                query = sa.select(attempts_table.c.fingerprint).where(attempts_table.c.idempotency_key == app_key)
                found.append(connection.scalar(query))
    assert found[0] != found[1]


def test_key_is_forgotten_after_a_day(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        shop.send("a")
        two_days_ago = shop.runtime.now() - timedelta(days=2)
        shop.runtime.database.write(lambda c: c.execute(sa.update(attempts_table).values(begun_at=two_days_ago)))
        assert shop.send("a").json["task_id"] == "3313747"


# --- Local limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"send_min_interval": timedelta(seconds=60)}, 1),
        ({"send_max_per_number_per_day": 3}, 3),
        ({"send_max_per_day": 2}, 2),
    ],
)
def test_local_limit_refuses_before_money_is_spent_however_many_ask_at_once(
    sending: Callable[..., Sending], limits: dict[str, Any], allowed: int
) -> None:
    with stand_in() as platform, ThreadPoolExecutor(8) as pool:
        shop = sending(platform.port, **limits)
        answers = list(pool.map(lambda _: shop.send(), range(8)))
        assert platform.ledger.summary()["sent"] == allowed
    assert sorted(answer.status_code for answer in answers) == [201] * allowed + [422] * (8 - allowed)
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json["code"] == "local_limit"
    assert "RECEIVER_SEND_" in refused.json["detail"]
    assert sum(row.status is MessageStatus.REFUSED for row in shop.rows()) == 8 - allowed


def test_limit_per_number_leaves_other_numbers_alone(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port, send_min_interval=timedelta(seconds=60))
        codes = [shop.send(mobile=mobile).status_code for mobile in (MOBILE, "15608911091", MOBILE)]
    assert codes == [201, 201, 422]


# --- Receipts that overtake, crashes, and the database away -------------------------------------------------


def test_receipt_before_the_answer_is_the_messages(sending: Callable[..., Sending]) -> None:
    shop: Sending

    def behave(connection: socket.socket) -> None:
        for content in (None, "收到"):
            push = make_push(mobile=MOBILE, second=3, content=content)
            shop.runtime.batch_writer.enqueue(push).result(60)
        push = make_push(mobile=MOBILE[:7] + "****", second=4)
        shop.runtime.batch_writer.enqueue(push).result(60)
        connection.sendall(http(GOOD_ANSWER))

    with scripted(behave) as (port, _):
        shop = sending(port)
        answer = shop.send().json
    row = shop.row()
    assert str(row.id) == answer["id"]
    assert (row.status, row.matched, row.receipt_count, row.reply_count) == (MessageStatus.DELIVERED, True, 2, 1)
    assert (row.template_id, row.reference, row.error_message) == ("540", "order-1", None)
    assert row.sent_at is not None


def test_task_id_joins_the_row_of_its_pushes_however_they_interleave(runtime: Runtime) -> None:
    """Many sends at once, each racing with its own receipt and with a record of the same send by its sender."""

    def race(number: int) -> None:
        task_id, mobile = f"t{number}", f"1560891{number:04d}"
        attempt = make_attempt(mobile=mobile)
        result = SendResult(state=None, answered_at=datetime.now(UTC), task_id=task_id, success_counts=1)
        runtime.recorder.begin(attempt, day_began=NOON)
        work: list[Callable[[], Any]] = [
            lambda: runtime.recorder.finish(attempt, result),
            lambda: runtime.batch_writer.enqueue(make_push(mobile=mobile, task_id=task_id)).result(20),
            lambda: runtime.recorder.record([make_send(mobile=mobile, task_id=task_id, reference="own")]),
        ]
        with ThreadPoolExecutor(3) as pool:
            for future in [pool.submit(part) for part in work[number % 3 :] + work[: number % 3]]:
                future.result(30)

    runtime.batch_writer.enqueue(make_push(task_id="first")).result(20)  # first contact
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(40)))
    deadline = time.monotonic() + 20
    while any(runtime.spool.directory.glob("*.spool")) and time.monotonic() < deadline:
        time.sleep(0.1)
    rows = runtime.ask(
        lambda c: queries.list_messages(c, Page(limit=100, filter=Filter(matched=True)), runtime.clock())
    )
    assert len(rows) == 40
    assert {(row.status, row.receipt_count, row.reference) for row in rows} == {(MessageStatus.DELIVERED, 1, "own")}


WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writers'"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def test_no_two_writers_wait_for_each_other_in_a_circle(postgres_runtime: Runtime) -> None:
    """`Database.write` repeats what a deadlock broke, so PostgreSQL itself is asked whether there was one."""
    url = postgres_runtime.settings.database_url
    # A circle is found, and counted, long before a writer's patience ends; whoever only waits has 30 seconds.
    database = Database(f"{url}?application_name=writers&options=-c%20deadlock_timeout%3D10ms")
    recorder = Recorder(database, availability=postgres_runtime.availability, spool=postgres_runtime.spool)

    def push(tasks: list[str], chance: random.Random) -> None:
        numbers = chance.choice([(MOBILE,), (MOBILE, MOBILE), (MOBILE, "1560891****", MOBILE)])
        batch = [
            make_push(task_id=task, mobile=number, second=chance.randint(0, 10**6))
            for task in tasks
            for number in numbers
        ]
        save_pushes(database, batch)

    def record(tasks: list[str], _chance: random.Random) -> None:
        numbers = [MOBILE, *(f"139{number:08}" for number in range(20))]
        sends = [make_send(task_id=task, mobile=number) for task in tasks for number in numbers]
        database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOON))

    def finish(tasks: list[str], _chance: random.Random) -> None:
        results = [replace(TAKEN, task_id=task) for task in tasks]
        recorder.record_spooled(
            [SpooledAttempt(attempt=make_attempt(), result=result, recorded_at=NOON) for result in results]
        )

    def some_of_many(tasks: list[str], chance: random.Random) -> list[tuple[str, str]]:
        numbers = [f"138{number:08}" for number in range(16)]
        return [(task, number) for task in tasks for number in chance.sample(numbers, 8)]

    def record_some(tasks: list[str], chance: random.Random) -> None:
        sends = [make_send(task_id=task, mobile=number) for task, number in some_of_many(tasks, chance)]
        database.write(lambda c: recording.record_sent(c, sends, recorded_at=NOON))

    def push_some(tasks: list[str], chance: random.Random) -> None:
        batch = [make_push(task_id=task, mobile=number) for task, number in some_of_many(tasks, chance)]
        save_pushes(database, batch)

    def crowd(*writers: Callable[[list[str], random.Random], None], turns: int, into: str = "") -> None:
        """Let writers meet in six tasks: those of that name, or new ones after every six turns."""

        def write_some(turn: int) -> None:
            chance = random.Random(turn)
            name = into or f"{writers[0].__name__}-{turn // 6}"
            writers[turn % len(writers)](chance.sample([f"{name}-{number}" for number in range(6)], 4), chance)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write_some, range(turns)))

    crowd(push, turns=48)
    crowd(record, turns=48)
    crowd(record_some, push_some, turns=96)  # what some know already, and others are about to make
    finish([f"known-{number}" for number in range(6)], random.Random())
    crowd(push, push, record, finish, turns=80, into="known")
    database.close()
    # A session adds what it has counted to the server's numbers when it ends, at the latest.
    while postgres_runtime.ask(lambda c: c.scalar(sa.text(WRITERS))):
        time.sleep(0.01)
    assert postgres_runtime.ask(lambda c: c.scalar(sa.text(DEADLOCKS))) == 0


def make_attempt(*, mobile: str = MOBILE, sent_at: datetime | None = None, reference: str | None = None) -> SendAttempt:
    return SendAttempt(
        id=new_id(),
        account="default",
        mobile=mobile,
        template_id="540",
        reference=reference,
        sent_at=sent_at or whole_milliseconds(datetime.now(UTC)),
    )


TAKEN = SendResult(state=None, answered_at=NOON, task_id="3313746", success_counts=1, remain_point=241)
UNKNOWN = SendResult(state=MessageStatus.OUTCOME_UNKNOWN, answered_at=NOON, error_message="no answer")
REFUSED = SendResult(state=MessageStatus.REFUSED, answered_at=NOON, error_message="余额不足")


@pytest.mark.parametrize("began", [0, 1, 2], ids=["begun first", "begun last", "never begun"])
@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([TAKEN], MessageStatus.PENDING),
        ([TAKEN, TAKEN], MessageStatus.PENDING),
        ([UNKNOWN, TAKEN], MessageStatus.PENDING),
        ([TAKEN, UNKNOWN], MessageStatus.PENDING),
        ([UNKNOWN, REFUSED], MessageStatus.REFUSED),
        ([REFUSED, UNKNOWN], MessageStatus.REFUSED),
        ([UNKNOWN, UNKNOWN], MessageStatus.OUTCOME_UNKNOWN),
    ],
)
def test_beginning_and_results_end_the_same_in_any_order(
    runtime: Runtime, results: list[SendResult], status: MessageStatus, began: int
) -> None:
    attempt = make_attempt()
    records: list[SendResult | None] = [*results]
    if began < 2:
        records.insert(len(records) * began, None)
    for result in records:
        runtime.recorder.record_spooled([SpooledAttempt(attempt=attempt, result=result, recorded_at=NOON)])
    (row,) = runtime.ask(lambda c: queries.list_messages(c, Page(limit=10), runtime.clock()))
    assert (row.status, row.task_id) == (status, "3313746" if TAKEN in results else None)


def test_two_attempts_in_one_millisecond_are_two(runtime: Runtime) -> None:
    first = make_attempt(reference="r", sent_at=NOON)
    for attempt in (first, replace(first, id=new_id())):
        runtime.recorder.begin(attempt, day_began=NOON)
    assert len(runtime.ask(lambda c: queries.list_messages(c, Page(limit=10), runtime.clock()))) == 2


def test_task_id_given_twice_by_the_platform_loses_neither_send(runtime: Runtime) -> None:
    for attempt in (make_attempt(), make_attempt()):
        runtime.recorder.finish(attempt, TAKEN)
    newest, first = runtime.ask(lambda c: queries.list_messages(c, Page(limit=10), runtime.clock()))
    assert (first.task_id, newest.task_id, newest.status) == ("3313746", None, MessageStatus.OUTCOME_UNKNOWN)


def test_send_cut_off_by_a_crash_says_so(runtime: Runtime) -> None:
    """Its process ended after the request and before the record: only the beginning is there."""
    long_ago = runtime.now() - timedelta(minutes=2)
    runtime.recorder.begin(make_attempt(sent_at=long_ago), day_began=NOON)
    runtime.recorder.begin(make_attempt(), day_began=NOON)
    now, cut_off = runtime.ask(lambda c: queries.list_messages(c, Page(limit=10), runtime.clock()))
    assert (now.status, cut_off.status) == (MessageStatus.SENDING, MessageStatus.OUTCOME_UNKNOWN)
    for status, row in ((MessageStatus.SENDING, now), (MessageStatus.OUTCOME_UNKNOWN, cut_off)):
        page = Page(limit=10, filter=Filter(status=status))
        (listed,) = runtime.ask(lambda c, page=page: queries.list_messages(c, page, runtime.clock()))  # type: ignore[misc]
        assert (listed.id, listed.status) == (row.id, status)  # the stamp of its change comes after it


def test_attempt_that_a_dead_process_left_is_over_once_another_runs(
    runtime: Runtime, make_runtime: Callable[..., Runtime]
) -> None:
    long_ago = runtime.now() - timedelta(minutes=2)
    left = replace(make_attempt(sent_at=long_ago), id=first_id_of(long_ago))
    answered = replace(make_attempt(sent_at=long_ago), id=first_id_of(long_ago - timedelta(seconds=1)))
    for attempt in (answered, left, make_attempt()):
        runtime.recorder.begin(attempt, day_began=NOON)
    runtime.recorder.finish(answered, TAKEN)
    make_runtime()
    states: list[tuple[str | None, str | None]] = []
    deadline = time.monotonic() + 60
    while (MessageStatus.OUTCOME_UNKNOWN.value, CUT_OFF) not in states:
        assert time.monotonic() < deadline, states
        time.sleep(0.05)
        with runtime.database.reading() as connection:
            query = sa.select(messages_table.c.send_state, messages_table.c.error_message).order_by(messages_table.c.id)
            states = [(row.send_state, row.error_message) for row in connection.execute(query)]
    assert states == [(None, None), (MessageStatus.OUTCOME_UNKNOWN.value, CUT_OFF), (MessageStatus.SENDING.value, None)]
    runtime.recorder.finish(left, replace(TAKEN, task_id="late"))  # its process was not dead, only very slow
    settled = runtime.ask(lambda c: queries.list_messages(c, Page(limit=10), runtime.clock()))[1]
    assert (settled.task_id, settled.status, settled.error_message) == ("late", MessageStatus.PENDING, None)


@contextmanager
def database_away(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        for database in (runtime.database, runtime.intake_database):
            for name in ("write", "write_at_once", "reading"):
                patch.setattr(database, name, away)
        yield
    runtime.availability.changed.set()
    deadline = time.monotonic() + 20
    while not runtime.availability.up and time.monotonic() < deadline:
        time.sleep(0.01)


def test_records_while_the_database_is_away_are_kept_and_say_so(
    sending: Callable[..., Sending], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = sending(1)
    assert shop.client.get("/api/v1/balance", headers=shop.headers).status_code == 200  # the key is known now
    record = {"task_id": "3313746", "mobile": MOBILE}
    with database_away(shop.runtime, monkeypatch):
        one, many = (
            shop.client.post("/api/v1/messages", json=body, headers=shop.headers) for body in (record, [record, {}])
        )
    assert (one.status_code, one.json) == (202, {"status": 202})
    assert (many.status_code, [item["status"] for item in many.json["items"]]) == (202, [202, 422])


def test_send_while_the_database_is_away_is_recorded_when_it_is_back(
    sending: Callable[..., Sending], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        assert shop.client.get("/api/v1/balance", headers=shop.headers).status_code == 200  # the key is known now
        with database_away(shop.runtime, monkeypatch):
            answer = shop.send()
            with_key = shop.send("a")
        assert platform.ledger.summary()["sent"] == 1
    assert (answer.status_code, answer.json) == (202, {"status": 202, "task_id": "3313746"})
    assert with_key.status_code == 503  # a key that cannot be looked up may have been used
    deadline = time.monotonic() + 20
    while not shop.rows() or shop.row().task_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (shop.row().task_id, shop.row().status, shop.row().reference) == (
        "3313746", MessageStatus.PENDING, "order-1",
    )  # fmt: skip


def test_spooled_attempts_come_back_as_they_went_in(runtime: Runtime) -> None:
    records = [
        SpooledAttempt(attempt=make_attempt(reference="r"), result=result, recorded_at=NOON)
        for result in (None, TAKEN, UNKNOWN, REFUSED)
    ]
    runtime.availability.mark_down("for the test")
    runtime.spool.append(records)
    (path,) = runtime.spool.directory.glob("*.spool")
    assert list(read_file(path)) == records


def test_wait_on_a_send_under_way_ends_with_its_result(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        attempt = make_attempt()
        noted = shop.runtime.recorder.begin(attempt, day_began=NOON)
        assert noted is not None
        with ThreadPoolExecutor(1) as pool:
            path = f"/api/v1/messages/{noted.message_id}?wait=30"
            waiting = pool.submit(shop.client.get, path, headers=shop.headers)
            time.sleep(0.5)
            shop.runtime.recorder.finish(attempt, TAKEN)
            answer = waiting.result(60).json
    assert (answer["status"], answer["task_id"], answer["id"]) == ("pending", "3313746", str(noted.message_id))


def test_answer_after_the_caller_has_left_is_recorded(
    sending: Callable[..., Sending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.sending.service.PATIENCE_SECONDS", 0.3)
    may_answer = threading.Event()

    def behave(connection: socket.socket) -> None:
        may_answer.wait(60)
        connection.sendall(http(GOOD_ANSWER))

    with scripted(behave) as (port, _):
        shop = sending(port)
        answer = shop.send()
        assert (answer.status_code, answer.json["code"]) == (504, "outcome_unknown")
        assert shop.row().status is MessageStatus.OUTCOME_UNKNOWN
        may_answer.set()
        deadline = time.monotonic() + 60
        while shop.row().task_id is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert shop.row().status is MessageStatus.PENDING


def test_only_a_key_for_sending_sends(sending: Callable[..., Sending]) -> None:
    with stand_in() as platform:
        shop = sending(platform.port)
        shop.headers = {"Authorization": f"Bearer {SECRET}"}
        assert shop.send().status_code == 401
        shop.headers = {"Authorization": make_key(shop.runtime, Scope.READ, Scope.MESSAGES_WRITE)}
        assert shop.send().status_code == 403
        assert platform.ledger.summary()["sent"] == 0
