"""Complete lists as files, streamed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import marshmallow as ma
from flask import Response, request

from receiver.core import InputFault, Overloaded, iso_milliseconds, mask_inside
from receiver.messages.export_files import (
    MEDIA_TYPES,
    TEXT_FORMATS,
    FileFormat,
    gzipped,
    iter_file,
    iter_opt_out_file,
    require_library,
)
from receiver.messages.export_sheets import SHEET_ROWS
from receiver.messages.queries import Filter
from receiver.web import runtime
from receiver.web.auth import caller
from receiver.web.lists.fields import StrictBoolean, WholeNumber
from receiver.web.lists.filters import MessageFilterSchema, ReceiptFilterSchema, ReplyFilterSchema, StrictSchema
from receiver.web.lists.visibility import audit_look_up, readable_accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from receiver.db.engine import Connection
    from receiver.messages.export_wording import Wording

# Each holds a thread and a connection, and may read all rows.
_AT_ONCE = 2
_RETRY_AFTER = 20  # programs ask five times; a million rows take less than four of these
_NOT_NEGATIVE = ma.validate.Range(min=0)
OCTETS = "application/octet-stream"  # for clients that know no other type of files, and ask for it by `Accept`
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
    " One that grows over 2 GiB breaks off."
)
_ABOUT_NEUTRAL = "CSV: put an apostrophe before values that a spreadsheet would run as formulas. For programs: `false`."


class RangeSchema(StrictSchema):
    """The ids of a file's rows."""

    after_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Only rows with a higher id, to continue a file that ended early."},
    )
    to_id = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={"description": "Only rows with this id or a lower one, to export a long list in parts."},
    )


class CsvSchema(RangeSchema):
    """How a CSV is written."""

    bom = StrictBoolean(load_default=False, metadata={"description": "CSV for Excel: start with a byte order mark."})
    neutral = StrictBoolean(load_default=True, metadata={"description": _ABOUT_NEUTRAL})


class FormatSchema(CsvSchema):
    """The format of a file."""

    format = ma.fields.Enum(
        FileFormat,
        by_value=True,
        load_default=FileFormat.CSV,
        error_messages={"unknown": InputFault.NOT_A_CHOICE},
        metadata={"description": _ABOUT_FORMATS},
    )


_FILTERS: Mapping[str, type[ma.Schema]] = {
    "messages": MessageFilterSchema,
    "receipts": ReceiptFilterSchema,
    "replies": ReplyFilterSchema,
}


def form_of(name: str, form: FileFormat | None = None) -> type[ma.Schema]:
    """Return the parameters of an export: its list's filters and those of its format; None: `format` says which."""
    own = FormatSchema if form is None else CsvSchema if form is FileFormat.CSV else RangeSchema
    fields = _FILTERS[name]().declared_fields.items()
    return type(own.__name__, (own,), {field: made for field, made in fields if field not in ("limit", "cursor")})


# The parameters of each export whose format is one of them.
FORMS: Mapping[str, type[ma.Schema]] = {name: form_of(name) for name in _FILTERS}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStyle:
    """How a file is written and called; by default for programs."""

    plain_name: str | None = None  # in ASCII; None: the name of the list
    worded_name: str | None = None  # in any language
    wording: Wording | None = None
    bounded: bool = False  # no more rows than a list is sorted for
    in_full: bool = False  # numbers are not masked, whoever reads it


_FOR_PROGRAMS = FileStyle()
# What the audit has of a filter as it is; numbers may be in the others.
_SAID = frozenset({"account", "status", "late", "template_id", "matched", "conflicting", "opt_out", "opt_out_review"})


