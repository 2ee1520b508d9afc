"""Files of sends as spreadsheets and programs write them, from bytes to records."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
import xlsxwriter
from hypothesis import example, given
from hypothesis import strategies as st
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from receiver.core import ReceiverError, neutral
from receiver.messages.imports.columns import RecordReader, is_known
from receiver.messages.imports.files import Form, open_rows
from receiver.messages.send_records import InvalidSendRecord
from tests.messages.test_send_records import ID_EMPTY, ID_FLOAT, ID_ROUNDED, ID_SHOWN, MOBILE, NO_TIME, SENDS, SHANGHAI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
HEADING = "task_id,mobile,template_id,reference,sent_at\n"


def read_all(
    data: bytes, *, form: Form | None = None, formats: tuple[str, ...] = (), mapping: dict[str, str] | None = None
) -> tuple[list[dict[str, Any] | str], RecordReader]:
    """What an import finds: of each row the fields that are given, or its place and what is wrong."""
    records = RecordReader(mapping or {}, zone=SHANGHAI, time_formats=formats)
    found: list[dict[str, Any] | str] = []
    for place, item in records.read(open_rows(io.BytesIO(data), form, known=is_known)):
        if isinstance(item, str):
            found.append(f"{place}: {item}")
            continue
        try:
            sent = SENDS.read(item)
        except InvalidSendRecord as error:
            found.append(f"{place}: {error}")
            continue
        names = ("task_id", "mobile", "template_id", "reference", "sent_at", "success_counts", "error_message")
        found.append({name: value for name in names if (value := getattr(sent, name)) is not None})
    return found, records


def read_one(data: bytes, **options: Any) -> dict[str, Any] | str:
    (found,), _ = read_all(data, **options)
    return found


def sheet(*rows: Any, **options: Any) -> bytes:
    """A workbook as Excel writes one: dates are numbers with a style."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"default_date_format": "yyyy/m/d h:mm", **options})
    page = book.add_worksheet()
    for place, row in enumerate(rows):
        page.write_row(place, 0, row)
    book.close()
    return file.getvalue()


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("3637825", "3637825"),
        ("0012345", "0012345"),
        ("3637825123456789012", "3637825123456789012"),
        ("9f86d081884c7d65", "9f86d081884c7d65"),
        ("12345678e123", "12345678e123"),  # letters and digits, no number
        ("3637825\u200b", "3637825"),
        ("\u202d3637825\u202c", "3637825"),
        ("\ufeff3637825\u00a0", "3637825"),
        ("３６３７８２５", "3637825"),
        ('="0100043"', "0100043"),
        ("3,313,746", "3313746"),
        ("637,825,123,456,789", "637825123456789"),
        ("3,637,825,123,456,780,000", ID_SHOWN),
        ("3,313,7460", "3,313,7460"),
        ("0,313,746", "0,313,746"),
        ("'0100042", "0100042"),
        ("3313746.0", ID_FLOAT),
        ("3.63783E+18", ID_ROUNDED),
        ("3,63783E+18", ID_ROUNDED),
        ("1.23456789012346E+018", ID_ROUNDED),
        ("3.637825123456789e+18", ID_ROUNDED),
        ("NULL", "missing"),
        ("\\N", "missing"),
        ("(null)", "missing"),
        ("\u200b", "missing"),
        ("nan", ID_EMPTY),
        ("None", ID_EMPTY),
        ("#N/A", ID_EMPTY),
    ],
)
def test_task_id_that_a_spreadsheet_broke_is_mended_where_that_is_certain_else_refused(cell: str, meant: str) -> None:
    line = io.StringIO()
    csv.writer(line).writerow([cell, MOBILE])
    found = read_one(f"task_id,mobile\n{line.getvalue()}".encode())
    if isinstance(found, str):
        assert found == f"line 2: task_id: {meant}"
    else:
        assert found == {"task_id": meant, "mobile": MOBILE}


@pytest.mark.parametrize(
    ("ids", "rounded"),
    [
        (["3637825123456780000", "3637825123456790000"], True),
        (["3637825123456780000", "3637825123456790000", "3637825"], True),
        (["3637825123456780000", "3637825123456789012"], False),
        (["3637825123456780000", "3637825123456780000"], False),  # one batch: it may be so called
        (["3637825", "3637820"], False),
    ],
)
def test_ids_that_were_rounded_to_zeros_are_told_by_their_number(ids: list[str], rounded: bool) -> None:
    _, records = read_all("\n".join(["task_id,mobile", *(f"{task_id},{MOBILE}" for task_id in ids)]).encode())
    assert records.rounded == rounded


