"""The statements of the projection, one text for both databases.

`{which}` in a text stands for the condition that selects pushes of the journal, `p`. A message is found row by row, by
its index: a join planned while the tables are small would read all of them once they are large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from receiver.core import DeliveryStatus
from receiver.db.sql import delivery_status
from receiver.db.tables import IDENTITY, receipts, replies

if TYPE_CHECKING:
    from collections.abc import Mapping

NEW = "p.sequence > :after AND p.sequence <= :upto"
NEXT = """p.sequence > :after AND p.sequence <= (SELECT max(sequence) FROM
    (SELECT sequence FROM pushes WHERE sequence > :after AND sequence <= :upto ORDER BY sequence LIMIT :limit) AS n)"""
ONE = "p.id = :push_id"

_RECEIPT, _REPLY = "p.vendor_status IS NOT NULL", "p.mobile IS NOT NULL AND p.vendor_status IS NULL"
_FULL = "p.mobile NOT LIKE '%*%' AND p.task_id IS NOT NULL"
_MASKED = "p.mobile LIKE '%*%' AND p.task_id IS NOT NULL"
_TASKLESS = "p.mobile IS NOT NULL AND p.task_id IS NULL"
_MESSAGE_ID = (
    "(SELECT m.id FROM messages AS m WHERE m.task_id = p.task_id AND m.mobile = p.mobile AND m.account = p.account)"
)
_OF_RECEIPT = {"extra": "p.receipt_extra", "vendor_status": "p.vendor_status", "reported_at": "p.event_at"}
_SAME_NAME = (
    *("content", "content_exact", "content_sealed", "content_grams", "content_sha256"),
    *("opt_out", "opt_out_review"),
)
_OF_REPLY = {"extra": "p.reply_extra", "replied_at": "p.event_at", **{name: f"p.{name}" for name in _SAME_NAME}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inbound:
    """Receipts or replies that belong to the same kind of place, which decides where their number is, and their key.

    Texts name a row of the table `r`.
    """

    name: str
    table: str
    pushes: str  # the condition on pushes that brought one
    rows: str  # the condition on rows
    columns: Mapping[str, str]  # of the table, and what each is in the journal
    key: tuple[str, ...]
    key_where: str = ""  # what the key's index is narrowed to; empty: it covers every row

    @property
    def same(self) -> str:
        """Return the condition that a push brought the row, or a copy of it."""
        return " AND ".join((self.rows, *(f"r.{name} = {self.columns[name]}" for name in self.key)))

    def insert(self, *, counts_copies: bool) -> str:
        """Return the statement that inserts rows: the first of those with one key, and how many they are."""
        of_key = ", ".join(self.columns[name] for name in IDENTITY_NAMES[self.table])
        same = f"PARTITION BY p.task_id, p.mobile, p.account, {of_key}"
        given = ", ".join(f"{value} AS {name}" for name, value in self.columns.items())
        names = ", ".join(self.columns)
        on_conflict = f"ON CONFLICT ({', '.join(self.key)}){self.key_where and f' WHERE {self.key_where}'} DO"
        seen_last = f"CASE WHEN excluded.last_seen_at > {self.table}.last_seen_at THEN excluded.last_seen_at"
        counting = (
            f"UPDATE SET copies = {self.table}.copies + excluded.copies,"
            f" last_seen_at = {seen_last} ELSE {self.table}.last_seen_at END"
        )
        return f"""