def answer_export(
    name: str, arguments: dict[str, Any], form: FileFormat | None = None, *, style: FileStyle = _FOR_PROGRAMS
) -> Response:
    """Return a list as a streamed file; `arguments` are loaded by its form. HEAD reads no rows.

    Raises Overloaded, MissingExtra and TooManyRows. What fails after the first bytes is logged, and the answer broken.
    """
    services = runtime()
    form = form or arguments.pop("format")
    bom, neutral = arguments.pop("bom", False), arguments.pop("neutral", True)
    said = _in_audit(arguments)
    wanted = Filter(**arguments | {"accounts": readable_accounts(arguments.pop("account", None))})
    in_full, clock = caller().sees_numbers or style.in_full, services.clock()
    services.require_database()
    require_library(form)
    if request.method == "HEAD":  # headers only: no row is read or sent
        return _as_file(name, form, iter(()), style)
    audit_look_up(
        f"{name}.export",
        mobile=arguments.get("mobile"),
        format=form.value,
        in_full=in_full,
        filter=said or None,
    )

    def read(connection: Connection) -> Iterator[bytes]:
        return iter_file(
            connection,
            name,
            form,
            wanted,
            clock,
            in_full=in_full,
            zone=services.settings.timezone,
            bom=bom,
            neutral=neutral,
            wording=style.wording,
            bounded=style.bounded,
            gives_way=lambda: services.batch_writer.is_busy or services.projector.is_late,
        )

    return _stream(name, form, read, style, stamped=wanted.of_changes)


def answer_opt_outs(
    wanted: Filter, form: FileFormat, *, account: str | None, style: FileStyle, wording: Wording, reason: str
) -> Response:
    """Return the list of opt-outs as a streamed file with full numbers, audited with its reason.

    `account`: the one that it was narrowed to.

    Raises Overloaded and TooManyRows.
    """
    services = runtime()
    services.require_database()
    narrowed = {name: getattr(wanted, name) for name in ("opt_out_review", "received_from", "received_to")}
    said = _in_audit(narrowed | {"account": account})
    audit_look_up("opt_outs.export", format=form.value, in_full=True, filter=said or None, reason=reason)

    def read(connection: Connection) -> Iterator[bytes]:
        return iter_opt_out_file(connection, form, wanted, wording=wording, zone=services.settings.timezone)

    return _stream("opt_outs", form, read, style)


def _stream(
    name: str,
    form: FileFormat,
    read: Callable[[Connection], Iterator[bytes]],
    style: FileStyle,
    *,
    stamped: bool = False,
) -> Response:
    """Return the response of a file whose pieces are read as they leave. Raises Overloaded, and what `read` raises."""
    place, services = _Place(), runtime()

    def pieces() -> Generator[bytes]:
        try:
            with services.exporting(stamped=stamped) as connection:
                yield from read(connection)
        finally:
            place.release()

    file = pieces()
    begin = next(file, b"")  # so that errors before the first byte get their own status
    response = _as_file(name, form, chain((begin,), file), style)
    response.call_on_close(file.close)
    response.call_on_close(place.release)  # also if the client read nothing
    return response


def _in_audit(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter as the audit may have it: of what may be a number, that it was there."""
    return {
        field: iso_milliseconds(value) if isinstance(value, datetime) else _masked(value) if field in _SAID else "…"
        for field, value in arguments.items()
        if value is not None and field != "mobile"
    }


def _masked(value: Any) -> Any:
    return mask_inside(value) if isinstance(value, str) else value


def _as_file(name: str, form: FileFormat, pieces: Iterator[bytes], style: FileStyle) -> Response:
    """Return the response of a file, compressed if the client accepts it and it helps."""
    compressed = form in TEXT_FORMATS and request.accept_encodings.quality("gzip") > 0
    media_type = OCTETS if request.accept_mimetypes.best == OCTETS else MEDIA_TYPES[form]
    response = Response(gzipped(pieces) if compressed else pieces, content_type=media_type)
    response.headers["Content-Disposition"] = _disposition(
        style.plain_name or f"{name}.{form.value}", style.worded_name
    )
    response.headers["Accept-Ranges"] = "none"  # it is made anew each time
    response.headers["Vary"] = "Accept, Accept-Encoding"
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
    return response


def _disposition(plain: str, worded: str | None) -> str:
    """Return the header that names a file; browsers prefer the second name. Source: RFC 6266 and RFC 8187."""
    named = f'attachment; filename="{plain}"'
    return named if worded in (None, plain) else f"{named}; filename*=UTF-8''{quote(str(worded))}"