def test_other_cells_that_a_spreadsheet_broke_are_named() -> None:
    lines = ["1,1.50809E+10,540,1", "2,15080921090,540.0,1", "3,15080921090,NULL,1.0"]
    text = "\n".join(["task_id,mobile,template_id,success_counts", *lines])
    assert read_all(text.encode())[0] == [
        f"line 2: mobile: {ID_ROUNDED}",
        f"line 3: template_id: {ID_FLOAT}",
        {"task_id": "3", "mobile": MOBILE, "success_counts": 1},
    ]


CHINESE = "任务ID{0}手机号{0}模板ID{0}业务编号{0}发送时间\r\n3637825{0}15080921090{0}540{0}谢谢{0}2026/11/23 12:00\r\n"
MEANT = {"task_id": "3637825", "mobile": MOBILE, "template_id": "540", "reference": "谢谢", "sent_at": NOON}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "bom-be"]
)
def test_every_encoding_and_separator_is_read(encoding: str, separator: str) -> None:
    text = CHINESE.format(separator)
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "bom-be" else text.encode(encoding)
    assert read_one(data) == MEANT


@pytest.mark.parametrize(
    "before",
    [
        "\r\n",
        "\n \n\r\n",
        ",,,,\r\n",
        "sep={0}\r\n",
        '"sep={0}"\r\n',
        "\r\nSEP={0}\r\n\r\n",
        "sep={0}\r\n{0}{0}{0}{0}\r\n",
        "短信发送明细\r\n\r\n",
        "短信发送明细{0}{0}{0}{0}\r\n",
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_stands_above_the_heading_is_passed(before: str, separator: str) -> None:
    text = before.format(separator) + CHINESE.format(separator)
    assert read_one(text.encode("utf-8-sig")) == MEANT


def test_encoding_is_that_of_the_whole_file_and_a_line_in_another_is_refused() -> None:
    # 谢谢 in GBK is also valid UTF-8, of two other letters.
    chinese = HEADING.encode() + "1,15080921090,,谢谢,\n2,15080921090,,订单八,\n".encode("gbk")
    assert [record["reference"] for record in read_all(chinese)[0]] == ["谢谢", "订单八"]
    mixed = HEADING.encode() + "1,15080921090,,订单,\n2,15080921090,,".encode() + "订单\n".encode("gbk")[:-1] + b",\n"
    found, _ = read_all(mixed)
    assert found[0] == {"task_id": "1", "mobile": MOBILE, "reference": "订单"}
    assert found[1:] == ["line 3: reference holds bytes that are no text in the encoding of the file; save it as UTF-8"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026/11/23 12:00", NOON),
        ("2026/11/23 12:00:03", NOON.replace(second=3)),
        ("2026/11/23 9:14", datetime(2026, 11, 23, 1, 14, tzinfo=UTC)),
        ("2026-11-23 9:14", datetime(2026, 11, 23, 1, 14, tzinfo=UTC)),
        ("2026/1/5 9:14", datetime(2026, 1, 5, 1, 14, tzinfo=UTC)),
        ("2026年11月23日 12:00", NOON),
        ("2026年11月23日12时00分03秒", NOON.replace(second=3)),
        ("2026/11/23 下午 12:00", NOON),
        ("2026/11/23 上午9:14:03", datetime(2026, 11, 23, 1, 14, 3, tzinfo=UTC)),
        ("2026/11/23 3:00:00 PM", datetime(2026, 11, 23, 7, 0, tzinfo=UTC)),
        ("2026.11.23 12:00", NOON),
        ("2026/11/23", datetime(2026, 11, 22, 16, 0, tzinfo=UTC)),
        ("20261123120000", NOON),
        ("2026-11-23 12:00:00.0", NOON),
        ("2026-11-23T12:00:00", NOON),
        ("2026-11-23T04:00:00Z", NOON),
        ("2026-11-23T12:00:00+08:00", NOON),
        ("NULL", None),
        ("11/23/2026 12:00", NO_TIME),  # or is it the 11th of a month 23?
        ("2026/13/23 12:00", NO_TIME),
        ("2026/11/23 25:00", NO_TIME),
        ("2026-11-239:14", NO_TIME),
        ("1796010112", NO_TIME),
        ("1796010112345", NO_TIME),
        ("2099/1/1 0:00", "more than 48 hours ahead"),
        ("9999-12-31T23:59:59Z", "more than 48 hours ahead"),
        ("1899/12/31 9:00", "before 2000"),
    ],
)
def test_time_is_read_as_it_was_meant_or_refused(text: str, moment: datetime | str | None) -> None:
    found = read_one(f"task_id,mobile,发送时间\n1,15080921090,{text}\n".encode())
    if isinstance(moment, str):
        assert found == f"line 2: sent_at: {moment}"
    else:
        assert found == {"task_id": "1", "mobile": MOBILE} | ({"sent_at": moment} if moment else {})


def test_forms_of_the_setting_are_read() -> None:
    formats = ("%d.%m.%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S")
    for text in ("23.11.2026 12:00:00", "11/23/2026 12:00:00", "2026-11-23 12:00:00", "2026/11/23 12:00"):
        found = read_one(f"task_id,mobile,sent_at\n1,15080921090,{text}\n".encode(), formats=formats)
        assert found == {"task_id": "1", "mobile": MOBILE, "sent_at": NOON}


# --- Names of columns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        "任务ID,手机号,模板ID,业务编号,发送时间",
        "批次ID,手机号码,模板编号,参考号,发送日期",
        "任务号,接收号码,短信模板,业务号,下发时间",
        "任务号,手机号,模板,业务号,发送时间",
        "*任务编号,手机号（必填）,模版ID,业务流水号,发送时间(北京时间)",
        " 批次 ID ,电话号码,模板,订单号,创建时间",
        "下发批次ID,手机,模板号,流水号,提交时间",
        "taskId,phone,templateId,ref,sendTime",
        "TASK_ID,Mobile,template-id,REFERENCE,createdAt",
        "\u200btask_id,msisdn,tplid,reference,sent_at (Asia/Shanghai)",
    ],
)
def test_columns_are_known_by_the_names_that_people_give_them(names: str) -> None:
    found, records = read_all(
        f"{names},状态,备注\n3637825,15080921090,540,谢谢,2026/11/23 12:00,发送成功,VIP\n".encode()
    )
    assert (found, records.unused) == ([MEANT], ["状态", "备注"])


