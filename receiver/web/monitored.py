"""The Flask application for the platform and for monitoring: pushes, probes and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.web import auth, health
from receiver.web.base import create_base

if TYPE_CHECKING:
    from flask import Flask

    from receiver.runtime import Runtime


def create_monitored(runtime: Runtime) -> Flask:
    """Return the application. It opens no connection and starts no thread before the first request."""
    app = create_base(runtime)
    app.register_blueprint(health.blueprint)
    auth.register(app)
    return app
