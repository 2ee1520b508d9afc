"""Pushes at a steady rate over TLS, as the platform would, and writes down what became of each.

    python -m tests.faults.client --connect 203.0.113.5 --authority CA.pem --out FILE --rate 200

Until it is told to end (SIGTERM). Every push is its own, but for one in ten, which is a copy of an earlier one, and one
in ten is a reply. What is refused is lost, as with the platform, but for a few at a time: these are tried again every
100 ms until they are taken, so that the longest refusal is known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import ssl
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
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
_IN_FLIGHT_MAX = 400
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


class Client:
    """The platform's side: an open loop, so that a slow answer does not make it push less."""

    def __init__(self, address: str, authority: Path, out: TextIO) -> None:
        self._address = address
        self._tls = ssl.create_default_context(cafile=authority)
        self._out = out
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tried_again = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._run = f"{random.getrandbits(32):08x}"
        self._taken: list[tuple[str, bool]] = []

    async def run(self, rate: float) -> None:
        """Push until told to stop, then see the pushes under way through."""
        for wanted in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(wanted, self._stopping.set)
        async for number in _paced(rate, self._stopping):
            if len(self._in_flight) >= _IN_FLIGHT_MAX:
                continue
            task = asyncio.create_task(self._push(number))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=2 * _ANSWER_SECONDS)

    async def _push(self, number: int) -> None:
        if number % _COPY_EVERY == 1 and self._taken:
            task_id, reply = random.choice(self._taken)
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
        self._out.write(json.dumps(asdict(pushed)) + "\n")
        self._out.flush()

    async def _try(self, pushed: Pushed) -> bool:
        connection = None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = self._kept() or await self._connect()
                status, headers = await _exchange(connection, _request(pushed))
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            if connection is not None:
                connection[1].close()
            pushed.refusals.append(type(error).__name__)
            return False
        if headers.get("connection") == "close":
            connection[1].close()
        else:
            self._idle.append(connection)
        if status != 200:
            pushed.refusals.append(str(status))
            return False
        pushed.acked = time.monotonic()
        pushed.push_id, pushed.outcome = headers["x-push-id"], headers["x-push-outcome"]
        self._taken = [*self._taken[-_COPIED_FROM:], (pushed.task_id, pushed.reply)]
        return True

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Give a connection that the server has not ended meanwhile, as any client with a pool looks first."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
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
    parser.add_argument("--rate", type=float, default=200)
    given = parser.parse_args()
    with given.out.open("w") as out:

        async def run() -> None:
            await Client(given.connect, given.authority, out).run(given.rate)

        asyncio.run(run())


if __name__ == "__main__":
    main()
