"""Complete lists as files, streamed."""

from __future__ import annotations

import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request

from receiver.core import InputFault, Overloaded
from receiver.messages.export_files import MEDIA_TYPES, FileFormat, gzipped, iter_file
from receiver.messages.export_sheets import SHEET_ROWS
from receiver.messages.queries import Filter
from receiver.web import runtime
from receiver.web.auth import caller
from receiver.web.lists.fields import StrictBoolean, WholeNumber
from receiver.web.lists.filters import MessageFilterSchema, ReceiptFilterSchema, ReplyFilterSchema, StrictSchema
from receiver.web.lists.visibility import audit_look_up, readable_accounts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

# Each holds a thread and a connection, and may read all rows.
_AT_ONCE = 2
_RETRY_AFTER = 20  # programs ask five times; a million rows take less than four of these
_NOT_NEGATIVE = ma.validate.Range(min=0)
_COMPRESSIBLE = (FileFormat.CSV, FileFormat.NDJSON)
_places = threading.BoundedSemaphore(_AT_ONCE)


class _Place:
    """One of the few places for concurrent exports. Raises Overloaded if all are taken."""

    def __init__(self) -> None:
        if not _places.acquire(blocking=False):
            raise Overloaded(
                f"{_AT_ONCE} exports are running; try again when one has ended", retry_after_seconds=_RETRY_AFTER
            )
        self._held = True

    def release(self) -> None:
        """Free the place; a second call does nothing."""
        if self._held:
            self._held = False
            _places.release()


_ABOUT_FORMATS = (
    f"Parquet is an extra. XLSX holds up to {SHEET_ROWS:,} rows; beyond, the answer is 422, `too_many_rows`."
)
_ABOUT_NEUTRAL = "CSV: put an apostrophe before values that a spreadsheet would run as formulas. For programs: `false`."


class FormatSchema(StrictSchema):
    """The format of a file."""

    format = ma.fields.Enum(
        FileFormat,
        by_value=True,
        load_default=FileFormat.CSV,
        error_messages={"unknown": InputFault.NOT_A_CHOICE},
        metadata={"description": _ABOUT_FORMATS},
    )
    bom = StrictBoolean(load_default=False, metadata={"description": "CSV for Excel: start with a byte order mark."})
    neutral = StrictBoolean(load_default=True, metadata={"description": _ABOUT_NEUTRAL})
    after_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Only rows with a higher id, to continue a file that ended early."},
    )
    to_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Only rows with this id or a lower one, to export a long list in parts."},
    )


def _filters(schema: type[ma.Schema], name: str) -> type[ma.Schema]:
    """Return the filters of a list without `limit` and `cursor`."""
    fields = {field: made for field, made in schema().declared_fields.items() if field not in ("limit", "cursor")}
    return type(name, (FormatSchema,), fields)


# The parameters of each export.
FORMS: Mapping[str, type[ma.Schema]] = {
    "messages": _filters(MessageFilterSchema, "MessagesExport"),
    "receipts": _filters(ReceiptFilterSchema, "ReceiptsExport"),
    "replies": _filters(ReplyFilterSchema, "RepliesExport"),
}


def answer_export(name: str, arguments: dict[str, Any]) -> Response:
    """Return a list as a streamed file; `arguments` are loaded by its form. HEAD reads no rows.

    Raises Overloaded.
    """
    services = runtime()
    form, bom, neutral = (arguments.pop(name) for name in ("format", "bom", "neutral"))
    wanted = Filter(**arguments | {"accounts": readable_accounts(arguments.pop("account", None))})
    in_full, clock = caller().sees_numbers, services.clock()
    services.require_database()
    if request.method == "HEAD":  # headers only: no row is read or sent
        return _as_file(name, form, iter(()))
    audit_look_up(f"{name}.export", mobile=arguments.get("mobile"), format=form.value, in_full=in_full)
    place = _Place()

    def pieces() -> Generator[bytes]:
        try:
            with services.exporting() as connection:
                yield from iter_file(
                    connection,
                    name,
                    form,
                    wanted,
                    clock,
                    in_full=in_full,
                    zone=services.settings.timezone,
                    bom=bom,
                    neutral=neutral,
                    gives_way=lambda: services.batch_writer.is_busy or services.projector.is_late,
                )
        finally:
            place.release()

    file = pieces()
    begin = next(file, b"")  # so that errors before the first byte get their own status
    response = _as_file(name, form, chain((begin,), file))
    response.call_on_close(file.close)
    response.call_on_close(place.release)  # also if the client read nothing
    return response


def _as_file(name: str, form: FileFormat, pieces: Iterator[bytes]) -> Response:
    """Return the response of a file, compressed if the client accepts it and it helps."""
    compressed = form in _COMPRESSIBLE and request.accept_encodings.quality("gzip") > 0
    response = Response(gzipped(pieces) if compressed else pieces, content_type=MEDIA_TYPES[form])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{form.value}"'
    response.headers["Vary"] = "Accept-Encoding"
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
    return response
