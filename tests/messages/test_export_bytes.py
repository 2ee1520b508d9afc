"""What the database writes into a file is, byte for byte, what Python makes of the rows that the lists have."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import formulas, mask_mobile, mask_texts
from receiver.db.tables import messages, receipts, replies
from receiver.messages import queries
from receiver.messages.export_files import FileFormat, iter_file
from receiver.messages.fields import TIMES, FieldType, fields_of
from receiver.messages.queries import Filter, MessageRow, Page, ReceiptRow, ReplyRow
from tests.harness.factories import NOON
from tests.harness.running import examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from receiver.messages.fields import Field
    from receiver.runtime import Runtime

LISTS: Mapping[str, Any] = {
    "messages": queries.list_messages,
    "receipts": queries.list_receipts,
    "replies": queries.list_replies,
}
ROWS = {"messages": MessageRow, "receipts": ReceiptRow, "replies": ReplyRow}
SECONDS = ("reported_at", "replied_at")
HOSTILE = [
    "=1+1",
    "\r\n=1",
    "'=1",
    "\u3000＋1",
    '"',
    '""',
    "\\",
    "\\.",
    "\\u0000",
    "a,b",
    "\n",
    "\r",
    "\t",
    "",
    " ",
    "null",
]
HOSTILE += [
    "\x01",
    "\x02",
    "\x1f\x7f",
    "\u2028",
    "␀",
    "收到 😀",
    "%s %(x)s %%",
    ":x",
    "{}",
    '"},{"',
    "\ufeff-1",
    "é\u0301",
]
FORMS = (FileFormat.CSV, FileFormat.NDJSON)

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.one_of(st.sampled_from(HOSTILE), st.text(characters), st.lists(st.sampled_from(HOSTILE)).map("".join))
numbers = st.from_regex(r"[0-9*]{5,17}|1[3-9][0-9]{9}|1508092\*{4}", fullmatch=True)
EDGES = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001  (Hypothesis adds the zone)
times = st.datetimes(*EDGES, timezones=st.just(UTC))
of_a_send = times.map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
waits = st.one_of(st.none(), st.integers(-2, 90_000_000).map(lambda count: timedelta(milliseconds=count)))
message = st.fixed_dictionaries({
    "task_id": texts, "mobile": numbers, "status": st.integers(0, 3), "seen": st.sampled_from([0, 4, 8, 12]),
    "template_id": st.none() | texts, "reference": st.none() | texts, "error_message": st.none() | texts,
    "send_state": st.sampled_from([None, "refused", "sending", "outcome_unknown"]), "sent_at": st.none() | of_a_send,
    "recorded_at": st.none() | times, "wait": waits, "updated_at": times,
})  # fmt: skip
event = st.fixed_dictionaries({
    "received_at": times, "last_seen_at": times, "copies": st.integers(1, 2**31 - 1), "at": times, "text": texts,
    "extra": st.none() | st.dictionaries(texts, texts, max_size=2),
    "opt_out": st.booleans(), "opt_out_review": st.booleans(), "masked": st.none() | texts,
})  # fmt: skip


def fill(runtime: Runtime, rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    """Put these rows, and no others, into the tables."""

    def work(connection: sa.Connection) -> None:
        for table in (messages, receipts, replies):
            connection.execute(sa.delete(table))
        for number, row in enumerate(rows, 1):
            wait, sent_at = row["wait"], row["sent_at"]
            reported_at = None if wait is None or sent_at is None else (sent_at + wait).replace(microsecond=0)
            values = {key: value for key, value in row.items() if key != "wait"} | {"reported_at": reported_at}
            connection.execute(sa.insert(messages), {"id": number, "account": f"a.{number}", **values})
        stored: dict[tuple[sa.Table, bool], list[dict[str, Any]]] = defaultdict(list)
        for number, one in enumerate(events, 1):
            own = {"id": number, "push_id": UUID(int=number)}
            own |= {key: one[key] for key in ("received_at", "last_seen_at", "copies", "extra")}
            matched = one["masked"] is None and number <= len(rows)
            if matched:
                own["message_id"] = number
            else:
                own |= {"account": "b", "task_id": one["masked"] or "", "masked_mobile": "1508092****"}
            stored[receipts, matched].append(own | {"vendor_status": one["text"], "reported_at": one["at"]})
            reply = {"content": one["text"], "content_sha256": sha256(one["text"].encode()).digest()}
            reply |= {"replied_at": one["at"], "opt_out": one["opt_out"], "opt_out_review": one["opt_out_review"]}
            stored[replies, matched].append(own | reply)
        for (table, _), each in stored.items():
            connection.execute(sa.insert(table), each)

    runtime.database.write(work)


def export(runtime: Runtime, name: str, form: FileFormat, **options: Any) -> bytes:
    with runtime.exporting() as connection:
        pieces = iter_file(
            connection, name, form, Filter(), runtime.clock(), zone=runtime.settings.timezone,
            **{"in_full": True} | options,
        )  # fmt: skip
        return b"".join(pieces)


def value_of(row: Any, column: Field, *, in_full: bool) -> Any:
    value = getattr(row, column.name)
    if column.name == "mobile":
        return value if in_full else mask_mobile(value)
    if column.type in TIMES and value is not None:
        return value.isoformat(timespec="microseconds")[: 19 if column.name in SECONDS else 23] + "Z"
    if column.name == "extra" and not in_full:
        return mask_texts(value)
    return str(value) if column.type in (FieldType.ID, FieldType.UUID) and value is not None else value


def line_of_csv(values: Iterable[tuple[Field, Any]], *, neutral: bool, postgresql: bool) -> str:
    cells = []
    for column, value in values:
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, dict):
            text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, float) and postgresql:
            text = text.removesuffix(".0")
        if neutral and column.written_by_people:
            text = formulas.neutral(text)
        quoted = any(mark in text for mark in '",\r\n') or (text == "" and value is not None)
        cells.append('"' + text.replace('"', '""') + '"' if quoted else text)
    return ",".join(cells) + "\n"


def line_of_json(values: Iterable[tuple[Field, Any]]) -> str:
    row = {column.name: None if value == "" and column.nullable else value for column, value in values}
    return json.dumps(row, ensure_ascii=False) + "\n"


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(message, max_size=6, unique_by=lambda row: row["task_id"]),
    events=st.lists(event, max_size=6, unique_by=lambda one: one["at"]),
)
def test_hostile_rows_are_written_as_python_writes_them(
    runtime: Runtime, rows: list[dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    fill(runtime, rows, events)
    clock = runtime.clock()
    for name, row_type in ROWS.items():
        with runtime.database.reading() as connection:
            listed = LISTS[name](connection, *page_of(name, clock))
        columns = fields_of(row_type)
        for in_full in (True, False):
            found = [[(one, value_of(row, one, in_full=in_full)) for one in columns] for row in reversed(listed)]
            for neutral in (True, False):
                head = ",".join(column.name for column in columns) + "\n"
                made = [line_of_csv(one, neutral=neutral, postgresql=runtime.database.postgresql) for one in found]
                expected = head + "".join(made)
                assert export(runtime, name, FileFormat.CSV, in_full=in_full, neutral=neutral).decode() == expected
            lines = "".join(map(line_of_json, found))
            assert export(runtime, name, FileFormat.NDJSON, in_full=in_full).decode() == lines


def page_of(name: str, clock: Any) -> tuple[Any, ...]:
    return (Page(limit=100), clock) if name == "messages" else (Page(limit=100),)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("time", ["infinity", "-infinity", "4713-01-01 BC", "294276-01-01"])
def test_times_that_no_reader_takes_end_no_export(runtime: Runtime, time: str) -> None:
    common = {"account": "a", "mobile": "15080921090", "status": 3, "reported_at": NOON, "sent_at": NOON}
    with psycopg.connect(runtime.settings.database_url.replace("+psycopg", "")) as plain:
        plain.execute("SET session_replication_role = replica")  # else reports refuse some of them
        for number, changed in enumerate(
            (("sent_at",), ("reported_at",), ("recorded_at",), ("sent_at", "reported_at")), 1
        ):
            row = common | {"id": number, "task_id": str(number)} | dict.fromkeys(changed, time)
            names, places = ", ".join(row), ", ".join(f"%({name})s" for name in row)
            plain.execute(f"INSERT INTO messages ({names}) VALUES ({places})", row)
    for form in FORMS:
        assert export(runtime, "messages", form).count(b"15080921090") == 4
    lines = [json.loads(line) for line in export(runtime, "messages", FileFormat.NDJSON).splitlines()]
    assert [lines[0]["sent_at"], lines[1]["reported_at"], lines[2]["recorded_at"]] == [None] * 3
    assert lines[2]["latency_seconds"] == 0.0


def test_reader_that_goes_away_leaves_the_connection_clean(runtime: Runtime) -> None:
    text = "x" * 10_000
    one = {"received_at": NOON, "last_seen_at": NOON, "copies": 1}
    one |= {"text": text, "opt_out": False, "opt_out_review": False, "masked": "1", "extra": None}
    fill(runtime, [], [one | {"at": NOON + timedelta(seconds=number)} for number in range(1000)])
    for form in FORMS:
        with runtime.exporting() as connection:
            pieces = iter_file(
                connection, "replies", form, Filter(), runtime.clock(), in_full=True, zone=runtime.settings.timezone
            )
            assert [len(next(pieces)) > 0 for _ in range(1 + (form is FileFormat.CSV))]  # of a CSV, first the names
            pieces.close()  # type: ignore[attr-defined]
        assert export(runtime, "replies", form).count(text.encode()) == 1000
