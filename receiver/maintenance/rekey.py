"""Encrypts or decrypts a database, or moves it to another key, in small transactions; can be interrupted.

During encryption and decryption no one else may write (guards), and pushes wait in the spool. A key rotation runs
beside writers and re-encrypts only contents; tokens stay.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DatabaseUnavailable, ReceiverError, shown_content
from receiver.db.encryption import (
    MARK,
    ROOT_BYTES,
    UNHINDERED,
    DecryptionError,
    EncryptionState,
    columns,
    find_encryption,
    guard_statements,
    is_token,
)
from receiver.db.migration_ops import LOCK_TIMEOUT
from receiver.db.tables import encryption, look_ups, messages, notes, pushes, receipts, replies
from receiver.maintenance.pages import iter_pages, reading_each
from receiver.maintenance.vacuum import rewrite_sqlite
from receiver.messages.projector import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.db.encryption.ciphers import FieldCipher, Keyring
    from receiver.db.engine import Database

_ALONE_ROWS = 2000  # per transaction, without other writers
_BESIDE_ROWS = 250
_BESIDE_SHARE = 0.5  # pause after a batch, as a share of its time, for pushes
_REWRITE_WAIT_SECONDS = 3600.0  # for other writers: only the rewrite ends the change
_LOCK_SECONDS, _LOCK_PAUSE_SECONDS = 600.0, 0.5
_NAME = "database"
_TABLES = (pushes, messages, receipts, replies, look_ups, notes)
_BYTES_OF_PUSHES = {"query": "pushes.query", "body": "pushes.body", "digest": "pushes.reading_digest"}

Row = dict[str, Any]


def encrypt(database: Database, ring: Keyring, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Encrypt every row of a plain or partly encrypted database; return the number of rows encrypted now.

    `on_progress` receives the number of rows checked since the last call.
    Raises ReceiverError, DatabaseUnavailable or DatabaseMisconfigured.
    """
    found = _state(database)
    if found.state is EncryptionState.DECRYPTING:
        raise ReceiverError("the database is being decrypted; finish that first with `receiver db decrypt`")
    if found.state is EncryptionState.ENCRYPTED:
        return 0
    if found.state is EncryptionState.PLAIN:
        catch_up(database)
        root = columns.encrypt_root(ring, os.urandom(ROOT_BYTES))
        _set_state(database, EncryptionState.ENCRYPTING, root)
        found = _state(database)
    work = _Change(_Goal.ENCRYPTED, found.cipher(ring))
    count = sum(_walk(database, table, work, on_progress) for table in _TABLES)
    if not database.postgresql:  # there autovacuum removes the plain rows later
        rewrite_sqlite(database, wait_seconds=_REWRITE_WAIT_SECONDS)
    _set_state(database, EncryptionState.ENCRYPTED)
    return count


