"""Pushes from the simulator to the receiver, over HTTP or HTTPS."""

from __future__ import annotations

import heapq
import http.client
import itertools
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.core import Kind

if TYPE_CHECKING:
    from receiver.simulator.ledger import Ledger
    from receiver.simulator.traffic import PlannedPush

_TIMEOUT_SECONDS = 15.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
_SLOW_PIECES, _SLOW_PAUSE_SECONDS = 4, 0.1
_FORM = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PushTarget:
    """Where and how to push."""

    receipt_url: str
    reply_url: str
    connections: int = 8
    rate: float = 0.0  # pushes a second at most; 0: as fast as they go
    burst: int = 1  # pushes to collect before they go out together
    retries: int = 0  # after anything but a 2xx
    new_connections: bool = False  # one for each push
    tls: ssl.SSLContext | None = None  # None: the system's, verified


class Pusher:
    """Makes pushes when they are due, from its own threads."""

    def __init__(self, target: PushTarget, ledger: Ledger) -> None:
        self._target = target
        self._ledger = ledger
        self._due: list[tuple[float, int, PlannedPush]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._under_way = 0
        self._burst_left = 0
        self._next_at = 0.0  # when the rate allows another
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"push-{number}", daemon=True)
            for number in range(target.connections)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def add(self, push: PlannedPush) -> None:
        """Plan a push, counted from now."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + push.after_seconds, next(self._order), push))
            self._changed.notify()

    def push_now(self, push: PlannedPush) -> None:
        """Make a push and wait for it, on its own connection."""
        self._push(None, push)

    def drain(self) -> None:
        """Wait until every planned push is made."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def cancel(self) -> None:
        """Drop the pushes that are not made yet."""
        with self._changed:
            self._due.clear()

    @property
    def waiting(self) -> int:
        """The number of pushes to come."""
        with self._changed:
            return len(self._due) + self._under_way

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while (push := self._next()) is not None:
            connection = self._push(connection, push)
            with self._changed:
                self._under_way -= 1
        if connection is not None:
            connection.close()

    def _next(self) -> PlannedPush | None:
        """Wait for the next push that is due and within the rate, and return it; None if no more will come."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._due:
                    due = self._due[0][0]
                    gathered = self._burst_left > 0 or self._stopping or self._has_burst(now)
                    wait = max(due, self._next_at) - now
                    if wait <= 0 and gathered:
                        return self._pop(now)
                    self._changed.wait(wait if wait > 0 else 0.05)
                elif self._stopping:
                    return None
                else:
                    self._changed.wait()

    def _has_burst(self, now: float) -> bool:
        if self._target.burst <= 1:
            return True
        return sum(1 for due, _, _ in self._due[: 2 * self._target.burst] if due <= now) >= self._target.burst

    def _pop(self, now: float) -> PlannedPush:
        _, _, push = heapq.heappop(self._due)
        self._under_way += 1
        self._burst_left = (self._burst_left or self._target.burst) - 1
        if self._target.rate:
            self._next_at = max(self._next_at, now - 0.1) + 1 / self._target.rate
        self._changed.notify()
        return push

    def _push(
        self, connection: http.client.HTTPConnection | None, push: PlannedPush
    ) -> http.client.HTTPConnection | None:
        """Make one push, with its retries. Return the connection for the next one."""
        url = self._target.receipt_url if push.kind is Kind.RECEIPT else self._target.reply_url
        for retry in range(self._target.retries + 1):
            if retry:
                time.sleep(_RETRY_SECONDS[min(retry - 1, len(_RETRY_SECONDS) - 1)])
            connection = self._connection_to(url, connection)
            self._ledger.add_pushed(push)
            try:
                status = self._request(connection, url, push)
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = None
                continue
            if self._target.new_connections:
                connection.close()
                connection = None
            if 200 <= status < 300:
                self._ledger.add_acked(push)
                break
        return connection

    def _connection_to(self, url: str, connection: http.client.HTTPConnection | None) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if connection is not None:
            same = (connection.host, connection.port) == (host, port or connection.default_port)
            if same and isinstance(connection, http.client.HTTPSConnection) == (parts.scheme == "https"):
                return connection
            connection.close()
        if parts.scheme == "https":
            context = self._target.tls or ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=context)
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)

    @staticmethod
    def _request(connection: http.client.HTTPConnection, url: str, push: PlannedPush) -> int:
        path = urlsplit(url).path
        body = b"" if push.in_query else push.form
        connection.putrequest("POST", f"{path}?{push.form.decode()}" if push.in_query else path)
        for name, value in _FORM.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        pieces = _SLOW_PIECES if push.slow else 1
        size = max(1, -(-len(body) // pieces))
        for begin in range(0, len(body), size):
            if begin:
                time.sleep(_SLOW_PAUSE_SECONDS)
            with suppress(BrokenPipeError):  # the answer may say why
                connection.send(body[begin : begin + size])
        answer = connection.getresponse()
        answer.read()
        return answer.status
