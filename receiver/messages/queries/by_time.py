"""Pages of the console's lists: newest first by the time that they show, at a bounded cost.

The API goes by ids, which never change. A place here is a time and an id, each with its index. What has few rows, such
as one number's, is found by its own index, at most the newest `LOOKED_AT` of them, and then sorted. Any other list is
read along the index of times; no page looks at more than `LOOKED_AT` rows: one that has found too few ends there, and
the next goes on behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from receiver.core import MessageStatus
from receiver.db.encryption import cipher_of
from receiver.db.set_aside import is_readable_time, read_rows
from receiver.db.tables import LISTED_AT, messages, replies
from receiver.messages.queries.messages import (
    as_reply_row,
    get_messages,
    has_text,
    message_conditions,
    reply_conditions,
    select_inbound_events,
)
from receiver.messages.queries.rows import ReplyRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from receiver.db.message_status import Clock
    from receiver.messages.queries.rows import Filter, MessageRow, Page

    Place = tuple[datetime, int]

Row = TypeVar("Row")

LOOKED_AT = 200_000  # rows, for one page
_COUNTED_AT = 30_000  # rows, for one count
_FEW = 20_000  # so many are sorted in no time
HITS_MAX = 10_000
_FEW_MESSAGES = ("mobile", "mobiles", "task_id", "reference")  # filters with an index and few rows
_FEW_REPLIES = ("mobile", "mobiles", "task_id", "q")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed(Generic[Row]):
    """One page. `end`: the parts of the place where it ends and the next begins; None: there is none."""

    rows: Sequence[Row]
    end: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """How many rows a filter finds. Not `exact`: there may be more."""

    number: int
    exact: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """What is searched: a table in the order of a time, under some conditions; `few`: these find few rows."""

    table: sa.Table
    time: sa.ColumnElement[Any]
    conditions: Sequence[sa.ColumnElement[bool]]
    span: Sequence[sa.ColumnElement[bool]]  # what follows from them for `time`
    few: bool

    def read_page(
        self, connection: sa.Connection, before: Place | None, limit: int, most: int = LOOKED_AT
    ) -> tuple[list[Place], Place | None]:
        """Return the places of at most so many rows below `before`, and where the page ends; None: with the list."""
        query = self._query(before, most)
        rows = query.selected_columns
        found = connection.execute(query.order_by(rows.time.desc(), rows.id.desc()).limit(limit + 1)).all()
        places = [(row.time, row.id) for row in found[:limit]]
        return places, places[-1] if len(found) > limit else self._find_rest(connection, before, most)

    def count(self, connection: sa.Connection) -> Hits:
        """Return how many rows there are, up to `HITS_MAX`."""
        found = self._query(None, _COUNTED_AT).limit(HITS_MAX + 1).subquery()
        number = connection.scalar(sa.select(sa.func.count()).select_from(found)) or 0
        if number > HITS_MAX:
            return Hits(number=HITS_MAX, exact=False)
        return Hits(number=number, exact=self._find_rest(connection, None, _COUNTED_AT) is None)

    def _query(self, before: Place | None, most: int) -> sa.Select[Any]:
        """Return the query of `time` and `id` below `before`, over at most so many rows."""
        table = self.table
        if self.few:
            query = self._with_messages(sa.select(self.time.label("time"), table.c.id), table)
            query = query.where(is_readable_time(self.time), *self.conditions)
            rows = query.order_by(table.c.id.desc()).limit(most).subquery("taken")
            below = [] if before is None else [sa.tuple_(rows.c.time, rows.c.id) < before]
            return sa.select(rows.c.time, rows.c.id).where(*below)
        rows = self._ahead(sa.select(table, self.time.label("time")), before).limit(most).subquery("taken")

        def of_rows(element: Any, **_options: Any) -> Any:
            return rows.c[element.key] if isinstance(element, sa.Column) and element.table is table else None

        conditions = [visitors.replacement_traverse(one, {}, of_rows) for one in self.conditions]
        return self._with_messages(sa.select(rows.c.time, rows.c.id), rows).where(*conditions)

    def _find_rest(self, connection: sa.Connection, before: Place | None, most: int) -> Place | None:
        """Return the place of the last of so many rows that were looked at; None: there are no more."""
        if self.few:
            return None
        query = self._ahead(sa.select(self.time.label("time"), self.table.c.id), before)
        last = connection.execute(query.offset(most - 1).limit(1)).first()
        return None if last is None else (last.time, last.id)

    def _ahead(self, query: sa.Select[Any], before: Place | None) -> sa.Select[Any]:
        """Take the rows below a place, in the order of the index of times."""
        if before is not None:
            # The first by itself too: SQLite begins there, and would read its way to a pair of values.
            query = query.where(self.time <= before[0], sa.tuple_(self.time, self.table.c.id) < before)
        return query.where(is_readable_time(self.time), *self.span).order_by(self.time.desc(), self.table.c.id.desc())

    def _with_messages(self, query: sa.Select[Any], rows: sa.FromClause) -> sa.Select[Any]:
        if self.table is messages:
            return query
        return query.select_from(rows.outerjoin(messages, messages.c.id == rows.c.message_id))


def list_messages_by_time(
    connection: sa.Connection, page: Page, clock: Clock, *, most: int = LOOKED_AT
) -> Listed[MessageRow]:
    """Return a page of messages by the time of sending. `page.before`: the `end` of the page before."""
    places, end = _of_messages(connection, page.filter, clock).read_page(connection, page.before, page.limit, most)
    by_id = get_messages(connection, [message_id for _, message_id in places], clock)
    return Listed(rows=[by_id[message_id] for _, message_id in places if message_id in by_id], end=end)


def count_messages(connection: sa.Connection, wanted: Filter, clock: Clock) -> Hits:
    """Return how many messages a filter finds."""
    return _of_messages(connection, wanted, clock).count(connection)


def _of_messages(connection: sa.Connection, wanted: Filter, clock: Clock) -> _Search:
    few = _has_one_of(wanted, _FEW_MESSAGES) or (wanted.matched is False and _has_few_unmatched(connection))
    return _Search(
        table=messages,
        time=LISTED_AT,
        conditions=message_conditions(wanted, clock),
        span=list(_span_of_messages(wanted, clock)),
        few=few,
    )


def _span_of_messages(wanted: Filter, clock: Clock) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what a filter says of `LISTED_AT`: what has an age counts it from there."""
    if wanted.sent_from is not None:
        yield wanted.sent_from <= LISTED_AT
    if wanted.sent_to is not None:
        yield wanted.sent_to > LISTED_AT
    if wanted.status == MessageStatus.NO_RECEIPT:
        yield clock.no_receipt_before > LISTED_AT
    if wanted.late:
        yield sa.and_(clock.late_before > LISTED_AT, clock.no_receipt_before <= LISTED_AT)


