"""Fan-out: turns queued changes (`forward_queue`) and due timers into deliveries.

One node at a time, in queue order, so that delivery ids follow the order of a message's changes. PostgreSQL does it in
its own statements, since computing in the serving process would delay pushes. SQLite has no `LATERAL` and only one
process; a test keeps both implementations equal.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from hashlib import sha256
from json import dumps
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from receiver.core import DeliveryStatus, MessageStatus, Receipt, fold, new_id
from receiver.db.engine import insert
from receiver.db.set_aside import ROW_FAULTS, note_left, read_rows
from receiver.db.sql import delivery_status
from receiver.db.tables import deliveries, forward_queue, messages, pushes, receipts, replies, targets, timers
from receiver.messages import queries
from receiver.messages.outbox import Change
from receiver.webhooks.deliveries import PUSH_EVENT, now_of
from receiver.webhooks.endpoints import Endpoint, EventType, PayloadFormat, as_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from receiver.messages.queries import Clock, MessageRow

Row = dict[str, Any]

_FAN_OUT_LOCK = 0x72637666  # "rcvf": apart from other programs' advisory locks
LEFT_FOR = timedelta(hours=1)
_NOT_LEFT = forward_queue.c.left_at.is_(None)
_HISTORY = timedelta(days=1)  # older sends, recorded later, set no timers


def fan_out(connection: sa.Connection, *, limit: int, no_receipt_after: timedelta) -> int:
    """Turn the oldest queued changes into deliveries and return their number. 0: none, or another node does it."""
    if connection.dialect.name == "postgresql":
        return _fan_out_postgresql(connection, limit, no_receipt_after)
    oldest = sa.select(forward_queue.c.id).where(_NOT_LEFT).order_by(forward_queue.c.id).limit(limit)
    taken = connection.execute(
        sa.delete(forward_queue).where(forward_queue.c.id.in_(oldest)).returning(*forward_queue.c)
    ).all()
    found = _lock_endpoints(connection) if taken else []
    if found:
        builder = _DeliveryBuilder(connection, sorted(taken, key=lambda row: row.id), now_of(connection))
        if rows := [row for change in builder.changes for row in builder.rows(change, found)]:
            connection.execute(sa.insert(deliveries), rows)
        set_timers(connection, found, [row.message_id for row in taken if row.kind == Change.SENT], no_receipt_after)
    return len(taken)


def fan_out_one(connection: sa.Connection, *, no_receipt_after: timedelta) -> bool:
    """Turn the oldest queued change into deliveries; if that fails, postpone it. Return whether it was postponed."""
    if connection.dialect.name == "postgresql" and not connection.scalar(_TAKE_TURN):
        return False
    try:
        with connection.begin_nested():
            fan_out(connection, limit=1, no_receipt_after=no_receipt_after)
    except (*ROW_FAULTS, sa.exc.IntegrityError) as error:
        oldest = sa.select(sa.func.min(forward_queue.c.id)).where(_NOT_LEFT).scalar_subquery()
        statement = sa.update(forward_queue).where(forward_queue.c.id == oldest).values(left_at=now_of(connection))
        left = connection.execute(statement.returning(forward_queue.c.message_id, forward_queue.c.push_id)).one()
        note_left(left.message_id, left.push_id, error)
        return True
    return False


def pop_timer(connection: sa.Connection, clock: Clock) -> bool:
    """Turn the first due timer into deliveries; if that fails, postpone it by an hour. Return whether it failed."""
    first = connection.execute(_due_timers(now_of(connection), limit=1)).one_or_none()  # locked
    if first is None:
        return False
    try:
        with connection.begin_nested():
            pop_timers(connection, clock, limit=1)
    except (*ROW_FAULTS, sa.exc.IntegrityError) as error:
        later = now_of(connection) + LEFT_FOR
        connection.execute(sa.update(timers).where(timers.c.id == first.id).values(due_at=later))
        note_left(first.message_id, None, error)
        return True
    return False


def retry_left(connection: sa.Connection) -> None:
    """Retry the changes postponed for an hour: another version may be able to process them."""
    long_ago = now_of(connection) - LEFT_FOR
    connection.execute(sa.update(forward_queue).where(forward_queue.c.left_at < long_ago).values(left_at=None))


def lock_endpoint(connection: sa.Connection, target_id: int) -> Endpoint | None:
    """Return an endpoint as it is now, locked against a removal; None: it is gone."""
    return next(iter(_lock_endpoints(connection, targets.c.id == target_id)), None)


def make_again(
    connection: sa.Connection, target: Endpoint, changes: Sequence[Any], accounts: Mapping[UUID, str]
) -> list[Row]:
    """Return the rows of `deliveries` that changes of the past make for an endpoint.

    `accounts`: those of pushes, which may be stored no more.
    """
    builder = _DeliveryBuilder(connection, changes, now_of(connection), accounts)
    return [row for change in changes for row in builder.rows(change, [target])]


def _lock_endpoints(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Endpoint]:
    """Return the endpoints, locked: a removal must not run before their deliveries are inserted."""
    query = sa.select(targets).where(*where).order_by(targets.c.id).with_for_update(read=True, key_share=True)
    return read_rows(connection, query, targets, as_endpoint)


def count_queue(connection: sa.Connection) -> int:
    """Return the length of the queue, estimated from its first and last id, since it is processed in order."""
    ends = sa.func.max(forward_queue.c.id) - sa.func.min(forward_queue.c.id) + 1
    return connection.scalar(sa.select(ends).where(_NOT_LEFT)) or 0


class _DeliveryBuilder:
    """Reads the rows of several changes at once and builds the deliveries of each."""

    def __init__(
        self,
        connection: sa.Connection,
        changes: Sequence[Any],
        now: datetime,
        accounts: Mapping[UUID, str] | None = None,
    ) -> None:
        self.changes = changes
        self._now = now
        push_ids = [change.push_id for change in changes if change.push_id is not None]
        query = sa.select(pushes.c.id, pushes.c.account).where(pushes.c.id.in_(push_ids))
        found = [tuple(row) for row in connection.execute(query)] if push_ids else []
        self._push_accounts: Mapping[UUID, str] = {**(accounts or {}), **dict(found)}
        message_ids = {change.message_id for change in changes if change.message_id is not None}
        about = [change.message_id for change in changes if change.push_id is None]
        query = sa.select(messages).where(messages.c.id.in_(about))
        self._messages = {row.id: row for row in connection.execute(query)} if about else {}
        self._receipts = _find(connection, receipts, message_ids, [change.receipt_id for change in changes])
        self._replies = _find(connection, replies, message_ids, [change.reply_id for change in changes], push_ids)
        # The receipt of a plain push is the one of its message with this push id.
        self._receipt_of = {(row.message_id, row.push_id): row for row in self._receipts.values()}
        self._reply_of = {(row.message_id, row.push_id): row for row in self._replies.values()}
        self._full: dict[int, list[Any]] = defaultdict(list)
        for row in sorted(self._receipts.values(), key=lambda row: row.id):
            if not row.masked_mobile:  # masked receipts have their own changes
                self._full[row.message_id].append(row)

    def rows(self, change: Any, found: Sequence[Endpoint]) -> Iterable[Row]:
        if change.kind == Change.SENT:
            return
        if change.kind == Change.STATE:
            message = self._messages.get(change.message_id)
            if message is not None:
                yield from self._each(
                    found, message.account, EventType.STATUS_CHANGED, message.id, message_id=message.id
                )
            return
        account = self._push_accounts.get(change.push_id)
        if account is None:
            return  # the push is no longer stored
        key = (change.message_id, change.push_id)
        receipt = self._receipts.get(change.receipt_id) or self._receipt_of.get(key)
        reply = self._replies.get(change.reply_id) or self._reply_of.get(key)
        first = receipt or reply
        order_key = first.message_id if first is not None else change.message_id
        if change.kind == Change.PUSH:
            yield from self._each(found, account, PUSH_EVENT, order_key, push_id=change.push_id)
        if receipt is not None:
            about = {"push_id": change.push_id, "receipt_id": receipt.id, "origin": origin_of(receipt)}
            yield from self._each(found, account, EventType.RECEIPT_RECEIVED, order_key, **about)
            if self._changes_status(receipt):
                yield from self._each(found, account, EventType.STATUS_CHANGED, order_key, **about)
        if reply is not None:
            about = {"push_id": change.push_id, "reply_id": reply.id, "origin": origin_of(reply)}
            yield from self._each(found, account, EventType.REPLY_RECEIVED, order_key, **about)

    def _changes_status(self, receipt: Any) -> bool:
        if receipt.masked_mobile or receipt.message_id is None:
            return False
        so_far = [row for row in self._full[receipt.message_id] if row.id < receipt.id]
        return fold(map(_as_receipt, so_far)).status is not fold(map(_as_receipt, [*so_far, receipt])).status

    def _each(
        self, found: Sequence[Endpoint], account: str, event: str, order_key: int | None, **about: Any
    ) -> Iterable[Row]:
        for target in found:
            subscribed = event in target.events or (event == PUSH_EVENT and target.format is PayloadFormat.RAW)
            if subscribed and target.covers(account):
                yield new_delivery(target.id, event, order_key, self._now, **about)


def _find(
    connection: sa.Connection,
    table: sa.Table,
    message_ids: Iterable[int],
    ids: Iterable[int | None],
    push_ids: Sequence[UUID] | None = None,
) -> Mapping[int, Any]:
    names = ["id", "message_id", "push_id", "masked_mobile"]
    names += ["vendor_status", "reported_at"] if table is receipts else []
    query = sa.select(*(table.c[name] for name in names))
    found: dict[int, Any] = {}
    if of_messages := list(message_ids):
        condition = [table.c.message_id.in_(of_messages)]
        if push_ids is not None:
            condition.append(table.c.push_id.in_(push_ids))
        found |= {row.id: row for row in connection.execute(query.where(*condition))}
    if known := [row_id for row_id in ids if row_id is not None and row_id not in found]:
        found |= {row.id: row for row in connection.execute(query.where(table.c.id.in_(known)))}
    return found


def _as_receipt(row: Any) -> Receipt:
    return Receipt(mobile="", task_id="", vendor_status=row.vendor_status, reported_at=row.reported_at)


def new_delivery(
    target_id: int, event: str, order_key: int | None, now: datetime, *, origin: str | None = None, **about: Any
) -> Row:
    """Return a row of `deliveries`. `origin`: of `event_id_of`; None: an event that is never made again."""
    nothing = dict.fromkeys(("push_id", "receipt_id", "reply_id", "message_id"))
    event_id = new_id() if origin is None else event_id_of(event, origin)
    row = {"target_id": target_id, "event_id": event_id, "event": str(event), "order_key": order_key}
    return row | nothing | about | {"created_at": now, "next_at": now}


def event_id_of(event: str, origin: str) -> UUID:
    """Return the id of an event, which is the same whenever it is made.

    `origin`: the id of a row, and what no other database has beside it.
    """
    return UUID(bytes=sha256(f"{event} {origin}".encode()).digest()[:16])


def origin_of(row: Any) -> str:
    """Return the origin of the events of a receipt or reply."""
    return f"{row.push_id} {row.id}"


def event_id_sql(event: str, first_push_id: str, row_id: str) -> str:
    """Write `event_id_of` for PostgreSQL, of a receipt or reply."""
    text = f"concat({event}, ' ', {first_push_id}, ' ', {row_id})"
    return f"CAST(encode(substr(sha256(convert_to({text}, 'UTF8')), 1, 16), 'hex') AS uuid)"


def set_timers(
    connection: sa.Connection, found: Sequence[Endpoint], sent: Iterable[int], no_receipt_after: timedelta
) -> None:
    """Set the timers that endpoints need for sends."""
    columns = (messages.c.id, messages.c.account, messages.c.sent_at, messages.c.recorded_at)
    query = sa.select(*columns).where(messages.c.id.in_(set(sent))).order_by(messages.c.id)
    rows = [
        {"target_id": target.id, "message_id": message.id, "event": event.value, "due_at": sent_at + wait}
        for message in (connection.execute(query) if sent else ())
        if message.recorded_at is not None
        and message.recorded_at - (sent_at := message.sent_at or message.recorded_at) <= _HISTORY
        for target in found
        if target.covers(message.account)
        for event, wait in waits(target, no_receipt_after).items()
        if event in target.events
    ]
    if rows:
        connection.execute(insert(connection.dialect.name, timers).on_conflict_do_nothing(), rows)


def waits(target: Endpoint, no_receipt_after: timedelta) -> dict[EventType, timedelta]:
    """Return how long after a send each event of time is due."""
    waits = {EventType.NO_RECEIPT: no_receipt_after}
    if target.not_delivered_after_seconds is not None:
        waits[EventType.NOT_DELIVERED] = timedelta(seconds=target.not_delivered_after_seconds)
    return waits


def pop_timers(connection: sa.Connection, clock: Clock, *, limit: int) -> int:
    """Turn due timers whose condition still holds into deliveries; return the number of timers."""
    now = now_of(connection)
    due = connection.execute(_due_timers(now, limit=limit)).all()
    if not due:
        return 0
    found = queries.get_messages(connection, sorted({row.message_id for row in due}), clock)
    wanted = {target.id: target.events for target in _lock_endpoints(connection)}
    rows = [
        # No order key: it must not wait for other events of the message.
        new_delivery(
            row.target_id,
            row.event,
            None,
            now,
            origin=f"{found[row.message_id].recorded_at} {row.message_id}",
            message_id=row.message_id,
        )
        for row in due
        if row.event in wanted.get(row.target_id, ())  # it may have changed since
        and row.message_id in found
        and _holds(EventType(row.event), found[row.message_id])
    ]
    if rows:
        connection.execute(sa.insert(deliveries), rows)
    connection.execute(sa.delete(timers).where(timers.c.id.in_([row.id for row in due])))
    return len(due)


def _due_timers(now: datetime, *, limit: int) -> sa.Select[Any]:
    query = sa.select(timers).where(timers.c.due_at <= now).order_by(timers.c.due_at, timers.c.id).limit(limit)
    return query.with_for_update(skip_locked=True)


def _holds(event: EventType, message: MessageRow) -> bool:
    if event is EventType.NO_RECEIPT:
        # By state, not by age: this node's clock may be behind.
        return message.status in (MessageStatus.NO_RECEIPT, MessageStatus.PENDING)
    return message.status is not MessageStatus.DELIVERED


# --- PostgreSQL ---------------------------------------------------------------------------------------


def _fan_out_postgresql(connection: sa.Connection, limit: int, no_receipt_after: timedelta) -> int:
    if not connection.scalar(_TAKE_TURN):
        return 0
    count, taken, sent = connection.execute(_TAKE, {"limit": limit}).one()
    found = _lock_endpoints(connection) if count else []
    if found:
        subscribers = [
            {
                "target_id": target.id,
                "accounts": target.accounts,
                "events": [*target.events, *([PUSH_EVENT] if target.format is PayloadFormat.RAW else [])],
            }
            for target in found
        ]
        # A separate statement, so that it sees messages merged meanwhile.
        connection.execute(_MAKE, {"taken": taken, "subscribers": dumps(subscribers)})
        set_timers(connection, found, sent, no_receipt_after)
    return int(count)


_TAKE_TURN = sa.select(sa.func.pg_try_advisory_xact_lock(_FAN_OUT_LOCK))
_TAKE = sa.text(
    """
    WITH taken AS (
        DELETE FROM forward_queue WHERE id IN (
            SELECT id FROM forward_queue WHERE left_at IS NULL ORDER BY id LIMIT :limit
        ) RETURNING *
    )
    SELECT count(*), CAST(json_agg(taken) AS text),
           coalesce(array_agg(message_id) FILTER (WHERE kind = 'sent'), '{}') FROM taken
    """
)
# Same as `_DeliveryBuilder.rows`. LIMIT makes lookups by row: a join plan chosen while the tables are small would scan
# them completely once they are large.
_MAKE = sa.text(
    f"""
    WITH subscriber AS (
        SELECT * FROM json_to_recordset(CAST(:subscribers AS json)) AS row
            (target_id bigint, accounts jsonb, events jsonb)
    ), taken AS (
        SELECT * FROM json_to_recordset(CAST(:taken AS json)) AS row
            (id bigint, kind text, push_id uuid, message_id bigint, receipt_id bigint, reply_id bigint)
    ), change AS (
        SELECT taken.id, taken.kind, taken.push_id, stated.id AS stated_id,
               coalesce((SELECT account FROM pushes WHERE id = taken.push_id), stated.account) AS account,
               receipt.id AS receipt_id, reply.id AS reply_id,
               coalesce(receipt.push_id, reply.push_id) AS first_push_id,
               CASE WHEN receipt.id IS NOT NULL THEN receipt.message_id
                    WHEN reply.id IS NOT NULL THEN reply.message_id ELSE taken.message_id END AS order_key,
               receipt.masked_mobile = '' AND receipt.rank <> coalesce(before.rank, {DeliveryStatus.PENDING:d})
                   AND (before.rank IS NULL OR (receipt.reported_at, receipt.rank) > (before.reported_at, before.rank))
                   AS changes_status
        FROM taken
        LEFT JOIN LATERAL (
            SELECT id, account FROM messages WHERE taken.kind = 'state' AND id = taken.message_id LIMIT 1
        ) stated ON true
        LEFT JOIN LATERAL (
            SELECT id, push_id, message_id, masked_mobile, reported_at, {{rank}} AS rank FROM receipts
            WHERE id = coalesce((SELECT id FROM receipts WHERE id = taken.receipt_id),
                                (SELECT max(id) FROM receipts
                                 WHERE message_id = taken.message_id AND receipts.push_id = taken.push_id)) LIMIT 1
        ) receipt ON true
        LEFT JOIN LATERAL (
            SELECT reported_at, {{rank}} AS rank FROM receipts
            WHERE message_id = receipt.message_id AND id < receipt.id AND masked_mobile = ''
            ORDER BY reported_at DESC, rank DESC LIMIT 1
        ) before ON true
        LEFT JOIN LATERAL (
            SELECT id, push_id, message_id FROM replies
            WHERE id = coalesce((SELECT id FROM replies WHERE id = taken.reply_id),
                                (SELECT max(id) FROM replies
                                 WHERE message_id = taken.message_id AND replies.push_id = taken.push_id)) LIMIT 1
        ) reply ON true
    )
    INSERT INTO deliveries
        (target_id, event_id, event, order_key, push_id, receipt_id, reply_id, message_id, created_at, next_at)
    SELECT target_id, CASE WHEN coalesce(event.receipt_id, event.reply_id) IS NULL THEN gen_random_uuid()
               ELSE {event_id_sql("event", "first_push_id", "coalesce(event.receipt_id, event.reply_id)")} END,
           event, order_key, push_id, event.receipt_id, event.reply_id, event.message_id,
           clock_timestamp(), clock_timestamp()
    FROM change CROSS JOIN LATERAL (VALUES
        (1, '{PUSH_EVENT}', NULL::bigint, NULL::bigint, NULL::bigint, kind = 'push'),
        (2, '{EventType.RECEIPT_RECEIVED}', change.receipt_id, NULL, NULL, change.receipt_id IS NOT NULL),
        (3, '{EventType.STATUS_CHANGED}', change.receipt_id, NULL, NULL, changes_status),
        (4, '{EventType.REPLY_RECEIVED}', NULL, change.reply_id, NULL, change.reply_id IS NOT NULL),
        (5, '{EventType.STATUS_CHANGED}', NULL, NULL, stated_id, stated_id IS NOT NULL)
    ) AS event (place, event, receipt_id, reply_id, message_id, happened)
    JOIN subscriber ON events ? event AND (accounts IS NULL OR accounts ? account)
    WHERE happened AND kind <> 'sent' AND account IS NOT NULL
    ORDER BY change.id, place, target_id
    """.replace("{rank}", delivery_status("vendor_status"))  # noqa: S608
)