def decrypt(database: Database, ring: Keyring, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Decrypt every row of an encrypted or partly decrypted database; return the number of rows decrypted now.

    Raises ReceiverError, DatabaseUnavailable or DatabaseMisconfigured.
    """
    found = _state(database)
    if found.state is EncryptionState.ENCRYPTING:
        raise ReceiverError("the database is being encrypted; finish that first with `receiver db encrypt`")
    if found.state is EncryptionState.PLAIN:
        return 0
    work = _Change(_Goal.PLAIN, found.cipher(ring))
    if found.state is EncryptionState.ENCRYPTED:
        _set_state(database, EncryptionState.DECRYPTING)
    count = sum(_walk(database, table, work, on_progress) for table in _TABLES)
    _set_state(database, EncryptionState.PLAIN)
    return count


def rotate(database: Database, ring: Keyring, on_progress: Callable[[int], None] = lambda _: None) -> tuple[int, int]:
    """Re-encrypt rows of other keys with the first key, while others write.

    Return the number of re-encrypted rows, and the number written meanwhile with another key: then a process does not
    have the first key yet. Raises ReceiverError, DatabaseUnavailable or DatabaseMisconfigured.
    """
    found = _state(database)
    if found.state is not EncryptionState.ENCRYPTED:
        raise ReceiverError(f"the database is not encrypted, but {found.state}; see `receiver db encrypt`")
    found.cipher(ring)
    root = columns.encrypt_root(ring, columns.decrypt_root(ring, found.root))
    database.write(lambda connection: connection.execute(sa.update(encryption).values(root=root)))
    work = _Change(_Goal.RENEWED, found.cipher(ring))
    tables = [table for table in _TABLES if table is not messages]  # tokens stay as they are
    first = sum(_walk(database, table, work, on_progress) for table in tables)
    return first, sum(_walk(database, table, work, on_progress) for table in tables)


def _state(database: Database) -> columns.Encryption:
    with database.reading() as connection:
        return find_encryption(connection)


def _set_state(database: Database, state: EncryptionState, root: bytes = b"") -> None:
    """Set the encryption state, and the guards that allow only matching rows from then on."""

    def work(connection: sa.Connection) -> None:
        if database.postgresql:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        _set_guards(connection, state)
        if state is EncryptionState.ENCRYPTING:
            connection.execute(sa.insert(encryption).values(name=_NAME, state=state, root=root))
        elif state is EncryptionState.PLAIN:
            connection.execute(sa.delete(encryption))
        else:
            connection.execute(sa.update(encryption).values(state=state))

    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            database.write(work)
        except DatabaseUnavailable:  # lock timeout: pushes would queue behind a longer wait
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


def _set_guards(connection: sa.Connection, state: EncryptionState) -> None:
    for statement in guard_statements(connection.dialect.name, state):
        connection.exec_driver_sql(statement)


# --- Rows -----------------------------------------------------------------------------------------------


class _Goal(Enum):
    ENCRYPTED = auto()
    RENEWED = auto()  # encrypted with the first key
    PLAIN = auto()


@dataclass(frozen=True, slots=True)
class _Change:
    """The change of each value; a value that is already as wanted stays."""

    goal: _Goal
    cipher: FieldCipher

    def row(self, table: sa.Table, row: Any) -> Row:
        """Return the columns of a row that change."""
        new: Row
        if table is pushes:
            new = {name: self._bytes(getattr(row, name), place) for name, place in _BYTES_OF_PUSHES.items()}
            new |= {
                "receipt_extra": self._json(row.receipt_extra, "receipts.extra"),
                "reply_extra": self._json(row.reply_extra, "replies.extra"),
                "mobile": None if row.mobile is None else self._mobile(row.mobile),
            }
            if row.content is not None:
                new |= self._content(row)
        elif table is messages:
            new = {"mobile": self._mobile(row.mobile)}
        elif table in (look_ups, notes):
            new = {"text": self._text(row.text, f"{table.name}.text".encode())}
        else:
            new = {"extra": self._json(row.extra, f"{table.name}.extra")}
            if table is replies:
                new |= self._content(row) | {"masked_mobile": self._mobile(row.masked_mobile)}
        return {name: value for name, value in new.items() if value != getattr(row, name)}

    def _bytes(self, value: bytes | None, place: str) -> bytes | None:
        ring = self.cipher.ring
        if value is None:
            return None
        if self.goal is _Goal.ENCRYPTED:
            # A plain push may start like an encrypted one: it is encrypted only if it decrypts.
            return (
                value if ring.can_decrypt(value, place.encode()) else columns.encrypt_bytes(ring, value, place.encode())
            )
        if not value.startswith(MARK) or (self.goal is _Goal.RENEWED and value.startswith(ring.head)):
            return value
        plain = ring.decrypt(value, place.encode())
        return plain if self.goal is _Goal.PLAIN else ring.encrypt(plain, place.encode())

    def _mobile(self, value: str) -> str:
        if self.goal is _Goal.PLAIN:
            return self.cipher.number(value) if is_token(value) else value
        return value if is_token(value) else columns.mobile_token(self.cipher, value)

    def _text(self, value: str, place: bytes) -> str:
        ring = self.cipher.ring
        if self.goal is _Goal.RENEWED and columns.is_under(ring, value):
            return value
        try:
            plain = columns.decrypt_text(ring, value, place)
        except (ValueError, DecryptionError):
            if self.goal is _Goal.RENEWED:
                raise
            return value if self.goal is _Goal.PLAIN else columns.encrypt_text(ring, value, place)
        if self.goal is _Goal.PLAIN:
            return plain
        return columns.encrypt_text(ring, plain, place) if self.goal is _Goal.RENEWED else value

    def _json(self, value: Any, place: str) -> Any:
        if value is None or isinstance(value, str) == (self.goal is _Goal.ENCRYPTED):
            return value
        ring = self.cipher.ring
        if self.goal is _Goal.RENEWED and columns.is_under(ring, value):
            return value
        plain = columns.decrypt_json(ring, value, place.encode()) if isinstance(value, str) else value
        return plain if self.goal is _Goal.PLAIN else columns.encrypt_json(ring, plain, place.encode())

    def _content(self, row: Any) -> Row:
        ring, place = self.cipher.ring, b"replies.content"
        if row.content_sealed is None:
            if self.goal is not _Goal.ENCRYPTED:
                return {}
            exact = row.content.encode() if row.content_exact is None else row.content_exact
            return {
                "content": "",
                "content_exact": None,
                "content_sealed": ring.encrypt(exact, place),
                "content_grams": self.cipher.grams(row.content),
                "content_sha256": self.cipher.digest(row.content_sha256),
            }
        if self.goal is _Goal.ENCRYPTED:
            return {}
        exact = ring.decrypt(row.content_sealed, place)
        if self.goal is _Goal.RENEWED:
            current = row.content_sealed.startswith(ring.head)
            return {} if current else {"content_sealed": ring.encrypt(exact, place)}
        content = shown_content(exact.decode())
        return {
            "content": content,
            "content_exact": exact if exact != content.encode() else None,
            "content_sealed": None,
            "content_grams": None,
            "content_sha256": hashlib.sha256(exact).digest(),
        }


# --- Tables ---------------------------------------------------------------------------------------------


def _walk(database: Database, table: sa.Table, change: _Change, on_progress: Callable[[int], None]) -> int:
    """Change every row of a table in key order; return the number of changed rows."""
    (key,) = table.primary_key.columns
    alone = change.goal is not _Goal.RENEWED
    limit = _ALONE_ROWS if alone else _BESIDE_ROWS
    query = sa.select(table)
    if table is receipts:
        query = query.where(table.c.extra.isnot(None))
    elif not alone:
        query = query.where(_may_be_stale(table, change.cipher.ring))
    changed = 0
    begun = time.monotonic()
    for rows in iter_pages(reading_each(database), query, key, limit):
        found = [(row, new) for row in rows if (new := change.row(table, row))]
        if found:
            database.write(partial(_update, table=table, key=key.name, found=found, alone=alone))
        changed += len(found)
        on_progress(len(rows))
        if not alone:
            time.sleep((time.monotonic() - begun) * _BESIDE_SHARE)
        begun = time.monotonic()
    return changed


def _update(
    connection: sa.Connection, *, table: sa.Table, key: str, found: Sequence[tuple[Any, Row]], alone: bool
) -> None:
    """Write the changed rows; this transaction bypasses the guards."""
    postgresql = connection.dialect.name == "postgresql"
    if alone and postgresql:
        connection.exec_driver_sql(UNHINDERED)
    if alone and not postgresql:
        _set_guards(connection, EncryptionState.PLAIN)
    names = sorted({name for _, new in found for name in new})
    statement = sa.update(table).where(table.c[key] == sa.bindparam("key_of_row"))
    connection.execute(
        statement.values({name: sa.bindparam(f"new_{name}") for name in names}),
        [
            {"key_of_row": getattr(row, key), **{f"new_{name}": new.get(name, getattr(row, name)) for name in names}}
            for row, new in found
        ],
    )
    if alone and not postgresql:
        _set_guards(connection, find_encryption(connection).state)


def _may_be_stale(table: sa.Table, ring: Keyring) -> sa.ColumnElement[bool]:
    """Return the condition for rows that may be encrypted with another key than the first."""

    def begins(column: sa.Column[Any], head: bytes) -> sa.ColumnElement[bool]:
        return sa.func.substr(column, 1, len(head), type_=sa.LargeBinary) == head

    def sealed_by_other(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
        return sa.and_(begins(column, MARK), sa.not_(begins(column, ring.head)))

    column = table.c
    if table is pushes:
        encrypted = (column.query, column.body, column.digest, column.content_sealed)
        extra = (column.receipt_extra.isnot(None), column.reply_extra.isnot(None))
        return sa.or_(*map(sealed_by_other, encrypted), *extra)
    if table is replies:
        return sa.or_(column.extra.isnot(None), sealed_by_other(column.content_sealed))
    return sa.true()
