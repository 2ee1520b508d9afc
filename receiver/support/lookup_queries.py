"""Find messages by number, last digits, task id or reference."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.encryption import cipher_of
from receiver.db.tables import MOBILE_END, messages
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, MessageRow, Page
from receiver.support.answers import has_moment, moment_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from receiver.support.lookup import LookupQuery


_NEWEST_MAX = 200  # messages read for one number, task or reference


def find_messages(
    connection: sa.Connection,
    lookups: Sequence[LookupQuery],
    *,
    since: datetime,
    clock: Clock,
    limit: int,
    accounts: tuple[str, ...] | None = None,
) -> list[MessageRow]:
    """Return at most `limit` messages that match any of these, of these accounts since that time, newest first.

    Messages that only a reply refers to are left out: their time is unknown.
    """
    each = chain.from_iterable(_each(connection, query, since, clock, limit, accounts) for query in lookups)
    by_id = {row.id: row for row in each if has_moment(row)}
    fitting = [row for row in by_id.values() if moment_of(row) >= since]
    return sorted(fitting, key=lambda row: (moment_of(row), row.id), reverse=True)[:limit]


def _each(
    connection: sa.Connection,
    query: LookupQuery,
    since: datetime,
    clock: Clock,
    limit: int,
    accounts: tuple[str, ...] | None,
) -> Iterator[MessageRow]:
    filters = []
    if query.mobile is not None:
        filters.append(Filter(mobile=query.mobile, accounts=accounts))
    for text in query.spellings:
        filters += [Filter(task_id=text, accounts=accounts), Filter(reference=text, accounts=accounts)]
    for one in filters:
        yield from queries.list_messages(connection, Page(limit=_NEWEST_MAX, filter=one), clock)
    if query.last_digits is not None:
        column = messages.c
        moment = sa.func.coalesce(column.sent_at, column.recorded_at, column.reported_at, type_=column.sent_at.type)
        ids = (
            sa.select(column.id)
            .where(MOBILE_END == query.last_digits, moment >= since, *_of(accounts))  # noqa: SIM300
            .order_by(moment.desc())
            .limit(_NEWEST_MAX if query.masked or cipher_of(connection.dialect) else limit)
        )
        found = queries.get_messages(connection, list(connection.scalars(ids)), clock).values()
        # Encrypted numbers are matched by a token of their last digits, and two tokens may be equal.
        yield from (row for row in found if row.mobile.endswith(query.last_digits) and query.fits(row.mobile))


def _of(accounts: tuple[str, ...] | None) -> list[sa.ColumnElement[bool]]:
    return [] if accounts is None else [messages.c.account.in_(accounts)]
