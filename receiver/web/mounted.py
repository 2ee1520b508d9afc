"""Serve the application under a sub-path, whether the proxy strips it from requests or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.config import within

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from receiver.config import Settings

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_DONE = "receiver.mounted"


class Mounted:
    """An application whose links begin with the path of RECEIVER_PUBLIC_URL, or with a trusted proxy's prefix.

    Requests work with and without that prefix, so that links also work on the machine itself.
    """

    def __init__(self, app: WSGIApplication, settings: Settings) -> None:
        self._app = app
        self._trusted_proxies = settings.trusted_proxies
        self._of_pushes = urlsplit(settings.public_url).path
        # With an internal listener, the public URL is for pushes only.
        self._of_all = "" if settings.internal_bind is not None else self._of_pushes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        if _DONE not in environ:
            environ[_DONE] = True
            given = self._given(environ)
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME") or given or self._of_all
            path = environ.get("PATH_INFO", "")
            for prefix in (given, self._of_pushes):
                if prefix and (path == prefix or path.startswith(f"{prefix}/")):
                    environ["PATH_INFO"] = path[len(prefix) :] or "/"
                    break
        return self._app(environ, start_response)

    def _given(self, environ: WSGIEnvironment) -> str:
        """Return a trusted proxy's X-Forwarded-Prefix; empty: there is none."""
        said = environ.get("HTTP_X_FORWARDED_PREFIX", "").partition(",")[0].strip().rstrip("/")
        if not _PREFIX.fullmatch(said) or not within(environ.get("REMOTE_ADDR") or "", self._trusted_proxies):
            return ""
        return str(said)
