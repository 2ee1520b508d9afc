"""Encryption at rest: how an encrypted value is recognized, and what is wrong with one; without the library's ciphers.

So a process without keys does not load that library (`ciphers`), which takes 8 MB.
"""

from __future__ import annotations

from receiver.core import DatabaseMisconfigured

ROOT_BYTES = 32
MARK = b"\xf5\xe5"  # prefix of encrypted bytes; no UTF-8 text has it
RANGE_DIGITS, END_DIGITS = 7, 4  # of a number, to group numbers and to find them by their end
SIV_CHARS = 31  # of 16 bytes of IV and 7 of the number
TOKEN_CHARS = RANGE_DIGITS + SIV_CHARS + END_DIGITS


class DecryptionError(DatabaseMisconfigured):
    """A value is encrypted under a missing key, or is damaged."""


class CiphertextDamaged(DecryptionError):
    """A value under a known key cannot be decrypted: this value was changed."""


def is_token(text: str) -> bool:
    """Return whether a text in place of a number is a token; no number is that long."""
    return len(text) == TOKEN_CHARS