def test_the_name_that_says_it_best_is_taken() -> None:
    text = "task_id,mobile,createTime,sendTime,订单号,业务编号\n1,15080921090,2026/11/20 1:00,2026/11/23 12:00,a,b\n"
    found, records = read_all(text.encode())
    assert found == [{"task_id": "1", "mobile": MOBILE, "sent_at": NOON, "reference": "b"}]
    assert records.unused == ["createTime", "订单号"]
    mapped, _ = read_all(text.encode(), mapping={"createTime": "sent_at", "订单号": "reference"})
    assert mapped[0]["reference"] == "a"


@pytest.mark.parametrize(
    ("names", "row", "unused"),
    [
        ("task_id,手机号,联系电话", f"1,{MOBILE},无", ["联系电话"]),
        ("task_id,电话,phone", f"1,张三,{MOBILE}", ["电话"]),
        ("task_id,任务号,mobile", f"1,营销 十一月,{MOBILE}", ["任务号"]),
        ("task_id,mobile,模板", f"1,{MOBILE},您的验证码是：", ["模板"]),
        ("task_id,mobile,返回码,返回信息", f"1,{MOBILE},DELIVRD,成功", ["返回码", "返回信息"]),
        ("task_id,mobile,提交时间", f"1,{MOBILE},已提交", ["提交时间"]),
    ],
)
def test_what_stands_in_a_column_tells_which_is_meant(names: str, row: str, unused: list[str]) -> None:
    found, records = read_all(f"{names}\n{row}\n".encode())
    assert (found, records.unused) == ([{"task_id": "1", "mobile": MOBILE}], unused)


def test_the_one_column_of_a_field_is_no_less_meant_where_nothing_in_it_is_right() -> None:
    text = "task_id,mobile,发送时间\n1,12,2026/11/23 12:00\n1,15080921090,昨天\n"
    assert read_all(text.encode())[0] == ["line 2: mobile: not a phone number", f"line 3: sent_at: {NO_TIME}"]


