"""Queries of messages, receipts and replies: pages by keyset, one message with its timeline.

Every function takes an open connection and returns frozen rows; none counts a whole table.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from receiver.core import (
    DeliveryStatus,
    MessageState,
    MessageStatus,
    delivery_status,
    latency_seconds,
    shown_content,
    shown_texts,
)
from receiver.db.encryption import Mobile, cipher_of
from receiver.db.message_status import Clock, has_status, is_late, message_status, seen_both
from receiver.db.set_aside import read_row, read_rows, require_texts
from receiver.db.tables import (
    AGE_FROM,
    TASKLESS_WHERE,
    UNSTAMPED,
    masked_of_task_where,
    messages,
    receipts,
    replies,
)
from receiver.messages import search, stamps
from receiver.messages.queries.rows import Filter, MessageRow, Page, ReceiptRow, ReplyRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from receiver.db.encryption.ciphers import FieldCipher


T = TypeVar("T")


# --- Messages -----------------------------------------------------------------------------------------

_SHORT_SPAN = timedelta(days=2)


def _count_of(table: sa.Table) -> sa.ScalarSelect[int]:
    return (
        sa.select(sa.func.count())
        .select_from(table)
        .where(table.c.message_id == messages.c.id)
        .correlate(messages)
        .scalar_subquery()
    )


INBOUND_COUNTS = {"receipt_count": _count_of(receipts), "reply_count": _count_of(replies)}  # of a message, by field
MESSAGES = sa.select(
    *(column for column in messages.c if column.name != "updated_at"),
    stamps.SHOWN.label("updated_at"),
    *(count.label(name) for name, count in INBOUND_COUNTS.items()),
)


def list_messages(connection: sa.Connection, page: Page, clock: Clock) -> list[MessageRow]:
    """Return a page of messages, newest first by id; where changes are asked for, the oldest change first."""
    query: sa.Select[Any] = MESSAGES.where(*message_conditions(page.filter, clock))
    if page.filter.of_changes:
        query = _by_changes(query, page)
    else:
        query = paged(query, messages.c.id, page)
        query = _by_time(query, messages.c.id, page.filter.sent_from, page.filter.sent_to or clock.now)
    return read_rows(connection, query, messages, lambda row: as_message_row(row, clock))


def _by_changes(query: sa.Select[Any], page: Page) -> sa.Select[Any]:
    """Take the page in the order of the index: by ids, all that an import has changed were sorted for each page."""
    place = (messages.c.updated_at, messages.c.id)
    if page.before is not None:
        query = query.where(sa.tuple_(*place) > page.before)
    return query.order_by(*place).limit(page.limit)


def find_message(
    connection: sa.Connection, message_id: int, clock: Clock, accounts: tuple[str, ...] | None = None
) -> MessageRow | None:
    """Return one message; None: there is none in these accounts."""
    query = MESSAGES.where(messages.c.id == message_id, *message_conditions(Filter(accounts=accounts), clock))
    return read_row(connection, query, messages, lambda row: as_message_row(row, clock))


def get_messages(connection: sa.Connection, ids: Sequence[int], clock: Clock) -> Mapping[int, MessageRow]:
    """Return messages by id."""
    query = MESSAGES.where(messages.c.id.in_(ids))
    return {row.id: row for row in read_rows(connection, query, messages, lambda row: as_message_row(row, clock))}


def message_conditions(wanted: Filter, clock: Clock) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter on `messages`."""
    column = messages.c
    conditions = list(_values_of(wanted))
    if wanted.accounts is not None:
        conditions.append(column.account.in_(wanted.accounts))
    if wanted.status is not None:
        conditions.append(has_status(MessageStatus(wanted.status), clock))
    if wanted.late is not None:
        conditions.append(is_late(clock) if wanted.late else sa.not_(is_late(clock)))
    if wanted.sent_from is not None:
        conditions.append(sa.and_(wanted.sent_from <= AGE_FROM, column.recorded_at.isnot(None)))
    if wanted.sent_to is not None:
        conditions.append(sa.and_(wanted.sent_to > AGE_FROM, column.recorded_at.isnot(None)))
    if wanted.matched is not None:
        conditions.append(column.recorded_at.isnot(None) if wanted.matched else column.recorded_at.is_(None))
    if wanted.conflicting is not None:
        conditions.append(seen_both() if wanted.conflicting else sa.not_(seen_both()))
    return [*conditions, *_change_conditions(wanted)]


