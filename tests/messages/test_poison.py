"""Whatever comes in, and whatever one row is like: every list, page, feed, report, file and command answers."""

from __future__ import annotations

import json
import string
import threading
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from receiver.alerting import figures
from receiver.app import create_app
from receiver.core import Unreadable, new_id
from receiver.db import set_aside
from receiver.db.tables import forward_queue, messages, rows_set_aside
from receiver.maintenance import erase
from receiver.messages.recording import record_sent
from receiver.messages.send_records import FIELDS, InvalidSendRecord, SendRecordParser
from receiver.webhooks import fan_out, worker
from tests.conftest import SECRET
from tests.harness.factories import make_push, make_send
from tests.harness.hooks import Hook, hook
from tests.harness.journal import save_pushes
from tests.harness.platforms import GOOD_ANSWER, SETTING, http, scripted
from tests.harness.readers import Readers
from tests.harness.running import examples
from tests.harness.waiting import await_true
from tests.webhooks.test_webhooks import ALLOW

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.runtime import Runtime

NUMBER = "15080921090"


@pytest.fixture
def target() -> Iterator[Hook]:
    with hook() as made:
        yield made


class Platform:
    """A platform that answers what it is told to, and as it should otherwise."""

    def __init__(self) -> None:
        self.answers: deque[bytes] = deque()
        self.port = 0

    def behave(self, connection: socket.socket) -> None:
        connection.sendall(http(self.answers.popleft() if self.answers else GOOD_ANSWER))


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform()
    with scripted(made.behave) as (port, _):
        made.port = port
        yield made


@pytest.fixture
def readers(
    make_runtime: Callable[..., Runtime],
    target: Hook,
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Readers:
    """All readers, and an own system that is told of everything."""
    monkeypatch.setattr(set_aside, "_noted", set_aside._Noted())  # each process has one, and one database
    runtime = make_runtime(
        webhooks_allow=ALLOW,
        platform_url=f"http://127.0.0.1:{platform.port}/smsApi",
        platform_credentials=SETTING,
    )
    runtime.webhooks.add("test", name="shop", url=target.url(), form="webhooks", not_delivered_after_seconds=60)
    runtime.webhooks.add("test", name="raw", url=target.url("/raw"), form="raw")
    place = tmp_path / "backups"
    place.mkdir()
    return Readers(runtime, create_app(runtime), place)


def await_told(runtime: Runtime) -> None:
    """Wait until nothing is left to be made into deliveries."""
    count = sa.select(sa.func.count()).select_from(forward_queue)
    runtime.webhook_worker.run_now()
    await_true(lambda: runtime.ask(lambda connection: connection.scalar(count)) == 0)


# --- Whatever comes in ------------------------------------------------------------------------------------

_times = st.one_of(
    st.sampled_from(
        [
            "2026-11-23 12:00:00", "0226-11-20 10:00:00", "0001-01-01 00:00:00", "1000-01-01 00:00:00",
            "9999-12-31 23:59:59", "1999-12-31 23:59:59", "2000-01-01 00:00:00", "2099-01-01 00:00:00", "",
        ]
    ),
    st.datetimes().map(lambda moment: moment.isoformat(sep=" ")),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.text(max_size=30),
)  # fmt: skip
_numbers = st.one_of(
    st.sampled_from([NUMBER, "1508092****", "+8615080921091", "0086 150 8092 1092"]),
    st.text(max_size=20),
    st.text(string.digits + "*+- ", max_size=20),
)
_texts = st.one_of(st.sampled_from(["1", "0", "收到", "退订", "=1+1", "\0", ""]), st.text(max_size=40))
_forms = st.fixed_dictionaries(
    {},
    optional={
        "mobile": _numbers, "taskid": _texts, "status": _texts, "content": _texts, "receivetime": _times, "x": _texts
    },
)  # fmt: skip
_pushes = st.one_of(
    st.binary(min_size=1, max_size=200),
    _forms.map(lambda fields: "&".join(f"{name}={value}" for name, value in fields.items()).encode("utf-8", "replace")),
    st.tuples(_times, _texts).map(
        lambda pair: f"mobile={NUMBER}&taskid=t&status={pair[1]}&receivetime={pair[0]}".encode("utf-8", "replace")
    ),
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), _times),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
_records = st.one_of(
    st.fixed_dictionaries(
        {"task_id": st.one_of(st.just("t"), _texts), "mobile": _numbers},
        optional={name: st.one_of(_times, _texts, _json) for name in sorted(FIELDS.keys() - {"task_id", "mobile"})},
    ),
    st.lists(_json, max_size=3),
    _json,
)
_answers = st.one_of(
    st.binary(max_size=60),
    st.fixed_dictionaries(
        {"returnStatus": st.sampled_from(["1 ", "1", "0", 1, None]), "taskId": st.one_of(_texts, _json)},
        optional={"message": _json, "remainPoint": st.one_of(_texts, _json), "successCounts": _json},
    ).map(lambda answer: json.dumps(answer).encode()),
)
_lines = st.fixed_dictionaries({name: st.one_of(_times, _texts, _numbers) for name in sorted(FIELDS)})


