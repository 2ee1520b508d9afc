"""Encryption at rest, in the tables: column types that encrypt what is stored and decrypt what is read.

A dialect carries the state that the process knows (`ColumnEncryption`); each `Database` has its own dialect. Without
keys, or while the database is plain, the types change nothing. An encrypted value has a mark, so plain ones are not
mistaken.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from enum import StrEnum
from json import dumps, loads
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from receiver.core import DatabaseMisconfigured, DatabaseUnavailable
from receiver.db.encryption.marks import END_DIGITS, MARK, TOKEN_CHARS, is_token
from receiver.db.trigger_codes import TriggerCode
from receiver.net.self_test import SELF_TEST_BODY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Dialect

    from receiver.db.encryption.ciphers import FieldCipher, Keyring

_ATTRIBUTE = "receiver_encryption"  # of a dialect
_ROOT = b"encryption.root"
TEXT_MARK = "sealed:"


class EncryptionState(StrEnum):
    """The state of a database's encryption; the stored names are older."""

    PLAIN = "plain"
    ENCRYPTING = "sealing"
    ENCRYPTED = "sealed"
    DECRYPTING = "opening"


_UNDER_WAY = {
    EncryptionState.ENCRYPTING: "the database is being encrypted; if interrupted, run `receiver db encrypt` again",
    EncryptionState.DECRYPTING: "the database is being decrypted; if interrupted, run `receiver db decrypt` again",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encryption:
    """The encryption state that a database has stored."""

    state: EncryptionState
    root: bytes = b""  # root of the keys of its tokens, encrypted

    def cipher(self, ring: Keyring | None) -> FieldCipher:
        """Return the cipher of its rows. Raises DatabaseMisconfigured if the key is missing."""
        if ring is None:
            raise DatabaseMisconfigured("the database is encrypted; set RECEIVER_ENCRYPTION_KEYS to its keys")
        # A library that takes 8 MB, for encrypted databases alone.
        from receiver.db.encryption.ciphers import FieldCipher  # noqa: PLC0415

        return FieldCipher(ring, ring.decrypt(self.root, _ROOT))


class ColumnEncryption:
    """The encryption state that one process knows; shared by its Databases. Safe for many threads."""

    def __init__(self, keys: Sequence[tuple[str, bytes]] = ()) -> None:
        self.ring = _make_ring(keys) if keys else None
        self.cipher: FieldCipher | None = None  # None: the database is plain, or not loaded yet
        self.known = False

    def load(self, connection: sa.Connection) -> None:
        """Load the encryption state and the cipher from the database.

        Raises DatabaseUnavailable while encryption is being changed, DatabaseMisconfigured if its keys are missing.
        """
        found = find_encryption(connection)
        connection.rollback()
        if reason := being_changed(found.state):
            raise DatabaseUnavailable(reason)
        self.cipher = found.cipher(self.ring) if found.state is EncryptionState.ENCRYPTED else None
        self.known = True

    def is_outdated(self, connection: sa.Connection) -> bool:
        """Return whether the database's encryption state differs from the loaded one."""
        encrypted = self.cipher is not None
        return self.known and find_encryption(connection).state is not (
            EncryptionState.ENCRYPTED if encrypted else EncryptionState.PLAIN
        )

    def forget(self) -> None:
        """Load the state again before the next query."""
        self.known = False

    def attach(self, dialect: Dialect) -> None:
        """Use this state for the column types of a dialect."""
        setattr(dialect, _ATTRIBUTE, self)


def _make_ring(keys: Sequence[tuple[str, bytes]]) -> Keyring:
    # A library that takes 8 MB, for processes with keys alone.
    from receiver.db.encryption.ciphers import Keyring  # noqa: PLC0415

    return Keyring(keys)


def being_changed(state: EncryptionState) -> str | None:
    """Return that a database's encryption is being changed, and what to do; None: it is not."""
    return _UNDER_WAY.get(state)


def cipher_of(dialect: Dialect) -> FieldCipher | None:
    """Return the cipher of a database's rows; None: it is plain."""
    encryption: ColumnEncryption | None = getattr(dialect, _ATTRIBUTE, None)
    return None if encryption is None else encryption.cipher


def find_encryption(connection: sa.Connection) -> Encryption:
    """Return the encryption state of a database; without the table it is plain."""
    if not sa.inspect(connection).has_table("encryption"):
        return Encryption(state=EncryptionState.PLAIN)
    row = connection.execute(sa.text("SELECT state, root FROM encryption")).one_or_none()
    return (
        Encryption(state=EncryptionState.PLAIN)
        if row is None
        else Encryption(state=EncryptionState(row.state), root=bytes(row.root))
    )


def encrypt_root(ring: Keyring, root: bytes) -> bytes:
    """Return the root of an encrypted database's tokens, encrypted for storage."""
    return ring.encrypt(root, _ROOT)


def decrypt_root(ring: Keyring, encrypted: bytes) -> bytes:
    """Return the root that `encrypt_root` encrypted. Raises DecryptionError."""
    return ring.decrypt(encrypted, _ROOT)


# --- Column types ---------------------------------------------------------------------------------------


class Mobile(TypeDecorator[str]):
    """A full number, stored as its token. A number masked by the platform is stored unchanged."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None else mobile_token(cipher, value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None or not is_token(value) else cipher.number(value)


class MobileEnd(TypeDecorator[str]):
    """The end of a number, or of its token."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None or len(value) != END_DIGITS else cipher.end(value)


class EncryptedBytes(TypeDecorator[bytes]):
    """Bytes encrypted for one place. Empty bytes and the self-test's body are stored unchanged."""

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None else encrypt_bytes(cipher.ring, value, self.place.encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        cipher = cipher_of(dialect)
        if cipher is None or value is None or not value.startswith(MARK):
            return value
        return cipher.ring.decrypt(value, self.place.encode())


class EncryptedText(TypeDecorator[str]):
    """Text encrypted for one place."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None else encrypt_text(cipher.ring, value, self.place.encode())

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        cipher = cipher_of(dialect)
        if cipher is None or value is None or not value.startswith(TEXT_MARK):
            return value
        return decrypt_text(cipher.ring, value, self.place.encode())


class EncryptedJson(TypeDecorator[Any]):
    """JSON other than a string, encrypted for one place as a string."""

    impl = sa.JSON
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__(none_as_null=True)
        self.place = place

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None else encrypt_json(cipher.ring, value, self.place.encode())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        cipher = cipher_of(dialect)
        if cipher is None or not isinstance(value, str):
            return value
        return decrypt_json(cipher.ring, value, self.place.encode())


class ContentDigest(TypeDecorator[bytes]):
    """The SHA-256 that identifies a content, keyed if the database is encrypted."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        cipher = cipher_of(dialect)
        return value if cipher is None or value is None else cipher.digest(value)


def mobile_token(cipher: FieldCipher, mobile: str) -> str:
    """Return the token of a number; text that is no number stays as it is, and matches no row."""
    return cipher.token(mobile) if mobile.isascii() and mobile.isdigit() and len(mobile) < _NO_NUMBER else mobile


_NO_NUMBER = 17  # digits, or more


def encrypt_bytes(ring: Keyring, value: bytes, place: bytes) -> bytes:
    """Return bytes of a push, encrypted."""
    return ring.encrypt(value, place) if value and not value.startswith(SELF_TEST_BODY) else value


def encrypt_text(ring: Keyring, value: str, place: bytes) -> str:
    """Return text, encrypted, as text."""
    return TEXT_MARK + b64encode(ring.encrypt(value.encode("utf-8", "surrogatepass"), place)).decode()


def decrypt_text(ring: Keyring, value: str, place: bytes) -> str:
    """Return the text that `encrypt_text` encrypted. Raises DecryptionError."""
    return ring.decrypt(b64decode(value.removeprefix(TEXT_MARK)), place).decode("utf-8", "surrogatepass")


def is_under(ring: Keyring, value: str) -> bool:
    """Return whether text is encrypted under the first of these keys."""
    return value.startswith(TEXT_MARK) and b64decode(value.removeprefix(TEXT_MARK)).startswith(ring.head)


def encrypt_json(ring: Keyring, value: Any, place: bytes) -> str:
    """Return JSON, encrypted, as a string, which is JSON too."""
    return encrypt_text(ring, dumps(value), place)


def decrypt_json(ring: Keyring, value: str, place: bytes) -> Any:
    """Return the JSON that `encrypt_json` encrypted. Raises DecryptionError."""
    return loads(decrypt_text(ring, value, place))


# --- Guards ---------------------------------------------------------------------------------------------
# A process that does not know of a change yet must not write as before: one number would get two messages. Each table's
# guard refuses such writes from the transaction on that begins the change; the pushes go to the spool.

_GUARDED = ("pushes", "messages", "replies", "look_ups", "notes")
_EVENTS = ("insert", "update")
# The command that changes the encryption sets this in each of its transactions, on PostgreSQL.
UNHINDERED = "SET LOCAL receiver.encrypts = 'on'"
_OTHERS = "coalesce(current_setting('receiver.encrypts', true), '') = ''"


def guard_statements(dialect: str, state: EncryptionState) -> Iterator[str]:
    """Return the statements that permit only writes of rows in that state, and none while it is being changed."""
    if dialect == "postgresql":
        yield (
            "CREATE OR REPLACE FUNCTION refuse_other_encryption() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{TriggerCode.ENCRYPTION_CHANGED}'; END $$"
        )
    for table in _GUARDED:
        yield from _drops(dialect, table)
        if state is EncryptionState.ENCRYPTED:
            condition = f"NOT ({_is_encrypted(dialect, table)})"
        else:
            condition = _OTHERS if dialect == "postgresql" else "true"
        if state is not EncryptionState.PLAIN:
            yield from _creations(dialect, table, condition)


def _drops(dialect: str, table: str) -> Iterator[str]:
    if dialect == "postgresql":
        yield f"DROP TRIGGER IF EXISTS encryption_{table} ON {table}"
    else:
        yield from (f"DROP TRIGGER IF EXISTS encryption_{table}_{event}" for event in _EVENTS)


def _creations(dialect: str, table: str, condition: str) -> Iterator[str]:
    if dialect == "postgresql":
        yield (
            f"CREATE TRIGGER encryption_{table} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW"
            f" WHEN ({condition}) EXECUTE FUNCTION refuse_other_encryption()"
        )
        return
    for event in _EVENTS:
        yield (
            f"CREATE TRIGGER encryption_{table}_{event} BEFORE {event.upper()} ON {table} WHEN {condition}"
            f" BEGIN SELECT RAISE(ABORT, '{TriggerCode.ENCRYPTION_CHANGED}'); END"
        )


def _is_encrypted(dialect: str, table: str) -> str:
    """Return the condition that a new row of a table is encrypted, or has nothing to encrypt."""

    def literal(value: bytes) -> str:
        return f"'\\x{value.hex()}'::bytea" if dialect == "postgresql" else f"x'{value.hex()}'"

    def begins(column: str, value: bytes) -> str:
        return f"substr(new.{column}, 1, {len(value)}) = {literal(value)}"

    match table:
        case "messages":
            return f"length(new.mobile) = {TOKEN_CHARS}"
        case "replies":
            return "new.content_sealed IS NOT NULL"
        case "look_ups" | "notes":
            return f"substr(new.text, 1, {len(TEXT_MARK)}) = '{TEXT_MARK}'"
        case _:
            body = f"length(new.body) = 0 OR {begins('body', MARK)} OR {begins('body', SELF_TEST_BODY)}"
            return f"(length(new.query) = 0 OR {begins('query', MARK)}) AND ({body})"
