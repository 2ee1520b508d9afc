"""The listeners of `receiver serve`: public, internal and send proxy, told apart by the socket's address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.intake.push_path import is_push_path
from receiver.web.error_codes import ErrorCode
from receiver.web.errors import problem
from receiver.web.security_headers import secure
from receiver.web.send_proxy import SendProxy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from receiver.config import Settings
    from receiver.runtime import Runtime


def is_send_proxy(settings: Settings, address: object) -> bool:
    """Return whether a socket's address is the send proxy's."""
    return (
        settings.send_proxy_bind is not None
        and isinstance(address, tuple)
        and address[1] == settings.send_proxy_bind[1]
    )


def is_public(settings: Settings, address: object) -> bool:
    """Return whether a socket's address takes pushes only: all but the internal listener and the send proxy."""
    if settings.internal_bind is None or is_send_proxy(settings, address):
        return False
    return not isinstance(address, tuple) or address[1] != settings.internal_bind[1]


class Listeners:
    """Dispatches a request by the listener that it came in at."""

    def __init__(self, app: WSGIApplication, runtime: Runtime) -> None:
        self._app = app
        self._settings = runtime.settings
        self._send_proxy = SendProxy(runtime)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI and gunicorn have it."""
        # Not by SERVER_PORT: on a Unix socket the peer sets that.
        address = environ["gunicorn.socket"].getsockname()
        if is_send_proxy(self._settings, address):
            return self._send_proxy(environ, start_response)
        if is_public(self._settings, address) and not _open_to_all(environ.get("PATH_INFO", "")):
            return secure(problem(404, ErrorCode.NOT_FOUND, "not found"))(environ, start_response)
        return self._app(environ, start_response)


def _open_to_all(path: str) -> bool:
    return is_push_path(path) or path == "/healthz"