@given(data=st.data())
@settings(
    max_examples=examples(4),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_after_anything_that_came_in_every_reader_answers(
    readers: Readers, platform: Platform, data: st.DataObject
) -> None:
    runtime, client = readers.runtime, readers.client
    for body in data.draw(st.lists(_pushes, min_size=8, max_size=25)):
        answer = client.post(f"/push/{SECRET}", data=body or b"&")
        assert answer.status_code == 200, answer.text
    for record in data.draw(st.lists(_records, min_size=5, max_size=15)):
        text = json.dumps(record)
        answer = client.post("/api/v1/messages", data=text, content_type="application/json", headers=readers.key)
        assert answer.status_code in (200, 201, 400, 409, 422), (text, answer.text)
    reader = SendRecordParser(zone=runtime.settings.timezone, accounts=frozenset({"default"}))
    for line in data.draw(st.lists(_lines, min_size=3, max_size=10)):
        try:
            sent = reader.read(line)
        except InvalidSendRecord:
            continue
        runtime.database.write(partial(record_sent, sends=[sent], recorded_at=runtime.now()))
    for said in data.draw(st.lists(_answers, min_size=2, max_size=5)):
        platform.answers.append(said)
        sending = {"mobile": NUMBER, "template_id": "540", "code": "1234"}
        assert client.post("/api/v1/verify-codes", json=sending, headers=readers.key).status_code < 600
    await_told(runtime)
    readers.read_all()
    assert all(finding.ok for finding in readers.findings.values()), readers.findings
    assert runtime.ask(figures.find_set_aside) == {}


# --- Whatever one row is like -----------------------------------------------------------------------------

SQLITE_ROWS = {
    "receipt of an unwritten year": ("receipts", "reported_at = '226-11-20 02:00:00.000000'"),
    "receipt of no time": ("receipts", "reported_at = 'yesterday'"),
    "receipt received at no time": ("receipts", "received_at = ''"),
    "receipt with half a JSON": ("receipts", "extra = '{\"a\"'"),
    "receipt of no push": ("receipts", "push_id = 'zz'"),
    "reply at the end of time": ("replies", "replied_at = '9999-12-31 23:59:59.000000'"),
    "reply of no push": ("replies", "push_id = 'zz'"),
    "message sent at the end of time": ("messages", "sent_at = '9999-12-31 23:59:59.999000'"),
    "message sent at no time": ("messages", "sent_at = '0'"),
    "message of no status": ("messages", "status = 77"),
    "message of no state of sending": ("messages", "send_state = 'dreaming', status = 0"),
    "reply of bytes": ("replies", "content = x'fffe'"),
    "message of bytes": ("messages", "template_id = x'fffe'"),
    "receipt of copies without number": ("receipts", "copies = 'many'"),
    "reply of text that is none": ("replies", "content = CAST(x'fffe80' AS TEXT)"),
    "push of no endpoint": ("pushes", "endpoint = 'nowhere'"),
    "push of a broken flag": ("pushes", "flags = '['"),
    "push received at no time": ("pushes", "received_at = 'x'"),
}
POSTGRESQL_ROWS = {
    "receipt of year 226": ("receipts", "reported_at = '0226-11-20 02:00:00+00'"),
    "receipt of a year of five digits": ("receipts", "reported_at = '20260-11-20 02:00:00+00'"),
    "receipt before Christ": ("receipts", "reported_at = '0044-03-15 02:00:00+00 BC'"),
    "reply at no end": ("replies", "replied_at = 'infinity'"),
    "message sent at the end of time": ("messages", "sent_at = '9999-12-31 23:59:59.999+00'"),
    "message sent in a year of five digits": ("messages", "sent_at = '20260-11-20 02:00:00+00'"),
    "message of no status": ("messages", "status = 77"),
    "message of no state of sending": ("messages", "send_state = 'dreaming', status = 0"),
    "push of no endpoint": ("pushes", "endpoint = 'nowhere'"),
}
# Those that are read as something: a time, however odd, is one. The others are set aside and named.
SHOWN = ("unwritten year", "no time", "year 226", "end of time")


def fill(runtime: Runtime) -> None:
    runtime.database.write(
        partial(record_sent, sends=[make_send(task_id=f"t{number}") for number in range(12)], recorded_at=runtime.now())
    )
    save_pushes(runtime.database, [make_push(task_id=f"t{number}") for number in range(12)])
    save_pushes(runtime.database, [make_push(task_id=f"t{number}", content="收到") for number in range(12)])
    save_pushes(
        runtime.database,
        [replace(make_push(), id=new_id(), reading=Unreadable(error="mobile: missing")) for _ in range(2)],
    )


def spoil(runtime: Runtime, table: str, change: str) -> str:
    """Make one row in the middle of a table what it should not be; its id."""

    def work(connection: sa.Connection) -> str:
        column = "id" if not runtime.database.postgresql else "id::text"
        ids = [row[0] for row in connection.exec_driver_sql(f"SELECT {column} FROM {table} ORDER BY id")]
        one = ids[len(ids) // 2]
        same = f"id = '{one}'" if table == "pushes" else f"id = {one}"
        assert connection.exec_driver_sql(f"UPDATE {table} SET {change} WHERE {same}").rowcount == 1
        return str(one).replace("-", "")

    return runtime.database.write(work)


def find_named(runtime: Runtime) -> dict[str, list[str]]:
    """Return the ids that the alarm names, by table. Wait for them: the housekeeping may be saving them just now."""
    named = runtime.ask(figures.find_set_aside)
    return {table: [row_id.replace("-", "") for row_id in rows.ids] for table, rows in named.items()}


def assert_one_is_left_out(readers: Readers, kind: str, table: str, change: str) -> None:
    runtime = readers.runtime
    fill(runtime)
    await_told(runtime)
    before = readers.read_lists()
    spoiled = spoil(runtime, table, change)
    after = readers.read_all()
    gone = {row_id.replace("-", "") for row_id in before[table] - after[table]}
    shown = any(words in kind for words in SHOWN)
    assert gone == (set() if shown else {spoiled})
    assert {name: after[name] for name in after if name != table} == {
        name: before[name] for name in before if name != table
    }
    set_aside.save_noted(runtime.database, runtime.now())
    await_true(lambda: find_named(runtime) == ({} if shown else {table: [spoiled]}))
    # What comes afterwards is told, whatever that row is like.
    save_pushes(runtime.database, [make_push(task_id="after")])
    runtime.database.write(partial(record_sent, sends=[make_send(task_id="after2")], recorded_at=runtime.now()))
    await_told(runtime)


@pytest.mark.parametrize("kind", SQLITE_ROWS)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_spoiled_row_of_the_embedded_database_stops_nothing_else(readers: Readers, kind: str) -> None:
    assert_one_is_left_out(readers, kind, *SQLITE_ROWS[kind])


@pytest.mark.parametrize("kind", POSTGRESQL_ROWS)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_spoiled_row_of_postgresql_stops_nothing_else(readers: Readers, kind: str) -> None:
    assert_one_is_left_out(readers, kind, *POSTGRESQL_ROWS[kind])


# --- Where what looks like damage is none, or a great deal of it ------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_program_that_errs_at_every_row_is_an_error_and_no_damage(readers: Readers) -> None:
    runtime = readers.runtime
    save_pushes(runtime.database, [make_push(task_id=f"many{number}") for number in range(300)])

    def err(_row: Any) -> None:
        raise TypeError("a mistake")

    def read(connection: sa.Connection) -> object:
        return set_aside.read_rows(connection, sa.select(messages).order_by(messages.c.id).limit(50), messages, err)

    with pytest.raises(TypeError, match="a mistake"):
        runtime.ask(read)


def test_a_fan_out_that_errs_at_every_change_drops_none_and_goes_on_once_it_is_mended(
    readers: Readers, target: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = readers.runtime
    erred = threading.Event()

    def err(*_: Any, **__: Any) -> int:
        erred.set()
        raise TypeError("a mistake")

    count = sa.select(sa.func.count()).select_from(forward_queue)
    with monkeypatch.context() as patch:
        patch.setattr(fan_out, "fan_out", err)
        patch.setattr(worker, "fan_out", err)
        # A step that began before would fan the pushes out.
        runtime.webhook_worker.run_now()
        assert erred.wait(60)
        save_pushes(runtime.database, [make_push(task_id=f"t{number}") for number in range(40)])
        runtime.webhook_worker.run_now()
        left = count.where(forward_queue.c.left_at.isnot(None))
        await_true(lambda: (runtime.ask(lambda connection: connection.scalar(left)) or 0) > 20)
        assert runtime.ask(lambda connection: connection.scalar(count)) == 40
    long_ago = runtime.now() - 2 * fan_out.LEFT_FOR
    aged = sa.update(forward_queue).where(forward_queue.c.left_at.isnot(None)).values(left_at=long_ago)
    runtime.database.write(lambda connection: connection.execute(aged))
    runtime.database.write(fan_out.retry_left)
    await_told(runtime)
    await_true(lambda: sum(sent.path == "/raw" for sent in target.taken) == 40)


def test_a_row_that_can_be_read_again_or_is_gone_is_named_no_more(readers: Readers) -> None:
    runtime = readers.runtime
    fill(runtime)
    spoil(runtime, "messages", "status = 77")
    readers.get("/messages")
    set_aside.save_noted(runtime.database, runtime.now())
    await_true(lambda: {table: len(ids) for table, ids in find_named(runtime).items()} == {"messages": 1})
    mended = sa.update(messages).where(messages.c.status == 77).values(status=3)
    runtime.database.write(lambda connection: connection.execute(mended))
    assert runtime.ask(figures.find_set_aside) == {}
    runtime.database.write(figures.drop_mended)
    left = sa.select(sa.func.count()).select_from(rows_set_aside)
    assert runtime.ask(lambda connection: connection.scalar(left)) == 0


def test_a_damaged_push_of_a_forgotten_number_is_found_all_the_same(readers: Readers) -> None:
    runtime = readers.runtime
    fill(runtime)
    spoiled = spoil(runtime, "pushes", "endpoint = 'nowhere'")
    found = erase.find_traces(runtime.database, NUMBER, runtime.admission.read_again)
    assert spoiled in {push_id.hex for push_id in found.push_ids}
