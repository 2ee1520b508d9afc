"""Whether the database can be reached, as those know who use it. One side notices that it is gone, another that it is
back, and nobody else has to wait for it to find out."""

from __future__ import annotations

import threading

from receiver.observability import metrics


class CircuitBreaker:
    """Up, down for a reason, or not known yet. Safe for many threads."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._reason: str | None = "not reached yet"
        self.changed = threading.Event()  # for the one who looks after it

    @property
    def up(self) -> bool:
        """Return whether the database was in reach when it was last used."""
        return self._reason is None

    @property
    def known(self) -> bool:
        """Return whether anybody has tried."""
        return self._known.is_set()

    @property
    def reason(self) -> str | None:
        """Why it is down; None: it is up."""
        return self._reason

    def await_known(self, seconds: float) -> bool:
        """Wait until somebody has tried; say whether it is up."""
        self._known.wait(seconds)
        return self.up

    def mark_up(self) -> None:
        """Note that it answers."""
        self._reason = None
        metrics.DATABASE_UP.set(1)
        self._known.set()

    def mark_down(self, reason: str) -> None:
        """Note that it does not, and let its keeper know."""
        self._reason = reason
        metrics.DATABASE_UP.set(0)
        self._known.set()
        self.changed.set()
