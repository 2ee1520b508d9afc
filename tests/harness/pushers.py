"""Clients that push as fast as they are answered, and remember every acknowledgement."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from tests.harness.server import read_answer

if TYPE_CHECKING:
    import socket

_REST_SECONDS = 0.02


class Pushed(Protocol):
    """What can be pushed to: a server, or one in front of it."""

    target: str  # the path of pushes

    def connect(self) -> socket.socket:
        """Open a connection to it."""


class Pushers:
    """Some clients on their own connections, from entering the context to leaving it."""

    def __init__(self, process: Pushed, count: int, *, pause_seconds: float = 0.0) -> None:
        self.acks: dict[str, str] = {}  # push id: task id
        self.outcomes: Counter[str] = Counter()  # what acknowledgements said, and other statuses
        self.seconds: list[float] = []  # each push's way to its acknowledgement
        self.failures = 0  # connections refused or broken
        self._process = process
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._run = os.urandom(4).hex()
        self._threads = [threading.Thread(target=self._push, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_acks(self, count: int, seconds: float = 60) -> None:
        """Wait until so many more pushes are acknowledged."""
        wanted = len(self.acks) + count
        deadline = time.monotonic() + seconds
        while len(self.acks) < wanted:
            assert time.monotonic() < deadline, f"{len(self.acks)} of {wanted} acknowledged: {self.outcomes}"
            time.sleep(0.01)

    def p99_seconds(self) -> float:
        """What all but a hundredth of the acknowledgements stayed within."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def _push(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            with suppress(OSError), self._process.connect() as connection:
                while not self._stop.is_set():
                    task_id = f"{self._run}-{number}-{count}"
                    count += 1
                    begun = time.monotonic()
                    connection.sendall(self._request(number, task_id))
                    answer = read_answer(connection)
                    taken = time.monotonic() - begun
                    with self._lock:
                        if answer.status == 200:
                            self.acks[answer.headers["X-Push-Id"]] = task_id
                            self.outcomes[answer.headers["X-Push-Outcome"]] += 1
                            self.seconds.append(taken)
                        else:
                            self.outcomes[str(answer.status)] += 1
                    if answer.headers["Connection"] == "close":
                        break
                    self._stop.wait(self._pause_seconds if answer.status == 200 else _REST_SECONDS)
                continue
            with self._lock:
                self.failures += 1
            self._stop.wait(_REST_SECONDS)

    def _request(self, number: int, task_id: str) -> bytes:
        body = f"mobile=1508092{number:04d}&taskid={task_id}&status=1&receivetime=2019-07-23+17%3A00%3A00".encode()
        lines = [
            f"POST {self._process.target} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            "",
            "",
        ]
        return "\r\n".join(lines).encode() + body
