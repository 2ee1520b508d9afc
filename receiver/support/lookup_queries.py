"""Find messages by number, last digits, task id or reference, and what may be about them."""

from __future__ import annotations

import heapq
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from receiver.db.set_aside import read_rows
from receiver.db.tables import (
    AGE_FROM,
    MOBILE_END,
    TASKLESS_WHERE,
    masked_key,
    masked_key_where,
    messages,
    receipts,
    replies,
    retention,
    tombstones,
)
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, MessageRow, Page, ReceiptRow, ReplyRow
from receiver.support.answers import has_moment, moment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from receiver.support.lookup import LookupQuery

Row = TypeVar("Row")

READ_MAX = 200  # messages read for one number, last digits, task id or reference
_REPLIES_MAX = 20
_POSSIBLE_MAX = 5
_SEARCHED_MAX = 20_000  # the newest receipts, or replies, among which numbers are compared one by one


def find_messages(
    connection: sa.Connection,
    lookups: Sequence[LookupQuery],
    *,
    clock: Clock,
    accounts: tuple[str, ...] | None = None,
    before: int | None = None,
) -> list[MessageRow]:
    """Return the messages of these accounts that match any of these, newest first: of each the newest 200.

    Messages that only a reply refers to have no time, and come last. `before`: with ids below it, by number only.
    """
    each = chain.from_iterable(_each(connection, query, clock, accounts, before) for query in lookups)
    found = {row.id: row for row in each}.values()
    dated = sorted(filter(has_moment, found), key=lambda row: (moment_of(row), row.id), reverse=True)
    return dated + [row for row in found if not has_moment(row)]


def _each(
    connection: sa.Connection,
    query: LookupQuery,
    clock: Clock,
    accounts: tuple[str, ...] | None,
    before: int | None,
) -> Iterator[MessageRow]:
    filters = []
    if query.mobile is not None:
        filters.append(Filter(mobile=query.mobile, accounts=accounts))
    for text in query.spellings:
        filters += [Filter(task_id=text, accounts=accounts), Filter(reference=text, accounts=accounts)]
    for one in filters:
        yield from queries.list_messages(connection, Page(limit=READ_MAX, before=before, filter=one), clock)
    if query.last_digits is not None:
        column = messages.c
        moment = sa.func.coalesce(column.sent_at, column.recorded_at, column.reported_at, type_=column.sent_at.type)
        ids = (
            sa.select(column.id)
            .where(MOBILE_END == query.last_digits, *_of(accounts))  # noqa: SIM300
            .order_by(moment.desc().nulls_last())
            .limit(READ_MAX)
        )
        found = queries.get_messages(connection, list(connection.scalars(ids)), clock).values()
        # Encrypted numbers are matched by a token of their last digits, and two tokens may be equal.
        yield from (row for row in found if row.mobile.endswith(query.last_digits) and query.fits(row.mobile))


def _of(accounts: tuple[str, ...] | None) -> list[sa.ColumnElement[bool]]:
    return [] if accounts is None else [messages.c.account.in_(accounts)]


# --- What belongs to no message ---------------------------------------------------------------------------


def find_replies(
    connection: sa.Connection,
    lookups: Sequence[LookupQuery],
    undated: Sequence[int],
    *,
    accounts: tuple[str, ...] | None = None,
) -> list[ReplyRow]:
    """Return the newest replies of these numbers that belong to no message, or to one of these `undated`.

    Those with a masked number may be another person's. Where only a part of the number is known, and for masked ones,
    the newest 20,000 replies are searched.
    """
    numbers = [query.mobile for query in lookups if query.mobile is not None]
    ids = set(_ids_without_message(connection, replies, lookups, accounts)[0])
    taskless = sa.select(replies.c.id).where(TASKLESS_WHERE, replies.c.masked_mobile.in_(numbers))
    of_messages = sa.select(replies.c.id).where(replies.c.message_id.in_(undated))
    for wanted in ([taskless] if numbers else []) + ([of_messages] if undated else []):
        ids.update(connection.scalars(wanted.order_by(replies.c.id.desc()).limit(_REPLIES_MAX)))
    return _read(connection, replies, ids, accounts, queries.as_reply_row)[:_REPLIES_MAX]


