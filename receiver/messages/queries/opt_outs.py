"""The list of numbers that have opted out, each once: by the newest reply that says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db.encryption import Mobile
from receiver.db.set_aside import ROW_FAULTS, read_rows, require_texts
from receiver.db.tables import TASKLESS_WHERE, messages, replies
from receiver.messages.queries.messages import content_of, in_accounts, paged
from receiver.messages.queries.rows import Filter, OptOutRow, Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PART_NUMBERS = 500


# Of a masked number that fits a recorded message, the message has the whole one.
_NUMBER = sa.type_coerce(
    sa.case((messages.c.id.isnot(None), messages.c.mobile), else_=replies.c.masked_mobile), Mobile
).label("number")
_ACCOUNT = sa.case((messages.c.id.isnot(None), messages.c.account), else_=replies.c.account).label("of_account")
_JOINED = replies.outerjoin(messages, messages.c.id == replies.c.message_id)


def list_opt_outs(connection: sa.Connection, page: Page) -> list[OptOutRow]:
    """Return a page of numbers that have opted out, the newest first by the id of the reply that says so.

    With the filter `opt_out_review`, those that may have, and have not for certain. Times and accounts are those of the
    replies that are looked at. A masked number that fits no message stands once for each reply: it may be anybody's.
    """
    wanted = page.filter
    conditions = [_flag(replies, wanted), *in_accounts(replies, wanted.accounts), sa.not_(_said_again(wanted))]
    if wanted.received_from is not None:
        conditions.append(replies.c.received_at >= wanted.received_from)
    if wanted.received_to is not None:
        conditions.append(replies.c.received_at < wanted.received_to)
    query = sa.select(replies, messages.c.template_id, _NUMBER, _ACCOUNT).select_from(_JOINED).where(*conditions)
    rows = read_rows(connection, paged(query, replies.c.id, page), replies, _as_row)
    spans = _find_spans(connection, [row.mobile for row in rows], wanted)
    return [_spanned(row, spans) for row in rows]


def iter_opt_outs(connection: sa.Connection, wanted: Filter) -> Iterator[OptOutRow]:
    """Yield every number that has opted out, in the order of the list; on SQLite in a transaction for each part."""
    page = Page(limit=_PART_NUMBERS, filter=wanted)
    while rows := list_opt_outs(connection, page):
        if connection.dialect.name == "sqlite":
            connection.rollback()
        yield from rows
        page = replace(page, before=rows[-1].id)


def _flag(table: Any, wanted: Filter) -> sa.ColumnElement[bool]:
    flag: sa.ColumnElement[bool] = table.c.opt_out_review if wanted.opt_out_review else table.c.opt_out
    return flag


def _said_again(wanted: Filter) -> sa.ColumnElement[bool]:
    """Return whether a newer reply of the same number says the same, or any says for certain what this one may say."""
    other, of_other = replies.alias(), messages.alias()
    again = sa.and_(other.c.id > replies.c.id, _flag(other, wanted))
    said = sa.or_(again, other.c.opt_out) if wanted.opt_out_review else again
    by_message = sa.and_(other.c.message_id == of_other.c.id, of_other.c.mobile == _NUMBER.element)
    by_number = sa.and_(
        other.c.masked_mobile == _NUMBER.element, other.c.masked_mobile != "", other.c.task_id.is_(None)
    )
    if wanted.accounts is not None:
        by_message = sa.and_(by_message, of_other.c.account.in_(wanted.accounts))
        by_number = sa.and_(by_number, other.c.account.in_(wanted.accounts))
    return sa.or_(
        *(
            sa.exists().select_from(*tables).where(condition, said).correlate(replies, messages)
            for tables, condition in (((other, of_other), by_message), ((other,), by_number))
        )
    )


def _as_row(row: Any) -> OptOutRow:
    require_texts(row.content, row.number, row.of_account, row.template_id)
    return OptOutRow(
        id=row.id,
        message_id=row.message_id,
        account=row.of_account,
        mobile=row.number,
        first_at=row.replied_at,
        last_at=row.replied_at,
        times=1,
        content=content_of(row),
        template_id=row.template_id,
    )


_Span = tuple[datetime, datetime, int]


def _find_spans(connection: sa.Connection, numbers: Sequence[str], wanted: Filter) -> Mapping[str, _Span]:
    """Return by number when it was said first and last, and how many replies say so."""
    time, flag = replies.c.replied_at, _flag(replies, wanted)
    figures = (sa.func.min(time), sa.func.max(time), sa.func.count())
    number = replies.c.masked_mobile
    of_messages = (
        sa.select(messages.c.mobile, *figures)
        .select_from(_JOINED)
        .where(messages.c.mobile.in_(numbers), flag, *in_accounts(replies, wanted.accounts))
        .group_by(messages.c.mobile)
    )
    own = [] if wanted.accounts is None else [replies.c.account.in_(wanted.accounts)]
    of_numbers = sa.select(number, *figures).where(TASKLESS_WHERE, number.in_(numbers), flag, *own).group_by(number)
    found: dict[str, _Span] = {}
    try:
        for query in (of_messages, of_numbers):
            for mobile, first, last, times in connection.execute(query):
                before = found.get(mobile, (first, last, 0))
                found[mobile] = (min(first, before[0]), max(last, before[1]), times + before[2])
    except ROW_FAULTS:  # a damaged reply of one of them: what the newest ones say is shown
        return {}
    return found


def _spanned(row: OptOutRow, spans: Mapping[str, _Span]) -> OptOutRow:
    first, last, times = spans.get(row.mobile, (row.first_at, row.last_at, row.times))
    return replace(row, first_at=first, last_at=last, times=times)