def test_column_message_is_read_where_it_says_why_a_send_was_refused() -> None:
    content = read_all("task_id,mobile,message\n1,15080921090,您的验证码是1234\n".encode())
    assert (content[0], content[1].unused) == ([{"task_id": "1", "mobile": MOBILE}], ["message"])
    answers = (
        "taskId,phone,returnStatus,message,reference,sendTime\n"
        "1,15080921090,1,成功,a,2026/11/23 12:00\n"
        ",15080921090,0,余额不足,b,2026/11/23 12:00\n"
        "2,15080921090,,成功,c,2026/11/23 12:00\n"
        "3,15080921090,2,成功,c,2026/11/23 12:00\n"
    )
    common = {"mobile": MOBILE, "sent_at": NOON}
    assert read_all(answers.encode())[0] == [
        {"task_id": "1", "reference": "a", **common},
        {"reference": "b", "error_message": "余额不足", **common},
        {"task_id": "2", "reference": "c", **common},
        "line 5: return_status: not 0 or 1",
    ]
    answer = {"taskId": "1", "phone": MOBILE, "returnStatus": "1", "message": "成功", "remainPoint": "9", "text": "x"}
    assert read_one(json.dumps(answer).encode()) == {"task_id": "1", "mobile": MOBILE}


@pytest.mark.parametrize(
    "text",
    ["手机号,手机号码,任务ID\n", "task_id;text\n1;2\n", "短信发送明细\n3637825,15080921090\n"],
)
def test_heading_that_cannot_be_used_is_said(text: str) -> None:
    with pytest.raises(ReceiverError, match="--map"):
        read_all(text.encode())


# --- JSON -----------------------------------------------------------------------------------------------

OBJECTS = [{"task_id": str(number), "mobile": MOBILE} for number in range(1, 4)]
PAGE = {"items": OBJECTS, "next_cursor": None}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        "\ufeff\r\n" + json.dumps(OBJECTS, indent="\t").replace("\n", "\r\n"),
        "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
        "\n".join(map(json.dumps, OBJECTS)),
        "\n\n".join(json.dumps(item, indent=2) for item in OBJECTS),
        json.dumps(PAGE),
        json.dumps(PAGE, indent=2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_json_is_read_however_it_is_laid_out(text: str, encoding: str) -> None:
    assert read_all(text.encode(encoding))[0] == OBJECTS


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (json.dumps(OBJECTS)[:-1], "after item 3: the array is not closed: the file breaks off"),
        (json.dumps(OBJECTS)[:-5], "item 3: not JSON; nothing from there on was read"),
        (json.dumps(OBJECTS) + "x", "after item 3: something follows the array"),
        (json.dumps([*OBJECTS, ["list"]]), "item 4: not an object"),
        ("[{" + "[" * 100_000, "item 1: not JSON; nothing from there on was read"),
        ('[{"a":' + "[" * 100_000, "item 1: not JSON; nothing from there on was read"),
        ('{"a":' + "[" * 100_000 + "}", "line 1: not JSON"),
        ("[", "after item 0: the array is not closed: the file breaks off"),
        ('[{"a": "' + "x" * 3_000_000, "item 1: not JSON; nothing from there on was read"),
    ],
)
def test_json_that_breaks_off_is_said_after_what_was_read(text: str, last: str) -> None:
    found, _ = read_all(text.encode())
    assert found[-1] == last
    assert found[:-1] == OBJECTS[: len(found) - 1]


def test_long_array_is_read_in_pieces() -> None:
    items = [{"task_id": str(number), "mobile": MOBILE, "note": "订" * 500} for number in range(1000)]
    assert [record["task_id"] for record in read_all(json.dumps(items).encode())[0]] == [
        item["task_id"] for item in items
    ]


def test_numbers_of_json_are_ids_unless_they_have_lost_digits() -> None:
    lines = [
        '{"task_id": 3637825123456789012, "mobile": 15080921090}',
        '{"task_id": 3.63783e+18, "mobile": 15080921090}',
    ]
    lines += ['{"task_id": 540.0, "mobile": 15080921090}', '{"task_id": 1, "taskId": 2, "mobile": 15080921090}']
    assert read_all("\n".join(lines).encode())[0] == [
        {"task_id": "3637825123456789012", "mobile": MOBILE},
        f"line 2: task_id: {ID_ROUNDED}",
        f"line 3: task_id: {ID_FLOAT}",
        "line 4: two names are task_id",
    ]


# --- XLSX -----------------------------------------------------------------------------------------------


