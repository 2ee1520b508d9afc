"""Pushes at a steady rate over TLS, as the platform would, and writes down what became of each.

    python -m tests.faults.client --connect 203.0.113.5 --authority CA.pem --out FILE --rate 200

Until it is told to end (SIGTERM). With `--clients` in place of `--rate` each of so many waits for its answer before it
pushes again, which shows the full rate. Every push is its own, but for one in ten, which is a copy of an earlier one,
and one in ten is a reply. What is refused is lost, as with the platform, but for a few at a time: these are tried again
every 100 ms until they are taken, so that the longest refusal is known.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import ssl
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlencode

from tests.harness.leaks import SECRET
from tests.harness.nginx import NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TRIED_AGAIN_AT_ONCE = 5
_TRY_AGAIN_SECONDS = 0.1
_ANSWER_SECONDS = 10.0
IN_FLIGHT_MAX = 1000
NOT_SENT = "not sent"  # by this client itself: so many were in flight
_REPLY_EVERY = 10
_COPY_EVERY = 10
_COPIED_FROM = 1000  # of the last pushes


@dataclass(kw_only=True)
class Pushed:
    """What became of one push. Times are readings of the machine's monotonic clock."""

    task_id: str
    reply: bool
    begun: float
    acked: float | None = None  # None: it was given up
    push_id: str = ""
    outcome: str = ""
    refusals: list[str] = field(default_factory=list)  # of each try before: a status, or an error's name
    first_refused_at: float | None = None
    refused_at: float | None = None  # the last time
    idle_seconds: float | None = None  # of the kept connection that the server ended as it was used again


class Client:
    """The platform's side."""

    def __init__(self, address: str, authority: Path, out: TextIO) -> None:
        self._address = address
        self._tls = ssl.create_default_context(cafile=authority)
        self._out = out
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
        self._tried_again = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._run = f"{random.getrandbits(32):08x}"
        self._taken: deque[tuple[str, bool]] = deque(maxlen=_COPIED_FROM)

    async def run_paced(self, rate: float) -> None:
        """Push until told to stop, then see the pushes under way through. A slow answer does not make it push less."""
        self._stop_on_signals()
        async for number in _paced(rate, self._stopping):
            if len(self._in_flight) >= IN_FLIGHT_MAX:
                now = time.monotonic()
                left_out = Pushed(task_id=f"{self._run}-{number}", reply=False, begun=now, refusals=[NOT_SENT])
                self._write(left_out)
                continue
            task = asyncio.create_task(self._push(number))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=2 * _ANSWER_SECONDS)

    async def run_in_turn(self, clients: int) -> None:
        """Push until told to stop by so many clients, each of which waits for its answer."""
        self._stop_on_signals()
        numbers = itertools.count(1)

        async def push() -> None:
            while not self._stopping.is_set():
                await self._push(next(numbers))

        await asyncio.gather(*(push() for _ in range(clients)))

    def _stop_on_signals(self) -> None:
        for wanted in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(wanted, self._stopping.set)

    async def _push(self, number: int) -> None:
        if number % _COPY_EVERY == 1 and self._taken:
            task_id, reply = self._taken[random.randrange(len(self._taken))]
        else:
            task_id, reply = f"{self._run}-{number}", number % _REPLY_EVERY == 2
        pushed = Pushed(task_id=task_id, reply=reply, begun=time.monotonic())
        tries_again = False
        try:
            while not await self._try(pushed):
                pushed.refused_at = time.monotonic()
                pushed.first_refused_at = pushed.first_refused_at or pushed.refused_at
                if not tries_again and (self._tried_again >= _TRIED_AGAIN_AT_ONCE or self._stopping.is_set()):
                    break
                if not tries_again:
                    tries_again = True
                    self._tried_again += 1
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
        finally:
            self._tried_again -= tries_again
        self._write(pushed)

    def _write(self, pushed: Pushed) -> None:
        self._out.write(json.dumps(vars(pushed)) + "\n")
        self._out.flush()

    async def _try(self, pushed: Pushed) -> bool:
        connection = None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                kept = self._kept()
                connection = kept[:2] if kept else await self._connect()
                try:
                    status, headers = await _exchange(connection, _request(pushed))
                except (EOFError, ConnectionError) as error:
                    # The server may end an idle connection in the moment that it is used again. Any client with a pool
                    # then pushes once more on a new one; so does the platform's.
                    if kept is None or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                        raise
                    pushed.idle_seconds = time.monotonic() - kept[2]
                    connection[1].close()
                    connection = await self._connect()
                    status, headers = await _exchange(connection, _request(pushed))
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            if connection is not None:
                connection[1].close()
            pushed.refusals.append(type(error).__name__)
            return False
        if headers.get("connection") == "close":
            connection[1].close()
        else:
            self._idle.append((*connection, time.monotonic()))
        if status != 200:
            pushed.refusals.append(str(status))
            return False
        pushed.acked = time.monotonic()
        pushed.push_id, pushed.outcome = headers["x-push-id"], headers["x-push-outcome"]
        self._taken.append((pushed.task_id, pushed.reply))
        return True

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float] | None:
        """Give a connection that the server has not ended meanwhile, as any client with a pool looks first."""
        while self._idle:
            reader, writer, since = self._idle.pop()
            if not reader.at_eof():
                return reader, writer, since
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._address, 443, ssl=self._tls, server_hostname=NAME)


def form(task_id: str, *, reply: bool) -> bytes:
    """Give a push's body: the same for the same task id."""
    number = sum(task_id.encode()) % 10_000
    fields = {"mobile": f"1508092{number:04d}", "taskid": task_id, "receivetime": "2026-11-23 09:14:03"}
    return urlencode(fields | ({"content": "好的"} if reply else {"status": "1"})).encode()


def _request(pushed: Pushed) -> bytes:
    body = form(pushed.task_id, reply=pushed.reply)
    lines = (
        f"POST /push/{SECRET} HTTP/1.1",
        f"Host: {NAME}",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, dict[str, str]]:
    reader, writer = connection
    writer.write(request)
    await writer.drain()
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split(" ")[1]), headers


async def _paced(rate: float, stopping: asyncio.Event) -> AsyncIterator[int]:
    begun = time.monotonic()
    number = 0
    while not stopping.is_set():
        number += 1
        wait = begun + number / rate - time.monotonic()
        if wait > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), wait)
        elif number % 50 == 0:
            await asyncio.sleep(0)
        if not stopping.is_set():
            yield number


def main() -> None:
    """Push until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", required=True, metavar="ADDRESS")
    parser.add_argument("--authority", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rate", type=float, help="pushes a second")
    pace.add_argument("--clients", type=int, help="so many that each wait for the answer before the next push")
    given = parser.parse_args()
    with given.out.open("w") as out:

        async def run() -> None:
            client = Client(given.connect, given.authority, out)
            await (client.run_paced(given.rate) if given.rate else client.run_in_turn(given.clients))

        asyncio.run(run())


if __name__ == "__main__":
    main()
