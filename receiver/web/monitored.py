"""The Flask application for the platform and for monitoring: pushes, probes, metrics. `receiver.app` adds the rest."""

from __future__ import annotations

from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from receiver.web import RUNTIME, access_log, auth, data_lag, errors, health, push, security_headers

if TYPE_CHECKING:
    from receiver.runtime import Runtime


class _Json(DefaultJSONProvider):
    """Flask's JSON provider, stricter on input and safe for odd characters in output."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return the parsed JSON. Raises JSONDecodeError or UnicodeDecodeError.

        JSON that is nested too deeply counts as invalid.
        """
        text = s if isinstance(s, str) else s.decode("utf-8-sig")
        try:
            return super().loads(text, **kwargs)
        except JSONDecodeError:
            raise
        except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
            raise JSONDecodeError("nested too deep, or a number too long", text, 0) from error

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return the object as JSON; a lone surrogate, as a sender's key may have it, is escaped."""
        return super().dumps(obj, **kwargs).encode(errors="backslashreplace").decode()


class _App(Flask):
    """Flask, without its own log line of an error: it holds the path, and the request's line holds the error."""

    def log_exception(self, exc_info: Any) -> None:
        """Write nothing."""


def create_monitored(runtime: Runtime) -> Flask:
    """Return the application. It opens no connection and starts no thread before the first request."""
    app = _App("receiver", static_folder=None)
    app.extensions[RUNTIME] = runtime
    # A redirect would lose the push: the platform does not follow redirects as far as is known.
    app.url_map.merge_slashes = False
    app.json = _Json(app)
    app.json.sort_keys = False
    app.json.ensure_ascii = False
    access_log.register(app)
    security_headers.register(app)
    data_lag.register(app)
    app.register_blueprint(push.blueprint)
    app.register_blueprint(health.blueprint)
    errors.register(app)
    auth.register(app)
    return app
