"""Encryption at rest: keys and ciphers.

Contents (AES-256-GCM) have a random nonce and the name of their key, so that keys can be changed. Numbers become
tokens, equal for equal numbers, because rows are found by them: AES-SIV, whose synthetic IV is a keyed hash of the
number. So a token serves both to look a number up and to decrypt it. The tokens' key is made once, and stored in the
database, encrypted.
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

from receiver.db.encryption.marks import END_DIGITS, MARK, RANGE_DIGITS, SIV_CHARS, CiphertextDamaged, DecryptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NONCE_BYTES = 12
_REMEMBERED = 16_384  # numbers, each way: reports follow a moment after the sends


class Keyring:
    """The keys of RECEIVER_ENCRYPTION_KEYS: the first encrypts, each decrypts. Safe for many threads."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys}
        self.newest = keys[0][0]
        self._cipher = self._ciphers[self.newest.encode()]
        self.head = head_of(self.newest)  # prefix of bytes encrypted under the first key

    def encrypt(self, plain: bytes, place: bytes) -> bytes:
        """Return bytes encrypted for one place, such as a column: they can be decrypted for no other."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.head + nonce + self._cipher.encrypt(nonce, plain, place)

    def decrypt(self, encrypted: bytes, place: bytes) -> bytes:
        """Return the bytes that were encrypted for a place. Raises DecryptionError, naming a missing key."""
        name = _key_name(encrypted)
        cipher = self._ciphers.get(name)
        if cipher is None:
            missing = name.decode("ascii", "replace")
            raise DecryptionError(f"the key {missing} is missing; add it to RECEIVER_ENCRYPTION_KEYS, after the others")
        begin = len(MARK) + 1 + len(name)
        nonce_end = begin + _NONCE_BYTES
        try:
            return cipher.decrypt(encrypted[begin:nonce_end], encrypted[nonce_end:], place)
        except (InvalidTag, ValueError):
            raise CiphertextDamaged(
                f"a value under the key {name.decode()} cannot be decrypted: it was changed,"
                " or RECEIVER_ENCRYPTION_KEYS has another key of that name"
            ) from None

    def can_decrypt(self, value: bytes, place: bytes) -> bool:
        """Return whether bytes were encrypted for a place, by one of these keys."""
        if not value.startswith(MARK):
            return False
        try:
            self.decrypt(value, place)
        except DecryptionError:
            return False
        return True


def head_of(name: str) -> bytes:
    """Return the prefix of bytes encrypted under a key."""
    return MARK + bytes([len(name)]) + name.encode()


def _key_name(encrypted: bytes) -> bytes:
    begin = len(MARK) + 1
    has_name = encrypted.startswith(MARK) and len(encrypted) > begin
    return encrypted[begin : begin + encrypted[len(MARK)]] if has_name else b"?"


# --- Numbers, and what replies are found by -------------------------------------------------------------

_NUMBER_BYTES = 7
_GRAM_BYTES = 2

_LETTERS = "0123456789abcdefghijklmnopqrstuv"  # sort the same in every collation


class FieldCipher:
    """The ciphers of one encrypted database. Safe for many threads.

    A token begins with a keyed hash of the number's first seven digits and ends with one of its last four, with as many
    characters each. So the same indexes group ranges, and find numbers by their end, as for plain numbers.
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
        return begin + urlsafe_b64encode(siv)[:SIV_CHARS].decode() + self.end(mobile[-END_DIGITS:])

    def _number(self, token: str) -> str:
        """Return the number of a token. Raises CiphertextDamaged."""
        try:
            siv = urlsafe_b64decode(token[RANGE_DIGITS:-END_DIGITS] + "=")
            return str(int.from_bytes(self._numbers.decrypt(siv, [b"mobile"])))[1:]
        except (InvalidTag, ValueError):
            raise CiphertextDamaged("a number in the database cannot be decrypted: it was changed") from None

    def end(self, digits: str) -> str:
        """Return the end of the tokens of numbers that end with these four digits."""
        return urlsafe_b64encode(_keyed(self._ends, digits.encode(), 3)).decode()

    def digest(self, sha256: bytes) -> bytes:
        """Return the keyed digest for a content's digest: without the key, contents cannot be guessed by trying."""
        return _keyed(self._digests, sha256, 32)

    def grams(self, text: str) -> str:
        """Return the hashes of a text's characters and pairs of neighbours, in lower case, for the search.

        They are short, so each stands for several; the decrypted content decides.
        """
        return " ".join(sorted({self._gram(gram) for gram in _grams(text.lower())}))

    def _hash_of_gram(self, gram: str) -> str:
        return _keyed(self._grams, gram.encode("utf-8", "surrogatepass"), _GRAM_BYTES).hex()


def _grams(text: str) -> Iterator[str]:
    yield from text
    for place in range(len(text) - 1):
        yield text[place : place + 2]


def _derived(root: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"receiver " + label).derive(root)


def _keyed(key: bytes, value: bytes, size: int) -> bytes:
    return hashlib.blake2b(value, key=key, digest_size=size).digest()