def test_sheet_of_excel_is_read() -> None:
    moment = datetime(2026, 11, 23, 12, 0)  # noqa: DTZ001  (as a cell has it)
    rows = [
        ["任务ID", "手机号", "模板ID", "业务编号", "发送时间", "备注"],
        ["3637825123456789012", MOBILE, "540", "谢谢", moment, "VIP"],
        [3637825, 15080921090, 540, "a", "2026/11/23 12:00"],
        [3637826, 15080921090, 540, "b", 46349.5, None],
        [3637827, MOBILE, 540, "c", date(2026, 11, 23)],
        [],
        [3637825123456789012, MOBILE, 540, "d", moment],
        [3637828, 1.5, None, None, 20261123],
        [None, None, None, None, None, "an id is needed"],
        [3637829, MOBILE, None, None, 1796010112345],
        [3637829, MOBILE, None, None, None, "", "beyond"],
    ]
    common = {"mobile": MOBILE, "template_id": "540"}
    expected = [
        {"task_id": "3637825123456789012", "reference": "谢谢", "sent_at": NOON, **common},
        {"task_id": "3637825", "reference": "a", "sent_at": NOON, **common},
        {"task_id": "3637826", "reference": "b", "sent_at": NOON, **common},
        {"task_id": "3637827", "reference": "c", "sent_at": datetime(2026, 11, 22, 16, tzinfo=UTC), **common},
        f"row 7: task_id: {ID_ROUNDED}",
        "row 8: mobile: not a phone number",
        "row 9: mobile: missing; task_id: missing",
        f"row 10: sent_at: {NO_TIME}",
        "row 11: 7 columns where the first line names 6",
    ]
    found, records = read_all(sheet(*rows))
    assert (found, records.unused) == (expected, ["备注"])


def test_sheet_with_the_calendar_of_1904_and_more_sheets_is_read() -> None:
    book = openpyxl.Workbook()
    book.epoch = CALENDAR_MAC_1904
    page = book.active
    page.append(["短信发送明细"])
    page.append(["taskId", "phone", "sendTime"])
    page.append(["1", MOBILE, datetime(2026, 11, 23, 12, 0)])  # noqa: DTZ001
    page.append(["2", MOBILE, 46349.5 - 1462])
    book.create_sheet("other").append(["x"])
    file = io.BytesIO()
    book.save(file)
    file.seek(0)
    records = RecordReader({}, zone=SHANGHAI, time_formats=())
    rows = open_rows(file, None, known=is_known)
    assert rows.notes == ("only the first sheet is read: Sheet",)
    assert [SENDS.read(item).sent_at for _, item in records.read(rows)] == [NOON, NOON]  # type: ignore[arg-type]


def packed(**parts: bytes) -> bytes:
    """A good workbook with parts put in the place of its own."""
    good, file = zipfile.ZipFile(io.BytesIO(sheet(["task_id", "mobile"], ["1", MOBILE]))), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in good.namelist():
            stem = name.rpartition("/")[2].removesuffix(".xml")
            archive.writestr(name, parts.get(stem) or good.read(name))
    return file.getvalue()


def swollen(part: str) -> bytes:
    """A good workbook, one part of which is followed by 20 MB of blanks, which a ZIP file makes 20 KB of."""
    good = zipfile.ZipFile(io.BytesIO(packed())).read(part)
    before, end, rest = good.rpartition(b"</")
    return packed(**{part.rpartition("/")[2].removesuffix(".xml"): before + b" " * 20_000_000 + end + rest})


def damaged(part: bytes) -> bytes:
    """A good workbook with a few bytes of one part changed."""
    data = bytearray(packed())
    at = data.index(part) + len(part) + 9
    data[at : at + 9] = bytes(9)
    return bytes(data)