INSERT INTO {self.table} ({names}, push_id, received_at, last_seen_at, copies)
SELECT {names}, push_id, received_at, last_seen_at, copies FROM (
    SELECT {given}, p.id AS push_id, p.received_at, p.sequence,
           max(p.received_at) OVER same AS last_seen_at, count(*) OVER same AS copies,
           row_number() OVER ({same} ORDER BY p.id) AS place
    FROM pushes AS p WHERE {{which}} AND {self.pushes}
    WINDOW same AS ({same})
) AS given WHERE place = 1 ORDER BY sequence
{on_conflict} {counting if counts_copies else "NOTHING"}"""  # noqa: S608  (constants)


IDENTITY_NAMES = {table: tuple(column.name for column in columns) for table, columns in IDENTITY.items()}


def _of_message(table: str, pushes: str, columns: Mapping[str, str]) -> Inbound:
    return Inbound(
        name=table,
        table=table,
        pushes=f"{pushes} AND {_FULL}",
        rows="r.masked_mobile = ''",
        columns={"message_id": _MESSAGE_ID, "masked_mobile": "''", **columns},
        key=("message_id", *IDENTITY_NAMES[table], "masked_mobile"),
    )


_OF_ITSELF = {"masked_mobile": "p.mobile", "account": "p.account", "task_id": "p.task_id"}


def _of_masked(table: str, pushes: str, columns: Mapping[str, str]) -> Inbound:
    return Inbound(
        name=f"masked_{table}",
        table=table,
        pushes=f"{pushes} AND {_MASKED}",
        rows="r.masked_mobile != '' AND r.task_id IS NOT NULL",
        columns=_OF_ITSELF | dict(columns),
        key=("task_id", "account", "masked_mobile", *IDENTITY_NAMES[table]),
        key_where="masked_mobile != ''",
    )


INBOUND = (
    _of_message(receipts.name, _RECEIPT, _OF_RECEIPT),
    _of_message(replies.name, _REPLY, _OF_REPLY),
    _of_masked(receipts.name, _RECEIPT, _OF_RECEIPT),
    _of_masked(replies.name, _REPLY, _OF_REPLY),
    Inbound(
        name="taskless_replies",
        table=replies.name,
        pushes=_TASKLESS,
        rows="r.masked_mobile != '' AND r.task_id IS NULL",
        columns=_OF_ITSELF | _OF_REPLY,
        key=("masked_mobile", "account", *IDENTITY_NAMES[replies.name]),
        key_where="masked_mobile != '' AND task_id IS NULL",
    ),
)
COUNTING = {inbound.name: inbound.insert(counts_copies=True) for inbound in INBOUND}
KEEPING = {inbound.name: inbound.insert(counts_copies=False) for inbound in INBOUND}


def _number_of(condition: str, name: str) -> str:
    return f"coalesce(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) AS {name}"


# What is among the pushes, and whether webhooks want it, so that no statement runs for nothing.
SUMMARY = f"""
SELECT count(*) AS pushes, max(p.sequence) AS upto, EXISTS (SELECT 1 FROM targets) AS wanted,
       {_number_of(_FULL, "of_messages")}, {_number_of(_MASKED, "masked")},
       {", ".join(_number_of(inbound.pushes, inbound.name) for inbound in INBOUND)}
FROM pushes AS p WHERE {{which}}"""  # noqa: S608
MASKED_KEYS = f"SELECT DISTINCT account, task_id, mobile FROM pushes AS p WHERE {{which}} AND {_MASKED}"  # noqa: S608

# `MessageState.merge`, within the set and with what is stored: the latest report decides, in one second the higher
# status. In the order of their keys, which is that in which recordings lock them.
_LATER = """messages.reported_at IS NULL
    OR (excluded.reported_at, excluded.status) > (messages.reported_at, messages.status)"""
SEEN = " + ".join(
    f"max(CASE WHEN status = {status:d} THEN {1 << status} ELSE 0 END) OVER message"
    for status in DeliveryStatus
    if status is not DeliveryStatus.PENDING
)
MISSING_MESSAGES = f"""
INSERT INTO messages (task_id, mobile, account, status, reported_at, seen, updated_at)
SELECT task_id, mobile, account, status, reported_at, seen, :stamp FROM (
    SELECT task_id, mobile, account, status, reported_at, {SEEN} AS seen,
           row_number() OVER (PARTITION BY task_id, mobile, account
                              ORDER BY status > {DeliveryStatus.PENDING:d} DESC, reported_at DESC, status DESC) AS place
    FROM (
        SELECT p.task_id, p.mobile, p.account,
               CASE WHEN {_RECEIPT} THEN {delivery_status("p.vendor_status")}
                    ELSE {DeliveryStatus.PENDING:d} END AS status,
               CASE WHEN {_RECEIPT} THEN p.event_at END AS reported_at
        FROM pushes AS p WHERE {{which}} AND {_FULL}
    ) AS given
    WINDOW message AS (PARTITION BY task_id, mobile, account)
) AS merged WHERE place = 1 ORDER BY task_id, mobile, account
ON CONFLICT (task_id, mobile, account) DO NOTHING"""  # noqa: S608
MESSAGES = f"""{MISSING_MESSAGES.removesuffix("NOTHING")} UPDATE SET
    reported_at = CASE WHEN {_LATER} THEN excluded.reported_at ELSE messages.reported_at END,
    status = CASE WHEN {_LATER} THEN excluded.status ELSE messages.status END,
    seen = messages.seen | excluded.seen,
    updated_at = excluded.updated_at"""


def _row_id(table: str) -> str:
    """Write the id of the row that a push brought, null for a full number: the fan-out finds that by its message."""
    cases = " ".join(
        f"WHEN {inbound.pushes} THEN (SELECT r.id FROM {table} AS r WHERE {inbound.same} AND r.push_id = p.id)"  # noqa: S608
        for inbound in INBOUND
        if inbound.table == table and inbound.key_where
    )
    return f"CASE {cases} END"


OUTBOX = f"""
INSERT INTO forward_queue (kind, push_id, message_id, receipt_id, reply_id)
SELECT :kind, p.id, CASE WHEN {_FULL} THEN {_MESSAGE_ID} END, {_row_id("receipts")}, {_row_id("replies")}
FROM pushes AS p WHERE {{which}} ORDER BY p.sequence"""  # noqa: S608
