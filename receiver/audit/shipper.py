"""Ships the audit to a syslog server: in the order of its chain, at least once, by one process at a time.

The database stores the last shipped position. No request waits for it: while the server is unavailable, entries only
accumulate.
"""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

from receiver.audit.log import Entry, find_shipped, list_links, note_shipped, take_shipping_turn
from receiver.core import ReceiverError, SyslogAddress
from receiver.net.syslog import SyslogConnection, SyslogError, write_line
from receiver.observability import get_logger, metrics

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from receiver.db.engine import Database

_log = get_logger(__name__)

_AT_ONCE = 200
_CHECK_SECONDS = 1.0
_RETRY_SECONDS = 5.0  # also for who has not the turn


class Shipper:
    """One thread of one process; over all of them and all nodes, one has the turn."""

    def __init__(
        self,
        database: Database,
        address: SyslogAddress,
        *,
        require_database: Callable[[], None],
        tls: ssl.SSLContext | None = None,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._database = database
        self._address = address
        self._require_database = require_database  # raises DatabaseUnavailable while it is unavailable
        self._tls = tls
        self._retry_seconds = retry_seconds
        self._host = socket.gethostname()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; in the process that is to do it, after any fork."""
        self._thread = threading.Thread(target=self._run, name="audit-shipper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        failing = False
        while not self._stopping.is_set():
            try:
                self._ship()
                failing = False
            except Exception as error:  # noqa: BLE001  (the edge of the thread: it has to go on)
                known = isinstance(error, ReceiverError | SyslogError)
                metrics.AUDIT_SYSLOG_FAILURES.inc()
                if not failing:
                    _log.warning("audit not sent on", reason=str(error) if known else type(error).__name__)
                failing = True
            self._stopping.wait(self._retry_seconds)

    def _ship(self) -> None:
        """Ship existing and new entries, while this process has the turn and nothing fails."""
        self._require_database()
        with self._database.maintaining() as connection:
            if not take_shipping_turn(connection):
                return
            position = find_shipped(connection)
            connection.rollback()
            with SyslogConnection(self._address, tls=self._tls) as server:
                while not self._stopping.is_set():
                    entries = list_links(connection, position, _AT_ONCE)
                    connection.rollback()
                    if not entries:
                        server.require_open()
                        self._stopping.wait(_CHECK_SECONDS)
                        continue
                    server.send([self._line(entry) for entry in entries])
                    position = entries[-1].position or position
                    self._database.write(lambda writer, last=position: note_shipped(writer, last))  # type: ignore[misc]

    def _line(self, entry: Entry) -> bytes:
        said = {"id": entry.id, "position": entry.position, "actor": entry.actor, "action": entry.action}
        return write_line(
            at=entry.at,
            host=self._host,
            app="receiver",
            name=entry.action,
            data=said | {"hash": (entry.hash or b"").hex()},
            message=json.dumps(entry.detail or {}, separators=(",", ":")),
        )
