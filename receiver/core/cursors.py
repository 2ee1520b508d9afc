"""List cursors: opaque to the client, signed with a key that all nodes share."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from itsdangerous import BadData, URLSafeSerializer

from receiver.core.errors import InvalidCursor
from receiver.core.faults import InputFault

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cursors:
    """The cursors of one list under one filter. `key`: the shared secret `cursor`."""

    def __init__(self, key: bytes, name: str, filters: Mapping[str, Any]) -> None:
        text = json.dumps([name, filters], default=str, sort_keys=True)
        # A keyed digest: a cursor goes into URLs, and its filter may hold a number.
        self._digest = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]
        self._serializer = _serializer(key)

    def make(self, *parts: object) -> str:
        """Return the cursor that `read` turns into these parts again, as text."""
        made: str | bytes = self._serializer.dumps([self._digest, *map(str, parts)])
        return made if isinstance(made, str) else made.decode()

    def read(self, cursor: str) -> list[str]:
        """Return the parts of a cursor. Raises InvalidCursor."""
        digest, *parts = _signed_parts(self._serializer, cursor)
        if not hmac.compare_digest(digest, self._digest):
            raise InvalidCursor(InputFault.FOREIGN_CURSOR)
        return [str(part) for part in parts]


def read_unfiltered(key: bytes, cursor: str) -> list[str]:
    """Return the parts of a cursor of any list and filter. Raises InvalidCursor."""
    _, *parts = _signed_parts(_serializer(key), cursor)
    return [str(part) for part in parts]


def _serializer(key: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(key, salt="cursor", signer_kwargs={"digest_method": hashlib.sha256})


def _signed_parts(serializer: URLSafeSerializer, cursor: str) -> list[Any]:
    try:
        digest, *parts = serializer.loads(cursor)
    except (BadData, ValueError):
        raise InvalidCursor(InputFault.INVALID_CURSOR) from None
    return [digest, *parts]