MAIN = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
LAUGHS = b'<!DOCTYPE a [<!ENTITY a0 "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (place, b"&a%d;" % (place - 1) * 10) for place in range(1, 10)
)
FAR_ROW = b"<sheetData><row r='9999999999'><c r='A9999999999'><v>1</v></c></row></sheetData>"
NO_STRING = b"<sheetData><row><c t='s'><v>99</v></c></row></sheetData>"
UNUSABLE: Mapping[str, Callable[[], bytes]] = {
    "texts that unpack to much": lambda: swollen("xl/sharedStrings.xml"),
    "a sheet that unpacks to much": lambda: swollen("xl/worksheets/sheet1.xml"),
    "styles that unpack to much": lambda: swollen("xl/styles.xml"),
    "entities": lambda: packed(sharedStrings=LAUGHS + b"]><sst %s><si><t>&a9;</t></si></sst>" % MAIN),
    "a row beyond the end": lambda: packed(sheet1=b"<worksheet %s>%s</worksheet>" % (MAIN, FAR_ROW)),
    "a text that is not there": lambda: packed(sheet1=b"<worksheet %s>%s</worksheet>" % (MAIN, NO_STRING)),
    "a sheet that breaks off": lambda: packed(sheet1=b"<worksheet"),
    "no sheet": lambda: packed(workbook=b"<workbook %s/>" % MAIN),
    "a cut workbook": lambda: packed()[:-40],
    "a damaged workbook": lambda: damaged(b"xl/worksheets/sheet1.xml"),
    "a ZIP file of nothing": lambda: b"PK\x03\x04",
    "an old workbook": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "gzip": lambda: b"\x1f\x8b\x08",
    "Parquet": lambda: b"PAR1",
    "PDF": lambda: b"%PDF-1.7",
    "HTML": lambda: b"<html><table><tr><td>phone</td></tr></table>",
    "one long line": lambda: b"task_id,mobile\n" + b"1" * 2_000_000,
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_file_that_is_none_or_would_fill_memory_is_one_clear_error(name: str) -> None:
    with pytest.raises(ReceiverError):
        read_all(UNUSABLE[name]())


def test_workbook_in_the_strict_form_is_named() -> None:
    names = (
        b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
        b"http://purl.oclc.org/ooxml/spreadsheetml/main",
    )
    book = zipfile.ZipFile(io.BytesIO(packed())).read("xl/workbook.xml").replace(*names)
    with pytest.raises(ReceiverError, match="Strict Open XML Spreadsheet; save it as Excel Workbook"):
        read_all(packed(workbook=book))


def test_what_programs_leave_out_of_a_workbook_or_put_into_it_changes_no_cell() -> None:
    good = zipfile.ZipFile(io.BytesIO(packed()))
    strings, sheet1 = good.read("xl/sharedStrings.xml"), good.read("xl/worksheets/sheet1.xml")
    reading = "<rPh sb='0' eb='1'><t>イチ</t></rPh><phoneticPr fontId='1'/></si>".encode()  # as Excel notes from an IME
    relations = good.read("xl/_rels/workbook.xml.rels").replace(b'Target="', b'Target="/xl/')
    for parts in (
        {"sharedStrings": strings.replace(b"</si>", reading)},
        {"sharedStrings": strings.replace(b"<t>1</t>", b"<r><t>1</t></r><r><rPr><b/></rPr><t></t></r>")},
        {"sheet1": re.sub(rb' r="[A-Z]*\d+"', b"", sheet1)},
        {"workbook.xml.rels": relations},
    ):
        assert read_one(packed(**parts)) == {"task_id": "1", "mobile": MOBILE}, parts


def test_empty_lines_and_columns_are_passed() -> None:
    found, _ = read_all(b"\n,,,\n,,task_id,mobile\n,,,\n,,1,15080921090\n , ,2,15080921090\n,,,\n")
    assert found == [{"task_id": "1", "mobile": MOBILE}, {"task_id": "2", "mobile": MOBILE}]


def test_blank_before_a_quoted_cell_is_no_part_of_it() -> None:
    found = read_one(b'"task_id", "mobile", "reference"\n"1", "15080921090", "a, ""b"""\n')
    assert found == {"task_id": "1", "mobile": MOBILE, "reference": 'a, "b"'}


def test_open_quote_costs_what_it_swallows_and_is_named() -> None:
    text = 'task_id,mobile\n1,15080921090\n2,"1508\n3,15080921090\n'
    found, _ = read_all(text.encode())
    assert found == [{"task_id": "1", "mobile": MOBILE}, "line 3: not CSV (unexpected end of data, up to line 4)"]


@example(text='="5"')
@example(text="'+5")
@given(text=st.text(alphabet="'\"=+-@＝５\u3000\u200b a1.,;", min_size=1, max_size=8))
def test_cell_of_our_own_csv_is_read_as_what_it_was(text: str) -> None:
    try:
        kept = SENDS.read({"task_id": text, "mobile": MOBILE, "template_id": text, "reference": text})
    except InvalidSendRecord:  # none is kept that is so
        return
    file = io.StringIO()
    csv.writer(file).writerows(
        [
            HEADING.strip().split(","),
            [neutral(cell) for cell in (kept.task_id, MOBILE, kept.template_id, kept.reference, "")],
        ]
    )
    wanted = {"task_id": kept.task_id, "mobile": MOBILE, "template_id": kept.template_id, "reference": kept.reference}
    assert read_one(file.getvalue().encode()) == wanted
