"""The fast way into the database for the plain pushes of a batch, which are nearly all of them.

Does in one prepared statement (PostgreSQL) or three (SQLite) what `projection.save_pushes` does in general; a test
compares the two. Plain: no masked number, no reply without a task id, no unknown field, no second push of the same
message.
"""

from __future__ import annotations

from base64 import b64encode
from json import dumps
from typing import TYPE_CHECKING, Any

from receiver.core import (
    OptOut,
    Push,
    Receipt,
    Reply,
    Unreadable,
    delivery_status,
    reading_digest,
    shown_content,
    write_time,
)
from receiver.db.encryption import FieldCipher, cipher_of, encrypt_bytes, mobile_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa


_BODY, _QUERY, _READING, _CONTENT = b"pushes.body", b"pushes.query", b"pushes.reading_digest", b"replies.content"


def split_plain(batch: Sequence[Push], cipher: FieldCipher | None = None) -> tuple[list[Push], list[Push]]:
    """Return a batch's plain pushes, in the order of their messages' keys, and the rest."""
    plain: dict[tuple[str, ...], Push] = {}
    rest: list[Push] = []
    for push in batch:
        reading = push.reading
        if isinstance(reading, Unreadable):
            key: tuple[str, ...] = ("", "", str(push.id))
        elif reading.extra or "*" in reading.mobile or reading.task_id is None:
            rest.append(push)
            continue
        else:
            key = (reading.task_id, reading.mobile, push.account)
        if key in plain:
            rest.append(push)
        else:
            plain[key] = push
    return [plain[key] for key in sorted(plain, key=lambda key: lock_order(key, cipher))], rest


def lock_order(key: tuple[str, ...], cipher: FieldCipher | None) -> tuple[str, ...]:
    """Return the sort key in which messages are locked, from task id, number and account: the index's order."""
    return key if cipher is None else (key[0], mobile_token(cipher, key[1]), *key[2:])


def save_plain(connection: sa.Connection, batch: Sequence[Push]) -> bool:
    """Save plain pushes. False: nothing was changed, the journal has some of them already (SQLite only)."""
    if connection.dialect.name == "postgresql":
        save_plain_postgresql(connection.connection.driver_connection, batch, cipher_of(connection.dialect))
        return True
    return _save_sqlite(connection.connection.driver_connection, batch, cipher_of(connection.dialect))


def save_plain_postgresql(driver: Any, batch: Sequence[Push], cipher: FieldCipher | None = None) -> None:
    """Save plain pushes by one statement of the driver, without the overhead of SQLAlchemy."""
    driver.execute(_POSTGRESQL, [dumps([_json_row(push, cipher) for push in batch])], prepare=True)


# --- PostgreSQL ---------------------------------------------------------------------------------------
# Not jsonb: it would be built only to be taken apart. Rows come in the order of their keys, which is the order
# in which the messages are locked. Receipts and replies follow only from pushes that the journal did not have.

_POSTGRESQL = """
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json) AS row (
        id uuid, account text, endpoint text, kind text, outcome text, error text, flags json, method text,
        query text, body text, read_as text, content_type text, remote_addr text, received_at timestamptz,
        task_id text, mobile text, at timestamptz, vendor_status text, status smallint, seen smallint,
        content text, exact text, encrypted text, grams text, digest text, opt_out boolean, opt_out_review boolean)
), journal AS (
    INSERT INTO pushes (id, account, endpoint, kind, outcome, error, flags, method, query, body,
                        content_type, remote_addr, received_at, reading_digest)
    SELECT id, account, endpoint, kind, outcome, error, flags, method, decode(query, 'base64'),
           decode(body, 'base64'), content_type, remote_addr, received_at, decode(read_as, 'base64') FROM given
    ON CONFLICT (id) DO NOTHING RETURNING id
), message AS (
    INSERT INTO messages (task_id, mobile, account, status, reported_at, seen)
    SELECT task_id, mobile, account, status, CASE WHEN seen > 0 THEN at END, seen
    FROM given WHERE mobile IS NOT NULL
    ON CONFLICT (task_id, mobile, account) DO UPDATE SET
        reported_at = CASE WHEN messages.reported_at IS NULL
                OR (excluded.reported_at, excluded.status) > (messages.reported_at, messages.status)
            THEN excluded.reported_at ELSE messages.reported_at END,
        status = CASE WHEN messages.reported_at IS NULL
                OR (excluded.reported_at, excluded.status) > (messages.reported_at, messages.status)
            THEN excluded.status ELSE messages.status END,
        seen = messages.seen | excluded.seen
    RETURNING id AS message_id, task_id, mobile, account
), receipt AS (
    INSERT INTO receipts (message_id, push_id, received_at, last_seen_at, copies, vendor_status, reported_at)
    SELECT message_id, id, received_at, received_at, 1, vendor_status, at
    FROM given JOIN journal USING (id) JOIN message USING (task_id, mobile, account)
    WHERE vendor_status IS NOT NULL
    ON CONFLICT (message_id, reported_at, vendor_status, masked_mobile) DO UPDATE SET
        copies = receipts.copies + 1, last_seen_at = greatest(receipts.last_seen_at, excluded.last_seen_at)
), forward AS (
    INSERT INTO forward_queue (kind, push_id, message_id)
    SELECT 'push', id, message_id FROM given JOIN journal USING (id) LEFT JOIN message USING (task_id, mobile, account)
    WHERE EXISTS (SELECT FROM targets)
)
INSERT INTO replies (message_id, push_id, received_at, last_seen_at, copies, content, content_exact, content_sealed,
                     content_grams, content_sha256, replied_at, opt_out, opt_out_review)
SELECT message_id, id, received_at, received_at, 1, content, decode(exact, 'base64'), decode(encrypted, 'base64'),
       grams, decode(digest, 'base64'), at, opt_out, opt_out_review
FROM given JOIN journal USING (id) JOIN message USING (task_id, mobile, account)
WHERE content IS NOT NULL
ON CONFLICT (message_id, replied_at, content_sha256, masked_mobile) DO UPDATE SET
    copies = replies.copies + 1, last_seen_at = greatest(replies.last_seen_at, excluded.last_seen_at)
"""


