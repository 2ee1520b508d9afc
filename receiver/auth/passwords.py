"""Passwords of staff: argon2id, and a minimum strength."""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from receiver.core import Overloaded, SettingsError

MIN_CHARS, MAX_CHARS = 10, 256

# The library's default: RFC 9106, low memory (64 MiB, 3 passes), some 30 ms on one core.
_hasher = PasswordHasher()
# Logging in needs no permission, and each attempt takes 64 MiB: all threads at once would take 4 GiB.
_tries = threading.BoundedSemaphore(2)
_PATIENCE_SECONDS = 2.0


@cache
def _hash_of_nobody() -> str:
    return _hasher.hash("an unknown name takes as much time as a known one")


def hash_password(password: str, *, name: str) -> str:
    """Return a password as stored. Raises SettingsError for a weak one."""
    if len(password) < MIN_CHARS:
        raise SettingsError(f"the password is too short; use at least {MIN_CHARS} characters, ideally several words")
    if len(password) > MAX_CHARS:
        raise SettingsError(f"the password is over {MAX_CHARS} characters")
    if len(set(password)) < MIN_CHARS // 2 or name.casefold() in password.casefold():
        raise SettingsError("the password is too easily guessed; it may not hold the name, nor few characters only")
    return _hasher.hash(password)


def fits_password(password_hash: str | None, password: str) -> bool:
    """Return whether this is the password; takes as long if there is none.

    Raises Overloaded if there are too many attempts at once.
    """
    if not _tries.acquire(timeout=_PATIENCE_SECONDS):
        raise Overloaded("too many log in at once; try again in a moment")
    try:
        _hasher.verify(password_hash or _hash_of_nobody(), password[: MAX_CHARS + 1])
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _tries.release()
    return password_hash is not None
