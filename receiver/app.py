"""The Flask application: wiring, blueprints, error handlers; nothing else."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from receiver.config import load_settings
from receiver.logs import configure_logging
from receiver.runtime import Runtime
from receiver.web import RUNTIME, access_log, api, auth, console, docs, headers, ops, problems, push


class _Json(DefaultJSONProvider):
    """Flask's own, for whom what is nested beyond all reason is no JSON."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError:
            raise ValueError("nested too deep") from None


def create_app(runtime: Runtime | None = None) -> Flask:
    """Make the application; without a runtime, from the environment's settings.

    Nothing connects and no thread starts before the first request, so it may be made before a fork.
    """
    if runtime is None:
        configure_logging()
        settings = load_settings()
        configure_logging(settings.log_level, form=settings.log_format)
        runtime = Runtime(settings)
    app = Flask("receiver", static_folder=None)
    app.extensions[RUNTIME] = runtime
    # A redirect would lose the push: the platform is not known to follow any.
    app.url_map.merge_slashes = False
    app.json = _Json(app)
    app.json.sort_keys = False
    app.json.ensure_ascii = False
    access_log.register(app)
    headers.register(app)
    app.register_blueprint(push.blueprint)
    app.register_blueprint(ops.blueprint)
    app.register_blueprint(docs.blueprint)
    api.register(app)
    problems.register(app)
    auth.register(app)
    console.register(app)
    return app
