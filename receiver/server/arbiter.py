"""gunicorn's master as systemd sees it: ready once it takes pushes, alive while a worker answers.

systemd's protocol (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names; without it nothing is sent.
"""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Any

from gunicorn.arbiter import Arbiter

from receiver.db.sqlite import path_of
from receiver.server.wal_index import WalIndex

_WATCHDOG_SECONDS = 5.0  # between two signs of life to systemd
_ALIVE_SECONDS = 10.0  # how old a worker's last sign may be; it gives two a second


class ReceiverArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Tells systemd READY, RELOADING, STOPPING, and WATCHDOG as long as a worker gives signs of life.

    gunicorn says READY by itself, but before there is a worker: so the socket's name is taken from its sight.
    """

    def __init__(self, app: Any) -> None:
        self._notify_socket = os.environ.pop("NOTIFY_SOCKET", "")
        self._owes_ready = True
        self._told_alive = 0.0
        self._wal_index: WalIndex | None = None
        if app.settings.embedded and (database := path_of(app.settings.database_url)).name:
            self._wal_index = WalIndex(database)
        super().__init__(app)

    def murder_workers(self) -> None:
        """End workers that hang; comes once a second."""
        super().murder_workers()
        if self._wal_index is not None:
            self._wal_index.take_room()
        self._tell_alive()

    def reap_workers(self) -> None:
        """See which workers have ended; comes often while a reload waits for the old ones."""
        super().reap_workers()
        self._tell_alive()

    def reload(self) -> None:
        """Replace every worker, each old one once a new one is there."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=replaces its workers")
        super().reload()
        self._owes_ready = True

    def stop(self, graceful: bool = True) -> None:
        """Let the workers finish what they have taken, and end them."""
        self._owes_ready = False
        self._tell("STOPPING=1\nSTATUS=finishes what it has taken")
        super().stop(graceful)

    def _tell_alive(self) -> None:
        now = time.monotonic()
        if now - self._told_alive < _WATCHDOG_SECONDS and not self._owes_ready:
            return
        # Until its first sign of life a worker's file has the time of day at which it was made.
        ages = [now - worker.tmp.last_update() for worker in list(self.WORKERS.values())]
        if not any(-1 <= age <= _ALIVE_SECONDS for age in ages):
            return
        self._told_alive = now
        self._tell("READY=1\nWATCHDOG=1\nSTATUS=takes pushes" if self._owes_ready else "WATCHDOG=1")
        self._owes_ready = False

    def _tell(self, state: str) -> None:
        if not self._notify_socket:
            return
        address = re.sub("^@", "\0", self._notify_socket)  # @ stands for the abstract namespace
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.sendto(state.encode(), address)
        except OSError:
            self.log.warning("systemd cannot be told how it goes", exc_info=True)
