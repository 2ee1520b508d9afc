"""A target for tests: takes what is forwarded, and misbehaves as it is told to."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Event
from typing import TYPE_CHECKING

from werkzeug import Request, Response

from tests.harness.http import serve_http

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from werkzeug.datastructures import Headers

_WITHIN_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request as it came."""

    method: str
    path: str  # with its query
    headers: Headers
    body: bytes


class Hook:
    """What came, in the order in which it came. `behave` gives status and headers of an answer; None: none comes."""

    def __init__(self, scheme: str = "http") -> None:
        self.all: list[Sent] = []  # taken or not
        self.taken: list[Sent] = []
        self.behave: Callable[[Sent], tuple[int, dict[str, str]] | None] = lambda _sent: (200, {})
        self.released = Event()  # ends what hangs
        self.port = 0
        self.scheme = scheme
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
    of_test = Hook("http" if tls is None else "https")

    def take(request: Request) -> Response:
        sent = Sent(
            method=request.method, path=request.environ["REQUEST_URI"], headers=request.headers, body=request.get_data()
        )
        behaved = of_test.behave(sent)
        of_test.note(sent, taken=behaved is not None and 200 <= behaved[0] < 300)
        if behaved is None:
            of_test.released.wait(_WITHIN_SECONDS)
        status, headers = behaved or (503, {})
        return Response(status=status, headers=headers)

    with serve_http(take, tls) as of_test.port:
        try:
            yield of_test
        finally:
            of_test.released.set()
