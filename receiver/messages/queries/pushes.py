"""Queries of the journal: pushes as received, and their outcomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.core import Kind, Outcome, first_id_of
from receiver.db.message_status import Clock
from receiver.db.set_aside import ROW_FAULTS, read_row, read_rows
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages.journal import CLOCK_SLACK
from receiver.messages.queries.messages import (
    MESSAGES,
    as_message_row,
    as_receipt_row,
    as_reply_row,
    find_push_ids,
    paged,
    select_inbound_events,
)
from receiver.messages.queries.rows import Filter, Page, PushRow, TailRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


_ABOUT_MAX = 500  # receipts, and replies


def list_pushes(connection: sa.Connection, page: Page) -> list[PushRow]:
    """Return a page of the journal, newest first by id.

    By number or task id: the pushes that first brought their newest receipts and replies. No index of the journal has
    these, and what was pushed again is not searched for.
    """
    query = sa.select(pushes).where(*_push_conditions(page.filter))
    wanted = page.filter
    if wanted.task_id is not None or wanted.mobiles is not None:
        about = Filter(task_id=wanted.task_id, mobiles=wanted.mobiles, accounts=wanted.accounts)
        query = query.where(pushes.c.id.in_(find_push_ids(connection, about, most=_ABOUT_MAX)))
    return read_rows(connection, paged(query, pushes.c.id, page), pushes, as_push_row)


_REASONS_OF = 1000  # of the newest pushes that could not be parsed


def count_errors(connection: sa.Connection, accounts: tuple[str, ...] | None, *, most: int) -> list[tuple[str, int]]:
    """Return why the newest pushes that could not be parsed could not, the most frequent first, and how many each."""
    quarantined = _push_conditions(Filter(accounts=accounts, outcome=Outcome.QUARANTINED.value))
    newest = sa.select(pushes.c.error).where(*quarantined).order_by(pushes.c.id.desc()).limit(_REASONS_OF).subquery()
    count = sa.func.count()
    query = sa.select(newest.c.error, count).where(newest.c.error.isnot(None)).group_by(newest.c.error)
    rows = connection.execute(query.order_by(count.desc(), newest.c.error).limit(most))
    return [(error, number) for error, number in rows]


def iter_new_pushes(connection: sa.Connection, after: UUID | None, limit: int) -> list[PushRow]:
    """Return pushes with an id above `after`, oldest first; the newest ones where `after` is None."""
    query = sa.select(pushes).limit(limit)
    if after is None:
        return read_rows(connection, query.order_by(pushes.c.id.desc()), pushes, as_push_row)[::-1]
    return read_rows(connection, query.where(pushes.c.id > after).order_by(pushes.c.id), pushes, as_push_row)


_OVERLAP_MILLISECONDS = 5000


def read_back(newest: UUID) -> UUID:
    """Return the id from which a reader that has seen `newest` reads on, skipping what it has seen.

    A few seconds before: rows can commit in another order than their ids.
    """
    return UUID(int=max((newest.int >> 80) - _OVERLAP_MILLISECONDS, 0) << 80)


_TAIL = (
    *(pushes.c[name] for name in ("id", "account", "kind", "outcome", "error", "received_at")),
    *(pushes.c[name] for name in ("task_id", "mobile", "vendor_status", "event_at", "opt_out")),
)
_SENT_AT = (
    sa.select(messages.c.sent_at)
    .where(*(messages.c[name] == pushes.c[name] for name in ("task_id", "mobile", "account")))
    .correlate(pushes)
    .scalar_subquery()
)


def list_tail(
    connection: sa.Connection, *, limit: int, after: UUID | None, accounts: Sequence[str] | None
) -> list[TailRow]:
    """Return the newest pushes above the id `after`, newest first: neither query nor body.

    Of some accounts: only among the newest 2,000.
    """
    newest = sa.select(pushes.c.id).order_by(pushes.c.id.desc()).limit(limit if accounts is None else _TAIL_MAX)
    if after is not None:
        newest = newest.where(pushes.c.id > after)
    query = sa.select(*_TAIL, _SENT_AT.label("sent_at")).where(pushes.c.id.in_(newest.subquery().select()))
    query = query.where(*_push_conditions(Filter(accounts=None if accounts is None else tuple(accounts))))
    return read_rows(connection, query.order_by(pushes.c.id.desc()).limit(limit), pushes, lambda row: TailRow(*row))


_TAIL_MAX = 2_000


def find_push(connection: sa.Connection, push_id: UUID, accounts: tuple[str, ...] | None = None) -> PushRow | None:
    """Return one push; None: there is none in these accounts."""
    query = sa.select(pushes).where(pushes.c.id == push_id, *_push_conditions(Filter(accounts=accounts)))
    return read_row(connection, query, pushes, as_push_row)


def _push_conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.accounts is not None:
        conditions.append(pushes.c.account.in_(wanted.accounts))
    if wanted.outcome is not None:
        # As a literal, so that PostgreSQL sees that the partial index holds for it.
        conditions.append(pushes.c.outcome == sa.literal(wanted.outcome, literal_execute=True))
    if wanted.error is not None:
        conditions.append(pushes.c.error == wanted.error)
    return [*conditions, *pushes_within(wanted.received_from, wanted.received_to)]


def pushes_within(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of pushes of a time of receiving, before `until`."""
    conditions: list[sa.ColumnElement[bool]] = []
    # Ids begin with the time at which they are made, at the receiving: their index serves for that time as well.
    if since is not None:
        conditions.append(pushes.c.received_at >= since)
        conditions.append(pushes.c.id >= first_id_of(since - CLOCK_SLACK))
    if until is not None:
        conditions.append(pushes.c.received_at < until)
        conditions.append(pushes.c.id < first_id_of(until + CLOCK_SLACK))
    return conditions


def as_push_row(row: Any) -> PushRow:
    """Return a row of `PUSH_COLUMNS` as a value."""
    fields = {name: getattr(row, name) for name in PushRow.__slots__ if name != "flags"}
    if row.endpoint is not None:
        Kind(row.endpoint)  # else it is not one of our rows
    return PushRow(**fields, flags=row.flags or ())


PUSH_COLUMNS = tuple(pushes.c[name] for name in PushRow.__slots__)


def try_row(connection: sa.Connection, table_name: str, row_id: str) -> bool | None:
    """Return whether a row that was unreadable can be read now; None: it is gone."""
    no_clock = Clock(now=datetime.now(UTC), late_after=timedelta(0), no_receipt_after=timedelta(0))
    tries: Mapping[str, tuple[sa.Select[Any], sa.Table, Callable[[Any], object]]] = {
        "pushes": (sa.select(pushes), pushes, as_push_row),
        "messages": (MESSAGES, messages, lambda row: as_message_row(row, no_clock)),
        "receipts": (select_inbound_events(receipts), receipts, as_receipt_row),
        "replies": (select_inbound_events(replies), replies, as_reply_row),
    }
    if table_name not in tries:
        return False
    query, table, convert = tries[table_name]
    by_id: sa.ColumnElement[bool]
    if table is not pushes:
        by_id = table.c.id == int(row_id)
    elif connection.dialect.name == "sqlite":
        by_id = sa.type_coerce(table.c.id, sa.String) == row_id.replace("-", "")  # it may be no UUID
    else:
        by_id = table.c.id == UUID(row_id)
    try:
        row = connection.execute(query.where(by_id)).first()
        if row is not None:
            convert(row)
    except (*ROW_FAULTS, sa.exc.OperationalError):
        return False
    return None if row is None else True
