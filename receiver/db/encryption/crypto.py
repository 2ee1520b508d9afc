"""Encryption at rest: what is written where others may read it, sealed so that only our keys open it.

Contents (AES-256-GCM) are sealed anew each time, under a key that is named in what comes out, so that keys can be
changed. Numbers become tokens, which have to be the same each time, since rows are found by them: AES-SIV, whose
synthetic IV is a keyed hash of the number, so that the token is both what a number is looked up by and what it is read
from. Their key is made once, and kept in the database, sealed.
"""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from receiver.core import DatabaseMisconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT_BYTES = 32
MARK = b"\xf5\xe5"  # begins what is sealed; no UTF-8 text does
_NONCE_BYTES = 12
_REMEMBERED = 16_384  # numbers, each way: what was sent to a moment ago is reported on now


class DecryptionError(DatabaseMisconfigured):
    """Something was sealed under a key that is not here, or is not what was sealed."""


class CiphertextDamaged(DecryptionError):
    """What is sealed under a key that is here does not open: it was changed, and it alone."""


class Keyring:
    """The keys of RECEIVER_ENCRYPTION_KEYS: every one opens, the first seals. Safe for many threads."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys}
        self.newest = keys[0][0]
        self._cipher = self._ciphers[self.newest.encode()]
        self.head = head_of(self.newest)  # begins what the first key seals

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """Seal bytes for one place, such as a column: they open there and nowhere else."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.head + nonce + self._cipher.encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return what was sealed for a place. Raises NotOpened, naming a key that is missing."""
        name = _key_name(sealed)
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise DecryptionError(
                f"something is sealed under the key {name.decode('ascii', 'replace')}, which RECEIVER_ENCRYPTION_KEYS"
                " does not name; add it there, behind the others"
            )
        begin = len(MARK) + 1 + len(name)
        nonce_end = begin + _NONCE_BYTES
        try:
            return cipher.decrypt(sealed[begin:nonce_end], sealed[nonce_end:], place)
        except (InvalidTag, ValueError):
            raise CiphertextDamaged(
                f"what is sealed under the key {name.decode()} does not open: RECEIVER_ENCRYPTION_KEYS has another key"
                " of that name, or it was changed"
            ) from None

    def opens(self, value: bytes, place: bytes) -> bool:
        """Return whether bytes were sealed for a place, by one of these keys."""
        if not value.startswith(MARK):
            return False
        try:
            self.open(value, place)
        except DecryptionError:
            return False
        return True


def head_of(name: str) -> bytes:
    """Return the bytes that begin what a key seals."""
    return MARK + bytes([len(name)]) + name.encode()


def _key_name(sealed: bytes) -> bytes:
    begin = len(MARK) + 1
    return sealed[begin : begin + sealed[len(MARK)]] if sealed.startswith(MARK) and len(sealed) > begin else b"?"


# --- Numbers, and what replies are found by -------------------------------------------------------------

RANGE_DIGITS, END_DIGITS = 7, 4  # of a number, by which numbers are put together and found
_NUMBER_BYTES = 7
_SIV_CHARS = 31  # of 16 bytes of IV and 7 of the number
TOKEN_CHARS = RANGE_DIGITS + _SIV_CHARS + END_DIGITS
_GRAM_BYTES = 2

_LETTERS = "0123456789abcdefghijklmnopqrstuv"  # sort alike wherever text is sorted


class FieldCipher:
    """What one encrypted database seals with. Safe for many threads.

    A token begins with a keyed hash of the number's first seven digits and ends with one of its last four, as many
    characters each: so ranges are grouped, and numbers found by their end, by the same indexes as plain numbers.
    """

    def __init__(self, ring: Keyring, root: bytes) -> None:
        self.ring = ring
        self._numbers = AESSIV(_derived(root, b"numbers", 64))
        self._ranges, self._ends, self._digests, self._grams = (
            _derived(root, label, 32) for label in (b"ranges", b"ends", b"digests", b"grams")
        )
        self.token = lru_cache(_REMEMBERED)(self._token)
        self.number = lru_cache(_REMEMBERED)(self._number)
        self._gram = lru_cache(_REMEMBERED)(self._hash_of_gram)

    def _token(self, mobile: str) -> str:
        """Return the token of a full number: the same each time."""
        siv = self._numbers.encrypt(int(f"1{mobile}").to_bytes(_NUMBER_BYTES), [b"mobile"])
        hashed = int.from_bytes(_keyed(self._ranges, mobile[:RANGE_DIGITS].encode(), 5))
        begin = "".join([_LETTERS[hashed >> shift & 31] for shift in range(0, 5 * RANGE_DIGITS, 5)])
        return begin + urlsafe_b64encode(siv)[:_SIV_CHARS].decode() + self.end(mobile[-END_DIGITS:])

    def _number(self, token: str) -> str:
        """Return the number of a token. Raises Damaged."""
        try:
            siv = urlsafe_b64decode(token[RANGE_DIGITS:-END_DIGITS] + "=")
            return str(int.from_bytes(self._numbers.decrypt(siv, [b"mobile"])))[1:]
        except (InvalidTag, ValueError):
            raise CiphertextDamaged("a number in the database does not open: it was changed") from None

    def end(self, digits: str) -> str:
        """Return how the tokens end of numbers that end with these four digits."""
        return urlsafe_b64encode(_keyed(self._ends, digits.encode(), 3)).decode()

    def digest(self, sha256: bytes) -> bytes:
        """Return what stands for a content's digest: nobody without the key can try contents."""
        return _keyed(self._digests, sha256, 32)

    def grams(self, text: str) -> str:
        """Return the hashes of a text's characters and pairs of neighbours, in lower case: what it is found by.

        Short, so that each stands for several; which one is meant, the content itself has to say.
        """
        return " ".join(sorted({self._gram(gram) for gram in _grams(text.lower())}))

    def _hash_of_gram(self, gram: str) -> str:
        return _keyed(self._grams, gram.encode("utf-8", "surrogatepass"), _GRAM_BYTES).hex()


def is_token(text: str) -> bool:
    """Return whether a text in place of a number is a token; no number is so long."""
    return len(text) == TOKEN_CHARS


def _grams(text: str) -> Iterator[str]:
    yield from text
    for place in range(len(text) - 1):
        yield text[place : place + 2]


def _derived(root: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"receiver " + label).derive(root)


def _keyed(key: bytes, value: bytes, size: int) -> bytes:
    return hashlib.blake2b(value, key=key, digest_size=size).digest()