def _json_row(push: Push, cipher: FieldCipher | None) -> dict[str, Any]:
    reading = push.reading
    query, body = _bytes_of(push, cipher)
    row: dict[str, Any] = {
        "id": f"{push.id.int:032x}",
        "account": push.account,
        "endpoint": push.endpoint,
        "kind": push.kind,
        "outcome": push.outcome,
        "method": push.method,
        "query": b64encode(query).decode(),
        "body": b64encode(body).decode(),
        "content_type": push.content_type,
        "remote_addr": push.remote_addr,
        "received_at": push.received_at.isoformat(),
    }
    if push.flags:
        row["flags"] = push.flags
    if isinstance(reading, Unreadable):
        row["error"] = reading.error
        return row
    row["read_as"] = b64encode(_digest_of(push.account, reading, cipher)).decode()
    row["task_id"] = reading.task_id
    row["mobile"] = reading.mobile if cipher is None else mobile_token(cipher, reading.mobile)
    if isinstance(reading, Receipt):
        status = delivery_status(reading.vendor_status)
        row["at"] = reading.reported_at.isoformat()
        row["vendor_status"] = reading.vendor_status
        row["status"] = int(status)
        row["seen"] = 1 << status
        return row
    content, exact, encrypted, grams = _contents(reading, cipher)
    row |= {"at": reading.replied_at.isoformat(), "status": 0, "seen": 0, "content": content, "grams": grams}
    row["digest"] = b64encode(_digest(reading, cipher)).decode()
    row |= {"opt_out": reading.opt_out is OptOut.YES, "opt_out_review": reading.opt_out is OptOut.REVIEW}
    if exact is not None:
        row["exact"] = b64encode(exact).decode()
    if encrypted is not None:
        row["encrypted"] = b64encode(encrypted).decode()
    return row


def _bytes_of(push: Push, cipher: FieldCipher | None) -> tuple[bytes, bytes]:
    """Return a push's query and body as the journal stores them."""
    if cipher is None:
        return push.query, push.body
    return encrypt_bytes(cipher.ring, push.query, _QUERY), encrypt_bytes(cipher.ring, push.body, _BODY)


def _digest_of(account: str, reading: Receipt | Reply, cipher: FieldCipher | None) -> bytes:
    """Return the digest of a reading as the journal stores it."""
    digest = reading_digest(account, reading)
    return digest if cipher is None else encrypt_bytes(cipher.ring, digest, _READING)


def _contents(reply: Reply, cipher: FieldCipher | None) -> tuple[str, bytes | None, bytes | None, str | None]:
    """Return a reply's content as shown, and exactly if that differs; or encrypted, with its search hashes."""
    content = shown_content(reply.content)
    if cipher is not None:
        return "", None, cipher.ring.encrypt(reply.content.encode(), _CONTENT), cipher.grams(content)
    return content, reply.content.encode() if content != reply.content else None, None, None


def _digest(reply: Reply, cipher: FieldCipher | None) -> bytes:
    return reply.content_sha256 if cipher is None else cipher.digest(reply.content_sha256)


def content_columns(reply: Reply, cipher: FieldCipher | None) -> dict[str, Any]:
    """Return the columns of a reply's content; the type of `content_sealed` encrypts."""
    content = shown_content(reply.content)
    exact = reply.content.encode()
    if cipher is not None:
        return {
            "content": "",
            "content_exact": None,
            "content_sealed": exact,
            "content_grams": cipher.grams(content),
        }
    return {
        "content": content,
        "content_exact": exact if content != reply.content else None,
        "content_sealed": None,
        "content_grams": None,
    }


