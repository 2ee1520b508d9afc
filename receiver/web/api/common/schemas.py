"""Schemas that several resources share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma

from receiver.messages.fields import TIMES, Field, FieldType, fields_of
from receiver.web.error_codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProblemErrorSchema(ma.Schema):
    """One wrong field."""

    pointer = ma.fields.String(required=True, metadata={"description": "JSON pointer to the field of the body."})
    parameter = ma.fields.String(metadata={"description": "In place of a field: the name of a query parameter."})
    detail = ma.fields.String(required=True)


class ProblemSchema(ma.Schema):
    """An error (RFC 9457)."""

    type = ma.fields.String(required=True)
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    code = ma.fields.String(
        required=True,
        metadata={"description": "Stable code for programs.", "enum": [code.value for code in ErrorCode]},
    )
    detail = ma.fields.String(required=True)
    errors = ma.fields.List(ma.fields.Nested(ProblemErrorSchema))
    waiting_helps = ma.fields.Boolean(
        metadata={"description": "For a refusal by the platform: whether sending later may succeed."}
    )
    advice = ma.fields.String(metadata={"description": "For a refusal by the platform: what to do."})


_SCHEMAS: Mapping[FieldType, type[ma.fields.Field[Any]]] = {
    FieldType.NUMBER: ma.fields.Float,
    FieldType.COUNT: ma.fields.Integer,
    FieldType.BOOLEAN: ma.fields.Boolean,
    FieldType.TEXTS: ma.fields.Dict,
}


def field_schema(field: Field, *, required: bool = True) -> ma.fields.Field[Any]:
    """Return the schema of a field of a row. The row is JSON already: nothing is left to convert."""
    metadata = {"description": field.description} if field.description else {}
    if field.type in TIMES:
        metadata["format"] = "date-time"
    options: dict[str, Any] = {"required": required, "allow_none": field.nullable, "metadata": metadata}
    if field.choices:
        options["validate"] = ma.validate.OneOf(field.choices)
    if field.type is FieldType.TEXTS:
        options |= {"keys": ma.fields.String(), "values": ma.fields.String()}
    return _SCHEMAS.get(field.type, ma.fields.String)(**options)


def row_schema(row_type: Any, name: str, **more: ma.fields.Field[Any]) -> type[ma.Schema]:
    """Return the schema of a row, with more fields."""
    return ma.Schema.from_dict({field.name: field_schema(field) for field in fields_of(row_type)} | more, name=name)


def list_schema(item: type[ma.Schema], name: str) -> type[ma.Schema]:
    """Return the schema of a page of items."""
    return ma.Schema.from_dict(
        {
            "items": ma.fields.List(ma.fields.Nested(item), required=True),
            "next_cursor": ma.fields.String(required=True, allow_none=True),
            "has_more": ma.fields.Boolean(required=True, metadata={"description": "Whether there is a next page."}),
        },
        name=name,
    )


PROBLEMS: Mapping[int, str] = {
    400: "The body is not valid JSON.",
    401: "The key is missing, unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "Not found.",
    409: "A given value differs from the recorded one.",
    413: "The body is over 4 MiB.",
    415: "The body is not declared as JSON.",
    422: "Some fields are not valid; `errors` names them.",
    429: "Too many wrong keys came from this address; try again after `Retry-After` seconds.",
    502: "The platform was not reached or its answer cannot be parsed; `code` says which.",
    504: "The platform did not answer in time; the message may have been sent.",
    503: "The database is unavailable, or too much runs at once; try again after `Retry-After` seconds.",
}
