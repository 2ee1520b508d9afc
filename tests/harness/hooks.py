"""A target for tests: takes what is forwarded, and misbehaves as it is told to."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

_WITHIN_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request as it came."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes


class Hook:
    """What came, in the order in which it came. `behave` gives status and headers of an answer; None: none comes."""

    def __init__(self) -> None:
        self.all: list[Sent] = []  # taken or not
        self.taken: list[Sent] = []
        self.behave: Callable[[Sent], tuple[int, dict[str, str]] | None] = lambda _sent: (200, {})
        self.released = Event()  # ends what hangs
        self.port = 0
        self.scheme = "http"
        self._changed = Condition()

    def url(self, path: str = "/hook") -> str:
        """Its address."""
        return f"{self.scheme}://localhost:{self.port}{path}"

    def note(self, sent: Sent, *, taken: bool) -> None:
        """Keep what came."""
        with self._changed:
            self.all.append(sent)
            if taken:
                self.taken.append(sent)
            self._changed.notify_all()

    def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until it has come so far."""
        with self._changed:
            assert self._changed.wait_for(enough, _WITHIN_SECONDS), f"{len(self.taken)} taken of {len(self.all)}"

    def await_taken(self, count: int) -> list[Sent]:
        """Wait until so many were taken, and give them."""
        self.wait(lambda: len(self.taken) >= count)
        return list(self.taken)

    def await_tried(self, count: int) -> list[Sent]:
        """Wait until so many have come, taken or not."""
        self.wait(lambda: len(self.all) >= count)
        return list(self.all)


@contextmanager
def hook(tls: ssl.SSLContext | None = None) -> Iterator[Hook]:
    """A target on a free port of this machine."""
    of_test = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            sent = Sent(method=self.command, path=self.path, headers=dict(self.headers), body=body)
            behaved = of_test.behave(sent)
            taken = behaved is not None and 200 <= behaved[0] < 300
            of_test.note(sent, taken=taken)
            if behaved is None:
                of_test.released.wait(_WITHIN_SECONDS)
                self.close_connection = True
                return
            status, headers = behaved
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = _take  # noqa: N815  (the library's names)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # who was told has gone: the tests look at what came

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            of_test.scheme = "https"
        of_test.port = server.server_address[1]
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield of_test
        finally:
            of_test.released.set()
            server.shutdown()


def await_true(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + _WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
