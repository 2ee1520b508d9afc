"""Messages by what people say of them: a number, its last digits, a task id, a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.encryption import cipher_of
from receiver.db.tables import MOBILE_END, messages
from receiver.messages import queries
from receiver.messages.queries import Clock, Filter, MessageRow, Page
from receiver.support.lookup import LookupQuery, has_moment, moment_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


_LOOKED_AT = 200  # of the newest messages of one number, task or reference


def find_messages(
    connection: sa.Connection,
    wanted: LookupQuery,
    *,
    since: datetime,
    clock: Clock,
    limit: int,
    accounts: tuple[str, ...] | None = None,
) -> list[MessageRow]:
    """Return the newest messages of these accounts that may be meant, since that time, newest first: at most `limit`.

    Without those that only a reply speaks of: nobody knows of what time they are.
    """
    found = {row.id: row for row in _each(connection, wanted, since, clock, limit, accounts) if has_moment(row)}
    fitting = [row for row in found.values() if moment_of(row) >= since and wanted.fits(row.mobile)]
    return sorted(fitting, key=lambda row: (moment_of(row), row.id), reverse=True)[:limit]


def _each(
    connection: sa.Connection,
    wanted: LookupQuery,
    since: datetime,
    clock: Clock,
    limit: int,
    accounts: tuple[str, ...] | None,
) -> Iterator[MessageRow]:
    filters = []
    if wanted.mobile is not None:
        filters.append(Filter(mobile=wanted.mobile, accounts=accounts))
    if wanted.text is not None:
        filters += [
            Filter(task_id=wanted.text, accounts=accounts),
            Filter(reference=wanted.text, accounts=accounts),
        ]
    for one in filters:
        yield from queries.list_messages(connection, Page(limit=_LOOKED_AT, filter=one), clock)
    if wanted.last_digits is not None:
        column = messages.c
        moment = sa.func.coalesce(column.sent_at, column.recorded_at, column.reported_at, type_=column.sent_at.type)
        ids = (
            sa.select(column.id)
            .where(MOBILE_END == wanted.last_digits, moment >= since, *_of(accounts))  # noqa: SIM300
            .order_by(moment.desc())
            .limit(_LOOKED_AT if wanted.masked or cipher_of(connection.dialect) else limit)
        )
        found = queries.get_messages(connection, list(connection.scalars(ids)), clock).values()
        # The ends of two tokens may be alike.
        yield from (row for row in found if row.mobile.endswith(wanted.last_digits))


def _of(accounts: tuple[str, ...] | None) -> list[sa.ColumnElement[bool]]:
    return [] if accounts is None else [messages.c.account.in_(accounts)]
