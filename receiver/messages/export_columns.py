"""Exports of whole lists, at constant memory: by COPY from one snapshot on PostgreSQL, in parts by id on SQLite.

The database writes the text itself, so SQL computes what readers see of a row; a test compares it with the lists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import mask_inside, mask_mobile, shown_content, texts_in_json
from receiver.db.encryption import cipher_of
from receiver.db.tables import LISTED_AT, messages, receipts, replies
from receiver.messages import row_sql
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
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy.engine import Dialect

    from receiver.db.encryption.ciphers import FieldCipher


LISTED_ROWS = 10_000  # that are sorted as the list is; more are read in the order of their ids
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
    FieldType.TEXTS: (str,),
    FieldType.UUID: (str,),
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
    listed: bool = False  # in the order of the list, newest first; at most LISTED_ROWS
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
                    row_sql.neutral(column.text)
                    if neutral and column.field.written_by_people and not column.to_text
                    else column.text
                ).label(column.field.name)
                for column in self.columns
            ),
            maintain_column_froms=True,
        )


# How the database writes a value of a type; others are written as they are.
_TEXTS: Mapping[FieldType, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] = {
    FieldType.PLATFORM_TIME: row_sql.iso_seconds,
    FieldType.OUR_TIME: row_sql.iso,
    FieldType.BOOLEAN: row_sql.boolean,
    FieldType.UUID: row_sql.uuid_text,
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
            return ExportColumn(field, value if in_full else row_sql.masked(value))
        if field.name == "content" and cipher is not None:
            masked = str if in_full else mask_inside
            return ExportColumn(field, value, to_text=lambda content: masked(shown_content(content.decode())))
        if field.name == "content":
            return ExportColumn(field, value if in_full else row_sql.masked_text(value))
        if field.type is FieldType.TEXTS and cipher is not None:
            return ExportColumn(field, value, to_text=partial(texts_in_json, in_full=in_full))
        if field.type is FieldType.TEXTS:
            return ExportColumn(field, (row_sql.texts_in_full if in_full else row_sql.texts)(value))
        return ExportColumn(field, _TEXTS[field.type](value) if field.type in _TEXTS else value)

    return tuple(map(column, fields_of(row_type)))


# --- The three lists ------------------------------------------------------------------------------------


def export_messages(wanted: Filter, clock: Clock, dialect: Dialect, *, in_full: bool, listed: bool = False) -> Export:
    """Export messages, oldest first; `listed`: as the list has them."""
    query = sa.select(messages).where(*message_conditions(wanted, clock))
    values = row_sql.message_values(clock)
    narrow = listed or _is_narrow(wanted) or is_short(wanted.updated_from, wanted.updated_to or clock.now)
    if dialect.name == "postgresql" and not narrow:
        query, counts = row_sql.grouped_counts(query, partial(_in_range, wanted))
        values = {**values, **counts}
    return Export(
        columns=_columns(MessageRow, values, in_full=in_full, cipher=cipher_of(dialect)),
        query=query.where(*_in_range(wanted, messages.c.id)).order_by(*_in_order(messages, LISTED_AT, listed=listed)),
        table=messages,
        narrow=narrow,
        listed=listed,
    )


def _in_order(
    table: sa.Table, time: sa.ColumnElement[Any] | None, *, listed: bool
) -> tuple[sa.ColumnElement[Any], ...]:
    """Return the order of an export; `time`: what its list goes by, None: by the ids alone."""
    if not listed:
        return (table.c.id,)
    return (table.c.id.desc(),) if time is None else (time.desc(), table.c.id.desc())


def _in_range(wanted: Filter, ids: sa.Column[Any]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions that an id is in the part that is wanted."""
    if wanted.after_id is not None:
        yield ids > wanted.after_id
    if wanted.to_id is not None:
        yield ids <= wanted.to_id


def _is_narrow(wanted: Filter) -> bool:
    return any(
        value is not None for value in (wanted.mobile, wanted.mobiles, wanted.task_id, wanted.reference, wanted.q)
    )


def export_receipts(wanted: Filter, _clock: Clock, dialect: Dialect, *, in_full: bool, listed: bool = False) -> Export:
    """Export receipts, oldest first; `listed`: as the list has them."""
    conditions, cipher = receipt_conditions(wanted), cipher_of(dialect)
    return _export_inbound_events(
        receipts, ReceiptRow, {}, conditions, wanted, in_full=in_full, listed=listed, cipher=cipher
    )


def export_replies(wanted: Filter, _clock: Clock, dialect: Dialect, *, in_full: bool, listed: bool = False) -> Export:
    """Export replies, oldest first; `listed`: as the list has them."""
    cipher = cipher_of(dialect)
    content = {} if cipher is None else {"content": replies.c.content_sealed}
    conditions = reply_conditions(wanted, cipher)
    export = _export_inbound_events(
        replies, ReplyRow, content, conditions, wanted, in_full=in_full, listed=listed, cipher=cipher
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
    listed: bool,
    cipher: FieldCipher | None,
) -> Export:
    query = select_inbound_events(table).where(*conditions, *_in_range(wanted, table.c.id))
    return Export(
        columns=_columns(row_type, {**row_sql.inbound_values(table), **own}, in_full=in_full, cipher=cipher),
        query=query.order_by(*_in_order(table, replies.c.replied_at if table is replies else None, listed=listed)),
        table=table,
        narrow=listed or _is_narrow(wanted),
        listed=listed,
    )
