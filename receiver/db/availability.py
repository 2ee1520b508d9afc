"""Whether the database can be reached, shared by all who use it.

Whoever finds it unavailable, or available again, records that here; other threads do not have to wait to find out.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from receiver.core import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CircuitBreaker:
    """Up, down for a reason, or not known yet. Safe for many threads."""

    def __init__(self, show: Callable[[bool], None] = lambda _: None) -> None:
        self._show = show
        self._known = threading.Event()
        self._reason: str | None = "not reached yet"
        self.changed = threading.Event()  # for the drainer, which tries to reconnect

    @property
    def up(self) -> bool:
        """Return whether the database was reachable when last used."""
        return self._reason is None

    @property
    def known(self) -> bool:
        """Return whether a connection was tried."""
        return self._known.is_set()

    @property
    def reason(self) -> str | None:
        """Return why the database is unavailable; None: it is available."""
        return self._reason

    def await_known(self, seconds: float) -> bool:
        """Wait until a connection was tried; return whether it succeeded."""
        self._known.wait(seconds)
        return self.up

    def mark_up(self) -> None:
        """Record that the database answers."""
        self._reason = None
        self._show(True)
        self._known.set()

    def mark_down(self, reason: str) -> None:
        """Record that the database does not answer, and wake the drainer."""
        self._reason = reason
        self._show(False)
        self._known.set()
        self.changed.set()

    def require(self) -> None:
        """Raise DatabaseUnavailable at once if the database is known to be unavailable."""
        if self.known and not self.up:
            raise DatabaseUnavailable(f"the database is unavailable: {self.reason}")

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Use the database unless it is known to be unavailable; mark it down if it turns out to be."""
        self.require()
        try:
            yield
        except DatabaseUnavailable as error:
            if self.up:
                self.mark_down(str(error))
            raise