def _values_of(wanted: Filter) -> Iterator[sa.ColumnElement[bool]]:
    for name in ("mobile", "task_id", "template_id", "reference"):
        value = getattr(wanted, name)
        if value is not None:
            yield messages.c[name] == value
    if wanted.mobiles is not None:
        yield messages.c.mobile.in_(wanted.mobiles)


def _change_conditions(wanted: Filter) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions on when a message last changed. What has no stamp yet is left for the next reading."""
    if wanted.of_changes:
        yield messages.c.updated_at > UNSTAMPED
    if wanted.updated_from is not None:
        yield messages.c.updated_at >= wanted.updated_from
    if wanted.updated_to is not None:
        yield messages.c.updated_at < wanted.updated_to
    if wanted.stamped_upto is not None:
        yield messages.c.updated_at <= wanted.stamped_upto


def as_message_row(row: Any, clock: Clock) -> MessageRow:
    """Return a message as it is shown at that time."""
    require_texts(row.account, row.task_id, row.mobile, row.template_id, row.reference, row.error_message)
    state = MessageState(status=DeliveryStatus(row.status), reported_at=row.reported_at, seen=row.seen)
    age_from = row.sent_at or row.recorded_at
    status = message_status(state.status, row.send_state, age_from, clock)
    aged = age_from is not None and clock.now - age_from > clock.late_after
    return MessageRow(
        **{name: getattr(row, name) for name in _PLAIN_MESSAGE_FIELDS},
        counted_at=age_from,
        status=status,
        late=status is MessageStatus.PENDING and aged,
        latency_seconds=latency_seconds(row.sent_at, row.reported_at),
        matched=row.recorded_at is not None,
        conflicting=state.conflicting,
    )


_PLAIN_MESSAGE_FIELDS = (
    "id",
    "account",
    "task_id",
    "mobile",
    "template_id",
    "reference",
    "sent_at",
    "recorded_at",
    "reported_at",
    "error_message",
    "receipt_count",
    "reply_count",
    "verified_at",
    "updated_at",
)


# --- Receipts and replies -----------------------------------------------------------------------------


def select_inbound_events(table: sa.Table) -> sa.Select[Any]:
    """Return a query of receipts or replies with account, task id and number, joined from their message if need be."""
    own = table.c.masked_mobile != ""
    return sa.select(
        table,
        sa.case((own, table.c.account), else_=messages.c.account).label("of_account"),
        sa.case((own, table.c.task_id), else_=messages.c.task_id).label("of_task_id"),
        sa.type_coerce(sa.case((own, table.c.masked_mobile), else_=messages.c.mobile), Mobile).label("of_mobile"),
    ).select_from(table.outerjoin(messages, messages.c.id == table.c.message_id))


def _inbound_event_conditions(table: sa.Table, wanted: Filter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    # By way of the messages, which have the indexes, and of the masked rows, which have their own.
    mobiles = wanted.mobiles if wanted.mobile is None else (wanted.mobile,)
    if mobiles is not None or wanted.task_id is not None:
        of_messages, masked = list[sa.ColumnElement[bool]](), [masked_of_task_where(table)]
        if wanted.task_id is not None:
            of_messages.append(messages.c.task_id == wanted.task_id)
            masked.append(table.c.task_id == wanted.task_id)
        if mobiles is not None:
            of_messages.append(messages.c.mobile.in_(mobiles))
            masked.append(table.c.masked_mobile.in_(mobiles))
        found = [sa.select(table.c.id).where(*masked)]
        if table is replies and mobiles is not None and wanted.task_id is None:
            found.append(sa.select(table.c.id).where(TASKLESS_WHERE, table.c.masked_mobile.in_(mobiles)))
        by_message = sa.select(table.c.id).where(table.c.message_id.in_(sa.select(messages.c.id).where(*of_messages)))
        conditions.append(table.c.id.in_(by_message.union(*found)))
    conditions += in_accounts(table, wanted.accounts)
    if wanted.received_from is not None:
        conditions.append(table.c.received_at >= wanted.received_from)
    if wanted.received_to is not None:
        conditions.append(table.c.received_at < wanted.received_to)
    if wanted.matched is not None:
        recorded = messages.c.recorded_at.isnot(None)  # null, too, where there is no message
        conditions.append(recorded if wanted.matched else sa.not_(recorded))
    return conditions


def find_push_ids(connection: sa.Connection, wanted: Filter, *, most: int) -> list[UUID]:
    """Return the pushes that first brought the receipts and replies of a filter, at most so many newest of each."""
    found = list[UUID]()
    for table in (receipts, replies):
        query = sa.select(table.c.push_id).select_from(table.outerjoin(messages, messages.c.id == table.c.message_id))
        query = query.where(*_inbound_event_conditions(table, wanted)).order_by(table.c.id.desc()).limit(most)
        found += connection.scalars(query)
    return found


def in_accounts(table: sa.Table, accounts: tuple[str, ...] | None) -> list[sa.ColumnElement[bool]]:
    """Return `select_inbound_events(table)` narrowed to accounts; None: all."""
    if accounts is None:
        return []
    return [sa.case((table.c.masked_mobile != "", table.c.account), else_=messages.c.account).in_(accounts)]


_VENDOR_STATUS_OF = {"delivered": "1", "failed": "0"}


def list_receipts(connection: sa.Connection, page: Page) -> list[ReceiptRow]:
    """Return a page of receipts, newest first by id."""
    return _list_inbound_events(connection, receipts, receipt_conditions(page.filter), page, as_receipt_row)


def receipt_conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter on `select_inbound_events(receipts)`."""
    conditions = _inbound_event_conditions(receipts, wanted)
    if wanted.status is not None:
        known = _VENDOR_STATUS_OF.get(wanted.status)
        vendor_status = receipts.c.vendor_status
        is_known = vendor_status == known if known else vendor_status.not_in(list(_VENDOR_STATUS_OF.values()))
        conditions.append(is_known)
    return conditions


