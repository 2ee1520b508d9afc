"""An HTTP server for tests, on a free port of this machine, whose every answer a function gives."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from re import compile as pattern
from typing import TYPE_CHECKING

from pytest_httpserver import HTTPServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from werkzeug import Request, Response

logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # its lines would have paths with secrets, in our log


class _Server(HTTPServer):
    def thread_target(self) -> None:
        """Serve; end as soon as it is told to."""
        assert self.server is not None
        self.server.serve_forever(poll_interval=0.02)


@contextmanager
def serve_http(answer: Callable[[Request], Response], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run it; give its port. Each request has a thread of its own."""
    with _Server("127.0.0.1", 0, ssl_context=tls, threaded=True) as server:
        server.expect_request(pattern("")).respond_with_handler(answer)
        yield server.port
