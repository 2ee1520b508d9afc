"""The Flask application: pushes, API, console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.config import load_settings
from receiver.observability import configure_logging
from receiver.runtime import Runtime
from receiver.web import api, api_docs, console
from receiver.web.monitored import create_monitored
from receiver.web.mounted import Mounted

if TYPE_CHECKING:
    from flask import Flask


def create_app(runtime: Runtime | None = None) -> Flask:
    """Return the application; without a runtime, one built from the environment's settings.

    It opens no connection and starts no thread before the first request, so a server may fork after this call.
    """
    if runtime is None:
        configure_logging()
        settings = load_settings()
        configure_logging(settings.log_level, form=settings.log_format)
        runtime = Runtime(settings)
    app = create_monitored(runtime)
    app.register_blueprint(api_docs.blueprint)
    api.register(app)
    console.register(app)
    app.wsgi_app = Mounted(app.wsgi_app, runtime.settings)  # type: ignore[method-assign]
    return app
