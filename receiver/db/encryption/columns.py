"""Encryption at rest, where the rows are: column types that seal what goes in and open what comes out.

A dialect, of which each `Database` has its own, carries what the process knows (`ColumnEncryption`). Without keys, or
while the database is plain, every type hands values through. An encrypted value says so itself: none is mistaken.
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
from receiver.db.encryption.crypto import END_DIGITS, MARK, TOKEN_CHARS, FieldCipher, Keyring, is_token
from receiver.net.self_test import SELF_TEST_BODY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Dialect

_ATTRIBUTE = "receiver_sealing"  # of a dialect
_ROOT = b"encryption.root"
TEXT_MARK = "sealed:"
REFUSED = "the encryption of this database was changed"  # how the guards begin what they refuse writes with


class EncryptionState(StrEnum):
    """How far the encryption of a database is."""

    PLAIN = "plain"
    SEALING = "sealing"
    SEALED = "sealed"
    OPENING = "opening"


_UNDER_WAY = {
    EncryptionState.SEALING: "the database is being encrypted; if nobody is at it, go on with `receiver db encrypt`",
    EncryptionState.OPENING: "the database is being decrypted; if nobody is at it, go on with `receiver db decrypt`",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encryption:
    """What a database says of its own encryption."""

    state: EncryptionState
    root: bytes = b""  # of its tokens' keys, sealed

    def sealer(self, ring: Keyring | None) -> FieldCipher:
        """Return what its rows are sealed with. Raises StoreUnfit where that key is missing."""
        if ring is None:
            raise DatabaseMisconfigured(
                "the database is encrypted; set RECEIVER_ENCRYPTION_KEYS to the keys that it had"
            )
        return FieldCipher(ring, ring.open(self.root, _ROOT))


class ColumnEncryption:
    """What one process knows of its database's encryption; its Databases share it. Safe for many threads."""

    def __init__(self, keys: Sequence[tuple[str, bytes]] = ()) -> None:
        self.ring = Keyring(keys) if keys else None
        self.sealer: FieldCipher | None = None  # None: the database is plain, as far as is known
        self.known = False

    def load(self, connection: sa.Connection) -> None:
        """Find out whether the database is encrypted, and with what.

        Raises StoreUnavailable while that is being changed, StoreUnfit where its keys are missing.
        """
        found = find_encryption(connection)
        connection.rollback()
        if reason := being_changed(found.state):
            raise DatabaseUnavailable(reason)
        self.sealer = found.sealer(self.ring) if found.state is EncryptionState.SEALED else None
        self.known = True

    def is_outdated(self, connection: sa.Connection) -> bool:
        """Return whether the database's encryption is another than it was found to be."""
        sealed = self.sealer is not None
        return self.known and find_encryption(connection).state is not (
            EncryptionState.SEALED if sealed else EncryptionState.PLAIN
        )

    def forget(self) -> None:
        """Find it out anew before the next question."""
        self.known = False

    def attach(self, dialect: Dialect) -> None:
        """Let the types of a dialect seal and open by this."""
        setattr(dialect, _ATTRIBUTE, self)


def being_changed(state: EncryptionState) -> str | None:
    """Say that a database's encryption is being changed; None: it is not."""
    return _UNDER_WAY.get(state)


def cipher_of(dialect: Dialect) -> FieldCipher | None:
    """Return what a database's rows are sealed with; None: nothing."""
    sealing: ColumnEncryption | None = getattr(dialect, _ATTRIBUTE, None)
    return None if sealing is None else sealing.sealer


def find_encryption(connection: sa.Connection) -> Encryption:
    """Ask a database how far its encryption is; one whose schema knows of none is plain."""
    if not sa.inspect(connection).has_table("encryption"):
        return Encryption(state=EncryptionState.PLAIN)
    row = connection.execute(sa.text("SELECT state, root FROM encryption")).one_or_none()
    return (
        Encryption(state=EncryptionState.PLAIN)
        if row is None
        else Encryption(state=EncryptionState(row.state), root=bytes(row.root))
    )


def encrypt_root(ring: Keyring, root: bytes) -> bytes:
    """Seal what an encrypted database's tokens are made from, as it is kept there."""
    return ring.seal(root, _ROOT)


def decrypt_root(ring: Keyring, sealed: bytes) -> bytes:
    """Return what `encrypt_root` sealed. Raises NotOpened."""
    return ring.open(sealed, _ROOT)


# --- Column types ---------------------------------------------------------------------------------------


class Mobile(TypeDecorator[str]):
    """A full number, kept as its token. One that the platform masked is kept as it is."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None else mobile_token(sealer, value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None or not is_token(value) else sealer.number(value)


class MobileEnd(TypeDecorator[str]):
    """The end of a number, or of its token."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None or len(value) != END_DIGITS else sealer.end(value)


