"""The query API, `/api/v1`: one module per resource, its schemas beside it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from flask import current_app, json, request
from flask_smorest import Api
from werkzeug.routing import BaseConverter

from receiver import __version__
from receiver.web.api import audit, events, exports, messages, pushes, receipts, replies, reports, sending, webhooks
from receiver.web.api.common import ProblemSchema, shortened
from receiver.web.api.description import ABOUT, Plugin, complete
from receiver.web.api.webhook_events import describe_events

if TYPE_CHECKING:
    from flask import Flask, Response
    from flask_smorest import Blueprint

PREFIX = "/api/v1"


class _Api(Api):  # type: ignore[misc]  # flask-smorest has no types
    """Documents errors as `web.errors` answers them, and installs no error handlers of its own.

    It builds the description at its first request: building it takes most of the time of creating an application.
    """

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask, **options: Any) -> None:
        self._undescribed: list[Blueprint] = []
        self._document = ""  # JSON: made once, since writing it takes longer than any list
        self._describing = threading.Lock()
        super().__init__(app, **options)

    def register_blueprint(self, blp: Blueprint, **options: Any) -> None:
        """Serve a blueprint of the API."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp, **options)
        self._undescribed.append(blp)

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        pass  # of all 62 statuses: a part of the description

    def _openapi_json(self) -> Response:
        with self._describing:
            if self._undescribed:
                self._document = json.dumps(self._describe(), indent=2)
        servers = json.dumps([{"url": request.script_root or "/"}])  # beside it, wherever a proxy serves it
        document = f'{{\n  "servers": {servers},{self._document.removeprefix("{")}'
        return shortened(current_app.response_class(document, mimetype="application/json"))

    def _describe(self) -> dict[str, Any]:
        super()._register_responses()
        for name, schema in {**messages.BODIES, **events.SCHEMAS}.items():
            self.spec.components.schema(name, schema=schema)
        self.spec.components.schema("Event", events.EVENT)
        for blp in self._undescribed:
            blp.register_views_in_doc(self, self._app, self.spec, name=blp.name, parameters=None)
            self.spec.tag({"name": blp.name, "description": blp.description})
        self._undescribed.clear()
        document = complete(self.spec.to_dict(), self._app.url_map.iter_rules())
        return document | {"webhooks": describe_events(document["components"]["schemas"])}


class RowIdConverter(BaseConverter):
    """An id in a path: up to 18 digits, which every database accepts."""

    regex = "[0-9]{1,18}"


_OPTIONS: dict[str, Any] = {
    "info": {"description": ABOUT},
    "security": [{"bearer": []}],
    "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
}


def register(app: Flask) -> None:
    """Serve the API and its description."""
    app.config.update(
        API_TITLE="receiver",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX=PREFIX,
        OPENAPI_JSON_PATH="openapi.json",
        MAX_CONTENT_LENGTH=4 * 1024 * 1024,
    )
    app.url_map.converters["row_id"] = RowIdConverter
    described = _Api(app, spec_kwargs={**_OPTIONS, "marshmallow_plugin": Plugin()})
    described.register_converter(
        RowIdConverter, lambda _converter: {"type": "string", "pattern": f"^{RowIdConverter.regex}$"}
    )
    for module in (messages, sending, receipts, replies, events, reports, exports, pushes, webhooks, audit):
        described.register_blueprint(module.blueprint, url_prefix=PREFIX)
