"""Encryption at rest: the keys, and the columns that are encrypted with them."""

from __future__ import annotations

from receiver.db.encryption.columns import (
    REFUSED,
    UNHINDERED,
    ContentDigest,
    Mobile,
    MobileEnd,
    SealedBytes,
    SealedJson,
    SealedText,
    Sealing,
    State,
    being_changed,
    find_encryption,
    guard_statements,
    mobile_token,
    seal_bytes,
    sealer_of,
)
from receiver.db.encryption.crypto import MARK, ROOT_BYTES, TOKEN_CHARS, Damaged, KeyRing, NotOpened, Sealer, is_token

__all__ = [
    "MARK",
    "REFUSED",
    "ROOT_BYTES",
    "TOKEN_CHARS",
    "UNHINDERED",
    "ContentDigest",
    "Damaged",
    "KeyRing",
    "Mobile",
    "MobileEnd",
    "NotOpened",
    "SealedBytes",
    "SealedJson",
    "SealedText",
    "Sealer",
    "Sealing",
    "State",
    "being_changed",
    "find_encryption",
    "guard_statements",
    "is_token",
    "mobile_token",
    "seal_bytes",
    "sealer_of",
]
