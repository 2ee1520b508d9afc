"""API schemas of messages and send records."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from receiver.core import TASK_ID_MAX_CHARS
from receiver.messages.queries import MessageRow
from receiver.messages.send_records import FIELDS, SendField, SendFieldType
from receiver.web.api.common import (
    MAX_WAIT_SECONDS,
    InputTime,
    MobileField,
    OneOf,
    OurTime,
    ProblemSchema,
    StrictSchema,
    Text,
    WholeNumber,
    list_schema,
    row_schema,
)

MAX_RECORDS = 1000


class TimelineEntrySchema(ma.Schema):
    """One event of a message."""

    kind = ma.fields.String(
        required=True,
        validate=OneOf(["sent", "recorded", "refused", "receipt", "reply", "verified"]),
        metadata={"example": "receipt"},
    )
    at = ma.fields.String(
        required=True,
        metadata={
            "format": "date-time",
            "description": "Time of the event; for a push, by the platform's clock.",
        },
    )
    received_at = OurTime(allow_none=True)
    receipt_id = ma.fields.String(metadata={"example": "17"})
    reply_id = ma.fields.String()
    status = ma.fields.String(metadata={"example": "delivered"})
    vendor_status = ma.fields.String(metadata={"example": "1"})
    content = ma.fields.String()
    detail = ma.fields.String()
    copies = ma.fields.Integer()
    push_id = ma.fields.String()


MessageSchema = row_schema(MessageRow, "Message")
MessageDetailSchema = row_schema(
    MessageRow, "MessageDetail", timeline=ma.fields.List(ma.fields.Nested(TimelineEntrySchema), required=True)
)


# Senders store ids and counts as text or as numbers, as the platform's answers do.
_EITHER = {"type": ["string", "integer"]}


def _send_field(field: SendField) -> ma.fields.Field[Any]:
    """Describe a field of a record, which `receiver.messages.send_records` reads: it is faster, and reads imports."""
    match field.type:
        case SendFieldType.MOBILE:
            return MobileField(required=field.required, metadata=_EITHER)
        case SendFieldType.TIME:
            return InputTime(allow_none=True)
        case SendFieldType.COUNT:
            return Text(allow_none=True, metadata=_EITHER | {"pattern": "^-?[0-9]{1,9}$"})
        case SendFieldType.WORDS:
            return Text(allow_none=True, metadata={"description": "The platform's message for a refused send."})
        case SendFieldType.RETURN_STATUS:
            words, numbers = {"type": "string", "enum": ["0", "1"]}, {"type": "integer", "enum": [0, 1]}
            return ma.fields.Raw(
                metadata={
                    "anyOf": [words, numbers, {"type": "null"}],
                    "description": "0: the platform refused the send.",
                }
            )
        case SendFieldType.ID | SendFieldType.TEXT:
            return Text(max_chars=field.max_chars, allow_none=True, metadata=_EITHER)


# The record of one send; with `return_status` 0, of a refused one.
SendSchema = StrictSchema.from_dict({name: _send_field(field) for name, field in FIELDS.items()}, name="SendSchema")


MessageListSchema = list_schema(MessageSchema, "MessageList")


_SEND = {
    "task_id": "3313746",
    "mobile": "15080921090",
    "template_id": "540",
    "sent_at": "2026-11-23T09:13:59+08:00",
}
_RECORD_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Send"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_RECORDS,
                        "items": {"$ref": "#/components/schemas/Send"},
                        "description": "An item that is not valid gets an error at its position.",
                    },
                ]
            },
            "examples": {
                "one": {"summary": "One send.", "value": _SEND},
                "many": {"summary": "Several sends.", "value": [_SEND, _SEND | {"task_id": "3313747"}]},
            },
        }
    },
}


class RecordedItemSchema(ma.Schema):
    """The result of one record of a list."""

    status = ma.fields.Integer(required=True, validate=OneOf([200, 201, 202, 403, 409, 422]))
    message = ma.fields.Nested(MessageSchema)
    error = ma.fields.Nested(ProblemSchema)


class RecordedListSchema(ma.Schema):
    """The results of a list of records, in order."""

    items = ma.fields.List(ma.fields.Nested(RecordedItemSchema), required=True)


class SpooledSchema(ma.Schema):
    """Spooled because the database is unavailable; whether it is new is decided later."""

    status = ma.fields.Integer(required=True, validate=OneOf([202]))


class VerifiedSchema(StrictSchema):
    """The use of a code, without the code itself."""

    task_id = Text(required=True, max_chars=TASK_ID_MAX_CHARS)
    mobile = MobileField(required=True)
    account = Text(max_chars=64, metadata={"description": "Optional if only one account is configured."})
    verified_at = InputTime(metadata={"description": "Default: now."})


class WaitSchema(StrictSchema):
    """How long to wait for a change."""

    wait = WholeNumber(
        load_default=0,
        validate=ma.validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to wait for the status to change."},
    )
