"""The filters of lists, as the API's queries and the console's URLs have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma

from receiver.core import InputFault, Outcome
from receiver.messages.queries import MESSAGE_STATUSES, RECEIPT_STATUSES
from receiver.web.lists.fields import InputTime, MobileField, OneOf, StrictBoolean, Text, WholeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping

PUSH_OUTCOMES = [Outcome.ACCEPTED.value, Outcome.QUARANTINED.value]
DEFAULT_LIMIT, MAX_LIMIT = 50, 1000


_SPANS = (
    ("sent_from", "sent_to"),
    ("updated_from", "updated_to"),
    ("received_from", "received_to"),
    ("since", "until"),
)


class StrictSchema(ma.Schema):
    """Rejects unknown fields, and spans that end before they begin."""

    error_messages = {"unknown": InputFault.UNKNOWN_FIELD}  # noqa: RUF012  (as in the base class)

    class Meta:
        unknown = ma.RAISE

    @ma.validates_schema
    def _check_spans(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        for begin, end in _SPANS:
            if begin in data and end in data and data[end] < data[begin]:
                raise ma.ValidationError(InputFault.BEFORE_ITS_BEGIN.format(begin=begin), end)


class PageSchema(StrictSchema):
    """Limit and cursor of a list."""

    limit = WholeNumber(
        load_default=DEFAULT_LIMIT,
        validate=ma.validate.Range(1, MAX_LIMIT),
        metadata={"description": "Maximum number of items."},
    )
    cursor = Text(
        max_chars=1000,
        metadata={"description": "`next_cursor` of the previous page, with the same filters; empty: the first page."},
    )

    @ma.post_load
    def _drop_empty_cursor(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Begin where a script has no cursor yet, as `/events` does."""
        return {name: value for name, value in data.items() if (name, value) != ("cursor", "")}


class AccountFilterSchema(PageSchema):
    """The filter by account, common to all lists."""

    account = Text(max_chars=64, metadata={"description": "One of the configured accounts."})


class ReceivedFilterSchema(AccountFilterSchema):
    """Filters of lists of pushed items."""

    received_from = InputTime(metadata={"description": "Received at or after this time."})
    received_to = InputTime(metadata={"description": "Received before this time."})


class InboundEventFilterSchema(ReceivedFilterSchema):
    """Filters of receipts and replies."""

    mobile = MobileField()
    task_id = Text(max_chars=64)
    matched = StrictBoolean(metadata={"description": "Whether the message's send is recorded."})


class MessageFilterSchema(AccountFilterSchema):
    """Filters of messages."""

    mobile = MobileField()
    task_id = Text(max_chars=64)
    status = ma.fields.String(validate=OneOf(MESSAGE_STATUSES))
    late = StrictBoolean(metadata={"description": "Pending longer than `RECEIVER_LATE_AFTER_SECONDS`."})
    template_id = Text()
    reference = Text()
    sent_from = InputTime(metadata={"description": "Sent at or after this time.", "example": "2026-11-01"})
    sent_to = InputTime(metadata={"description": "Sent before this time.", "example": "2026-12-01"})
    updated_from = InputTime(
        metadata={
            "description": "Changed at or after this time, the oldest change first. To keep a copy, begin with"
            " `1970-01-01` and go on from the highest `updated_at` that was read: no change is missed. A first reading"
            " without it may miss some. Changes that come while the pages are read are left for the next time.",
            "example": "2026-11-23T01:02:03.456Z",
        }
    )
    updated_to = InputTime(metadata={"description": "Last changed before this time.", "example": "2026-12-01"})
    matched = StrictBoolean(metadata={"description": "Whether the send is recorded."})
    conflicting = StrictBoolean(metadata={"description": "Whether both delivered and failed were reported."})


class ReceiptFilterSchema(InboundEventFilterSchema):
    """Filters of receipts."""

    status = ma.fields.String(validate=OneOf(RECEIPT_STATUSES))


class ReplyFilterSchema(InboundEventFilterSchema):
    """Filters of replies."""

    q = Text(metadata={"description": "Text that the content contains, case-insensitive."})
    opt_out = StrictBoolean(metadata={"description": "Whether the reply is an opt-out."})
    opt_out_review = StrictBoolean(metadata={"description": "Whether the reply may be an opt-out and needs a review."})


class PushFilterSchema(ReceivedFilterSchema):
    """Filters of the journal."""

    outcome = ma.fields.String(validate=OneOf(PUSH_OUTCOMES))


class AuditFilterSchema(PageSchema):
    """Filters of the audit log."""

    actor = Text(metadata={"description": "`user:NAME`, `key:NAME`, `cli`, …"})
    action = Text(metadata={"description": "`look_up`, `number.reveal`, `denied`, …"})
    mobile = MobileField(metadata={"description": "Entries about this number, which is stored as a keyed hash."})
    since = InputTime(metadata={"description": "Then or later."})
    until = InputTime(metadata={"description": "Before then."})
