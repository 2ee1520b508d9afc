"""Which column is which field, and a row as the record that `records` reads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from receiver.core import ReceiverError, parse_mobile
from receiver.messages.imports.rows import UNDECODED, Cell, Row, Rows
from receiver.messages.imports.times import read_loose_time
from receiver.messages.send_records import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


# Names as they are met, in lower case and without signs or spaces: our name.
_KNOWN: Mapping[str, str] = {
    **{field.replace("_", ""): field for field in FIELDS},
    **dict.fromkeys(
        (
            "phone", "phonenumber", "phoneno", "mobilephone", "mobilenumber", "mobileno", "msisdn", "cellphone", "tel",
            "手机", "手机号", "手机号码", "手机号码1", "电话", "电话号码", "联系电话", "号码",
            "接收号码", "接收手机", "接收手机号", "接收手机号码", "目标号码", "被叫号码", "用户手机号",
        ),
        "mobile",
    ),
    **dict.fromkeys(
        ("batchid", "taskno", "任务id", "任务号", "任务编号", "批次id", "批次号", "批次编号", "下发批次id"), "task_id"
    ),
    **dict.fromkeys(
        (
            "tplid", "templateno", "templatecode",
            "模板id", "模板号", "模板编号", "短信模板id", "短信模板编号", "模版id", "模版编号",
        ),
        "template_id",
    ),
    **dict.fromkeys(("ref", "业务编号", "业务id", "业务号", "业务流水号", "参考号"), "reference"),
    **dict.fromkeys(
        ("sendtime", "sendat", "senttime", "senddate", "sentdate", "发送时间", "发送日期", "下发时间"), "sent_at"
    ),
    **dict.fromkeys(("successcount", "成功条数"), "success_counts"),
    **dict.fromkeys(("剩余条数", "剩余点数"), "remain_point"),
    **dict.fromkeys(("返回状态", "返回码"), "return_status"),
    **dict.fromkeys(("返回信息", "返回消息"), "message"),
}  # fmt: skip
# Names that may mean a field: where no other column does, and what stands below it fits.
_WEAK: Mapping[str, str] = {
    **dict.fromkeys(("createdat", "createtime", "submittime", "创建时间", "提交时间"), "sent_at"),
    **dict.fromkeys(("模板", "模版", "短信模板", "template"), "template_id"),
    **dict.fromkeys(("订单号", "流水号", "订单编号"), "reference"),
}
# The form of values, to choose between several columns; other fields may have any form.
_LOOKS_LIKE: Mapping[str, Callable[[str], object]] = {
    "mobile": parse_mobile,
    "task_id": re.compile(r"[!-~]{1,64}").fullmatch,
    "template_id": re.compile(r"[\w-]{1,64}", re.ASCII).fullmatch,
    "sent_at": re.compile(r"[0-9]{4}.*|[0-9]+/.*").fullmatch,
    "return_status": re.compile(r"[01](\.0)?").fullmatch,
}
_SAMPLE_ROWS = 100
_NUMBER_DIGITS = 15  # precision of a spreadsheet's number
_ZEROS_NO_CHANCE = 8
_IN_BRACKETS = re.compile(r"\s*[(（]([^()（）]*)[)）]\s*$")
_UNUSED_NAMED = 20
_STATUS = "status"  # of our own export: `refused` stands where the platform's `return_status` is 0
_OWN_EXPORT = frozenset({_STATUS, "recorded_at", "error_message"})


@dataclass(frozen=True, slots=True)
class _Column:
    field: str
    zone: ZoneInfo | None = None  # that the name gives, as those of our own XLSX do
    own: bool = False  # of our own export: what a cell holds was put there by no spreadsheet and no database


def is_known(name: str) -> bool:
    """Return whether a column of this name is used."""
    return _plain(name) in _KNOWN or _plain(name) in _WEAK


class RecordReader:
    """Reads the rows of a file as records. Raises ReceiverError for an unusable header."""

    def __init__(self, mapping: Mapping[str, str], *, zone: ZoneInfo, time_formats: Sequence[str]) -> None:
        self._mapping = mapping
        self._zone = zone
        self._formats = time_formats
        self._unused: dict[str, None] = {}
        self.rounded = False  # whether the ids look rounded by a spreadsheet; a single id cannot show it
        # Objects mostly have the same names, one after the other.
        self._columns = lru_cache(maxsize=64)(self._resolve)

    @property
    def unused(self) -> list[str]:
        """The names of columns that were met and not used, the first ones of many."""
        return list(self._unused)[:_UNUSED_NAMED] + (["…"] if len(self._unused) > _UNUSED_NAMED else [])

    def read(self, file: Rows) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """Yield the place and the record of each row; an unreadable row is a text that says why."""
        if not file.table:
            for row in file.rows:
                yield row.place, row.content if isinstance(row.content, str) else self._object(row)
            return
        names = next((names for row in file.rows if len(names := _names(row)) > 1), [])  # one alone is a title
        sample = list(islice(file.rows, _SAMPLE_ROWS))
        columns = self._heading(names, sample)
        self.rounded = _look_rounded(columns, sample)
        for row in chain(sample, file.rows):
            yield row.place, row.content if isinstance(row.content, str) else self._cells(row, columns, file)

    def _heading(self, names: list[str], sample: Sequence[Row]) -> tuple[_Column | None, ...]:
        columns = self._resolve(tuple(names), [row.content for row in sample if not isinstance(row.content, str)])
        fields = [column.field for column in columns if column]
        for field in ("mobile", "task_id"):
            if field not in fields and not (field == "task_id" and "return_status" in fields):
                raise ReceiverError(
                    f"no column is {field}; the line above the rows must name the columns, or use --map COLUMN={field}"
                )
        if doubled := _doubled(fields):
            raise ReceiverError(f"two columns are {', '.join(doubled)}; choose with --map COLUMN=FIELD")
        return columns

    def _cells(self, row: Row, columns: tuple[_Column | None, ...], file: Rows) -> Mapping[str, Any] | str:
        cells: list[Any] = list(row.content)
        while len(cells) > len(columns) and cells[-1] in (None, ""):
            cells.pop()
        if file.serial_time is not None:  # a sheet's row ends with its last cell that is filled
            cells += [None] * (len(columns) - len(cells))
        if len(cells) != len(columns):
            return f"{len(cells)} columns where the first line names {len(columns)}"
        record: dict[str, Any] = {}
        for column, cell in zip(columns, cells, strict=True):
            if column is not None:
                if isinstance(cell, str) and UNDECODED in cell:
                    return f"{column.field} holds bytes that are no text in the encoding of the file; save it as UTF-8"
                record[column.field] = self._value(column, cell, file)
        return _without_other_words(record)

    def _object(self, row: Row) -> Mapping[str, Any] | str:
        item: Mapping[str, Any] = row.content  # type: ignore[assignment]
        columns = self._columns(tuple(item))
        if doubled := _doubled([column.field for column in columns if column]):
            return f"two names are {', '.join(doubled)}"
        record = {
            column.field: self._value(column, str(value) if isinstance(value, float) else value, None)
            for column, value in zip(columns, item.values(), strict=True)
            if column is not None
        }
        return _without_other_words(record)

    # --- Names ------------------------------------------------------------------------------------------

    def _resolve(self, names: tuple[str, ...], sample: Sequence[Any] = ()) -> tuple[_Column | None, ...]:
        own = set(map(_bare_name, names)) >= _OWN_EXPORT
        fields = [self._field(name, own=own) for name in names]
        fits = [_fit(field, place, sample) for place, field in enumerate(fields)]
        for place, name in enumerate(names):
            field, weak = fields[place], _WEAK.get(_plain(name))
            another = any(field == fields[other] and fits[other] for other in range(len(names)) if other != place)
            if field and not fits[place] and (another or field == "return_status") and name not in self._mapping:
                fields[place] = None
            elif field is None and weak not in (*fields, *self._mapping.values()) and _fit(weak, place, sample):
                fields[place] = weak
        if "return_status" not in fields and not own:
            # Who calls a column `message` then means the text of the SMS, not why the platform refused it.
            fields = [None if field == "message" else field for field in fields]
        for name, field in zip(names, fields, strict=True):
            if field is None and name and len(self._unused) <= _UNUSED_NAMED:
                self._unused[name] = None
        return tuple(
            _Column(field, _zone(name), own) if field else None for name, field in zip(names, fields, strict=True)
        )

    def _field(self, name: str, *, own: bool) -> str | None:
        if name.strip() in self._mapping:
            return self._mapping[name.strip()]
        if own and _bare_name(name) in (_STATUS, "error_message"):
            return "message" if _bare_name(name) == "error_message" else _STATUS
        field = _KNOWN.get(_plain(name))
        # A mapped field is that column's alone.
        return None if field in self._mapping.values() else field

    # --- Values -----------------------------------------------------------------------------------------

    def _value(self, column: _Column, value: Any, file: Rows | None) -> Any:
        """Return a value as `send_records` expects it; other values stay unchanged, and are refused there."""
        if isinstance(value, str) and file is not None:
            bare = file.unescape(value)
            value = bare if column.own else _null(_unquoted(value, column.field) if bare == value else bare)
        if column.field == "sent_at":
            return self._time(value, column, file)
        if isinstance(value, datetime | date | time | timedelta | float):
            return str(value)
        return value

    def _time(self, value: Any, column: _Column, file: Rows | None) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and file is not None and file.serial_time:
            try:
                value = file.serial_time(value)
            except (ValueError, OverflowError):  # no serial number: perhaps digits such as 20261123
                value = str(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)  # noqa: DTZ001  (the zone is added below)
        moment = value if isinstance(value, datetime) else self._read_time(value)
        if moment is None:
            return value if isinstance(value, str | int | None) else str(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=column.zone or self._zone)
        return moment.isoformat()

    def _read_time(self, value: Any) -> datetime | None:
        if not isinstance(value, str):
            return None
        return read_loose_time(value.strip(), self._formats)


def _without_other_words(record: dict[str, Any]) -> Mapping[str, Any]:
    """Return a record without messages that are no refusal, such as `success`; mark refused sends of our own export."""
    if record.pop(_STATUS, None) == "refused":
        record["return_status"] = "0"
    if str(record.get("return_status")).strip() not in ("0", "0.0"):
        record.pop("message", None)
    return record


def _look_rounded(columns: Sequence[_Column | None], sample: Sequence[Row]) -> bool:
    """Return whether all task ids are zeros beyond a spreadsheet's precision, and that is no chance."""
    places = [place for place, column in enumerate(columns) if column and column.field == "task_id"]
    ids = {str(row.content[place]) for row in sample for place in places if _has_cell(row, place)}  # type: ignore[index]
    ends = [text[_NUMBER_DIGITS:] for text in ids if text.isdigit() and len(text) > _NUMBER_DIGITS]
    return sum(map(len, ends)) >= _ZEROS_NO_CHANCE and not any(end.strip("0") for end in ends)


