"""`/exports`: complete lists as files; the format by `format`, or by the path's ending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask.views import MethodView

from receiver.messages.export_files import MEDIA_TYPES, TEXT_FORMATS, FileFormat
from receiver.web.api.common import Blueprint, documents, operation
from receiver.web.lists.exports import FORMS, OCTETS, answer_export, form_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Response

blueprint = Blueprint("exports", __name__, description="Complete lists as files, oldest row first.")

_TEXT = {"schema": {"type": "string"}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}  # as OpenAPI 3.0 has it, which generators know
_ABOUT_ENDINGS = "Each format also has a path of its own, with the type of its file: `/exports/{name}.parquet`."
_ABOUT_ENDING = "As `/exports/{name}?format={form}`."


def _file(forms: Iterable[FileFormat]) -> dict[str, Any]:
    """Return the description of a file in one of these formats."""
    content = {MEDIA_TYPES[form].partition(";")[0]: _TEXT if form in TEXT_FORMATS else _BINARY for form in forms}
    return {"description": "The file.", "content": content | {OCTETS: _BINARY}}


def _view(name: str, form: FileFormat | None = None) -> None:
    """Serve an export in one format, by its ending; None: in the one that `format` says."""
    if form is None:
        path, summary, about = name, f"Export {name}.", _ABOUT_ENDINGS.format(name=name)
    else:
        path, about = f"{name}.{form}", _ABOUT_ENDING.format(name=name, form=form)
        summary = f"Export {name} as {form.upper()}."

    class View(MethodView):
        @operation(blueprint, f"export_{path.replace('.', '_')}")
        @documents(blueprint, 401, 403, 422, 503)
        @blueprint.doc(responses={"200": _file([form] if form else FileFormat)}, summary=summary, description=about)
        @blueprint.arguments(form_of(name, form), location="query")
        def get(self, arguments: dict[str, Any]) -> Response:
            return answer_export(name, arguments, form)

    View.__name__ = View.__qualname__ = name.capitalize() + (form.capitalize() if form else "")
    blueprint.route(f"/exports/{path}")(View)


for _name in FORMS:
    for _form in (None, *FileFormat):
        _view(_name, _form)
