"""`/exports`: complete lists as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask.views import MethodView

from receiver.messages.export_files import MEDIA_TYPES
from receiver.web.api.common import Blueprint, documents, operation
from receiver.web.lists.exports import FORMS, answer_export

if TYPE_CHECKING:
    from flask import Response

blueprint = Blueprint("exports", __name__, description="Complete lists as files, oldest row first.")

_FILE = {
    "description": "The file.",
    "content": {media.partition(";")[0]: {"schema": {"type": "string"}} for media in MEDIA_TYPES.values()},
}


def _view(name: str) -> None:
    class View(MethodView):
        @operation(blueprint, f"export_{name}")
        @documents(blueprint, 401, 403, 422, 503)
        @blueprint.doc(responses={"200": _FILE}, summary=f"Export {name}.")
        @blueprint.arguments(FORMS[name], location="query")
        def get(self, arguments: dict[str, Any]) -> Response:
            return answer_export(name, arguments)

    View.__name__ = View.__qualname__ = name.capitalize()
    blueprint.route(f"/exports/{name}")(View)


for _name in FORMS:
    _view(_name)
