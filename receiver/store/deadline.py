"""A PostgreSQL connection that gives up in time.

A server that hangs (stopped, or behind a black hole) fires none of its own timeouts, so the time limit is kept on
this side: past it the connection is abandoned, its statement's outcome unknown.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import waiting

if TYPE_CHECKING:
    from psycopg.abc import PQGen

_TICK_SECONDS = 0.1


class DeadlineConnection(psycopg.Connection[Any]):
    """Waits for the server until `deadline`, a reading of time.monotonic(), and no longer. None: for ever."""

    deadline: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = _TICK_SECONDS, timeout: float | None = None) -> Any:
        """Wait as psycopg does. Past the deadline, close the connection and raise OperationalError."""
        if self.deadline is None:
            return super().wait(gen, interval, timeout)
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise psycopg.errors.ConnectionTimeout
            return waiting.wait(gen, self.pgconn.socket, interval=min(interval, left), timeout=left)
        except (psycopg.errors._WaitTimeout, psycopg.errors.ConnectionTimeout):  # noqa: SLF001  (what `timeout` raises)
            self.pgconn.finish()
            raise psycopg.OperationalError("the server did not answer in time") from None
