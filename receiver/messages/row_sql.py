"""What readers see of a row, in SQL: an expression for each field, for files and for views.

A test compares files and views with the lists, whose rows Python computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from receiver.core import VENDOR_STATUSES, DeliveryStatus, formulas
from receiver.db import sql
from receiver.db.message_status import is_late, seen_both, status_of
from receiver.db.tables import AGE_FROM, messages, receipts, replies
from receiver.messages import stamps
from receiver.messages.queries import INBOUND_COUNTS, select_inbound_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from receiver.db.message_status import AnyClock


def message_values(clock: AnyClock) -> Mapping[str, sa.ColumnElement[Any]]:
    """Return what readers see of `messages`, by field."""
    column = messages.c
    return {
        **column,
        **INBOUND_COUNTS,
        "counted_at": AGE_FROM,
        "status": status_of(clock),
        "late": is_late(clock),
        "latency_seconds": seconds_between(column.reported_at, column.sent_at),
        "matched": column.recorded_at.isnot(None),
        "conflicting": seen_both(),
        "updated_at": stamps.SHOWN,
    }


def grouped_counts(
    messages_query: sa.Select[Any], in_range: Callable[[sa.Column[Any]], Iterable[sa.ColumnElement[bool]]]
) -> tuple[sa.Select[Any], Mapping[str, sa.ColumnElement[Any]]]:
    """Return a query of messages joined with the counts of their receipts and replies, and these, by field.

    For all messages in the order of their ids: PostgreSQL then reads along three indexes at once. Counted for each
    message, they take half of an export's time. `in_range`: the conditions of the query that are of its ids, for a
    column of them; PostgreSQL does not carry them into the groups.
    """
    counts: dict[str, sa.ColumnElement[Any]] = {}
    for name, table in (("receipt_count", receipts), ("reply_count", replies)):
        groups = sa.select(table.c.message_id, sa.func.count().label("count")).group_by(table.c.message_id)
        of = groups.where(table.c.message_id.isnot(None), *in_range(table.c.message_id)).subquery(name)
        messages_query = messages_query.outerjoin(of, of.c.message_id == messages.c.id)
        counts[name] = sa.func.coalesce(of.c.count, 0)
    return messages_query, counts


def inbound_values(table: sa.Table) -> Mapping[str, sa.ColumnElement[Any]]:
    """Return what readers see of `select_inbound_events(table)`, by field."""
    of = {column.name: column for column in select_inbound_events(table).selected_columns}
    joined = {name: of[f"of_{name}"].element for name in ("account", "task_id", "mobile")}
    known = {value: status.name.lower() for value, status in VENDOR_STATUSES.items()}
    unknown = DeliveryStatus.UNKNOWN.name.lower()
    own = {"status": sa.case(known, value=table.c.vendor_status, else_=unknown)} if table is receipts else {}
    return {**table.c, **joined, **own}


# --- Functions that the two databases write differently -------------------------------------------------


class iso(FunctionElement[str]):  # noqa: N801  (a function of SQL)
    """A time as ISO 8601 in UTC, with milliseconds."""

    type = sa.Text()
    inherit_cache = True
    digits = 3
    quoted = False


class iso_seconds(iso):  # noqa: N801
    """A time as ISO 8601 in UTC, in whole seconds."""

    inherit_cache = True
    digits = 0


class _iso_quoted(iso):  # noqa: N801
    """In quotation marks, for PostgreSQL alone."""

    inherit_cache = True
    quoted = True


class _iso_seconds_quoted(iso_seconds):  # noqa: N801
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


@compiles(iso, "postgresql")
def _iso_postgresql(element: iso, compiler: Any, **kwargs: Any) -> str:
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


@compiles(iso, "sqlite")
def _iso_sqlite(element: iso, compiler: Any, **kwargs: Any) -> str:
    text = compiler.process(element.clauses, **kwargs)
    # They are stored as text, with six digits of a second; what is no time has none here.
    written = f"replace(substr({text}, 1, {23 if element.digits else 19}), ' ', 'T') || 'Z'"
    return f"CASE WHEN {text} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-2][0-9]:*' THEN {written} END"


class seconds_between(FunctionElement[Any]):  # noqa: N801
    """Seconds from the second time to the first, never below 0, in milliseconds."""

    type = sa.Float()
    inherit_cache = True
    in_json = False


class _seconds_in_json(seconds_between):  # noqa: N801
    """As a float of JSON, for PostgreSQL alone."""

    inherit_cache = True
    in_json = True


_IN_JSON: Mapping[type[FunctionElement[Any]], type[FunctionElement[Any]]] = {
    iso: _iso_quoted,
    iso_seconds: _iso_seconds_quoted,
    seconds_between: _seconds_in_json,
}


@compiles(seconds_between, "postgresql")
def _between_postgresql(element: seconds_between, compiler: Any, **kwargs: Any) -> str:
    later, earlier = (compiler.process(clause, **kwargs) for clause in element.clauses)
    sane = f"{later} < {_TOO_LATE} AND {earlier} >= {_FIRST}"  # the rest follows: one is above the other
    seconds = f"date_part('epoch', {later} - {earlier})"
    if not element.in_json:
        return f"CASE WHEN {later} <= {earlier} THEN 0 WHEN {sane} THEN {seconds} END"
    # As Python writes floats; up to 272 years, where their microseconds end.
    whole = f"CASE WHEN date_bin('1 second', {later}, {earlier}) = {later} THEN '.0' ELSE '' END"
    return f"CASE WHEN {later} <= {earlier} THEN '0.0' WHEN {sane} THEN {seconds}::text || {whole} ELSE 'null' END"


@compiles(seconds_between, "sqlite")
def _between_sqlite(element: seconds_between, compiler: Any, **kwargs: Any) -> str:
    later, earlier = (compiler.process(clause, **kwargs) for clause in element.clauses)
    parts = f"(strftime('%s', {later}) - strftime('%s', {earlier})) * 1000 - CAST(substr({earlier}, 21, 3) AS INTEGER)"
    return f"max(0, {parts}) / 1000.0"


def boolean(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[str]:
    """Return a condition as text."""
    return sa.case((condition, "true"), else_="false")


def neutral(text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
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


class masked(FunctionElement[str]):  # noqa: N801
    """A number with its middle hidden."""

    type = sa.Text()
    inherit_cache = True


class masked_text(FunctionElement[str]):  # noqa: N801
    """A text with the numbers in it masked."""

    type = sa.Text()
    inherit_cache = True


@compiles(masked_text)
def _write_masked_text(element: masked_text, compiler: Any, **kwargs: Any) -> str:
    return sql.masked_text(compiler.dialect.name, compiler.process(element.clauses, **kwargs))


@compiles(masked)
def _write_masked(element: masked, compiler: Any, **kwargs: Any) -> str:
    return sql.masked_mobile(compiler.dialect.name, compiler.process(element.clauses, **kwargs))


class texts(FunctionElement[str]):  # noqa: N801
    """Texts by name as a JSON object, with the numbers in them masked; `core.texts_in_json` in SQL."""

    type = sa.Text()
    inherit_cache = True
    in_full = False


class texts_in_full(texts):  # noqa: N801
    """With numbers in full."""

    inherit_cache = True
    in_full = True


@compiles(texts)
def _write_texts(element: texts, compiler: Any, **kwargs: Any) -> str:
    value = compiler.process(element.clauses, **kwargs)
    return sql.texts_in_json(compiler.dialect.name, value, in_full=element.in_full)


class uuid_text(FunctionElement[str]):  # noqa: N801
    """A UUID as text."""

    type = sa.Text()
    inherit_cache = True


@compiles(uuid_text, "postgresql")
def _uuid_postgresql(element: uuid_text, compiler: Any, **kwargs: Any) -> str:
    return f"({compiler.process(element.clauses, **kwargs)})::text"


@compiles(uuid_text, "sqlite")
def _uuid_sqlite(element: uuid_text, compiler: Any, **kwargs: Any) -> str:
    digits = compiler.process(element.clauses, **kwargs)
    return " || '-' || ".join(
        f"substr({digits}, {start}, {length})" for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
