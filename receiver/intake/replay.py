"""Replays a push of the journal: applies what it parses to today.

The stored reading stands until then. A replay adds what was unreadable before. If it now parses to something else, the
receipt or reply that only this push brought is replaced. A row that other pushes brought too stays, and so does a row
of a push that no longer parses.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from receiver.core import DatabaseUnavailable, OptOut, Outcome, Push, Receipt, Reply, Unreadable, shown_content
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages.journal import update_reading
from receiver.messages.projection import catch_up, project_again, refold, take_turn
from receiver.messages.queries import ReceiptRow, ReplyRow, as_receipt_row, as_reply_row, select_inbound_events


def replay_push(connection: sa.Connection, push: Push) -> Outcome:
    """Apply the new reading of a push in the journal and return its outcome.

    Leaves `copies` unchanged, except on the row that the push moves to. Raises DatabaseUnavailable.
    """
    catch_up(connection)
    query = sa.select(pushes.c.outcome, pushes.c.received_at, pushes.c.replayed_at, pushes.c.digest, pushes.c.sequence)
    before = connection.execute(query.where(pushes.c.id == push.id).with_for_update()).one()
    turn = take_turn(connection, wait=True)
    if before.sequence is not None and before.sequence > (0 if turn is None else turn.position):
        # Projected again here, it would be counted once more in its turn.
        raise DatabaseUnavailable("a push that came before this one is still being committed; try again")
    if before.outcome != Outcome.ACCEPTED:
        update_reading(connection, push, replayed_at=sa.func.now())
        project_again(connection, push.id, counts_copies=False)
        return push.outcome
    if isinstance(push.reading, Unreadable):
        return Outcome.ACCEPTED
    own = [found for table in (receipts, replies) for found in _brought(connection, table, push, before.received_at)]
    if not own and before.digest not in (None, push.reading_digest):
        return Outcome.ACCEPTED  # a copy: another push brought the row
    if any(row.copies > 1 or _equals(row, push.reading) for row in own):
        return Outcome.ACCEPTED
    for row in own:
        _delete(connection, row)
    update_reading(connection, push)
    # The push was counted on arrival, so it counts on its new row; one that was replayed before is not counted.
    project_again(connection, push.id, counts_copies=bool(own) and before.replayed_at is None)
    return Outcome.ACCEPTED


def _brought(
    connection: sa.Connection, table: sa.Table, push: Push, received_at: Any
) -> list[ReceiptRow] | list[ReplyRow]:
    """Return the rows that this push brought first, found by arrival time, which is indexed."""
    query = select_inbound_events(table).where(table.c.received_at == received_at, table.c.push_id == push.id)
    rows = connection.execute(query.with_for_update(of=table)).all()
    return [as_receipt_row(row) for row in rows] if table is receipts else [as_reply_row(row) for row in rows]


def _equals(row: ReceiptRow | ReplyRow, reading: Receipt | Reply) -> bool:
    """Return whether a row equals a reading."""
    if (row.task_id, row.mobile, row.extra) != (reading.task_id, reading.mobile, reading.extra):
        return False
    if isinstance(row, ReceiptRow):
        of_receipt = (row.vendor_status, row.reported_at)
        return isinstance(reading, Receipt) and of_receipt == (reading.vendor_status, reading.reported_at)
    if isinstance(reading, Receipt):
        return False
    judged = OptOut.YES if row.opt_out else OptOut.REVIEW if row.opt_out_review else OptOut.NO
    stored = (row.content, row.replied_at, judged)
    return stored == (shown_content(reading.content), reading.replied_at, reading.opt_out)


def _delete(connection: sa.Connection, row: ReceiptRow | ReplyRow) -> None:
    """Delete a row, and its message if nothing else refers to it."""
    table = receipts if isinstance(row, ReceiptRow) else replies
    if row.message_id is None:
        connection.execute(sa.delete(table).where(table.c.id == row.id))
        return
    # Every writer that adds to a message locks its row first.
    connection.execute(sa.select(messages.c.id).where(messages.c.id == row.message_id).with_for_update())
    connection.execute(sa.delete(table).where(table.c.id == row.id))
    refold(connection, [row.message_id])
    left = (sa.exists().where(each.c.message_id == row.message_id) for each in (receipts, replies))
    unreferenced = (messages.c.recorded_at.is_(None), messages.c.verified_at.is_(None), sa.not_(sa.or_(*left)))
    connection.execute(sa.delete(messages).where(messages.c.id == row.message_id, *unreferenced))
