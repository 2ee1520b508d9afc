"""What readers see of a row, in SQL: an expression for each field, for files and for views.

A test compares files and views with the lists, whose rows Python computes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

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

# Of times that readers of a file take: others have no text, and nothing is reckoned with them. Connections are in UTC.
_FIRST, _TOO_LATE = "'0001-01-01'", "'10000-01-01'"


def _iso(dialect: str, time: str, *, digits: int = 3, quote: str = "") -> str:
    if dialect != "postgresql":
        # They are stored as text, with six digits of a second; what is no time has none here.
        written = f"replace(substr({time}, 1, {23 if digits else 19}), ' ', 'T') || 'Z'"
        return f"CASE WHEN {time} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-2][0-9]:*' THEN {written} END"
    # A time's own text takes less than `to_char`, and least without a zone. It has no zeros at its end: so a
    # microsecond is added, and cut off again.
    if digits:
        exact = f"date_bin('1 millisecond', {time}, {_FIRST}) + INTERVAL '1 microsecond'"
        text = f"(({exact}) AT TIME ZONE INTERVAL '0')::varchar(23)"
    else:
        text = f"(date_bin('1 second', {time}, {_FIRST}) AT TIME ZONE INTERVAL '0')::text"
    begin = f"'{quote}' || " if quote else ""
    written = f"{begin}replace({text}, ' ', 'T') || 'Z{quote}'"
    return f"CASE WHEN {time} >= {_FIRST} AND {time} < {_TOO_LATE} THEN {written} END"


def _between(dialect: str, later: str, earlier: str, *, in_json: bool = False) -> str:
    if dialect != "postgresql":
        whole = f"strftime('%s', {later}) - strftime('%s', {earlier})"
        return f"max(0, ({whole}) * 1000 - CAST(substr({earlier}, 21, 3) AS INTEGER)) / 1000.0"
    sane = f"{later} < {_TOO_LATE} AND {earlier} >= {_FIRST}"  # the rest follows: one is above the other
    seconds = f"date_part('epoch', {later} - {earlier})"
    if not in_json:
        return f"CASE WHEN {later} <= {earlier} THEN 0 WHEN {sane} THEN {seconds} END"
    # As Python writes floats; up to 272 years, where their microseconds end.
    whole = f"CASE WHEN date_bin('1 second', {later}, {earlier}) = {later} THEN '.0' ELSE '' END"
    return f"CASE WHEN {later} <= {earlier} THEN '0.0' WHEN {sane} THEN {seconds}::text || {whole} ELSE 'null' END"


def _uuid(dialect: str, value: str) -> str:
    if dialect == "postgresql":
        return f"({value})::text"
    places = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    return " || '-' || ".join(f"substr({value}, {start}, {length})" for start, length in places)


# A time as ISO 8601 in UTC: with milliseconds, and in whole seconds.
iso = sql.function(sa.Text(), _iso)
iso_seconds = sql.function(sa.Text(), partial(_iso, digits=0))
# Seconds from the second time to the first, never below 0, in milliseconds.
seconds_between = sql.function(sa.Float(), _between)
uuid_text = sql.function(sa.Text(), _uuid)
# A number with its middle hidden; a text with the numbers in it masked.
masked = sql.function(sa.Text(), sql.masked_mobile)
masked_text = sql.function(sa.Text(), sql.masked_text)
# Texts by name as a JSON object, with the numbers in them masked, and in full; `core.texts_in_json` in SQL.
texts = sql.function(sa.Text(), partial(sql.texts_in_json, in_full=False))
texts_in_full = sql.function(sa.Text(), partial(sql.texts_in_json, in_full=True))
# As PostgreSQL is to write them in JSON.
_IN_JSON: Mapping[Any, Callable[..., sa.ColumnElement[Any]]] = {
    iso: sql.function(sa.Text(), partial(_iso, quote='"')),
    iso_seconds: sql.function(sa.Text(), partial(_iso, digits=0, quote='"')),
    seconds_between: sql.function(sa.Float(), partial(_between, in_json=True)),
}


def in_json(value: Any) -> sa.ColumnElement[Any]:
    """Return the text of a time, or of a number of seconds, as PostgreSQL is to write it in JSON."""
    return _IN_JSON[type(value)](*value.clauses)


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
_first_code = sql.function(
    sa.Integer(), lambda dialect, text: f"{'ascii' if dialect == 'postgresql' else 'unicode'}({text})"
)
