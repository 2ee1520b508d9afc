"""Schemas that several resources share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import marshmallow as ma

from receiver.core import MessageStatus
from receiver.web.api.common.fields import InputTime, MobileField, OurTime, StrictBoolean, Text, WholeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping


DEFAULT_LIMIT, MAX_LIMIT = 50, 1000


class StrictSchema(ma.Schema):
    """Takes the fields that it names and no other."""

    class Meta:
        unknown = ma.RAISE


class PageSchema(StrictSchema):
    """Where a list goes on."""

    limit = WholeNumber(
        load_default=DEFAULT_LIMIT,
        validate=ma.validate.Range(1, MAX_LIMIT),
        metadata={"description": "How many items at most."},
    )
    cursor = Text(
        max_chars=1000,
        metadata={"description": "`next_cursor` of the page before, with the same filters."},
    )


class AccountFilterSchema(PageSchema):
    """What every list can be narrowed to."""

    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class ReceivedFilterSchema(AccountFilterSchema):
    """Lists of what the platform pushed."""

    received_from = InputTime(metadata={"description": "Received then or later."})
    received_to = InputTime(metadata={"description": "Received before then."})


class SightingFilterSchema(ReceivedFilterSchema):
    """Lists of receipts and replies."""

    mobile = MobileField()
    task_id = Text(max_chars=64)
    matched = StrictBoolean(metadata={"description": "Whether its message's send is recorded."})


class ProblemErrorSchema(ma.Schema):
    """One wrong field."""

    pointer = ma.fields.String(required=True, metadata={"description": "JSON pointer to the field."})
    detail = ma.fields.String(required=True)


class ProblemSchema(ma.Schema):
    """An error, as RFC 9457 has it."""

    type = ma.fields.String(required=True)
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    code = ma.fields.String(required=True, metadata={"description": "Stable; what a program decides by."})
    detail = ma.fields.String(required=True)
    errors = ma.fields.List(ma.fields.Nested(ProblemErrorSchema))
    waiting_helps = ma.fields.Boolean(
        metadata={"description": "Of a refusal of the platform's: whether it may be sent later."}
    )
    advice = ma.fields.String(metadata={"description": "Of a refusal of the platform's: what to do."})


class SightingSchema(ma.Schema):
    """What receipts and replies share."""

    id = ma.fields.String(required=True)
    message_id = ma.fields.String(required=True, allow_none=True)
    account = ma.fields.String(required=True)
    task_id = ma.fields.String(required=True)
    mobile = ma.fields.String(required=True)
    received_at = OurTime(required=True)
    last_seen_at = OurTime(required=True)
    copies = ma.fields.Integer(required=True, metadata={"description": "How often it was pushed."})
    extra = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        required=True,
        metadata={"description": "Fields that the platform's page does not name."},
    )
    push_id = ma.fields.String(required=True, metadata={"description": "The push that first brought it."})


def list_schema(item: type[ma.Schema], name: str) -> type[ma.Schema]:
    """The schema of a page of items."""
    return ma.Schema.from_dict(
        {
            "items": ma.fields.List(ma.fields.Nested(item), required=True),
            "next_cursor": ma.fields.String(required=True, allow_none=True),
        },
        name=name,
    )


MESSAGE_STATUSES = [status.value for status in MessageStatus]
RECEIPT_STATUSES = ["delivered", "failed", "unknown"]


PROBLEMS: Mapping[int, str] = {
    400: "The body is not JSON.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "Nothing is there.",
    409: "A given value differs from the recorded one.",
    413: "The body is over 4 MiB.",
    415: "The body is not declared as JSON.",
    422: "Some input cannot be used; `errors` names it.",
    429: "Too many wrong keys came from this address; try again after `Retry-After` seconds.",
    502: "The platform was not reached, or said nothing that can be read; `code` says which.",
    504: "The platform did not answer in time; the message may have been sent.",
    503: "The database is unavailable; try again after `Retry-After` seconds.",
}