def _has_few_unmatched(connection: sa.Connection) -> bool:
    unmatched = sa.select(messages.c.id).where(messages.c.recorded_at.is_(None)).limit(_FEW + 1).subquery()
    return (connection.scalar(sa.select(sa.func.count()).select_from(unmatched)) or 0) <= _FEW


def _has_one_of(wanted: Filter, names: Sequence[str]) -> bool:
    return any(getattr(wanted, name) is not None for name in names)


def list_replies_by_time(connection: sa.Connection, page: Page) -> Listed[ReplyRow]:
    """Return a page of replies by the platform's time. `page.before`: the `end` of the page before."""
    cipher, text = cipher_of(connection.dialect), page.filter.q
    search, found = _of_replies(page.filter, connection), list[ReplyRow]()
    before = page.before
    while True:
        places, end = search.read_page(connection, before, page.limit)
        by_id = _get_replies(connection, [reply_id for _, reply_id in places])
        rows = [by_id[reply_id] for _, reply_id in places if reply_id in by_id]
        if cipher is None or text is None:
            return Listed(rows=rows, end=end)
        # The database knows which may contain it.
        found += [row for row in rows if has_text(row.content, text)]
        if len(found) >= page.limit:
            last = found[page.limit - 1]
            return Listed(rows=found[: page.limit], end=(last.replied_at, last.id))
        if end is None:
            return Listed(rows=found, end=None)
        before = end


def _get_replies(connection: sa.Connection, ids: Sequence[int]) -> dict[int, ReplyRow]:
    query = select_inbound_events(replies).where(replies.c.id.in_(ids))
    return {row.id: row for row in read_rows(connection, query, replies, as_reply_row)}


def count_replies(connection: sa.Connection, wanted: Filter) -> Hits:
    """Return how many replies a filter finds; by a text in an encrypted database, how many may have it."""
    hits = _of_replies(wanted, connection).count(connection)
    guessed = wanted.q is not None and cipher_of(connection.dialect) is not None
    return replace(hits, exact=hits.exact and not guessed)


def _of_replies(wanted: Filter, connection: sa.Connection) -> _Search:
    return _Search(
        table=replies,
        time=replies.c.replied_at,
        conditions=reply_conditions(wanted, cipher_of(connection.dialect)),
        span=[],
        few=_has_one_of(wanted, _FEW_REPLIES) or wanted.opt_out is True or wanted.opt_out_review is True,
    )


def find_numbers_without_messages(
    connection: sa.Connection, numbers: Sequence[str], wanted: Filter, clock: Clock
) -> list[str]:
    """Return which of the numbers no message of a filter has."""
    others = message_conditions(replace(wanted, mobiles=None), clock)
    of_number = messages.c.mobile == sa.bindparam("number", type_=messages.c.mobile.type)
    query = sa.select(sa.literal(1)).where(of_number, *others).limit(1)
    return [number for number in numbers if connection.scalar(query, {"number": number}) is None]
