"""Clients that each send one push, wait for its answer, and send the next: raw sockets and epoll in one process."""

from __future__ import annotations

import math
import re
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOW_CLOSE_SECONDS = 3.0
_READ_BYTES = 65536
_TICK_SECONDS = 0.2
# After a failure a client rests: a server that refuses would otherwise be asked as fast as it can refuse.
_REST_SECONDS = 0.01
_ERRORS_MAX = 1000
_CATCH_UP_SECONDS = 0.1
_STRIDE = 61_803_399  # coprime to the range
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n")
_CLOSES = b"\r\nconnection: close\r\n"
_BODY = b"mobile=150%08d&taskid=%s%010d&status=1&receivetime=2026-11-23+09%%3A14%%3A03"


@dataclass
class Tally:
    """What the clients have seen since it was begun."""

    begun: float
    answered: int = 0
    latencies_seconds: list[float] = field(default_factory=list)  # of answered pushes that were sent since
    reconnects: int = 0
    errors: int = 0
    first_error: str = ""


class _Client:
    """One client: its connection, the push it waits for, and what came of the answer so far."""

    __slots__ = ("answer", "begun", "connection", "fd", "request", "served", "unsent", "waits_to_write")

    def __init__(self) -> None:
        self.connection: socket.socket | None = None
        self.fd = -1
        self.request = b""
        self.unsent = b""
        self.waits_to_write = False
        self.answer = b""
        self.begun = 0.0
        self.served = 0  # answers on this connection


