"""Write old times of the embedded database with all digits, and set aside rows whose times cannot be right."""

import sqlalchemy as sa
from alembic import context, op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
# What pushes and senders brought, and when that came: a true time is from 2000 on, and at most 48 hours ahead of it.
_TIMES = (("receipts", "reported_at", "received_at"), ("replies", "replied_at", "received_at"))
_MASKED = "twin.message_id IS {0}.message_id AND twin.masked_mobile = {0}.masked_mobile AND twin.id <> {0}.id"
_TWINS = (
    ("receipts", "reported_at", f"{_MASKED.format('receipts')} AND twin.vendor_status = receipts.vendor_status"),
    ("replies", "replied_at", f"{_MASKED.format('replies')} AND twin.content_sha256 = replies.content_sha256"),
)
_SHORT_YEARS = ("receipts", "reported_at"), ("replies", "replied_at"), ("messages", "reported_at")


def upgrade() -> None:
    op.create_table(
        "rows_set_aside",
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("row_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("found_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "row_id", name=op.f("pk_rows_set_aside")),
    )
    op.add_column("forward_queue", sa.Column("left_at", _TIME))
    if op.get_context().dialect.name == "sqlite":
        _write_short_years_in_full()
    for table, at, came in _TIMES:
        op.execute(_set_aside(table, "id", f"FROM {table} WHERE {_implausible(at, came)}"))
    op.execute(_set_aside("messages", "id", f"FROM messages WHERE {_implausible('sent_at', 'recorded_at')}"))
    # And where such a receipt is the one that decides.
    deciding = (
        "FROM rows_set_aside JOIN receipts ON receipts.id = CAST(rows_set_aside.row_id AS BIGINT)"
        " JOIN messages ON messages.id = receipts.message_id AND messages.reported_at = receipts.reported_at"
        " WHERE table_name = 'receipts'"
    )
    op.execute(_set_aside("messages", "messages.id", deciding, again=True))


def downgrade() -> None:
    op.drop_column("forward_queue", "left_at")
    op.drop_table("rows_set_aside")


def _set_aside(table: str, row_id: str, source: str, *, again: bool = False) -> sa.TextClause:
    return sa.text(
        "INSERT INTO rows_set_aside (table_name, row_id, reason, found_at)"
        f" SELECT DISTINCT '{table}', CAST({row_id} AS TEXT), 'implausible_time', CURRENT_TIMESTAMP {source}"
        f"{' ON CONFLICT DO NOTHING' if again else ''}"
    )


def _implausible(at: str, came: str) -> str:
    if op.get_context().dialect.name == "sqlite":
        latest = rf"strftime('%Y-%m-%d %H\:%M\:%f', {came}, '+48 hours')"
    else:
        latest = f"{came} + interval '48 hours'"
    return rf"{at} < '2000-01-01 00\:00\:00' OR {at} > {latest}"


def _write_short_years_in_full() -> None:
    """Zeros were left out before a year below 1000, which sorted after every other and could not be read."""
    if context.is_offline_mode():
        return
    for table, column, same in _TWINS:
        # The same row may be there in both spellings, by the two ways that pushes could take: one is enough.
        twin = (
            f"(SELECT id FROM {table} AS twin WHERE twin.{column} = substr('000' || {table}.{column}, -26) AND {same})"  # noqa: S608
        )
        short = f"{column} GLOB '[0-9]-*' OR {column} GLOB '[0-9][0-9]-*' OR {column} GLOB '[0-9][0-9][0-9]-*'"
        op.execute(
            f"UPDATE {table} AS kept SET copies = kept.copies + other.copies FROM"  # noqa: S608
            f" (SELECT {twin} AS twin_id, copies FROM {table} WHERE {short}) AS other WHERE other.twin_id = kept.id"
        )
        op.execute(f"DELETE FROM {table} WHERE ({short}) AND {twin} IS NOT NULL")  # noqa: S608
    for table, column in _SHORT_YEARS:
        for digits in (3, 2, 1):
            form = "[0-9]" * digits + "-*"
            zeros = "0" * (4 - digits)
            op.execute(f"UPDATE {table} SET {column} = '{zeros}' || {column} WHERE {column} GLOB '{form}'")  # noqa: S608
    # They passed for the latest report of their message. What decides is found anew, as `domain.MessageState` has it.
    rank = "CASE vendor_status WHEN '1' THEN 3 WHEN '0' THEN 2 ELSE 1 END"
    of_message = "FROM receipts WHERE message_id = messages.id ORDER BY reported_at DESC"
    op.execute(
        f"UPDATE messages SET status = (SELECT {rank} AS rank {of_message}, rank DESC LIMIT 1),"  # noqa: S608
        f" reported_at = (SELECT reported_at {of_message} LIMIT 1)"
        " WHERE reported_at < '1000-' AND EXISTS (SELECT 1 FROM receipts WHERE message_id = messages.id)"
    )