def _has_cell(row: Row, place: int) -> bool:
    return not isinstance(row.content, str) and place < len(row.content)


def _fit(field: str | None, place: int, sample: Sequence[Sequence[Cell]]) -> bool:
    """Return whether a column's values may be that field: it is empty, or has at least one such value."""
    looks_like = _LOOKS_LIKE.get(field or "")
    values = [str(cells[place]).strip() for cells in sample if place < len(cells) and cells[place] not in (None, "")]
    return looks_like is None or not values or any(map(looks_like, values))


def _names(row: Row) -> list[str]:
    if isinstance(row.content, str):
        raise ReceiverError(f"{row.place}: {row.content}")
    names = ["" if cell is None else str(cell).strip() for cell in row.content]
    while names and not names[-1]:
        names.pop()
    return names


def _bare_name(name: str) -> str:
    return _IN_BRACKETS.sub("", name).strip()


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", _bare_name(name)).lower()


def _zone(name: str) -> ZoneInfo | None:
    match = _IN_BRACKETS.search(name)
    try:
        return ZoneInfo(match[1].strip()) if match else None
    except (ValueError, OSError, KeyError):  # any other words
        return None


def _doubled(fields: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(fields).items() if count > 1]


_NULLS = frozenset({"NULL", "null", "(NULL)", "(null)", "\\N"})


def _null(text: str) -> str | None:
    return None if text.strip() in _NULLS else text


_FORMULA_OF_TEXT = re.compile(r'\s*="([^"]*)"\s*')
_MARKED_NUMBER = re.compile(r"\s*'(\+?\d+)\s*", re.ASCII)
_IDENTIFYING = ("mobile", "task_id", "template_id")


def _unquoted(text: str, field: str) -> str:
    """Return a cell without what makes a spreadsheet show digits as text: `="123"`, and the apostrophe of `'123`."""
    if match := _FORMULA_OF_TEXT.fullmatch(text):
        return match[1]
    match = _MARKED_NUMBER.fullmatch(text) if field in _IDENTIFYING else None
    return match[1] if match else text
