"""Exports give what the lists show, in every format, with nothing lost on the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import time
import zipfile
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import openpyxl
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from openpyxl.utils.escape import unescape

from receiver.app import create_app
from receiver.audit import log
from receiver.auth.api_keys import Scope
from receiver.core import MessageStatus, SendResult
from receiver.db.tables import messages
from receiver.messages import export_files as files
from receiver.messages import export_sheets as sheets
from receiver.messages.fields import fields_of
from receiver.messages.queries import Filter, MessageRow, ReceiptRow, ReplyRow
from receiver.web.lists import exports as exports_module
from tests.conftest import make_key
from tests.db.test_encryption import OLD
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess
from tests.sending.test_sending import make_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

NASTY = ["=1+1", "+86", "-1", "@x", "\tx", 'a "quoted", b', "two\nlines", "cr\r", "", "收到 😀", "\0nul", "\\N", "\\."]
# A sign of full width, and white space of any kind before one; and what has an apostrophe of its own.
NASTY += ["＝1+1", "＋1", "－1", "＠x", "\n=1+1", "\r\n＝1", "\u00a0=1", "\u3000\u3000=1+1", " \u200b@x"]
NASTY += ["\nx", "x=1", "'=1", "'x", "\u2003 '-1", "a\n=1"]
# Markup of a workbook, and what stands there for a control character.
NASTY += ["<r>a & b</r>", "<r><t>", "_x0041_x0042_", "\x1b_x001B_", "\u2003x "]
MAY_BE_FORMULA = re.compile(r"['\s\u200b]*[=+@＝＋－＠-]|'*[\t\r\n]")


class Filled:
    """A receiver with one of everything."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.client: FlaskClient = create_app(runtime).test_client()
        self.headers = {"Authorization": make_key(runtime)}
        now = runtime.now().replace(microsecond=123000)

        def keep(**given: Any) -> None:
            runtime.batch_writer.enqueue(make_push(**given)).result(60)

        sends = [
            make_send(task_id="delivered", sent_at=NOON, template_id="540", reference="=cmd|' /C calc'!A0"),
            make_send(task_id="late", sent_at=now - timedelta(minutes=5)),
            make_send(task_id="old", sent_at=now - timedelta(days=5)),
            make_send(task_id="no time", mobile="12345"),
            make_send(task_id=None, reference="r", sent_at=now, error_message="余额不足", mobile="8613800138"),
            make_send(task_id="fraction", sent_at=NOON + timedelta(milliseconds=1)),
        ]
        runtime.recorder.record(sends)
        for status, second in (("1", 5), ("0", 3), ("x", 1)):
            keep(task_id="delivered", status=status, second=second)
        keep(task_id="fraction", second=7)
        keep(task_id="nobody", status="weird")
        keep(task_id="delivered", mobile="1508092****")
        for number, content in enumerate(NASTY):
            keep(task_id="delivered", content=content, second=60 + number)
        runtime.recorder.begin(make_attempt(), day_began=NOON)
        runtime.recorder.begin(make_attempt(sent_at=now - timedelta(minutes=2)), day_began=NOON)
        unknown = SendResult(state=MessageStatus.OUTCOME_UNKNOWN, answered_at=now, error_message="no answer")
        runtime.recorder.finish(make_attempt(), unknown)
        self.listed("messages", "updated_from=1970-01-01")  # so that all have their stamps

    def listed(self, name: str, query: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(f"/api/v1/{name}?limit=1000&{query}", headers=self.headers).json[
            "items"
        ]
        return items[::-1]

    def export(self, name: str, query: str = "", **headers: str) -> Any:
        answer = self.client.get(f"/api/v1/exports/{name}?{query}", headers={**self.headers, **headers})
        assert answer.status_code == 200, answer.json
        return answer


@pytest.fixture
def filled(make_runtime: Callable[..., Runtime]) -> Filled:
    return Filled(make_runtime())


ROWS = {"messages": MessageRow, "receipts": ReceiptRow, "replies": ReplyRow}
LISTS = pytest.mark.parametrize("name", ["messages", "receipts", "replies"])


@LISTS
@pytest.mark.parametrize("scopes", [None, (Scope.READ, Scope.EXPORT)], ids=["numbers in full", "masked"])
def test_lines_are_the_items_of_the_list(filled: Filled, name: str, scopes: tuple[Scope, ...] | None) -> None:
    if scopes:
        filled.headers = {"Authorization": make_key(filled.runtime, *scopes)}
    lines = [json.loads(line) for line in filled.export(name, "format=ndjson").text.splitlines()]
    items = filled.listed(name)
    assert lines == items
    assert len(lines) >= 5
    assert list(lines[0]) == [field.name for field in fields_of(ROWS[name])]


@LISTS
def test_cells_are_the_items_as_text_and_no_formula(filled: Filled, name: str) -> None:
    answer = filled.export(name)
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    items = filled.listed(name)
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        assert list(row) == list(item)
        for column, cell in row.items():
            value = item[column]
            if column == "extra":
                assert json.loads(cell) == value
                continue
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            if isinstance(value, float):
                assert float(cell) == value
            elif MAY_BE_FORMULA.match(text):
                assert cell == f"'{text}"
            else:
                assert cell == text


@LISTS
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_cells_are_bare_where_a_program_asks_for_them(
    make_runtime: Callable[..., Runtime], name: str, sealed: bool
) -> None:
    filled = Filled(make_runtime(**{"encryption_keys": (OLD,)} if sealed else {}))
    answer = filled.export(name, "neutral=false")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    shown = {"messages": "reference", "receipts": "vendor_status", "replies": "content"}[name]
    assert [row[shown] for row in rows] == [item[shown] or "" for item in filled.listed(name)]
    assert filled.export(name, "neutral=true").data == filled.export(name).data


@LISTS
def test_parquet_has_types_and_the_same_rows(filled: Filled, name: str) -> None:
    table = pq.read_table(io.BytesIO(filled.export(name, "format=parquet").data))
    items = filled.listed(name)
    assert table.column("id").to_pylist() == [int(item["id"]) for item in items]
    assert str(table.schema.field("id").type) == "int64"
    times = [column for column in table.column_names if column.endswith("_at")]
    for column in times:
        assert str(table.schema.field(column).type) == "timestamp[ms, tz=UTC]"
    assert table.column_names == list(items[0])
    if "extra" in items[0]:
        assert list(map(json.loads, table.column("extra").to_pylist())) == [item["extra"] for item in items]
    for column in set(table.column_names) - {"id", "message_id", "extra", *times}:
        assert table.column(column).to_pylist() == [item[column] for item in items], column
    for column in times:
        written = [
            moment and moment.isoformat(timespec="milliseconds")[:23] for moment in table.column(column).to_pylist()
        ]
        assert written == [
            item[column] and item[column].rstrip("Z").ljust(20, ".").ljust(23, "0")[:23] for item in items
        ]


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("messages", "status=delivered"), ("messages", "status=no_receipt"), ("messages", "late=true"),
        ("messages", "status=outcome_unknown"), ("messages", "matched=false"), ("messages", "conflicting=true"),
        ("messages", "mobile=12345"), ("messages", "sent_from=2026-11-23&sent_to=2026-11-24"),
        ("messages", "updated_from=2026-11-23"), ("messages", "updated_to=2026-11-23"),
        ("receipts", "status=unknown"), ("receipts", "task_id=delivered"), ("receipts", "matched=false"),
        ("replies", "opt_out=true"), ("replies", "q=QUOTED"), ("replies", "mobile=15080921090"),
    ],
)  # fmt: skip
def test_filters_are_those_of_the_list(filled: Filled, name: str, query: str) -> None:
    rows = list(csv.DictReader(io.StringIO(filled.export(name, query).text, newline="")))
    # Files go by ids, also where the list of changes goes by their times.
    assert [row["id"] for row in rows] == sorted((item["id"] for item in filled.listed(name, query)), key=int)


