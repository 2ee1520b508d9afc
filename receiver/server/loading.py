"""Applications that a worker loads when they are asked: pushes are answered without any."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from receiver.core.collector import uncollected
from receiver.intake.push_path import is_push_path
from receiver.web import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from receiver.runtime import Runtime

_OF_MONITORING = frozenset({"/healthz", "/readyz", "/metrics"})


class LoadedLater:
    """A WSGI application that its first request loads. One that cannot be loaded fails that request, not the server."""

    def __init__(self, load: Callable[[], WSGIApplication]) -> None:
        self._load = load
        self._loading = threading.Lock()
        self._app: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        if self._app is None:
            with self._loading:
                if self._app is None:
                    with uncollected():
                        self._app = self._load()
        return self._app(environ, start_response)


class Applications:
    """What a worker serves beside the fast path: pushes, probes and metrics by one application, all else by the whole.

    Console and API are half of all that a server imports. Until they are asked for, they delay no start and hold no
    memory.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.extensions = {RUNTIME: runtime}
        self._monitored = LoadedLater(lambda: _load_monitored(runtime))
        self._whole = LoadedLater(lambda: _load_whole(runtime))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        path = environ.get("PATH_INFO", "")
        app = self._monitored if path in _OF_MONITORING or is_push_path(path) else self._whole
        return app(environ, start_response)


# Each imports on its call: that is what it is for.


def _load_monitored(runtime: Runtime) -> WSGIApplication:
    from receiver.web.listeners import Listeners  # noqa: PLC0415
    from receiver.web.monitored import create_monitored  # noqa: PLC0415
    from receiver.web.mounted import Mounted  # noqa: PLC0415

    return Mounted(Listeners(create_monitored(runtime), runtime), runtime.settings)


def _load_whole(runtime: Runtime) -> WSGIApplication:
    from receiver.app import create_app  # noqa: PLC0415
    from receiver.web.listeners import Listeners  # noqa: PLC0415
    from receiver.web.mounted import Mounted  # noqa: PLC0415

    return Mounted(Listeners(create_app(runtime), runtime), runtime.settings)
