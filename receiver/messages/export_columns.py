"""Exports of whole lists, at constant memory: by COPY from one snapshot on PostgreSQL, in parts by id on SQLite.

The database writes the text itself, so SQL computes what readers see of a row; a test compares it with the lists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from receiver.core import (
    VENDOR_STATUSES,
    DeliveryStatus,
    formulas,
    mask_inside,
    mask_mobile,
    shown_content,
)
from receiver.db.message_status import is_late, seen_both, status_of
from receiver.db.sql import masked_mobile, masked_text
from receiver.db.tables import messages, receipts, replies
from receiver.messages import stamps
from receiver.messages.fields import Field, FieldType, fields_of
from receiver.messages.queries import (
    Clock,
    Filter,
    MessageRow,
    ReceiptRow,
    ReplyRow,
    has_text,
    is_short,
    message_conditions,
    receipt_conditions,
    reply_conditions,
    select_inbound_events,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from receiver.db.encryption import FieldCipher


# The types that SQLite may return for each; its columns accept any.
TYPES: Mapping[FieldType, tuple[type, ...]] = {
    FieldType.TEXT: (str,),
    FieldType.WORD: (str,),
    FieldType.PLATFORM_TIME: (str,),
    FieldType.OUR_TIME: (str,),
    FieldType.NUMBER: (int, float),
    FieldType.ID: (int,),
    FieldType.COUNT: (int,),
    FieldType.BOOLEAN: (str,),
}


@dataclass(frozen=True, slots=True)
class ExportColumn:
    """One column of a file: its field, and its text in SQL."""

    field: Field
    text: sa.ColumnElement[Any]
    # For an encrypted column, which the database cannot write as text: converts the decrypted value.
    to_text: Callable[[Any], str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """The columns and rows of an export."""

    columns: tuple[ExportColumn, ...]
    query: sa.Select[Any]
    table: sa.Table  # the table of the rows' ids
    narrow: bool  # few rows, found by an index
    keeps: Callable[[Any], bool] | None = None  # filter of decrypted rows

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the fields of the columns."""
        return tuple(column.field for column in self.columns)

    @property
    def encrypted(self) -> bool:
        """Return whether rows must be decrypted, so that the database cannot write them."""
        return any(column.to_text for column in self.columns)

    def as_text(self, *, neutral: bool) -> sa.Select[Any]:
        """Return the query with its columns as text; `neutral`: so that no spreadsheet reads a cell as a formula.

        Encrypted columns are returned unchanged.
        """
        return self.query.with_only_columns(
            *(
                (
                    _neutral(column.text)
                    if neutral and column.field.written_by_people and not column.to_text
                    else column.text
                ).label(column.field.name)
                for column in self.columns
            ),
            maintain_column_froms=True,
        )


# --- Expressions that the two databases write differently -----------------------------------------------


class _iso(FunctionElement[str]):  # noqa: N801  (a function of SQL)
    """A time as ISO 8601 in UTC, with milliseconds."""

    type = sa.Text()
    inherit_cache = True
    digits = 3
    quoted = False


class _iso_seconds(_iso):  # noqa: N801
    """A time as ISO 8601 in UTC, in whole seconds."""

    inherit_cache = True
    digits = 0


class _iso_quoted(_iso):  # noqa: N801
    """In quotation marks, for PostgreSQL alone."""

    inherit_cache = True
    quoted = True


class _iso_seconds_quoted(_iso_seconds):  # noqa: N801
    """In quotation marks, for PostgreSQL alone."""

    inherit_cache = True
    quoted = True


