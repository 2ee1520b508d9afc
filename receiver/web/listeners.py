"""What each listener of `receiver serve` is for, told by the address that a connection came in at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.intake import is_push_path
from receiver.web.errors import problem
from receiver.web.security_headers import secure
from receiver.web.send_proxy import Door

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from receiver.config import Settings
    from receiver.runtime import Runtime


def is_door(settings: Settings, address: object) -> bool:
    """Return whether an address of ours, as its socket tells it, is the drop-in door's."""
    return (
        settings.send_proxy_bind is not None
        and isinstance(address, tuple)
        and address[1] == settings.send_proxy_bind[1]
    )


def is_public(settings: Settings, address: object) -> bool:
    """Return whether an address of ours takes pushes alone: any but the two inside, once they are apart."""
    if settings.internal_bind is None or is_door(settings, address):
        return False
    return not isinstance(address, tuple) or address[1] != settings.internal_bind[1]


class Listeners:
    """The application as each listener has it."""

    def __init__(self, app: WSGIApplication, runtime: Runtime) -> None:
        self._app = app
        self._settings = runtime.settings
        self._door = Door(runtime)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI and gunicorn have it."""
        # Not by SERVER_PORT: on a Unix socket that is what the peer says.
        address = environ["gunicorn.socket"].getsockname()
        if is_door(self._settings, address):
            return self._door(environ, start_response)
        if is_public(self._settings, address) and not _open_to_all(environ.get("PATH_INFO", "")):
            return secure(problem(404, "not_found", "there is nothing here"))(environ, start_response)
        return self._app(environ, start_response)


def _open_to_all(path: str) -> bool:
    return is_push_path(path) or path == "/healthz"
