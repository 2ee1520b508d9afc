"""Parses the path of a push: `push`, the secret, and an optional kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

from receiver.core import Kind

_WORD = "push"
PUSH_PATH = rf"(?i:{_WORD})(?:/(?s:.*))?"  # for use in regular expressions, without leading slashes
_PUSH_PATH = re.compile(f"/+{PUSH_PATH}")
_KINDS = {str(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class PushPath:
    """The relevant parts of a path. The rest is not stored."""

    secret: str  # empty: there is none
    endpoint: Kind | None  # None: the combined URL
    strayed: bool  # the path differs from the documented URLs


def is_push_path(path: str) -> bool:
    """Return whether a percent-decoded path is a push URL, valid or not."""
    return _PUSH_PATH.fullmatch(path) is not None


def read_push_path(path: str) -> PushPath:
    """Return the parts of a percent-decoded push path without its query.

    Empty segments are ignored; only the secret is case-sensitive. A push with the right secret is never refused for
    the rest of the path: a sender with a mistyped URL ignores our answer and would lose every push.
    """
    word, *behind = [segment for segment in path.split("/") if segment]
    secret, *tail = behind or [""]
    endpoint = _KINDS.get(tail[-1].lower()) if tail else None
    return PushPath(secret, endpoint, strayed=word != _WORD or len(tail) > (endpoint is not None))
