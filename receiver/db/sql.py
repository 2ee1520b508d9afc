"""Rules of Python as SQL: spans of time, the platform's statuses, masked numbers and texts.

A start in the future of a span that blocks something, such as a lockout, was written by a clock that was ahead, and
does not count: it would lock users out, or silence alarms, until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from receiver.core import (
    CLOCKS_APART,
    INSIDE_BLANKS,
    INSIDE_DASHES,
    INSIDE_PATTERN,
    INSIDE_SHOWN,
    MASK_HEAD,
    MASK_MIN_PLACES,
    MASK_SHORT_PART,
    MASK_TAIL,
    VENDOR_STATUSES,
    DeliveryStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta


def still_lasts(began: sa.ColumnElement[datetime], span: timedelta, now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a span which began then still lasts."""
    return sa.and_(began > now - span, no_later(began, now))


def is_over(began: sa.ColumnElement[datetime], span: timedelta, now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a span which began then is over."""
    return sa.or_(began <= now - span, began > now + CLOCKS_APART)


def no_later(at: sa.ColumnElement[datetime], now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a time is not later than now, within the tolerance between clocks."""
    return at <= now + CLOCKS_APART


def function(type_: Any, write: Callable[..., str]) -> Callable[..., sa.ColumnElement[Any]]:
    """Return a function of SQL; `write` is given the dialect's name and the SQL of each argument, and returns its own.

    It is written when a query is compiled, since only then is the dialect known.
    """

    class Function(FunctionElement[Any]):
        type = type_
        inherit_cache = True

    @compiles(Function)
    def _write(element: Any, compiler: Any, **kwargs: Any) -> str:
        return write(compiler.dialect.name, *(compiler.process(clause, **kwargs) for clause in element.clauses))

    return Function


def _moment_ago(dialect: str, seconds: str) -> str:
    if dialect == "postgresql":
        return f"(now() - make_interval(secs => {seconds}))"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || {seconds} || ' seconds')"


# The moment so many seconds before the present one, as times are stored.
moment_ago = function(sa.DateTime(timezone=True), _moment_ago)


def epoch_seconds(dialect: str, time: str) -> str:
    """Write a time as whole seconds from 1970, cut off."""
    if dialect == "postgresql":
        return f"floor(extract(epoch FROM {time}))::bigint"
    return f"coalesce(CAST(strftime('%s', {time}) AS INTEGER), 0)"


def delivery_status(vendor_status: str) -> str:
    """Write the meaning of the platform's `status` as its number; `core.delivery_status` in SQL."""
    known = " ".join(f"WHEN '{word}' THEN {status:d}" for word, status in VENDOR_STATUSES.items())
    return f"CASE {vendor_status} {known} ELSE {DeliveryStatus.UNKNOWN:d} END"


def masked_mobile(dialect: str, mobile: str) -> str:
    """Write a number with its middle hidden; `core.mask_mobile` in SQL."""
    places = f"length({mobile})"
    find = "strpos" if dialect == "postgresql" else "instr"

    def show(head: int | str, tail: int | str) -> str:
        hidden = f"{places} - {head} - {tail}"
        stars = f"repeat('*', {hidden})" if dialect == "postgresql" else f"replace(hex(zeroblob({hidden})), '00', '*')"
        return f"substr({mobile}, 1, {head}) || {stars} || substr({mobile}, {places} - {tail} + 1)"

    short = f"{places} / {MASK_SHORT_PART}"
    return (
        f"CASE WHEN {find}({mobile}, '*') > 0 THEN {show(MASK_HEAD, 0)}"
        f" WHEN {places} >= {MASK_MIN_PLACES} THEN {show(MASK_HEAD, MASK_TAIL)} ELSE {show(short, short)} END"
    )


def masked_text(dialect: str, text: str) -> str:
    """Write a text with the numbers in it masked; `core.mask_inside` in SQL, for exports and views.

    On SQLite by a function that our own connections have alone: a view for other programs needs
    `text_without_numbers`.
    """
    if dialect == "postgresql":
        return f"regexp_replace({text}, '{INSIDE_PATTERN}', '{INSIDE_SHOWN}', 'g')"
    return f"mask_inside({text})"


_STAGE = 8  # calls inside one another: the parser of SQLite 3.40 has no room for all of them


def text_without_numbers(text: str) -> str:
    """Write a text for SQLite without a function of ours: `***` for all of it where a number may be in it.

    SQLite has no regular expressions. Each text that `core.mask_inside` changes is hidden, and few others: one with a
    NUL is too, where GLOB would end.
    """
    changes = [(ord(mark), "") for mark in INSIDE_BLANKS + INSIDE_DASHES]
    changes += [(0xFF10 + digit, str(digit)) for digit in range(10)]
    bare = f"SELECT {text} AS t"
    for begin in range(0, len(changes), _STAGE):
        inner = "t"
        for code, plain in changes[begin : begin + _STAGE]:
            inner = f"replace({inner}, char({code}), '{plain}')"
        bare = f"SELECT {inner} AS t FROM ({bare})"  # noqa: S608
    number = f"({bare}) GLOB '*1{'[0-9]' * 10}*'"
    return f"CASE WHEN {number} OR instr(CAST({text} AS BLOB), x'00') > 0 THEN '***' ELSE {text} END"


def texts_in_json(dialect: str, texts: str, *, in_full: bool) -> str:
    """Write a column of texts by name as the text of a JSON object; `core.texts_in_json` in SQL.

    On SQLite by a function that `db.sqlite` adds to our connections.
    """
    if dialect != "postgresql":
        return f"texts_in_json({texts}, {in_full:d})"
    shown = [f"to_json({column if in_full else masked_text(dialect, column)})" for column in ("key", "value")]
    # A NUL, which would end the whole query, is shown; what only looks like its escape, behind a backslash, stays.
    plain = rf"regexp_replace({texts}::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u2400', 'g')::json"
    whole = f"'{{' || coalesce(string_agg({shown[0]} || ': ' || {shown[1]}, ', '), '') || '}}'"
    each = f"SELECT {whole} FROM json_each_text({plain})"  # noqa: S608
    return f"CASE json_typeof({texts}) WHEN 'object' THEN ({each}) ELSE '{{}}' END"


def texts_in_view(texts: str) -> str:
    """Write `texts_in_json` for any program that reads SQLite: a text with a number in it is not shown."""
    shown = [text_without_numbers(column) for column in ("key", "value")]
    whole = f"SELECT json_group_object({shown[0]}, {shown[1]}) FROM json_each({texts})"  # noqa: S608
    return f"CASE WHEN json_valid({texts}) AND json_type({texts}) = 'object' THEN ({whole}) ELSE '{{}}' END"