def in_json(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the text of a time, or of a number of seconds, as PostgreSQL is to write it in JSON."""
    for plain, written in _IN_JSON.items():
        if type(value) is plain:
            return written(*value.clauses)
    raise TypeError(type(value).__name__)


# Of times that readers of a file take: others have no text, and nothing is reckoned with them. Connections are in UTC.
_FIRST, _TOO_LATE = "'0001-01-01'", "'10000-01-01'"


@compiles(_iso, "postgresql")
def _iso_postgresql(element: _iso, compiler: Any, **kwargs: Any) -> str:
    time = compiler.process(element.clauses, **kwargs)
    # A time's own text takes less than `to_char`, and least without a zone. It has no zeros at its end: so a
    # microsecond is added, and cut off again.
    if element.digits:
        exact = f"date_bin('1 millisecond', {time}, {_FIRST}) + INTERVAL '1 microsecond'"
        text = f"(({exact}) AT TIME ZONE INTERVAL '0')::varchar(23)"
    else:
        text = f"(date_bin('1 second', {time}, {_FIRST}) AT TIME ZONE INTERVAL '0')::text"
    quote = '"' if element.quoted else ""
    begin = f"'{quote}' || " if quote else ""
    written = f"{begin}replace({text}, ' ', 'T') || 'Z{quote}'"
    return f"CASE WHEN {time} >= {_FIRST} AND {time} < {_TOO_LATE} THEN {written} END"


@compiles(_iso, "sqlite")
def _iso_sqlite(element: _iso, compiler: Any, **kwargs: Any) -> str:
    text = compiler.process(element.clauses, **kwargs)
    # They are stored as text, with six digits of a second; what is no time has none here.
    written = f"replace(substr({text}, 1, {23 if element.digits else 19}), ' ', 'T') || 'Z'"
    return f"CASE WHEN {text} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-2][0-9]:*' THEN {written} END"


class _seconds_between(FunctionElement[Any]):  # noqa: N801
    """Seconds from the second time to the first, never below 0, in milliseconds."""

    type = sa.Float()
    inherit_cache = True
    in_json = False


class _seconds_in_json(_seconds_between):  # noqa: N801
    """As a float of JSON, for PostgreSQL alone."""

    inherit_cache = True
    in_json = True


_IN_JSON: Mapping[type[FunctionElement[Any]], type[FunctionElement[Any]]] = {
    _iso: _iso_quoted,
    _iso_seconds: _iso_seconds_quoted,
    _seconds_between: _seconds_in_json,
}


@compiles(_seconds_between, "postgresql")
def _between_postgresql(element: _seconds_between, compiler: Any, **kwargs: Any) -> str:
    later, earlier = (compiler.process(clause, **kwargs) for clause in element.clauses)
    sane = f"{later} < {_TOO_LATE} AND {earlier} >= {_FIRST}"  # the rest follows: one is above the other
    seconds = f"date_part('epoch', {later} - {earlier})"
    if not element.in_json:
        return f"CASE WHEN {later} <= {earlier} THEN 0 WHEN {sane} THEN {seconds} END"
    # As Python writes floats; up to 272 years, where their microseconds end.
    whole = f"CASE WHEN date_bin('1 second', {later}, {earlier}) = {later} THEN '.0' ELSE '' END"
    return f"CASE WHEN {later} <= {earlier} THEN '0.0' WHEN {sane} THEN {seconds}::text || {whole} ELSE 'null' END"


@compiles(_seconds_between, "sqlite")
def _between_sqlite(element: _seconds_between, compiler: Any, **kwargs: Any) -> str:
    later, earlier = (compiler.process(clause, **kwargs) for clause in element.clauses)
    parts = f"(strftime('%s', {later}) - strftime('%s', {earlier})) * 1000 - CAST(substr({earlier}, 21, 3) AS INTEGER)"
    return f"max(0, {parts}) / 1000.0"


def _boolean(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[str]:
    return sa.case((condition, "true"), else_="false")


def _neutral(text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """`formulas.neutral` in SQL."""
    first = _first_code(text)
    plain = sa.or_(*(first.between(ord(least), ord(most)) for least, most in _PLAIN_BEGINNINGS))
    sign = _first_code(sa.func.ltrim(text, formulas.SKIPPED)).in_(list(map(ord, formulas.SIGNS)))
    at_a_break = _first_code(sa.func.ltrim(text, "'")).in_(list(map(ord, formulas.BREAKS)))
    return sa.case(
        (sa.or_(text.is_(None), plain), text), (sa.or_(sign, at_a_break), sa.literal("'") + text), else_=text
    )


# Nearly every cell begins so; the full check takes seven times as long.
_PLAIN_BEGINNINGS = (("0", "9"), ("A", "Z"), ("a", "z"), ("\u4e00", "\u9fff"))


class _first_code(FunctionElement[int]):  # noqa: N801
    """The code point of a text's first character."""

    type = sa.Integer()
    inherit_cache = True


@compiles(_first_code, "postgresql")
def _first_code_postgresql(element: _first_code, compiler: Any, **kwargs: Any) -> str:
    return f"ascii({compiler.process(element.clauses, **kwargs)})"


@compiles(_first_code, "sqlite")
def _first_code_sqlite(element: _first_code, compiler: Any, **kwargs: Any) -> str:
    return f"unicode({compiler.process(element.clauses, **kwargs)})"


class _masked(FunctionElement[str]):  # noqa: N801
    """A number with its middle hidden."""

    type = sa.Text()
    inherit_cache = True


class _masked_text(FunctionElement[str]):  # noqa: N801
    """A text with the numbers in it masked."""

    type = sa.Text()
    inherit_cache = True


@compiles(_masked_text)
def _write_masked_text(element: _masked_text, compiler: Any, **kwargs: Any) -> str:
    return masked_text(compiler.dialect.name, compiler.process(element.clauses, **kwargs))


@compiles(_masked)
def _write_masked(element: _masked, compiler: Any, **kwargs: Any) -> str:
    return masked_mobile(compiler.dialect.name, compiler.process(element.clauses, **kwargs))


# How the database writes a value of a type; others are written as they are.
_TEXTS: Mapping[FieldType, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] = {
    FieldType.PLATFORM_TIME: _iso_seconds,
    FieldType.OUR_TIME: _iso,
    FieldType.BOOLEAN: _boolean,
}


def _columns(
    row_type: Any,
    values: Mapping[str, sa.ColumnElement[Any]],
    *,
    in_full: bool,
    cipher: FieldCipher | None,
) -> tuple[ExportColumn, ...]:
    """Return the columns of a row's fields in files; `values`: of each field, in SQL."""

    def column(field: Field) -> ExportColumn:
        value = values[field.name]
        if field.name == "mobile" and cipher is not None:
            return ExportColumn(field, value, to_text=str if in_full else mask_mobile)
        if field.name == "mobile":
            return ExportColumn(field, value if in_full else _masked(value))
        if field.name == "content" and cipher is not None:
            masked = str if in_full else mask_inside
            return ExportColumn(field, value, to_text=lambda content: masked(shown_content(content.decode())))
        if field.name == "content":
            return ExportColumn(field, value if in_full else _masked_text(value))
        return ExportColumn(field, _TEXTS[field.type](value) if field.type in _TEXTS else value)

    return tuple(column(field) for field in fields_of(row_type) if field.in_files)


# --- The three lists ------------------------------------------------------------------------------------


def export_messages(wanted: Filter, clock: Clock, *, in_full: bool, cipher: FieldCipher | None = None) -> Export:
    """Export messages, oldest first."""
    column = messages.c
    values: dict[str, sa.ColumnElement[Any]] = {
        **column,
        "status": status_of(clock),
        "late": is_late(clock),
        "latency_seconds": _seconds_between(column.reported_at, column.sent_at),
        "matched": column.recorded_at.isnot(None),
        "conflicting": seen_both(),
        "updated_at": stamps.SHOWN,
    }
    return Export(
        columns=_columns(MessageRow, values, in_full=in_full, cipher=cipher),
        query=_in_range(sa.select(messages).where(*message_conditions(wanted, clock)), messages, wanted),
        table=messages,
        narrow=_is_narrow(wanted) or is_short(wanted.updated_from, wanted.updated_to or clock.now),
    )


def _in_range(query: sa.Select[Any], table: sa.Table, wanted: Filter) -> sa.Select[Any]:
    if wanted.after_id is not None:
        query = query.where(table.c.id > wanted.after_id)
    if wanted.to_id is not None:
        query = query.where(table.c.id <= wanted.to_id)
    return query.order_by(table.c.id)


def _is_narrow(wanted: Filter) -> bool:
    return any(value is not None for value in (wanted.mobile, wanted.task_id, wanted.reference, wanted.q))


def export_receipts(wanted: Filter, _clock: Clock, *, in_full: bool, cipher: FieldCipher | None = None) -> Export:
    """Export receipts, oldest first."""
    known = {value: status.name.lower() for value, status in VENDOR_STATUSES.items()}
    status = sa.case(known, value=receipts.c.vendor_status, else_=DeliveryStatus.UNKNOWN.name.lower())
    return _export_inbound_events(
        receipts, ReceiptRow, {"status": status}, receipt_conditions(wanted), wanted, in_full=in_full, cipher=cipher
    )


def export_replies(wanted: Filter, _clock: Clock, *, in_full: bool, cipher: FieldCipher | None = None) -> Export:
    """Export replies, oldest first."""
    content = {} if cipher is None else {"content": replies.c.content_sealed}
    export = _export_inbound_events(
        replies, ReplyRow, content, reply_conditions(wanted, cipher), wanted, in_full=in_full, cipher=cipher
    )
    if cipher is None or (text := wanted.q) is None:
        return export
    return replace(export, keeps=lambda row: has_text(shown_content(row.content.decode()), text))


def _export_inbound_events(
    table: sa.Table,
    row_type: Any,
    own: Mapping[str, sa.ColumnElement[Any]],
    conditions: list[sa.ColumnElement[bool]],
    wanted: Filter,
    *,
    in_full: bool,
    cipher: FieldCipher | None,
) -> Export:
    query = select_inbound_events(table)
    of = {column.name: column for column in query.selected_columns}
    joined = {name: of[f"of_{name}"].element for name in ("account", "task_id", "mobile")}
    return Export(
        columns=_columns(row_type, {**table.c, **joined, **own}, in_full=in_full, cipher=cipher),
        query=_in_range(query.where(*conditions), table, wanted),
        table=table,
        narrow=_is_narrow(wanted),
    )
