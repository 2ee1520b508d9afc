"""Encryption at rest: the keys, and the columns that are encrypted with them."""

from __future__ import annotations

from receiver.db.encryption.columns import (
    UNHINDERED,
    ColumnEncryption,
    ContentDigest,
    EncryptedBytes,
    EncryptedJson,
    EncryptedText,
    EncryptionState,
    Mobile,
    MobileEnd,
    being_changed,
    cipher_of,
    encrypt_bytes,
    encrypt_json,
    find_encryption,
    guard_statements,
    mobile_token,
)
from receiver.db.encryption.marks import (
    MARK,
    ROOT_BYTES,
    TOKEN_CHARS,
    CiphertextDamaged,
    DecryptionError,
    is_token,
)

__all__ = [
    "MARK",
    "ROOT_BYTES",
    "TOKEN_CHARS",
    "UNHINDERED",
    "CiphertextDamaged",
    "ColumnEncryption",
    "ContentDigest",
    "DecryptionError",
    "EncryptedBytes",
    "EncryptedJson",
    "EncryptedText",
    "EncryptionState",
    "Mobile",
    "MobileEnd",
    "being_changed",
    "cipher_of",
    "encrypt_bytes",
    "encrypt_json",
    "find_encryption",
    "guard_statements",
    "is_token",
    "mobile_token",
]
