"""Recovery codes: each stands in for the second factor once. Only their digests are stored."""

from __future__ import annotations

import hashlib
import secrets

COUNT = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
_GROUPS, _GROUP_CHARS = 4, 4


def make_codes() -> list[str]:
    """Return new codes, such as `k7wd-m2xq-9fhp-c4tz`."""
    return [_make_code() for _ in range(COUNT)]


def _make_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))


def digest_of(code: str, user_id: int) -> str:
    """Return a code as stored; case, spaces and dashes do not matter."""
    # A plain hash will do, as for API keys: sixteen characters are 79 random bits, too many to try.
    plain = "".join(code.lower().split()).replace("-", "")
    return hashlib.sha256(f"{user_id}:{plain}".encode(errors="surrogateescape")).hexdigest()
