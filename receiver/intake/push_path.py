"""What the path of a push says: all that stands behind `/push/`."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.domain import Kind

_KINDS = {str(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class PushPath:
    """The parts of a path that count. The rest of it is kept nowhere."""

    secret: str  # empty: there is none
    endpoint: Kind | None  # None: the combined URL
    strayed: bool  # there is more behind the secret than a kind: whoever set the URL meant another


def read_push_path(behind: str) -> PushPath:
    """Return what stands behind `/push/`, percent-decoded, without its query.

    Empty segments count for nothing, and the last one in any case. A right secret is never turned away for what follows
    it: who pushes to a mistyped path does not look at our answer, and would lose every push.
    """
    secret, *tail = [segment for segment in behind.split("/") if segment] or [""]
    endpoint = _KINDS.get(tail[-1].lower()) if tail else None
    return PushPath(secret, endpoint, strayed=len(tail) > (endpoint is not None))
