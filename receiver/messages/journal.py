"""The journal: pushes are appended here, with what was read in them, in one transaction that knows no other table.

Messages, receipts and replies follow from it: see `projection`.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from json import dumps
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from receiver.core import (
    FieldFault,
    OptOut,
    Outcome,
    Push,
    PushFault,
    Receipt,
    Reply,
    Unreadable,
    reading_digest,
    shown_content,
    write_time,
)
from receiver.db.encryption import (
    ContentDigest,
    EncryptedBytes,
    EncryptedJson,
    Mobile,
    cipher_of,
    encrypt_bytes,
    encrypt_json,
    mobile_token,
)
from receiver.db.tables import projection, pushes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.db.encryption.ciphers import FieldCipher
    from receiver.db.engine import Database

Values = tuple[Any, ...]

CLOCK_SLACK = timedelta(minutes=5)  # for a clock that is set back between a push's id and its time

# Of `pushes`, with PostgreSQL's types. A sequence follows on SQLite, which has none of its own.
_COLUMNS = {
    "id": "uuid",
    "account": "text",
    "endpoint": "text",
    "kind": "text",
    "outcome": "text",
    "error": "text",
    "flags": "json",
    "method": "text",
    "query": "bytea",
    "body": "bytea",
    "content_type": "text",
    "remote_addr": "text",
    "received_at": "timestamptz",
    # What was read:
    "digest": "bytea",
    "task_id": "text",
    "mobile": "text",
    "event_at": "timestamptz",
    "vendor_status": "text",
    "receipt_extra": "json",
    "reply_extra": "json",
    "content": "text",
    "content_exact": "bytea",
    "content_sealed": "bytea",
    "content_grams": "text",
    "content_sha256": "bytea",
    "opt_out": "bool",
    "opt_out_review": "bool",
}
_READING_COLUMNS = list(_COLUMNS)[list(_COLUMNS).index("digest") :]
_NOTHING_READ = (None,) * len(_READING_COLUMNS)
_NO_REPLY = (None,) * (len(_READING_COLUMNS) - _READING_COLUMNS.index("reply_extra"))


def append(database: Database, batch: Sequence[Push]) -> None:
    """Append pushes in one transaction. A push that the journal has already is skipped.

    Raises DatabaseUnavailable (outcome unknown), DatabaseMisconfigured or RowRejected (not committed).
    """
    cipher = database.cipher()
    rows = [_values(push, cipher) for push in batch]
    if database.postgresql:
        database.write_at_once(partial(_append_postgresql, rows=rows))
    else:
        database.write(lambda connection: _append_sqlite(connection.connection.driver_connection, rows))


def _values_of_reading(push: Push, cipher: FieldCipher | None) -> tuple[Any, ...]:
    """Return the values of `_READING_COLUMNS`, as they are stored; all null if nothing was read."""
    reading = push.reading
    if isinstance(reading, Unreadable):
        return _NOTHING_READ
    digest, mobile = reading_digest(push.account, reading), reading.mobile
    if cipher is not None:
        digest, mobile = encrypt_bytes(cipher.ring, digest, b"pushes.reading_digest"), mobile_token(cipher, mobile)
    extra = dict(reading.extra) if reading.extra else None
    if isinstance(reading, Receipt):
        extra = _json(extra, cipher, b"receipts.extra")
        return (digest, reading.task_id, mobile, reading.reported_at, reading.vendor_status, extra, *_NO_REPLY)
    return (
        *(digest, reading.task_id, mobile, reading.replied_at, None, None, _json(extra, cipher, b"replies.extra")),
        *_content_values(reading, cipher),
        reading.opt_out is OptOut.YES,
        reading.opt_out is OptOut.REVIEW,
    )


def _content_values(reply: Reply, cipher: FieldCipher | None) -> tuple[Any, ...]:
    """Return content as shown, exactly if that differs, encrypted, its search hashes, and its digest."""
    content, exact, digest = shown_content(reply.content), reply.content.encode(), reply.content_sha256
    if cipher is None:
        return content, exact if content != reply.content else None, None, None, digest
    return "", None, cipher.ring.encrypt(exact, b"replies.content"), cipher.grams(content), cipher.digest(digest)


def _json(value: Any, cipher: FieldCipher | None, place: bytes) -> Any:
    return value if cipher is None or value is None else encrypt_json(cipher.ring, value, place)


def _values(push: Push, cipher: FieldCipher | None) -> tuple[Any, ...]:
    """Return the values of `_COLUMNS`, as they are stored."""
    query, body = push.query, push.body
    if cipher is not None:
        query = encrypt_bytes(cipher.ring, query, b"pushes.query")
        body = encrypt_bytes(cipher.ring, body, b"pushes.body")
    return (
        *(push.id, push.account, push.endpoint, push.kind, push.outcome, push.error),
        *(list(push.flags) if push.flags else None, push.method, query, body),
        *(push.content_type, push.remote_addr, push.received_at),
        *_values_of_reading(push, cipher),
    )


def update_reading(connection: sa.Connection, push: Push, **values: Any) -> None:
    """Store another reading of a push that the journal has."""
    values |= {
        "outcome": push.outcome,
        "error": push.error,
        "kind": push.kind,
        "flags": list(push.flags) or None,
    }
    reading = zip(_READING_COLUMNS, _values_of_reading(push, cipher_of(connection.dialect)), strict=True)
    for name, value in reading:
        type_ = pushes.c[name].type
        # As it is stored: the column's own type would encrypt it once more.
        values[name] = sa.literal(value, type_.impl) if isinstance(type_, _ENCRYPTING) else value
    connection.execute(sa.update(pushes).where(pushes.c.id == push.id).values(values))


_ENCRYPTING = (Mobile, EncryptedBytes, EncryptedJson, ContentDigest)


# --- PostgreSQL ---------------------------------------------------------------------------------------

_TYPES = list(_COLUMNS.values())
# One statement and one answer. A COPY costs the server less for large batches, but its data may follow only once the
# server has asked for them: by then the thread that reads the pushes has the interpreter, and the batch waits for it.
_JSON = [name for name, kind in _COLUMNS.items() if kind == "json"]
_OF_TEXT = {"bytea": "decode({}, 'base64')", "json": "{}::json"}
_GIVEN = [_OF_TEXT.get(kind, "{}").format(name) for name, kind in _COLUMNS.items()]
_GIVEN_TYPES = [f"{name} {'text' if kind in _OF_TEXT else kind}" for name, kind in _COLUMNS.items()]
_INSERT_JSON = (
    f"INSERT INTO pushes ({', '.join(_COLUMNS)}) SELECT {', '.join(_GIVEN)}"  # noqa: S608
    f" FROM json_to_recordset(%s::json) AS given ({', '.join(_GIVEN_TYPES)}) ON CONFLICT (id) DO NOTHING"
)


def _append_postgresql(driver: Any, rows: Sequence[Values]) -> None:
    given = [{name: value for name, value in zip(_COLUMNS, row, strict=True) if value is not None} for row in rows]
    for row in given:
        for name in _JSON:
            if name in row:
                row[name] = dumps(row[name])  # as text: PostgreSQL keeps a NUL in JSON, but takes none out of it
    driver.execute(_INSERT_JSON, [orjson.dumps(given, default=_base64).decode()], prepare=True)


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


# --- SQLite -------------------------------------------------------------------------------------------

_INSERT = (
    f"INSERT INTO pushes ({', '.join(_COLUMNS)}, sequence) VALUES ({', '.join('?' * len(_COLUMNS))}, ?)"  # noqa: S608
    " ON CONFLICT (id) DO NOTHING"
)
_END = "SELECT max(coalesce((SELECT max(sequence) FROM pushes), 0), (SELECT position FROM projection))"
_TEXTS: dict[str, Callable[[Any], str]] = {"uuid": lambda value: value.hex, "timestamptz": write_time, "json": dumps}
_AS_TEXT = [(place, _TEXTS[kind]) for place, kind in enumerate(_TYPES) if kind in _TEXTS]


def _append_sqlite(driver: Any, rows: Sequence[Values]) -> None:
    # One writer: so the order of the numbers is that of the commits. They are never used again, even after a prune.
    (end,) = driver.execute(_END).fetchone()
    given = []
    for sequence, values in enumerate(rows, end + 1):
        row = [*values, sequence]
        for place, text in _AS_TEXT:
            if row[place] is not None:
                row[place] = text(row[place])
        given.append(row)
    driver.executemany(_INSERT, given)


# --- Its end ------------------------------------------------------------------------------------------


def find_end(connection: sa.Connection) -> tuple[int, int]:
    """Return the sequence of the newest push, and up to which sequence the journal is projected."""
    newest = sa.select(sa.func.max(pushes.c.sequence)).scalar_subquery()
    row = connection.execute(sa.select(newest.label("newest"), projection.c.position)).one()
    return row.newest or 0, row.position


def find_oldest_pending(connection: sa.Connection, *, upto: int | None = None) -> float | None:
    """Return the age in seconds of the oldest push that is not projected, of those up to a sequence. None: all are."""
    query = sa.select(pushes.c.received_at).where(_is_pending()).order_by(pushes.c.sequence).limit(1)
    received_at = connection.scalar(query if upto is None else query.where(pushes.c.sequence <= upto))
    return None if received_at is None else max(0.0, (datetime.now(UTC) - received_at).total_seconds())


def find_newest_push_at(connection: sa.Connection) -> datetime | None:
    """Return when the newest push arrived; None: there is none."""
    return connection.scalar(sa.select(pushes.c.received_at).order_by(pushes.c.id.desc()).limit(1))


def quarantine_next(connection: sa.Connection) -> None:
    """Quarantine the next push to be projected: the database refuses what was read in it."""
    following = sa.select(sa.func.min(pushes.c.sequence)).where(_is_pending()).scalar_subquery()
    connection.execute(
        sa.update(pushes)
        .where(pushes.c.sequence == following)
        .values(outcome=Outcome.QUARANTINED, error=REFUSED_BY_DATABASE, **dict.fromkeys(_READING_COLUMNS))
    )


def _is_pending() -> sa.ColumnElement[bool]:
    return pushes.c.sequence > sa.select(projection.c.position).scalar_subquery()


REFUSED_BY_DATABASE = str(FieldFault("body", PushFault.REFUSED_BY_DATABASE))
