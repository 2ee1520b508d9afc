"""gunicorn's master with sd_notify(3): ready once a worker accepts pushes, alive while a worker responds.

Without NOTIFY_SOCKET nothing is sent.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import time
from typing import Any

from gunicorn.arbiter import Arbiter

from receiver.db.sqlite import path_of
from receiver.server.wal_index import WalIndex

_WATCHDOG_SECONDS = 5.0  # between two watchdog messages to systemd
_ALIVE_SECONDS = 10.0  # maximum age of a worker's heartbeat; it sends two a second


class ReceiverArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Sends READY, RELOADING, STOPPING to systemd, and WATCHDOG while a worker is alive.

    gunicorn sends READY itself, but before a worker runs; so NOTIFY_SOCKET is removed from its environment.
    """

    def __init__(self, app: Any) -> None:
        self._notify_socket = os.environ.pop("NOTIFY_SOCKET", "")
        self._ready_pending = True
        self._notified_alive = 0.0
        self._wal_index: WalIndex | None = None
        if app.settings.embedded and (database := path_of(app.settings.database_url)).name:
            self._wal_index = WalIndex(database)
        super().__init__(app)

    def start(self) -> None:
        """Open the listeners; whatever there is by then, the workers share with this process.

        A collection writes to each object that it looks at, and a page that one process writes to is no longer shared:
        a worker's first collection would copy half of its memory. So it does not look at what is older than the fork.
        """
        super().start()
        gc.freeze()

    def murder_workers(self) -> None:
        """Kill hanging workers; gunicorn calls it once a second."""
        super().murder_workers()
        if self._wal_index is not None:
            self._wal_index.preallocate()
        self._notify_alive()

    def reap_workers(self) -> None:
        """Collect ended workers; called often while a reload waits for the old ones."""
        super().reap_workers()
        self._notify_alive()

    def reload(self) -> None:
        """Replace every worker; an old one stops once its successor runs."""
        self._notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=replacing workers")
        super().reload()
        self._ready_pending = True

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers after they have finished accepted requests."""
        self._ready_pending = False
        self._notify_systemd("STOPPING=1\nSTATUS=finishing accepted requests")
        super().stop(graceful)

    def _notify_alive(self) -> None:
        now = time.monotonic()
        if now - self._notified_alive < _WATCHDOG_SECONDS and not self._ready_pending:
            return
        # Before its first heartbeat, a worker's file has its creation time (wall clock).
        ages = [now - worker.tmp.last_update() for worker in list(self.WORKERS.values())]
        if not any(-1 <= age <= _ALIVE_SECONDS for age in ages):
            return
        self._notified_alive = now
        self._notify_systemd("READY=1\nWATCHDOG=1\nSTATUS=accepting pushes" if self._ready_pending else "WATCHDOG=1")
        self._ready_pending = False

    def _notify_systemd(self, state: str) -> None:
        if not self._notify_socket:
            return
        address = re.sub("^@", "\0", self._notify_socket)  # @ stands for the abstract namespace
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.sendto(state.encode(), address)
        except OSError:
            self.log.warning("cannot notify systemd", exc_info=True)