def find_possible_receipts(
    connection: sa.Connection, lookups: Sequence[LookupQuery], *, accounts: tuple[str, ...] | None = None
) -> tuple[list[ReceiptRow], bool]:
    """Return the newest receipts with a masked number that belong to no message and may be of one of these.

    And whether that is certain: the newest 20,000 receipts alone are searched.
    """
    ids, all_searched = _ids_without_message(connection, receipts, lookups, accounts)
    return _read(connection, receipts, ids, accounts, queries.as_receipt_row)[:_POSSIBLE_MAX], all_searched


def _ids_without_message(
    connection: sa.Connection, table: sa.Table, lookups: Sequence[LookupQuery], accounts: tuple[str, ...] | None
) -> tuple[Sequence[int], bool]:
    """Return ids of rows that hold their number themselves, and whether there were no more to search."""
    own = masked_key_where(table)
    # In the order of their index, so that no database reads the table for the one row.
    first = sa.select(table.c.id).where(own).order_by(*masked_key(table)).limit(1)
    if connection.scalar(first) is None:
        return [], True
    floor = (connection.scalar(sa.select(sa.func.max(table.c.id))) or 0) - _SEARCHED_MAX
    of_accounts = [] if accounts is None else [table.c.account.in_(accounts)]
    newest = sa.select(table.c.id, table.c.masked_mobile)
    newest = newest.where(table.c.id > floor, own, table.c.message_id.is_(None), *of_accounts)
    rows = read_rows(connection, newest, table, lambda row: (row.id, row.masked_mobile))
    ids = [row_id for row_id, number in rows if _may_be_of(lookups, number)]
    texts = [text for query in lookups for text in query.spellings]
    of_tasks = sa.select(table.c.id).where(own, table.c.task_id.in_(texts), table.c.message_id.is_(None), *of_accounts)
    ids += connection.scalars(of_tasks.limit(READ_MAX)) if texts else ()
    return ids, floor <= 0 or connection.scalar(first.where(table.c.id <= floor)) is None


def _may_be_of(lookups: Sequence[LookupQuery], number: str) -> bool:
    """Return whether a number, perhaps masked, may be one that was asked for."""
    for query in lookups:
        asked = query.mobile or query.masked
        if asked is not None and _may_be_equal(asked, number):
            return True
        if asked is None and query.last_digits is not None and number.endswith(query.last_digits):
            return True
    return False


def _may_be_equal(one: str, other: str) -> bool:
    return len(one) == len(other) and all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=True))


def _read(
    connection: sa.Connection,
    table: sa.Table,
    ids: Iterable[int],
    accounts: tuple[str, ...] | None,
    convert: Callable[[Any], Row],
) -> list[Row]:
    """Return those rows that are of these accounts, newest first."""
    newest = heapq.nlargest(READ_MAX, ids)
    if not newest:
        return []
    query = queries.select_inbound_events(table).where(table.c.id.in_(newest), *queries.in_accounts(table, accounts))
    return read_rows(connection, query.order_by(table.c.id.desc()), table, convert)


# --- What is known at all ---------------------------------------------------------------------------------


def find_kept_since(connection: sa.Connection) -> datetime | None:
    """Return since when messages are kept whole; None: none were ever pruned."""
    kept: datetime | None = connection.scalar(sa.select(retention.c.horizon).where(retention.c.kind == "messages"))
    return kept


def is_erased(connection: sa.Connection, digest: str) -> bool:
    """Return whether the data of the number with that keyed hash were erased at some time."""
    erased = sa.select(tombstones.c.id).where(tombstones.c.mobile_hmac == digest).limit(1)
    return connection.scalar(erased) is not None


def records_sends(connection: sa.Connection) -> bool:
    """Return whether sends are recorded here at all: without them nothing can be said of what was not sent."""
    column = messages.c
    unmatched = sa.select(sa.literal(1)).where(column.recorded_at.is_(None)).select_from(messages).limit(1)
    if connection.scalar(unmatched) is None:
        return True
    recorded = sa.select(sa.literal(1)).where(AGE_FROM.isnot(None)).select_from(messages).limit(1)
    return connection.scalar(recorded) is not None
