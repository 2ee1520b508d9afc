"""Takes over what a push of the journal says when it is read again.

What a reading found stands until then. So a replay adds what could not be read before; and where it finds something
else than was read, the receipt or reply that this push alone has brought gives way to it. One that others have brought
as well stays, and so does what the rules of today cannot read any more.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from receiver.core import OptOut, Outcome, Push, Receipt, Reply, Unreadable, shown_content
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages import outbox
from receiver.messages.outbox import Change
from receiver.messages.projection import keep_readings, refold
from receiver.messages.queries import ReceiptRow, ReplyRow, as_receipt_row, as_reply_row, sighted


def replay_push(connection: sa.Connection, push: Push) -> Outcome:
    """Take over a new reading of a push that the journal has; give the outcome that it has then.

    Changes no `copies`, but of a row that it gives the push over to.
    """
    query = sa.select(pushes.c.outcome, pushes.c.received_at, pushes.c.replayed_at, pushes.c.reading_digest)
    before = connection.execute(query.where(pushes.c.id == push.id).with_for_update()).one()
    if before.outcome != Outcome.ACCEPTED:
        _note(connection, push, replayed_at=sa.func.now())
        _add(connection, push, counts_copies=False)
        return push.outcome
    if isinstance(push.reading, Unreadable):
        return Outcome.ACCEPTED
    own = [found for table in (receipts, replies) for found in _brought(connection, table, push, before.received_at)]
    if not own and before.reading_digest not in (None, push.reading_digest):
        return Outcome.ACCEPTED  # it is a copy of what another has brought
    if any(row.copies > 1 or _says(row, push.reading) for row in own):
        return Outcome.ACCEPTED
    for row in own:
        _take_away(connection, row)
    _note(connection, push, replayed_at=before.replayed_at)
    # It was counted when it came, and now is where it belongs; what was replayed before is counted nowhere.
    _add(connection, push, counts_copies=bool(own) and before.replayed_at is None)
    return Outcome.ACCEPTED


def _note(connection: sa.Connection, push: Push, *, replayed_at: Any) -> None:
    """Note in the journal what was read."""
    connection.execute(
        sa.update(pushes)
        .where(pushes.c.id == push.id)
        .values(
            outcome=push.outcome,
            error=push.error,
            kind=push.kind,
            flags=list(push.flags) or None,
            reading_digest=push.reading_digest,
            replayed_at=replayed_at,
        )
    )


def _add(connection: sa.Connection, push: Push, *, counts_copies: bool) -> None:
    """Add what it says, where that is missing."""
    brought = keep_readings(connection, [push], counts_copies=counts_copies).get(push.id, {})
    if "receipt_id" in brought or "reply_id" in brought:
        outbox.add(connection, [{"kind": Change.READING, "push_id": push.id, **brought}])


def _brought(
    connection: sa.Connection, table: sa.Table, push: Push, received_at: Any
) -> list[ReceiptRow] | list[ReplyRow]:
    """Return what a push was the first to bring; by its time, which has an index."""
    query = sighted(table).where(table.c.received_at == received_at, table.c.push_id == push.id)
    rows = connection.execute(query.with_for_update(of=table)).all()
    return [as_receipt_row(row) for row in rows] if table is receipts else [as_reply_row(row) for row in rows]


def _says(row: ReceiptRow | ReplyRow, reading: Receipt | Reply) -> bool:
    """Return whether a row says what a reading found."""
    if (row.task_id, row.mobile, row.extra) != (reading.task_id, reading.mobile, reading.extra):
        return False
    if isinstance(row, ReceiptRow):
        of_receipt = (row.vendor_status, row.reported_at)
        return isinstance(reading, Receipt) and of_receipt == (reading.vendor_status, reading.reported_at)
    if isinstance(reading, Receipt):
        return False
    judged = OptOut.YES if row.opt_out else OptOut.REVIEW if row.opt_out_review else OptOut.NO
    said = (row.content, row.replied_at, judged)
    return said == (shown_content(reading.content), reading.replied_at, reading.opt_out)


def _take_away(connection: sa.Connection, row: ReceiptRow | ReplyRow) -> None:
    """Delete a row, and the message that nothing else speaks of."""
    table = receipts if isinstance(row, ReceiptRow) else replies
    if row.message_id is None:
        connection.execute(sa.delete(table).where(table.c.id == row.id))
        return
    # Whoever adds to a message holds its row first.
    connection.execute(sa.select(messages.c.id).where(messages.c.id == row.message_id).with_for_update())
    connection.execute(sa.delete(table).where(table.c.id == row.id))
    refold(connection, [row.message_id])
    left = (sa.exists().where(each.c.message_id == row.message_id) for each in (receipts, replies))
    nobodys = (messages.c.recorded_at.is_(None), messages.c.verified_at.is_(None), sa.not_(sa.or_(*left)))
    connection.execute(sa.delete(messages).where(messages.c.id == row.message_id, *nobodys))
