"""A way to a server that counts the connections which take it, and may be slow."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self


class _Way(BaseRequestHandler):
    """One connection: both directions, and their ends, are passed on."""

    server: Relay

    def handle(self) -> None:
        with self.server.lock:
            self.server.connections += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.to_port), timeout=60) as onward:
            onward.settimeout(None)
            there = threading.Thread(target=self._carry, args=(self.request, onward), daemon=True)
            there.start()
            self._carry(onward, self.request)
            there.join()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.server.way_seconds)
                sink.sendall(piece)
            time.sleep(self.server.way_seconds)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Relay(ThreadingTCPServer):
    """A port of its own in front of a server's."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, to_port: int, way_seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Way)
        self.to_port = to_port
        self.way_seconds = way_seconds  # of each piece, in each direction
        self.port: int = self.server_address[1]
        self.connections = 0
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