def test_export_of_nothing_is_a_file_without_rows(filled: Filled) -> None:
    assert filled.export("messages", "task_id=none").text.count("\n") == 1
    assert filled.export("messages", "task_id=none&format=ndjson").text == ""
    assert pq.read_table(io.BytesIO(filled.export("messages", "task_id=none&format=parquet").data)).num_rows == 0


def test_bom_and_compression_on_request(filled: Filled) -> None:
    assert filled.export("replies", "bom=true").data.startswith(b"\xef\xbb\xbfid,")
    answer = filled.export("replies", **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.data) == filled.export("replies").data


def test_no_more_than_a_few_exports_run_at_once(filled: Filled) -> None:
    for _ in range(5):  # each gives its place back
        filled.export("messages").close()
    held = [exports_module._places.acquire(blocking=False) for _ in range(2)]
    try:
        answer = filled.client.get("/api/v1/exports/messages", headers=filled.headers)
        assert (held, answer.status_code, answer.json["code"]) == ([True, True], 503, "overloaded")
        assert answer.headers["Retry-After"] == "20"  # an export takes longer than a moment
    finally:
        for _ in held:
            exports_module._places.release()


def test_command_writes_a_whole_file_and_says_what_is_in_it(tmp_path: Path, filled: Filled) -> None:
    process = ServeProcess(filled.runtime.settings.data_dir, filled.runtime.settings.database_url)
    for ending in ("csv", "ndjson", "parquet", "csv.gz"):
        file = tmp_path / f"replies.{ending}"
        done = process.run("export", "replies", str(file), "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["rows"], told["bytes"]) == (len(NASTY), file.stat().st_size)
    assert gzip.decompress((tmp_path / "replies.csv.gz").read_bytes()) == (tmp_path / "replies.csv").read_bytes()
    assert "150****1090" in (tmp_path / "replies.csv").read_text()
    piped = process.run("export", "replies", "-", "--format", "csv", "--full-numbers", "--raw")
    assert piped.stdout.count("15080921090") == len(NASTY)
    for wrong, says in (
        (("messages", "x"), "--format"),
        (("replies", "x.csv", "--sent-from", "2026-11-01"), "--sent-from"),
        (("messages", "x.csv", "--sent-from", "never"), "--sent-from"),
        (("messages", "x.csv", "--mobile", "x"), "--mobile"),
        (("messages", "/nowhere/x.csv"), "/nowhere/x.csv"),
    ):
        refused = process.run("export", *wrong)
        assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr


def rows_of_sheet(data: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    names, *rows = sheet.iter_rows(values_only=True)
    return [
        {name: unescape(cell) if isinstance(cell, str) else cell for name, cell in zip(names, row, strict=True)}
        for row in rows
    ]


@pytest.mark.parametrize("name", ["messages", "receipts", "replies"])
def test_workbook_says_the_same_in_cells_of_their_kind(filled: Filled, name: str) -> None:
    answer = filled.export(name, "format=xlsx", **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.xlsx"'
    assert "Content-Encoding" not in answer.headers
    rows, listed = rows_of_sheet(answer.data), filled.listed(name)
    formats = {
        column[0].value: next((cell.number_format for cell in column[1:] if cell.value), None)
        for column in openpyxl.load_workbook(io.BytesIO(answer.data)).active.iter_cols()
    }
    assert len(rows) == len(listed) > 1
    notes = {cell.value: cell.comment for cell in openpyxl.load_workbook(io.BytesIO(answer.data)).active[1]}
    assert {column: note.text for column, note in notes.items() if note} == {
        column: "Asia/Shanghai" for column in notes if column.endswith("_at")
    }
    shanghai = ZoneInfo("Asia/Shanghai")
    for row, item in zip(rows, listed, strict=True):
        assert list(row) == list(item)
        for column, cell in row.items():
            expected = item[column]
            if column == "extra":
                assert json.loads(cell) == expected
            elif column.endswith("_at") and expected is not None:
                moment = datetime.fromisoformat(expected).astimezone(shanghai).replace(tzinfo=None)
                assert abs(cell - moment) < timedelta(milliseconds=2)
                assert formats[column] == "yyyy-mm-dd hh:mm:ss"
            elif isinstance(expected, float):
                assert cell == pytest.approx(expected)
            else:
                assert cell == (None if expected == "" else expected), column
                assert type(cell) is type(expected) or expected == ""


def test_what_a_sheet_cannot_hold_is_said_before_it_is_begun(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "字" * 33_000
    filled.runtime.batch_writer.enqueue(make_push(task_id="long", content=long)).result(60)
    (row,) = rows_of_sheet(filled.export("replies", "format=xlsx&task_id=long").data)
    assert len(row["content"]) == 32_767
    assert row["content"].endswith("字 … [cut; whole in the other formats]")
    monkeypatch.setattr(sheets, "SHEET_ROWS", 2)
    for name in ("messages", "receipts", "replies"):
        for _ in range(3):  # the refused ones have given their places back
            answer = filled.client.get(f"/api/v1/exports/{name}?format=xlsx", headers=filled.headers)
            assert (answer.status_code, answer.json["code"]) == (422, "too_many_rows")
            assert answer.json["detail"].startswith("over 2 rows, ")
            assert answer.json["detail"].endswith("; narrow it, or use csv, ndjson or parquet")
        assert len(rows_of_sheet(filled.export(name, "format=xlsx&to_id=2").data)) == 2
    assert filled.export("messages", "format=csv").data


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_longest_value_of_a_push_ends_no_export(make_runtime: Callable[..., Runtime], sealed: bool) -> None:
    filled = Filled(make_runtime(**{"encryption_keys": (OLD,)} if sealed else {}))
    body = b"mobile=15080921090&taskid=long&receivetime=2026-11-23+09:14:30&x=" + b"\x01" * 60_000
    for told in (b"&status=1", b"&content=x"):
        filled.runtime.batch_writer.enqueue(make_push(body=body + told)).result(60)
    for name in ("receipts", "replies"):
        listed = filled.listed(name)
        assert max(len(json.dumps(item["extra"])) for item in listed) > 360_000
        assert [json.loads(line) for line in filled.export(f"{name}.ndjson").text.splitlines()] == listed
        read = pq.read_table(io.BytesIO(filled.export(f"{name}.parquet").data)).to_pylist()
        assert [json.loads(row["extra"]) for row in read] == [item["extra"] for item in listed]
        sheet = rows_of_sheet(filled.export(f"{name}.xlsx").data)
        assert [row["push_id"] for row in sheet] == [item["push_id"] for item in listed]


def test_path_with_an_ending_is_the_export_in_that_format(filled: Filled) -> None:
    for name in ("messages", "receipts", "replies"):
        for form in files.FileFormat:
            answer, same = filled.export(f"{name}.{form}"), filled.export(name, f"format={form}")
            assert answer.content_type == same.content_type == files.MEDIA_TYPES[form]
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.{form}"'
            read = rows_of_sheet if form is files.FileFormat.XLSX else bytes  # a workbook names its time
            assert read(answer.data) == read(same.data)
    query = "bom=true&neutral=false"
    assert filled.export("replies.csv", query).data == filled.export("replies", query).data
    for query in ("parquet?bom=true", "xlsx?neutral=false", "ndjson?format=csv"):
        refused = filled.client.get(f"/api/v1/exports/replies.{query}", headers=filled.headers)
        assert (refused.status_code, refused.json["code"]) == (422, "invalid")


def test_client_that_knows_no_type_of_files_is_given_octets(filled: Filled) -> None:
    for form in files.FileFormat:
        answer = filled.export(f"messages.{form}", Accept="application/octet-stream")
        assert answer.content_type == "application/octet-stream"
        answer = filled.export(f"messages.{form}", Accept="text/html, */*;q=0.8")
        assert answer.content_type == files.MEDIA_TYPES[form]


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet", "xlsx"])
@LISTS
def test_head_has_the_headers_of_get_and_is_no_export(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    url = f"/api/v1/exports/{name}?format={form}"
    headers = filled.headers | {"Accept-Encoding": "gzip"}
    whole = filled.client.get(url, headers=headers)
    whole.close()  # else its end is left to the garbage collector
    monkeypatch.setattr(exports_module, "iter_file", None)  # nothing is read
    monkeypatch.setattr(exports_module, "_Place", None)  # and no place taken
    entries = filled.runtime.ask(lambda connection: log.list_audit(connection, 1))
    begin = filled.client.head(url, headers=headers)
    assert (begin.status_code, begin.data, begin.headers["Accept-Ranges"]) == (200, b"", "none")
    same = {key: value for key, value in whole.headers.items() if key not in ("X-Request-Id", "Date")}
    assert {key: value for key, value in begin.headers.items() if key not in ("X-Request-Id", "Date")} == same
    assert filled.runtime.ask(lambda connection: log.list_audit(connection, 1)) == entries
    assert filled.client.head(f"{url}&status=nonsense", headers=headers).status_code == 422
    assert filled.client.head(url).status_code == 401


def test_long_lists_are_taken_in_parts(filled: Filled) -> None:
    for name in ("messages", "receipts", "replies"):
        names, *whole = filled.export(name).text.splitlines(keepends=True)
        middle = filled.listed(name)[1]["id"]
        parts = [
            filled.export(name, query).text.removeprefix(names) for query in (f"to_id={middle}", f"after_id={middle}")
        ]
        assert "".join(parts) == "".join(whole)
        assert parts[0].count("\n") == 2
    answer = filled.client.get("/api/v1/exports/messages?after_id=-1", headers=filled.headers)
    assert answer.status_code == 422


def test_format_that_is_not_installed_is_said_at_once(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = filled.client.get("/api/v1/exports/messages?format=parquet", headers=filled.headers)
    assert (answer.status_code, answer.json["code"]) == (422, "missing_extra")
    assert "receiver[parquet]" in answer.json["detail"]
    assert filled.client.head("/api/v1/exports/messages.parquet", headers=filled.headers).status_code == 422
    assert filled.client.head("/api/v1/exports/messages.csv", headers=filled.headers).status_code == 200


def test_export_gives_way_to_pushes(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    filled.runtime.batch_writer.enqueue(make_push(task_id="now")).result(60)
    assert filled.export("messages").data
    assert rests
    rests.clear()
    monkeypatch.setattr(filled.runtime.batch_writer, "_appended_at", time.monotonic() - 2)
    assert filled.export("messages").data
    assert not rests


def test_late_part_of_the_messages_counts_its_own_receipts_alone(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    save_pushes(runtime.database, [make_push(task_id=str(number)) for number in range(300)])
    with runtime.database.reading() as connection:
        last = connection.scalar(sa.select(sa.func.max(messages.c.id))) or 0
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # for which the table is small enough
        part = files.EXPORTS["messages"](
            Filter(after_id=last - 10, to_id=last - 5), runtime.clock(), connection.dialect, in_full=False
        )
        query = part.as_text(neutral=False).compile(
            dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
        )
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"
        (whole,) = connection.exec_driver_sql(explained, query.construct_params()).scalar_one()
    scans = [node for node in _nodes(whole["Plan"]) if node.get("Relation Name") == "receipts"]
    assert [node["Actual Rows"] * node["Actual Loops"] for node in scans] == [5]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