class Clients:
    """Pushes to one path of 127.0.0.1 whenever `run` is called, never more at a time than there are clients.

    `per_push`: a connection for every push, closed once it is answered; else each client keeps its own. They begin
    one after the other over `ramp_seconds`. `rate`: at most so many pushes a second, evenly. `body_of`: the body of the
    push of a number, counted from 1. `on_ack` is given the head of each answer of 200, in small letters.
    """

    def __init__(
        self,
        port: int,
        path: str,
        count: int,
        *,
        per_push: bool,
        ramp_seconds: float = 0.0,
        rate: float | None = None,
        body_of: Callable[[int], bytes] | None = None,
        on_ack: Callable[[bytes], object] | None = None,
    ) -> None:
        self.tally = Tally(math.inf)
        self.acked = 0  # pushes answered with 200 over the whole life
        self._address = ("127.0.0.1", port)
        self._per_push = per_push
        self._epoll = select.epoll()
        self._clients = [_Client() for _ in range(count)]
        # Kept connections that all arrive in one moment may all go to the one worker that wakes first, and stay there.
        self._yet_to_begin = list(reversed(self._clients))
        self._ramp_seconds = ramp_seconds / count
        self._next_begins = 0.0
        self._resting: list[_Client] = []
        self._interval = 1 / rate if rate else 0.0
        self._due = 0.0
        self._paced: deque[tuple[float, _Client]] = deque()  # when each may send
        self._by_fd: dict[int, _Client] = {}
        self._sending = True
        # Task ids differ over runs, so that no push is a copy of an earlier run's.
        self._prefix = b"b%015x" % (time.time_ns() // 1000)
        self._number = 0
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Content-Type: application/x-www-form-urlencoded;charset=utf-8",
            *(["Connection: close"] if per_push else []),
            "Content-Length: ",
        ]
        self._head = "\r\n".join(lines).encode()
        self._body_of = body_of or self._receipt_of
        self._on_ack = on_ack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            self._close(client)
        self._epoll.close()

    def begin_tally(self) -> None:
        """Count anew from now on; the latency of a push that is under way will not be known."""
        self.tally = Tally(time.perf_counter())

    def run(self, until: float) -> None:
        """Push until that reading of time.perf_counter, or until too much fails."""
        poll, by_fd = self._epoll.poll, self._by_fd
        while self.tally.errors < _ERRORS_MAX and (by_fd or self._resting or self._yet_to_begin or self._paced):
            if self._resting:
                self._wake()
            left = until - time.perf_counter()
            if left <= 0:
                return
            patience = min(left, _TICK_SECONDS)
            if self._yet_to_begin:
                patience = min(patience, self._ramp())
            if self._paced:
                patience = min(patience, self._release())
            for fd, events in poll(patience):
                client = by_fd[fd]
                if events & select.EPOLLIN:
                    self._read(client)
                elif events & (select.EPOLLERR | select.EPOLLHUP):
                    self._broken(client, "connection refused or broken")
                else:
                    self._write(client)

    def finish(self, seconds: float) -> None:
        """Wait for what is under way, sending nothing more: a push that hangs at the end has a latency too."""
        self._sending = False
        self._resting.clear()
        for _, client in self._paced:
            self._close(client)
        self._paced.clear()
        self._yet_to_begin.clear()
        self.run(time.perf_counter() + seconds)
        for client in list(self._by_fd.values()):
            self._fail(client, f"no answer within {seconds:.0f} s of the end")

    def _ramp(self) -> float:
        """Let the next client begin if it is time, and tell how long the one after it has yet."""
        now = time.perf_counter()
        if now >= self._next_begins:
            self._next_begins = now + self._ramp_seconds
            self._send_next(self._yet_to_begin.pop())
        return self._next_begins - now

    def _release(self) -> float:
        """Let those send whose time has come, and tell how long the next one has yet."""
        while self._paced and (left := self._paced[0][0] - time.perf_counter()) <= 0:
            self._send_now(self._paced.popleft()[1])
        return max(0.0, left)

    def _wake(self) -> None:
        time.sleep(_REST_SECONDS)
        resting, self._resting = self._resting, []
        for client in resting:
            self._send_next(client)

    def _send_next(self, client: _Client) -> None:
        if not self._sending:
            self._close(client)
            return
        if self._interval:
            now = time.perf_counter()
            self._due = max(self._due + self._interval, now - _CATCH_UP_SECONDS)
            if self._due > now:
                self._paced.append((self._due, client))
                return
        self._send_now(client)

    def _send_now(self, client: _Client) -> None:
        self._number = number = self._number + 1
        body = self._body_of(number)
        client.request = b"%s%d\r\n\r\n%s" % (self._head, len(body), body)
        client.begun = time.perf_counter()
        self._send(client)

    def _receipt_of(self, number: int) -> bytes:
        # Numbers all over the range, as people's are.
        return _BODY % (number * _STRIDE % 100_000_000, self._prefix, number)

    def _send(self, client: _Client) -> None:
        client.answer = b""
        client.unsent = client.request
        if client.connection is None:
            self._connect(client)
        self._write(client)

    def _connect(self, client: _Client) -> None:
        client.connection = connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(self._address)  # a failure is told by the first write
        client.fd = connection.fileno()
        client.served = 0
        client.waits_to_write = False
        self._by_fd[client.fd] = client
        self._epoll.register(client.fd, select.EPOLLIN)

    def _write(self, client: _Client) -> None:
        assert client.connection is not None
        try:
            sent = client.connection.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(client, str(error))
            return
        client.unsent = client.unsent[sent:]
        waits = bool(client.unsent)
        if waits != client.waits_to_write:
            self._epoll.modify(client.fd, select.EPOLLIN | select.EPOLLOUT if waits else select.EPOLLIN)
            client.waits_to_write = waits

    def _read(self, client: _Client) -> None:
        assert client.connection is not None
        try:
            piece = client.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(client, str(error))
            return
        if not piece:
            self._broken(client, "connection closed before the answer was whole")
            return
        answer = client.answer = client.answer + piece if client.answer else piece
        end = answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = answer[: end + 2].lower()
        length = _LENGTH.search(head)
        if length is None:
            self._fail(client, f"no Content-Length in the answer: {head[:200]!r}")
        elif len(answer) - end - 4 >= int(length[1]):
            self._answered(client, head)

    def _answered(self, client: _Client, head: bytes) -> None:
        now = time.perf_counter()
        if head[9:12] != b"200":
            self._fail(client, head.partition(b"\r\n")[0].decode("latin-1"))
            return
        tally = self.tally
        tally.answered += 1
        if client.begun >= tally.begun:
            tally.latencies_seconds.append(now - client.begun)
        self.acked += 1
        if self._on_ack is not None:
            self._on_ack(head)
        client.served += 1
        if self._per_push or _CLOSES in head:
            # Closed here too, and at once: a server may wait for that.
            self._close(client)
        self._send_next(client)

    def _broken(self, client: _Client, reason: str) -> None:
        if client.served and not client.answer:
            # A kept connection may end between two pushes; a pushing platform then opens another.
            self.tally.reconnects += 1
            self._close(client)
            self._send(client)
            return
        self._fail(client, reason)

    def _fail(self, client: _Client, reason: str) -> None:
        self.tally.errors += 1
        self.tally.first_error = self.tally.first_error or reason
        self._close(client)
        if self._sending:
            self._resting.append(client)

    def _close(self, client: _Client) -> None:
        if client.connection is not None:
            del self._by_fd[client.fd]
            client.connection.close()
            client.connection = None


class SlowClosers:
    """Peers that ask for the end of their connection, and then keep it open for a while."""

    def __init__(self, port: int, path: str, count: int) -> None:
        self._address = ("127.0.0.1", port)
        body = _BODY % (0, b"slow", 0)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        form = "Content-Type: application/x-www-form-urlencoded;charset=utf-8\r\n\r\n"
        self._request = (head + form).encode() + body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(self._address, timeout=_SLOW_CLOSE_SECONDS) as connection:
                    connection.sendall(self._request)
                    connection.recv(_READ_BYTES)
                    self._stop.wait(_SLOW_CLOSE_SECONDS)
            except OSError:
                self._stop.wait(0.1)