# --- SQLite -------------------------------------------------------------------------------------------

_DECIDES = """messages.reported_at IS NULL
    OR (excluded.reported_at, excluded.status) > (messages.reported_at, messages.status)"""
_SQLITE_JOURNAL = """
INSERT INTO pushes (id, account, endpoint, kind, outcome, error, flags, method, query, body,
                    content_type, remote_addr, received_at, reading_digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"""
_SQLITE_MESSAGES = f"""
INSERT INTO messages (task_id, mobile, account, status, reported_at, seen) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (task_id, mobile, account) DO UPDATE SET
    reported_at = CASE WHEN {_DECIDES} THEN excluded.reported_at ELSE messages.reported_at END,
    status = CASE WHEN {_DECIDES} THEN excluded.status ELSE messages.status END,
    seen = messages.seen | excluded.seen"""  # noqa: S608  (nothing of it comes from outside)
_SQLITE_RECEIPTS = """
INSERT INTO receipts (message_id, push_id, received_at, last_seen_at, copies, vendor_status, reported_at)
SELECT id, ?, ?, ?, 1, ?, ? FROM messages WHERE task_id = ? AND mobile = ? AND account = ?
ON CONFLICT (message_id, reported_at, vendor_status, masked_mobile) DO UPDATE SET
    copies = receipts.copies + 1, last_seen_at = max(receipts.last_seen_at, excluded.last_seen_at)"""
_SQLITE_REPLIES = """
INSERT INTO replies (message_id, push_id, received_at, last_seen_at, copies, content, content_exact, content_sealed,
                     content_grams, content_sha256, replied_at, opt_out, opt_out_review)
SELECT id, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ? FROM messages WHERE task_id = ? AND mobile = ? AND account = ?
ON CONFLICT (message_id, replied_at, content_sha256, masked_mobile) DO UPDATE SET
    copies = replies.copies + 1, last_seen_at = max(replies.last_seen_at, excluded.last_seen_at)"""
_SQLITE_FORWARD = """
INSERT INTO forward_queue (kind, push_id, message_id)
VALUES ('push', ?, (SELECT id FROM messages WHERE task_id = ? AND mobile = ? AND account = ?))"""


def _save_sqlite(driver: Any, batch: Sequence[Push], cipher: FieldCipher | None) -> bool:
    journal: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    receipts: list[tuple[Any, ...]] = []
    replies: list[tuple[Any, ...]] = []
    forward: list[tuple[Any, ...]] = []
    for push in batch:
        push_id, reading = push.id.hex, push.reading
        received_at = write_time(push.received_at)
        flags = dumps(push.flags) if push.flags else None
        head = (push_id, push.account, push.endpoint, push.kind, push.outcome, push.error, flags)
        read_as = None if isinstance(reading, Unreadable) else _digest_of(push.account, reading, cipher)
        journal.append(
            (*head, push.method, *_bytes_of(push, cipher), push.content_type, push.remote_addr, received_at, read_as),
        )
        if isinstance(reading, Unreadable):
            forward.append((push_id, None, None, None))
            continue
        mobile = reading.mobile if cipher is None else mobile_token(cipher, reading.mobile)
        key = (reading.task_id, mobile, push.account)
        forward.append((push_id, *key))
        seen = (push_id, received_at, received_at)
        if isinstance(reading, Receipt):
            at = write_time(reading.reported_at)
            status = delivery_status(reading.vendor_status)
            messages.append((*key, int(status), at, 1 << status))
            receipts.append((*seen, reading.vendor_status, at, *key))
        else:
            contents = _contents(reading, cipher)
            at = write_time(reading.replied_at)
            messages.append((*key, 0, None, 0))
            opt_outs = (reading.opt_out is OptOut.YES, reading.opt_out is OptOut.REVIEW)
            replies.append((*seen, *contents, _digest(reading, cipher), at, *opt_outs, *key))
    driver.execute("SAVEPOINT plain")
    if driver.executemany(_SQLITE_JOURNAL, journal).rowcount < len(journal):
        driver.execute("ROLLBACK TO plain")
        return False
    for statement, rows in ((_SQLITE_MESSAGES, messages), (_SQLITE_RECEIPTS, receipts), (_SQLITE_REPLIES, replies)):
        if rows:
            driver.executemany(statement, rows)
    if driver.execute("SELECT EXISTS (SELECT 1 FROM targets)").fetchone()[0]:
        driver.executemany(_SQLITE_FORWARD, forward)
    driver.execute("RELEASE plain")
    return True
