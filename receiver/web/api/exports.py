"""`/exports`: whole lists as files."""

from __future__ import annotations

import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request
from flask.views import MethodView

from receiver.core import Overloaded
from receiver.messages.export_files import MEDIA_TYPES, FileFormat, gzipped, iter_file
from receiver.messages.queries import Filter
from receiver.web import runtime
from receiver.web.api.common import (
    Blueprint,
    StrictBoolean,
    StrictSchema,
    WholeNumber,
    audit_look_up,
    documents,
    operation,
    readable_accounts,
)
from receiver.web.api.message_schemas import MessageFilterSchema
from receiver.web.api.receipts import ReceiptFilterSchema
from receiver.web.api.replies import ReplyFilterSchema
from receiver.web.auth import caller

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

blueprint = Blueprint("exports", __name__, description="Whole lists as files, oldest row first.")

# Each holds a thread and a connection, and reads what could be everything.
_AT_ONCE = 2
# Built whole before its first byte: on two busy cores 2,500 rows a second, and proxies wait 75 s.
SHEET_ROWS_MAX = 100_000
_NOT_NEGATIVE = ma.validate.Range(min=0)
_COMPRESSIBLE = (FileFormat.CSV, FileFormat.NDJSON)
_places = threading.BoundedSemaphore(_AT_ONCE)


class _Place:
    """One of the few exports that run at once. Raises Overloaded where there is none left."""

    def __init__(self) -> None:
        if not _places.acquire(blocking=False):
            raise Overloaded(f"{_AT_ONCE} exports run already; try again when one has ended")
        self._held = True

    def give_back(self) -> None:
        """Let another one begin; the second time, nothing happens."""
        if self._held:
            self._held = False
            _places.release()


_ABOUT_FORMATS = f"Parquet is an extra. XLSX has up to {SHEET_ROWS_MAX:,} rows; for more it is 422, `too_many_rows`."
_ABOUT_NEUTRAL = "CSV: an apostrophe before what a spreadsheet would take for a formula. `false`: none, for programs."


class FormatSchema(StrictSchema):
    """How a file is written."""

    format = ma.fields.Enum(
        FileFormat, by_value=True, load_default=FileFormat.CSV, metadata={"description": _ABOUT_FORMATS}
    )
    bom = StrictBoolean(load_default=False, metadata={"description": "CSV for Excel: begin with a byte order mark."})
    neutral = StrictBoolean(load_default=True, metadata={"description": _ABOUT_NEUTRAL})
    after_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Rows with a higher id: to go on behind the last one that arrived."},
    )
    to_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Rows with this id or a lower one: to take a long list in parts."},
    )


def _filters(schema: type[ma.Schema], name: str) -> type[ma.Schema]:
    """The filters of a list, without what pages it."""
    fields = {field: made for field, made in schema().declared_fields.items() if field not in ("limit", "cursor")}
    return type(name, (FormatSchema,), fields)


_FILE = {
    "description": "The file.",
    "content": {media.partition(";")[0]: {"schema": {"type": "string"}} for media in MEDIA_TYPES.values()},
}


# What each file can be asked for with.
FORMS: Mapping[str, type[ma.Schema]] = {
    "messages": _filters(MessageFilterSchema, "MessagesExport"),
    "receipts": _filters(ReceiptFilterSchema, "ReceiptsExport"),
    "replies": _filters(ReplyFilterSchema, "RepliesExport"),
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


def answer_export(name: str, arguments: dict[str, Any]) -> Response:
    """Stream a list to the present caller; `arguments` are loaded by its form. HEAD is no export: it has no rows.

    Raises Overloaded.
    """
    parts = runtime()
    form, bom, neutral = (arguments.pop(name) for name in ("format", "bom", "neutral"))
    wanted = Filter(**arguments | {"accounts": readable_accounts(arguments.pop("account", None))})
    in_full, clock = caller().sees_numbers, parts.clock()
    parts.require_database()
    if request.method == "HEAD":  # asks what it would be: nothing is read, and nothing leaves
        return _as_file(name, form, iter(()))
    audit_look_up(f"{name}.export", mobile=arguments.get("mobile"), format=form.value, in_full=in_full)
    place = _Place()

    def pieces() -> Generator[bytes]:
        try:
            with parts.exporting() as connection:
                yield from iter_file(
                    connection,
                    name,
                    form,
                    wanted,
                    clock,
                    in_full=in_full,
                    zone=parts.settings.timezone,
                    bom=bom,
                    neutral=neutral,
                    sheet_rows=SHEET_ROWS_MAX,
                    gives_way=lambda: parts.batch_writer.busy,
                )
        finally:
            place.give_back()

    file = pieces()
    begin = next(file, b"")  # so that what cannot be done is answered as such
    response = _as_file(name, form, chain((begin,), file))
    response.call_on_close(file.close)
    response.call_on_close(place.give_back)  # also where nobody has read any of it
    return response


def _as_file(name: str, form: FileFormat, pieces: Iterator[bytes]) -> Response:
    """Answer with a file, compressed where the caller takes it and it helps."""
    compressed = form in _COMPRESSIBLE and request.accept_encodings.quality("gzip") > 0
    response = Response(gzipped(pieces) if compressed else pieces, content_type=MEDIA_TYPES[form])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{form.value}"'
    response.headers["Vary"] = "Accept-Encoding"
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
    return response
