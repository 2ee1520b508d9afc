"""What the path of a push says: the word `push`, a secret, and what stands behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from receiver.core import Kind

_WORD = "push"
PUSH_PATH = rf"(?i:{_WORD})(?:/(?s:.*))?"  # as a part of regular expressions; the slashes before it count for nothing
_PUSH_PATH = re.compile(f"/+{PUSH_PATH}")
_KINDS = {str(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class PushPath:
    """The parts of a path that count. The rest of it is kept nowhere."""

    secret: str  # empty: there is none
    endpoint: Kind | None  # None: the combined URL
    strayed: bool  # it is not written as we write it: whoever set the URL meant another


def is_push_path(path: str) -> bool:
    """Return whether a path, percent-decoded, is that of a push, right or wrong."""
    return _PUSH_PATH.fullmatch(path) is not None


def read_push_path(path: str) -> PushPath:
    """Return what the path of a push says, percent-decoded, without its query.

    Empty segments count for nothing, and case in the secret alone. A right secret is never turned away for what stands
    around it: who pushes to a mistyped path does not look at our answer, and would lose every push.
    """
    word, *behind = [segment for segment in path.split("/") if segment]
    secret, *tail = behind or [""]
    endpoint = _KINDS.get(tail[-1].lower()) if tail else None
    return PushPath(secret, endpoint, strayed=word != _WORD or len(tail) > (endpoint is not None))