def list_replies(connection: sa.Connection, page: Page) -> list[ReplyRow]:
    """Return a page of replies, newest first by id."""
    cipher = cipher_of(connection.dialect)
    conditions = reply_conditions(page.filter, cipher)
    text = page.filter.q
    found: list[ReplyRow] = []
    while True:
        rows = _list_inbound_events(connection, replies, conditions, page, as_reply_row)
        if cipher is None or text is None:
            return rows
        # The database knows which may contain it.
        found += [row for row in rows if has_text(row.content, text)]
        if len(found) >= page.limit or len(rows) < page.limit:
            return found[: page.limit]
        page = replace(page, before=rows[-1].id)


def has_text(content: str, text: str) -> bool:
    """Return whether a decrypted reply contains a text, in any case, as `search.contains` does in the database."""
    return text.lower() in content.lower()


def reply_conditions(wanted: Filter, cipher: FieldCipher | None = None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter on `select_inbound_events(replies)`.

    If the database is encrypted, a text filter also finds some replies that lack the text.
    """
    conditions = _inbound_event_conditions(replies, wanted)
    if wanted.q is not None:
        conditions.append(search.contains(wanted.q) if cipher is None else search.may_contain(cipher.grams(wanted.q)))
    for flag in (replies.c.opt_out, replies.c.opt_out_review):
        asked = getattr(wanted, flag.name)
        if asked is not None:
            conditions.append(flag if asked else sa.not_(flag))
    return conditions


def _list_inbound_events(
    connection: sa.Connection,
    table: sa.Table,
    conditions: list[sa.ColumnElement[bool]],
    page: Page,
    convert: Callable[[Any], T],
) -> list[T]:
    wanted = page.filter

    def without(bad: Sequence[int]) -> sa.Select[Any]:
        ids = sa.select(table.c.id).where(*conditions)
        if bad:
            ids = ids.where(table.c.id.not_in(bad))
        if wanted.accounts is not None or wanted.matched is not None:
            ids = ids.select_from(table.outerjoin(messages, messages.c.id == table.c.message_id))
        ids = _by_time(
            paged(ids, table.c.id, page), table.c.id, wanted.received_from, wanted.received_to or datetime.now(UTC)
        )
        # First the page, then the messages of its rows: else every matching row is joined before sorting.
        return select_inbound_events(table).where(table.c.id.in_(ids)).order_by(table.c.id.desc())

    return read_rows(connection, without(()), table, convert, without=without)


def find_receipt(
    connection: sa.Connection, receipt_id: int, accounts: tuple[str, ...] | None = None
) -> ReceiptRow | None:
    """Return one receipt; None: there is none in these accounts."""
    return read_row(connection, _select_one(receipts, receipt_id, accounts), receipts, as_receipt_row)


def find_reply(connection: sa.Connection, reply_id: int, accounts: tuple[str, ...] | None = None) -> ReplyRow | None:
    """Return one reply; None: there is none in these accounts."""
    return read_row(connection, _select_one(replies, reply_id, accounts), replies, as_reply_row)


def _select_one(table: sa.Table, row_id: int, accounts: tuple[str, ...] | None) -> sa.Select[Any]:
    return select_inbound_events(table).where(table.c.id == row_id, *in_accounts(table, accounts))


def list_inbound_events(
    connection: sa.Connection, *message_ids: int
) -> tuple[Sequence[ReceiptRow], Sequence[ReplyRow]]:
    """Return every receipt and reply of some messages, oldest first."""

    def of(table: sa.Table) -> sa.Select[Any]:
        return select_inbound_events(table).where(table.c.message_id.in_(message_ids)).order_by(table.c.id)

    return (
        read_rows(connection, of(receipts), receipts, as_receipt_row),
        read_rows(connection, of(replies), replies, as_reply_row),
    )


_SHARED_FIELDS = ("id", "message_id", "received_at", "last_seen_at", "copies", "push_id")


def _shared(row: Any) -> dict[str, Any]:
    require_texts(row.of_account, row.of_task_id, row.of_mobile)
    if row.copies.__class__ is not int:
        raise TypeError("copies are counted")
    return {
        **{name: getattr(row, name) for name in _SHARED_FIELDS},
        "account": row.of_account,
        "task_id": row.of_task_id,
        "mobile": row.of_mobile,
        "extra": shown_texts(row.extra),
    }


def as_receipt_row(row: Any) -> ReceiptRow:
    """Return a row of `select_inbound_events(receipts)` as a value."""
    require_texts(row.vendor_status)
    return ReceiptRow(
        **_shared(row),
        vendor_status=row.vendor_status,
        status=delivery_status(row.vendor_status).name.lower(),
        reported_at=row.reported_at,
    )


def content_of(row: Any) -> str:
    """Return the content of a row of `replies`, as shown."""
    return row.content if row.content_sealed is None else shown_content(row.content_sealed.decode())


def as_reply_row(row: Any) -> ReplyRow:
    """Return a row of `select_inbound_events(replies)` as a value."""
    require_texts(row.content)
    return ReplyRow(
        **_shared(row),
        content=content_of(row),
        opt_out=row.opt_out,
        opt_out_review=row.opt_out_review,
        replied_at=row.replied_at,
    )


# --- Pages --------------------------------------------------------------------------------------------


def paged(query: sa.Select[Any], id_column: sa.Column[Any], page: Page) -> sa.Select[Any]:
    """Return the query of one page, newest first."""
    if page.before is not None:
        query = query.where(id_column < page.before)
    return query.order_by(id_column.desc()).limit(page.limit)


def _by_time(
    query: sa.Select[Any], id_column: sa.Column[Any], since: datetime | None, until: datetime
) -> sa.Select[Any]:
    """Select the rows of a short period by the index of times, and then sort them.

    In the order of ids, a page of rare or old rows would read all of them.
    """
    if not is_short(since, until):
        return query
    return query.order_by(None).order_by((id_column + 0).desc())


def is_short(since: datetime | None, until: datetime) -> bool:
    """Return whether the rows of a period are so few that its index finds them best."""
    return since is not None and until - since <= _SHORT_SPAN
