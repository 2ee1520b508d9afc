"""A target that fails, hangs, resets, answers 410 and restarts, in a process of its own; it notes what it has taken."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.sharedctypes import Synchronized

_DOWN_SECONDS = 2.0
_START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Misbehaviour:
    """How often of what, as a share of requests; `gone_at` and `restart_at`: when so many were taken."""

    fails: float = 0.01
    resets: float = 0.002
    hangs: float = 0.0001
    gone_at: tuple[int, ...] = ()
    restart_at: tuple[int, ...] = ()


class BadTarget:
    """It, from entering to leaving; `path` gets a line for each event that it has taken: id, type, task, time."""

    def __init__(self, path: Path, bad: Misbehaviour, *, hangs_always: bool = False) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.path = path
        context = multiprocessing.get_context("spawn")
        self._taken: Synchronized[int] = context.Value("i", 0)
        self._failing: Synchronized[int] = context.Value("i", 0)
        self._process: BaseProcess = context.Process(
            target=_main, args=(str(path), self.port, bad, hangs_always, self._taken, self._failing), daemon=True
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def taken(self) -> int:
        """How much it has taken so far, copies included."""
        return int(self._taken.value)

    def fail(self, failing: bool) -> None:
        """From now on answer every request with 500, or no longer."""
        self._failing.value = failing

    def __enter__(self) -> Self:
        self._process.start()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.05)
        raise RuntimeError("the target did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(20)


def _main(
    path: str, port: int, bad: Misbehaviour, hangs_always: bool, taken: Synchronized[int], failing: Synchronized[int]
) -> None:
    asyncio.run(_Server(path, port, bad, taken, failing, hangs_always=hangs_always).serve())


class _Server:
    def __init__(
        self,
        path: str,
        port: int,
        bad: Misbehaviour,
        taken: Synchronized[int],
        failing: Synchronized[int],
        *,
        hangs_always: bool,
    ) -> None:
        self._file = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115  (while the process lives)
        self._port = port
        self._bad = bad
        self._hangs_always = hangs_always
        self._taken = taken
        self._failing = failing
        self._chance = random.Random(1)
        self._gone_at = list(bad.gone_at)
        self._restart_at = list(bad.restart_at)
        self._restart = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        while True:
            self._restart.clear()
            server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, backlog=1024)
            await self._restart.wait()
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await asyncio.sleep(_DOWN_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        bad, chance = self._bad, self._chance.random()
        if self._hangs_always or chance < bad.hangs:
            await asyncio.sleep(3600)
        chance -= bad.hangs
        if 0 <= chance < bad.resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        status = "200 OK"
        if self._failing.value or bad.resets <= chance < bad.resets + bad.fails:
            status = "500 Internal Server Error"
        elif self._gone_at and self._taken.value >= self._gone_at[0]:
            self._gone_at.pop(0)
            status = "410 Gone"
        else:
            self._note(fields, body)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        if self._restart_at and self._taken.value >= self._restart_at[0]:
            self._restart_at.pop(0)
            self._restart.set()
        return True

    def _note(self, fields: dict[str, str], body: bytes) -> None:
        event = json.loads(body)
        data = event["data"]
        self._file.write(f"{fields['webhook-id']} {event['type']} {data['task_id']} {data.get('reported_at', '')}\n")
        self._taken.value += 1
