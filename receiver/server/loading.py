"""What a worker serves: pushes, probes and metrics at once, API and console once they are asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from receiver.core.collector import uncollected
from receiver.intake.push_path import is_push_path
from receiver.web.listeners import Listeners
from receiver.web.monitored import create_monitored
from receiver.web.mounted import Mounted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from receiver.runtime import Runtime

_OF_MONITORING = frozenset({"/healthz", "/readyz", "/metrics"})


class Applications:
    """Serves pushes, probes and metrics by one application, all else by the whole, which its first request loads.

    API and console are half of all that a server imports. Until they are asked for, they delay no start and hold no
    memory. What a push may need is loaded from the start: a push must not meet a package that an upgrade has replaced.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.monitored = create_monitored(runtime)
        self.extensions = self.monitored.extensions
        self._runtime = runtime
        self._served = Mounted(Listeners(self._dispatch, runtime), runtime.settings)
        self._loading = threading.Lock()
        self._whole: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI and gunicorn have it."""
        return self._served(environ, start_response)

    def _dispatch(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        app = self.monitored if path in _OF_MONITORING or is_push_path(path) else self._load_whole()
        return app(environ, start_response)

    def _load_whole(self) -> WSGIApplication:
        """Return the whole application. One that cannot be loaded fails this request, and the next one tries again."""
        with self._loading:
            if self._whole is None:
                with uncollected():
                    from receiver.app import create_app  # noqa: PLC0415  (here, or all of it delays the start)

                    self._whole = create_app(self._runtime)
            return self._whole