class EncryptedBytes(TypeDecorator[bytes]):
    """Bytes that are sealed for one place. Nothing at all, and what the self-test pushes, are kept as they are."""

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None else encrypt_bytes(sealer.ring, value, self.place.encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        sealer = cipher_of(dialect)
        if sealer is None or value is None or not value.startswith(MARK):
            return value
        return sealer.ring.open(value, self.place.encode())


class EncryptedText(TypeDecorator[str]):
    """Text that is sealed for one place."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None else encrypt_text(sealer.ring, value, self.place.encode())

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        sealer = cipher_of(dialect)
        if sealer is None or value is None or not value.startswith(TEXT_MARK):
            return value
        return decrypt_text(sealer.ring, value, self.place.encode())


class EncryptedJson(TypeDecorator[Any]):
    """JSON that is no text by itself, sealed for one place as one."""

    impl = sa.JSON
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__(none_as_null=True)
        self.place = place

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None else encrypt_json(sealer.ring, value, self.place.encode())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        sealer = cipher_of(dialect)
        if sealer is None or not isinstance(value, str):
            return value
        return decrypt_json(sealer.ring, value, self.place.encode())


class ContentDigest(TypeDecorator[bytes]):
    """What tells contents apart: their SHA-256, or what stands for it where they are sealed."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        sealer = cipher_of(dialect)
        return value if sealer is None or value is None else sealer.digest(value)


def mobile_token(sealer: FieldCipher, mobile: str) -> str:
    """Return the token of a number; of what is none, what no row has."""
    return sealer.token(mobile) if mobile.isascii() and mobile.isdigit() and len(mobile) < _NO_NUMBER else mobile


_NO_NUMBER = 17  # digits, or more


def encrypt_bytes(ring: Keyring, value: bytes, place: bytes) -> bytes:
    """Seal bytes of a push."""
    return ring.seal(value, place) if value and not value.startswith(SELF_TEST_BODY) else value


def encrypt_text(ring: Keyring, value: str, place: bytes) -> str:
    """Seal text as text."""
    return TEXT_MARK + b64encode(ring.seal(value.encode("utf-8", "surrogatepass"), place)).decode()


def decrypt_text(ring: Keyring, value: str, place: bytes) -> str:
    """Return what `encrypt_text` sealed. Raises NotOpened."""
    return ring.open(b64decode(value.removeprefix(TEXT_MARK)), place).decode("utf-8", "surrogatepass")


def is_under(ring: Keyring, value: str) -> bool:
    """Return whether text was sealed under the first of these keys."""
    return value.startswith(TEXT_MARK) and b64decode(value.removeprefix(TEXT_MARK)).startswith(ring.head)


def encrypt_json(ring: Keyring, value: Any, place: bytes) -> str:
    """Seal JSON as a text, which is JSON too."""
    return encrypt_text(ring, dumps(value), place)


def decrypt_json(ring: Keyring, value: str, place: bytes) -> Any:
    """Return what `encrypt_json` sealed. Raises NotOpened."""
    return loads(decrypt_text(ring, value, place))


# --- Guards ---------------------------------------------------------------------------------------------
# A process that has not heard of a change yet must keep nothing as it did: the same number would have two messages.
# Each table's guard refuses its writes, from the transaction on that begins the change; they wait in the spool.

_GUARDED = ("pushes", "messages", "replies", "look_ups")
_EVENTS = ("insert", "update")
# Whoever changes the encryption sets this for each of its transactions, on PostgreSQL.
UNHINDERED = "SET LOCAL receiver.encrypts = 'on'"
_OTHERS = "coalesce(current_setting('receiver.encrypts', true), '') = ''"


def guard_statements(dialect: str, state: EncryptionState) -> Iterator[str]:
    """Return the statements that let only rows of a state be written, and none while that is being changed."""
    if dialect == "postgresql":
        yield (
            "CREATE OR REPLACE FUNCTION refuse_other_encryption() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$"
        )
    for table in _GUARDED:
        yield from _drops(dialect, table)
        if state is EncryptionState.SEALED:
            condition = f"NOT ({_is_sealed(dialect, table)})"
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
            f" BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
        )


def _is_sealed(dialect: str, table: str) -> str:
    """Write whether a new row of a table is sealed, or has nothing that would be."""

    def literal(value: bytes) -> str:
        return f"'\\x{value.hex()}'::bytea" if dialect == "postgresql" else f"x'{value.hex()}'"

    def begins(column: str, value: bytes) -> str:
        return f"substr(new.{column}, 1, {len(value)}) = {literal(value)}"

    match table:
        case "messages":
            return f"length(new.mobile) = {TOKEN_CHARS}"
        case "replies":
            return "new.content_sealed IS NOT NULL"
        case "look_ups":
            return f"substr(new.text, 1, {len(TEXT_MARK)}) = '{TEXT_MARK}'"
        case _:
            body = f"length(new.body) = 0 OR {begins('body', MARK)} OR {begins('body', SELF_TEST_BODY)}"
            return f"(length(new.query) = 0 OR {begins('query', MARK)}) AND ({body})"
