"""Long polling."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from receiver.web.auth import check_again

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


MAX_WAIT_SECONDS = 30
_POLL_SECONDS = 0.25
# Each waiting request holds a thread; beyond this number, requests are answered at once.
_waiters = threading.BoundedSemaphore(16)


def hold(seconds: float, find: Callable[[], T | None]) -> T | None:
    """Return the first result of `find`, called repeatedly; None: there was none in that time.

    Raises Denied if the caller's key was revoked or expired meanwhile.
    """
    if not _waiters.acquire(blocking=False):
        return None
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if (found := find()) is not None:
                break
        else:
            found = None
        check_again()
        return found
    finally:
        _waiters.release()
